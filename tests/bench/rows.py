"""
All rows of the benchmark, in the order in which they are measured.
"""

from __future__ import annotations

from tests.bench.backlog import CATCHING_UP, SLOW_STORE
from tests.bench.browsing import BROWSING
from tests.bench.holds import HOLDS
from tests.bench.hostile import HOSTILE
from tests.bench.idle import IDLE, START
from tests.bench.mqtt import MQTT
from tests.bench.queries import QUERIES
from tests.bench.roundtrip import COALESCING, ROUND_TRIP, UNDER_FLOW
from tests.bench.spoiled import SPOILED
from tests.bench.throughput import MANY_SENSORS, THROUGHPUT
from tests.bench.watching import IDLE_CONNECTIONS, WATCHERS
from tests.bench.web import HTTP

_ALL = (
    THROUGHPUT,
    MANY_SENSORS,
    ROUND_TRIP,
    UNDER_FLOW,
    HOLDS,
    HOSTILE,
    SPOILED,
    COALESCING,
    MQTT,
    HTTP,
    WATCHERS,
    IDLE_CONNECTIONS,
    IDLE,
    START,
    QUERIES,
    BROWSING,
    CATCHING_UP,
    SLOW_STORE,
)

ROWS = {row.name: row for row in _ALL}
