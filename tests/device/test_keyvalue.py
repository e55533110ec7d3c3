"""
The dialect of names and values; what whole recordings become is in `dialects/keyvalue.*`.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from usbgate.core.errors import Malformed
from usbgate.core.model import Report
from usbgate.device.dialects.keyvalue import Dialect
from usbgate.testing import check_dialect, request


def decoded(dialect: Dialect, line: bytes) -> object:
    """
    Return what a line becomes; None if it is malformed.
    """
    try:
        return dialect.decode(line)
    except Malformed:
        return None


class DialectTests(SynchronousTestCase):
    """
    Lines in.
    """

    def test_sensor(self) -> None:
        """
        The sensor is the value with the name `id`, or else that of the option `sensor`, or else the device.
        """
        board = Dialect()
        board.device = "board"
        for dialect, sensor in [(Dialect({"sensor": "20"}), "20"), (board, "board")]:
            check_dialect(
                dialect,
                [
                    (b"T=1", Report(sensor, None, None, (("T", "1"),))),
                    (b"T=1,ID=7", Report("7", None, None, (("T", "1"),))),
                ],
                [b"ID=7", b"id=,T=1", b"T=1,T=2", b"T=\xff", b"id=7,T=1,ID=8", b"id=2id=20,T=1"],
            )

    def test_torn(self) -> None:
        """
        Wherever a line is torn and continued by another one, no sensor gets what the other one has measured.
        """
        for lines in [
            (b"id=31,temp=21.5", b"id=2,smoke=1"),
            (b"id:2 smoke:1", b"id:31 temp:21.5"),
            (b"id = 31 | temp = 21.5", b"id = 2 | smoke = 1"),
        ]:
            for place in range(1, len(lines[0])):
                dialect = Dialect()
                wholes = [None, *(decoded(dialect, line) for line in lines)]
                self.assertIn(decoded(dialect, lines[0][:place] + lines[1]), wholes, place)

    def test_names_like_id(self) -> None:
        """
        A name that ends like the id's counts from the second line on, and at once where no line has an id.
        """
        dialect = Dialect({"sensor": "20"})
        self.assertEqual(dialect.decode(b"humid=48"), Report("20", None, None, (("HUMID", "48"),)))
        self.assertRaises(Malformed, dialect.decode, b"id=7,humid=48")
        self.assertEqual(dialect.decode(b"id=7,humid=48"), Report("7", None, None, (("HUMID", "48"),)))

    def test_options(self) -> None:
        """
        A wrong option is refused by its name.
        """
        for options, error in [
            ({"sensor": "a_b"}, "^sensor: expected a sensor id"),
            ({"id": ""}, "^id: expected a text"),
            ({"ids": "x"}, "^ids: unknown key, expected sensor or id"),
        ]:
            self.assertRaisesRegex(ValueError, error, Dialect, options)

    def test_same_names(self) -> None:
        """
        Two names of one sensor that become the same are refused, and named once.
        """
        dialect = Dialect({"sensor": "20"})
        dialect.decode(b"temp_in=1")
        for _ in range(2):
            self.assertRaises(Malformed, dialect.decode, b"temp-in=1")
        self.assertEqual(dialect.notices, ["sensor 20 has temp_in and temp-in, which are the same name: refused"])
        dialect.decode(b"temp-in=1,id=21")

    def test_asked(self) -> None:
        """
        Nothing is written to a board that only sends; it can't be told anything.
        """
        self.assertEqual(Dialect().encode(request(), None), b"")
        self.assertRaises(Malformed, Dialect().encode, request("9", "L", LEVEL="50"), None)
