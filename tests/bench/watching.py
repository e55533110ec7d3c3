"""
Many connections: those that watch all events, and idle ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing

from tests.bench.device import Device
from tests.bench.figures import Figure, Row
from tests.bench.rig import Rig
from tests.bench.running import Daemon
from tests.support.running import LineClient

SAMPLED = 20  # watchers that record the delay of each event
SPARE = 100  # our own connections, in addition to those that are measured


def watched(
    rig: Rig, device: Device, daemon: Daemon, rate: int, seconds: float, **arguments: int
) -> Mapping[str, float]:
    """
    Let clients watch a device that begins to send readings.

    Args:
        rig: The rig.
        device: The device, which has sent nothing yet.
        daemon: Its daemon.
        rate: Readings per second.
        seconds: How long it sends.
        arguments: `port`, `watchers`, and what else `watch` of load.py takes.

    Returns:
        The results of `watch`; how many events were `due`, the percentage `delivered`, and the daemon's seconds of CPU
        time, `daemon_cpu`.

    Raises:
        AssertionError: An event came twice.
    """
    with rig.start_load("watch", sampled=SAMPLED, quiet=1.0, **arguments) as load:
        load.ready()
        cpu = daemon.cpu
        device.speak(rate)
        load.sleep(seconds)
        device.speak(0)
        results = load.result()
        cpu = daemon.cpu - cpu
    due = device.counts()["spoken"] * arguments["watchers"]
    if results["events"] > due:
        raise AssertionError(f"{results['events']} events of {due:.0f}")
    return {**results, "due": due, "delivered": results["events"] / due * 100, "daemon_cpu": cpu}


def _measure_watchers(rig: Rig) -> Mapping[str, float]:
    watchers, rate, seconds = rig.size(1_000, 50), 200, rig.size(8, 1)
    with rig.device() as device, rig.database() as database:
        with rig.daemon(device, database.url, max_connections=watchers + SPARE) as daemon:
            rig.progress(f"{watchers:,} subscribers to {rate} readings a second")
            results = watched(rig, device, daemon, rate, seconds, port=daemon.port, watchers=watchers)
            peak = daemon.peak
    return {
        "due": results["due"],
        "events": results["events"],
        "delivered": results["delivered"],
        "per_second": results["events"] / seconds,
        "p50": results["p50"],
        "p99": results["p99"],
        "most": results["most"],
        "daemon_share": results["daemon_cpu"] / seconds * 100,
        "daemon_cpu": results["daemon_cpu"] / results["events"] * 1e6,
        "load_share": results["cpu"] / seconds * 100,
        "peak": peak / 2**20,
    }


WATCHERS = Row(
    "watchers",
    "1,000 subscribers to 200 readings a second: 200,000 events/s",
    [
        Figure("delivered", "events delivered", "%", reach=">= 100"),
        Figure("p50", "median latency", "ms"),
        Figure("p99", "99th percentile", "ms", reach="<= 100"),
        Figure("most", "maximum latency", "ms"),
        Figure("daemon_cpu", "CPU time of the daemon per event", "µs"),
        Figure("daemon_share", "CPU usage of the daemon, of one core", "%", {"load_share": "the clients"}, "<= 100"),
        Figure("peak", "peak memory of the daemon", "MiB"),
    ],
    _measure_watchers,
)


def _measure_idle_connections(rig: Rig) -> Mapping[str, float]:
    clients = rig.size(10_000, 200)
    with rig.device() as device, rig.daemon(device, max_connections=clients + SPARE) as daemon:
        before = daemon.rss
        rig.progress(f"{clients:,} connections")
        with rig.start_load("hold", port=daemon.port, clients=clients) as load:
            load.ready()
            with closing(LineClient(daemon.port)) as client:
                if client.word("ping")[-1:] != ["OK:ping"]:
                    raise AssertionError("no answer beside so many connections")
            counted = int(daemon.status("CLIENTS")) - 1
            after = daemon.rss
    if counted != clients:
        raise AssertionError(f"{counted} connections of {clients}")
    return {"each": (after - before) / clients / 1024, "all": (after - before) / 2**20}


IDLE_CONNECTIONS = Row(
    "connections",
    "10,000 idle connections",
    [
        Figure("each", "memory per connection", "KiB", reach="<= 10"),
        Figure("all", "memory in total", "MiB"),
    ],
    _measure_idle_connections,
    once=True,
)
