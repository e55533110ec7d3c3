"""
What is counted, for Prometheus.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from usbgate.core.units import parse_moment
from usbgate.gateway.interfaces import IGateway
from usbgate.web.serialize import status_shape

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_STORE_STATES = ("none", "connecting", "connected", "away")
_DEVICE_STATES = ("starting", "settling", "online", "silent", "offline", "lent")


def metrics_text(gateway: IGateway, clients: Callable[[], Mapping[str, int]], wall: Callable[[], int]) -> bytes:
    """
    Spell what was counted until now.

    Args:
        gateway: Who knows most of it.
        clients: Numbers of clients, by name.
        wall: The wall clock (`IClock.wall`).
    """
    registry = CollectorRegistry()
    registry.register(Metrics(gateway, clients, wall))
    return generate_latest(registry)


class Metrics(Collector):
    """
    Asks when it is asked.
    """

    def __init__(self, gateway: IGateway, clients: Callable[[], Mapping[str, int]], wall: Callable[[], int]) -> None:
        self._wall = wall
        self._gateway = gateway
        self._clients = clients

    def describe(self) -> list[Metric]:
        """
        Promise nothing; else registering would ask for all of it.
        """
        return []

    def collect(self) -> Iterator[Metric]:
        """
        Yield all metrics; prometheus-client calls this.
        """
        status = status_shape(self._gateway, self._clients())
        totals = self._gateway.queries.totals()
        yield InfoMetricFamily("usbgate", "The release.", {"version": status.version})
        yield GaugeMetricFamily("usbgate_uptime_seconds", "Since the start.", status.uptime)
        yield GaugeMetricFamily(
            "usbgate_clock_trusted", "Whether the wall clock can be right.", float(status.clock == "trusted")
        )
        yield CounterMetricFamily("usbgate_readings", "Measurements read.", totals.readings)
        yield from self._devices()
        malformed = CounterMetricFamily("usbgate_malformed", "Lines that could not be read.", labels=["reason"])
        for reason, count in totals.malformed.items():
            malformed.add_metric([reason], count)
        yield malformed
        requests = CounterMetricFamily("usbgate_requests", "Requests that ended.", labels=["outcome"])
        for outcome, count in totals.outcomes.items():
            requests.add_metric([outcome], count)
        yield requests
        yield HistogramMetricFamily(
            "usbgate_answer_seconds",
            "How long devices took to answer.",
            buckets=[("+Inf" if bound == float("inf") else str(bound), count) for bound, count in totals.latencies],
            sum_value=totals.latency_sum,
        )
        yield GaugeMetricFamily("usbgate_inflight", "Requests that wait for an answer.", status.inflight)
        yield GaugeMetricFamily("usbgate_sensors", "Sensors known.", status.sensors)
        yield _states("usbgate_store_state", "The database.", {(): status.store.state}, _STORE_STATES, [])
        yield GaugeMetricFamily("usbgate_journal_rows", "Rows that wait for the database.", status.store.backlog)
        oldest = parse_moment(status.store.oldest, 0) if status.store.oldest is not None else None
        age = 0.0 if oldest is None else max(0, self._wall() - oldest) / 1000
        yield GaugeMetricFamily("usbgate_journal_age_seconds", "Since the oldest row being stored was read.", age)
        yield CounterMetricFamily("usbgate_rejected", "Rows that the database refused.", status.store.rejected)
        for name, value in status.journal.items():
            if isinstance(value, int | float):
                yield GaugeMetricFamily(f"usbgate_journal_{name}", f"The journal's {name}.", value)
        clients = GaugeMetricFamily("usbgate_clients", "Clients, by what they do.", labels=["kind"])
        for kind, count in status.clients.items():
            clients.add_metric([kind], count)
        yield clients

    def _devices(self) -> Iterator[Metric]:
        devices = self._gateway.queries.devices()
        lines = CounterMetricFamily("usbgate_lines", "Lines of a device, by what they were.", labels=["device", "kind"])
        for device in devices:
            for count in device.counts:
                lines.add_metric([device.name, count.key.lower()], count.value)
        yield lines
        states: dict[tuple[str, ...], str] = {(device.name,): device.state for device in devices}
        yield _states("usbgate_device_state", "A device.", states, _DEVICE_STATES, ["device"])


def _states(
    name: str, what: str, found: Mapping[tuple[str, ...], str], states: tuple[str, ...], labels: list[str]
) -> Metric:
    # As Prometheus wants it: 1 for the state that it is in, 0 for all others.
    metric = GaugeMetricFamily(name, f"{what.rstrip('.')}: 1 for the state that it is in.", labels=[*labels, "state"])
    for values, current in found.items():
        for state in states:
            metric.add_metric([*values, state], float(state == current))
    return metric
