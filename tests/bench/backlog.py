"""
A database that was away, and one that is slower than the device.
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

LIVE = 10_000  # unasked readings a second while it catches up
CLIENTS, QUESTIONS = 10, 500  # who ask meanwhile, so many questions a second

# Statements of the daemon's that run at a time.
_STATEMENTS = """
    select count(*) from pg_stat_activity
    where application_name like 'usbgate %' and state = 'active' and datname = current_database()
"""


def _all_there(daemon: Daemon, database: Database, device: Device, flooded: int) -> None:
    """
    Wait until all that was said is stored, and fail where a reading is lost or doubled.
    """
    counts = device.counts()
    said = flooded + counts["spoken"] + counts["heard"]
    deadline = time.monotonic() + 300
    # What is on its way through the tty waits nowhere yet.
    while (stored := database.query("select count(*) from reading")) < [(said,)]:
        if time.monotonic() > deadline:
            raise AssertionError(f"{said:.0f} readings were said, {stored} are stored: {daemon.log}")
        time.sleep(0.5)
    found = database.query("select count(*), count(distinct seq) from reading")
    if found != [(said, said)]:
        raise AssertionError(f"of {said:.0f} readings, stored and distinct: {found}")


def _catch_up(
    rig: Rig, daemon: Daemon, database: Database, device: Device, lines: int, seconds: float
) -> Mapping[str, float]:
    """
    Tell how fast a backlog is stored after an outage, and how soon clients are answered meanwhile.
    """
    device.flood(lines, 40)
    database.close()
    with rig.server_away():
        rig.tell(f"{lines:,} readings without a database")
        daemon.wait_until("status", "STORE:away")
        device.go()
        # The rest of what was said is on its way through the tty.
        eventually(lambda: int(daemon.status("BACKLOG")) >= lines, "the daemon has read all", 120)
    database.connect()
    first = database.newest
    through = first + int(daemon.status("BACKLOG"))
    rig.tell("catching up")
    device.speak(rig.size(LIVE, 1_000))
    # It tries again half a minute later at the most; from the first rows on, it catches up.
    eventually(lambda: database.newest > first, "the daemon stores again", 60)
    with rig.start_load("ask", port=daemon.port, clients=CLIENTS, rate=QUESTIONS, seconds=seconds) as load:
        begun, first = time.monotonic(), database.newest
        lasted = database.wait_for(through) - begun
        told = load.result()
    check(told)
    device.speak(0)
    return {"per_second": (through - first) / lasted, "p50": told["p50"], "p99": told["p99"]}


def _measure_catching_up(rig: Rig) -> Mapping[str, float]:
    lines = rig.size(1_000_000, 50_000)
    with rig.database() as database:
        rig.tell(f"{lines:,} readings without an outage")
        sustained = stored_fast(rig, database, lines, 40)["per_second"]
    seconds = max(1.0, lines / sustained)
    with rig.device() as device, rig.database() as database, rig.daemon(device, database.url) as daemon:
        rig.tell("live readings and questions, without a backlog")
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
    "1,000,000 readings after an outage, while 10,000 live readings and 500 questions a second arrive",
    [
        Figure("per_second", "readings of the backlog stored", "/s", {"sustained": "no outage"}),
        Figure("of_sustained", "relative to no outage", "x", reach=">= 0.7"),
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
    Let a server run a tenth of the time.
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
    Watch the daemon's memory for a while, and how many statements it has under way at the most.
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
    # In the first third what may be kept in memory fills up.
    third = len(sizes) // 3
    return (max(sizes[-third:]) - max(sizes[third : 2 * third])) / 2**20


def _measure_slow_store(rig: Rig) -> Mapping[str, float]:
    rate, seconds = rig.size(30_000, 2_000), rig.size(24, 2)
    with rig.device() as device, rig.database() as database, rig.daemon(device, database.url) as daemon:
        before = daemon.rss
        rig.tell(f"{rate:,} readings a second, the database is stopped for {seconds} s")
        with rig.server.frozen():
            device.speak(rate)
            frozen, _ = _sampled(daemon, seconds)
            device.speak(0)
            unsaid = device.counts()["unsaid"]
            waiting = int(daemon.status("BACKLOG"))
        daemon.wait_until("status", "BACKLOG:0", limit=120)
        rig.tell(f"{rate:,} readings a second, the database runs a tenth of the time")
        with _throttled(rig.server_pid):
            device.speak(rate)
            slow, statements = _sampled(daemon, seconds, database)
            device.speak(0)
            slow_waiting = int(daemon.status("BACKLOG"))
        rig.tell("the rest")
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
)
