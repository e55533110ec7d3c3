"""
A serial port on a pty, for tests of the endpoint and its transport.
"""

from __future__ import annotations

from typing import Any

from twisted.internet import reactor as global_reactor
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import deferLater
from twisted.python.failure import Failure
from twisted.trial import unittest

from tests.support.board import Board
from tests.support.waiting import until
from usbgate.device.endpoint import SerialEndpoint
from usbgate.device.serialport import SerialTransport

reactor: Any = global_reactor


class RecordingProtocol(Protocol):
    """
    Records its data, and why its connection was lost.
    """

    def __init__(self) -> None:
        self.data = b""
        self.lost: list[Failure] = []

    def dataReceived(self, data: bytes) -> None:
        """
        Record data.
        """
        self.data += data

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """
        Record the reason.
        """
        self.lost.append(reason)


class PortCase(unittest.TestCase):
    """
    A board on a pty, and an endpoint for it.
    """

    async def setUp(self) -> None:  # type: ignore[override]  # trial's may be asynchronous
        """
        Plug a board in. The reactor must run already: it opens descriptors of its own when it starts.
        """
        await deferLater(reactor, 0)
        self.board = Board(self.mktemp())
        self.addCleanup(self.board.unplug)
        self.endpoint = SerialEndpoint(reactor, self.board.path)

    async def open(self) -> tuple[RecordingProtocol, SerialTransport]:
        """
        Open the port; it is closed at the end of the test.
        """
        protocol = await self.endpoint.connect(Factory.forProtocol(RecordingProtocol))
        assert isinstance(protocol, RecordingProtocol)
        assert isinstance(protocol.transport, SerialTransport)
        self.addCleanup(self.close, protocol)
        return protocol, protocol.transport

    def close(self, protocol: RecordingProtocol) -> Deferred[None]:
        """
        Close the port, if it still is open.
        """
        assert protocol.transport is not None
        protocol.transport.loseConnection()
        return Deferred.fromCoroutine(until(lambda: protocol.lost))
