"""
How a connection may begin (protocol §3), and which other programs are recognized by it.
"""

from __future__ import annotations

from codecs import BOM_UTF8

from twisted.internet.address import IPv4Address
from twisted.internet.task import Clock
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from tests.support.access import OPEN, authority
from tests.support.memory_gateway import ECHO, ORIGINALS, MemoryGateway, PeerTransport
from usbgate.core.fieldline import LINE_LIMIT
from usbgate.core.loglimit import LOG_INTERVAL
from usbgate.server.factory import ClientFactory
from usbgate.server.opening import FIRST_DATA_PATIENCE
from usbgate.server.protocol import ClientProtocol

# What a browser sends behind the first line on behalf of a page, and what else may follow.
BODY = b"\r\nHost: 127.0.0.1:50007\r\nOrigin: https://elsewhere.example\r\n\r\nMSG:ON_ID:9_ORIGIN:page\r\nping\n"

# How other programs begin, each as short as it is recognized, and the reason.
OTHERS = [
    (b"POST /", "HTTP"),
    (b"GET /", "HTTP"),
    (b"HEAD /", "HTTP"),
    (b"OPTIONS *", "HTTP"),
    (b"PRI *", "HTTP"),
    (b"GET http:", "HTTP"),
    (b"POST https:", "HTTP"),
    (b"X /", "HTTP"),
    (b"ask / HTTP/1", "HTTP"),  # a browser sends any method to the host that the page is from
    (b"M-SEARCH * HTTP/1", "HTTP"),
    (b"ask https://elsewhere.example/x HTTP/1", "HTTP"),
    (b"\nPOST /", "HTTP"),
    (b"\r\n\n\r\nGET /", "HTTP"),
    (b"\n\rGET /", "HTTP"),
    (b"\xff\xfd\x03POST /", "HTTP"),
    (BOM_UTF8 + b"POST /", "HTTP"),
    (b"\x16", "TLS"),
    (b"SSH-", "SSH"),
    (b"\x00", "control character"),  # STUN, SMB, PostgreSQL
    (b"\x03", "control character"),  # RDP
    (b"ping\x1b", "control character"),
    (b"ask 20 \x7f", "control character"),
    (b"MSG:J_ID:20_A:\x00", "control character"),
    (b"ping\r\x00\x00", "control character"),
    (b"x" * (LINE_LIMIT + 1), "line too long"),
    (b"\n\nMSG:J_ID:20_A:" + b"x" * (LINE_LIMIT - 13), "line too long"),
]

# How line clients begin, and the end of what they receive.
CLIENTS = [
    (b"ping\n", b"OK:ping\n"),
    (b"\r\n\nping\n", b"OK:ping\n"),
    (BOM_UTF8 + b"ping\n", b"OK:ping\n"),
    (b"\xff\xfb\x01\xff\xfd\x03" + BOM_UTF8 + b"ping\n", b"OK:ping\n"),
    (BOM_UTF8 + ORIGINALS + b"\n", ORIGINALS + b"\n"),
    (BOM_UTF8 + BOM_UTF8 + b"ping\n", b"try help\n"),  # the second one is text
    (b"ping\n" + BOM_UTF8 + b"ping\n", b"try help\n"),
    (b"\n" + BOM_UTF8 + b"ping\n", b"try help\n"),
    (b"GET\n", b"try help\n"),
    (b"get /\n", b"try help\n"),
    (b"GET x /\n", b"try help\n"),
    (b"G3T /\n", b"try help\n"),
    (b"get / HTTP\n", b"try help\n"),
    (b"get x HTTP/1.1\n", b"try help\n"),
    (b"SSH\n", b"try help\n"),
    (b"\xffping\n", b"not UTF-8\n"),
    (b"\tping\t\n", b"OK:ping\n"),
    (b"pi\x08ng\n", b"try help\n"),
    (b"pi\r\x00ng\n", b"try help\n"),
    (b"ping\nPOST /\n", b"try help\n"),
    (b"ping\n\x16\x03\x01\n", b"try help\n"),
    (b"ping\n" + b"x" * 2000 + b"\n", b"ERROR:limit_TEXT:the line is too long\n"),
    (b"ping" + b" " * (LINE_LIMIT - 4) + b"\r\n", b"OK:ping\r\n"),
]


