"""
HTTP: how long a question takes over it, what a stream of events costs, and how long the list of all sensors takes.
"""

from __future__ import annotations

import http.client
import json
import time
from collections import defaultdict
from collections.abc import Iterator

from tests.bench.figures import Figure, Measured, Row
from tests.bench.rig import Rig
from tests.bench.roundtrip import Askers, askers, program_of
from tests.bench.watching import watched
from tests.support.running import free_port
from tests.support.waiting import eventually

CLIENTS = (1, 50)
SLICES = 3  # in a round, of each by turns
RATE = 100_000  # questions a second that the daemon permits: the limit is not what is measured
STREAMS, EVENTS = 200, 200  # streams of events, and readings a second
SENSORS, LISTS = 1_000, 30


def _measure(rig: Rig) -> Measured:
    found: defaultdict[str, list[float]] = defaultdict(list)
    port = free_port()
    where = f"tcp:{port}:interface=127.0.0.1"
    for clients in CLIENTS:
        with rig.device() as device, rig.daemon(device, http=where, client_requests_per_second=RATE) as daemon:
            program = program_of(daemon)
            with (
                askers(rig, program, clients) as lines,
                rig.start_load("ask_http_in_slices", port=port, clients=clients) as load,
            ):
                load.ready()
                _ask(rig, {"http": Askers(program, load), "tcp": lines}, clients, found)
    _watch(rig, port, where, found)
    _list(rig, port, where, found)
    return found


def _ask(rig: Rig, asking: dict[str, Askers], clients: int, found: defaultdict[str, list[float]]) -> None:
    for number in range(1 + rig.size(SLICES, 1)):
        for name, those in asking.items():
            rig.progress(f"HTTP: {name}, {clients} at a time, slice {number}")
            results = those.ask(0.2 if rig.quick else 1.0)
            if number:  # the first ones are warm-up
                for key in ("p50", "cpu", "per_second"):
                    found[f"{name}_{clients}_{key}"].append(results[key])


def _watch(rig: Rig, port: int, where: str, found: defaultdict[str, list[float]]) -> None:
    streams, seconds = rig.size(STREAMS, 20), rig.size(5, 1)
    rig.progress(f"{streams} streams of {EVENTS} readings a second")
    with rig.device() as device, rig.daemon(device, http=where) as daemon:
        results = watched(rig, device, daemon, EVENTS, seconds, port=port, watchers=streams, http=True)
    found["delivered"].append(results["delivered"])
    found["events_p50"].append(results["p50"])
    found["events_p99"].append(results["p99"])
    found["events_cpu"].append(results["daemon_cpu"] / results["events"] * 1e6)


def _list(rig: Rig, port: int, where: str, found: defaultdict[str, list[float]]) -> None:
    sensors = rig.size(SENSORS, 50)
    rig.progress(f"the list of {sensors:,} sensors")
    with rig.device() as device, rig.daemon(device, http=where) as daemon:
        device.flood(sensors, sensors)
        device.go()
        eventually(lambda: int(daemon.status("SENSORS")) == sensors, "all sensors have reported")
        connection = http.client.HTTPConnection("127.0.0.1", port)
        for _ in range(LISTS):
            begun = time.monotonic()
            connection.request("GET", "/api/v1/sensors")
            body = connection.getresponse().read()
            found["list"].append((time.monotonic() - begun) * 1000)
        connection.close()
    if len(json.loads(body)["sensors"]) != sensors:
        raise AssertionError("not all sensors were listed")


def _figures() -> Iterator[Figure]:
    for clients in CLIENTS:
        for key, what, unit in (
            ("p50", "median latency", "ms"),
            ("cpu", "CPU time of the daemon per answer", "µs"),
            ("per_second", "answers", "/s"),
        ):
            beside = {f"tcp_{clients}_{key}": "TCP"}
            yield Figure(f"http_{clients}_{key}", f"{clients} at a time: {what}", unit, beside)
    yield Figure("delivered", "events delivered", "%", reach=">= 100")
    yield Figure("events_p50", "events: median latency", "ms")
    yield Figure("events_p99", "events: 99th percentile", "ms", reach="<= 100")
    yield Figure("events_cpu", "CPU time of the daemon per event", "µs")
    yield Figure("list", f"the list of {SENSORS:,} sensors", "ms", reach="<= 100")


HTTP = Row(
    "http",
    f"questions over HTTP, and {STREAMS} streams of {EVENTS} events a second",
    list(_figures()),
    _measure,
)
