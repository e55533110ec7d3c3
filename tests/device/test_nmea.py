"""
The dialect of NMEA 0183; what whole recordings become is in `dialects/nmea.*`.
"""

from __future__ import annotations

import sys
from unittest.mock import patch

from twisted.trial.unittest import SynchronousTestCase

from usbgate.core.fieldline import LINE_LIMIT, checksum
from usbgate.core.model import Report
from usbgate.device.dialects.nmea import Dialect, Framing
from usbgate.device.finddialect import make_dialect
from usbgate.testing import check_dialect

MODULE = "usbgate.device.dialects.nmea"


def sentence(body: bytes) -> bytes:
    """
    Return a sentence with its checksum.
    """
    return b"$" + body + checksum(body)


class DialectTests(SynchronousTestCase):
    """
    Sentences in.
    """

    def test_sentences(self) -> None:
        """
        Only what has the right checksum counts. Empty fields are no values; a sentence without any value, lists with a
        length of their own, and what is left out become nothing.
        """
        check_dialect(
            Dialect({"sensor": "gps", "without": ["GSV", "time", "GGA.HDOP"]}),
            [
                (
                    b"$GNGGA,,,,,,0,00,99.99,,,,,,*56",
                    Report("gps", None, None, (("GGA.QUALITY", "0"), ("GGA.NUMSV", "0"))),
                ),
                (sentence(b"GPHDT,0.00001,"), Report("gps", None, None, (("HDT.HEADINGT", "0.00001"),))),
                (sentence(b"GPHDT,,"), ()),
                (b"$GPGSV,1,1,00,1*64", ()),
                (sentence(b"PUBX,03,999999999"), ()),
                (b"!AIVDM,1,1,,A,15MgK45P3@G?fl0E`JbR0OwT0@MS,0*4E", ()),
                (sentence(b"GNTXT,01,01,02,a, b"), "a, b"),
            ],
            [
                *(b"$GPHDT,274.07,T*04", b"$GPHDT,274.07,T", b"xGPHDT,274.07,T*03"),
                *(sentence(b"GPHDT,q3,T"), sentence(b"PUBX"), sentence(b"PASHR,")),
            ],
        )

    def test_fields(self) -> None:
        """
        What is known of fields is known of those that sentences have.
        """
        found: set[str] = set()
        for body in (
            b"GNGGA,103607.00,5327.03942,N,00214.42462,W,1,06,5.88,56.0,M,48.5,M,,",
            b"GNGLL,5327.03942,N,00214.42462,W,103607.00,A,A",
            b"GNGNS,103607.00,5327.03942,N,00214.42462,W,AANN,06,5.88,56.0,48.5,,,V",
            b"GNRMC,103607.00,A,5327.03942,N,10214.42462,W,0.046,10.0,060321,,,A,V",
            *(b"GNVTG,10,T,11,M,1,N,2,K,A", b"GPHDT,274.07,T", b"IIHDG,70.6,,,,W", b"SDDPT,2.5,0.3,"),
            *(b"WIMWV,214.8,R,0.1,N,A", b"SDDBT,8.1,f,2.5,M,1.3,F"),
        ):
            report = Dialect().decode(sentence(body))
            assert isinstance(report, Report)
            found |= dict(report.values).keys()
        self.assertEqual(Dialect.fields.keys() - found, set())

    def test_options(self) -> None:
        """
        A wrong option is refused by its name.
        """
        self.assertRaisesRegex(ValueError, "^sensor: ", Dialect, {"sensor": "a b"})
        self.assertRaisesRegex(ValueError, "^without: ", Dialect, {"without": [1]})

    def test_not_installed(self) -> None:
        """
        Without pynmeagps, the error has the command that installs it.
        """
        with patch.dict(sys.modules, {"pynmeagps": None}):
            del sys.modules[MODULE]
            self.assertRaisesRegex(ValueError, "^dialect: .*-m pip install 'pynmeagps", make_dialect, "nmea", {})


class FramingTests(SynchronousTestCase):
    """
    Bytes in.
    """

    def test_noise(self) -> None:
        """
        What is no sentence is noise, each byte of it, also where it begins like one; line ends are not.
        """
        framing = Framing()
        self.assertEqual(framing.feed(b"\xb5\x62abc$\x00\r\nhi\r\n$GPHDT,1,T*0"), [])
        self.assertEqual(framing.take_noise(), (9, 1))
        self.assertEqual(framing.feed(b"0\xff$GP$$GPHDT"), [b"$GPHDT,1,T*00"])
        self.assertEqual(framing.take_noise(), (5, 2))
        self.assertEqual(framing.rest, b"$GPHDT")

    def test_bounded(self) -> None:
        """
        Of a sentence without end, no more is kept than the limit; the next one counts.
        """
        framing = Framing()
        (frame,) = framing.feed(b"$GPHDT," + b"1" * 100_000)
        self.assertEqual(len(frame), LINE_LIMIT + 1)
        self.assertEqual((framing.rest, framing.discarding, framing.noise), (b"", True, 0))
        self.assertEqual(framing.feed(b"11$GPHDT\r"), [])
        self.assertEqual(framing.feed(b"$GPHDT,1\r"), [b"$GPHDT,1"])
