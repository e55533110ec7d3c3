"""
The signals that stop the daemon, and those that have it reopen its log and read its configuration anew.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from types import FrameType
from typing import Any

from twisted.application.service import Service

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def has_terminal() -> bool:
    """
    Return whether this process has a controlling terminal that is still there (tty(4)).
    """
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC))
    except OSError:
        return False
    return True


class Signals(Service):
    """
    Stops the reactor at the first SIGINT or SIGTERM, or at a SIGHUP because the daemon's terminal was closed. Any other
    SIGHUP, and SIGUSR1, reopen the log; that SIGHUP has the configuration read anew, too.

    Twisted installs its handlers only when the reactor runs, so that a signal while services start would kill the
    process. And a second Ctrl-C would make them log a traceback.
    """

    def __init__(
        self,
        reactor: Any,
        reopen_log: Callable[[], None],
        reload: Callable[[], None] = lambda: None,
        has_terminal: Callable[[], bool] = has_terminal,
    ) -> None:
        """
        Args:
            reactor: A `ReactorBase`.
            reopen_log: Reopens the log.
            reload: Reads the configuration anew, at a SIGHUP.
            has_terminal: See above.
        """
        self._reactor = reactor
        self._reopen_log = reopen_log
        self._reload = reload
        self._has_terminal = has_terminal
        self._began_on_terminal = False
        self._stops: dict[int, Callable[[int], object]] = {}  # Twisted's own handlers, by their signals
        self._runs = False
        self._received: int | None = None

    def privilegedStartService(self) -> None:
        """
        Install the handlers. A signal that arrives before the reactor runs stops it as soon as it does.
        """
        self._began_on_terminal = self._has_terminal()
        # Twisted replaces the handler of SIGTERM by this one when the reactor begins to run: by ours.
        self._stops = {signal.SIGINT: self._reactor.sigInt, signal.SIGTERM: self._reactor.sigTerm}
        self._reactor.sigInt = self._reactor.sigTerm = self._handle
        for number in ENDING:
            # nohup has it ignored, so that the daemon outlives its terminal.
            if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self._handle)
        if signal.getsignal(signal.SIGUSR1) in (None, signal.SIG_DFL):
            signal.signal(signal.SIGUSR1, lambda number, frame: self._reopen_log())
        # Before anything that waits for the reactor to run.
        self._reactor.addSystemEventTrigger("during", "startup", self._reactor_runs)

    def _reactor_runs(self) -> None:
        self._runs = True
        if self._received is not None:
            self._stop(self._received)

    def _handle(self, number: int, frame: FrameType | None = None) -> None:
        if number == signal.SIGHUP and not (self._began_on_terminal and not self._has_terminal()):
            self._reopen_log()
            self._reactor.callFromThread(self._reload)  # in a turn of its own, not within whatever runs now
        elif self._received is None:
            self._received = number
            if self._runs:
                self._stop(number)

    def _stop(self, number: int) -> None:
        stops, self._stops = self._stops, {}
        if stops:  # otherwise the signal came while `_reactor_runs` was about to look for it
            number = signal.SIGINT if number == signal.SIGINT else signal.SIGTERM
            stops[number](number)
