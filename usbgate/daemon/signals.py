"""
The signals that stop the daemon.
"""

from __future__ import annotations

import signal
from types import FrameType
from typing import Any

from twisted.application.service import Service

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class EndingSignals(Service):
    """
    Stops the reactor at the first SIGINT, SIGTERM or SIGHUP, which a terminal sends when it is closed.

    Twisted installs its handlers only when the reactor runs, so that a signal while services start would kill the
    process. And a second Ctrl-C would make them log a traceback.
    """

    def __init__(self, reactor: Any) -> None:
        """
        Args:
            reactor: A `ReactorBase`.
        """
        self._reactor = reactor
        self._runs = False
        self._received: int | None = None

    def privilegedStartService(self) -> None:
        """
        Install the handlers. A signal that arrives before the reactor runs stops it as soon as it does.
        """
        self._install()
        self._reactor.callWhenRunning(self._reactor_runs)

    def _install(self) -> None:
        for number in ENDING:
            # nohup has it ignored, so that the daemon outlives its terminal.
            if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self._handle)

    def _reactor_runs(self) -> None:
        self._install()  # Twisted has replaced some of them
        self._runs = True
        if self._received is not None:
            self._stop(self._received)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._received is None:
            self._received = number
            if self._runs:
                self._stop(number)

    def _stop(self, number: int) -> None:
        if number == signal.SIGINT:
            self._reactor.sigInt(number)
        else:
            self._reactor.sigTerm(signal.SIGTERM)
