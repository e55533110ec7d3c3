"""
The dialect of names and values; what whole recordings become is in `dialects/keyvalue.*`.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from usbgate.core.errors import Malformed
from usbgate.core.model import Report
from usbgate.device.dialects.keyvalue import Dialect
from usbgate.testing import check_dialect, request


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
