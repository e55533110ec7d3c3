"""
The gateway as its front ends (line port, HTTP, …) see it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from twisted.internet.defer import Deferred
from zope.interface import Attribute, Interface

from usbgate.core.counts import LinkCounts
from usbgate.core.errors import RequestError
from usbgate.core.holders import Holder
from usbgate.core.model import (
    Action,
    Alarm,
    Answer,
    Bucket,
    DeviceWarning,
    Event,
    Reading,
    Request,
    Selection,
    StoredAlarm,
    StoredReading,
    StoredRequest,
    StoredState,
)
from usbgate.core.replacements import Offer, Replacement
from usbgate.core.settings import FieldSettings, SensorSettings
from usbgate.core.status import Status, Totals


@dataclass(frozen=True, slots=True)
class SensorSummary:
    """
    What is known of a sensor.

    Attributes:
        sensor: Its id.
        device: The device that is asked for it (protocol §4.1).
        fields: The fields it has reported, sorted.
        seen: When it reported last: whole milliseconds since 1970, UTC.
        reports: Reports since usbgate started.
    """

    sensor: str
    device: str
    fields: Sequence[str]
    seen: int
    reports: int


@dataclass(frozen=True, slots=True)
class DeviceSummary:
    """
    What is known of a device.

    Attributes:
        name: Its name.
        path: Its path as configured.
        state: `starting`, `settling`, `online`, `silent`, `offline` or `lent`.
        since: Since when: whole milliseconds since 1970, UTC.
        counts: What is counted of its link.
        warnings: What a person should know of it and can do about it.
        lent_to: The client that it is lent to; None while it is not lent.
    """

    name: str
    path: str
    state: str
    since: int
    counts: LinkCounts = field(default_factory=LinkCounts)
    warnings: Sequence[DeviceWarning] = ()
    lent_to: str | None = None


class HeldRequest(NamedTuple):
    """
    A request that is held until its sensor reports (protocol §4.12).

    Attributes:
        number: Its number.
        request: The request.
        device: The device over which it is asked.
        at: When it was accepted: whole milliseconds since 1970, UTC.
        until: When it ends at the latest, as `at`.
    """

    number: int
    request: Request
    device: str
    at: int
    until: int


@dataclass(frozen=True, slots=True)
class RuleSummary:
    """
    What is known of a rule (docs/rules.md).

    Attributes:
        name: Its name.
        when: Its condition.
        truth: Whether that holds; None if it is not known.
        last: When it fired last: whole milliseconds since 1970, UTC; None if it never did.
        firings: How often it fired since usbgate started.
        waiting: How many of its actions are not done yet.
        dropped: How many were not even tried, since too many waited.
        trouble: Why those that wait are not done; None if nothing has failed.
    """

    name: str
    when: str
    truth: bool | None
    last: int | None
    firings: int
    waiting: int
    dropped: int = 0
    trouble: str | None = None


class MalformedLine(NamedTuple):
    """
    A line that could not be read.

    Attributes:
        at: When: whole milliseconds since 1970, UTC.
        source: The device's name, or the client's address.
        reason: Why, as a fixed phrase.
        line: The line, at most a little longer than a line may be.
    """

    at: int
    source: str
    reason: str
    line: bytes


@dataclass(frozen=True, slots=True)
class Lease:
    """
    A device that is lent to another program.

    Attributes:
        device: Its name.
        port: The path of its tty, or, if none was open, the device's path as configured.
        end: Ends the lease; calling it again does nothing.
    """

    device: str
    port: str
    end: Callable[[], None]


class IQueries(Interface):
    """
    Read-only queries: current state from memory, history from the store.

    Readings are as they are shown (protocol §3, Calibration), unless `raw` ones are asked for.
    """

    def default_command(sensor: str) -> str:
        """
        Return the command that `ask` sends to this sensor if none is given.
        """

    def last(sensor: str | None, field: str | None, raw: bool = False) -> Iterator[Reading]:
        """
        Yield the newest readings from memory, in the order of sensors' first appearance. There may be 640,000, so take
        some in each reactor turn; each sensor's are those that are the newest when it is its turn.

        Args:
            sensor: Only of this sensor; None for all.
            field: Only this field, upper case; None for all.
            raw: Whether to yield what the devices sent, even if it is not plausible.
        """

    def sensors() -> Iterator[SensorSummary]:
        """
        Yield the known sensors, in the order of their first appearance. There may be 10,000 of each device, so take
        some in each reactor turn.
        """

    def sensor(sensor: str) -> SensorSummary | None:
        """
        Return a known sensor; None if it is not known.
        """

    def devices() -> list[DeviceSummary]:
        """
        List the devices, in the order of the configuration.
        """

    def sensor_settings() -> Mapping[str, SensorSettings]:
        """
        Return the settings of the configured sensors, by id, in the order of the configuration.
        """

    def field_settings(reading: Reading) -> FieldSettings:
        """
        Return what is known of the field of a reading: from the configuration of its sensor, or else from the dialect
        of its device (see `FieldSettings.completed`).
        """

    def replacements() -> list[Replacement]:
        """
        List the replacements of sensors that hold, oldest first.
        """

    def offers() -> Deferred[list[Offer]]:
        """
        Find sensors that fell silent, and ids that may be theirs now (see `core.replacements.offers`).
        """

    def alarms() -> list[Alarm]:
        """
        List the alarms that are active or not acknowledged yet, newest first.
        """

    def rules() -> Sequence[RuleSummary]:
        """
        List the rules, in the order of the configuration.
        """

    def status() -> Status:
        """
        Return the status of usbgate.
        """

    def held() -> list[HeldRequest]:
        """
        List the requests that are held until their sensors report, oldest first.
        """

    def malformed_lines() -> Sequence[MalformedLine]:
        """
        List the last malformed lines, oldest first.
        """

    def totals() -> Totals:
        """
        Return what was counted.
        """

    def history(
        sensor: str, field: str | None, since: int | None, limit: int, raw: bool = False
    ) -> Deferred[list[Reading]]:
        """
        Fetch stored readings (see `IStore.history`); fails with `StoreUnavailable`, whose text says why.
        """

    def extent(selection: Selection, limit: int | None) -> Deferred[tuple[int, int] | None]:
        """
        Find stored readings (see `IStore.extent`); fails with `StoreUnavailable`, whose text says why.
        """

    def page(selection: Selection, first: int, last: int, limit: int) -> Deferred[list[StoredReading]]:
        """
        Fetch stored readings (see `IStore.page`); fails with `StoreUnavailable`, whose text says why.
        """

    def buckets(selection: Selection, width: int, limit: int) -> Deferred[list[Bucket]]:
        """
        Aggregate stored readings (see `IStore.buckets`); fails with `StoreUnavailable`, whose text says why.
        """

    def states(selection: Selection, limit: int) -> Deferred[list[StoredState]]:
        """
        Merge stored readings (see `IStore.states`); fails with `StoreUnavailable`, whose text says why.
        """

    def past_alarms(
        sensors: Sequence[str] | None, since: int | None, until: int | None, limit: int
    ) -> Deferred[list[StoredAlarm]]:
        """
        Fetch stored alarms (see `IStore.past_alarms`); fails with `StoreUnavailable`, whose text says why.
        """

    def requests(sensors: Sequence[str] | None, limit: int) -> Deferred[list[StoredRequest]]:
        """
        Fetch requests that ended (see `IStore.requests`); fails with `StoreUnavailable`, whose text says why.
        """


class IGateway(Interface):
    """
    What every front end (line port, HTTP, …) talks to: its commands here, its queries in `queries`.
    """

    queries: IQueries = Attribute("Read-only queries.")

    def ask(request: Request, holder: Holder) -> Deferred[Answer]:
        """
        Ask a device (protocol §4), and record the request when it ends (§5).

        Args:
            request: The request.
            holder: The connection of the client, one object for all its requests.

        Returns:
            Fires with the answer; fails with a `RequestError`. Cancelling it does not take the request back: it
            runs to its end and is recorded, but its reply goes nowhere.
        """

    def refuse(request: Request, error: RequestError) -> None:
        """
        Record a request that its client may not make (§5); it is not asked.
        """

    def record(action: Action) -> None:
        """
        Record what somebody did besides asking, or was not permitted to do (§5).
        """

    def disconnected(holder: Holder) -> None:
        """
        Record that a connection is gone; to be called once, after its last request (protocol §4.10).
        """

    def cancel(number: int) -> None:
        """
        End a request that is held, by its number: it fails with `Cancelled`.

        Raises:
            NotHeld: It is not held, or not any more.
        """

    def acknowledge(alarm: str, by: str) -> Deferred[Alarm]:
        """
        Record that somebody has seen an alarm; the first acknowledgement counts.

        Returns:
            Fires with the alarm as it is then; fails with `Malformed` (`by` can't be stored), `Unknown` or `Stopped`.
        """

    def replace(sensor: str, successor: str, who: str) -> Deferred[Replacement]:
        """
        Let the id of another device take the place of a sensor, whose id it keeps (protocol §4, A new id).

        Args:
            sensor: The sensor, or an earlier successor.
            successor: The id with which it reports now.
            who: Who says so.

        Returns:
            Fires when that is kept and in force; fails with `Unknown`, `Malformed` (it contradicts the configuration or
            another replacement; the text has the remedy), `Failed` (the disk) or `Stopped`.
        """

    def undo_replacement(sensor: str, who: str) -> Deferred[Replacement]:
        """
        Take back the last replacement of a sensor.

        Returns:
            Fires with it; fails as `replace` does.
        """

    def configure_rule_alarms(rules: Iterable[str]) -> None:
        """
        Set which rules raise alarms, by name. Active alarms of others end.
        """

    def set_rule_alarm(rule: str, active: bool, about: Reading) -> None:
        """
        Raise the alarm of a rule, or end it, unless it is so already.

        Args:
            rule: The rule's name.
            active: Whether it is to be active.
            about: What it is about.
        """

    def lend(device: str, client: str) -> Deferred[Lease]:
        """
        Close a device, so that another program can open it; requests that wait for it fail with `Offline`.

        Args:
            device: The name of the device.
            client: Who wants it, for the log.

        Returns:
            Fires with the lease when the port is closed and its lock is free; fails with `Unknown`, `Busy` (it is lent
            already) or `Stopped`. Not to be cancelled.
        """

    def add_malformed(source: str, line: bytes, reason: str) -> None:
        """
        Record a malformed line of a client (the gateway records those of devices itself).
        """

    def subscribe(deliver: Callable[[Event], None]) -> Callable[[], None]:
        """
        Call `deliver` with every event from now on.

        Returns:
            What to call to unsubscribe; calling it again does nothing.
        """
