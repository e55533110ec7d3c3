"""
What devices send to hold the daemon: frames and chunks by which a careless pattern takes time out of proportion.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from time import process_time

from tests.bench.figures import Figure, Row
from tests.bench.rig import Rig
from usbgate.core.errors import Malformed
from usbgate.device.finddialect import make_dialect

REPEATED = 20

_COLUMNS = {"columns": ["a", "b"], "separator": "semicolon", "decimal": ","}

# The dialect, its options, and a frame.
FRAMES: list[tuple[str, Mapping[str, object], bytes]] = [
    ("keyvalue", {}, b"a" * 1024),
    ("keyvalue", {}, b" a" * 512),
    ("json", {}, b'{"' + b'\\"' * 2040),
    ("csv", _COLUMNS, b"1;1,2 " + b"1" * 1000),
    ("csv", {"sensor": "x"}, b"a," + b"1" * 1000 + b"x"),
    ("p1", {}, b"/ABC5\r\n!" + b" " * 4000 + b"x\r"),
    ("rflink", {}, b"20;00;" + b"RFLink Gateway" * 70),
    ("mysensors", {}, b"1;1;1;0;0;" + b"1;1;1;0;" * 120),
    ("jeelink", {}, b"OK " + b"1 " * 500 + b"("),
    ("fields", {}, b"ID:20_" + b"A_B_" * 200 + b":1"),
]

CHUNKS = [(name, bytes([byte]) * 3072) for name in ("fields", "nmea", "p1", "teleinfo") for byte in b"!/$\x02\r\x00a"]


def _longest(calls: list[Callable[[], object]]) -> float:
    # CPU time in ms of the dearest call.
    longest = 0.0
    for call in calls:
        begun = process_time()
        for _ in range(REPEATED):
            with suppress(Malformed):
                call()
        longest = max(longest, (process_time() - begun) / REPEATED)
    return longest * 1000


def _decoding(name: str, options: Mapping[str, object], frame: bytes) -> Callable[[], object]:
    dialect = make_dialect(name, options)
    return lambda: dialect.decode(frame)


def _feeding(name: str, chunk: bytes) -> Callable[[], object]:
    return lambda: make_dialect(name, {}).framing().feed(chunk)


def _measure(rig: Rig) -> Mapping[str, float]:
    return {
        "frame": _longest([_decoding(*each) for each in FRAMES]),
        "chunk": _longest([_feeding(*each) for each in CHUNKS]),
    }


SPOILED = Row(
    "spoiled",
    "frames and chunks that no device should send, in all dialects but modbus: CPU time of the dearest",
    [
        Figure("frame", "to decode a frame", "ms", reach="<= 1"),
        Figure("chunk", "to cut a read of 3 KiB", "ms", reach="<= 5"),
    ],
    _measure,
)
