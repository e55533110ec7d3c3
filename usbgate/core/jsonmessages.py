"""
Questions, answers and alarms as JSON, the same over HTTP and MQTT (docs/http.md).

Times are RFC 3339 in UTC with milliseconds. In the OpenAPI document, the names of the types have no `Api`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Literal

from msgspec import Meta, Struct

from usbgate.core.errors import Malformed
from usbgate.core.fieldline import KEY_PATTERN, RESERVED, format_number, format_time, is_key, parse_value
from usbgate.core.messages import HELD_TIMEOUT_RANGE, parse_request
from usbgate.core.model import Alarm, Answer, Request
from usbgate.core.settings import SensorSettings

ApiMoment = Annotated[
    str, Meta(description="RFC 3339, UTC, with milliseconds", extra_json_schema={"format": "date-time"})
]
ApiValue = float | str

# These patterns only document; `parse_request` checks the request for all front ends.
_NO_CONTROL = r"\u0000-\u001f\u007f-\u009f"
_READS_BACK = rf"^(?!.*_[^_]*:)[^\s\u00a0{_NO_CONTROL}]([^{_NO_CONTROL}]*[^\s\u00a0{_NO_CONTROL}])?$"
_ARGUMENT = rf"^(?!({'|'.join(sorted(RESERVED))})$){KEY_PATTERN}$"
_FieldText = Annotated[str, Meta(extra_json_schema={"pattern": _READS_BACK})]
_Timeout = Annotated[
    float, Meta(extra_json_schema={"minimum": HELD_TIMEOUT_RANGE[0], "maximum": HELD_TIMEOUT_RANGE[1]})
]
_Age = Annotated[float, Meta(extra_json_schema={"minimum": 0})]


class ApiAsk(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """
    A question to a sensor; every key is optional. The whole question must fit into a line of 1 kB.
    """

    command: Annotated[_FieldText, Meta(description="by default the sensor's default command")] | None = None
    arguments: Annotated[
        dict[str, _FieldText | float],
        Meta(description="the command's arguments", extra_json_schema={"propertyNames": {"pattern": _ARGUMENT}}),
    ] = {}
    origin: Annotated[_FieldText, Meta(description="who asks; by default the peer's address")] | None = None
    timeout: Annotated[_Timeout, Meta(description="time limit in seconds; without `when`, 3600 at most")] | None = None
    when: (
        Annotated[
            Literal["heard"],
            Meta(description="`heard`: hold the question until the sensor reports; for nodes that sleep"),
        ]
        | None
    ) = None
    max_age: Annotated[_Age, Meta(description="accept an answer from memory at most this many seconds old")] | None = (
        None
    )
    device: Annotated[_FieldText, Meta(description="the device to ask, if the sensor does not determine it")] | None = (
        None
    )


class ApiAnswer(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """
    An answer; `recent` is true for an answer from memory (`max_age`). `raw` has the values as the device sent them, if
    what is shown differs.
    """

    sensor: str
    command: str
    device: str
    at: ApiMoment
    recent: bool
    values: dict[str, ApiValue]
    raw: dict[str, ApiValue] | None = None


class ApiAcknowledgement(Struct, frozen=True, kw_only=True):
    """
    Who acknowledged an alarm, and when.
    """

    by: str
    at: ApiMoment


class ApiAlarm(Struct, frozen=True, kw_only=True):
    """
    A reading that met the condition of its field.
    """

    id: str
    device: str
    sensor: str
    field: str
    name: str | None
    place: str | None
    condition: str
    value: float | None
    text: str | None
    since: ApiMoment
    ended: ApiMoment | None
    acknowledged: ApiAcknowledgement | None


def request_of(body: ApiAsk, sensor: str, default_command: str, origin: str, client: str) -> Request:
    """
    Make a request.

    Args:
        body: What is asked.
        sensor: The sensor.
        default_command: The command, if the body has none.
        origin: `ORIGIN`, if the body has none.
        client: The peer, for the record.

    Raises:
        Malformed: An argument has no valid key, or see `parse_request`.
    """
    fields = {"MSG": default_command if body.command is None else body.command, "ID": sensor}
    if body.origin is not None:
        fields["ORIGIN"] = body.origin
    for name, value in body.arguments.items():
        key = name.upper() if is_key(name) else ""
        if key in RESERVED:
            raise Malformed("arguments: reserved key", key)
        if not key or key in fields:
            raise Malformed("arguments: not a key, or given twice", repr(name[:80]))
        fields[key] = value if isinstance(value, str) else format_number(value)
    if body.when is not None:
        fields["WHEN"] = body.when
    for key, number in (("TIMEOUT", body.timeout), ("MAXAGE", body.max_age)):
        if number is not None:
            fields[key] = format_number(number)
    if body.device is not None:
        fields["DEV"] = body.device
    return parse_request(fields, origin, client)


def answer_json(answer: Answer) -> ApiAnswer:
    """
    Return an answer.
    """
    return ApiAnswer(
        sensor=answer.report.sensor,
        command=answer.command,
        device=answer.device,
        at=format_time(answer.at),
        recent=answer.recent,
        values=values_json(answer.report.values),
        raw=None if answer.raw is None else values_json(answer.raw),
    )


def values_json(values: Iterable[tuple[str, str]]) -> dict[str, ApiValue]:
    """
    Return the values of a report: numbers, and as texts what is not a number or whose spelling is kept.
    """
    return {field: _value(text) for field, text in values}


def _value(spelled: str) -> ApiValue:
    number, text = parse_value(spelled)
    return number if number is not None and text is None else spelled


def alarm_json(alarm: Alarm, configured: Mapping[str, SensorSettings]) -> ApiAlarm:
    """
    Return an alarm, with its sensor's name and place.
    """
    settings = configured.get(alarm.sensor, SensorSettings())
    acknowledged = None
    if alarm.acknowledged is not None:
        acknowledged = ApiAcknowledgement(by=alarm.by or "", at=format_time(alarm.acknowledged))
    return ApiAlarm(
        id=alarm.alarm,
        device=alarm.device,
        sensor=alarm.sensor,
        field=alarm.field,
        name=settings.name,
        place=settings.place,
        condition=alarm.condition,
        value=alarm.value,
        text=alarm.text,
        since=format_time(alarm.since),
        ended=None if alarm.ended is None else format_time(alarm.ended),
        acknowledged=acknowledged,
    )
