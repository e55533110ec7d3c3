"""
The client, put together as configured, and a real broker.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from itertools import count
from typing import Any

from twisted.internet import reactor as global_reactor
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Protocol
from twisted.logger import capturedLogs, formatEvent
from twisted.protocols.portforward import ProxyFactory
from twisted.trial import unittest
from zope.interface import implementer

from tests.support.folders import new_folder
from tests.support.mosquitto import Mosquitto, Peer, password_file, shared_mosquitto
from tests.support.waiting import until
from usbgate.access.certificates import make_authority, make_server
from usbgate.assembly.broker import PASSWORD, make_client
from usbgate.config.settings import MqttSettings
from usbgate.mqtt import client as client_module
from usbgate.mqtt.client import MqttClient
from usbgate.mqtt.interfaces import IMqttPart, IPublisher, Message
from usbgate.mqtt.topics import Topics

reactor: Any = global_reactor
_numbers = count(1)


@implementer(IMqttPart)
class Listing:
    """
    A part that lists its calls.
    """

    def __init__(self, *filters: str, retained: Sequence[str] = ()) -> None:
        self.filters: Sequence[str] = filters
        self.retained = retained
        self.calls: list[object] = []
        self.messages: list[Message] = []

    def connected(self, publisher: IPublisher) -> None:
        """
        List it.
        """
        self.calls.append("connected")

    def received(self, message: Message) -> None:
        """
        List it.
        """
        self.messages.append(message)

    def disconnected(self) -> None:
        """
        List it.
        """
        self.calls.append("disconnected")


class Relay(ProxyFactory):
    """
    A port between a client and its broker, at which the test cuts connections.
    """

    noisy = False

    def __init__(self, broker: Mosquitto) -> None:
        super().__init__("127.0.0.1", broker.port)
        self.listening = reactor.listenTCP(0, self, interface="127.0.0.1")
        self.endpoint = f"tcp:127.0.0.1:{self.listening.getHost().port}"
        self._connections: list[Protocol] = []

    def buildProtocol(self, addr: IAddress | None) -> Any:
        """
        Remember the connection.
        """
        connection = super().buildProtocol(addr)
        assert connection is not None
        self._connections.append(connection)
        return connection

    def cut(self) -> None:
        """
        End all connections.
        """
        for each in self._connections:
            transport: Any = each.transport
            transport.abortConnection()
        self._connections.clear()


class BrokerCase(unittest.TestCase):
    """
    Clients of brokers; everything ends with the test.
    """

    version = "5"

    def setUp(self) -> None:
        """
        Choose a gateway name that nobody else has; let clients wait for less time.
        """
        self.patch(client_module, "retry_policy", lambda failures: 0.05 * 2**failures)
        self.patch(client_module, "REPAIR", 0.05)
        self.patch(client_module, "GOODBYE", 0.2)
        self.name = f"{type(self).__name__}{next(_numbers)}"
        self.topics = Topics(self.name)

    def broker(self, *settings: str) -> Mosquitto:
        """
        Start a broker for this test alone.
        """
        broker = Mosquitto(*settings)
        self.addCleanup(broker.close)
        return broker

    def connect(self, endpoint: str, *parts: IMqttPart, environ: Mapping[str, str] = {}, **settings: Any) -> MqttClient:
        """
        Start a client.
        """
        mqtt = MqttSettings(broker=endpoint, version=self.version, **settings)
        client = make_client(reactor, mqtt, self.name, parts, environ)
        client.startService()
        self.addCleanup(lambda: client.running and client.stopService())
        return client

    async def connected(self, endpoint: str, *parts: IMqttPart, **settings: Any) -> MqttClient:
        """
        Start a client, and wait until it is connected.
        """
        client = self.connect(endpoint, *parts, **settings)
        await until(lambda: client.connected, f"the client is connected: {client.status()}")
        return client

    def peer(self, broker: Mosquitto, *filters: str, **options: Any) -> Peer:
        """
        Connect somebody else.
        """
        peer = Peer(broker, *filters, **options)
        self.addCleanup(peer.close)
        return peer


class ConnectedTests(BrokerCase):
    """
    While the broker is there.
    """

    async def test_both_ways(self) -> None:
        """
        Messages go both ways; `online` and, at the stop, `offline` are retained.
        """
        broker = shared_mosquitto()
        peer = self.peer(broker, f"{self.topics.base}/#")
        listing = Listing(f"{self.topics.base}/test")
        client = await self.connected(broker.endpoint, listing)
        self.assertTrue(client.publish(self.topics.value("uno", "1", "TEMP"), b"21.5"))
        peer.publish(f"{self.topics.base}/test", "20?")
        await until(lambda: listing.messages and len(peer.messages) == 3)
        self.assertEqual(listing.messages, [Message(f"{self.topics.base}/test", b"20?")])
        self.assertEqual(peer.payloads(self.topics.value("uno", "1", "TEMP")), ["21.5"])
        await client.stopService()
        self.assertEqual(listing.calls, ["connected", "disconnected"])
        await until(lambda: peer.payloads(self.topics.availability) == ["online", "offline"])
        late = self.peer(broker, self.topics.availability)
        await until(lambda: late.messages == [(self.topics.availability, "offline", True)])

    async def test_blink(self) -> None:
        """
        A connection that blinks publishes no `offline` (MQTT 3.1.1 cannot help it), and subscriptions are made again.
        A late `offline` of somebody else is repaired.
        """
        broker = shared_mosquitto()
        relay = Relay(broker)
        self.addCleanup(relay.listening.stopListening)
        self.addCleanup(relay.cut)
        peer = self.peer(broker, self.topics.availability)
        listing = Listing(f"{self.topics.base}/test")
        client = await self.connected(relay.endpoint, listing)
        await until(lambda: peer.messages)
        relay.cut()
        await until(lambda: not client.connected)
        self.assertFalse(client.publish(self.topics.events, b"lost"))
        await until(lambda: client.connected)
        peer.publish(f"{self.topics.base}/test", "20?")
        await until(lambda: listing.messages)
        self.assertEqual(listing.calls, ["connected", "disconnected", "connected"])
        said = peer.payloads(self.topics.availability)
        self.assertEqual(set(said), {"online"} if self.version == "5" else {"online", "offline"})
        self.assertEqual(client.status().dropped, 1)
        peer.publish(self.topics.availability, "offline", retain=True)
        await until(lambda: peer.payloads(self.topics.availability)[-2:] == ["offline", "online"])

    async def test_restarted(self) -> None:
        """
        A broker that is killed under load and forgets everything is found again; what was published is there, or was
        counted as dropped.
        """
        broker = self.broker()
        client = await self.connected(broker.endpoint)
        load = [client.publish(f"{self.topics.base}/load", b"1") for _ in range(500)]
        broker.kill()
        await until(lambda: not client.connected)
        self.assertIn(client.status().state, ("away", "connecting"))
        self.assertFalse(client.publish(f"{self.topics.base}/load", b"1"))
        self.assertEqual(client.status().published, 1 + sum(load))
        self.assertGreaterEqual(client.status().dropped, 1)
        broker.start()
        await until(lambda: client.connected)
        peer = self.peer(broker, f"{self.topics.base}/#")
        client.publish(f"{self.topics.base}/load", b"2")
        await until(lambda: "2" in peer.payloads(f"{self.topics.base}/load"))
        self.assertEqual(peer.payloads(self.topics.availability), ["online"])

    async def test_slow(self) -> None:
        """
        A broker that hangs makes nothing grow; what it was sent, and what waits, arrives in order when it goes on. The
        stop does not wait for it.
        """
        broker = self.broker("allow_anonymous true", "max_queued_messages 0")
        topic = f"{self.topics.base}/load"
        peer = self.peer(broker, topic)
        client = await self.connected(broker.endpoint)
        broker.stall()
        try:
            sent = [number for number in range(3000) if client.publish(topic, b"%d" % number)]
            self.assertLess(len(sent), 2000)
        finally:
            broker.resume()
        await until(lambda: len(peer.messages) == len(sent))
        self.assertEqual([int(payload) for payload in peer.payloads(topic)], sent)
        broker.stall()
        try:
            await client.stopService()
        finally:
            broker.resume()

    async def test_retained(self) -> None:
        """
        What is retained comes only for those who ask for it, and after `connected`, however much it is.
        """
        broker = shared_mosquitto()
        peer = self.peer(broker)
        topics = [f"{self.name}/{number}" for number in range(1200)]
        for topic in topics[1:]:
            peer.client.publish(topic, "x", 0, True)
        peer.publish(topics[0], "x", retain=True)
        listing = Listing(self.topics.ask, retained=[f"{self.name}/+"])
        calls: list[int] = []
        self.patch(listing, "connected", lambda publisher: calls.append(len(listing.messages)))
        await self.connected(broker.endpoint, listing)
        await until(lambda: len(listing.messages) == len(topics))
        self.assertEqual(calls, [0])
        self.assertEqual({each.topic for each in listing.messages}, set(topics))
        self.assertTrue(all(each.retained for each in listing.messages))


class OldConnectedTests(ConnectedTests):
    """
    The same over MQTT 3.1.1.
    """

    version = "3.1.1"


class SameNameTests(BrokerCase):
    """
    Two daemons with one name.
    """

    async def test_same_name(self) -> None:
        """
        They throw each other out, more and more rarely, and say what may be the reason: mosquitto 2.0 sends no reason
        code. See `test_client` for a broker that does.
        """
        broker = shared_mosquitto()
        clients = [await self.connected(broker.endpoint) for _ in range(2)]
        await until(lambda: any("the same id?" in str(each.status().trouble) for each in clients))


class SecuredTests(BrokerCase):
    """
    A broker with TLS, users and rights.
    """

    def setUp(self) -> None:
        """
        Start it, once for all tests of a kind.
        """
        super().setUp()
        folder = new_folder()
        folder.chmod(0o755)
        now = datetime.now(UTC)
        made = make_authority(folder, ["localhost"], now)
        make_server(folder, made, ["localhost"], now)
        self.ca = folder / "ca.crt"
        self.password = folder / "password"
        self.password.write_text("secret\n")
        rights = folder / "rights"
        rights.write_text(f"user me\ntopic readwrite {self.topics.availability}\n")
        self.server = self.broker(
            *("allow_anonymous false", f"password_file {password_file(folder, 'me', 'secret')}"),
            *(f"acl_file {rights}", f"certfile {folder / 'server.pem'}", f"keyfile {folder / 'server.pem'}"),
        )
        self.endpoint = f"tls:localhost:{self.server.port}"

    async def test_right(self) -> None:
        """
        With the CA, the user and the password, from a file or the environment, all is well; what the user may not do
        is counted and logged.
        """
        with capturedLogs() as logs:
            client = await self.connected(self.endpoint, ca=self.ca, user="me", password_file=self.password)
            client.publish(f"{self.topics.base}/x", b"1")
            await until(lambda: client.status().refused >= 1)
        self.assertIn("does not permit", " ".join(map(str, map(formatEvent, logs))))
        await client.stopService()
        await self.connected(self.endpoint, ca=self.ca, user="me", environ={PASSWORD: "secret"})

    async def test_wrong(self) -> None:
        """
        A wrong password, no user, another name and an unknown CA are shown with a remedy, and never the password; to a
        broker that is not who it should be, the password is not sent.
        """
        by_address = f"tls:127.0.0.1:{self.server.port}"
        await self.refused(self.endpoint, "check mqtt.user, me, and its password", ca=self.ca, user="me")
        await self.refused(self.endpoint, "set mqtt.user and mqtt.password_file", ca=self.ca)
        await self.refused(by_address, "TLS: the certificate is not one of 127.0.0.1", ca=self.ca, user="me")
        await self.refused(
            self.endpoint, "certificate verify failed: is it signed by a CA of mqtt.ca, and valid now?", user="me"
        )
        self.assertEqual(self.server.log.count("Client usbgate-"), 0)

    async def refused(self, endpoint: str, trouble: str, **settings: Any) -> None:
        """
        Connect with a wrong password, and wait for the trouble.
        """
        with capturedLogs() as logs:
            client = self.connect(endpoint, environ={PASSWORD: "wrong secret"}, **settings)
            await until(lambda: client.status().trouble is not None)
        self.assertIn(trouble, str(client.status().trouble))
        self.assertNotIn("secret", str([*map(formatEvent, logs), client.status()]))
        await client.stopService()
