"""
What the faces (line server, HTTP, …) may ask of the gateway.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from twisted.internet.defer import Deferred
from zope.interface import Interface

from usbgate.core.alarms import Condition
from usbgate.core.model import (
    Alarm,
    Answer,
    Bucket,
    Button,
    Event,
    Reading,
    Request,
    Selection,
    StoredReading,
    StoredRequest,
)


@dataclass(frozen=True, slots=True)
class FieldPresentation:
    """
    How a person wants to see a field.

    Attributes:
        unit: What its numbers measure, such as `°C`.
        decimals: Digits behind the point.
        alarm: The condition for an alarm.
    """

    unit: str | None = None
    decimals: int | None = None
    alarm: Condition | None = None


@dataclass(frozen=True, slots=True)
class Presentation:
    """
    How a person wants to see a sensor: what the configuration says of it.

    Attributes:
        name: What a person calls it.
        place: Where it is.
        device: The link that serves it.
        stale: Seconds after which its newest reading is old.
        buttons: The commands that a person can send to it.
        fields: By field, upper case.
    """

    name: str | None = None
    place: str | None = None
    device: str | None = None
    stale: float = 3600.0
    buttons: Sequence[Button] = ()
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

    def default_command(sensor: str) -> str:
        """
        Return the command that `ask` means for this sensor where none is given.
        """

    def last(sensor: str | None, field: str | None) -> list[Reading]:
        """
        Return the newest readings from memory, in the order of sensors' first appearance.

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
        Return the status of usbgate: each mapping is one line of fields; their values read back (`check_value`).
        """

    def noise() -> list[Mapping[str, str]]:
        """
        Return the last malformed lines and why, oldest first; each mapping is one line of fields.
        """

    def refused(source: str, line: bytes, reason: str) -> None:
        """
        Record a malformed line of a client (the gateway does so itself for devices).
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
        Return how people want to see sensors, by id, in the order of the configuration, reported or not.
        """

    def totals() -> Totals:
        """
        Return what was counted.
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
        Record that somebody has seen an alarm; the first who did stays.

        Returns:
            Fires with the alarm as it is then; fails with `Unknown` or `Stopped`.
        """
