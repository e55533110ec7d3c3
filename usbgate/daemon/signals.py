"""
The signals that end the daemon in good order.
"""

from __future__ import annotations

import signal
from types import FrameType
from typing import Any

from twisted.application.service import Service

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class EndingSignals(Service):
    """
    Ends the daemon by SIGINT and SIGTERM, from its start on, and once; by SIGHUP, which a terminal that is closed
    sends, as by SIGTERM.

    Twisted's own handlers are there only when the reactor runs: a signal that comes when parts are started already
    would end the process where it stands. And they are to be called once: a second Ctrl-C would put a traceback of
    theirs into the log.
    """

    def __init__(self, reactor: Any) -> None:
        """
        Change nothing yet.

        Args:
            reactor: Ends it: a `ReactorBase`.
        """
        self._reactor = reactor
        self._runs = False
        self._came: int | None = None

    def privilegedStartService(self) -> None:
        """
        Mind them; those that come now are heeded as soon as the reactor runs.
        """
        self._take()
        self._reactor.callWhenRunning(self._running)

    def _take(self) -> None:
        for number in ENDING:
            # It is ignored where nohup has said that it must not end us.
            if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self._received)

    def _running(self) -> None:
        self._take()  # Twisted has taken some of them
        self._runs = True
        if self._came is not None:
            self._end(self._came)

    def _received(self, number: int, frame: FrameType | None) -> None:
        if self._came is None:
            self._came = number
            if self._runs:
                self._end(number)

    def _end(self, number: int) -> None:
        if number == signal.SIGINT:
            self._reactor.sigInt(number)
        else:
            self._reactor.sigTerm(signal.SIGTERM)
