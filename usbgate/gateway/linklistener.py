"""
What happens on the link of one device, as decisions of its `PendingRequests`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from zope.interface import implementer

from usbgate.core.errors import RequestError
from usbgate.core.model import UNKNOWN_BOARD, BoardKind, Report, Request
from usbgate.device.interfaces import ILinkListener
from usbgate.gateway.routing import Route

if TYPE_CHECKING:
    from usbgate.gateway.gateway import Gateway


@implementer(ILinkListener)
class LinkListener:
    """
    Listens to the link of one device.
    """

    def __init__(self, gateway: Gateway, route: Route) -> None:
        """
        Args:
            gateway: Carries out what is decided.
            route: The device.
        """
        self._gateway = gateway
        self.route = route
        self._pending = route.pending
        self._seconds = gateway.seconds

    def link_up(self, board: BoardKind = UNKNOWN_BOARD) -> None:
        self.route.silent = False
        now = self._seconds()
        self._gateway.act(self.route, self._pending.link_up(now, board), now)

    def board_started(self) -> None:
        now = self._seconds()
        self._gateway.act(self.route, self._pending.board_started(now), now)

    def link_down(self, reason: str) -> None:
        now = self._seconds()
        self._gateway.act(self.route, self._pending.link_down(now), now)

    def link_drained(self) -> None:
        now = self._seconds()
        self._gateway.act(self.route, self._pending.release(now), now)

    def request_refused(self, request: Request, error: RequestError) -> None:
        self._pending.refuse(self.route.swapped.request(request).question, error)

    def request_unwritten(self, request: Request) -> None:
        self._pending.leave_unwritten(self.route.swapped.request(request).question)

    def link_silent(self) -> None:
        self.route.silent = True
        self._gateway.update_state(self.route)

    def link_active(self) -> None:
        self.route.silent = False
        self._gateway.update_state(self.route)

    def reports_received(self, reports: Sequence[Report]) -> None:
        stamp, now = self._gateway.stamp(), self._seconds()
        if self.route.swapped.swaps:
            reports = self.route.swapped.reports(reports)
        self._gateway.act(self.route, self._pending.received(reports, now, stamp.at), now, stamp)

    def line_malformed(self, line: bytes, reason: str) -> None:
        self._gateway.add_malformed(self.route.link.name, line, reason)