class OpeningTests(SynchronousTestCase):
    """
    Connections in memory, each with nothing but its beginning.
    """

    def setUp(self) -> None:
        """
        Make the factory.
        """
        self.clock = Clock()
        self.gateway = MemoryGateway()
        self.factory = ClientFactory(self.clock, self.gateway, authority(self.clock), door=OPEN)

    def connect(self) -> tuple[ClientProtocol, PeerTransport]:
        """
        Connect a client.
        """
        client = self.factory.buildProtocol(IPv4Address("TCP", "127.0.0.1", 4711))
        transport = PeerTransport(self.clock)
        transport.protocol = client
        client.makeConnection(transport)
        return client, transport

    def cuts(self, data: bytes, rest: bytes) -> list[list[bytes]]:
        """
        Cut data in two at every place, or into bytes, or not, with a rest behind in the same chunk or not.
        """
        whole = [[data, rest], [data + rest], [bytes([byte]) for byte in data + rest]]
        return [*whole, *([data[:place], data[place:] + rest] for place in range(1, min(len(data), 40)))]

    def test_others(self) -> None:
        """
        Another program's connection is closed as soon as it is recognized. It gets nothing, nothing behind its first
        line is read, and it is recorded.
        """
        for data, reason in OTHERS:
            for chunks in self.cuts(data, BODY):
                client, transport = self.connect()
                for chunk in chunks:
                    if transport.connected:
                        client.dataReceived(chunk)
                self.clock.advance(FIRST_DATA_PATIENCE)
                self.assertEqual((transport.value(), transport.connected), (b"", False), chunks)
                source, line, recorded = self.gateway.refusals.pop()
                self.assertEqual((source, recorded), ("client 127.0.0.1", reason), chunks)
                self.assertLessEqual(len(line), LINE_LIMIT)
                self.assertNotIn(b"MSG:ON", line)
        self.assertEqual((self.gateway.asked, self.gateway.refusals), ([], []))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_at_once(self) -> None:
        """
        It is not waited for a line end, nor for more than is needed; a shorter beginning may still be a line client's.
        """
        for data, _ in OTHERS:
            client, transport = self.connect()
            client.dataReceived(data[:-1])
            self.assertTrue(transport.connected, data)
            client.dataReceived(data[-1:])
            self.assertFalse(transport.connected, data)

    def test_clients(self) -> None:
        """
        A line client is served, whatever its first line is; a byte order mark before the first line is skipped. Later
        lines may begin in any way.
        """
        for data, expected in CLIENTS:
            for chunks in self.cuts(data, b"pin"):
                client, transport = self.connect()
                for chunk in chunks:
                    client.dataReceived(chunk)
                self.clock.advance(0)
                self.assertTrue(transport.connected, chunks)
                self.assertEqual(transport.value()[-len(expected) :], expected, chunks)
                transport.abortConnection()

    def test_original_client(self) -> None:
        """
        The original client's line without an end may have a byte order mark, too; behind it nothing is judged.
        """
        client, transport = self.connect()
        client.dataReceived(BOM_UTF8 + ORIGINALS)
        self.clock.advance(FIRST_DATA_PATIENCE)
        self.assertEqual(transport.value(), ECHO.encode())
        client.dataReceived(b"\nGET /\nping\n")
        self.clock.advance(0)
        self.assertTrue(transport.value().endswith(b"try help\nOK:ping\n"))

    def test_logged(self) -> None:
        """
        It is logged at most once a minute, with the number of connections.
        """
        with capturedLogs() as logs:
            for _ in range(1000):
                self.connect()[0].dataReceived(b"GET / HTTP/1.1\r\n")
            self.clock.advance(LOG_INTERVAL)
            self.connect()[0].dataReceived(b"SSH-2.0-x\r\n")
        text = "closed {} connection(s) that did not begin as a line client's, the last from 127.0.0.1:4711: {}"
        self.assertEqual([formatEvent(event) for event in logs], [text.format(1, "HTTP"), text.format(1000, "SSH")])
