"""
Which dialect a device speaks.
"""

from __future__ import annotations

from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from usbgate.device.framing import SEVEN_BITS
from usbgate.device.guess import CERTAIN, POSSIBLE, find_line, guess_dialects, text_share, without_parity

RECORDINGS = Path(__file__).parent / "dialects"

# Recordings without odd things in them, so that the guess is certain.
CLEAN = {
    "fields.checksum": "fields",
    "json.rtl433": "json",
    "nmea.receiver": "nmea",
    "p1.dsmr2": "p1",
    "p1.dsmr5": "p1",
    "rflink.samples": "rflink",
    "teleinfo.historique": "teleinfo",
    "teleinfo.standard": "teleinfo",
}


def recording(name: str) -> bytes:
    """
    Return one of the recordings of the dialects.
    """
    return (RECORDINGS / f"{name}.raw").read_bytes()


def with_parity(data: bytes, odd: bool) -> bytes:
    """
    Return what a device of 7 bits sends, as a port reads it that expects 8.
    """
    return bytes(byte | 0x80 if byte.bit_count() % 2 != odd else byte for byte in data.translate(SEVEN_BITS))


class GuessTests(SynchronousTestCase):
    """
    From the bytes alone.
    """

    def test_recordings(self) -> None:
        """
        Of each recording the right dialect is the best, and certain.
        """
        for name, dialect in CLEAN.items():
            data = recording(name)
            best = guess_dialects(data)[0]
            self.assertEqual((best.dialect, best.is_certain(len(data))), (dialect, True), name)

    def test_fields_left_out(self) -> None:
        """
        A reading of which fields are left out counts half, so that a dialect which reads pairs anywhere is not taken.
        """
        shares = {guess.dialect: guess.share for guess in guess_dialects(recording("rflink.samples"))}
        self.assertLess(shares["keyvalue"], POSSIBLE)
        self.assertGreater(shares["rflink"], CERTAIN)

    def test_damaged(self) -> None:
        """
        It is the best all the same if much is damaged.
        """
        for name in ("teleinfo.damaged", "jeelink.lacrosse", "nmea.damaged", "json.odd", "p1.damaged"):
            self.assertEqual(guess_dialects(recording(name))[0].dialect, name.partition(".")[0])

    def test_variants(self) -> None:
        """
        The separator and the decimals of columns are found, too; a few readings are not certain.
        """
        data = b"id;temp\n" + b"20;21,5\n21;3,5\n" * 2
        (best, *_) = guess_dialects(data)
        self.assertEqual((best.dialect, best.options), ("csv", {"separator": "semicolon", "decimal": ","}))
        self.assertEqual(best.shown[0], "ID:20_TEMP:21.5")
        self.assertTrue(best.is_certain(len(data)))
        self.assertFalse(guess_dialects(data[: len(data) // 2])[0].is_certain(20))

    def test_none(self) -> None:
        """
        Nothing is nothing, and a text without values is no reading.
        """
        self.assertEqual(guess_dialects(b""), [])
        self.assertEqual(guess_dialects(b"hello world\n" * 10), [])
        self.assertEqual(guess_dialects(b"no 5\n" * 10), [])
        self.assertEqual(guess_dialects(b"ID:20_T:1\n" * 3, ["modbus", "none"]), [])

    def test_parity(self) -> None:
        """
        Parity shows in the 8th bits; accents, damage and few bytes are none.
        """
        data = recording("teleinfo.historique")
        for line, sent in (("7E1", with_parity(data, False)), ("7O1", with_parity(data, True))):
            self.assertEqual(find_line(sent), line)
            self.assertEqual(find_line(b"\xff\x01" + sent), line)
            self.assertEqual(find_line(sent[:10]), "8N1")
            self.assertEqual(without_parity(sent), data.translate(SEVEN_BITS))
            self.assertGreater(text_share(sent), 0.95)
        for other in (data, "température=21°".encode() * 20, bytes(range(256))):
            self.assertEqual(find_line(other), "8N1")
            self.assertEqual(without_parity(other), other)
        self.assertLess(text_share(bytes(range(256))), 0.5)
