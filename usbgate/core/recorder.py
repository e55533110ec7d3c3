"""
Records reports and requests: makes the rows to store, keeps the known sensors, and counts.

Pure rules; the time comes in.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from usbgate.core.alarms import Alarms, Change
from usbgate.core.calibration import Calibrations
from usbgate.core.clockmarks import ClockWatch, Stamp
from usbgate.core.condition import Condition
from usbgate.core.containers import BoundedDict
from usbgate.core.errors import RequestError
from usbgate.core.exchanges import Asker, Ended
from usbgate.core.fieldline import join_fields, parse_value, plain_text
from usbgate.core.fieldunits import FieldUnits, UnitChange
from usbgate.core.latencies import LatencyHistogram
from usbgate.core.messages import spell_arguments
from usbgate.core.model import (
    POLLER,
    Action,
    Answer,
    ClockMark,
    OwnerRecord,
    Question,
    Reading,
    ReplacementRecord,
    Report,
    RequestRecord,
    Row,
    make,
)
from usbgate.core.onchange import OnChangeFilter
from usbgate.core.sensors import RESTORED_AT_ONCE, KnownSensors, OwnerChange
from usbgate.core.settings import SensorSettings
from usbgate.core.uncompared import Uncompared

CONTESTED_REMEMBERED = 1000  # sensors for which the two-devices warning was already given


def _store_every(settings: Mapping[str, SensorSettings]) -> dict[str, float]:
    return {sensor: each.store for sensor, each in settings.items() if each.store is not None}


def _conditions(settings: Mapping[str, SensorSettings]) -> dict[tuple[str, str], Condition]:
    return {
        (sensor, field): each.alarm
        for sensor, of_sensor in settings.items()
        for field, each in of_sensor.fields.items()
        if each.alarm is not None
    }


def _polled(settings: Mapping[str, SensorSettings]) -> dict[str, str]:
    return {sensor: "" for sensor, each in settings.items() if each.poll is not None}


def _devices(settings: Mapping[str, SensorSettings]) -> dict[str, str]:
    return {sensor: each.device for sensor, each in settings.items() if each.device is not None}


class Contested(NamedTuple):
    """
    Two devices report one sensor; made once for each sensor.

    Attributes:
        sensor: The sensor.
        device: The device that reports it now.
        before: The device that is asked for it.
    """

    sensor: str
    device: str
    before: str


# What is worth a log line.
Notice = Contested | UnitChange | Uncompared | OwnerChange


class Entry(NamedTuple):
    """
    What was recorded at one moment.

    Attributes:
        runs: Rows to store, in this order.
        changes: Changes of alarms, to be published.
        notices: What is to be logged.
    """

    runs: Sequence[Sequence[Row]]
    changes: Sequence[Change]
    notices: Sequence[Notice] = ()


class Recorder:
    """
    Makes rows of what happens, in the order in which they are stored: a clock mark before those that need it.

    Attributes:
        sensors: The known sensors.
        alarms: The alarms.
        calibrations: What is shown of readings.
        readings: Readings received.
        outcomes: Requests that ended, by outcome.
        latencies: How long devices took to answer.
    """

    def __init__(
        self, settings: Mapping[str, SensorSettings], boot: Callable[[], str], new_alarm_id: Callable[[], str]
    ) -> None:
        """
        Args:
            settings: The configured sensors, by id.
            boot: See `IClock.boot`.
            new_alarm_id: See `Alarms`.
        """
        self._settings = settings
        self.alarms = Alarms(_conditions(settings), new_alarm_id)
        self.calibrations = Calibrations(settings)
        self.sensors = KnownSensors(_devices(settings), lambda: {*settings, *self.alarms.sensors()})
        self.readings = 0
        self.outcomes: Counter[str] = Counter()
        self.latencies = LatencyHistogram()
        self._clock_watch = ClockWatch(boot)
        self._store_every = _store_every(settings)
        self._store_every_of_devices: dict[str, float] = {}
        self._on_change = self._new_filter()
        self._contested: BoundedDict[str, None] = BoundedDict(CONTESTED_REMEMBERED)
        self._units = FieldUnits()
        self._polled = _polled(settings)  # by sensor, how its last poll ended

    def configure(self, stamp: Stamp) -> Entry:
        """
        Take over the settings of sensors after they have changed.

        Returns:
            What is to be stored, and published, now.
        """
        withheld: Sequence[Reading] = ()
        if (store_every := _store_every(self._settings)) != self._store_every:
            withheld = self.end_on_change()
            self._store_every = store_every
            self._on_change = self._new_filter()
        self._polled = {sensor: self._polled.get(sensor, "") for sensor in _polled(self._settings)}
        self.sensors.configure(_devices(self._settings))
        self.calibrations.configure(self._settings)
        changes = self.alarms.configure(_conditions(self._settings), stamp.at, stamp.trusted)
        entry = self.record_changes(changes, stamp)
        return entry._replace(runs=(withheld, *entry.runs))

    def add_device(self, device: str, store: float = 0.0) -> None:
        """
        Add a device, before it reports.

        Args:
            device: Its name.
            store: Seconds after which an unchanged reading of it is stored as well, infinity for never; 0 stores all.
        """
        self._store_every_of_devices[device] = store
        if store and self._on_change is None:
            self._on_change = self._new_filter()
        self.sensors.devices.add(device)
        self.alarms.devices.add(device)

    def _new_filter(self) -> OnChangeFilter | None:
        rules, device_rules = self._store_every, self._store_every_of_devices
        return OnChangeFilter(rules, device_rules) if any((*rules.values(), *device_rules.values())) else None

    def record(
        self,
        device: str | None,
        handed: Sequence[tuple[Report, Question | None]],
        ended: Sequence[Ended[Any]],
        stamp: Stamp,
        now: float,
        decided: float,
    ) -> Entry:
        """
        Record what a device reported, and which requests ended.

        Args:
            device: Its name; None where requests could not be routed to one, and nothing was handed.
            handed: Reports, each with the question that it answered.
            ended: Outcomes, each with its askers.
            stamp: This moment.
            now: This moment, in monotonic seconds.
            decided: When `ended` was decided, in monotonic seconds: perhaps some reactor turns ago.
        """
        withheld, marks = self._before(stamp)
        requests = [
            self._request(asker, outcome, device, stamp, now, decided) for outcome, askers in ended for asker in askers
        ]
        if self._polled:
            requests = [each for each in requests if each.client != POLLER or self._is_news(each)]
        notices: list[Notice] = []
        changes: list[Change] = []
        readings: list[Reading] = []
        at, _, trusted = stamp
        on_change = self._on_change
        mixed = self._units.mixed
        conditions = self.alarms.conditions
        calibrated = self.calibrations.by_sensor
        reported = self.sensors.reported
        self.sensors.chunks += 1
        for report, question in handed:
            sensor, _, _, values, _ = report
            command = question.command if question is not None else None
            fresh = []
            assert device is not None
            for field, text in values:
                number, kept = parse_value(text)
                if number is not None and (kept is not None or mixed):
                    series = (device, sensor, field)
                    if kept is not None and (change := self._units.received(series, kept)):
                        notices.append(change)
                    if series in mixed:
                        number, kept = None, text
                fresh.append(make(Reading, (at, device, sensor, field, number, kept, command, trusted)))
            before = reported(sensor, device, at, fresh, question is not None)
            if before is not None and sensor not in self._contested:
                self._contested.remember(sensor, None)
                notices.append(Contested(sensor, device, before))
            self.readings += len(fresh)
            shown = self.calibrations.received(fresh) if sensor in calibrated else fresh
            if conditions:
                changes += self.alarms.evaluate(shown)
            readings += fresh if on_change is None else on_change.keep(fresh, now)
        runs: Sequence[Sequence[Row]] = (readings, requests, [change.record for change in changes])
        if conditions:
            notices += self.alarms.uncompared.take_unlogged()
        if self.sensors.changes:
            owner_changes, owners = self._take_owners(stamp)
            notices += owner_changes
            runs = (*runs, owners)
        if marks or withheld:
            runs = self._runs(withheld, marks, *runs)
        return Entry(runs, changes, notices)

    def restore(self, owners: Mapping[str, str], readings: Sequence[Reading]) -> Iterator[None]:
        """
        Take over what the database has. Yield now and then, so that other work gets its turn.

        Args:
            owners: The devices that own sensors, by sensor.
            readings: The newest of each field, oldest first.
        """
        yield from self.sensors.restore(owners, readings)
        for start in range(0, len(readings), RESTORED_AT_ONCE):
            if start:
                yield
            self._units.restore(readings[start : start + RESTORED_AT_ONCE])

    def record_changes(self, changes: Sequence[Change], stamp: Stamp) -> Entry:
        """
        Record changes of alarms and owners that no report caused.
        """
        owner_changes, owners = self._take_owners(stamp)
        runs = self._runs(*self._before(stamp), [change.record for change in changes], owners)
        return Entry(runs, changes, owner_changes)

    def record_replacement(self, record: ReplacementRecord, stamp: Stamp) -> Sequence[Sequence[Row]]:
        """
        Record that a sensor was replaced, behind all readings so far.

        Returns:
            Rows to store, in this order.
        """
        withheld, marks = self._before(stamp)
        if not withheld and self._on_change is not None:
            withheld = self._on_change.end()
        return self._runs(withheld, marks, [record])

    def record_action(self, action: Action, stamp: Stamp) -> Sequence[Sequence[Row]]:
        """
        Record what somebody did.

        Returns:
            Rows to store, in this order.
        """
        details = join_fields({key: plain_text(value) for key, value in action.details.items()}) or None
        command, client, device, outcome = action.command, action.client, action.device, action.outcome
        record = RequestRecord(
            stamp.at, action.origin, client, device, None, command, details, outcome, 0.0, stamp.trusted
        )
        return self._runs(*self._before(stamp), [record])

    def end_on_change(self) -> Sequence[Reading]:
        """
        Return the readings that were withheld and must be stored at the end; later ones are stored as they come.
        """
        on_change, self._on_change = self._on_change, None
        return () if on_change is None else on_change.end()

    def _before(self, stamp: Stamp) -> tuple[Sequence[Reading], Sequence[ClockMark]]:
        # The mark that rows with this stamp need before them, if any, and before that the readings withheld so far.
        mark = self._clock_watch.due(stamp)
        if mark is None:
            return (), ()
        return () if self._on_change is None else self._on_change.end(), (mark,)

    def _runs(
        self,
        withheld: Sequence[Reading],
        marks: Sequence[ClockMark],
        *runs: Sequence[Row],
    ) -> Sequence[Sequence[Row]]:
        # No mark alone: a gap in the numbers where one was lost is then longer than where one row was set aside.
        if not any(runs):
            return (withheld,) if withheld else ()
        for mark in marks:
            self._clock_watch.stored(mark)
        return (withheld, marks, *runs)

    def _take_owners(self, stamp: Stamp) -> tuple[Sequence[OwnerChange], Sequence[OwnerRecord]]:
        changes, self.sensors.changes = self.sensors.changes, []
        return changes, [
            OwnerRecord(stamp.at, change.sensor, change.device, change.event, stamp.trusted) for change in changes
        ]

    def _is_news(self, poll: RequestRecord) -> bool:
        # One row for each poll would be thousands a day of which nobody learns anything: its readings are stored.
        assert poll.sensor is not None
        before = self._polled.get(poll.sensor)
        self._polled[poll.sensor] = poll.outcome
        return before != poll.outcome

    def _request(
        self,
        asker: Asker[Any],
        outcome: Answer | RequestError,
        device: str | None,
        stamp: Stamp,
        now: float,
        decided: float,
    ) -> RequestRecord:
        name = outcome.code if isinstance(outcome, RequestError) else "recent" if outcome.recent else "answered"
        self.outcomes[name] += 1
        if name == "answered":
            self.latencies.add(decided - asker.started)
        request = asker.request
        sensor, command, arguments = request.question
        return RequestRecord(
            # When it was accepted, by the clock as it is now: the mark before this row says nothing of another.
            stamp.at - round((now - asker.started) * 1000),
            request.origin,
            request.client,
            device,
            sensor,
            command,
            spell_arguments(request) if arguments else None,
            name,
            round((decided - asker.started) * 1000, 3),
            stamp.trusted,
        )
