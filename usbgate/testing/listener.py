"""
A listener of a link that records its calls.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from zope.interface import implementer

from usbgate.core.errors import RequestError
from usbgate.core.model import UNKNOWN_BOARD, BoardKind, Report, Request
from usbgate.device.interfaces import ILinkListener


@implementer(ILinkListener)
class RecordingListener:
    """
    Records the calls of a link.

    Attributes:
        calls: The calls, in order: `("up",)`, `("started",)`, `("down", reason)`, `("drained",)`,
            `("refused", request, code, text)`, `("unwritten", request)`, `("silent",)`, `("active",)`,
            `("reports", report, …)` and `("malformed", line, reason)`.
    """

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []

    def link_up(self, board: BoardKind = UNKNOWN_BOARD) -> None:
        self.calls.append(("up",))

    def board_started(self) -> None:
        self.calls.append(("started",))

    def link_down(self, reason: str) -> None:
        self.calls.append(("down", reason))

    def link_drained(self) -> None:
        self.calls.append(("drained",))

    def request_refused(self, request: Request, error: RequestError) -> None:
        self.calls.append(("refused", request, error.code, str(error)))

    def request_unwritten(self, request: Request) -> None:
        self.calls.append(("unwritten", request))

    def link_silent(self) -> None:
        self.calls.append(("silent",))

    def link_active(self) -> None:
        self.calls.append(("active",))

    def reports_received(self, reports: Sequence[Report]) -> None:
        self.calls.append(("reports", *reports))

    def line_malformed(self, line: bytes, reason: str) -> None:
        self.calls.append(("malformed", line, reason))
