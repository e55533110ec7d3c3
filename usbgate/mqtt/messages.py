"""
What is asked, answered and published as JSON over MQTT (docs/mqtt.md).
"""

from __future__ import annotations

from contextlib import suppress
from typing import Annotated

import msgspec
from msgspec import UNSET, Meta, Raw, Struct, UnsetType
from msgspec.structs import asdict, replace

from usbgate.core.errors import Denied, LimitExceeded, Malformed, RequestError
from usbgate.core.jsonmessages import ApiAlarm, ApiAnswer, ApiAsk, ApiMoment, answer_json
from usbgate.core.model import Answer

ASK_LIMIT = 8 << 10  # bytes: room for a line of 1 kB with each character escaped, a reply topic and an id

COMMAND_FAILED = "command_failed"

# The kinds of events, by the `event_type` that Home Assistant knows them by.
EVENT_TYPES = ("alarm_raised", "alarm_ended", "alarm_acknowledged", COMMAND_FAILED)


class MqttAsk(ApiAsk, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """
    A question to a sensor, or a command.

    Attributes:
        sensor: The sensor; templates make numbers of ids.
        reply: Where the answer shall go, if the message itself says nothing of that.
        id: What the answer must have as well.
    """

    sensor: str | Annotated[int, Meta(ge=0, le=10**18)]
    reply: str | None = None
    id: Raw | UnsetType = UNSET


class MqttReplyTo(Struct, frozen=True, kw_only=True):
    """
    Where the answer to a message shall go that is no question, but has these keys of one.
    """

    reply: str | None = None
    id: Raw | UnsetType = UNSET


class MqttAnswer(ApiAnswer, frozen=True, kw_only=True):
    """
    An answer, as over HTTP, with the `id` of the question.
    """

    id: Raw | UnsetType = UNSET


class MqttFailure(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """
    Why there is no answer: the error's code and text, as over HTTP, and what was asked, as far as it could be read.
    """

    error: str
    detail: str
    reason: str | None = None
    role: str | None = None
    sensor: str | None = None
    command: str | None = None
    origin: str | None = None
    id: Raw | UnsetType = UNSET


class MqttFailureEvent(MqttFailure, frozen=True, kw_only=True, omit_defaults=True):
    """
    The same as an event, of what wanted no reply.
    """

    event_type: str
    at: ApiMoment


class MqttAlarmEvent(ApiAlarm, frozen=True, kw_only=True):
    """
    A change of an alarm, and the alarm as it is now, as over HTTP.
    """

    event_type: str
    at: ApiMoment


def read_ask(payload: bytes) -> MqttAsk:
    """
    Read a message to the topic `ask`.

    Raises:
        LimitExceeded: It is too long.
        Malformed: It is not a question.
    """
    if len(payload) > ASK_LIMIT:
        raise LimitExceeded(f"more than {ASK_LIMIT} bytes")
    try:
        return msgspec.json.decode(payload.decode(), type=MqttAsk)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Malformed("invalid body", str(error)) from None
    except RecursionError:
        raise Malformed("invalid body", "nested too deeply") from None


def read_reply_to(payload: bytes) -> MqttReplyTo:
    """
    Return where the answer to a message shall go that is no question, as far as it says so.
    """
    if len(payload) <= ASK_LIMIT:
        with suppress(msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return msgspec.json.decode(payload.decode(), type=MqttReplyTo)
    return MqttReplyTo()


def answer_message(answer: Answer, asked: MqttAsk) -> bytes:
    """
    Return the answer to a question.
    """
    return msgspec.json.encode(MqttAnswer(**asdict(answer_json(answer)), id=asked.id))


def failure_of(error: RequestError, asked: MqttAsk | None) -> MqttFailure:
    """
    Return why there is no answer to a question.

    Args:
        error: The error.
        asked: The question; None if it could not be read.
    """
    role = error.role if isinstance(error, Denied) else None
    failure = MqttFailure(error=error.code, detail=error.text, reason=error.reason, role=role)
    if asked is None:
        return failure
    return replace(failure, sensor=str(asked.sensor), command=asked.command, origin=asked.origin, id=asked.id)
