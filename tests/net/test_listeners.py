"""
A port that can't accept connections: a real one, on a clock that is moved by hand.
"""

from __future__ import annotations

import errno
import socket
from typing import Any

from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from twisted.internet.tcp import Port
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from usbgate.net.listeners import ACCEPT_PAUSE, LOG_INTERVAL, Listeners


class FewReactor(Clock):
    """
    Records which ports it would poll, and polls none.
    """

    def __init__(self) -> None:
        super().__init__()
        self.readers: set[Any] = set()

    def listenTCP(self, port: int, factory: Any, backlog: int = 50, interface: str = "") -> Port:
        """
        Open a port.
        """
        listening = Port(port, factory, backlog, interface, self)
        listening.startListening()
        return listening

    def addReader(self, reader: Any) -> None:
        """
        Poll it.
        """
        self.readers.add(reader)

    def removeReader(self, reader: Any) -> None:
        """
        Poll it no more.
        """
        self.readers.discard(reader)

    def removeWriter(self, writer: Any) -> None:
        """
        Nothing is written.
        """


class FullSocket:
    """
    A listening socket of a system that has no file descriptor left.
    """

    def __init__(self, number: int) -> None:
        self._number = number

    def accept(self) -> tuple[socket.socket, object]:
        """
        Fail.
        """
        raise OSError(self._number, "")


class AcceptErrorTests(SynchronousTestCase):
    """
    There is no file descriptor left to accept a connection with.
    """

    def setUp(self) -> None:
        """
        Open a port.
        """
        self.reactor = FewReactor()
        self.ports = Listeners(self.reactor, ["tcp:0:interface=127.0.0.1"], Factory.forProtocol(Protocol))
        self.ports.privilegedStartService()
        [self.port] = self.reactor.readers
        self.socket = self.port.socket

    def tearDown(self) -> None:
        """
        Once stopped, no timer and no open port is left.
        """
        self.port.socket = self.socket
        stopped = self.ports.stopService()
        self.reactor.advance(0)
        self.successResultOf(stopped)
        self.assertEqual((self.reactor.getDelayedCalls(), self.reactor.readers), ([], set()))

    def test_pauses(self) -> None:
        """
        The port pauses instead of trying again at once, for ever; then it tries again.
        """
        self.port.socket = FullSocket(errno.ENFILE)
        for _ in range(3):
            self.assertIn(self.port, self.reactor.readers)
            self.port.doRead()
            self.assertNotIn(self.port, self.reactor.readers)
            self.reactor.advance(ACCEPT_PAUSE)
        self.port.doRead()  # and is stopped during the pause

    def test_logged_at_intervals(self) -> None:
        """
        However many connections are not accepted, one line a minute is logged, with their number.
        """
        self.port.socket = FullSocket(errno.ENFILE)
        with capturedLogs() as logged:
            self.port.doRead()
            self.assertEqual([*map(formatEvent, logged)], ["1 connections could not be accepted: ENFILE"])
            for _ in range(59):
                self.reactor.advance(ACCEPT_PAUSE)
                self.port.doRead()
            self.assertEqual(len(logged), 1)
            self.reactor.advance(LOG_INTERVAL)
            self.port.doRead()
        self.assertEqual([*map(formatEvent, logged[1:])], ["60 connections could not be accepted: ENFILE"])
