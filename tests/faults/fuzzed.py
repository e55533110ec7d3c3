"""
A fuzzer that is guided by the branches its inputs reach (atheris, libFuzzer).

    python -m tests.faults.fuzzed TARGET FOLDER [-runs=N] [-max_total_time=SECONDS] [-seed=N] [INPUT]

TARGET is one of `TARGETS`. FOLDER holds the first inputs and those that were found. An input whose check fails is left
in `FOLDER-failed` and named in the last lines. With an INPUT, only that is run, once.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["usbgate"]):
    from tests.support.fuzzed_client import SMALL_LIMITS, check_client, steps_of
    from tests.support.reference import check_cuts, check_line, check_telnet

LONGEST = 4096  # bytes of an input: some lines that are too long

# Lines of protocol §1 to §3, and near misses.
LINES = [
    b"MSG:J_ID:20_ORIGIN:TOTO",
    b"ID:7_TEMP:21.5_HUM:48_BAT:OK",
    b"ID:9_MSG:ON_OK:1",
    b"ID:20_TAG:3f_ORIGIN:x_VALUE:1e400_",
    b"MSG:L_ID:9_LEVEL:50_TIMEOUT:3_MAXAGE:30_DEV:leonardo_TAG:17",
    b"NOTE:12_30:45",
    b"HU%:48",
    b"# log text",
    "ID:20_VALUE:21,5 °C_NOTE:my_site".encode(),
]

# What a client sends, then the events, then how many bytes those are (see `steps_of`).
CLIENTS = [
    b"MSG:J_ID:20_ORIGIN:TOTO" + b"\x20\xc9\xc9\xc2\x04",
    b"MSG:J_ID:20_ORIGIN:TOTO_TAG:17\nping\nask 20 J tag=t\nwatch 20\n" + b"\x10\x60\xc6\xc2\xc4\x05",
    b"help\r\nlast\r\nstatus\r\nhistory 20 since=1h limit=3\r\nlend leonardo\r\nquit\r\n" + b"\x03\x60\xc5\xc7\xc5\x05",
    b"\xff\xfb\x01\xff\xfd\x03MSG:ON_ID:2\xff\xf1\nsensors\ndevices\nmalformed\nunwatch\nask 9 ON x=1_:2\n"
    + b"\x03\x60\xca\x03",
    b"POST / HTTP/1.1\r\n\r\nMSG:ON_ID:9\n" + b"\x00",
    b"\xef\xbb\xbfping\n" + b"x" * 1030 + b"\nping\n" + b"MSG:J_ID:20\n" * 6 + b"\x00",
]


def chunks_of(data: bytes) -> list[bytes]:
    """
    Cut data into chunks, after each byte that equals the first one.
    """
    cut = data[:1]
    return [part + cut for part in data[1:].split(cut)] if cut else []


def check_streams(data: bytes) -> None:
    """
    Check a stream of bytes that is cut into chunks.
    """
    chunks = chunks_of(data)
    for limit in (1, 3, 20, 1024):
        check_cuts(chunks, limit)
    check_telnet(chunks)


TARGETS: dict[str, tuple[Callable[[bytes], None], list[bytes]]] = {
    "streams": (check_streams, [b":" + b"\r\n".join(LINES), b"\n\xff\xfb\x01a\xff\xf4b\n", b"x" * 1500 + b"\ny"]),
    "lines": (check_line, LINES),
    "clients": (lambda data: check_client(steps_of(data)), CLIENTS),
}


def main() -> None:
    """
    Fuzz until a check fails or the time is up.
    """
    target, folder, *options = sys.argv[1:]
    check, inputs = TARGETS[target]
    corpus, failed = Path(folder), Path(f"{folder}-failed")
    for place in (corpus, failed):
        place.mkdir(parents=True, exist_ok=True)
    for n, data in enumerate(inputs):
        (corpus / f"example{n}").write_bytes(data)
    for module, name, limit in SMALL_LIMITS:
        setattr(import_module(module), name, limit)
    own = [sys.argv[0], f"-max_len={LONGEST}", "-timeout=30", f"-artifact_prefix={failed}/"]
    alone = any(not option.startswith("-") for option in options)
    atheris.Setup([*own, *options, *([] if alone else [str(corpus)])], check)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
