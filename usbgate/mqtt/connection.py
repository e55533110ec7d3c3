"""
One connection to a broker, from CONNECT to its end. paho is the codec, the transport is Twisted's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache
from typing import Any

from paho.mqtt.client import MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IDelayedCall, IHandshakeListener, IReactorTime, ITCPTransport
from twisted.internet.protocol import Protocol, connectionDone
from twisted.internet.task import LoopingCall
from twisted.python.failure import Failure
from zope.interface import Interface, implementer

from usbgate.mqtt.codec import PACKET_LIMIT, Codec, Wire
from usbgate.mqtt.interfaces import Message, MessageRefused
from usbgate.mqtt.outgoing import WINDOW, Outgoing, OutgoingMessage
from usbgate.net.quickack import quick_ack
from usbgate.net.tlserrors import spell_tls_error

HANDSHAKE = 10.0  # seconds for TLS, CONNACK and SUBACK; a broker that accepts and says nothing is not waited for longer

LARGEST = 1 << 28  # bytes of a packet, in any case; a broker may take less

TURN = 0.005  # seconds that a reactor turn reads messages

# Seconds that the broker keeps the session, and the will back, after the connection is lost: a blink is no outage.
BLINK = 5

UNSUPPORTED_VERSION, BAD_USER, NOT_AUTHORIZED, TAKEN_OVER = 132, 134, 135, 142
_FOR_A_WHILE = {136, 137, 151, 159}  # the broker is unavailable, or busy, or there are too many connections


class Ending(Enum):
    """
    How a connection ended.
    """

    LOST = "lost"  # or never made; it may be back soon
    REFUSED = "refused"  # until somebody changes a setting, here or there
    TAKEN_OVER = "taken over"  # by another client with the same id


class IConnectionListener(Interface):
    """
    What a connection calls.
    """

    def connection_ready(connection: BrokerConnection) -> None:
        """
        The broker accepted it, and the subscriptions.
        """

    def message_received(message: Message) -> None:
        """
        A message arrived.
        """

    def connection_ended(ending: Ending, why: str, unsent: int) -> None:
        """
        It is closed, and so many messages were not sent.
        """

    def message_refused(topic: str, why: str) -> None:
        """
        The broker did not take a message, or a subscription.
        """


@dataclass(frozen=True, slots=True)
class Login:
    """
    What a client says of itself when it connects.

    Attributes:
        client: Its id.
        v5: Whether it speaks MQTT 5; otherwise 3.1.1.
        user: Its user; None for none.
        password: The password; never to be logged.
        keepalive: Seconds after which a silent connection is tested.
        will: The topic on which the broker says `offline` for it, retained.
        verify: Checks who the broker is, once TLS is established; returns what is wrong, or None. None without TLS.
    """

    client: str
    v5: bool
    will: str
    user: str | None = None
    password: str | None = None
    keepalive: int = 20
    verify: Callable[[object], str | None] | None = None

    def __repr__(self) -> str:
        return f"Login({self.client})"


@implementer(IHandshakeListener)
class BrokerConnection(Protocol):
    """
    One connection to a broker.

    Attributes:
        outgoing: What it sends.
    """

    def __init__(
        self,
        reactor: IReactorTime,
        login: Login,
        filters: Sequence[str],
        retained: Sequence[str],
        listener: IConnectionListener,
    ) -> None:
        """
        Args:
            reactor: For time limits and later turns.
            login: Who connects.
            filters: What to subscribe to.
            retained: What to subscribe to once it is ready, also for what is retained.
            listener: Whom to call.
        """
        self._reactor = reactor
        self._login = login
        self._filters = filters
        self._retained = retained
        self._subscribing: dict[int | None, Sequence[str]] = {}  # filters by message id
        self._listener = listener
        self._ending: tuple[Ending, str] | None = None
        self.outgoing = Outgoing(self._send)
        self._largest = LARGEST
        self._later: IDelayedCall | None = None
        self._ready = self._closing = self._lost = False
        self._wire = Wire(self._write, self._paho_closes)
        self._acknowledge: Callable[[], None] = lambda: None
        self._codec = self._make_codec()
        self._misc = LoopingCall(self._codec.loop_misc)
        self._misc.clock = reactor

    def _make_codec(self) -> Codec:
        login = self._login
        version = MQTTProtocolVersion.MQTTv5 if login.v5 else MQTTProtocolVersion.MQTTv311
        codec = Codec(
            self._wire,
            callback_api_version=CallbackAPIVersion.VERSION2,
            client_id=login.client,
            protocol=version,
            clean_session=None if login.v5 else True,
            reconnect_on_failure=False,
        )
        codec.max_inflight_messages_set(0)  # it is bounded here
        if login.user is not None:
            codec.username_pw_set(login.user, login.password)
        delayed = None
        if login.v5:
            delayed = Properties(PacketTypes.WILLMESSAGE)
            delayed.WillDelayInterval = BLINK
        codec.will_set(login.will, b"offline", qos=1, retain=True, properties=delayed)
        codec.on_connect = self._connack
        codec.on_subscribe = self._suback
        codec.on_disconnect = self._disconnected
        codec.on_message = self._message
        codec.on_publish = self._puback
        return codec

    # The transport.

    def connectionMade(self) -> None:
        """
        Say who connects, or wait for TLS first.
        """
        self._transport: Any = self.transport
        if ITCPTransport.providedBy(self._transport):
            self._transport.setTcpNoDelay(True)
            self._acknowledge = quick_ack(self._transport)
        self._limit = self._reactor.callLater(HANDSHAKE, self._too_late)
        if self._login.verify is None:
            self._connect()

    def handshakeCompleted(self) -> None:
        """
        Say who connects, once it is known to whom.
        """
        wrong = self._login.verify and self._login.verify(self.transport)
        if wrong:
            self._end(Ending.REFUSED, wrong)
        else:
            self._connect()

    def _connect(self) -> None:
        properties = None
        if self._login.v5:
            properties = Properties(PacketTypes.CONNECT)
            properties.SessionExpiryInterval = BLINK
            properties.MaximumPacketSize = PACKET_LIMIT
            properties.ReceiveMaximum = WINDOW
        # paho wants a host, and does not use it. A session that the broker kept would hand out stale commands.
        self._codec.connect_async(
            "broker", keepalive=self._login.keepalive, clean_start=self._login.v5, properties=properties
        )
        self._codec.reconnect()
        timing = self._misc.start(1.0, now=False)
        timing.addErrback(lambda failure: self._end(Ending.LOST, failure.getErrorMessage()))

    def dataReceived(self, data: bytes) -> None:
        """
        Read packets, for a few milliseconds in each reactor turn.
        """
        self._acknowledge()
        self._wire.feed(data)
        if self._later is None:
            self._read()

    def _read(self) -> None:
        until = self._reactor.seconds() + TURN
        try:
            while self._wire.unread and not self._codec.closed:
                self._codec.loop_read()  # at least one packet
                if self._reactor.seconds() >= until and self._wire.unread:
                    self._later = self._reactor.callLater(0, self._read_on)
                    self._transport.pauseProducing()
                    break
            self._codec.loop_write()  # what callbacks have queued
        except Exception as error:  # paho has no one class of errors for packets that it cannot decode
            self._end(Ending.LOST, f"the broker sent what is not MQTT: {error}")
            return
        if self._ready:
            self.outgoing.proceed()

    def _read_on(self) -> None:
        self._later = None
        self._transport.resumeProducing()
        self._read()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """
        Report the end.
        """
        ending, why = self._ending or (Ending.LOST, self._spell(reason))
        self._ready = False
        self._lost = True
        for call in (self._limit, self._later):
            if call is not None and call.active():
                call.cancel()
        if self._misc.running:
            self._misc.stop()
        self._listener.connection_ended(ending, why, self.outgoing.close())

    def _spell(self, reason: Failure) -> str:
        if not reason.check(ConnectionDone):
            return f"the connection was lost: {spell_error(reason)}"
        if self._ready or not self._login.v5:
            return "the broker closed the connection"
        return 'the broker closed the connection unanswered; if it has no MQTT 5, set mqtt.version = "3.1.1"'

    def _write(self, data: bytes) -> None:
        self._transport.write(data)

    def _paho_closes(self) -> None:
        if self._closing:
            self._transport.loseConnection()
        elif not self._lost:
            self._transport.abortConnection()

    def _end(self, ending: Ending, why: str) -> None:
        self._ending = self._ending or (ending, why)
        self._transport.abortConnection()

    def _too_late(self) -> None:
        self._end(Ending.LOST, f"the broker did not answer within {HANDSHAKE:g} s")

    # What the broker says. paho calls these.

    def _connack(self, codec: object, data: object, flags: object, reason: ReasonCode, said: Properties | None) -> None:
        if reason.is_failure:
            ending = Ending.LOST if reason.value in _FOR_A_WHILE else Ending.REFUSED
            self._ending = (ending, f"the broker refuses usbgate: {reason}{self._remedy(reason.value)}")
            return
        outgoing = self.outgoing
        outgoing.window = min(outgoing.window, getattr(said, "ReceiveMaximum", outgoing.window))
        self._largest = getattr(said, "MaximumPacketSize", self._largest)
        # A retained command must not be carried out again and again, nor pass for one that was just sent.
        self._subscribe(self._filters, 1, SubscribeOptions.RETAIN_DO_NOT_SEND)

    def _subscribe(self, filters: Sequence[str], qos: int, retained: int) -> None:
        if self._login.v5:
            options = SubscribeOptions(qos=qos, retainAsPublished=True, retainHandling=retained)
            _, message = self._codec.subscribe([(each, options) for each in filters])
        else:
            _, message = self._codec.subscribe([(each, qos) for each in filters])
        self._subscribing[message] = filters

    def _remedy(self, code: int) -> str:
        if code == UNSUPPORTED_VERSION and self._login.v5:
            return ': set mqtt.version = "3.1.1"'
        if code in (BAD_USER, NOT_AUTHORIZED):
            if self._login.user is None:
                return ": set mqtt.user and mqtt.password_file"
            return f": check mqtt.user, {self._login.user}, and its password"
        return ""

    def _suback(self, codec: object, data: object, mid: int, reasons: Sequence[ReasonCode], said: object) -> None:
        for each, reason in zip(self._subscribing.pop(mid, ()), reasons, strict=False):
            if reason.is_failure:
                self._listener.message_refused(each, f"to be read: {reason}")
        if not self._ready:
            self._ready = True
            self._limit.cancel()
            self._listener.connection_ready(self)
            if self._retained:
                # With QoS 1, mosquitto would drop all but the first thousand.
                self._subscribe(self._retained, 0, SubscribeOptions.RETAIN_SEND_ON_SUBSCRIBE)

    def _disconnected(self, codec: object, data: object, flags: Any, reason: ReasonCode, said: object) -> None:
        if self._ending is not None or self._closing:
            return
        if not flags.is_disconnect_packet_from_server:
            self._ending = (Ending.LOST, f"the connection failed: {reason}")
        elif reason.value == TAKEN_OVER:
            self._ending = (Ending.TAKEN_OVER, f"another client has the id {self._login.client}")
        else:
            self._ending = (Ending.LOST, f"the broker closed the connection: {reason}")

    def _message(self, codec: object, data: object, message: MQTTMessage) -> None:
        said = message.properties
        expiry = getattr(said, "MessageExpiryInterval", None)
        self._listener.message_received(
            Message(
                message.topic,
                bytes(message.payload),
                message.retain,
                getattr(said, "ResponseTopic", None),
                getattr(said, "CorrelationData", None),
                None if expiry is None else self._reactor.seconds() + expiry,
            )
        )

    def _puback(self, codec: object, data: object, mid: int, reason: ReasonCode, said: object) -> None:
        message = self.outgoing.acknowledged(mid)
        if message is None:
            return
        if reason.is_failure:
            self._listener.message_refused(message.topic, f"to be written: {reason}")
        if message.delivered is None:
            return
        if reason.is_failure:
            message.delivered.errback(MessageRefused(f"the broker does not take it: {reason}"))
        else:
            message.delivered.callback(None)

    # What usbgate says.

    def publish(self, message: OutgoingMessage) -> bool:
        """
        Send a message; see `IPublisher.publish`.
        """
        if message.size > self._largest:
            self._listener.message_refused(message.topic, f"to be written: more than {self._largest} bytes")
            return False
        return self._ready and not self._closing and self.outgoing.add(message)

    def _send(self, message: OutgoingMessage) -> int:
        properties = _properties(message.expiry, message.correlation) if self._login.v5 else None
        return self._codec.publish(message.topic, message.payload, 1, message.retain, properties).mid

    def close(self) -> None:
        """
        Say goodbye, so that the broker publishes no will, and close the connection.
        """
        self._closing = True
        if self._ready:
            self._codec.disconnect()
        else:
            self.abort()

    def abort(self) -> None:
        """
        Close the connection at once.
        """
        self._transport.abortConnection()


@lru_cache(maxsize=64)
def _properties(expiry: int | None, correlation: bytes | None) -> Properties | None:
    # Most values have one of a few expiries, and making the properties is two fifths of what a message costs.
    if expiry is None and correlation is None:
        return None
    properties = Properties(PacketTypes.PUBLISH)
    if expiry is not None:
        properties.MessageExpiryInterval = expiry
    if correlation is not None:
        properties.CorrelationData = correlation
    return properties


def spell_error(failure: Failure) -> str:
    """
    Return why a connection failed, as one line.
    """
    error: Any = failure.value
    return spell_tls_error(error, "a CA of mqtt.ca") or str(error) or failure.getErrorMessage()
