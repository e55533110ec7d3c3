"""
Why targets are missed, for the page: by row and figure, in Markdown. Shown only for those that were missed.
"""

from __future__ import annotations

_COPY = """
    `COPY` has a core for itself, and its data in a file. A reading of usbgate comes from a pseudo-terminal and costs
    the daemon about as much CPU time as the server, and the device and the kernel a tenth of that: if all of it shares
    two cores, little more than 0.7 is possible.
"""

REASONS = {
    ("throughput", "of_copy"): _COPY,
    ("sensors", "of_copy_1000"): _COPY,
    ("sensors", "daemon_times"): """
        What usbgate knows of 10,000 sensors does not fit into the processor's caches. The more other programs use of
        them, the more a reading costs.
    """,
    ("roundtrip", "p50_of_ser2net_1"): """
        ser2net copies bytes, in C, and echoes nothing. The least gateway, in Python, takes 1.5 times as long, and what
        usbgate does besides takes as much again ([Costs](#costs)): with one client, each of the two reactor turns
        begins with cold caches.
    """,
    ("roundtrip", "cpu_of_least_200"): """
        A question is parsed, checked, queued, matched, recorded and journalled, of which the least gateway does
        nothing. No function takes 5 % of the time; a quarter of it is the kernel's, for an echo and an answer.
    """,
    ("flow", "times"): """
        The readings of 2 ms arrive together, and an answer may wait for 40 of them; or for PostgreSQL, which has one of
        the two cores for 2 to 3 ms while it stores 500.
    """,
    ("hostile", "beside_p99"): """
        A question and its answer take two reactor turns. Each of them reads all that flood, serves a line of each, and
        then others for 1 ms; the hostile clients need half of the two cores, too.
    """,
    ("idle", "rss"): """
        Python, Twisted, and what HTTP and psycopg2 need are 46 MiB of it ([Costs](#costs)).
    """,
    ("holds", "ours_most"): """
        The longest is a read of the device that brings many answers at once, each of which is matched, delivered and
        recorded in the same call.
    """,
    ("holds", "answers_p99"): """
        No call of the reactor takes that long. An answer waits for the two cores, which the device, the clients and the
        database need, too: PostgreSQL has one of them for 2 to 3 ms while it stores 500 readings.
    """,
}
