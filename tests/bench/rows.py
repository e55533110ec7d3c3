"""
All rows of the bench, in the order in which they are measured.
"""

from __future__ import annotations

from tests.bench.roundtrip import COALESCING, ROUND_TRIP, UNDER_FLOW
from tests.bench.throughput import MANY_SENSORS, THROUGHPUT

ROWS = {row.name: row for row in (THROUGHPUT, MANY_SENSORS, ROUND_TRIP, UNDER_FLOW, COALESCING)}
