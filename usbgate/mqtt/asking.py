"""
Questions and commands over MQTT (docs/mqtt.md, "Asking").
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec
from msgspec.structs import replace
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from usbgate.access.authority import Authority
from usbgate.access.roles import Access, Role
from usbgate.core.errors import Busy, Denied, Failed, LimitExceeded, Malformed, RequestError
from usbgate.core.holders import Holder
from usbgate.core.jsonmessages import request_of
from usbgate.core.loglimit import LogLimit
from usbgate.core.messages import time_limit
from usbgate.core.model import Request
from usbgate.core.settings import UNCONFIGURED
from usbgate.gateway.interfaces import IGateway
from usbgate.mqtt.interfaces import IMqttPart, IPublisher, Message
from usbgate.mqtt.messages import MqttAsk, MqttFailure, answer_message, failure_of, read_ask, read_reply_to
from usbgate.mqtt.topics import Topics
from usbgate.net.rates import Rates

IN_FLIGHT_LIMIT = 256  # questions of all clients of the broker: as many as one connection has in the line protocol

# What waits for the broker to take it is bounded, and must not all be replies, or an alarm would be lost. So no more
# may come at once than may be in flight, and only some of what is refused gets an answer: so many in a second, on
# average, and ten times as many at once.
BURST = 2.5  # seconds' worth
REFUSALS_PER_SECOND = 10.0

# Bytes of a reply topic. It also bounds its levels: mosquitto disconnects who publishes to a topic of more than 200.
REPLY_TOPIC_LIMIT = 200

_WHO = "mqtt"  # as whom the clients of the broker ask: it says nothing of them


def is_reply_topic(topic: str, closed: Sequence[str]) -> bool:
    """
    Return whether answers may go to a topic: one that the broker accepts, and where they are taken for nothing else.

    Args:
        topic: The topic.
        closed: Topics that belong to usbgate and Home Assistant, with all below them.
    """
    return (
        topic.isprintable()  # a broker may disconnect a client that publishes to a topic with other characters
        and 0 < len(topic.encode()) <= REPLY_TOPIC_LIMIT
        and not topic.startswith("$")
        and not any(wildcard in topic for wildcard in "+#")
        and not any(topic == each or topic.startswith(f"{each}/") for each in closed)
    )


@implementer(IMqttPart)
class Asking:
    """
    Asks what comes on the topic `ask`, and publishes the answers.

    Attributes:
        refused: The messages that were not asked, since the start.
    """

    log = Logger()

    def __init__(
        self,
        reactor: IReactorTime,
        gateway: IGateway,
        authority: Authority,
        role: Role,
        topics: Topics,
        closed: Sequence[str],
        failed: Callable[[MqttFailure], None],
        per_second: float,
    ) -> None:
        """
        Args:
            reactor: For time limits.
            gateway: The gateway.
            authority: Decides which questions only read.
            role: What the clients of the broker may do.
            topics: The names of the topics.
            closed: See `is_reply_topic`.
            failed: Called with what failed and wants no reply.
            per_second: The most questions in a second, on average, of all clients of the broker.
        """
        self.filters: Sequence[str] = (topics.ask,)
        self.retained: Sequence[str] = ()
        self.refused = 0
        self._reactor = reactor
        self._gateway = gateway
        self._authority = authority
        self._access = Access(role, _WHO)
        self._closed = closed
        self._publish_failure = failed
        self._rates = Rates(reactor, per_second, BURST)
        self._refusals = Rates(reactor, REFUSALS_PER_SECOND)
        self._in_flight = 0
        self._log_limit = LogLimit()
        self._publisher: IPublisher
        self._holder = Holder(_WHO)

    def connected(self, publisher: IPublisher) -> None:
        self._publisher = publisher
        self._holder = Holder(_WHO)

    def disconnected(self) -> None:
        # What was asked goes on; if the broker is back before the answer is there, it still gets it.
        self._gateway.disconnected(self._holder)

    def received(self, message: Message) -> None:
        if message.payload:  # an empty one only removes a retained message
            Deferred.fromCoroutine(self._serve(message)).addErrback(self._log_failure)

    async def _serve(self, message: Message) -> None:
        asked: MqttAsk | None = None
        topic = message.response_topic
        outcome: bytes | MqttFailure
        try:
            asked = read_ask(message.payload)
            if topic is None:
                topic = asked.reply
            request = self._admit(message, asked, topic)
        except RequestError as error:
            self._count_refusal(error)
            if self._refusals.take((_WHO,)) > 0:
                return
            outcome = failure_of(error, asked)
            if asked is None:
                back = read_reply_to(message.payload)
                topic = back.reply if topic is None else topic
                outcome = replace(outcome, id=back.id)
        else:
            outcome = await self._ask(request, asked)
        if topic is not None and is_reply_topic(topic, self._closed):
            reply = msgspec.json.encode(outcome) if isinstance(outcome, MqttFailure) else outcome
            self._publisher.publish(topic, reply, correlation=message.correlation)
        elif isinstance(outcome, MqttFailure):
            self._publish_failure(outcome)

    async def _ask(self, request: Request, asked: MqttAsk) -> bytes | MqttFailure:
        self._in_flight += 1
        try:
            return answer_message(await self._gateway.ask(request, self._holder), asked)
        except RequestError as error:
            return failure_of(error, asked)
        except Exception:  # a dialect of another package may give anything
            self._log_failure(Failure())
            return failure_of(Failed(), asked)
        finally:
            self._in_flight -= 1

    def _admit(self, message: Message, asked: MqttAsk, topic: str | None) -> Request:
        # Returns what to ask; raises a `RequestError` for what may not be asked.
        if topic is not None and not is_reply_topic(topic, self._closed):
            raise Malformed("reply topic not allowed", repr(topic[:80]))
        if self._in_flight >= IN_FLIGHT_LIMIT:
            raise LimitExceeded(f"more than {IN_FLIGHT_LIMIT} questions in flight over MQTT")
        if self._rates.take((_WHO,)) > 0:
            raise LimitExceeded(f"more than {self._rates.per_second:g} questions in a second over MQTT")
        sensor = str(asked.sensor)
        client = _WHO if topic is None else f"{_WHO}@{topic}"
        request = request_of(asked, sensor, self._gateway.queries.default_command(sensor), _WHO, client)
        self._check_role(request)
        try:
            return self._check_age(message, request)
        except RequestError as error:
            self._gateway.refuse(request, error)
            raise

    def _check_role(self, request: Request) -> None:
        try:
            self._authority.check_request(self._access, request)
        except Denied as error:
            raise Denied(f'this requires role = "{error.role}" in [mqtt]', "role too low", error.role) from None

    def _check_age(self, message: Message, request: Request) -> Request:
        # A command must not be carried out later than it was meant: not again at each start, nor after its expiry,
        # until which it may wait for its turn.
        if message.retained:
            raise Denied("a retained message is not carried out", "retained message")
        if message.expires is None:
            return request
        left = message.expires - self._reactor.seconds()
        if left <= 0:
            raise Busy("the message had expired")
        configured = self._gateway.queries.sensor_settings().get(request.question.sensor, UNCONFIGURED).timeout
        return request._replace(timeout=min(left, time_limit(request, configured)))

    def _count_refusal(self, error: RequestError) -> None:
        self.refused += 1
        count = self._log_limit.add(self._reactor.seconds())
        if count:
            (topic,) = self.filters
            self.log.warn(
                "{count} message(s) to {topic} were not carried out, the last one: {why}",
                count=count,
                topic=topic,
                why=error.text,
            )

    def _log_failure(self, failure: Failure) -> None:
        self.log.failure("unexpected error in a question over MQTT", failure=failure)
