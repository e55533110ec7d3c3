"""
The dialect of columns; what whole recordings become is in `dialects/csv.*`.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from usbgate.core.errors import Malformed
from usbgate.device.dialects.csv import Dialect
from usbgate.testing import report, transcript


class DialectTests(SynchronousTestCase):
    """
    Lines in.
    """

    def test_header(self) -> None:
        """
        Without columns, nothing is read before a header; it is known after a restart, and a new one counts after
        another opening only. A header that was cut does not count once the whole one is known.
        """
        dialect = Dialect()
        self.assertRaisesRegex(Malformed, "no header", dialect.decode, b"1,2")
        dialect.decode(b"temp,hum")
        again = Dialect()
        again.kept = dialect.kept
        self.assertEqual(again.decode(b"1,2"), report("device", TEMP="1", HUM="2"))
        self.assertEqual(again.decode(b"on,off"), report("device", TEMP="on", HUM="off"))
        self.assertTrue(again.framing().is_partial(b"mp,hum"))
        self.assertFalse(again.framing().is_partial(b"lux,door"))
        again.opened()
        self.assertEqual(again.decode(b"lux,door"), "lux,door")
        self.assertEqual(again.decode(b"7,open"), report("device", LUX="7", DOOR="open"))

    def test_cut_header(self) -> None:
        """
        The whole header takes the place of one that was cut.
        """
        self.assertEqual(transcript(Dialect(), b"mp,hum\n1,2\ntemp,hum\n3,4\n")[-1], "ID:device_TEMP:3_HUM:4")

    def test_configured(self) -> None:
        """
        Configured columns are the only ones, and need no header.
        """
        dialect = Dialect({"columns": ["id", "t"], "separator": "tab"})
        self.assertEqual(dialect.decode(b"7\tx"), report("7", T="x"))
        self.assertEqual(dialect.decode(b"ID\tT"), "ID\tT")
        for line in (b"7", b"7\t1\t2", b"\t1", b"7\t\xff"):
            self.assertRaises(Malformed, dialect.decode, line)

    def test_options(self) -> None:
        """
        A wrong option is refused by its name.
        """
        wrong: dict[str, object] = {"columns": 1, "separator": ";", "decimal": ",", "id": 1, "sensor": "a b", "x": 1}
        for key, value in wrong.items():
            with self.assertRaisesRegex(ValueError, f"^{key}: "):
                Dialect({key: value})
