"""
The client and a real broker.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count
from typing import Any

from twisted.internet import reactor as global_reactor
from twisted.internet.endpoints import clientFromString
from twisted.trial import unittest
from zope.interface import implementer

from tests.support.mosquitto import Mosquitto, Peer, shared_mosquitto
from tests.support.waiting import until
from usbgate.mqtt.client import MqttClient
from usbgate.mqtt.connection import Login
from usbgate.mqtt.interfaces import IPublisher, ISubscriber, Message
from usbgate.mqtt.topics import Topics

reactor: Any = global_reactor
_numbers = count(1)


@implementer(ISubscriber)
class Listing:
    """
    A subscriber that lists its calls.
    """

    def __init__(self, *filters: str) -> None:
        self.filters: Sequence[str] = filters
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


class BrokerCase(unittest.TestCase):
    """
    Clients of brokers; everything ends with the test.
    """

    v5 = True

    def setUp(self) -> None:
        """
        Choose a gateway name that nobody else has.
        """
        self.name = f"{type(self).__name__}{next(_numbers)}"
        self.topics = Topics(self.name)

    def connect(self, broker: Mosquitto, *subscribers: Listing, **login: Any) -> MqttClient:
        """
        Start a client.
        """
        who = Login(client=f"usbgate-{self.name}", v5=self.v5, will=self.topics.availability, **login)
        endpoint = clientFromString(reactor, broker.endpoint)
        client = MqttClient(reactor, endpoint, lambda: who, broker.endpoint, subscribers)
        client.startService()
        self.addCleanup(lambda: client.running and client.stopService())
        return client

    async def connected(self, broker: Mosquitto, *subscribers: Listing, **login: Any) -> MqttClient:
        """
        Start a client, and wait until it is connected.
        """
        client = self.connect(broker, *subscribers, **login)
        await until(lambda: client.connected, "the client is connected")
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
        listing = Listing(self.topics.ask)
        client = await self.connected(broker, listing)
        self.assertTrue(client.publish(self.topics.value("uno", "1", "TEMP"), b"21.5"))
        peer.publish(self.topics.ask, "20?")
        await until(lambda: listing.messages and len(peer.messages) == 3)
        self.assertEqual(listing.messages, [Message(self.topics.ask, b"20?")])
        self.assertEqual(peer.payloads(self.topics.value("uno", "1", "TEMP")), ["21.5"])
        await client.stopService()
        self.assertEqual(listing.calls, ["connected", "disconnected"])
        await until(lambda: peer.payloads(self.topics.availability) == ["online", "offline"])
        late = self.peer(broker, self.topics.availability)
        await until(lambda: late.messages == [(self.topics.availability, "offline", True)])


class OldConnectedTests(ConnectedTests):
    """
    The same over MQTT 3.1.1.
    """

    v5 = False
