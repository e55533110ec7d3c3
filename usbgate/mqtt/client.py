"""
The client of a broker: connects again and again, and lets the parts use each connection.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

from paho.mqtt.client import topic_matches_sub
from twisted.application.internet import backoffPolicy
from twisted.application.service import Service
from twisted.internet.defer import Deferred, TimeoutError, fail
from twisted.internet.interfaces import IDelayedCall, IReactorTime, IStreamClientEndpoint
from twisted.internet.protocol import Factory
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from usbgate.core.status import BrokerStatus
from usbgate.mqtt.connection import BrokerConnection, Ending, IConnectionListener, Login, spell_error
from usbgate.mqtt.interfaces import IMqttPart, IPublisher, Message, NotDelivered
from usbgate.mqtt.outgoing import OutgoingMessage
from usbgate.net.attempts import QuietClientService, ReportingEndpoint

# Seconds before the next attempt. The jitter keeps the clients of a broker that restarts from coming all at once.
retry_policy = backoffPolicy(0.5, 30.0, 2.0, jitter=lambda: 0.5 * random.random())

# The same once the broker has refused: only a person can change that, and a broker may ban who tries too often.
REFUSED_RETRY = 60.0

# Seconds. A connection that lasts for less is one more failure: two clients with one id throw each other out, and
# neither MQTT 3.1.1 nor mosquitto 2.0 says why. Longer than the longest wait between two attempts.
BRIEF = 60.0
BRIEF_LOGGED = 2  # brief connections in a row that are logged

REPAIR = 0.5  # seconds until `online` is published again after somebody, such as a late will, said something else
GOODBYE = 1.5  # seconds that a broker has at the stop: to acknowledge `offline`, and again to close the connection
REFUSALS_LOGGED = 10  # topics that the broker does not permit; more are counted

_matches = lru_cache(maxsize=16)(topic_matches_sub)  # 4 us; most messages come on the same topic


@implementer(IPublisher, IConnectionListener)
class MqttClient(Service):
    """
    Connects to a broker while it runs.

    Attributes:
        connected: Whether the broker is connected, and the subscriptions are made.
    """

    log = Logger()

    def __init__(
        self,
        reactor: IReactorTime,
        endpoint: IStreamClientEndpoint,
        login: Callable[[], Login],
        broker: str,
        parts: Sequence[IMqttPart],
    ) -> None:
        """
        Args:
            reactor: For time.
            endpoint: The broker.
            login: Returns who connects; called for each connection. Its errors are shown.
            broker: The endpoint string, for the log and the status.
            parts: Who uses the connection; each is called in this order.
        """
        self.connected = False
        self._reactor = reactor
        self._login = login
        self._broker = broker
        self._parts = parts
        self._availability = ""
        self._connection: BrokerConnection | None = None
        self._state = "connecting"
        self._trouble: str | None = None
        self._failures = 0  # attempts that failed, and brief connections, in a row
        self._brief = 0  # brief connections in a row
        self._logged: set[str] = set()  # reasons, since the last time that it was logged to be connected
        self._stable: IDelayedCall | None = None  # for a connection that has been brief so far
        self._away_since: float | None = None
        self._published = self._dropped = self._refused = 0
        self._refused_topics: set[str] = set()
        self._repair: IDelayedCall | None = None
        self._stopping = False
        factory = Factory.forProtocol(self._build)
        factory.noisy = False
        self._client = QuietClientService(
            ReportingEndpoint(endpoint, self._attempt_failed), factory, retryPolicy=self._delay, clock=reactor
        )

    def _build(self) -> BrokerConnection:
        login = self._login()
        self._availability = login.will
        filters = [login.will, *(each for part in self._parts for each in part.filters)]
        retained = [each for part in self._parts for each in part.retained]
        return BrokerConnection(self._reactor, login, list(dict.fromkeys(filters)), retained, self)

    def status(self) -> BrokerStatus:
        """
        Return the state of the connection, and what was counted.
        """
        return BrokerStatus(self._state, self._published, self._dropped, self._refused, trouble=self._trouble)

    # The service.

    def startService(self) -> None:
        """
        Connect.
        """
        super().startService()
        self._client.startService()

    def stopService(self) -> Deferred[None]:
        """
        Publish `offline`, and close the connection.
        """
        super().stopService()
        self._stopping = True
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        connection = self._connection
        if connection is not None and self.connected:
            self._disconnect()
            taken = connection.publish(OutgoingMessage(self._availability, b"offline", True))
            try:
                await connection.outgoing.flushed().addTimeout(GOODBYE, self._reactor)
            except TimeoutError:
                taken = False
            if taken:
                connection.close()
            else:  # the broker then publishes the will
                connection.abort()
        stopped = self._client.stopService()
        limit = self._reactor.callLater(GOODBYE, self._abort)
        await stopped
        if limit.active():
            limit.cancel()

    def _abort(self) -> None:
        if self._connection is not None:
            self._connection.abort()

    # The connections.

    def _delay(self, attempt: int) -> float:
        # Of ClientService, which takes a connection for a success that the broker closes at once.
        if self._state == "refused":
            return REFUSED_RETRY + retry_policy(0)
        return float(retry_policy(max(0, self._failures - 1)))

    def _attempt_failed(self, failure: Failure) -> None:
        if not self._stopping:
            self._brief = 0  # the broker is away, and threw nobody out
            self._away(Ending.LOST, spell_error(failure))

    def connection_ready(self, connection: BrokerConnection) -> None:
        self._connection = connection
        self.connected = True
        self._state, self._trouble = "connected", None
        self._failures = self._brief
        self._stable = self._reactor.callLater(BRIEF, self._lasts)
        if self._brief < BRIEF_LOGGED:
            self._logged.clear()
            if self._away_since is None:
                self.log.info("the broker is connected: {broker}", broker=self._broker)
            else:
                self.log.info("the broker is back after {away:.1f} s", away=self._reactor.seconds() - self._away_since)
        self._away_since = None
        self._say_online()
        for each in self._parts:
            self._call(each.connected, self)

    def _lasts(self) -> None:
        if self._brief >= BRIEF_LOGGED:
            self.log.info("the broker stays connected, after {count} brief connections", count=self._brief)
            self._logged.clear()
        self._failures = self._brief = 0

    def _call(self, function: Callable[..., None], *arguments: Any) -> None:
        try:
            function(*arguments)
        except Exception:
            self.log.failure("unexpected error in a part of the MQTT client")

    def message_received(self, message: Message) -> None:
        if not self.connected:
            return
        if message.topic == self._availability and message.payload != b"online" and self._repair is None:
            self._repair = self._reactor.callLater(REPAIR, self._say_online)
        for each in self._parts:
            if any(_matches(pattern, message.topic) for pattern in (*each.filters, *each.retained)):
                self._call(each.received, message)

    def _say_online(self) -> None:
        _cancel(self._repair)
        self._repair = None
        self.publish(self._availability, b"online", retain=True)

    def message_refused(self, topic: str, why: str) -> None:
        self._refused += 1
        if topic not in self._refused_topics and len(self._refused_topics) < REFUSALS_LOGGED:
            self._refused_topics.add(topic)
            self.log.warn("the broker does not permit {topic} {why}", topic=topic, why=why)

    def connection_ended(self, ending: Ending, why: str, unsent: int) -> None:
        self._connection = None
        self._dropped += unsent
        if self.connected:
            self._disconnect()
        brief = self._stable is not None and self._stable.active()
        _cancel(self._stable)
        self._stable = None
        if self._stopping:
            return
        if brief:
            self._brief += 1
            if self._brief > 1:
                why += "; it was brief again: does another client have the same id?"
        self._away(ending, why)
        if ending is Ending.TAKEN_OVER:
            # Two daemons with one name would take turns for ever.
            self._client.stopService()

    def _disconnect(self) -> None:
        self.connected = False
        _cancel(self._repair)
        self._repair = None
        for each in self._parts:
            self._call(each.disconnected)

    def _away(self, ending: Ending, why: str) -> None:
        self._failures += 1
        if ending is Ending.TAKEN_OVER:
            why += ", so usbgate no longer uses the broker: does another usbgate have the name? See `gateway`"
        if self._away_since is None:
            self._away_since = self._reactor.seconds()
        if why not in self._logged:
            self._logged.add(why)
            self.log.warn("the broker {broker} is not connected: {why}", broker=self._broker, why=why)
        self._state = "away" if ending is Ending.LOST else "refused"
        self._trouble = why

    # IPublisher

    def publish(
        self,
        topic: str,
        payload: bytes,
        *,
        retain: bool = False,
        expiry: int | None = None,
        correlation: bytes | None = None,
    ) -> bool:
        return self._publish(OutgoingMessage(topic, payload, retain, expiry, correlation))

    def deliver(self, topic: str, payload: bytes, *, retain: bool = False) -> Deferred[None]:
        delivered: Deferred[None] = Deferred()
        if self._publish(OutgoingMessage(topic, payload, retain, delivered=delivered)):
            return delivered
        return fail(NotDelivered("the broker is away, or takes nothing"))

    def _publish(self, message: OutgoingMessage) -> bool:
        connection = self._connection if self.connected else None
        sent = connection is not None and connection.publish(message)
        self._published += sent
        self._dropped += not sent
        return sent

    def room(self) -> Deferred[None]:
        if self._connection is None or not self.connected:
            return Deferred()
        return self._connection.outgoing.room()


def _cancel(call: IDelayedCall | None) -> None:
    if call is not None and call.active():
        call.cancel()
