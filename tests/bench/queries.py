"""
Queries: the newest reading of each sensor, and a day of one sensor, among many readings.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import closing
from statistics import median
from typing import Any

from tests.bench.database import GATEWAY, Database
from tests.bench.figures import Figure, Row
from tests.bench.rig import Rig
from tests.support.running import LineClient
from tests.support.waiting import eventually
from usbgate.core.model import Selection
from usbgate.store.postgres import queries, restorequeries

SENSORS = 1_000
INTERVAL = 30.0  # seconds between two readings of a sensor: 2,880 a day
CHUNK = 1_000_000  # rows in a statement
TIMES = 5  # measurements of each query and word in a round

_FILL = """
    insert into reading (at, gateway, seq, device, sensor, field, value, clock)
    select now() - (%(total)s - n) * %(interval)s * interval '1 s', %(gateway)s, n, 'bench', (n %% %(sensors)s)::text,
        'VALUE', round((20 + 5 * sin(n / 1e5) + random())::numeric, 2), true
    from generate_series(%(first)s, %(last)s) as n
"""

# As if a daemon had stored them.
_ADVANCE = "update gateway set n = %(total)s - base where name = %(gateway)s"

_INDEXES = "select indexname, indexdef from pg_indexes where tablename = 'reading' and indexname like 'reading_by_%'"


def filled(rig: Rig) -> str:
    """
    Create a database with many readings; return its URL.

    The indexes are created again afterwards: updating them with each row takes ten times as long.
    """
    total = rig.size(10_000_000, 20_000)
    url = rig.server.create_database()
    with rig.device() as device, rig.daemon(device, url):  # makes the tables
        pass
    with closing(rig.opened(url)) as database:
        indexes = database.query(_INDEXES)
        for name, _ in indexes:
            database.query(f"drop index {name}")
        for first in range(1, total + 1, CHUNK):
            rig.progress(f"a database with {total:,} readings: {first - 1:,}")
            last = min(first + CHUNK - 1, total)
            parameters = {"first": first, "last": last, "total": total, "interval": INTERVAL / SENSORS}
            database.query(_FILL, {**parameters, "sensors": SENSORS, "gateway": GATEWAY})
        database.query(_ADVANCE, {"total": total, "gateway": GATEWAY})
        for name, definition in indexes:
            rig.progress(f"the index {name}")
            database.query(definition)
        rig.progress("vacuum, as the server does by itself in time")
        database.query("vacuum analyze reading")
        database.query("checkpoint")
    return url


def _explained(database: Database, question: queries.Query[Any]) -> float:
    """
    Return the milliseconds for planning and running a query, as the server counts them.
    """
    times = []
    for _ in range(TIMES):
        (([plan],),) = database.query("explain (analyze, format json) " + question.sql, question.parameters)
        times.append(float(plan["Planning Time"]) + float(plan["Execution Time"]))
    return median(times)


def _said(client: LineClient, word: str, lines: int) -> float:
    """
    Return the milliseconds until the reply to a word is complete.
    """
    times = []
    for _ in range(TIMES):
        begun = time.monotonic()
        reply = client.word(word)
        times.append((time.monotonic() - begun) * 1000)
        if reply[-1] != f"OK:{word.split()[0]}" or len(reply) <= lines:
            raise AssertionError(f"the reply to {word} has {len(reply)} lines, the last: {reply[-1]}")
    return median(times)


def _measure(rig: Rig) -> Mapping[str, float]:
    url = rig.once(filled)
    since = int((time.time() - 86400) * 1000)
    with closing(rig.opened(url)) as database:
        rig.progress("explain analyze")
        database.query(queries.SETTINGS)
        found = {
            "latest": _explained(database, restorequeries.latest(GATEWAY, 10_000)),
            "history": _explained(database, queries.history(GATEWAY, Selection("20", None, since), 10_000)),
            "history_of_field": _explained(database, queries.history(GATEWAY, Selection("20", "VALUE", since), 10_000)),
        }
    with rig.device() as device, rig.daemon(device, url) as daemon, closing(LineClient(daemon.port)) as client:
        rig.progress("last and history")
        eventually(lambda: len(client.word("last")) > SENSORS, "the newest readings are read back")
        day = rig.size(2_000, 19)  # 2,880, and fewer the longer ago they were made
        found["last_word"] = _said(client, "last", SENSORS)
        found["last_one"] = _said(client, "last 20", 1)
        found["history_word"] = _said(client, "history 20 VALUE since=1d limit=10000", day)
        found["history_100"] = _said(client, "history 20", rig.size(100, 20))
    return found


QUERIES = Row(
    "queries",
    "10,000,000 stored readings of 1,000 sensors",
    [
        Figure("latest", "the newest of all sensors, in the database", "ms", {"last_word": "the word `last`"}, "<= 20"),
        Figure(
            "history_of_field",
            "a day of one field, in the database",
            "ms",
            {"history_word": "the word `history`"},
            "<= 50",
        ),
        Figure("history", "a day of all fields of a sensor, in the database", "ms", reach="<= 50"),
        Figure("history_100", "the word `history` for the newest 100", "ms"),
        Figure("last_one", "the word `last` for one sensor", "ms"),
    ],
    _measure,
)
