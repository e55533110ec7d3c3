"""
HTTP connections: how long a request may take, and how many there may be.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IProtocolNegotiationFactory
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.resource import Resource

from tests.support.turnclock import TurnClock
from usbgate.net.slices import TURN
from usbgate.web.channel import REQUEST_LIMIT, STOP_LIMIT, WebSite

WHOLE = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"


class Answering(Resource):
    """
    Answers everything.
    """

    isLeaf = True

    def __init__(self, clock: TurnClock) -> None:
        """
        Args:
            clock: The clock.
        """
        super().__init__()
        self.takes = 0.0  # seconds for each answer
        self._clock = clock

    def render(self, request: Any) -> bytes:
        """
        Answer.
        """
        self._clock.spend(self.takes)
        return b"answer"


class ChannelCase(SynchronousTestCase):
    """
    A site with connections in memory.
    """

    def setUp(self) -> None:
        """
        Make the site.
        """
        self.clock = TurnClock()
        self.answering = Answering(self.clock)
        self.site = WebSite(self.clock, self.answering, 20, 2)

    def connect(self, host: str = "10.0.0.7") -> tuple[Any, StringTransport]:
        """
        Open a connection.
        """
        channel = self.site.buildProtocol(IPv4Address("TCP", host, 4711))
        transport = StringTransport(peerAddress=IPv4Address("TCP", host, 4711))
        channel.makeConnection(transport)
        return channel, transport

    def trickle(self, channel: Any, transport: StringTransport, data: bytes) -> float:
        """
        Send data byte by byte, one each 5 seconds; return after how many seconds the connection is closed.
        """
        began = self.clock.seconds()
        for n in range(len(data)):
            if transport.disconnecting:
                break
            channel.dataReceived(data[n : n + 1])
            self.clock.advance(5)
        self.assertTrue(transport.disconnecting)
        return self.clock.seconds() - began


class DeadlineTests(ChannelCase):
    """
    How long a request may take.
    """

    def test_head(self) -> None:
        """
        A head that comes byte by byte ends in time, even if it begins late.
        """
        channel, transport = self.connect()
        self.clock.advance(REQUEST_LIMIT - 1)
        self.assertEqual(self.trickle(channel, transport, WHOLE), REQUEST_LIMIT)

    def test_body(self) -> None:
        """
        So does a body, for which head and body together have that time.
        """
        channel, transport = self.connect()
        channel.dataReceived(b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n")
        self.assertEqual(self.trickle(channel, transport, b"x" * 50), REQUEST_LIMIT)

    def test_idle(self) -> None:
        """
        So does a connection without a request, before the first one and behind another.
        """
        for data in (b"", WHOLE):
            channel, transport = self.connect()
            channel.dataReceived(data)
            self.clock.advance(REQUEST_LIMIT - 1)
            self.assertFalse(transport.disconnecting)
            self.clock.advance(1)
            self.assertTrue(transport.disconnecting)

    def test_each_request(self) -> None:
        """
        Each request has a time of its own.
        """
        channel, transport = self.connect()
        for _ in range(4):
            channel.dataReceived(WHOLE[:20])
            self.clock.advance(REQUEST_LIMIT - 1)
            channel.dataReceived(WHOLE[20:])
            self.assertIn(b"answer", transport.value())
            transport.clear()
        self.assertFalse(transport.disconnecting)


class PlaceTests(ChannelCase):
    """
    Who may connect.
    """

    def test_one_address(self) -> None:
        """
        An address that has too many connections gets status 429, and others are served.
        """
        channels = [self.connect() for _ in range(3)]
        self.assertTrue(channels[2][1].value().startswith(b"HTTP/1.1 429 "))
        self.assertIn(b"\r\nRetry-After: ", channels[2][1].value())
        self.assertTrue(channels[2][1].disconnecting)
        self.assertEqual([transport.value() for _, transport in channels[:2]], [b"", b""])
        channel, transport = self.connect("10.0.0.8")
        channel.dataReceived(WHOLE)
        self.assertIn(b"answer", transport.value())

    def test_this_machine(self) -> None:
        """
        Networks that take all their places leave some to this machine, and take none of its connections.
        """
        local = [self.connect("127.0.0.1")[1] for _ in range(3)]
        others = [self.connect(f"10.0.0.{n}")[1] for n in range(30)]
        self.assertEqual([transport.disconnected for transport in local], [False] * 3)
        self.assertEqual(sum(not transport.disconnected for transport in others), 17)
        channel, transport = self.connect("127.0.0.1")
        channel.dataReceived(WHOLE)
        self.assertIn(b"answer", transport.value())


class StopTests(ChannelCase):
    """
    The end of all connections.
    """

    def test_in_time(self) -> None:
        """
        The site has stopped after a while, even if a connection never reports its end.
        """
        (gone, _), (stuck, transport) = self.connect(), self.connect()
        stopped = self.site.leave()
        gone.connectionLost(Failure(ConnectionDone()))
        self.assertNoResult(stopped)
        self.clock.advance(STOP_LIMIT)
        self.successResultOf(stopped)
        self.assertTrue(transport.disconnected)
        stuck.connectionLost(Failure(ConnectionDone()))  # late


class TurnTests(ChannelCase):
    """
    How long requests may take in one reactor turn.
    """

    def test_many(self) -> None:
        """
        However many clients send a request, each turn answers some, in their order; who disconnects before is not
        answered.
        """
        self.answering.takes = TURN * 0.4
        channels = [self.connect("127.0.0.1") for _ in range(8)]
        for channel, _ in channels:
            channel.dataReceived(WHOLE)
        channels[4][0].connectionLost(Failure(ConnectionDone()))
        for answered in (3, 7, 8):
            self.assertEqual([n for n in range(8) if channels[n][1].value()], [n for n in range(answered) if n != 4])
            self.clock.turn()


class TlsTests(ChannelCase):
    """
    Connections over TLS.
    """

    def test_no_negotiation(self) -> None:
        """
        No protocol is negotiated: Twisted would set callbacks, for which systemd may deny the memory.
        """
        self.assertFalse(IProtocolNegotiationFactory.providedBy(self.site))

    def test_after_a_bad_request(self) -> None:
        """
        What follows a bad request, and comes although the connection is closed, as it does over TLS, is dropped.
        """
        channel, transport = self.connect()
        channel.dataReceived(b"ping\r\n")
        self.assertTrue(transport.disconnecting)
        response = transport.value()
        self.assertTrue(response.startswith(b"HTTP/1.1 400 "))
        for chunk in (b"status\r\n", b"\r\n", WHOLE):
            channel.dataReceived(chunk)
        self.clock.turn()
        self.assertEqual(transport.value(), response)
