"""
How long a quiet client waits beside neighbours that want too much.
"""

from __future__ import annotations

from collections import defaultdict

from tests.bench.figures import Figure, Measured, Row
from tests.bench.rig import Rig
from tests.bench.roundtrip import asked

RATE = 50  # questions a second of the quiet client
SLICES = 3
KEPT = ("p50", "p99", "most", "daemon_share")


def _measure(rig: Rig) -> Measured:
    each, seconds = rig.size(100, 4), 0.3 if rig.quick else 6.0
    found: defaultdict[str, list[float]] = defaultdict(list)
    with rig.device() as device, rig.database() as database, rig.daemon(device, database.url) as daemon:
        for _ in range(rig.size(SLICES, 1)):
            rig.progress("one quiet client, alone")
            results = {"alone": asked(rig, daemon, 1, seconds, rate=RATE)}
            rig.progress(f"one quiet client beside {3 * each} others")
            with rig.start_load("besiege", port=daemon.port, flooding=each, dripping=each, deaf=each) as load:
                load.ready()
                results["beside"] = asked(rig, daemon, 1, seconds, rate=RATE)
                siege = load.result()
            for name, of in results.items():
                for key in KEPT:
                    found[f"{name}_{key}"].append(of[key])
            found["closed"].append(siege["closed"] / siege["lasted"])
        found["peak"].append(daemon.peak / 2**20)
    return found


HOSTILE = Row(
    "hostile",
    f"one quiet client, {RATE} questions a second, beside 100 that flood, 100 that drip and 100 that never read",
    [
        Figure("beside_p50", "median latency", "ms", {"alone_p50": "alone"}),
        Figure("beside_p99", "99th percentile", "ms", {"alone_p99": "alone"}, "<= 20"),
        Figure("beside_most", "maximum latency", "ms", {"alone_most": "alone"}),
        Figure("beside_daemon_share", "CPU usage of the daemon, of one core", "%", {"alone_daemon_share": "alone"}),
        Figure("closed", "connections that were closed for a line without an end", "/s"),
        Figure("peak", "peak memory of the daemon", "MiB"),
    ],
    _measure,
)
