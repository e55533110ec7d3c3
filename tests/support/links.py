"""
A link to a device in memory.
"""

from __future__ import annotations

from collections.abc import Sequence

from twisted.internet.defer import Deferred, execute
from twisted.internet.interfaces import IProtocol, IProtocolFactory, IStreamClientEndpoint
from twisted.internet.protocol import connectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.logger import LogEvent, formatEvent
from twisted.trial import unittest
from zope.interface import implementer

from usbgate.device.dialects.fields import Dialect
from usbgate.device.link import Link
from usbgate.testing import RecordingListener, report

REPORT = report()


@implementer(IStreamClientEndpoint)
class MemoryEndpoint:
    """
    Connects to a transport in memory, or fails while it is `absent`.
    """

    def __init__(self) -> None:
        self.absent: Exception | None = None
        self.attempts = 0
        self.transport_class: type[StringTransport] = StringTransport

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        """
        Connect at once.
        """
        return execute(self._connect, protocolFactory)

    def _connect(self, factory: IProtocolFactory) -> IProtocol:
        self.attempts += 1
        if self.absent is not None:
            raise self.absent
        protocol = factory.buildProtocol(None)  # type: ignore[arg-type]  # the address is not used
        assert protocol is not None
        self.protocol = protocol
        self.transport = self.transport_class()
        protocol.makeConnection(self.transport)
        return protocol

    def say(self, data: bytes) -> None:
        """
        Send a chunk as the device.
        """
        self.protocol.dataReceived(data)

    def vanish(self) -> None:
        """
        End the connection.
        """
        self.protocol.connectionLost(connectionDone)


class LinkCase(unittest.TestCase):
    """
    A link to a device in memory, on a clock that the test moves.
    """

    def setUp(self) -> None:
        """
        Build a link.
        """
        self.clock = Clock()
        self.device = MemoryEndpoint()
        self.listener = RecordingListener()
        self.link = Link(self.clock, self.device, "board", "/dev/board", Dialect(), retry=lambda attempt: 1.0)
        self.link.listener = self.listener

    def open(self) -> None:
        """
        Start the link, and forget the calls that reported it.
        """
        self.link.startService()
        self.addCleanup(self.close)
        self.listener.calls.clear()

    def close(self) -> None:
        """
        Stop the link; no timer may be left.
        """
        stopped = self.link.stopService()
        if self.link.stopService().called is False:
            self.device.vanish()
        self.successResultOf(stopped)
        self.assertEqual(self.clock.getDelayedCalls(), [])


def texts(logs: Sequence[LogEvent]) -> list[str]:
    """
    Return the lines that log events give.
    """
    return [formatEvent(event) for event in logs]
