"""
Signals.
"""

from __future__ import annotations

import os
import signal

from twisted.trial.unittest import SynchronousTestCase

from usbgate.daemon.signals import Signals


class SignalReactor:
    """
    Records how it is stopped. At its start, it installs its handlers as Twisted's does.
    """

    def __init__(self, *while_starting: int) -> None:
        """
        Args:
            while_starting: Signals that arrive as soon as it has installed its handlers.
        """
        self.events: list[str] = []
        self._while_starting = while_starting

    def addSystemEventTrigger(self, phase: str, event: str, call: object) -> None:
        """
        Run at once.
        """
        assert callable(call)
        signal.signal(signal.SIGTERM, lambda number, frame: self.sigTerm(number))
        for number in self._while_starting:
            os.kill(os.getpid(), number)
        call()

    def callFromThread(self, call: object) -> None:
        """
        Call at once.
        """
        assert callable(call)
        call()

    def reload(self) -> None:
        """
        The configuration is read anew.
        """
        self.events.append("reload")

    def sigTerm(self, number: int) -> None:
        """
        Stop.
        """
        self.events.append("stop")

    sigInt = sigTerm

    def reopen(self) -> None:
        """
        The log is reopened.
        """
        self.events.append("reopen")


class SignalTests(SynchronousTestCase):
    """
    What each signal does.
    """

    def receive(
        self, *numbers: int, terminal: tuple[bool, bool] = (False, False), while_starting: tuple[int, ...] = ()
    ) -> list[str]:
        """
        Send signals to a service; return what it did.

        Args:
            numbers: The signals.
            terminal: Whether there is a terminal at the start, and whether there still is one then.
            while_starting: Signals that arrive before.
        """
        for each in (signal.SIGHUP, signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
            self.addCleanup(signal.signal, each, signal.getsignal(each))
        signal.signal(signal.SIGUSR1, signal.SIG_DFL)
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        states = iter(terminal)
        reactor = SignalReactor(*while_starting)
        Signals(reactor, reactor.reopen, reactor.reload, lambda: next(states)).privilegedStartService()
        for number in numbers:
            os.kill(os.getpid(), number)
        return reactor.events

    def test_reopen(self) -> None:
        """
        SIGHUP and SIGUSR1 reopen the log and end nothing, also on a terminal that is there; SIGHUP reloads.
        """
        self.assertEqual(self.receive(signal.SIGHUP, signal.SIGUSR1), ["reopen", "reload", "reopen"])
        self.assertEqual(self.receive(signal.SIGHUP, terminal=(True, True)), ["reopen", "reload"])

    def test_closed_terminal(self) -> None:
        """
        SIGHUP stops a daemon whose terminal was closed.
        """
        self.assertEqual(self.receive(signal.SIGHUP, terminal=(True, False)), ["stop"])

    def test_stop(self) -> None:
        """
        The first of SIGTERM and SIGINT stops it; more change nothing.
        """
        self.assertEqual(self.receive(signal.SIGUSR1, signal.SIGTERM, signal.SIGINT), ["reopen", "stop"])
        self.assertEqual(self.receive(signal.SIGINT, while_starting=(signal.SIGTERM, signal.SIGTERM)), ["stop"])
