"""
The counts, the states and the newest readings of usbgate as metrics for Prometheus. A metric that counts lines has
`lines` in its name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import islice
from typing import TypeVar

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from usbgate.core.fieldline import unit_of
from usbgate.core.model import Alarm, Reading
from usbgate.core.settings import FieldSettings
from usbgate.core.status import BrokerStatus, JournalStatus, Status, StoreStatus, Totals
from usbgate.gateway.interfaces import DeviceSummary, IQueries, SensorSummary

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

# The samples of a piece: 3 ms of the reactor's time.
PIECE = 200

LOOKED_AT = 10_000  # readings that are looked at for a piece, most of which are not shown: 2 ms

_T = TypeVar("_T")

_STORE_STATES = ("none", "connecting", "connected", "away")
_BROKER_STATES = ("connecting", "connected", "away", "refused")
_DEVICE_STATES = ("starting", "settling", "online", "silent", "offline", "lent")


def metrics_pieces(
    queries: IQueries, clients: Callable[[], Mapping[str, int]], wall: Callable[[], int], limit: int
) -> Iterator[bytes]:
    """
    Yield all metrics in Prometheus' text format, in pieces that take 3 ms each.

    Args:
        queries: The gateway's queries.
        clients: Returns the numbers of clients, by kind.
        wall: The wall clock (`IClock.wall`).
        limit: The most readings, the most sensors and the most alarms; the first known ones are shown.
    """
    status = queries.status()
    yield _text(
        *_status_metrics(status),
        *_total_metrics(queries.totals()),
        _implausible(status),
        *_device_metrics(queries.devices()),
        *_store_metrics(status.store, wall()),
        *(() if status.journal is None else _journal_metrics(status.journal)),
        *(() if status.broker is None else _broker_metrics(status.broker)),
        _by_label(
            "usbgate_clients",
            "Clients that are connected now.",
            "kind",
            {kind.lower(): count for kind, count in clients().items()},
            GaugeMetricFamily,
        ),
    )
    gateway = status.store.gateway or ""
    numbers: list[Reading] = []
    readings = 0
    for looked_at, reading in enumerate(queries.last(None, None), 1):
        if reading.value is not None:
            readings += 1
            if readings <= limit:
                numbers.append(reading)
        if looked_at % LOOKED_AT == 0:
            yield b""
    sensors: list[SensorSummary] = []
    for each in islice(queries.sensors(), limit):
        sensors.append(each)
        if len(sensors) % PIECE == 0:
            yield b""
    alarms = queries.alarms()
    yield from _sliced(numbers, partial(_readings, gateway, queries.field_settings))
    yield from _sliced(sensors, partial(_ages, gateway, wall()))
    yield from _sliced(alarms[:limit], partial(_alarms, gateway))
    active = sum(alarm.ended is None for alarm in alarms)
    left_out = {"readings": readings - limit, "sensors": status.sensors - limit, "alarms": len(alarms) - limit}
    yield _text(
        _by_label(
            "usbgate_open_alarms",
            "Open alarms: active while their condition holds, ended while nobody has acknowledged them.",
            "state",
            {"active": active, "ended": len(alarms) - active},
            GaugeMetricFamily,
        ),
        _by_label(
            "usbgate_metrics_left_out",
            "Readings, sensors and alarms that are not shown here, since there are more than metrics_limit.",
            "what",
            {what: max(0, count) for what, count in left_out.items()},
            GaugeMetricFamily,
        ),
    )


class _Families(Collector):
    # What prometheus-client makes text of.

    def __init__(self, families: Sequence[Metric]) -> None:
        self._families = families

    def collect(self) -> Sequence[Metric]:
        return self._families


def _text(*families: Metric) -> bytes:
    registry = CollectorRegistry()
    registry.register(_Families(families))
    return generate_latest(registry)


def _sliced(items: Sequence[_T], make: Callable[[Sequence[_T]], Metric]) -> Iterator[bytes]:
    # One metric in several pieces, of which only the first has the lines with its help and its type.
    yield _text(make(items[:PIECE]))
    for start in range(PIECE, len(items), PIECE):
        yield _text(make(items[start : start + PIECE])).split(b"\n", 2)[2]


def _status_metrics(status: Status) -> Iterator[Metric]:
    yield InfoMetricFamily("usbgate", "The version of usbgate, as a label.", {"version": status.version})
    yield GaugeMetricFamily("usbgate_uptime_seconds", "Seconds since usbgate started.", status.uptime)
    yield GaugeMetricFamily(
        "usbgate_clock_trusted",
        "1 if the wall clock can be right, 0 if it is known to be wrong or is not synchronized.",
        float(status.clock_trusted),
    )
    yield GaugeMetricFamily("usbgate_sensors", "Sensors that usbgate knows.", status.sensors)
    yield GaugeMetricFamily("usbgate_inflight", "Requests that wait for an answer of a device now.", status.in_flight)
    yield GaugeMetricFamily("usbgate_held", "Requests that are held until their sensors report.", status.held)


def _total_metrics(totals: Totals) -> Iterator[Metric]:
    yield CounterMetricFamily(
        "usbgate_readings", "Readings received from all devices since usbgate started.", totals.readings
    )
    yield _by_label(
        "usbgate_malformed_lines",
        "Lines of devices and clients that could not be read, or not in full.",
        "reason",
        totals.malformed,
    )
    yield _by_label(
        "usbgate_requests",
        "Requests that have ended: answered by a device, recent (from memory), or failed with this error.",
        "outcome",
        totals.outcomes,
    )
    yield HistogramMetricFamily(
        "usbgate_answer_seconds",
        "Seconds from the acceptance of a request to the answer of the device.",
        buckets=[("+Inf" if bound == float("inf") else str(bound), count) for bound, count in totals.latencies],
        sum_value=totals.latency_sum,
    )


def _implausible(status: Status) -> Metric:
    metric = CounterMetricFamily(
        "usbgate_implausible_readings",
        "Readings that were not within min and max of their field, and are not shown.",
        labels=["device", "sensor", "field"],
    )
    for each in status.implausible:
        metric.add_metric([each.device, each.sensor, each.field], each.readings)
    return metric


def _readings(gateway: str, field_settings: Callable[[Reading], FieldSettings], shown: Sequence[Reading]) -> Metric:
    metric = GaugeMetricFamily(
        "usbgate_reading",
        "The newest reading of each field that is a number; the unit is that of the configuration, or the device's.",
        labels=["gateway", "device", "sensor", "field", "unit"],
    )
    for each in shown:
        unit = field_settings(each).unit or ("" if each.text is None else unit_of(each.text))
        assert each.value is not None
        metric.add_metric([gateway, each.device, each.sensor, each.field, unit], each.value)
    return metric


def _ages(gateway: str, now: int, shown: Sequence[SensorSummary]) -> Metric:
    metric = GaugeMetricFamily(
        "usbgate_sensor_age_seconds",
        "Seconds since the last report of a sensor, by the wall clock; the device is the one that is asked for it.",
        labels=["gateway", "device", "sensor"],
    )
    for each in shown:
        metric.add_metric([gateway, each.device, each.sensor], max(0, now - each.seen) / 1000)
    return metric


def _alarms(gateway: str, shown: Sequence[Alarm]) -> Metric:
    metric = GaugeMetricFamily(
        "usbgate_alarm_active",
        "Each open alarm: 1 while its condition holds, 0 once it has ended, until somebody acknowledges it.",
        labels=["gateway", "device", "sensor", "field", "condition"],
    )
    for each in shown:
        metric.add_metric([gateway, each.device, each.sensor, each.field, each.condition], float(each.ended is None))
    return metric


def _device_metrics(devices: Sequence[DeviceSummary]) -> Iterator[Metric]:
    # Counts of lines are one metric, each other count is its own.
    lines = CounterMetricFamily(
        "usbgate_lines",
        "Lines of a device, by kind, as the word devices shows them.",
        labels=["device", "kind"],
    )
    others: dict[str, CounterMetricFamily] = {}
    for device in devices:
        for count in device.counts:
            if count.lines:
                lines.add_metric([device.name, count.key.lower()], count.value)
                continue
            if count.name not in others:
                others[count.name] = CounterMetricFamily(f"usbgate_{count.name}", count.help, labels=["device"])
            others[count.name].add_metric([device.name], count.value)
    yield lines
    yield from others.values()
    yield _states(
        "usbgate_device_state",
        "The state of a device",
        {(device.name,): device.state for device in devices},
        _DEVICE_STATES,
        ["device"],
    )


def _store_metrics(store: StoreStatus, now: int) -> Iterator[Metric]:
    yield _states("usbgate_store_state", "The connection to the database", {(): store.state}, _STORE_STATES, [])
    yield GaugeMetricFamily(
        "usbgate_journal_rows", "Rows in the journal that wait to be stored in the database.", store.backlog
    )
    age = 0.0 if store.oldest is None else max(0, now - store.oldest) / 1000
    yield GaugeMetricFamily(
        "usbgate_journal_age_seconds",
        "Age of the oldest row that is being stored; 0 if none is.",
        age,
    )
    yield GaugeMetricFamily(
        "usbgate_rejected_rows", "Rows that the database refused, and that usbgate keeps aside.", store.rejected
    )


def _journal_metrics(journal: JournalStatus) -> Iterator[Metric]:
    yield CounterMetricFamily("usbgate_journal_commits", "Commits of the journal to its disk.", journal.commits)
    yield GaugeMetricFamily(
        "usbgate_journal_slowest_commit_seconds",
        "The slowest commit since usbgate started.",
        journal.slowest_commit,
    )
    yield CounterMetricFamily("usbgate_journal_lost_rows", "Rows dropped since the journal was created.", journal.lost)
    if journal.written is not None:
        yield CounterMetricFamily(
            "usbgate_journal_written_bytes",
            "Bytes that usbgate has written to disk since it started, without what a PostgreSQL server writes.",
            journal.written,
        )
    if journal.daily is not None:
        yield GaugeMetricFamily(
            "usbgate_journal_daily_bytes",
            "Bytes written to disk in the last 24 hours; extrapolated during the first day.",
            journal.daily,
        )


def _broker_metrics(broker: BrokerStatus) -> Iterator[Metric]:
    yield _states("usbgate_mqtt_state", "The connection to the MQTT broker", {(): broker.state}, _BROKER_STATES, [])
    yield CounterMetricFamily("usbgate_mqtt_published", "Messages published over MQTT.", broker.published)
    yield CounterMetricFamily(
        "usbgate_mqtt_dropped", "Messages not published: the broker was away, or too slow.", broker.dropped
    )
    yield CounterMetricFamily(
        "usbgate_mqtt_refused", "Messages and subscriptions that the MQTT broker does not permit.", broker.refused
    )
    yield CounterMetricFamily(
        "usbgate_mqtt_unasked", "Questions and commands over MQTT that usbgate has refused.", broker.unasked
    )


def _by_label(
    name: str,
    help: str,
    label: str,
    counts: Mapping[str, int],
    kind: type[CounterMetricFamily | GaugeMetricFamily] = CounterMetricFamily,
) -> Metric:
    metric = kind(name, help, labels=[label])
    for value, count in counts.items():
        metric.add_metric([value], count)
    return metric


def _states(
    name: str, help: str, found: Mapping[tuple[str, ...], str], states: tuple[str, ...], labels: list[str]
) -> Metric:
    # As Prometheus recommends: 1 for the current state, 0 for all others.
    metric = GaugeMetricFamily(name, f"{help}: 1 for its state, 0 for all others.", labels=[*labels, "state"])
    for values, current in found.items():
        for state in states:
            metric.add_metric([*values, state], float(state == current))
    return metric
