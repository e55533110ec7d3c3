"""
Serial servers that speak RFC 2217; pyserial's server is at the other end.
"""

from __future__ import annotations

from typing import Any

from serial.rfc2217 import PortManager
from twisted.internet import reactor as global_reactor
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.error import ConnectionLost
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.logger import capturedLogs
from twisted.python.failure import Failure
from twisted.trial import unittest

from tests.support.links import REPORT, texts
from tests.support.waiting import until
from usbgate.core.model import Send
from usbgate.device.dialects.fields import Dialect
from usbgate.device.endpoint import open_device
from usbgate.device.interfaces import IResettable
from usbgate.device.link import Link
from usbgate.device.rfc2217 import REPLY_LIMIT, Rfc2217Endpoint
from usbgate.device.serialport import RESET_PULSE, PortSettings
from usbgate.testing import RecordingListener, request

reactor: Any = global_reactor

SETTINGS = PortSettings(1200, "7E2", "xon/xoff")
EVERY_BYTE = bytes(range(256)) * 2


class Port:
    """
    A serial port as pyserial's server sees it.
    """

    def __init__(self) -> None:
        self.baudrate = 9600
        self.bytesize = 8
        self.parity = "N"
        self.stopbits = 1.0
        self.xonxoff = self.rtscts = False
        self.cts = self.dsr = self.ri = self.cd = False
        self.dtr = True

    @property
    def settings(self) -> tuple[object, ...]:
        """
        How it is set.
        """
        return self.baudrate, self.bytesize, self.parity, self.stopbits, self.xonxoff, self.rtscts


class Server:
    """
    A serial server without a network.
    """

    def __init__(self) -> None:
        self.port = Port()
        self.sent = b""
        self.received = b""
        self.manager = PortManager(self.port, self)  # type: ignore[arg-type]  # as much of them as it uses

    def write(self, data: bytes) -> None:
        """
        Send to the client; pyserial calls this.
        """
        self.sent += data

    def say(self, data: bytes) -> None:
        """
        Send bytes of the device.
        """
        self.write(b"".join(self.manager.escape(data)))

    def receive(self, data: bytes) -> None:
        """
        Take what the client sent.
        """
        self.received += b"".join(self.manager.filter(data))


class Device(Protocol):
    """
    Records what the device sends.
    """

    data = b""
    made = closed = False
    transport: Any

    def connectionMade(self) -> None:
        """
        Record that the device is open.
        """
        self.made = True

    def dataReceived(self, data: bytes) -> None:
        """
        Record what it sends.
        """
        self.data += data

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """
        Record that the device is closed.
        """
        self.closed = True


