"""
What faces may ask that moves nothing: what is known, from memory, and what is stored, of the store.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from twisted.internet.defer import Deferred

from usbgate import __version__
from usbgate.core.clock import IClock
from usbgate.core.errors import Failed
from usbgate.core.model import Alarm, Bucket, Event, Reading, Selection, StoredReading, StoredRequest
from usbgate.core.recorder import Recorder
from usbgate.gateway.events import Publisher
from usbgate.gateway.interfaces import DeviceSummary, Presentation, SensorSummary, Totals
from usbgate.gateway.malformed import MalformedLines
from usbgate.gateway.routing import Routing, SensorRules
from usbgate.store.interfaces import IArchive, IHistory, SinkUnavailable

UNSURE_SHOWN = 50  # sensors named in one line of `status`

_T = TypeVar("_T")
_Store = TypeVar("_Store", IHistory, IArchive)


class Queries:
    """
    The half of `IGateway` that only tells.
    """

    def __init__(
        self,
        clock: IClock,
        ledger: Recorder,
        switchboard: Routing,
        default_command: str,
        sensor_rules: Mapping[str, SensorRules],
        presentations: Mapping[str, Presentation] | None,
    ) -> None:
        """
        Tell of these; nothing is stored.

        Args:
            clock: Tells the time.
            ledger: What was noted.
            switchboard: The links.
            default_command: What `ask` means where neither the asker nor the sensor says otherwise.
            sensor_rules: The configured sensors, by id.
            presentations: See `IGateway.presentations`; None for the names of the configured sensors.
        """
        self._announcements = Publisher()
        self._clock = clock
        self._started = clock.monotonic()
        self._ledger = ledger
        self._switchboard = switchboard
        self._default_command = default_command
        self._sensor_rules = sensor_rules
        self._presentations = presentations or {
            sensor: Presentation(name=rules.name, device=rules.device) for sensor, rules in sensor_rules.items()
        }
        self._noise = MalformedLines(clock)
        self._history: IHistory | None = None
        self._archive: IArchive | None = None
        self._store_status: Callable[[], Sequence[Mapping[str, str]]] = lambda: [{"STORE": "none"}]

    # From memory.

    def default_command(self, sensor: str) -> str:
        """
        Return what `ask` means for a sensor (see `IGateway.default_command`).
        """
        rules = self._sensor_rules.get(sensor)
        return (rules and rules.default_command) or self._default_command

    def last(self, sensor: str | None, field: str | None) -> list[Reading]:
        """
        Return the newest readings (see `IGateway.last`).
        """
        if sensor is None:
            sensors = [known for _, known in self._ledger.sensors.items()]
        else:
            known = self._ledger.sensors.get(sensor)
            sensors = [] if known is None else [known]
        return [
            reading for known in sensors for name, reading in known.newest.items() if field is None or name == field
        ]

    def sensors(self) -> list[SensorSummary]:
        """
        List the known sensors (see `IGateway.sensors`).
        """
        return [
            SensorSummary(
                sensor=sensor,
                device=known.device,
                fields=sorted(known.newest),
                seen=known.seen,
                reports=known.reports,
                name=self._sensor_rules[sensor].name if sensor in self._sensor_rules else None,
            )
            for sensor, known in self._ledger.sensors.items()
        ]

    def devices(self) -> list[DeviceSummary]:
        """
        List the links (see `IGateway.devices`).
        """
        return [line.summary() for line in self._switchboard.lines.values()]

    def presentations(self) -> Mapping[str, Presentation]:
        """
        Return how people want to see sensors (see `IGateway.presentations`).
        """
        return self._presentations

    def alarms(self) -> list[Alarm]:
        """
        List the alarms (see `IGateway.alarms`).
        """
        return self._ledger.alarms.open()

    def totals(self) -> Totals:
        """
        Return what was counted (see `IGateway.totals`).
        """
        return Totals(
            readings=self._ledger.readings,
            outcomes=dict(self._ledger.outcomes),
            malformed=dict(self._noise.reasons),
            latencies=self._ledger.latencies.cumulated(),
            latency_sum=self._ledger.latencies.sum,
        )

    def status(self) -> list[Mapping[str, str]]:
        """
        Return the status of usbgate (see `IGateway.status`).
        """
        lines = self._switchboard.lines.values()
        told: list[Mapping[str, str]] = [
            {
                "VERSION": __version__,
                "UPTIME": f"{self._clock.monotonic() - self._started:.0f}",
                "CLOCK": "trusted" if self._clock.trusted() else "untrusted",
                "SENSORS": str(len(self._ledger.sensors)),
                "INFLIGHT": str(sum(line.pending.in_flight for line in lines)),
            },
            *self._store_status(),
        ]
        told.extend({"REQUESTS": str(count), "OUTCOME": name} for name, count in self._ledger.outcomes.items())
        told.extend({"MALFORMED": str(count), "REASON": name} for name, count in self._noise.reasons.items())
        for line in lines:
            unsure = line.pending.unsure
            for start in range(0, len(unsure), UNSURE_SHOWN):
                shown = unsure[start : start + UNSURE_SHOWN]
                told.append(
                    {
                        "DEV": line.link.name,
                        "UNSURE": str(len(shown)),
                        "SENSORS": ",".join(shown),
                        "TEXT": "they answer with neither MSG nor TAG: an unasked reading can pass for an answer",
                    }
                )
        return told

    def noise(self) -> list[Mapping[str, str]]:
        """
        Return the last malformed lines (see `IGateway.noise`).
        """
        return self._noise.lines()

    def refused(self, source: str, line: bytes, reason: str) -> None:
        """
        Record a malformed line (see `IGateway.refused`).
        """
        self._noise.add(source, line, reason)

    # Of what happens from now on.

    def subscribe(self, deliver: Callable[[str | None, str], None]) -> Callable[[], None]:
        """
        Hear every event as a line (see `IGateway.subscribe`).
        """
        return self._announcements.lines.subscribe(deliver)

    def subscribe_events(self, deliver: Callable[[Event], None]) -> Callable[[], None]:
        """
        Hear every event as a value (see `IGateway.subscribe_events`).
        """
        return self._announcements.values.subscribe(deliver)

    # Of the store.

    def history(self, sensor: str, field: str | None, since: int | None, limit: int) -> Deferred[list[Reading]]:
        """
        Fetch stored readings (see `IGateway.history`).
        """
        return _fetch(self._history, lambda stored: stored.history(sensor, field, since, limit))

    def extent(self, selection: Selection, limit: int | None) -> Deferred[tuple[int, int] | None]:
        """
        Find stored readings (see `IGateway.extent`).
        """
        return _fetch(self._archive, lambda stored: stored.extent(selection, limit))

    def page(self, selection: Selection, first: int, last: int, limit: int) -> Deferred[list[StoredReading]]:
        """
        Fetch stored readings (see `IGateway.page`).
        """
        return _fetch(self._archive, lambda stored: stored.page(selection, first, last, limit))

    def buckets(self, selection: Selection, width: int, limit: int) -> Deferred[list[Bucket]]:
        """
        Sum up stored readings (see `IGateway.buckets`).
        """
        return _fetch(self._archive, lambda stored: stored.buckets(selection, width, limit))

    def requests(self, sensor: str | None, limit: int) -> Deferred[list[StoredRequest]]:
        """
        Fetch requests that ended (see `IGateway.requests`).
        """
        return _fetch(self._archive, lambda stored: stored.requests(sensor, limit))


def _fetch(store: _Store | None, question: Callable[[_Store], Deferred[_T]]) -> Deferred[_T]:
    return Deferred.fromCoroutine(_ask_store(store, question))


async def _ask_store(store: _Store | None, question: Callable[[_Store], Deferred[_T]]) -> _T:
    if store is None:
        raise Failed("nothing is stored: the database is none")
    try:
        return await question(store)
    except SinkUnavailable as error:
        raise Failed(f"the database can't be asked: {error}") from None
