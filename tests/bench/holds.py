"""
What holds the reactor, and for how long.
"""

from __future__ import annotations

import time
from collections.abc import Mapping

from tests.bench.asking import quantile
from tests.bench.figures import Figure, Row
from tests.bench.rig import Rig
from tests.bench.roundtrip import FLOW, askers, program_of
from tests.bench.traced import read

# What is shown by itself; not ours are `gc` and `psycopg2`, with the libpq in it.
SHOWN = {
    "SerialTransport": "a read of the device, with encoding rows",
    "Server": "a read of a client",
    "flush": "handing 50 ms of rows to the journal",
    "merge": "merging batches of the journal",
    "insert": "making an insert",
    "others": "anything else",
}
NOT_OURS = {"psycopg2": "psycopg2, each call", "gc": "Python's garbage collector"}


def _measure(rig: Rig) -> Mapping[str, float]:
    seconds = 0.5 if rig.quick else 8.0
    path = rig.new_path("trace")
    with rig.device() as device, rig.database() as database:
        with rig.daemon(device, database.url, trace=path) as daemon, askers(rig, program_of(daemon), 50) as those:
            device.speak(rig.size(FLOW, 2_000))
            time.sleep(rig.size(2, 0))  # until it runs evenly
            rig.progress("1,000 questions beside 20,000 readings a second, traced")
            begun = time.monotonic()
            results = those.ask(seconds, rig.size(1_000, 200))
            ended = time.monotonic()
            device.speak(0)
    holds = {name: [hold for hold in of if begun < hold.ended < ended] for name, of in read(path).items()}
    own = {name: [hold.own for hold in holds.get(name, [])] for name in {*holds, *SHOWN, *NOT_OURS}}
    own["others"] = [hold for name, of in own.items() if name not in {*SHOWN, *NOT_OURS} for hold in of]
    own["ours"] = [hold for name in SHOWN for hold in own[name]]
    own["whole"] = [hold.whole for of in holds.values() for hold in of if hold.whole]
    found = {"answers_p50": results["p50"], "answers_p99": results["p99"]}
    for name, of in own.items():
        found |= {
            f"{name}_most": max(of, default=0.0) * 1000,
            f"{name}_p99": quantile(of, 0.99) * 1000 if of else 0.0,
            f"{name}_share": sum(of) / (ended - begun) * 100,  # percent of one core
        }
    return found


HOLDS = Row(
    "holds",
    "what holds the reactor at 20,000 unsolicited readings beside 1,000 questions a second: CPU time of one call",
    [
        Figure("ours_most", "the longest of usbgate's own", "ms", {"ours_p99": "99th percentile"}, "<= 1"),
        *(
            Figure(f"{name}_most", f"the longest: {what}", "ms", {f"{name}_p99": "99th percentile"})
            for name, what in (SHOWN | NOT_OURS).items()
        ),
        Figure("whole_most", "the longest call of the reactor, by the clock", "ms", {"whole_p99": "99th percentile"}),
        Figure("answers_p99", "answers: 99th percentile", "ms", {"answers_p50": "median"}, "<= 5"),
    ],
    _measure,
)
