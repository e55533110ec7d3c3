"""
What goes in and out over HTTP, as JSON; the OpenAPI document is made from these.

Times are RFC 3339 in UTC with milliseconds.
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

from usbgate.core.fieldline import RESERVED
from usbgate.core.messages import TIMEOUT_RANGE

Moment = Annotated[str, Meta(description="RFC 3339, UTC, with milliseconds", extra_json_schema={"format": "date-time"})]
Value = float | str

# What the one place that reads it for all faces makes sure of; here it is only said.
_NO_CONTROL = r"\u0000-\u001f\u007f-\u009f"
_READS_BACK = rf"^(?!.*_[^_]*:)[^\s\u00a0{_NO_CONTROL}]([^{_NO_CONTROL}]*[^\s\u00a0{_NO_CONTROL}])?$"
_ARGUMENT = rf"^(?!({'|'.join(sorted(RESERVED))})$)[A-Za-z][A-Za-z0-9]*$"
_Said = Annotated[str, Meta(extra_json_schema={"pattern": _READS_BACK})]
_Timeout = Annotated[float, Meta(extra_json_schema={"minimum": TIMEOUT_RANGE[0], "maximum": TIMEOUT_RANGE[1]})]
_Age = Annotated[float, Meta(extra_json_schema={"minimum": 0})]


class Problem(Struct, frozen=True, kw_only=True):
    """
    Why a call failed (RFC 9457), as application/problem+json.

    `code` is one of those that the line protocol knows.
    """

    type: str
    title: str
    status: int
    detail: str
    code: Literal["timeout", "offline", "busy", "malformed", "unknown", "denied", "limit", "failed", "stopped"]


class Field(Struct, frozen=True, kw_only=True):
    """
    The newest reading of a field; `age` is in seconds, `alarm` the condition of the configuration.
    """

    field: str
    value: float | None
    text: str | None
    unit: str | None
    decimals: int | None
    at: Moment
    age: float
    alarm: str | None
    alarming: bool


class Command(Struct, frozen=True, kw_only=True):
    """
    Something that a sensor can be told to do.
    """

    label: str
    command: str
    arguments: dict[str, str]


class Sensor(Struct, frozen=True, kw_only=True):
    """
    What is known of a sensor; one that is configured and never spoke has no `seen` and no fields.
    """

    id: str
    name: str | None
    place: str | None
    device: str | None
    device_state: str | None
    seen: Moment | None
    stale: bool
    reports: int
    default_command: str
    commands: list[Command]
    fields: list[Field]


class Sensors(Struct, frozen=True, kw_only=True):
    """
    All sensors, and the time of usbgate's clock.
    """

    now: Moment
    sensors: list[Sensor]


class Ask(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """
    A question to a sensor; all of it may be left out. All of it together is to fit into a line of 1 kB.
    """

    command: Annotated[_Said, Meta(description="by default the sensor's default command")] | None = None
    arguments: Annotated[
        dict[str, _Said | float],
        Meta(description="what else the device is told", extra_json_schema={"propertyNames": {"pattern": _ARGUMENT}}),
    ] = {}
    origin: Annotated[_Said, Meta(description="who asks; by default the peer's address")] | None = None
    timeout: Annotated[_Timeout, Meta(description="seconds until it fails")] | None = None
    max_age: Annotated[_Age, Meta(description="seconds that an answer may be old to be given at once")] | None = None
    device: Annotated[_Said, Meta(description="the device to ask, where routing can't tell")] | None = None


class Answer(Struct, frozen=True, kw_only=True):
    """
    An answer; `recent` says that it comes from memory (`max_age`).
    """

    sensor: str
    command: str
    device: str
    at: Moment
    recent: bool
    values: dict[str, Value]


class Reading(Struct, frozen=True, kw_only=True):
    """
    A stored reading: a number or a text; both, where a number has more digits than a double holds.
    """

    seq: int
    at: Moment
    sensor: str
    field: str
    device: str
    value: float | None
    text: str | None
    command: str | None
    clock: bool


class Readings(Struct, frozen=True, kw_only=True):
    """
    Stored readings, newest last.
    """

    readings: list[Reading]


class Bucket(Struct, frozen=True, kw_only=True):
    """
    The numbers that a field had within one interval, which begins at `at`.
    """

    at: Moment
    sensor: str
    field: str
    min: float
    avg: float
    max: float
    count: int


class Buckets(Struct, frozen=True, kw_only=True):
    """
    Sums, newest last; `bucket` is the seconds of an interval.
    """

    bucket: float
    buckets: list[Bucket]


class Request(Struct, frozen=True, kw_only=True):
    """
    A request that ended: `outcome` is `answered`, `recent`, or the code of a problem.
    """

    seq: int
    at: Moment
    origin: str
    client: str
    device: str | None
    sensor: str
    command: str
    arguments: str | None
    outcome: str
    latency_ms: float


class Requests(Struct, frozen=True, kw_only=True):
    """
    Requests that ended, newest first.
    """

    requests: list[Request]


class Acknowledgement(Struct, frozen=True, kw_only=True):
    """
    Who has seen an alarm, and when.
    """

    by: str
    at: Moment


class Acknowledge(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """
    Somebody has seen an alarm.
    """

    by: Annotated[str, Meta(max_length=200, description="who; by default the peer's address")] | None = None


class Alarm(Struct, frozen=True, kw_only=True):
    """
    A reading that fulfilled the condition of its field.
    """

    id: str
    sensor: str
    field: str
    name: str | None
    place: str | None
    condition: str
    value: float | None
    text: str | None
    since: Moment
    ended: Moment | None
    acknowledged: Acknowledgement | None


class Alarms(Struct, frozen=True, kw_only=True):
    """
    Alarms that are active or not acknowledged yet, newest first.
    """

    alarms: list[Alarm]


class Device(Struct, frozen=True, kw_only=True):
    """
    A device: its state and since when, what was counted, and what a person should know of it.
    """

    name: str
    path: str
    state: str
    since: Moment
    counts: dict[str, int]
    warning: str | None


class Devices(Struct, frozen=True, kw_only=True):
    """
    All devices, in the order of the configuration.
    """

    devices: list[Device]


class Store(Struct, frozen=True, kw_only=True):
    """
    The database: `none`, `connecting`, `connected` or `away`, with how many rows wait for it, since when, and why.
    """

    state: str
    backlog: int
    oldest: Moment | None
    rejected: int
    text: str | None


class Status(Struct, frozen=True, kw_only=True):
    """
    How usbgate is; `uptime` is in seconds, `clock` says whether the wall clock can be right.
    """

    version: str
    uptime: float
    clock: str
    gateway: str | None
    store: Store
    journal: dict[str, Value]
    requests: dict[str, int]
    malformed: dict[str, int]
    sensors: int
    inflight: int
    clients: dict[str, int]


class Health(Struct, frozen=True, kw_only=True):
    """
    Whether all is well, for supervisors: `degraded` where a device is offline or the store is away.
    """

    status: Literal["ok", "degraded"]
    store: str
    devices: dict[str, str]


class ReportEvent(Struct, frozen=True, kw_only=True):
    """
    `event: reading`: a report with measurements.
    """

    sensor: str
    device: str
    command: str | None
    at: Moment
    values: dict[str, Value]


class DeviceEvent(Struct, frozen=True, kw_only=True):
    """
    `event: device`: a device came, went, or fell silent.
    """

    device: str
    state: str
    since: Moment


class StoreEvent(Struct, frozen=True, kw_only=True):
    """
    `event: store`: the database came or went.
    """

    state: str
    backlog: int


class DroppedEvent(Struct, frozen=True, kw_only=True):
    """
    `event: dropped`: so many events were lost on the way to this client; null where nobody knows how many.
    """

    count: int | None
