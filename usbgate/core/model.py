"""
What travels through usbgate: reports, readings, requests, answers, events and rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import NamedTuple

# Makes a NamedTuple from a tuple of all its values: `make(Report, (…))` takes 0.15 µs, `Report(…)` 0.33. Only for what
# is made for every line.
make = tuple.__new__


class Report(NamedTuple):
    """
    What a device reports in one line, or another frame, decoded (protocol §2).

    `values` holds the measurements in the order and the spelling of the device, keys in upper case; it is empty for an
    acknowledgement, which has a `command`. Values are text here; `core.fieldline.parse_value` makes numbers of them.
    `left_out` holds the reason for each field that was left out because it was damaged, one of `core.counts.DAMAGES`.
    """

    sensor: str
    command: str | None
    tag: str | None
    values: tuple[tuple[str, str], ...]
    left_out: tuple[str, ...] = ()


class Reply(NamedTuple):
    """
    What a dialect answers to a device that asks usbgate something: bytes, written at once and as they are.
    """

    data: bytes


class Reading(NamedTuple):
    """
    One measurement as it is stored (protocol §5): the columns of table `reading` that are not the gateway's own.

    A NamedTuple since one is made for each measurement of each line: 0.15 µs (see `make`) against 1.0 for a frozen
    dataclass.
    """

    at: int  # whole milliseconds since 1970, UTC
    device: str
    sensor: str
    field: str
    value: float | None
    text: str | None
    command: str | None  # what it answered, None if unasked
    clock: bool  # whether the wall clock was known to be right


class Question(NamedTuple):
    """
    A sensor, a command and its arguments: what makes two requests the same (protocol §4).
    """

    sensor: str
    command: str
    arguments: frozenset[tuple[str, str]] = frozenset()


class Priority(IntEnum):
    """
    On whose behalf a question is asked: the least is written first (protocol §4.2).
    """

    PERSON = 0
    RULE = 1
    POLL = 2


POLLER = "poll"  # who asks a poll: its origin, and its client


class Request(NamedTuple):
    """
    A question, and what the asker wants of it.

    Attributes:
        question: The question.
        fields: The fields sent to the device: keys in upper case, in the client's order, with `ORIGIN` and without
            `MAXAGE`, `TIMEOUT`, `WHEN`, `DEV` and the client's `TAG`.
        line: `fields` as a field line, without its end; it may be longer than a line can be.
        origin: Who asks, as the client names itself.
        client: The peer's address, for the record.
        timeout: Seconds until this asker gives up; None leaves it to the sensor's setting.
        max_age: The greatest age, in seconds, of an answer from memory; None asks the device in any case.
        device: The name of the device to ask; None leaves it to routing.
        priority: On whose behalf it is asked.
        when_heard: Whether it is held until the sensor reports.
    """

    question: Question
    fields: Mapping[str, str]
    line: bytes
    origin: str
    client: str
    timeout: float | None = None
    max_age: float | None = None
    device: str | None = None
    priority: Priority = Priority.PERSON
    when_heard: bool = False


class Send(NamedTuple):
    """
    A message to write.

    Attributes:
        request: The request.
        tag: usbgate's own tag, or None.
        patience: Seconds to wait for the answer; until then the same line coming back is an echo.
    """

    request: Request
    tag: str | None
    patience: float


class BoardKind(NamedTuple):
    """
    What is known of a board when its port was opened.

    Attributes:
        resets: Whether opening the port has reset it.
        native: Whether its USB is its own: then it takes no byte for which it has no room.
    """

    resets: bool = False
    native: bool = False


UNKNOWN_BOARD = BoardKind()


class DeviceWarning(NamedTuple):
    """
    What a person should know of a device and can do about it.

    Attributes:
        reason: One of a few fixed phrases, for front ends that have words of their own.
        about: What it is about: programs, a path, a name, or ports.
        text: The whole, as one line in English.
    """

    reason: str
    about: str
    text: str


class Answer(NamedTuple):
    """
    A report that answers a question.

    Attributes:
        report: The report as the device spelled it.
        command: The command of the question.
        at: When it was read: whole milliseconds since 1970, UTC.
        device: The device that sent it.
        recent: Whether it comes from memory (`max_age`).
        raw: The measurements as the device sent them, if the report has what is shown instead (see `core.calibration`).
    """

    report: Report
    command: str
    at: int
    device: str
    recent: bool = False
    raw: tuple[tuple[str, str], ...] | None = None


class ReportEvent(NamedTuple):
    """
    A report with measurements was received.

    Attributes:
        sensor: The sensor.
        device: The device that sent it.
        command: The command that it answered, or that it contained itself, if any.
        at: When it was read: whole milliseconds since 1970, UTC.
        values: The measurements that are shown, spelled as in `Report`; empty if none is plausible.
        raw: The measurements as the device sent them; None if `values` are the same.
    """

    sensor: str
    device: str
    command: str | None
    at: int
    values: tuple[tuple[str, str], ...]
    raw: tuple[tuple[str, str], ...] | None = None


class DeviceEvent(NamedTuple):
    """
    A device changed state.

    Attributes:
        device: The device's name.
        state: As in `DeviceSummary`.
        since: Since when: whole milliseconds since 1970, UTC.
    """

    device: str
    state: str
    since: int


class StoreEvent(NamedTuple):
    """
    The store changed state.

    Attributes:
        state: `connecting`, `connected` or `away`.
        backlog: Rows that wait for it.
    """

    state: str
    backlog: int


class Action(NamedTuple):
    """
    What somebody did besides asking a sensor, or was not permitted to do; to be recorded (protocol §5).

    Attributes:
        command: What: a word, or `token add` and such, or a call over HTTP.
        client: Who: the client's address, behind the name of its token or its user.
        origin: Who, as the client says, or its address.
        details: What it was about, as fields.
        device: The device that it was about; None for none.
        outcome: `done`, or the code of an error.
    """

    command: str
    client: str
    origin: str
    details: Mapping[str, str] = {}
    device: str | None = None
    outcome: str = "done"


class RequestRecord(NamedTuple):
    """
    One request that ended, or one `Action`: the columns of table `request` that are not the gateway's own (protocol
    §5).
    """

    at: int  # when it was accepted, by the clock at its end: whole milliseconds since 1970, UTC
    origin: str
    client: str
    device: str | None
    sensor: str | None  # None for what was no question
    command: str
    arguments: str | None  # as a field line
    outcome: str  # "answered", "recent", "done" or an error code
    latency_ms: float
    clock: bool  # whether the wall clock was known to be right


class ClockMark(NamedTuple):
    """
    The clocks at the time when the following rows were stamped: the columns of table `clock_mark` that are not the
    gateway's own (protocol §5).
    """

    at: int  # the wall clock: whole milliseconds since 1970, UTC
    uptime: float  # seconds since the machine started
    boot: str  # which start of the machine that was
    clock: bool  # whether the wall clock was known to be right


class Alarm(NamedTuple):
    """
    A reading that met the condition of its field. It is open until it has ended and was acknowledged.

    Attributes:
        alarm: Its id.
        device: The device that sent the reading.
        sensor: The sensor.
        field: The field, upper case.
        condition: The condition, such as `> 60`.
        value: The reading, if it is a number.
        text: The reading, if it is not a number.
        since: When it was raised: whole milliseconds since 1970, UTC.
        ended: When a reading no longer met the condition, or the alarm of a device that is no longer configured was
            acknowledged; None while it is active.
        acknowledged: When it was acknowledged; None until then.
        by: Who acknowledged it.
    """

    alarm: str
    device: str
    sensor: str
    field: str
    condition: str
    value: float | None
    text: str | None
    since: int
    ended: int | None = None
    acknowledged: int | None = None
    by: str | None = None


class AlarmRecord(NamedTuple):
    """
    A change of an alarm: the columns of table `alarm_event` that are not the gateway's own.
    """

    at: int  # whole milliseconds since 1970, UTC
    alarm: str
    device: str
    sensor: str
    field: str
    event: str  # "raised", "ended", "acknowledged", or "joined" to an older one that is the same
    condition: str
    value: float | None
    text: str | None
    who: str | None  # acknowledged it
    clock: bool  # whether the wall clock was known to be right


class OwnerRecord(NamedTuple):
    """
    A device became the owner of a sensor: the columns of table `owner_event` that are not the gateway's own.
    """

    at: int  # whole milliseconds since 1970, UTC
    sensor: str
    device: str
    event: str  # "claimed": nobody owned it; "passed": another device did
    clock: bool  # whether the wall clock was known to be right


class ReplacementRecord(NamedTuple):
    """
    A sensor was replaced, or that was taken back: the columns of table `replacement_event` that are not the gateway's
    own; see `usbgate.core.replacements`.
    """

    at: int  # whole milliseconds since 1970, UTC
    sensor: str
    successor: str
    device: str
    event: str  # "replaced" or "undone"
    since: int  # of `successor` what was read from then on, and stored before this row, is the sensor's
    who: str
    clock: bool  # whether the wall clock was known to be right


# What is stored, one class per table: see `usbgate.core.batch.KINDS`.
Row = Reading | RequestRecord | ClockMark | AlarmRecord | OwnerRecord | ReplacementRecord


class AlarmEvent(NamedTuple):
    """
    An alarm changed.

    Attributes:
        alarm: As it is now.
        change: As in `AlarmRecord.event`.
        at: When: whole milliseconds since 1970, UTC.
    """

    alarm: Alarm
    change: str
    at: int


@dataclass(frozen=True, slots=True)
class Button:
    """
    A command that a person can send to a sensor.

    Attributes:
        label: What the button says.
        command: The command.
        arguments: Its arguments, by key in upper case.
    """

    label: str
    command: str
    arguments: Mapping[str, str] = field(default_factory=dict)


Event = ReportEvent | DeviceEvent | StoreEvent | AlarmEvent


class Range(NamedTuple):
    """
    Which numbers of a field are plausible, as the device sends them.

    Attributes:
        sensor: The sensor.
        field: The field.
        low: The lowest; perhaps infinite, like the highest.
        high: The highest.
        falling: Whether what is shown falls while the number rises.
    """

    sensor: str
    field: str
    low: float
    high: float
    falling: bool


@dataclass(frozen=True, slots=True)
class Selection:
    """
    A selection of stored readings.

    Attributes:
        sensor: The sensor.
        field: Only this field, upper case; None for all.
        since: Only at or after this time: whole milliseconds since 1970, UTC; None for all.
        until: Only before this time; None for all.
        raw: Whether readings are wanted as the devices sent them, those that are not plausible included.
        ranges: Only plausible numbers; set by the gateway.
        joined: Whether the readings of successors are the sensor's (`core.replacements`); set by the gateway.
    """

    sensor: str
    field: str | None = None
    since: int | None = None
    until: int | None = None
    raw: bool = False
    ranges: tuple[Range, ...] = ()
    joined: bool = False


class StoredReading(NamedTuple):
    """
    A reading with the number under which it is stored.
    """

    seq: int
    reading: Reading


class StoredRequest(NamedTuple):
    """
    A request that ended, with the number under which it is stored.
    """

    seq: int
    record: RequestRecord


class Bucket(NamedTuple):
    """
    The numeric readings of a field from one device within one interval.
    """

    at: int  # the start of the interval: whole milliseconds since 1970, UTC
    device: str
    field: str
    min: float
    avg: float
    max: float
    readings: int  # how many


class StoredState(NamedTuple):
    """
    Equal readings of a field from one device, one after the other.
    """

    since: int  # the first one: whole milliseconds since 1970, UTC
    until: int  # the next other one, or, before a gap and at the end, the last one
    device: str
    field: str
    value: float | None
    text: str | None


class StoredAlarm(NamedTuple):
    """
    An alarm from the store, open or closed.

    Attributes:
        alarm: The alarm; it may have ended and have begun again since it was raised.
        peak: The number furthest beyond a condition with `<` or `>`; None for other conditions.
        spans: When the condition held, newest first: from and to in whole milliseconds since 1970, UTC; None for to
            while it holds.
    """

    alarm: Alarm
    peak: float | None
    spans: tuple[tuple[int, int | None], ...]
