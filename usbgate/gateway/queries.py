"""
Read-only queries: current state from memory, history from the store.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from zope.interface import implementer

from usbgate import __version__
from usbgate.core.clock import IClock
from usbgate.core.errors import StoreUnavailable
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
from usbgate.core.recorder import Recorder
from usbgate.core.replacements import Offer, Replacement, offers
from usbgate.core.settings import UNCONFIGURED, FieldSettings, SensorSettings
from usbgate.core.status import BrokerStatus, JournalStatus, Status, StoreStatus, Totals
from usbgate.gateway.held import HeldRequests
from usbgate.gateway.interfaces import DeviceSummary, HeldRequest, IQueries, MalformedLine, RuleSummary, SensorSummary
from usbgate.gateway.malformed import MalformedLines
from usbgate.gateway.replacing import Replacing
from usbgate.gateway.routing import Routing
from usbgate.store.interfaces import IStore, SinkUnavailable

_T = TypeVar("_T")

_UNCONFIGURED_FIELD = FieldSettings()


@implementer(IQueries)
class Queries:
    """
    Reads what the gateway's parts know.

    Attributes:
        broker_status: Returns the status of the MQTT broker; None where none is configured.
        list_rules: Lists the rules.
    """

    def __init__(
        self,
        reactor: IReactorTime,
        clock: IClock,
        recorder: Recorder,
        routing: Routing,
        malformed: MalformedLines,
        held: HeldRequests,
        default_command: str,
        sensor_settings: Mapping[str, SensorSettings],
        replacing: Replacing,
    ) -> None:
        """
        Args:
            reactor: The monotonic clock.
            clock: Whether the wall clock is right.
            recorder: The sensors, the alarms and the counts.
            routing: The devices.
            malformed: The malformed lines.
            held: The requests that are held.
            default_command: The command of `ask` if neither the asker nor the sensor has one.
            sensor_settings: The configured sensors, by id.
            replacing: The replacements.
        """
        self._replacing = replacing
        self._reactor = reactor
        self._clock = clock
        self._started = reactor.seconds()
        self._recorder = recorder
        self._calibrations = recorder.calibrations
        self._routing = routing
        self._malformed = malformed
        self._held = held
        self._default_command = default_command
        self._sensor_settings = sensor_settings
        self.list_rules: Callable[[], Sequence[RuleSummary]] = tuple
        self._store: IStore | None = None
        self._store_status: Callable[[], tuple[StoreStatus, JournalStatus | None]] = lambda: (StoreStatus(), None)
        self.broker_status: Callable[[], BrokerStatus | None] = lambda: None

    def set_store(self, store: IStore, status: Callable[[], tuple[StoreStatus, JournalStatus]]) -> None:
        """
        Read history from a store from now on (see `Gateway.store_in`).
        """
        self._store = store
        self._store_status = status

    # From memory.

    def default_command(self, sensor: str) -> str:
        settings = self._sensor_settings.get(sensor)
        return (settings and settings.default_command) or self._default_command

    def last(self, sensor: str | None, field: str | None, raw: bool = False) -> Iterator[Reading]:
        calibrations = self._calibrations
        for each in self._recorder.sensors.ids() if sensor is None else (sensor,):
            known = self._recorder.sensors.get(each)
            if known is None:
                continue
            readings = (reading for reading in known.readings() if field in (None, reading.field))
            is_raw = raw or each not in calibrations.by_sensor
            yield from readings if is_raw else filter(None, map(calibrations.newest, readings))

    def sensors(self) -> Iterator[SensorSummary]:
        for sensor in self._recorder.sensors.ids():
            summary = self.sensor(sensor)
            if summary is not None:
                yield summary

    def sensor(self, sensor: str) -> SensorSummary | None:
        known = self._recorder.sensors.get(sensor)
        if known is None:
            return None
        return SensorSummary(
            sensor=sensor,
            device=known.device,
            fields=sorted({reading.field for reading in known.readings()}),
            seen=known.seen,
            reports=known.reports,
        )

    def devices(self) -> list[DeviceSummary]:
        return [route.summary() for route in self._routing.routes.values()]

    def sensor_settings(self) -> Mapping[str, SensorSettings]:
        return self._sensor_settings

    def field_settings(self, reading: Reading) -> FieldSettings:
        fields = self._sensor_settings.get(reading.sensor, UNCONFIGURED).fields
        configured = fields.get(reading.field, _UNCONFIGURED_FIELD)
        route = self._routing.routes.get(reading.device)
        known = None if route is None else route.fields.get(reading.field)
        return configured if known is None else configured.completed(known, reading.text)

    def replacements(self) -> list[Replacement]:
        return list(self._replacing.in_force)

    def offers(self) -> Deferred[list[Offer]]:
        return Deferred.fromCoroutine(self._offers())

    async def _offers(self) -> list[Offer]:
        sensors, settings = self._recorder.sensors, self._sensor_settings
        known = ((sensor, each) for sensor in sensors.ids() if (each := sensors.get(sensor)) is not None)
        taken = {sensor for each in self._replacing.in_force for sensor in (each.sensor, each.successor)}
        found = []
        for offer in offers(
            known,
            lambda sensor: settings.get(sensor, UNCONFIGURED).stale,
            settings,
            taken,
            self._clock.wall(),
        ):
            first = offer.first
            if first is None:
                first = await self._first_report(offer.successor)
            if first is not None and first > offer.since:
                found.append(offer._replace(first=first))
        return found

    async def _first_report(self, sensor: str) -> int | None:
        # Of a sensor that was restored, the database knows it; it is asked once.
        known, selection = self._recorder.sensors.get(sensor), Selection(sensor)
        try:
            extent = await self.extent(selection, None)
            rows = [] if extent is None else await self.page(selection, extent[0], extent[0], 1)
        except StoreUnavailable:
            return None
        first = rows[0].reading.at if rows else None
        if known is not None:
            known.first = first
        return first

    def alarms(self) -> list[Alarm]:
        return self._recorder.alarms.open()

    def rules(self) -> Sequence[RuleSummary]:
        return self.list_rules()

    def totals(self) -> Totals:
        return Totals(
            readings=self._recorder.readings,
            outcomes=dict(self._recorder.outcomes),
            malformed=dict(self._malformed.reasons),
            latencies=self._recorder.latencies.cumulated(),
            latency_sum=self._recorder.latencies.sum,
        )

    def status(self) -> Status:
        routes = self._routing.routes.values()
        store, journal = self._store_status()
        return Status(
            version=__version__,
            uptime=self._reactor.seconds() - self._started,
            clock_trusted=self._clock.trusted(),
            sensors=len(self._recorder.sensors),
            held=len(self.held()),
            in_flight=sum(route.pending.queues.in_flight for route in routes),
            store=store,
            journal=journal,
            unsure={route.link.name: unsure for route in routes if (unsure := route.pending.unsure)},
            uncompared=self._recorder.alarms.uncompared.shown(),
            broker=self.broker_status(),
            implausible=self._calibrations.implausible(),
        )

    def held(self) -> list[HeldRequest]:
        now, wall = self._reactor.seconds(), self._clock.wall()
        return list(self._held.summaries(lambda at: wall + round((at - now) * 1000)))

    def malformed_lines(self) -> Sequence[MalformedLine]:
        return list(self._malformed.kept)

    # From the store, and calibrated here.

    def stored(self, selection: Selection) -> Selection:
        """
        Return which rows of the store a selection means.
        """
        ranges = () if selection.raw else self._calibrations.ranges(selection.sensor)
        joined = self._replacing.in_force.has(selection.sensor)
        return replace(selection, ranges=ranges, joined=joined) if ranges or joined else selection

    def history(
        self, sensor: str, field: str | None, since: int | None, limit: int, raw: bool = False
    ) -> Deferred[list[Reading]]:
        selection = self.stored(Selection(sensor, field, since, raw=raw))
        found = self._fetch(lambda store: store.history(selection, limit))
        return _each(found, self._calibrations.stored) if selection.ranges else found

    def extent(self, selection: Selection, limit: int | None) -> Deferred[tuple[int, int] | None]:
        rows = self.stored(selection)
        return self._fetch(lambda store: store.extent(rows, limit))

    def page(self, selection: Selection, first: int, last: int, limit: int) -> Deferred[list[StoredReading]]:
        rows = self.stored(selection)
        found = self._fetch(lambda store: store.page(rows, first, last, limit))
        stored = self._calibrations.stored
        return _each(found, lambda each: each._replace(reading=stored(each.reading))) if rows.ranges else found

    def buckets(self, selection: Selection, width: int, limit: int) -> Deferred[list[Bucket]]:
        rows = self.stored(selection)
        found = self._fetch(lambda store: store.buckets(rows, width, limit))
        return _each(found, partial(self._calibrations.bucket, selection.sensor)) if rows.ranges else found

    def states(self, selection: Selection, limit: int) -> Deferred[list[StoredState]]:
        rows = self.stored(selection)
        found = self._fetch(lambda store: store.states(rows, limit))
        return _each(found, partial(self._calibrations.state, selection.sensor)) if rows.ranges else found

    def past_alarms(
        self, sensors: Sequence[str] | None, since: int | None, until: int | None, limit: int
    ) -> Deferred[list[StoredAlarm]]:
        ranges = self._calibrations.ranges()
        found = self._fetch(lambda store: store.past_alarms(sensors, since, until, limit, ranges))
        return _each(found, self._calibrations.past_alarm) if ranges else found

    def requests(self, sensors: Sequence[str] | None, limit: int) -> Deferred[list[StoredRequest]]:
        return self._fetch(lambda store: store.requests(sensors, limit))

    def _fetch(self, query: Callable[[IStore], Deferred[_T]]) -> Deferred[_T]:
        return Deferred.fromCoroutine(_fetch(self._store, query))


def _each(found: Deferred[list[_T]], show: Callable[[_T], _T]) -> Deferred[list[_T]]:
    return found.addCallback(lambda rows: [*map(show, rows)])


async def _fetch(store: IStore | None, query: Callable[[IStore], Deferred[_T]]) -> _T:
    if store is None:
        raise StoreUnavailable("nothing is stored: the setting `database` is none", "nothing is stored")
    try:
        return await query(store)
    except SinkUnavailable as error:
        raise StoreUnavailable(f"the database cannot be queried: {error}", "database away") from None
