"""
What is left out on request: repeats of a line, and the middle of a run of equal readings.
"""

from __future__ import annotations

from itertools import groupby
from math import inf

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from usbgate.core import onchange
from usbgate.core.onchange import REPEAT_MEMORY, OnChangeFilter, RepeatFilter
from usbgate.testing import reading


class RepeatsTests(SynchronousTestCase):
    """
    The same bytes again.
    """

    def test_within(self) -> None:
        """
        A line is a repeat until its time is over, counted from the one that was handed on.
        """
        repeats = RepeatFilter(0.2)
        self.assertFalse(repeats.is_repeat(b"a", 1.0))
        repeats.heard(b"a", "20", 1.0)
        self.assertTrue(repeats.is_repeat(b"a", 1.0))
        self.assertTrue(repeats.is_repeat(b"a", 1.19))
        self.assertFalse(repeats.is_repeat(b"b", 1.1))
        self.assertFalse(repeats.is_repeat(b"a", 1.21))

    def test_asked(self) -> None:
        """
        What was asked since may be answered in the same words; other sensors' lines stay repeats.
        """
        repeats = RepeatFilter(0.2)
        repeats.asked("20")
        repeats.heard(b"a", "20", 1.0)
        repeats.heard(b"b", "21", 1.0)
        self.assertTrue(repeats.is_repeat(b"a", 1.0))
        repeats.asked("20")
        self.assertFalse(repeats.is_repeat(b"a", 1.0))
        self.assertTrue(repeats.is_repeat(b"b", 1.0))
        repeats.heard(b"a", "20", 1.0)
        self.assertTrue(repeats.is_repeat(b"a", 1.0))

    def test_memory(self) -> None:
        """
        Only so many lines and sensors are remembered.
        """
        repeats = RepeatFilter(1e9)
        for number in range(REPEAT_MEMORY + 1):
            repeats.asked(str(number))
            repeats.heard(b"%d" % number, str(number), 1.0)
        self.assertFalse(repeats.is_repeat(b"0", 1.0))
        self.assertTrue(repeats.is_repeat(b"1", 1.0))

    def test_memory_of_questions(self) -> None:
        """
        What was asked is forgotten when as many other sensors were asked since.
        """
        repeats = RepeatFilter(1e9)
        repeats.heard(b"a", "20", 1.0)
        repeats.asked("20")
        for number in range(REPEAT_MEMORY):
            self.assertFalse(repeats.is_repeat(b"a", 1.0), number)
            repeats.asked(f"other {number}")
        self.assertTrue(repeats.is_repeat(b"a", 1.0))


class ThinningTests(SynchronousTestCase):
    """
    Runs of equal readings.
    """

    def test_first_and_last(self) -> None:
        """
        Of a run the first is kept at once, and the last when the value changes, before the one that differs.
        """
        thinned = OnChangeFilter({"20": inf})
        run = [reading(21.5, at=at) for at in range(4)]
        other = reading(22.0, at=4)
        self.assertEqual([thinned.keep([each], 0.0) for each in run], [[run[0]], [], [], []])
        self.assertEqual(thinned.keep([other], 0.0), [run[3], other])
        self.assertEqual(thinned.keep([run[0]], 0.0), [run[0]])  # a run of one: its last was kept

    def test_at_least_every(self) -> None:
        """
        An equal reading is kept, too, when the one kept last is old enough.
        """
        thinned = OnChangeFilter({"20": 300.0})
        kept = [bool(thinned.keep([reading(1.0)], now)) for now in (0.0, 299.0, 300.0, 599.0, 601.0)]
        self.assertEqual(kept, [True, False, True, False, True])
        self.assertEqual(thinned.end(), [])

    def test_series(self) -> None:
        """
        Fields, devices and texts have runs of their own; sensors without a rule are left alone.
        """
        thinned = OnChangeFilter({"20": inf})
        mixed = [reading(1.0), reading("OK", field="BAT"), reading(1.0, device="attic")]
        self.assertEqual(thinned.keep(mixed, 0.0), mixed)
        low = reading("LOW", field="BAT")
        self.assertEqual(thinned.keep([reading(1.0), low], 0.0), [low])
        self.assertEqual(thinned.keep([], 0.0), [])
        free = [reading(1.0)._replace(sensor="21")] * 3
        self.assertEqual(thinned.keep(free, 0.0), free)

    def test_memory(self) -> None:
        """
        Only so many series are remembered; what was held back of one that is forgotten is kept.
        """
        self.patch(onchange, "SERIES", 2)
        thinned = OnChangeFilter({"20": inf})
        last = reading(1.0, field="A", at=1)
        thinned.keep([reading(1.0, field="A"), reading(1.0, field="B"), last], 0.0)
        third = reading(1.0, field="C")
        self.assertEqual(thinned.keep([third], 0.0), [last, third])
        self.assertEqual(thinned.keep([third, last], 0.0), [last])  # the other one was forgotten

    @given(st.lists(st.integers(0, 2)), st.sampled_from([3.0, inf]))
    def test_every_order(self, values: list[int], most: float) -> None:
        """
        Whatever comes, in the end the first and the last of each run are kept, once and in order, and no two neighbours
        differ that did not follow each other.
        """
        thinned = OnChangeFilter({"20": most})
        told = [reading(float(value), at=at) for at, value in enumerate(values)]
        kept = [each for one in told for each in thinned.keep([one], float(one.at))] + thinned.end()
        times = [each.at for each in kept]
        self.assertEqual(times, sorted(set(times)))
        for _, run in groupby(told, lambda each: each.value):
            members = list(run)
            self.assertIn(members[0], kept)
            self.assertIn(members[-1], kept)
            if most == inf:
                self.assertEqual(sum(members[0].at <= at <= members[-1].at for at in times), min(2, len(members)))
            else:
                middle = [at for at in times if members[0].at <= at < members[-1].at]
                self.assertEqual(middle, list(range(members[0].at, members[-1].at, 3)))
