"""
Protocol §4.12: questions that are held until their sensors report, as clients see them.
"""

from __future__ import annotations

from twisted.internet.defer import Deferred

from tests.support.gateway import WALL, GatewayCase
from usbgate.core.errors import LimitExceeded, NotHeard, NotHeld
from usbgate.core.holders import Holder
from usbgate.core.model import Answer, RequestRecord
from usbgate.gateway.held import HELD_IN_ALL, HELD_PER_ADDRESS
from usbgate.testing import report


class HeldTests(GatewayCase):
    """
    A gateway with two devices, which are online.
    """

    names = ("leonardo", "uno")

    def setUp(self) -> None:
        """
        Bring the devices online.
        """
        super().setUp()
        for link in self.links.values():
            link.listener.link_up()

    def hold(self, command: str = "J", holder: Holder | None = None) -> Deferred[Answer]:
        """
        Hold a question for the sensor 7 of the first device.
        """
        return self.ask(f"MSG:{command}_ID:7_DEV:leonardo_ORIGIN:TOTO_WHEN:heard", holder)

    def held(self) -> list[int]:
        """
        Return the numbers of what is held.
        """
        return [held.number for held in self.gateway.queries.held()]

    def test_listed(self) -> None:
        """
        What is held is listed with its number, oldest first, until it is sent, and counted in the status; then it is in
        flight. It is stored when it ends, with the time since it was asked.
        """
        asked = self.hold()
        self.clock.advance(1.0)
        failing = self.ask("MSG:L_ID:7_LEVEL:5_DEV:uno_WHEN:heard_TIMEOUT:604800")
        first, second = self.gateway.queries.held()
        self.assertEqual((first.number, first.request.question.command, first.device), (1, "J", "leonardo"))
        self.assertEqual((first.at, first.until), (WALL, WALL + 3_600_000))
        self.assertEqual((second.number, second.at, second.until - second.at), (2, WALL + 1000, 604_800_000))
        status = self.gateway.queries.status()
        self.assertEqual((status.held, status.in_flight), (2, 0))
        self.clock.advance(599.0)
        self.receive(("7", "1"))
        self.assertIn(("send", "leonardo", "J", "7"), self.events)
        status = self.gateway.queries.status()
        self.assertEqual((status.held, status.in_flight, self.held()), (1, 1, [2]))
        self.link.listener.reports_received([report("7", "J")])
        self.assertEqual(self.successResultOf(asked).command, "J")
        (row,) = [row for row in self.journal.rows if isinstance(row, RequestRecord)]
        self.assertEqual((row.at, row.outcome, row.latency_ms), (WALL, "answered", 600_000.0))
        self.assertNoResult(failing)
        failing.addErrback(lambda failure: None)

    def test_cancel(self) -> None:
        """
        What is cancelled fails, is stored so, and is not sent; what was sent, or is over, can't be cancelled.
        """
        cancelled, sent = self.hold(), self.hold("K")
        self.gateway.cancel(1)
        self.failureResultOf(cancelled, Exception)
        self.receive(("7", "1"))
        self.assertEqual([event for event in self.events if event[0] == "send"], [("send", "leonardo", "K", "7")])  # type: ignore[index]
        rows = [row.outcome for row in self.journal.rows if isinstance(row, RequestRecord)]
        self.assertEqual(rows, ["cancelled"])
        for number in (1, 2, 3):
            self.assertRaises(NotHeld, self.gateway.cancel, number)
        self.assertNoResult(sent)

    def test_limits(self) -> None:
        """
        There are so many of an address and in all; beyond that a question is refused, until one has ended.
        """
        for _ in range(HELD_PER_ADDRESS):
            self.hold(holder=Holder("10.0.0.1")).addErrback(lambda failure: None)
        self.failureResultOf(self.hold(holder=Holder("10.0.0.1")), LimitExceeded)
        self.gateway.cancel(1)
        held = self.hold(holder=Holder("10.0.0.1"))
        self.assertNoResult(held)
        for n in range(HELD_IN_ALL - HELD_PER_ADDRESS):
            self.hold(holder=Holder(f"10.0.1.{n % 200}")).addErrback(lambda failure: None)
        self.failureResultOf(self.hold(holder=Holder("10.0.0.2")), LimitExceeded)
        self.clock.advance(3600.0)
        self.failureResultOf(held, NotHeard)
        self.assertEqual(self.held(), [])
        self.assertNoResult(self.hold(holder=Holder("10.0.0.1")))

    def test_disconnected(self) -> None:
        """
        A question goes on to be held when its connection is gone, and still counts for its address.
        """
        holder = Holder("10.0.0.1")
        for _ in range(HELD_PER_ADDRESS):
            asked = self.hold(holder=holder)
            asked.addErrback(lambda failure: None)
            asked.cancel()  # as HTTP does
        self.gateway.disconnected(holder)
        self.assertEqual(self.held(), list(range(1, HELD_PER_ADDRESS + 1)))
        self.failureResultOf(self.hold(holder=Holder("10.0.0.1")), LimitExceeded)
        self.gateway.cancel(1)
        self.receive(("7", "1"))
        self.assertIn(("send", "leonardo", "J", "7"), self.events)

    def test_stop(self) -> None:
        """
        When usbgate stops it fails with `stopped`.
        """
        asked = self.hold()
        self.gateway.stopService()
        self.assertEqual(self.failureResultOf(asked).value.code, "stopped")
        self.assertEqual(self.held(), [])