class NegotiationTests(unittest.SynchronousTestCase):
    """
    Both ends in memory.
    """

    def setUp(self, settings: PortSettings = SETTINGS) -> None:
        """
        Connect a client.
        """
        self.reactor = MemoryReactorClock()
        self.server = Server()
        self.device = Device()
        endpoint = Rfc2217Endpoint(self.reactor, "rfc2217:host:4000", settings)
        self.opening = endpoint.connect(Factory.forProtocol(lambda: self.device))
        factory: Any
        host, port, factory, *_ = self.reactor.tcpClients[0]
        self.assertEqual((host, port), ("host", 4000))
        self.client: Any = factory.buildProtocol(None)
        self.transport = StringTransport()
        self.client.makeConnection(self.transport)

    def pump(self, size: int = 1000) -> None:
        """
        Exchange all that waits, cut into pieces.
        """
        while self.transport.value() or self.server.sent:
            sent, self.server.sent = self.server.sent, b""
            for start in range(0, len(sent), size):
                self.client.dataReceived(sent[start : start + size])
            written = self.transport.value()
            self.transport.clear()
            for start in range(0, len(written), size):
                self.server.receive(written[start : start + size])

    def test_set(self) -> None:
        """
        The port is set before the device counts as open, however the negotiation is cut.
        """
        for size in (1, 1000):
            self.setUp()
            self.assertNoResult(self.opening)
            with capturedLogs() as logs:
                self.pump(size)
            self.assertIs(self.successResultOf(self.opening), self.device)
            self.assertEqual(self.server.port.settings, (1200, 7, "E", 2, True, False))
            self.assertEqual((texts(logs), self.reactor.getDelayedCalls()), ([], []))

    def test_bytes(self) -> None:
        """
        Each byte passes both ways as it is, CR and IAC too, however it is cut; a CR is not held back.
        """
        for size in (1, 7, 1000):
            self.setUp()
            self.pump()
            self.server.say(EVERY_BYTE + b"\r")
            self.pump(size)
            self.assertEqual(self.device.data, EVERY_BYTE + b"\r")
            self.device.transport.write(EVERY_BYTE)
            self.device.transport.writeSequence([b"\xff", b"\r"])
            self.pump(size)
            self.assertEqual(self.server.received, EVERY_BYTE + b"\xff\r")

    def test_not_before(self) -> None:
        """
        What the device said before its port was set is dropped.
        """
        self.server.say(b"garbage")
        self.pump()
        self.assertEqual(self.device.data, b"")

    def test_silent(self) -> None:
        """
        A server that never replies is used as it is, after some seconds, and named.
        """
        with capturedLogs() as logs:
            self.reactor.advance(REPLY_LIMIT)
        self.assertIs(self.successResultOf(self.opening), self.device)
        self.assertEqual(
            texts(logs),
            ["rfc2217:host:4000: the serial server does not reply to the settings of its port; set it there"],
        )
        self.client.dataReceived(b"ID:20_VALUE:456\r\n")
        self.assertEqual(self.device.data, b"ID:20_VALUE:456\r\n")

    def test_refused(self) -> None:
        """
        A server that refuses to have its port set is used as it is at once, and named.
        """
        with capturedLogs() as logs:
            self.client.dataReceived(b"\xff\xfe\x2c")
        self.assertIs(self.successResultOf(self.opening), self.device)
        self.assertIn("does not let usbgate set its port", texts(logs)[0])
        self.assertFalse(self.device.transport.reset())

    def test_speed_with_a_line_end(self) -> None:
        """
        The bytes of a setting are no line ends.
        """
        self.setUp(SETTINGS._replace(baud=0x0D0D00))
        with capturedLogs() as logs:
            self.pump()
        self.assertEqual((self.server.port.baudrate, texts(logs)), (0x0D0D00, []))

    def test_other_settings(self) -> None:
        """
        What the server has set otherwise is named.
        """
        port = self.server.port

        class Stubborn(Port):
            parity = property(lambda port: "N", lambda port, value: None)

        port.__class__ = Stubborn
        with capturedLogs() as logs:
            self.pump()
        self.successResultOf(self.opening)
        self.assertEqual(texts(logs), ["rfc2217:host:4000: the serial server has set parity to N; set it there"])

    def test_garbage(self) -> None:
        """
        A server that sends no telnet is named, and the connection ends; so does one with an endless command.
        """
        for said in (b"\xff\x00", b"\xff\xfa\x2c" + b"x" * 10_000):
            self.setUp()
            with capturedLogs() as logs:
                self.client.dataReceived(said)
            self.assertEqual(len(texts(logs)), 1)
            self.assertTrue(self.transport.disconnecting or self.transport.disconnected)
            self.client.connectionLost(connectionDone)
            self.failureResultOf(self.opening, ConnectionLost)

    def test_odd(self) -> None:
        """
        Empty and unknown commands are ignored, as is an option that nobody needs.
        """
        self.pump()
        self.client.dataReceived(
            b"\xff\xfa\xff\xf0\xff\xfa\x2c\xff\xf0\xff\xfa\x2c\x6b\x00\xff\xf0\xff\xf1a\xff\xfb\x18"
        )
        self.assertEqual((self.device.data, self.transport.value()), (b"a", b"\xff\xfe\x18"))

    def test_lost(self) -> None:
        """
        A connection that is lost while the port is being set fails the opening; later, the protocol learns of it.
        """
        self.client.connectionLost(connectionDone)
        self.failureResultOf(self.opening, ConnectionLost)
        self.assertFalse(self.device.made)
        self.setUp()
        self.pump()
        self.client.connectionLost(connectionDone)
        self.assertTrue(self.device.closed)
        for _ in range(2):
            self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_cancelled(self) -> None:
        """
        An opening that is cancelled closes the connection.
        """
        self.opening.cancel()
        self.failureResultOf(self.opening)
        self.assertTrue(self.transport.disconnected or self.transport.disconnecting)
        self.client.connectionLost(connectionDone)
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_reset(self) -> None:
        """
        A reset lowers DTR and raises it again.
        """
        self.pump()
        self.assertTrue(IResettable.providedBy(self.device.transport))
        self.assertTrue(self.device.transport.reset())
        self.pump()
        self.assertFalse(self.server.port.dtr)
        self.assertFalse(self.device.transport.reset())
        self.reactor.advance(RESET_PULSE)
        self.pump()
        self.assertTrue(self.server.port.dtr)
        self.device.transport.loseConnection()
        self.assertFalse(self.device.transport.reset())


class ServingProtocol(Protocol):
    """
    A serial server on the network.
    """

    def __init__(self) -> None:
        self.server = Server()

    def dataReceived(self, data: bytes) -> None:
        """
        Take what the client sent, and reply.
        """
        self.server.receive(data)
        self.flush()

    def flush(self) -> None:
        """
        Send what waits.
        """
        assert self.transport is not None
        sent, self.server.sent = self.server.sent, b""
        self.transport.write(sent)


class LinkTests(unittest.TestCase):
    """
    A link over a real connection.
    """

    async def test_link(self) -> None:
        """
        Reports arrive, requests are written, and the port is set.
        """
        served = ServingProtocol()
        port = await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(Factory.forProtocol(lambda: served))
        self.addCleanup(port.stopListening)
        path = f"rfc2217:127.0.0.1:{port.getHost().port}"
        listener = RecordingListener()
        link = Link(reactor, open_device(reactor, path, SETTINGS), "server", path, Dialect())
        link.listener = listener
        self.addCleanup(link.stopService)
        link.startService()
        await until(lambda: listener.calls == [("up",)])
        self.assertEqual(served.server.port.settings, (1200, 7, "E", 2, True, False))
        link.send([Send(request(), None, 5.0)])
        await until(lambda: served.server.received == b"MSG:J_ID:20_ORIGIN:TOTO\n")
        served.server.say(b"ID:20_VALUE:456\r\n")
        served.flush()
        await until(lambda: ("reports", REPORT) in listener.calls)
