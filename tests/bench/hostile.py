"""
How long a quiet client waits beside neighbours that want too much.
"""

from __future__ import annotations

from collections.abc import Mapping

from tests.bench.figures import Figure, Row
from tests.bench.rig import Rig
from tests.bench.roundtrip import askers, program_of

RATE = 50  # questions a second of the quiet client
KEPT = ("p50", "p99", "most", "share")


def _measure(rig: Rig) -> Mapping[str, float]:
    each, seconds = rig.size(100, 4), 0.3 if rig.quick else 5.0
    with (
        rig.device() as device,
        rig.database() as database,
        rig.daemon(device, database.url) as daemon,
        askers(rig, program_of(daemon), 1) as client,
    ):
        rig.progress("one quiet client, alone")
        results = {"alone": client.ask(seconds, RATE)}
        rig.progress(f"one quiet client beside {3 * each} others")
        with rig.start_load("besiege", port=daemon.port, flooding=each, dripping=each, deaf=each) as load:
            load.ready()
            results["beside"] = client.ask(seconds, RATE)
            siege = load.result()
        peak = daemon.peak
    found = {f"{name}_{key}": of[key] for name, of in results.items() for key in KEPT}
    return {**found, "closed": siege["closed"] / siege["lasted"], "peak": peak / 2**20}


HOSTILE = Row(
    "hostile",
    f"one quiet client, {RATE} questions a second, beside 100 that flood, 100 that drip and 100 that never read",
    [
        Figure("beside_p50", "median latency", "ms", {"alone_p50": "alone"}),
        Figure("beside_p99", "99th percentile", "ms", {"alone_p99": "alone"}, "<= 20"),
        Figure("beside_most", "maximum latency", "ms", {"alone_most": "alone"}),
        Figure("beside_share", "CPU usage of the daemon, of one core", "%", {"alone_share": "alone"}),
        Figure("closed", "connections that were closed for a line without an end", "/s"),
        Figure("peak", "peak memory of the daemon", "MiB"),
    ],
    _measure,
)
