"""
All dialects, with what no device should send (protocol §2).
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from pathlib import Path
from random import Random

from twisted.trial.unittest import SynchronousTestCase

from usbgate.core.errors import Malformed
from usbgate.core.fieldline import checksum, is_key, is_sensor_id, reads_back
from usbgate.core.model import Report
from usbgate.device.dialects.modbus import with_crc
from usbgate.device.finddialect import make_dialect
from usbgate.device.interfaces import IDialect
from usbgate.device.transcript import parts_of
from usbgate.testing import request

FOLDER = Path(__file__).parent / "dialects"

ROUNDS = 12  # of each recording, from the same seed each time
PART = 1500  # bytes of a recording in each round
CHUNK = 200  # bytes, the most that is fed at once

PIECES = [b'"', b"\\", b"!", b"/", b" ", b"\t", b"=", b":", b"a", b"1", b",", b"$", b"\xdb\x08", b"\x02", b"\r", b"\n"]
PIECES += [b"\x00", b"\xff", b"ID:", b"_MSG:ON_TAG:1", b"[", b"\\ud800", b"nan", b";", b"OK ", b"1e999", b"\xc2\x85"]

# After what a frame was damaged, its checksum may be right.
SEALS: dict[str, Callable[[bytes], bytes]] = {
    "fields": lambda frame: frame[:-3] + checksum(frame[:-3]),
    "modbus": lambda frame: with_crc(frame[:-2]),
    "nmea": lambda frame: frame[:1] + frame[1:-3] + checksum(frame[1:-3]),
}

REQUESTS = [request(), request("9", "L", LEVEL="50"), request("14.1", "ON"), request("boiler"), request("²", "ON")]


def mutate(data: bytes, random: Random) -> bytes:
    """
    Return some bytes with a few of them changed, lost or repeated.
    """
    for _ in range(random.randint(1, 6)):
        place = random.randrange(len(data) + 1)
        begin, end = data[:place], data[place:]
        piece = random.choice(PIECES) * random.choice([1, 1, 3, 100])
        other = random.randrange(len(data) + 1)
        data = random.choice(
            [
                begin + bytes([random.randrange(256)]) + end[1:],
                begin + end[random.choice([1, 5, 40]) :],
                begin + piece + end,
                begin + data[other : other + 50] + end,
            ]
        )
    return data


class MutationTests(SynchronousTestCase):
    """
    Damaged recordings.
    """

    def check(self, dialect: IDialect, frame: bytes) -> None:
        """
        Decode a frame, and check that what it becomes can be published and stored.
        """
        try:
            decoded = dialect.decode(frame)
        except Malformed:
            return
        for part in parts_of(decoded):
            if isinstance(part, Report):
                self.assertTrue(is_sensor_id(part.sensor), frame)
                self.assertTrue(part.command is None or reads_back(part.command), frame)
                for key, value in part.values:
                    self.assertTrue(is_key(key) and reads_back(value), frame)

    def test_damage(self) -> None:
        """
        Whatever comes, a frame becomes something that lines can have, or is malformed; no framing keeps more than a
        frame, and requests in between are written or refused.
        """
        random = Random(15)
        for file in sorted(FOLDER.glob("*.txt")):
            name = file.name.partition(".")[0]
            options = tomllib.loads(
                "\n".join(line[2:] for line in file.read_text().splitlines() if line.startswith("#:"))
            )
            options.pop("checksums", None)
            recording = file.with_suffix(".raw").read_bytes()
            for _ in range(ROUNDS):
                dialect = make_dialect(name, options)
                dialect.opened()
                framing = dialect.framing()
                begin = random.randrange(max(1, len(recording) - PART))
                data = mutate(recording[begin : begin + PART], random)
                while data:
                    size = random.randint(1, CHUNK)
                    frames, data = framing.feed(data[:size]), data[size:]
                    self.assertLessEqual(len(framing.rest), framing.limit + 1)
                    for frame in frames:
                        if 0 < len(frame) <= framing.limit:
                            asked = random.choice(REQUESTS)
                            try:
                                dialect.encode(asked, None)
                            except Malformed:
                                pass
                            else:
                                dialect.sent(asked)
                            self.check(dialect, frame)
                            if seal := SEALS.get(name):
                                self.check(dialect, seal(mutate(frame, random)))
