"""
Storing on change: the middle of a run of equal readings is left out.
"""

from __future__ import annotations

from itertools import groupby
from math import inf

from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.support.draws import given
from usbgate.core import onchange
from usbgate.core.onchange import OnChangeFilter
from usbgate.testing import reading


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

    def test_falling(self) -> None:
        """
        Values that fall are kept as they came: a lone 0, and an index that goes back.
        """
        thinned = OnChangeFilter({"20": inf})
        for values in ([12448.0, 0.0, 12448.0, 12448.001], [215.6, 215.7, 215.6]):
            came = [reading(value, at=at) for at, value in enumerate(values)]
            self.assertEqual([each for one in came for each in thinned.keep([one], 0.0)], came)

    def test_at_least_every(self) -> None:
        """
        An equal reading is kept, too, when the one kept last is old enough.
        """
        thinned = OnChangeFilter({"20": 300.0})
        kept = [bool(thinned.keep([reading(1.0)], now)) for now in (0.0, 299.0, 300.0, 599.0, 601.0)]
        self.assertEqual(kept, [True, False, True, False, True])
        self.assertEqual(thinned.end(), [])

    def test_devices(self) -> None:
        """
        A device's rule holds for its sensors that have none; a rule of 0 keeps all.
        """
        thinned = OnChangeFilter({"20": 0.0, "21": 10.0}, {"leonardo": inf})
        for sensor, device, kept in [("20", "leonardo", 2), ("21", "uno", 1), ("22", "leonardo", 1), ("22", "uno", 2)]:
            each = reading(1.0, sensor=sensor, device=device)
            self.assertEqual(len([*thinned.keep([each], 0.0), *thinned.keep([each], 1.0)]), kept, (sensor, device))

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
