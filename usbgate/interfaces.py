"""
The doors between the rooms: what each part may expect of its neighbours.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from twisted.internet.defer import Deferred
from zope.interface import Attribute, Interface

from usbgate.batch import Batch
from usbgate.model import (
    Alarm,
    Answer,
    Bucket,
    Event,
    Reading,
    Report,
    Request,
    Row,
    Selection,
    Send,
    StoredReading,
    StoredRequest,
)


class IClock(Interface):
    """
    The one source of time: wall time for stamping, monotonic time for everything else.
    """

    def wall() -> int:
        """
        Tell the wall clock: whole milliseconds since 1970, UTC.
        """

    def monotonic() -> float:
        """
        Tell seconds since some moment; never steps.
        """

    def uptime() -> float:
        """
        Tell seconds since the machine started, also those in which it slept; never steps.
        """

    def boot() -> str:
        """
        Tell which start of the machine that was; no two have the same.
        """

    def trusted() -> bool:
        """
        Tell whether the wall clock can be right: synchronised, and not before this release was made.
        """


class IDialect(Interface):
    """
    How one kind of device spells things (protocol §2, last point). One instance a link.
    """

    line_starts: Sequence[bytes] = Attribute(
        "What the first line after opening must start with to count; else it may be the tail of a broken one."
    )
    left_out: int = Attribute("How many fields were left out since usbgate means something else by their keys.")

    def decode(line: bytes) -> Report | str:
        """
        Read one line of a device.

        Args:
            line: The bytes without the line end, not empty.

        Returns:
            A report, or a `str` where the line is the firmware's own log text.

        Raises:
            Malformed: It is neither.
        """

    def encode(request: Request, tag: str | None) -> bytes:
        """
        Write one request.

        Args:
            request: What to ask.
            tag: usbgate's own tag, where the device is configured to echo one.

        Returns:
            The line without its end.
        """


class IResettable(Interface):
    """
    A transport by which a board can be reset.
    """

    def reset() -> bool:
        """
        Begin to reset the board.

        Returns:
            Whether there is a line that can do so.
        """


class IDeviceLink(Interface):
    """
    One device, connected or not. A service: `startService` begins to look for it.
    """

    name: str = Attribute("The name by which clients and the database know it.")
    path: str = Attribute("Where it is, in the words of the configuration.")
    lines_in: int = Attribute("Lines read since usbgate started.")
    lines_out: int = Attribute("Lines written since usbgate started.")
    malformed: int = Attribute("Lines that could not be read.")
    echoes: int = Attribute("Lines that were only an echo of what usbgate wrote.")
    repeats: int = Attribute("Lines that only repeated the one before, where that is told apart.")
    partial: int = Attribute("First lines after opening that were the tail of a broken one.")
    left_out: int = Attribute("Fields left out (see `IDialect.left_out`).")

    def send(messages: Sequence[Send]) -> None:
        """
        Write messages to the device, in one piece; does nothing while it is not connected.
        """

    def pause() -> None:
        """
        Read nothing from the device until `resume`; holds over a reconnection. Repeating it is harmless.
        """

    def resume() -> None:
        """
        Read again.
        """

    def release() -> Deferred[str]:
        """
        Close the device and look for it no more, until `take_back`; its listener is not told.

        Returns:
            Fires with the path of its tty (`path`, if it was not open) when it is closed and its lock is free.
        """

    def take_back() -> None:
        """
        Look for the device again; to be called when `release` has fired.
        """


class ILinkListener(Interface):
    """
    Who is told what happens on a link.
    """

    def link_up(link: IDeviceLink) -> None:
        """
        The device was opened.
        """

    def link_down(link: IDeviceLink, reason: str) -> None:
        """
        The device went away, or the first attempt to open it failed (later ones are not told again).
        """

    def link_full(link: IDeviceLink) -> None:
        """
        The device does not take what was written; nothing more should be, until `link_drained`, `link_up` or
        `link_down`. Called from within `IDeviceLink.send`.
        """

    def link_drained(link: IDeviceLink) -> None:
        """
        The device took all that was written.
        """

    def link_silent(link: IDeviceLink) -> None:
        """
        The device is open, and has said no line for as long as the configuration allows.
        """

    def link_heard(link: IDeviceLink) -> None:
        """
        The device that was silent said a line.
        """

    def reports_received(link: IDeviceLink, reports: Sequence[Report]) -> None:
        """
        One chunk was read and held these reports, in order; called at once, at least one report.
        """

    def line_refused(link: IDeviceLink, line: bytes, reason: str) -> None:
        """
        A line was malformed, or partial.
        """


class IJournal(Interface):
    """
    The durable queue between what is read and what is stored.
    """

    def append(*runs: Sequence[Row]) -> None:
        """
        Take rows in; they are on disk 50 ms and one commit later.

        Args:
            runs: Rows, each of these sequences of one kind. Of what is written at once, rows are numbered in the
                order of `KINDS`, and those of one kind in the order in which they came. A kind that delimits is
                numbered behind all that came in before.
        """


class IOutbox(Interface):
    """
    The delivery's side of the journal: what waits to be stored.
    """

    backlog: int = Attribute("Rows appended and not yet confirmed.")
    rejected: int = Attribute("Rows set aside for good.")

    def oldest() -> Deferred[Batch]:
        """
        Wait for the oldest rows on disk that are not confirmed; the same batch again until it is.

        Returns:
            Fires when there are any, merged up to a good size; cancelling it takes the question back.
        """

    def confirm(batch: Batch) -> None:
        """
        Take note that the batch that `oldest` gave is stored or set aside, whole.
        """

    def reject(row: Batch, reason: str) -> None:
        """
        Set one row aside for good; durable before the `confirm` that covers it.

        Args:
            row: A batch of one row.
            reason: Why the store refused it.
        """


class SinkUnavailable(Exception):
    """
    The store can't be reached or won't take anything now; trying again later is right.
    """


class RowsRefused(Exception):
    """
    The store refused these rows for what they are (SQLSTATE classes 22 and 23, encoding).
    """


class ISink(Interface):
    """
    Where batches are stored for good.
    """

    lost: Callable[[str], None] = Attribute(
        "To be set: called with the reason when the store is lost while nothing is asked of it."
    )

    def connect() -> Deferred[None]:
        """
        Reach the store and make it ready; does nothing where it is.

        Returns:
            Fires when batches can be stored; fails with `SinkUnavailable`.
        """

    def store(batch: Batch) -> Deferred[None]:
        """
        Store a batch whole; storing one twice, or one that overlaps another, is the same as once.

        Returns:
            Fires when it is committed; fails with `SinkUnavailable` or `RowsRefused` (then nothing of it was
            stored).
        """

    def close() -> Deferred[None]:
        """
        Let go of the store, at once whatever it is doing.
        """


class IHistory(Interface):
    """
    What was stored, to be read again.
    """

    def latest() -> Deferred[list[Reading]]:
        """
        Fetch the newest reading of each field of each sensor of this gateway, by number; oldest first.

        Returns:
            Fails with `SinkUnavailable`.
        """

    def alarms() -> Deferred[list[Alarm]]:
        """
        Fetch the open alarms of this gateway, oldest first.

        Returns:
            Fails with `SinkUnavailable`.
        """

    def history(sensor: str, field: str | None, since: int | None, limit: int) -> Deferred[list[Reading]]:
        """
        Fetch stored readings of a sensor of this gateway, the newest `limit` of them, newest last, by number.

        Args:
            sensor: The sensor's id.
            field: Only this field, upper case; None for all.
            since: Only readings at or after this time (whole milliseconds since 1970, UTC); None for all.
            limit: At most so many, above 0.

        Returns:
            Fails with `SinkUnavailable`.
        """


class IArchive(Interface):
    """
    What was stored, page by page, in sums, and who asked for it.
    """

    def extent(selection: Selection, limit: int | None) -> Deferred[tuple[int, int] | None]:
        """
        Find the numbers of the first and the last of some stored readings of this gateway.

        Args:
            selection: Which ones.
            limit: The newest so many of them, above 0; None for all. Which are the newest, their times say where the
                selection has one, and else their numbers.

        Returns:
            Fires with None where there are none; fails with `SinkUnavailable`.
        """

    def page(selection: Selection, first: int, last: int, limit: int) -> Deferred[list[StoredReading]]:
        """
        Fetch some stored readings of this gateway, by number, oldest first.

        Args:
            selection: Which ones.
            first: None with a lower number.
            last: None with a higher number.
            limit: At most so many, above 0.

        Returns:
            Fails with `SinkUnavailable`.
        """

    def buckets(selection: Selection, width: int, limit: int) -> Deferred[list[Bucket]]:
        """
        Sum up stored numbers of this gateway by intervals, oldest first.

        Args:
            selection: Which ones.
            width: Whole milliseconds that each interval has; they begin at multiples of it since 1970, UTC.
            limit: The newest so many, above 0.

        Returns:
            Fails with `SinkUnavailable`.
        """

    def requests(sensor: str | None, limit: int) -> Deferred[list[StoredRequest]]:
        """
        Fetch requests of this gateway that ended, newest first, by number.

        Args:
            sensor: Only about this sensor; None for all.
            limit: At most so many, above 0.

        Returns:
            Fails with `SinkUnavailable`.
        """


@dataclass(frozen=True, slots=True)
class FieldPresentation:
    """
    How a person wants to see a field.

    Attributes:
        unit: What its numbers measure, such as `°C`.
        decimals: Digits behind the point.
        alarm: When it is an alarm, such as `> 60`.
    """

    unit: str | None = None
    decimals: int | None = None
    alarm: str | None = None


@dataclass(frozen=True, slots=True)
class Presentation:
    """
    How a person wants to see a sensor: what the configuration says of it.

    Attributes:
        name: What a person calls it.
        place: Where it is.
        device: The link that serves it.
        stale: Seconds after which its newest reading is old.
        commands: What it can be told to do: a label, and `COMMAND` or `COMMAND KEY=VALUE …`.
        fields: By field, upper case.
    """

    name: str | None = None
    place: str | None = None
    device: str | None = None
    stale: float = 3600.0
    commands: Sequence[tuple[str, str]] = ()
    fields: Mapping[str, FieldPresentation] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Totals:
    """
    What was counted since usbgate started.

    Attributes:
        readings: Measurements read.
        outcomes: Requests that ended, by outcome.
        malformed: Malformed lines, by reason.
        latencies: Requests that a device answered: how many took at most so many seconds, ascending, the last one
            infinity.
        latency_sum: Seconds that they took together.
    """

    readings: int
    outcomes: Mapping[str, int]
    malformed: Mapping[str, int]
    latencies: Sequence[tuple[float, int]]
    latency_sum: float


@dataclass(frozen=True, slots=True)
class SensorSummary:
    """
    What is known of a sensor.

    Attributes:
        sensor: Its id.
        device: The link that spoke for it last.
        fields: The fields it has reported, sorted.
        seen: When it spoke last: whole milliseconds since 1970, UTC.
        reports: Reports since usbgate started.
        name: Its name in the configuration.
    """

    sensor: str
    device: str
    fields: Sequence[str]
    seen: int
    reports: int
    name: str | None = None


@dataclass(frozen=True, slots=True)
class DeviceSummary:
    """
    What is known of a link.

    Attributes:
        name: Its name.
        path: Where it is, in the words of the configuration.
        state: `starting`, `settling`, `online`, `silent`, `offline` or `lent`.
        since: Since when: whole milliseconds since 1970, UTC.
        counts: Numbers by name, in the order in which to show them: `IN`, `OUT`, `MALFORMED` first.
        warning: What a person should know of it and can do about it; None where all is well.
    """

    name: str
    path: str
    state: str
    since: int
    counts: Mapping[str, int] = field(default_factory=dict)
    warning: str | None = None


@dataclass(frozen=True, slots=True)
class Lease:
    """
    A device that is lent to another program.

    Attributes:
        device: Its name.
        port: The path of its tty; where it is in the words of the configuration, if that can't be told.
        end: Takes it back; calling it again does nothing.
    """

    device: str
    port: str
    end: Callable[[], None]


class IGateway(Interface):
    """
    What every face (TCP, and others to come) talks to.
    """

    def ask(request: Request) -> Deferred[Answer]:
        """
        Ask a device (protocol §4), and record the request when it ends (§5).

        Returns:
            Fires with the answer; fails with a `RequestError`. Cancelling it does not take the request back: it
            runs to its end and is recorded, only nobody is told.
        """

    def when_told(call: Callable[[], None]) -> None:
        """
        Call back when everybody is told who is told now: once, however often it is said; at once if nobody is.

        What becomes known together can so go out together: one packet a client. It must not fail.
        """

    def default_command(sensor: str) -> str:
        """
        Tell the command that `ask` means for this sensor where none is given.
        """

    def last(sensor: str | None, field: str | None) -> list[Reading]:
        """
        Tell the newest readings from memory, in the order of sensors' first appearance.

        Args:
            sensor: Only of this sensor; None for all.
            field: Only this field, upper case; None for all.
        """

    def history(sensor: str, field: str | None, since: int | None, limit: int) -> Deferred[list[Reading]]:
        """
        Fetch stored readings (see `IHistory.history`); fails with `Failed`, whose text says why.
        """

    def sensors() -> list[SensorSummary]:
        """
        List the known sensors, in the order of their first appearance.
        """

    def devices() -> list[DeviceSummary]:
        """
        List the links, in the order of the configuration.
        """

    def lend(device: str, client: str) -> Deferred[Lease]:
        """
        Let go of a device, so that another program can have it; who waits for it fails with `Offline`.

        Args:
            device: The name of the link.
            client: Who wants it, for the log.

        Returns:
            Fires with the lease when the port is closed and its lock is free; fails with `Unknown`, `Busy` (it is lent
            already) or `Stopped`. Not to be cancelled.
        """

    def status() -> list[Mapping[str, str]]:
        """
        Tell how usbgate is: each mapping is one line of fields; their values read back (`check_value`).
        """

    def noise() -> list[Mapping[str, str]]:
        """
        Tell the last malformed lines and why, oldest first; each mapping is one line of fields.
        """

    def refused(source: str, line: bytes, reason: str) -> None:
        """
        Take note of a malformed line of a client (the gateway does so itself for devices).
        """

    def subscribe(deliver: Callable[[str | None, str], None]) -> Callable[[], None]:
        """
        Hear every event as a line from now on.

        Args:
            deliver: Called with the sensor (None for an event of a link) and the line, without its end.

        Returns:
            What to call to hear no more.
        """

    def subscribe_events(deliver: Callable[[Event], None]) -> Callable[[], None]:
        """
        Hear every event as a value from now on.

        Returns:
            What to call to hear no more.
        """

    def presentations() -> Mapping[str, Presentation]:
        """
        Tell how people want to see sensors, by id, in the order of the configuration; heard of yet or not.
        """

    def totals() -> Totals:
        """
        Tell what was counted.
        """

    def extent(selection: Selection, limit: int | None) -> Deferred[tuple[int, int] | None]:
        """
        Find stored readings (see `IArchive.extent`); fails with `Failed`, whose text says why.
        """

    def page(selection: Selection, first: int, last: int, limit: int) -> Deferred[list[StoredReading]]:
        """
        Fetch stored readings (see `IArchive.page`); fails with `Failed`, whose text says why.
        """

    def buckets(selection: Selection, width: int, limit: int) -> Deferred[list[Bucket]]:
        """
        Sum up stored readings (see `IArchive.buckets`); fails with `Failed`, whose text says why.
        """

    def requests(sensor: str | None, limit: int) -> Deferred[list[StoredRequest]]:
        """
        Fetch requests that ended (see `IArchive.requests`); fails with `Failed`, whose text says why.
        """

    def alarms() -> list[Alarm]:
        """
        List the alarms that are active or not acknowledged yet, newest first.
        """

    def acknowledge(alarm: str, by: str) -> Deferred[Alarm]:
        """
        Take note that somebody has seen an alarm; the first who did stays.

        Returns:
            Fires with the alarm as it is then; fails with `Unknown` or `Stopped`.
        """
