"""
What marks of the clocks tell: which stretches are wrong, and by how much.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from usbgate.core.clockmarks import Stretch, plan
from usbgate.core.model import ClockMark

NOW = 1_800_000_000_000  # ms


def mark(seq: int, at: int, uptime: float, clock: bool, boot: str = "a") -> tuple[int, ClockMark]:
    """
    Make a mark with its number.
    """
    return seq, ClockMark(at, uptime, boot, clock)


class PlanTests(SynchronousTestCase):
    """
    From marks to stretches.
    """

    def test_start_in_1970(self) -> None:
        """
        What came before the clock was set is behind by as much as the clock jumped beside the machine's own.
        """
        marks = [mark(1, 20_000, 20.0, False), mark(8, NOW, 50.5, True)]
        self.assertEqual(plan(marks), [Stretch(1, 7, NOW - 50_500)])

    def test_set_wrong(self) -> None:
        """
        A clock that was right before tells as well, both ways; what is right is left alone.
        """
        marks = [mark(1, NOW, 100.0, True), mark(5, NOW + 3_600_000, 160.25, False)]
        self.assertEqual(plan(marks), [Stretch(5, None, 60_250 - 3_600_000)])
        self.assertEqual(plan(marks[:1]), [])
        self.assertEqual(plan([]), [])

    def test_right_and_not_known_to_be(self) -> None:
        """
        Where it turns out that the clock was right all the time, nothing is to be moved.
        """
        marks = [mark(1, NOW, 100.0, False), mark(5, NOW + 30_000, 130.0, True)]
        self.assertEqual(plan(marks), [Stretch(1, 4, 0)])

    def test_other_start(self) -> None:
        """
        Another start of the machine tells nothing, nor does a clock that is not right.
        """
        marks = [
            mark(1, 20_000, 20.0, False, "a"),
            mark(5, 10_000, 10.0, False, "b"),
            mark(9, 20_000, 9000.0, False, "b"),
            mark(12, NOW, 10.0, True, "c"),
        ]
        self.assertEqual(plan(marks), [Stretch(1, 4, None), Stretch(5, 8, None), Stretch(9, 11, None)])

    def test_the_nearest(self) -> None:
        """
        Of several right moments the nearest counts.
        """
        marks = [
            mark(1, NOW, 0.0, True),
            mark(5, 1000, 60.0, False),
            mark(9, NOW + 100_000 + 7, 100.0, True),
            mark(12, 1000, 5000.0, False),
            mark(20, NOW + 86400_000 + 99, 86400.0, True),
        ]
        self.assertEqual(plan(marks), [Stretch(5, 8, NOW + 7 + 59_000), Stretch(12, 19, NOW + 7 + 4_999_000)])
