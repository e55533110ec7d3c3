"""
An outage of the database, and a database that is slower than the device.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from threading import Event, Thread

from tests.bench import child
from tests.bench.database import Database
from tests.bench.device import Device
from tests.bench.figures import Figure, Row
from tests.bench.rig import Rig
from tests.bench.roundtrip import check
from tests.bench.running import Daemon
from tests.bench.throughput import stored as stored_fast
from tests.support.waiting import eventually

LINES = 300_000  # the backlog
LIVE = 10_000  # unasked readings a second while it catches up
CLIENTS, QUESTIONS = 10, 500  # questions per second of clients that ask meanwhile

# Statements of the daemon's that run at a time.
_STATEMENTS = """
    select count(*) from pg_stat_activity
    where application_name like 'usbgate %' and state = 'active' and datname = current_database()
"""


def _all_there(daemon: Daemon, database: Database, device: Device, flooded: int) -> None:
    """
    Wait until all lines are stored; fail if a reading is lost or doubled.
    """
    counts = device.counts()
    sent = flooded + counts["spoken"] + counts["received"]
    deadline = time.monotonic() + 300
    # What is still in the tty is not counted as waiting.
    while (stored := database.query("select count(*) from reading")) < [(sent,)]:
        if time.monotonic() > deadline:
            raise AssertionError(f"{sent:.0f} readings were sent, {stored} are stored: {daemon.log}")
        time.sleep(0.5)
    found = database.query("select count(*), count(distinct seq) from reading")
    if found != [(sent, sent)]:
        raise AssertionError(f"of {sent:.0f} readings, stored and distinct: {found}")


def _catch_up(
    rig: Rig, daemon: Daemon, database: Database, device: Device, lines: int, seconds: float
) -> Mapping[str, float]:
    """
    Measure how fast a backlog is stored after an outage, and how fast clients are answered meanwhile.
    """
    device.flood(lines, 40)
    database.close()
    with rig.server_away():
        rig.progress(f"{lines:,} readings without a database")
        daemon.wait_until("status", "STORE:away")
        device.go()
        # The rest is still in the tty.
        eventually(lambda: int(daemon.status("BACKLOG")) >= lines, "the daemon has read all", 120)
    database.connect()
    first = database.newest
    through = first + int(daemon.status("BACKLOG"))
    rig.progress("catching up")
    device.speak(rig.size(LIVE, 1_000))
    # It retries after half a minute at most; it catches up from the first stored row on.
    eventually(lambda: database.newest > first, "the daemon stores again", 60)
    with rig.start_load("ask", port=daemon.port, clients=CLIENTS, rate=QUESTIONS, seconds=seconds) as load:
        cpu, server_cpu = child.threads_cpu(daemon.pid), database.server_cpu
        begun, first = time.monotonic(), database.newest
        lasted = database.wait_for(through) - begun
        cpu, server_cpu = child.threads_cpu(daemon.pid) - cpu, database.server_cpu - server_cpu
        results = load.result()
    check(results)
    device.speak(0)
    return {
        "per_second": (through - first) / lasted,
        "daemon_cpu": cpu / (through - first) * 1e6,
        "server_cpu": server_cpu / (through - first) * 1e6,
        "p50": results["p50"],
        "p99": results["p99"],
    }


def _measure_catching_up(rig: Rig) -> Mapping[str, float]:
    lines = rig.size(LINES, 50_000)
    with rig.database() as database:
        rig.progress(f"{lines:,} readings without an outage")
        sustained = stored_fast(rig, database, lines, 40)["per_second"]
    seconds = max(1.0, lines / sustained)
    with rig.device() as device, rig.database() as database, rig.daemon(device, database.url) as daemon:
        rig.progress("live readings and questions, without a backlog")
        device.speak(rig.size(LIVE, 1_000))
        quiet = rig.load("ask", port=daemon.port, clients=CLIENTS, rate=QUESTIONS, seconds=seconds)
        check(quiet)
        device.speak(0)
        daemon.wait_until("status", "BACKLOG:0")
        found = _catch_up(rig, daemon, database, device, lines, seconds)
        _all_there(daemon, database, device, lines)
        peak = daemon.peak
    return {
        **found,
        "sustained": sustained,
        "of_sustained": found["per_second"] / sustained,
        "quiet_p50": quiet["p50"],
        "quiet_p99": quiet["p99"],
        "times": found["p99"] / quiet["p99"],
        "peak": peak / 2**20,
    }


CATCHING_UP = Row(
    "backlog",
    f"{LINES:,} readings after an outage, while 10,000 live readings and 500 questions a second arrive",
    [
        Figure("per_second", "readings of the backlog stored", "/s", {"sustained": "no outage"}),
        Figure("of_sustained", "relative to no outage", "x", reach=">= 0.7"),
        Figure(
            "daemon_cpu",
            "CPU time of the daemon per million of these, with all that it does meanwhile",
            "s",
            {"server_cpu": "server"},
        ),
        Figure("p50", "median latency", "ms", {"quiet_p50": "no backlog"}),
        Figure("p99", "99th percentile", "ms", {"quiet_p99": "no backlog"}),
        Figure("times", "relative to no backlog", "x", reach="<= 2"),
        Figure("peak", "peak memory of the daemon", "MiB"),
    ],
    _measure_catching_up,
)


@contextmanager
def _throttled(root: int) -> Iterator[None]:
    """
    Let a server run for a tenth of the time.
    """
    ended = Event()

    def send(number: int) -> None:
        for pid in child.tree(root):
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    def throttle() -> None:
        while not ended.is_set():
            send(signal.SIGSTOP)
            ended.wait(0.18)
            send(signal.SIGCONT)
            ended.wait(0.02)

    thread = Thread(target=throttle)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _sampled(daemon: Daemon, seconds: float, database: Database | None = None) -> tuple[list[int], int]:
    """
    Sample the daemon's memory for a while, and the most statements that it runs at a time.
    """
    sizes: list[int] = []
    statements = 0
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        sizes.append(daemon.rss)
        if database is not None:
            ((count,),) = database.query(_STATEMENTS)
            statements = max(statements, count)
        time.sleep(0.1)
    return sizes, statements


def _growth(sizes: list[int]) -> float:
    # In the first third the buffers in memory fill up.
    third = len(sizes) // 3
    return (max(sizes[-third:]) - max(sizes[third : 2 * third])) / 2**20


def _measure_slow_store(rig: Rig) -> Mapping[str, float]:
    rate, seconds = rig.size(30_000, 2_000), rig.size(21, 2)
    with rig.device() as device, rig.database() as database, rig.daemon(device, database.url) as daemon:
        before = daemon.rss
        rig.progress(f"{rate:,} readings a second, the database is stopped for {seconds} s")
        with rig.server.frozen():
            device.speak(rate)
            frozen, _ = _sampled(daemon, seconds)
            device.speak(0)
            unsaid = device.counts()["unsaid"]
            waiting = int(daemon.status("BACKLOG"))
        daemon.wait_until("status", "BACKLOG:0", limit=120)
        rig.progress(f"{rate:,} readings a second, the database runs a tenth of the time")
        with _throttled(rig.server_pid):
            device.speak(rate)
            slow, statements = _sampled(daemon, seconds, database)
            device.speak(0)
            slow_waiting = int(daemon.status("BACKLOG"))
        rig.progress("the rest")
        _all_there(daemon, database, device, 0)
        peak = daemon.peak
    return {
        "before": before / 2**20,
        "frozen": max(frozen) / 2**20,
        "frozen_growth": _growth(frozen),
        "unsaid": unsaid / 1024,
        "waiting": waiting,
        "slow": max(slow) / 2**20,
        "slow_growth": _growth(slow),
        "slow_waiting": slow_waiting,
        "statements": statements,
        "peak": peak / 2**20,
    }


SLOW_STORE = Row(
    "slow",
    "30,000 readings a second, the database is stopped, then runs a tenth of the time",
    [
        Figure("frozen", "stopped: peak memory of the daemon", "MiB", {"before": "before"}),
        Figure("frozen_growth", "stopped: growth in the last third", "MiB", reach="<= 4"),
        Figure("unsaid", "stopped: bytes that the device could not send", "KiB", reach="<= 4"),
        Figure("waiting", "stopped: readings in the journal at the end"),
        Figure("slow", "slow: peak memory of the daemon", "MiB", {"before": "before"}),
        Figure("slow_growth", "slow: growth in the last third", "MiB", reach="<= 4"),
        Figure("slow_waiting", "slow: readings in the journal at the end"),
        Figure("statements", "slow: concurrent statements", reach="<= 1"),
        Figure("peak", "peak memory of the daemon, overall", "MiB"),
    ],
    _measure_slow_store,
    once=True,
)
