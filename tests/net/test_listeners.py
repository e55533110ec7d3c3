"""
A port that can't take who comes: a real one, on a clock that is moved by hand.
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

from usbgate.net.listeners import REST, TOLD_INTERVAL, Listeners


class FewReactor(Clock):
    """
    Listens, knows who reads, and tells nobody that there is something to read.
    """

    def __init__(self) -> None:
        super().__init__()
        self.readers: set[Any] = set()

    def listenTCP(self, port: int, factory: Any, backlog: int = 50, interface: str = "") -> Port:
        """
        Listen.
        """
        listening = Port(port, factory, backlog, interface, self)
        listening.startListening()
        return listening

    def addReader(self, reader: Any) -> None:
        """
        Read it.
        """
        self.readers.add(reader)

    def removeReader(self, reader: Any) -> None:
        """
        Read it no more.
        """
        self.readers.discard(reader)

    def removeWriter(self, writer: Any) -> None:
        """
        Nothing is written.
        """


class Barren:
    """
    A listening socket of a system that has nothing left.
    """

    def __init__(self, number: int) -> None:
        self._number = number

    def accept(self) -> tuple[socket.socket, object]:
        """
        Fail.
        """
        raise OSError(self._number, "")


class PortsTests(SynchronousTestCase):
    """
    Nothing is left to take a connection with.
    """

    def setUp(self) -> None:
        """
        Listen.
        """
        self.reactor = FewReactor()
        self.ports = Listeners(self.reactor, ["tcp:0:interface=127.0.0.1"], Factory.forProtocol(Protocol))
        self.ports.privilegedStartService()
        [self.port] = self.reactor.readers
        self.socket = self.port.socket

    def tearDown(self) -> None:
        """
        At the end nothing is left.
        """
        self.port.socket = self.socket
        stopped = self.ports.stopService()
        self.reactor.advance(0)
        self.successResultOf(stopped)
        self.assertEqual((self.reactor.getDelayedCalls(), self.reactor.readers), ([], set()))

    def test_rests(self) -> None:
        """
        The port takes nobody for a while, instead of trying at once and for ever; then it tries again.
        """
        self.port.socket = Barren(errno.ENFILE)
        for _ in range(3):
            self.assertIn(self.port, self.reactor.readers)
            self.port.doRead()
            self.assertNotIn(self.port, self.reactor.readers)
            self.reactor.advance(REST)
        self.port.doRead()  # and is stopped meanwhile

    def test_said_now_and_then(self) -> None:
        """
        However many are not taken, it is said once a minute, with their number.
        """
        self.port.socket = Barren(errno.ENFILE)
        with capturedLogs() as said:
            self.port.doRead()
            self.assertEqual([*map(formatEvent, said)], ["1 connections could not be taken: ENFILE"])
            for _ in range(59):
                self.reactor.advance(REST)
                self.port.doRead()
            self.assertEqual(len(said), 1)
            self.reactor.advance(TOLD_INTERVAL)
            self.port.doRead()
        self.assertEqual([*map(formatEvent, said[1:])], ["60 connections could not be taken: ENFILE"])
