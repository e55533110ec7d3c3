"""
What is recorded of wrong tokens.
"""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from usbgate.access.failures import OTHERS, RECORD_INTERVAL, RECORDED_ADDRESSES, Failures
from usbgate.core.model import Action


class FailuresTests(SynchronousTestCase):
    """
    However many wrong tokens there are, the database grows by a few rows in a minute.
    """

    def setUp(self) -> None:
        """
        Start.
        """
        self.clock = Clock()
        self.recorded: list[Action] = []
        self.failures = Failures(self.clock, self.recorded.append)
        self.failures.startService()

    def add(self, host: str, count: int = 1) -> None:
        """
        Let a client at an address fail.
        """
        for _ in range(count):
            self.failures.add(host, f"phone@{host}:4711", "login", "no such token")

    def counted(self) -> list[tuple[str, str]]:
        """
        Return the address and the number of each row that is for several; forget all rows.
        """
        rows = [(action.client, action.details["COUNT"]) for action in self.recorded if action.details]
        self.recorded.clear()
        return rows

    def test_one_address(self) -> None:
        """
        The first one is a row at once, with all that is known; those of each minute are one row with their number. A
        quiet minute ends that.
        """
        self.add("10.0.0.7", 3)
        first = Action("login", "phone@10.0.0.7:4711", "10.0.0.7", {}, None, "denied")
        self.assertEqual(self.recorded, [first])
        self.clock.advance(RECORD_INTERVAL)
        self.assertEqual(self.recorded, [first, Action("auth", "10.0.0.7", "10.0.0.7", {"COUNT": "2"}, None, "denied")])
        self.counted()
        self.add("10.0.0.7", 1000)
        self.assertEqual(self.recorded, [])
        self.clock.advance(RECORD_INTERVAL)
        self.assertEqual(self.counted(), [("10.0.0.7", "1000")])
        self.clock.advance(RECORD_INTERVAL)
        self.assertEqual((self.recorded, self.clock.getDelayedCalls()), ([], []))
        self.add("10.0.0.7")
        self.assertEqual(self.recorded, [first])

    def test_many_addresses(self) -> None:
        """
        So many addresses have rows of their own; all others are counted together. An IPv6 network counts as one.
        """
        for number in range(RECORDED_ADDRESSES - 1):
            self.add(f"10.0.0.{number}", 2)
        for number in range(1000):
            self.add(f"2001:db8::{number:x}")
        for number in range(1000):
            self.add(f"10.0.1.{number}")
        self.assertEqual(len(self.recorded), RECORDED_ADDRESSES + 1)
        self.clock.advance(RECORD_INTERVAL)
        rows = self.counted()
        self.assertEqual(len(rows), RECORDED_ADDRESSES + 1)
        self.assertEqual([count for _, count in rows[-2:]], ["999", "999"])
        self.assertEqual(rows[-1][0], OTHERS)

    def test_stop(self) -> None:
        """
        At the stop, the others are recorded.
        """
        self.add("10.0.0.7", 3)
        self.failures.stopService()
        self.assertEqual(self.counted(), [("10.0.0.7", "2")])
        self.assertEqual(self.clock.getDelayedCalls(), [])
