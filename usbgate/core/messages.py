"""
The lines between clients and usbgate: requests, answers, errors and events (protocol §3).

Every front end that uses field lines parses its requests and formats its replies here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import assert_never

from usbgate.core.errors import Malformed, RequestError
from usbgate.core.fieldline import (
    LINE_LIMIT,
    NOT_IN_REQUESTS,
    NOT_SENT,
    check_value,
    format_line,
    format_number,
    format_time,
    is_key,
    is_sensor_id,
    join_fields,
    parse,
    parse_number,
    plain_text,
    reads_back,
)
from usbgate.core.model import Alarm, AlarmEvent, Answer, DeviceEvent, Event, Question, ReportEvent, Request, StoreEvent

# The keys of a request that its error reply repeats.
_ECHOED = ("MSG", "ID", "ORIGIN", "TAG")

# The keys that each request to a device has; all others are arguments.
_NO_ARGUMENTS = frozenset(["MSG", "ID", "ORIGIN"])

_TEXT_LIMIT = 200  # bytes of `TEXT`, which may quote a whole line
_TEXT_LEAST = 20  # bytes of `TEXT` that are sent even if the repeated fields leave no room

_AT_SIZE = len("_AT:2013-03-11T21:02:10.123Z")  # the end of each answer

TIMEOUT = 10.0  # seconds, the default, as in the original
TIMEOUT_RANGE = (0.1, 3600.0)  # seconds, protocol §3
HELD_TIMEOUT = 3600.0  # seconds, the default of a request that is held until its sensor reports
HELD_TIMEOUT_RANGE = (0.1, 7 * 86400.0)  # seconds: beyond a week nobody remembers what was asked


def parse_request(fields: Mapping[str, str], origin: str, client: str, parsed: bool = False) -> Request:
    """
    Make a request from a client's fields.

    Its line may be too long for the device, which only the caller can know (see `Request.line`).

    Args:
        fields: What the client sent, keys in upper case; the request may keep them, so they must not change.
        origin: The peer's address, used as `ORIGIN` if the client gave none.
        client: The peer, for the record.
        parsed: Whether the fields come from `parse`; otherwise their values, and the origin, are checked.

    Raises:
        Malformed: A required field is missing, a key is not allowed, a value is out of range or would not read
            back.
    """
    if not parsed:
        for key, value in {**fields, "ORIGIN": fields.get("ORIGIN", origin)}.items():
            check_value(key, value)
    if not NOT_IN_REQUESTS.isdisjoint(fields):
        key = next(key for key in fields if key in NOT_IN_REQUESTS)
        raise Malformed("key not allowed in a request", key)
    for key in ("MSG", "ID"):
        if key not in fields:
            raise Malformed("no " + key)
    if not is_sensor_id(fields["ID"]):
        raise Malformed("not a sensor id", repr(fields["ID"]))
    when_heard = "WHEN" in fields
    if when_heard and fields["WHEN"] != "heard":
        raise Malformed("value out of range", f"WHEN is {fields['WHEN']!r}, expected heard")
    limits = HELD_TIMEOUT_RANGE if when_heard else TIMEOUT_RANGE
    timeout = _seconds(fields, "TIMEOUT", *limits) if "TIMEOUT" in fields else None
    max_age = _seconds(fields, "MAXAGE", 0.0, float("inf")) if "MAXAGE" in fields else None
    sent = fields
    if not NOT_SENT.isdisjoint(fields):
        sent = {key: value for key, value in fields.items() if key not in NOT_SENT}
    if "ORIGIN" not in fields:
        sent = {**sent, "ORIGIN": origin}
    arguments = frozenset([argument for argument in sent.items() if argument[0] not in _NO_ARGUMENTS])
    return Request(
        question=Question(fields["ID"], fields["MSG"], arguments),
        fields=sent,
        line=join_fields(sent).encode(),
        origin=sent["ORIGIN"],
        client=client,
        timeout=timeout,
        max_age=max_age,
        device=fields.get("DEV"),
        when_heard=when_heard,
    )


def spell_arguments(request: Request) -> str | None:
    """
    Return the arguments of a request as a field line, in the client's order; None if it has none.
    """
    arguments = request.question.arguments
    return join_fields({k: v for k, v in request.fields.items() if (k, v) in arguments}) if arguments else None


def time_limit(request: Request, of_sensor: float | None) -> float:
    """
    Return after how many seconds the asker of a request gives up.

    Args:
        request: The request.
        of_sensor: What is configured for its sensor.
    """
    if request.timeout is not None:
        return request.timeout
    if request.when_heard:
        return HELD_TIMEOUT
    return TIMEOUT if of_sensor is None else of_sensor


def _seconds(fields: Mapping[str, str], key: str, least: float, most: float) -> float:
    text = fields[key]
    number = parse_number(text)
    if number is None or not least <= number <= most:
        expected = f"{least:g} to {most:g} seconds" if most < float("inf") else "seconds, not below 0"
        raise Malformed("value out of range", f"{key} is {text!r}, expected {expected}")
    return number


def salvage(line: bytes) -> dict[str, str]:
    """
    Extract `MSG`, `ID`, `ORIGIN` and `TAG` from a malformed line, as far as they can be read.

    Args:
        line: The line; of an over-long one its beginning, whose last field is taken as cut off.
    """
    fields: list[tuple[str, str]] = []
    for segment in line.decode("utf-8", "replace").removesuffix("_").split("_"):
        head, colon, value = segment.partition(":")
        if colon:
            # Check first: `upper` turns some letters that are not ASCII into ASCII.
            fields.append((head.upper() if is_key(head) else "", value))
        elif fields:
            key, value = fields[-1]
            fields[-1] = (key, f"{value}_{segment}")
    if len(line) > LINE_LIMIT:
        del fields[-1:]
    found: dict[str, str] = {}
    for key, value in fields:
        value = value.strip()
        if key in _ECHOED and key not in found and "\ufffd" not in value and reads_back(value):
            found[key] = value
    return found


def error_line(error: RequestError, fields: Mapping[str, str]) -> str:
    """
    Format an error: `ERROR:<code>_MSG:J_ID:20_ORIGIN:TOTO_TEXT:<why>`.

    Args:
        error: The error.
        fields: The fields of the request, as far as they are known; of `MSG`, `ID`, `ORIGIN` and `TAG` those that read
            back are repeated.
    """
    echoed = {key: fields[key] for key in _ECHOED if key in fields and reads_back(fields[key])}
    head = join_fields({"ERROR": error.code, **echoed, "TEXT": ""})
    room = min(_TEXT_LIMIT, max(_TEXT_LEAST, LINE_LIMIT - len(head.encode())))
    text = plain_text(error.text).encode()[:room].decode("utf-8", "ignore")
    return head + plain_text(text)


def answer_line(answer: Answer, tag: str | None = None) -> str:
    """
    Format an answer: `ID:20_VALUE:456_MSG:J_AT:2013-03-11T21:02:10.123Z`.

    Args:
        answer: The answer.
        tag: The `TAG` of the request, if it had one.
    """
    report = answer.report
    return _values_line({}, report.sensor, report.values, answer.command, tag, answer.at)


def with_tag(line: bytes, tag: str) -> bytes:
    """
    Insert a `TAG` into what `answer_line` returned without one, so that an answer is formatted once for all askers.

    A measurement `TAG` gives way to it.
    """
    if b"_TAG:" in line:
        fields = parse(line, len(line))
        fields["TAG"] = tag
        return join_fields(fields).encode()
    return line[:-_AT_SIZE] + b"_TAG:" + tag.encode() + line[-_AT_SIZE:]


def event_line(event: Event, raw: bool = False) -> tuple[str | None, str] | None:
    """
    Format an event for subscribers of `watch` (protocol §3): `EVENT:reading_ID:2_SMOKE:1_AT:2013-03-11T21:02:10.123Z`.

    Args:
        event: The event.
        raw: Whether for those that want measurements as the devices sent them.

    Returns:
        The sensor that a subscriber must have named to get it, or None if all subscribers get it; and the line. None
        for what is not sent on the line port: a kind of event, or a report of which nothing is shown.
    """
    match event:
        case ReportEvent():
            sensor, values = event.sensor, event.raw if raw and event.raw is not None else event.values
            if not values:
                return None
            return sensor, _values_line({"EVENT": "reading"}, sensor, values, event.command, None, event.at)
        case DeviceEvent():
            return None, format_line({"EVENT": "device", "DEV": event.device, "STATE": event.state})
        case AlarmEvent(alarm, change, at):
            fields = alarm_fields(alarm)
            return alarm.sensor, data_line({"EVENT": "alarm", "CHANGE": change, **fields, "AT": format_time(at)})
        case StoreEvent():
            return None
        case _:
            assert_never(event)


def alarm_fields(alarm: Alarm) -> Mapping[str, str]:
    """
    Return the fields of an alarm, in `alarms` and in events; a value may be one that does not read back.
    """
    number = "" if alarm.value is None else format_number(alarm.value)
    return {
        "ALARM": alarm.alarm,
        "ID": alarm.sensor,
        "FIELD": alarm.field,
        "VALUE": alarm.text or number,
        "CONDITION": alarm.condition,
        "SINCE": format_time(alarm.since),
        **({"ENDED": format_time(alarm.ended)} if alarm.ended is not None else {}),
        **({"ACKNOWLEDGED": format_time(alarm.acknowledged)} if alarm.acknowledged is not None else {}),
        **({"BY": alarm.by} if alarm.by is not None else {}),
        "DEV": alarm.device,
    }


def data_line(fields: Mapping[str, str]) -> str:
    """
    Format fields; a value that would not read back is changed to plain text.
    """
    return join_fields({key: value if reads_back(value) else plain_text(value) for key, value in fields.items()})


def _values_line(
    head: dict[str, str],
    sensor: str,
    values: Iterable[tuple[str, str]],
    command: str | None,
    tag: str | None,
    at: int,
) -> str:
    fields = head
    fields["ID"] = sensor
    for key, value in values:
        check_value(key, value)  # a dialect can be anybody's
        fields[key] = value
    if command is not None:
        fields["MSG"] = command
    if tag is not None:
        fields["TAG"] = tag
    fields["AT"] = format_time(at)
    return join_fields(fields)
