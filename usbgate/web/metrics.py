"""
The counts and states of usbgate as metrics for Prometheus. A metric that counts lines has `lines` in its name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from usbgate.core.status import JournalStatus, StoreStatus
from usbgate.gateway.interfaces import DeviceSummary, IQueries

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_STORE_STATES = ("none", "connecting", "connected", "away")
_DEVICE_STATES = ("starting", "settling", "online", "silent", "offline", "lent")


def metrics_text(queries: IQueries, clients: Callable[[], Mapping[str, int]], wall: Callable[[], int]) -> bytes:
    """
    Return all metrics in Prometheus' text format.

    Args:
        queries: The gateway's queries.
        clients: Returns the numbers of clients, by kind.
        wall: The wall clock (`IClock.wall`).
    """
    registry = CollectorRegistry()
    registry.register(Metrics(queries, clients, wall))
    return generate_latest(registry)


class Metrics(Collector):
    """
    Collects the metrics (arguments as for `metrics_text`).
    """

    def __init__(self, queries: IQueries, clients: Callable[[], Mapping[str, int]], wall: Callable[[], int]) -> None:
        self._queries = queries
        self._clients = clients
        self._wall = wall

    def describe(self) -> list[Metric]:
        """
        Return nothing; without this method, registering would collect all metrics.
        """
        return []

    def collect(self) -> Iterator[Metric]:
        """
        Yield all metrics; prometheus-client calls this.
        """
        status = self._queries.status()
        totals = self._queries.totals()
        yield InfoMetricFamily("usbgate", "The release.", {"version": status.version})
        yield GaugeMetricFamily("usbgate_uptime_seconds", "Time since the start.", status.uptime)
        yield GaugeMetricFamily(
            "usbgate_clock_trusted", "Whether the wall clock is trusted.", float(status.clock_trusted)
        )
        yield CounterMetricFamily("usbgate_readings", "Readings received.", totals.readings)
        yield _by_label(
            "usbgate_malformed_lines",
            "Lines of devices and clients that could not be read, or not in full.",
            "reason",
            totals.malformed,
        )
        yield _by_label("usbgate_requests", "Completed requests.", "outcome", totals.outcomes)
        yield HistogramMetricFamily(
            "usbgate_answer_seconds",
            "Time that devices took to answer.",
            buckets=[("+Inf" if bound == float("inf") else str(bound), count) for bound, count in totals.latencies],
            sum_value=totals.latency_sum,
        )
        yield GaugeMetricFamily("usbgate_inflight", "Requests that wait for an answer.", status.in_flight)
        yield GaugeMetricFamily("usbgate_sensors", "Known sensors.", status.sensors)
        yield from _device_metrics(self._queries.devices())
        yield from _store_metrics(status.store, self._wall())
        if status.journal is not None:
            yield from _journal_metrics(status.journal)
        clients = GaugeMetricFamily("usbgate_clients", "Connected clients.", labels=["kind"])
        for kind, count in self._clients().items():
            clients.add_metric([kind.lower()], count)
        yield clients


def _device_metrics(devices: Sequence[DeviceSummary]) -> Iterator[Metric]:
    # Counts of lines are one metric, each other count is its own.
    lines = CounterMetricFamily("usbgate_lines", "Lines of a device.", labels=["device", "kind"])
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
        "The state of a device.",
        {(device.name,): device.state for device in devices},
        _DEVICE_STATES,
        ["device"],
    )


def _store_metrics(store: StoreStatus, now: int) -> Iterator[Metric]:
    yield _states("usbgate_store_state", "The state of the database.", {(): store.state}, _STORE_STATES, [])
    yield GaugeMetricFamily("usbgate_journal_rows", "Rows that wait to be stored.", store.backlog)
    age = 0.0 if store.oldest is None else max(0, now - store.oldest) / 1000
    yield GaugeMetricFamily("usbgate_journal_age_seconds", "The age of the oldest row that is being stored.", age)
    yield CounterMetricFamily("usbgate_rejected_rows", "Rows that the database rejected.", store.rejected)


def _journal_metrics(journal: JournalStatus) -> Iterator[Metric]:
    yield CounterMetricFamily("usbgate_journal_commits", "Commits of the journal.", journal.commits)
    yield GaugeMetricFamily(
        "usbgate_journal_slowest_commit_seconds", "The slowest commit since the start.", journal.slowest_commit
    )
    yield CounterMetricFamily("usbgate_journal_lost_rows", "Rows that the journal had to drop.", journal.lost)
    if journal.written is not None:
        yield CounterMetricFamily("usbgate_journal_written_bytes", "Bytes written to the disk.", journal.written)
    if journal.daily is not None:
        yield GaugeMetricFamily(
            "usbgate_journal_daily_bytes",
            "Bytes written to disk in the last 24 hours; extrapolated during the first day.",
            journal.daily,
        )


def _by_label(name: str, help: str, label: str, counts: Mapping[str, int]) -> Metric:
    metric = CounterMetricFamily(name, help, labels=[label])
    for value, count in counts.items():
        metric.add_metric([value], count)
    return metric


def _states(
    name: str, help: str, found: Mapping[tuple[str, ...], str], states: tuple[str, ...], labels: list[str]
) -> Metric:
    # As Prometheus recommends: 1 for the current state, 0 for all others.
    metric = GaugeMetricFamily(name, f"{help.rstrip('.')}: 1 for the current one.", labels=[*labels, "state"])
    for values, current in found.items():
        for state in states:
            metric.add_metric([*values, state], float(state == current))
    return metric
