"""
The client of a broker, whose packets the tests write.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence

from twisted.internet.address import IPv4Address
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectionDone, ConnectionRefusedError
from twisted.internet.interfaces import IProtocol, IProtocolFactory, IStreamClientEndpoint
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.logger import capturedLogs, formatEvent
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from usbgate.mqtt.client import BRIEF, REFUSED_RETRY, REPAIR, MqttClient
from usbgate.mqtt.connection import HANDSHAKE, Login
from usbgate.mqtt.interfaces import IMqttPart, IPublisher, Message, MessageRefused, NotDelivered
from usbgate.mqtt.outgoing import WAITING, WINDOW

CONNECT, PUBLISH, PUBACK, SUBSCRIBE, PINGREQ, DISCONNECT = 0x10, 0x30, 0x40, 0x80, 0xC0, 0xE0

WILL = "usbgate/home/availability"


def packets(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """
    Split what a client sent: the kind of each packet, its flags, and the rest of it.
    """
    while data:
        kind, length, shift, used = data[0], 0, 0, 1
        while True:
            byte = data[used]
            length |= (byte & 0x7F) << shift
            used, shift = used + 1, shift + 7
            if byte < 0x80:
                break
        yield kind & 0xF0, kind & 0x0F, data[used : used + length]
        data = data[used + length :]


def text(value: str) -> bytes:
    """
    Spell a text as MQTT does.
    """
    return len(value).to_bytes(2, "big") + value.encode()


@implementer(IStreamClientEndpoint)
class Broker:
    """
    An endpoint whose connections the test makes and answers.

    Attributes:
        up: Whether it accepts connections.
        transports: Those of all connections so far.
    """

    def __init__(self, v5: bool = True) -> None:
        self.v5 = v5
        self.up = True
        self.transports: list[StringTransport] = []
        self._protocols: list[IProtocol] = []

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        """
        Accept a connection, or refuse it.
        """
        connected: Deferred[IProtocol] = Deferred()
        if not self.up:
            connected.errback(ConnectionRefusedError())
            return connected
        try:
            protocol = protocolFactory.buildProtocol(IPv4Address("TCP", "127.0.0.1", 1883))
        except OSError:
            connected.errback()
            return connected
        assert protocol is not None
        transport = StringTransport()
        transport.abortConnection = transport.loseConnection  # type: ignore[method-assign]
        self.transports.append(transport)
        self._protocols.append(protocol)
        protocol.makeConnection(transport)
        connected.callback(protocol)
        return connected

    @property
    def closed(self) -> bool:
        """
        Whether the client has closed its connection.
        """
        return self.transports[-1].disconnecting

    def take(self) -> list[tuple[int, int, bytes]]:
        """
        Return the packets of the newest connection since the last call.
        """
        data = self.transports[-1].value()
        self.transports[-1].clear()
        return list(packets(data))

    def feed(self, data: bytes) -> None:
        """
        Send bytes.
        """
        self._protocols[-1].dataReceived(data)

    def send(self, kind: int, body: bytes) -> None:
        """
        Send a packet.
        """
        self.feed(bytes([kind, len(body)]) + body)

    def lose(self) -> None:
        """
        End the newest connection.
        """
        self.transports[-1].connected = False
        self._protocols[-1].connectionLost(Failure(ConnectionDone()))

    def connack(self, code: int = 0, properties: bytes = b"") -> None:
        """
        Answer CONNECT.
        """
        self.send(0x20, bytes([0, code]) + (bytes([len(properties)]) + properties if self.v5 else b""))

    def suback(self, *codes: int) -> None:
        """
        Answer SUBSCRIBE.
        """
        ((_, _, body),) = [packet for packet in self.take() if packet[0] == SUBSCRIBE]
        self.send(0x90, body[:2] + (b"\0" if self.v5 else b"") + bytes(codes or [1]))

    def accept(self) -> None:
        """
        Accept a connection, and its subscriptions.
        """
        self.connack()
        self.suback()

    def published(self) -> list[tuple[str, bytes, bytes]]:
        """
        Acknowledge what was published; return the topics, the identifiers, and what follows these.
        """
        found = []
        for kind, _, body in self.take():
            if kind == PUBLISH:
                end = 2 + int.from_bytes(body[:2], "big")
                found.append((body[2:end].decode(), body[end : end + 2], body[end + 2 :]))
        return found

    def acknowledge(self, code: int | None = None) -> list[str]:
        """
        Acknowledge what was published; return the topics.
        """
        found = self.published()
        for _, identifier, _ in found:
            self.send(PUBACK, identifier + (b"" if code is None else bytes([code, 0])))
        return [topic for topic, _, _ in found]


@implementer(IMqttPart)
class Recording:
    """
    A part that records its calls.
    """

    filters: Sequence[str] = ("a/+",)
    retained: Sequence[str] = ()

    def __init__(self) -> None:
        self.calls: list[object] = []

    def connected(self, publisher: IPublisher) -> None:
        """
        Record it.
        """
        self.calls.append("connected")

    def received(self, message: Message) -> None:
        """
        Record it.
        """
        self.calls.append(message)

    def disconnected(self) -> None:
        """
        Record it.
        """
        self.calls.append("disconnected")


class ClientCase(SynchronousTestCase):
    """
    A client that is started, and its broker.
    """

    v5 = True
    login = Login("usbgate-home", True, WILL, "me", "secret")

    def setUp(self) -> None:
        """
        Start it.
        """
        self.clock = Clock()
        self.broker = Broker(self.v5)
        self.recording = Recording()
        self.who: Callable[[], Login] = lambda: self.login
        self.client = MqttClient(self.clock, self.broker, lambda: self.who(), "tcp:broker:1883", [self.recording])
        self.client.startService()

    def tearDown(self) -> None:
        """
        Stop it; nothing is left behind.
        """
        self.client.stopService()
        for _ in range(5):
            self.clock.advance(1)
        if self.broker.transports[-1].connected:
            self.assertTrue(self.broker.closed)
            self.broker.lose()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def ready(self) -> None:
        """
        Accept the connection, and take `online`.
        """
        self.broker.accept()
        self.assertEqual(self.broker.acknowledge(), [WILL])


class ConnectTests(ClientCase):
    """
    CONNECT and what follows it.
    """

    def test_packets(self) -> None:
        """
        The client names itself, its will and who it is, wants no old session, and then subscribes: retained messages
        are neither wanted at the subscription, nor do later ones pass for others.
        """
        ((kind, _, body),) = self.broker.take()
        self.assertEqual(kind, CONNECT)
        self.assertEqual(body[:8], text("MQTT") + bytes([5, 0b11101110]))  # user, password, retained will QoS 1, clean
        self.assertIn(b"\x11\x00\x00\x00\x05", body)  # the session ends 5 s after the connection
        self.assertIn(b"\x18\x00\x00\x00\x05" + text(WILL) + text("offline"), body)  # and the will comes then
        self.assertIn(text("usbgate-home"), body)
        self.assertTrue(body.endswith(text("me") + text("secret")))
        self.broker.connack()
        ((kind, _, body),) = self.broker.take()
        self.assertEqual(kind, SUBSCRIBE)
        options = bytes([0b101001])  # Retain Handling 2, Retain As Published, QoS 1
        self.assertEqual(body[3:], text(WILL) + options + text("a/+") + options)
        self.assertEqual(self.recording.calls, [])
        self.broker.send(0x90, body[:2] + b"\0\1\1")
        self.assertEqual(self.recording.calls, ["connected"])
        ((kind, flags, body),) = self.broker.take()
        self.assertEqual((kind, flags & 1, body.endswith(b"online")), (PUBLISH, 1, True))

    def test_mute(self) -> None:
        """
        A broker that accepts connections and says nothing is left in time, and tried again.
        """
        self.clock.advance(HANDSHAKE - 0.1)
        self.assertFalse(self.broker.closed)
        self.clock.advance(0.1)
        self.assertTrue(self.broker.closed)
        self.broker.lose()
        self.assertEqual(self.client.status().state, "away")
        self.assertIn("did not answer within 10 s", str(self.client.status().trouble))
        self.clock.advance(1)
        self.assertEqual(len(self.broker.transports), 2)

    def test_mute_later(self) -> None:
        """
        So is one that never confirms the subscriptions.
        """
        self.broker.connack()
        self.clock.advance(HANDSHAKE)
        self.assertTrue(self.broker.closed)
        self.broker.lose()
        self.assertEqual(self.recording.calls, [])

    def test_no_broker(self) -> None:
        """
        What sends something else than MQTT is left, with one line.
        """
        for data in (b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\x20\x03\x00\x00\x09", b"\xff" * 9, b"\x00\x00\x00"):
            for byte in data:
                if not self.broker.closed:
                    self.broker.feed(bytes([byte]))
            if not self.broker.closed:  # it waits for the rest of a packet
                self.clock.advance(HANDSHAKE)
            self.assertTrue(self.broker.closed, data)
            self.broker.lose()
            self.assertEqual(self.client.status().state, "away")
            self.clock.advance(40)

    def test_old_broker(self) -> None:
        """
        One that has no MQTT 5 says so by the code of MQTT 3.1.1, or only closes the connection; the remedy is shown.
        """
        self.broker.feed(b"\x20\x02\x00\x01")
        self.broker.lose()
        self.assertEqual(self.client.status().state, "refused")
        self.assertIn('mqtt.version = "3.1.1"', str(self.client.status().trouble))
        self.clock.advance(REFUSED_RETRY + 1)
        self.broker.lose()
        self.assertIn('mqtt.version = "3.1.1"', str(self.client.status().trouble))


class RefusedTests(ClientCase):
    """
    A broker that refuses the client.
    """

    codes: Sequence[int] = (134, 135)

    def test_user(self) -> None:
        """
        A wrong user or password is logged once with the remedy, never with the password, and tried again slowly.
        """
        with capturedLogs() as logs:
            for code in self.codes:
                for _ in range(2):
                    self.broker.connack(code)
                    self.assertTrue(self.broker.closed)
                    self.broker.lose()
                    self.assertEqual(self.client.status().state, "refused")
                    before = len(self.broker.transports)
                    self.clock.advance(REFUSED_RETRY - 1)
                    self.assertEqual(len(self.broker.transports), before)
                    self.clock.advance(3)
                    self.assertEqual(len(self.broker.transports), before + 1)
        lines = [formatEvent(event) or "" for event in logs]
        self.assertEqual(len(lines), len(self.codes), lines)
        for line in lines:
            self.assertIn("check mqtt.user, me, and its password", line)
            self.assertNotIn("secret", line)
        self.ready()
        self.assertEqual(self.client.status().state, "connected")

    def test_no_user(self) -> None:
        """
        Without a user, the remedy is to set one.
        """
        self.login = Login("usbgate-home", self.v5, WILL)
        self.broker.lose()
        self.clock.advance(1)
        self.broker.connack(self.codes[-1])
        self.broker.lose()
        self.assertIn("set mqtt.user and mqtt.password_file", str(self.client.status().trouble))

    def test_password_unreadable(self) -> None:
        """
        A file with the password that cannot be read is shown, and read again at the next attempt.
        """

        def unreadable() -> Login:
            raise OSError("mqtt.password_file: no such file")

        self.who = unreadable
        self.broker.lose()
        self.clock.advance(1)
        self.assertEqual(self.client.status().trouble, "mqtt.password_file: no such file")
        self.who = lambda: self.login
        self.clock.advance(3)
        self.ready()


class OldRefusedTests(RefusedTests):
    """
    The same over MQTT 3.1.1.
    """

    v5 = False
    login = Login("usbgate-home", False, WILL, "me", "secret")
    codes = (4, 5)


class BusyTests(ClientCase):
    """
    A broker that cannot serve for a while.
    """

    def test_soon(self) -> None:
        """
        It is tried again soon.
        """
        self.broker.connack(137)
        self.broker.lose()
        self.assertEqual(self.client.status().state, "away")
        self.clock.advance(1)
        self.ready()


class AwayTests(ClientCase):
    """
    A broker that goes and comes.
    """

    def test_back(self) -> None:
        """
        The parts learn of it, subscriptions are made again, and what was published meanwhile is dropped and
        counted.
        """
        self.ready()
        self.clock.advance(BRIEF)
        self.broker.lose()
        self.assertEqual(self.recording.calls, ["connected", "disconnected"])
        self.assertFalse(self.client.publish("x", b"1"))
        self.clock.advance(1)
        self.ready()
        self.assertEqual(self.recording.calls, ["connected", "disconnected", "connected"])
        self.assertEqual(self.client.status().dropped, 1)

    def test_back_off(self) -> None:
        """
        Attempts become rarer, and are logged once; after a connection that lasted, the next is made soon.
        """
        self.ready()
        self.clock.advance(BRIEF)
        self.broker.up = False
        with capturedLogs() as logs:
            self.broker.lose()
            for _ in range(120):
                self.clock.advance(1)
        lines = [formatEvent(event) for event in logs]
        self.assertEqual(len(lines), 2, lines)  # it was lost, and it cannot be connected
        self.broker.up = True
        self.clock.advance(31)
        self.assertEqual(len(self.broker.transports), 2)
        self.ready()
        self.clock.advance(BRIEF)
        self.broker.lose()
        self.clock.advance(1)
        self.assertEqual(len(self.broker.transports), 3)

    def test_brief(self) -> None:
        """
        A connection that is closed at once again and again, as by another client with the same id over MQTT 3.1.1,
        makes attempts rarer, too.
        """
        with capturedLogs() as logs:
            for _ in range(8):
                self.ready()
                self.clock.advance(20)
                self.broker.lose()
                self.clock.advance(31)
        lines = [formatEvent(event) for event in logs]
        self.assertEqual(len(lines), 4, lines)  # connected, lost, connected, lost with the question below
        connections = len(self.broker.transports)
        self.ready()
        self.broker.lose()
        self.assertIn("does another client have the same id?", str(self.client.status().trouble))
        self.clock.advance(20)
        self.assertEqual(len(self.broker.transports), connections)
        self.clock.advance(11)
        with capturedLogs() as logs:
            self.ready()
            self.clock.advance(BRIEF)
            self.broker.lose()
        lines = [formatEvent(event) for event in logs]
        self.assertEqual(lines[0], "the broker stays connected, after 9 brief connections")
        self.clock.advance(1)
        self.assertEqual(len(self.broker.transports), connections + 2)
        self.assertEqual(lines[1:], ["the broker tcp:broker:1883 is not connected: the broker closed the connection"])

    def test_restarts(self) -> None:
        """
        A broker that restarts often is not taken for another client, and is found soon each time; each time is logged.
        """
        with capturedLogs() as logs:
            for _ in range(4):
                self.ready()
                self.clock.advance(1)
                self.broker.up = False
                self.broker.lose()
                self.clock.advance(1.1)
                self.broker.up = True
                self.clock.advance(2)
        lines = [formatEvent(event) or "" for event in logs]
        self.assertEqual(len(lines), 12, lines)
        self.assertFalse([line for line in lines if "same id" in line])

    def test_taken_over(self) -> None:
        """
        A client with the same id has taken the connection over: that is logged, and no attempt is made any more.
        """
        self.ready()
        with capturedLogs() as logs:
            self.broker.send(DISCONNECT, b"\x8e")
            self.broker.lose()
            self.clock.advance(1000)
        (line,) = [formatEvent(event) or "" for event in logs]
        self.assertIn("another client has the id usbgate-home", line)
        self.assertEqual(len(self.broker.transports), 1)
        self.assertEqual(self.client.status().state, "refused")

    def test_shut_down(self) -> None:
        """
        A broker that says why it closes the connection is quoted.
        """
        self.ready()
        self.broker.send(DISCONNECT, b"\x8b")
        self.assertTrue(self.broker.closed)
        self.broker.lose()
        self.assertEqual(self.client.status().trouble, "the broker closed the connection: Server shutting down")


class AvailabilityTests(ClientCase):
    """
    The topic that tells whether usbgate is there.
    """

    def test_repaired(self) -> None:
        """
        If somebody says `offline`, such as a will that comes late, `online` is published again, at most twice a second.
        """
        self.ready()
        for _ in range(20):
            self.broker.send(PUBLISH, text(WILL) + b"\0offline")
        self.assertEqual(self.broker.acknowledge(), [])
        self.clock.advance(REPAIR)
        self.assertEqual(self.broker.acknowledge(), [WILL])
        self.broker.send(PUBLISH, text(WILL) + b"\0online")
        self.clock.advance(10)
        self.assertEqual(self.broker.acknowledge(), [])

    def test_stop(self) -> None:
        """
        At the stop, `offline` is published, and the connection closed once the broker has it.
        """
        self.ready()
        stopped = self.client.stopService()
        self.assertEqual(self.recording.calls, ["connected", "disconnected"])
        self.assertFalse(self.broker.closed)
        self.assertEqual(self.broker.acknowledge(), [WILL])
        self.assertEqual([kind for kind, _, _ in self.broker.take()], [DISCONNECT])
        self.broker.lose()
        self.successResultOf(stopped)

    def test_stop_stuck(self) -> None:
        """
        A broker that hangs, or is far behind, does not delay the stop for long. Without a goodbye, it publishes the
        will: it may not have `offline`.
        """
        for waiting in (0, WINDOW, 2 * WAITING):
            self.ready()
            for number in range(waiting):
                self.client.publish(f"t/{number}", b"1")
            stopped = self.client.stopService()
            for _ in range(4):
                self.clock.advance(1)
            self.assertTrue(self.broker.closed)
            self.assertNotIn(DISCONNECT, [kind for kind, _, _ in self.broker.take()])
            self.broker.lose()
            self.successResultOf(stopped)
            self.setUp()


class ReceiveTests(ClientCase):
    """
    Messages from the broker.
    """

    def test_properties(self) -> None:
        """
        A message comes with what it says of itself, to the subscriber whose filter it matches.
        """
        self.ready()
        properties = b"\x02\x00\x00\x00\x0a" + b"\x08" + text("reply") + b"\x09" + text("7")
        self.broker.send(PUBLISH | 1, text("a/b") + bytes([len(properties)]) + properties + b"hello")
        self.broker.send(PUBLISH | 2, text("a/c") + b"\x00\x07\x00x")
        now = self.clock.seconds()
        self.assertEqual(
            self.recording.calls[1:],
            [Message("a/b", b"hello", True, "reply", b"7", now + 10), Message("a/c", b"x")],
        )
        self.assertEqual(self.broker.take(), [(PUBACK, 0, b"\0\7")])

    def test_twice(self) -> None:
        """
        A message of QoS 2, which nobody has asked for, ends the connection: a broker could fill the memory with such.
        """
        self.ready()
        self.broker.send(PUBLISH | 4, text("a/b") + b"\x00\x07\x00x")
        self.assertTrue(self.broker.closed)
        self.broker.lose()
        self.assertEqual(self.recording.calls, ["connected", "disconnected"])
        self.assertEqual(self.client.status().state, "away")

    def test_failing(self) -> None:
        """
        A subscriber that fails is logged, and spoils nothing else.
        """

        def fail(message: Message) -> None:
            raise ValueError

        self.ready()
        self.recording.received = fail  # type: ignore[method-assign]
        self.broker.send(PUBLISH, text("a/b") + b"\0x")
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)
        self.assertTrue(self.client.publish("x", b"1"))


class PublishTests(ClientCase):
    """
    Messages to the broker.
    """

    def test_window(self) -> None:
        """
        A slow broker has a few messages at a time; a limited number waits, in order, and more are dropped and counted.
        """
        self.ready()
        taken = sum(self.client.publish(f"t/{number}", b"1") for number in range(WAITING + WINDOW + 5))
        self.assertEqual(taken, WAITING + WINDOW)
        self.assertEqual(self.client.status().dropped, 5)
        topics = []
        while found := self.broker.acknowledge():
            self.assertLessEqual(len(found), WINDOW)
            topics += found
        self.assertEqual(topics, [f"t/{number}" for number in range(WAITING + WINDOW)])

    def test_few_at_a_time(self) -> None:
        """
        The broker says how many messages it takes at a time, and how long a packet may be.
        """
        self.broker.connack(0, b"\x21\x00\x02" + b"\x27\x00\x00\x00\x80")
        self.broker.suback()
        with capturedLogs() as logged:
            self.assertFalse(self.client.publish("t", b"x" * 100))
        self.assertEqual(
            [formatEvent(each) for each in logged],
            ["the broker does not permit t to be written: more than 128 bytes"],
        )
        self.assertEqual(self.client.status().refused, 1)
        self.assertTrue(self.client.publish("t/1", b"x"))
        self.assertTrue(self.client.publish("t/2", b"x"))
        self.assertEqual(self.broker.acknowledge(), [WILL, "t/1"])
        self.assertEqual(self.broker.acknowledge(), ["t/2"])

    def test_much(self) -> None:
        """
        What waits is limited in bytes, too.
        """
        self.ready()
        while self.client.publish("t", b"x" * 50_000):
            pass
        self.assertLess(self.client.status().published, 1 + WINDOW + 21)
        while self.broker.acknowledge():
            pass

    def test_room(self) -> None:
        """
        Who has many messages waits for room: at once if there is some, else one after the other.
        """
        self.successResultOf(self.client_ready().room())
        for number in range(WINDOW):
            self.client.publish(f"t/{number}", b"1")
        fired: list[int] = []
        waiting = [self.client.room() for _ in range(4)]
        for number, each in enumerate(waiting):
            each.addCallbacks(lambda _, number=number: fired.append(number), lambda _: None)
        waiting[1].cancel()
        self.assertEqual(fired, [])
        self.broker.acknowledge()
        self.assertEqual(fired, [0, 2, 3])
        for number in range(WINDOW):
            self.client.publish(f"t/{number}", b"1")
        late = self.client.room()
        self.broker.lose()
        self.assertNoResult(late)
        late.cancel()  # as its owner does
        self.failureResultOf(late, CancelledError)
        self.assertNoResult(self.client.room())

    def client_ready(self) -> MqttClient:
        """
        Return the client, connected.
        """
        self.ready()
        return self.client

    def test_properties(self) -> None:
        """
        A message has its expiry and its correlation data.
        """
        self.ready()
        self.client.publish("t", b"x", retain=True, expiry=60, correlation=b"7")
        ((kind, flags, body),) = self.broker.take()
        self.assertEqual((kind, flags), (PUBLISH, 0b011))
        self.assertEqual(body[5:], bytes([9]) + b"\x02\x00\x00\x00\x3c" + b"\x09" + text("7") + b"x")

    def test_not_permitted(self) -> None:
        """
        What the broker does not permit is counted, and logged once for each topic.
        """
        self.broker.connack()
        with capturedLogs() as logs:
            self.broker.suback(1, 0x87)
            self.broker.acknowledge()
            for _ in range(3):
                self.client.publish("t", b"x")
                self.broker.acknowledge(0x87)
        lines = [line for event in logs if "not permit" in (line := formatEvent(event) or "")]
        self.assertEqual(
            lines,
            [
                "the broker does not permit a/+ to be read: Not authorized",
                "the broker does not permit t to be written: Not authorized",
            ],
        )
        self.assertEqual(self.client.status().refused, 4)

    def test_delivered(self) -> None:
        """
        Who wants to know, learns that the broker has a message, does not take it, or may not have it: one that was sent
        when the connection broke, and one that waited.
        """
        self.failureResultOf(self.client.deliver("t", b"x"), NotDelivered)
        self.ready()
        delivered = self.client.deliver("t/1", b"x", retain=True)
        self.assertNoResult(delivered)
        self.assertEqual(self.broker.acknowledge(), ["t/1"])
        self.successResultOf(delivered)
        refused = self.client.deliver("t/2", b"x")
        self.broker.acknowledge(0x87)
        self.assertIn("Not authorized", self.failureResultOf(refused, MessageRefused).getErrorMessage())
        lost = [self.client.deliver("t/3", b"x") for _ in range(WINDOW + 1)]
        given_up = self.client.deliver("t/4", b"x")
        given_up.cancel()
        self.failureResultOf(given_up, CancelledError)
        self.broker.lose()
        for each in lost:
            self.failureResultOf(each, NotDelivered)


class OldPublishTests(ClientCase):
    """
    MQTT 3.1.1.
    """

    v5 = False
    login = Login("usbgate-home", False, WILL)

    def test_properties(self) -> None:
        """
        It has neither expiry nor correlation data; the rest is the same.
        """
        ((_, _, body),) = self.broker.take()
        self.assertEqual(body[:8], text("MQTT") + bytes([4, 0b00101110]))
        self.ready()
        self.client.publish("t", b"x", retain=True, expiry=60, correlation=b"7")
        ((kind, flags, body),) = self.broker.take()
        self.assertEqual((kind, flags, body[5:]), (PUBLISH, 0b011, b"x"))


class AnyPacketsTests(SynchronousTestCase):
    """
    A broker that sends anything.
    """

    def test_worlds(self) -> None:
        """
        Whatever packets come, and whenever, they are understood or end the connection; the stop leaves nothing behind.
        """
        for seed in range(100):
            with capturedLogs() as logs:
                self.live(random.Random(seed))
            self.assertEqual([event for event in logs if "log_failure" in event], [], seed)

    def live(self, draw: random.Random) -> None:
        """
        Let a client and a broker live together for a while.
        """
        clock, broker = Clock(), Broker()
        client = MqttClient(clock, broker, lambda: ClientCase.login, "tcp:broker:1883", [Recording()])
        client.startService()
        phase = draw.randrange(3)
        if phase:
            broker.connack()
        if phase == 2:
            broker.suback()
            client.publish("x", b"1")
        for _ in range(draw.randrange(6)):
            if not broker.closed:
                body = draw.choice((b"", text("a/b"))) + draw.choice((bytes(3), draw.randbytes(draw.randrange(20))))
                broker.send(draw.randrange(0x20, 0x100), body)
        client.stopService()
        for _ in range(3):
            clock.advance(1)
        self.assertTrue(broker.closed)
        broker.lose()
        self.assertEqual(clock.getDelayedCalls(), [])
