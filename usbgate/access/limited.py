"""
The queries of clients that may use some sensors only: others are not listed, and denied when they are named.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import replace

from twisted.internet.defer import Deferred, succeed
from zope.interface import implementer

from usbgate.core.model import (
    Alarm,
    Bucket,
    Reading,
    Selection,
    StoredAlarm,
    StoredReading,
    StoredRequest,
    StoredState,
)
from usbgate.core.replacements import Offer, Replacement
from usbgate.core.settings import FieldSettings, SensorSettings
from usbgate.core.status import Status, Totals
from usbgate.gateway.interfaces import DeviceSummary, HeldRequest, IQueries, MalformedLine, RuleSummary, SensorSummary

_NO_SENSOR = ""


@implementer(IQueries)
class LimitedQueries:
    """
    Queries of which the results are about some sensors only.

    Each raises `Denied` at once if another sensor is named. Counts that are about no sensor are those of all.
    """

    def __init__(self, queries: IQueries, sensors: Set[str], check: Callable[[str], None]) -> None:
        """
        Args:
            queries: All queries.
            sensors: The sensors.
            check: Raises `Denied` for any other sensor.
        """
        self._queries = queries
        self._sensors = sensors
        self._check = check

    def default_command(self, sensor: str) -> str:
        # That of another sensor is not to be learned, but who asks is denied with all that it sent.
        return self._queries.default_command(sensor if sensor in self._sensors else _NO_SENSOR)

    def last(self, sensor: str | None, field: str | None, raw: bool = False) -> Iterator[Reading]:
        if sensor is not None:
            self._check(sensor)
            return self._queries.last(sensor, field, raw)
        return (reading for each in sorted(self._sensors) for reading in self._queries.last(each, field, raw))

    def sensors(self) -> Iterator[SensorSummary]:
        return filter(None, map(self._queries.sensor, sorted(self._sensors)))

    def sensor(self, sensor: str) -> SensorSummary | None:
        self._check(sensor)
        return self._queries.sensor(sensor)

    def devices(self) -> list[DeviceSummary]:
        return self._queries.devices()

    def sensor_settings(self) -> Mapping[str, SensorSettings]:
        return {sensor: each for sensor, each in self._queries.sensor_settings().items() if sensor in self._sensors}

    def field_settings(self, reading: Reading) -> FieldSettings:
        self._check(reading.sensor)
        return self._queries.field_settings(reading)

    def replacements(self) -> list[Replacement]:
        return [each for each in self._queries.replacements() if each.sensor in self._sensors]

    def offers(self) -> Deferred[list[Offer]]:
        return succeed([])  # an id that appeared is none of its sensors

    def alarms(self) -> list[Alarm]:
        return [alarm for alarm in self._queries.alarms() if alarm.sensor in self._sensors]

    def status(self) -> Status:
        status = self._queries.status()
        unsure = {device: [each for each in names if each in self._sensors] for device, names in status.unsure.items()}
        return replace(
            status,
            sensors=sum(1 for _ in self.sensors()),
            held=len(self.held()),
            unsure={device: names for device, names in unsure.items() if names},
            uncompared=[each for each in status.uncompared if each.sensor in self._sensors],
            implausible=[each for each in status.implausible if each.sensor in self._sensors],
        )

    def held(self) -> list[HeldRequest]:
        return [held for held in self._queries.held() if held.request.question.sensor in self._sensors]

    def malformed_lines(self) -> Sequence[MalformedLine]:
        return ()  # they may be about any sensor

    def rules(self) -> Sequence[RuleSummary]:
        return ()  # their conditions may name any sensor

    def totals(self) -> Totals:
        return self._queries.totals()

    def history(
        self, sensor: str, field: str | None, since: int | None, limit: int, raw: bool = False
    ) -> Deferred[list[Reading]]:
        self._check(sensor)
        return self._queries.history(sensor, field, since, limit, raw)

    def extent(self, selection: Selection, limit: int | None) -> Deferred[tuple[int, int] | None]:
        self._check(selection.sensor)
        return self._queries.extent(selection, limit)

    def page(self, selection: Selection, first: int, last: int, limit: int) -> Deferred[list[StoredReading]]:
        self._check(selection.sensor)
        return self._queries.page(selection, first, last, limit)

    def buckets(self, selection: Selection, width: int, limit: int) -> Deferred[list[Bucket]]:
        self._check(selection.sensor)
        return self._queries.buckets(selection, width, limit)

    def states(self, selection: Selection, limit: int) -> Deferred[list[StoredState]]:
        self._check(selection.sensor)
        return self._queries.states(selection, limit)

    def past_alarms(
        self, sensors: Sequence[str] | None, since: int | None, until: int | None, limit: int
    ) -> Deferred[list[StoredAlarm]]:
        return self._queries.past_alarms(self._named(sensors), since, until, limit)

    def requests(self, sensors: Sequence[str] | None, limit: int) -> Deferred[list[StoredRequest]]:
        return self._queries.requests(self._named(sensors), limit)

    def _named(self, sensors: Sequence[str] | None) -> Sequence[str]:
        for sensor in sensors or ():
            self._check(sensor)
        return sorted(self._sensors) if sensors is None else sensors
