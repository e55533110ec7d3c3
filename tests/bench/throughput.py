"""
Lines per second, from the tty to the committed row.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping

import psycopg2

from tests.bench.database import GATEWAY, Database
from tests.bench.figures import Figure, Row
from tests.bench.rig import Rig
from tests.support.postgresql import SEARCH_PATH

LINES = 600_000
LINES_OF_SENSORS = 300_000  # for each number of sensors

# Finds errors in the stored rows: numbers, order, values, sensors. Each value is the number of its line.
_WRONG = """
    select count(*) - count(distinct seq), count(*) filter (where value <> n), count(*) filter (where sensor <>
        (n %% %(sensors)s)::text or field <> 'VALUE'), count(*)
    from (
        select seq, value, sensor, field, row_number() over (order by seq) - 1 as n from reading
        where gateway = %(gateway)s
    ) as numbered
"""

# As the original did: one row at a time, over a new connection.
_INSERT = "insert into one_by_one values (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s)"


def stored(rig: Rig, database: Database, lines: int, sensors: int, broker: str | None = None) -> dict[str, float]:
    """
    Let the daemon store readings as fast as it can; return how fast that was, and check each of them.

    Args:
        rig: The rig.
        database: An empty database.
        lines: The number of lines.
        sensors: The number of sensors.
        broker: The endpoint of an MQTT broker; None for none.

    Raises:
        AssertionError: A reading was lost, doubled, changed, or is out of order.
    """
    with rig.device() as device, rig.daemon(device, database.url, broker=broker) as daemon:
        device.flood(lines, sensors)
        database.query("checkpoint")
        cpu, server_cpu = daemon.cpu, database.server_cpu
        begun = time.monotonic()
        device.begin()
        seconds = database.wait_for(lines) - begun
        cpu, server_cpu = daemon.cpu - cpu, database.server_cpu - server_cpu
        taken = device.finish()
        peak = daemon.peak
    all_there(database, lines, sensors)
    return {
        "per_second": lines / seconds,
        "taken_per_second": lines / taken,
        "daemon_cpu": cpu / lines * 1e6,
        "server_cpu": server_cpu / lines * 1e6,
        "peak": peak / 2**20,
    }


def all_there(database: Database, lines: int, sensors: int) -> None:
    """
    Fail unless each line was stored once, in order and unchanged.
    """
    wrong = database.query(_WRONG, {"sensors": sensors, "gateway": GATEWAY})
    if wrong != [(0, 0, 0, lines)]:
        raise AssertionError(f"doubled, out of order, of a wrong sensor, in all: {wrong} of {lines}")


def generated(rig: Rig, lines: int, sensors: int) -> float:
    """
    Return how many lines per second the device sends to a program that only reads.
    """
    with rig.device() as device:
        device.flood(lines, sensors)
        size = sum(len(f"ID:{n % sensors}_VALUE:{n}\n") for n in range(lines))
        with rig.start_load("drain", path=str(device.path), size=size) as reader:
            reader.ready()
            device.begin()
            seconds: float = reader.result()["seconds"]
            device.finish()
    return lines / seconds


def copied(rig: Rig, database: Database, lines: int) -> tuple[float, float]:
    """
    COPY the stored rows, by number, into a table with the same indexes; return rows per second and the server's CPU
    seconds per million.
    """
    path = rig.new_path("rows")
    with path.open("wb") as file:
        database.copy("copy (select * from reading order by seq) to stdout", file)
    database.query("create table copied (like reading including all)")
    database.query("checkpoint")
    cpu = database.server_cpu
    begun = time.monotonic()
    with path.open("rb") as file:
        database.copy("copy copied from stdin", file)
    seconds = time.monotonic() - begun
    cpu = database.server_cpu - cpu
    path.unlink()
    if database.query("select count(*) from copied") != [(lines,)]:
        raise AssertionError("COPY did not store all")
    database.query("drop table copied")
    return lines / seconds, cpu / lines * 1e6


def one_by_one(database: Database, rows: int) -> float:
    """
    Store readings as the original did, each over a new connection; return rows per second.
    """
    database.query("create table one_by_one (like reading including all)")
    readings = database.query("select * from reading limit %s", (rows,))
    begun = time.monotonic()
    for reading in readings:
        connection = psycopg2.connect(database.url, options=SEARCH_PATH)
        with connection, connection.cursor() as cursor:
            cursor.execute(_INSERT, reading)
        connection.close()
    return len(readings) / (time.monotonic() - begun)


def synced(rig: Rig, seconds: float = 1.0) -> float:
    """
    Return how many times a second the disk keeps 8 KiB, a page of the write-ahead log: the limit of whoever waits for
    each.
    """
    count = 0
    path = rig.new_path("synced")
    with path.open("wb", buffering=0) as file:
        begun = time.monotonic()
        while (lasted := time.monotonic() - begun) < seconds:
            file.write(bytes(8192))
            os.fdatasync(file.fileno())
            count += 1
    path.unlink()
    return count / lasted


def _measure(rig: Rig) -> Mapping[str, float]:
    lines = rig.size(LINES, 5_000)
    with rig.database() as database:
        rig.progress(f"{lines:,} readings from the tty into PostgreSQL")
        found = stored(rig, database, lines, 40)
        rig.progress("COPY of the same")
        copy, copy_cpu = copied(rig, database, lines)
        rig.progress("the original's design")
        original = one_by_one(database, rig.size(200, 20))
    rig.progress("the device alone")
    return {
        **found,
        "generator": generated(rig, lines, 40),
        "copy": copy,
        "copy_cpu": copy_cpu,
        "original": original,
        "of_copy": found["per_second"] / copy,
        "of_original": found["per_second"] / original,
        "synced": synced(rig),
    }


THROUGHPUT = Row(
    "throughput",
    f"{LINES:,} readings of 40 sensors, from the tty to the committed row; complete and in order",
    [
        Figure(
            "per_second",
            "readings stored",
            "/s",
            {
                "copy": "`COPY`",
                "original": "one connection per reading",
                "synced": "the disk, each synced",
                "generator": "device, plain reader",
            },
        ),
        Figure("of_copy", "relative to `COPY` into a table with the same indexes", "x", reach=">= 0.75"),
        Figure("of_original", "relative to one connection, insert and commit per reading", "x", reach=">= 300"),
        Figure("daemon_cpu", "CPU time of the daemon per million readings", "s"),
        Figure("server_cpu", "CPU time of the server per million readings", "s", {"copy_cpu": "`COPY`"}),
        Figure("peak", "peak memory of the daemon", "MiB"),
    ],
    _measure,
)

SENSORS = (1, 40, 1_000, 10_000)


def _of(sensors: int) -> str:
    return "1 sensor" if sensors == 1 else f"{sensors:,} sensors"


def _measure_sensors(rig: Rig) -> Mapping[str, float]:
    found: dict[str, float] = {}
    for sensors in SENSORS:
        rig.progress(f"readings of {_of(sensors)}")
        with rig.database() as database:
            lines = rig.size(LINES_OF_SENSORS, 5_000)
            results = stored(rig, database, lines, sensors)
            results["copy"], results["copy_cpu"] = copied(rig, database, lines)
        results["of_copy"] = results["per_second"] / results["copy"]
        found |= {f"{key}_{sensors}": value for key, value in results.items()}
    found["daemon_times"] = found["daemon_cpu_10000"] / found["daemon_cpu_40"]
    return found


MANY_SENSORS = Row(
    "sensors",
    f"{LINES_OF_SENSORS:,} readings of few and many sensors, from the tty to the committed row",
    [
        *(Figure(f"per_second_{n}", f"readings stored, {_of(n)}", "/s", {f"copy_{n}": "`COPY`"}) for n in SENSORS),
        Figure("of_copy_1000", "relative to `COPY`, 1,000 sensors", "x", reach=">= 0.75"),
        *(
            Figure(
                f"server_cpu_{n}",
                f"CPU time of the server per million readings, {_of(n)}",
                "s",
                {f"daemon_cpu_{n}": "daemon", f"copy_cpu_{n}": "`COPY`"},
            )
            for n in SENSORS
        ),
        Figure("daemon_times", "CPU time of the daemon, 10,000 sensors relative to 40", "x", reach="<= 1.5"),
    ],
    _measure_sensors,
)
