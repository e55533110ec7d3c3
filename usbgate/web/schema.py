"""
What goes in and out over HTTP as JSON. The OpenAPI document is made from these types; there, their names have no `Api`.

Times are RFC 3339 in UTC with milliseconds.
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

from usbgate.core.jsonmessages import ApiAlarm, ApiMoment, ApiValue
from usbgate.web.query import SensorId

JSON = "application/json"
CSV = "text/csv"
PLAIN_TEXT = "text/plain"
EVENT_STREAM = "text/event-stream"

ApiTexts = str | dict[str, str]


class ApiProblem(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """
    Why a call failed (RFC 9457), as application/problem+json.

    `code` is an error code of the line protocol, `reason` one of a few fixed phrases that say more, `role` the role
    that would have been required.
    """

    type: str
    title: str
    status: int
    detail: str
    code: Literal["timeout", "offline", "busy", "malformed", "unknown", "denied", "limit", "failed", "stopped"]
    reason: str | None = None
    role: str | None = None


class ApiLogin(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """
    The token with which to log in.
    """

    token: Annotated[str, Meta(min_length=1, max_length=1024)]


class ApiLogout(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """
    Nothing: an empty object.
    """


class ApiSession(Struct, frozen=True, kw_only=True):
    """
    Who the client is: the name of its token, or its user; null if only its address is known. `sensors` are those that
    it may use; null for all. `open` is whether everybody on the network may command.
    """

    role: Literal["none", "read", "ask", "command", "admin"]
    name: str | None
    sensors: list[str] | None
    open: bool


class ApiField(Struct, frozen=True, kw_only=True):
    """
    The newest reading of a field; `age` is in seconds, `alarm` the condition for an alarm. `label`, and the texts of
    `values`, are for all languages or by language; `states` is whether the values are states, such as on and off.
    """

    field: str
    value: float | None
    text: str | None
    kind: str | None
    label: ApiTexts | None
    values: dict[str, ApiTexts]
    states: bool
    unit: str | None
    decimals: int | None
    at: ApiMoment
    age: float
    alarm: str | None
    alarming: bool


class ApiCommand(Struct, frozen=True, kw_only=True):
    """
    A command that a person can send to a sensor.
    """

    label: str
    command: str
    arguments: dict[str, str]


class ApiSensor(Struct, frozen=True, kw_only=True):
    """
    A sensor; a configured sensor that has not reported yet has no `seen` and no fields. `poll` is in seconds.
    """

    id: str
    name: str | None
    place: str | None
    device: str | None
    device_state: str | None
    seen: ApiMoment | None
    stale: bool
    reports: int
    poll: float | None
    default_command: str
    commands: list[ApiCommand]
    fields: list[ApiField]


class ApiSensors(Struct, frozen=True, kw_only=True):
    """
    All sensors, and the time of usbgate's clock.
    """

    now: ApiMoment
    sensors: list[ApiSensor]


class ApiReading(Struct, frozen=True, kw_only=True):
    """
    A stored reading: a number or a text; both for a number with more digits than a double holds.
    """

    seq: int
    at: ApiMoment
    sensor: str
    field: str
    device: str
    value: float | None
    text: str | None
    command: str | None
    clock: bool


class ApiReadings(Struct, frozen=True, kw_only=True):
    """
    Stored readings, newest last.
    """

    readings: list[ApiReading]


class ApiState(Struct, frozen=True, kw_only=True):
    """
    Equal readings of a field from one device, one after the other: `until` is the time of the next other one, or,
    before a gap and at the end, of the last one.
    """

    since: ApiMoment
    until: ApiMoment
    device: str
    field: str
    value: float | None
    text: str | None


class ApiStates(Struct, frozen=True, kw_only=True):
    """
    States, newest last.
    """

    states: list[ApiState]


class ApiBucket(Struct, frozen=True, kw_only=True):
    """
    The numbers of a field from one device within one interval, which begins at `at`.
    """

    at: ApiMoment
    sensor: str
    device: str
    field: str
    min: float
    avg: float
    max: float
    count: int


class ApiBuckets(Struct, frozen=True, kw_only=True):
    """
    Aggregates, newest last; `bucket` is the length of an interval in seconds.
    """

    bucket: float
    buckets: list[ApiBucket]


class ApiRequest(Struct, frozen=True, kw_only=True):
    """
    A completed request: `outcome` is `answered`, `recent`, or the code of a problem. Or, with a `sensor` that is null,
    what somebody did (`done`) or was denied.
    """

    seq: int
    at: ApiMoment
    origin: str
    client: str
    device: str | None
    sensor: str | None
    command: str
    arguments: str | None
    outcome: str
    latency_ms: float


class ApiRequests(Struct, frozen=True, kw_only=True):
    """
    Completed requests, newest first.
    """

    requests: list[ApiRequest]


class ApiHeldRequest(Struct, frozen=True, kw_only=True):
    """
    A question that is held until its sensor reports, or until its time limit ends.
    """

    number: int
    at: ApiMoment
    until: ApiMoment
    origin: str
    client: str
    device: str
    sensor: str
    command: str
    arguments: str | None


class ApiHeldRequests(Struct, frozen=True, kw_only=True):
    """
    Questions that are held, oldest first.
    """

    held: list[ApiHeldRequest]


class ApiCancel(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """
    Cancels a question; an empty object.
    """


class ApiAcknowledge(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """
    Acknowledges an alarm.
    """

    by: Annotated[str, Meta(max_length=200, description="who; by default the peer's address")] | None = None


class ApiAlarms(Struct, frozen=True, kw_only=True):
    """
    Alarms that are active or not acknowledged yet, newest first.
    """

    alarms: list[ApiAlarm]


class ApiSpan(Struct, frozen=True, kw_only=True):
    """
    When the condition of an alarm held; `until` is null while it does.
    """

    since: ApiMoment
    until: ApiMoment | None


class ApiPastAlarm(ApiAlarm, frozen=True, kw_only=True):
    """
    An alarm, open or closed. `peak` is the number furthest beyond a condition with `<` or `>`; null for others.
    `spans`, newest first, are when the condition held; at most 200.
    """

    peak: float | None
    spans: list[ApiSpan]


class ApiPastAlarms(Struct, frozen=True, kw_only=True):
    """
    Alarms, newest first.
    """

    alarms: list[ApiPastAlarm]


class ApiReplacement(Struct, frozen=True, kw_only=True):
    """
    A sensor whose device has a new id: `successor` reports it `since` the sensor reported last; `by` is who said so.
    """

    sensor: str
    successor: str
    device: str
    since: ApiMoment
    at: ApiMoment
    by: str


class ApiOffer(Struct, frozen=True, kw_only=True):
    """
    A sensor that is silent `since` then, and a `successor` that is like it and appeared later, at `first`.
    """

    sensor: str
    successor: str
    device: str
    since: ApiMoment
    first: ApiMoment | None


class ApiReplacements(Struct, frozen=True, kw_only=True):
    """
    Sensors that have a new id, oldest first, and those that may have one.
    """

    replacements: list[ApiReplacement]
    offers: list[ApiOffer]


class ApiReplace(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """
    The new id of a sensor.
    """

    successor: Annotated[
        str, Meta(description="the id with which it reports now", extra_json_schema=dict(SensorId.SCHEMA))
    ]


class ApiUndo(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """
    Nothing: an empty object.
    """


class ApiWarning(Struct, frozen=True, kw_only=True):
    """
    What a person should know of a device and can do about it: `text` in English, or `reason`, one of a few fixed
    phrases, and `about`, such as the names of programs.
    """

    reason: str
    about: str
    text: str


class ApiDevice(Struct, frozen=True, kw_only=True):
    """
    A device: its path (null for all but the role `admin`), its state and since when, its counts, what is wrong with it,
    and the client that it is lent to.
    """

    name: str
    path: str | None
    state: str
    since: ApiMoment
    counts: dict[str, int]
    warnings: list[ApiWarning]
    lent_to: str | None


class ApiDevices(Struct, frozen=True, kw_only=True):
    """
    All devices, in the order of the configuration.
    """

    devices: list[ApiDevice]


class ApiRule(Struct, frozen=True, kw_only=True):
    """
    A rule: its condition, and whether that holds (null if it is not known); when it fired last, and how often since
    usbgate started; how many of its actions wait, how many were dropped, and why those that wait have failed.
    """

    name: str
    when: str
    holds: bool | None
    last: ApiMoment | None
    fired: int
    waiting: int
    dropped: int
    trouble: str | None


class ApiRules(Struct, frozen=True, kw_only=True):
    """
    All rules, in the order of the configuration.
    """

    rules: list[ApiRule]


class ApiStore(Struct, frozen=True, kw_only=True):
    """
    The database: its state (`none`, `connecting`, `connected` or `away`), how many rows wait to be stored, the time of
    the oldest, how many were rejected, and the reason if it is away.
    """

    state: str
    backlog: int
    oldest: ApiMoment | None
    rejected: int
    text: str | None


class ApiBroker(Struct, frozen=True, kw_only=True):
    """
    The MQTT broker: its state (`connecting`, `connected`, `away` or `refused`), how many messages were published,
    dropped and refused, how many questions and commands of its clients usbgate has refused, and the reason if it is not
    connected.
    """

    state: str
    published: int
    dropped: int
    refused: int
    unasked: int
    text: str | None


class ApiUncompared(Struct, frozen=True, kw_only=True):
    """
    The condition of an alarm with which so many readings in a row could not be compared; `text` is the last one.
    """

    device: str
    sensor: str
    field: str
    condition: str
    readings: int
    text: str | None


class ApiImplausible(Struct, frozen=True, kw_only=True):
    """
    How many readings of a field were not within its `min` and `max` since usbgate started; `text` is the last one.
    """

    device: str
    sensor: str
    field: str
    readings: int
    text: str


class ApiStatus(Struct, frozen=True, kw_only=True):
    """
    The state of usbgate; `uptime` is in seconds, `clock` is whether the wall clock is trusted, `mqtt` is null where no
    broker is configured.
    """

    version: str
    uptime: float
    clock: str
    gateway: str | None
    store: ApiStore
    journal: dict[str, ApiValue]
    mqtt: ApiBroker | None
    requests: dict[str, int]
    malformed: dict[str, int]
    uncompared: list[ApiUncompared]
    implausible: list[ApiImplausible]
    sensors: int
    inflight: int
    held: int
    clients: dict[str, int]


class ApiHealth(Struct, frozen=True, kw_only=True):
    """
    Health for supervisors: `degraded` if a device is neither online nor lent, or if the database is unreachable.
    """

    status: Literal["ok", "degraded"]
    store: str
    devices: dict[str, str]


class ApiReportEvent(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """
    `event: reading`: a report with readings. `raw` has the values as the device sent them, if what is shown differs;
    those that are not plausible are only there.
    """

    sensor: str
    device: str
    command: str | None
    at: ApiMoment
    values: dict[str, ApiValue]
    raw: dict[str, ApiValue] | None = None


class ApiDeviceEvent(Struct, frozen=True, kw_only=True):
    """
    `event: device`: a device changed its state.
    """

    device: str
    state: str
    since: ApiMoment


class ApiStoreEvent(Struct, frozen=True, kw_only=True):
    """
    `event: store`: the store changed its state.
    """

    state: str
    backlog: int


class ApiDroppedEvent(Struct, frozen=True, kw_only=True):
    """
    `event: dropped`: the number of events that this client lost; null if it is not known.
    """

    count: int | None
