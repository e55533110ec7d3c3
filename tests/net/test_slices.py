"""
Slices of reactor turns.
"""

from __future__ import annotations

from twisted.internet.defer import CancelledError
from twisted.trial.unittest import SynchronousTestCase

from tests.support.turnclock import TurnClock
from usbgate.net.slices import TURN, Slices


class SlicesTests(SynchronousTestCase):
    """
    Who works when.
    """

    def setUp(self) -> None:
        """
        Nobody works yet.
        """
        self.clock = TurnClock()
        self.slices = Slices(self.clock)
        self.worked: list[str] = []

    def work(self, name: str, takes: float, again: int = 0) -> None:
        """
        Wait for a slice, work that long, and do it again.
        """

        def slice_came(_: None) -> None:
            self.worked.append(name)
            self.clock.rightNow += takes
            if again:
                self.work(name, takes, again - 1)

        self.slices.next().addCallback(slice_came)

    def test_in_turn(self) -> None:
        """
        All work in turn, and none twice in one turn of the reactor.
        """
        for name in "abc":
            self.work(name, 0, again=2)
        for turn in range(1, 4):
            self.clock.turn()
            self.assertEqual("".join(self.worked), "abc" * turn)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_bounded(self) -> None:
        """
        However many there are, they get so much of a turn; those who are left come first in the next one.
        """
        for name in "abcdefg":
            self.work(name, TURN * 0.4, again=1)
        for expected in ("abc", "def", "gab", "cde", "fg"):
            self.worked.clear()
            self.clock.turn()
            self.assertEqual("".join(self.worked), expected)

    def test_at_once(self) -> None:
        """
        Work begins at once while a turn has time for it, and nobody waits; so has the next turn.
        """
        for _ in range(2):
            for expected in (True, True, False):
                self.assertEqual(self.slices.has_time, expected)
                self.clock.spend(TURN * 0.5)
            self.clock.turn()
        self.assertTrue(self.slices.has_time)
        self.work("a", 0)
        self.assertFalse(self.slices.has_time)
        self.clock.turn()
        self.assertEqual((self.worked, self.slices.has_time), (["a"], True))
        self.clock.turn()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_cancel(self) -> None:
        """
        Whoever cancels does not come, and holds up nobody.
        """
        cancelled = self.slices.next()
        self.work("a", 0)
        cancelled.cancel()
        self.failureResultOf(cancelled, CancelledError)
        self.clock.turn()
        self.assertEqual(self.worked, ["a"])
