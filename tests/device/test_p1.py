"""
The dialect of the P1 port of smart meters; what whole recordings become is in `dialects/p1.*`.
"""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

from dsmr_parser import obis_references, telegram_specifications
from dsmr_parser.parsers import TelegramParser
from twisted.trial.unittest import SynchronousTestCase

from tests.support.dialects import assert_labelled
from usbgate.core.crc16 import crc16
from usbgate.core.errors import Malformed
from usbgate.device.dialects.p1 import ENCRYPTED, LIMIT, Dialect, Framing
from usbgate.testing import check_dialect, report

RECORDINGS = Path(__file__).parent / "dialects"

OLD = b"/ABC5x\r\n\r\n0-0:96.1.1(414243)\r\n1-0:1.8.1(0012.30*kWh)\r\n!\r"


class FramingTests(SynchronousTestCase):
    """
    From `/` to the line of `!`.
    """

    def test_endless(self) -> None:
        """
        A telegram without an end is returned once, cut, and needs no memory; the next one counts.
        """
        framing = Framing()
        frames: list[bytes] = list(framing.feed(b"/ABC5x\r\n"))
        for _ in range(100):
            frames += framing.feed(b"1-0:1.8.1(1)\r\n" * 70)
            self.assertLessEqual(len(framing.rest), LIMIT)
        self.assertEqual([len(frame) for frame in frames], [LIMIT + 1])
        self.assertEqual(list(framing.feed(OLD)), [OLD])

    def test_between(self) -> None:
        """
        What stands between two telegrams is noise, but for NUL bytes and line ends.
        """
        framing = Framing()
        self.assertEqual(list(framing.feed(OLD + b"\n\x00\r\n\x00" + OLD + b"\n\xfe\xff" + OLD)), [OLD] * 3)
        self.assertEqual(framing.take_noise(), (3, 1))


class DialectTests(SynchronousTestCase):
    """
    Telegrams in.
    """

    def test_oracle(self) -> None:
        """
        dsmr-parser reads the same numbers.
        """
        data = (RECORDINGS / "p1.dsmr5.raw").read_bytes()
        theirs = TelegramParser(telegram_specifications.V5).parse(data[: len(data) // 2].decode())
        ours = dict(Dialect().decode(data[: len(data) // 2]).values)
        for name, reference in (
            ("IMPORT-T1", obis_references.ELECTRICITY_USED_TARIFF_1),
            ("EXPORT-T2", obis_references.ELECTRICITY_DELIVERED_TARIFF_2),
            ("POWER-IMPORT", obis_references.CURRENT_ELECTRICITY_USAGE),
            ("VOLTAGE-L3", obis_references.INSTANTANEOUS_VOLTAGE_L3),
            ("CURRENT-L2", obis_references.INSTANTANEOUS_CURRENT_L2),
            ("POWER-EXPORT-L1", obis_references.INSTANTANEOUS_ACTIVE_POWER_L1_NEGATIVE),
        ):
            self.assertEqual(Decimal(ours[name]), theirs[reference].value, name)

    def test_crc(self) -> None:
        """
        The check values of the algorithms' catalogue.
        """
        self.assertEqual(crc16(b"123456789"), 0xBB3D)
        self.assertEqual(crc16(b"123456789", 0xFFFF), 0x4B37)

    def test_damage(self) -> None:
        """
        No byte of a telegram with a CRC can be wrong unseen, nor its CRC be left out.
        """
        data = (RECORDINGS / "p1.dsmr5.raw").read_bytes()
        telegram = data[: len(data) // 2]
        self.assertEqual(Dialect().decode(telegram).sensor, "K8EG004046395507")
        for place in range(1, len(telegram) - 2, 7):
            damaged = bytearray(telegram)
            damaged[place] ^= 1
            self.assertRaises(Malformed, Dialect().decode, bytes(damaged))
        self.assertRaises(Malformed, Dialect().decode, telegram[:-6] + b"\r\n")
        # The header of one telegram, the footer of the next.
        for lost in (20, 100, 500):
            torn = telegram[:lost] + telegram[lost + 50 :]
            self.assertEqual(list(Framing().feed(torn)), [torn[:-1]])
            self.assertRaises(Malformed, Dialect().decode, torn)

    def test_old(self) -> None:
        """
        Meters before DSMR 4 have no CRC. Without an identifier, the sensor is the last one, or that of the option.
        """
        nameless = OLD.replace(b"0-0:96.1.1(414243)", b"0-0:96.1.1()")
        board = Dialect()
        expected = report("ABC", **{"IMPORT-T1": "12.30"})
        check_dialect(board, [(OLD, expected)], [b"/ABC5x\r\n!\r", b"1-0:1.8.1(1)\r\n!\r"])
        board.decode(OLD)
        self.assertEqual(board.decode(nameless).sensor, "ABC")
        board.opened()
        self.assertEqual(board.decode(nameless).sensor, "device")

    def test_damaged_identifier(self) -> None:
        """
        Where no CRC shows that it is damaged, an identifier counts if it comes a second time.
        """
        board = Dialect()
        other = OLD.replace(b"0-0:96.1.1(414243)", b"0-0:96.1.1(414244)")
        board.decode(OLD)
        self.assertRaises(Malformed, board.decode, other)
        for telegram, meter in [(OLD, "ABC"), (OLD, "ABC")]:
            self.assertEqual(board.decode(telegram).sensor, meter)
        self.assertRaises(Malformed, board.decode, other)
        self.assertEqual(board.decode(other).sensor, "ABD")

    def test_sensor(self) -> None:
        """
        The option `sensor` goes before the identifier.
        """
        self.assertEqual(Dialect({"sensor": "meter"}).decode(OLD).sensor, "meter")

    def test_encrypted(self) -> None:
        """
        Encrypted telegrams are refused, and said to be so once.
        """
        dialect = Dialect()
        framing = dialect.framing()
        for frame in framing.feed(b"\xdb\x08SAGgp\x01\x02\x03\x04" * 5 + b"/"):
            self.assertRaises(Malformed, dialect.decode, frame)
        self.assertEqual(dialect.notices, [ENCRYPTED])

    def test_fields(self) -> None:
        """
        All fields of the recordings have labels in English and in French.
        """
        assert_labelled(self, "p1", Dialect())

    def test_units(self) -> None:
        """
        A value in the unit that the page knows is a plain number; in any other one, such as heat in GJ, it keeps it.
        """
        lines = (
            b"0-1:24.2.1(101209112500W)(12785.123*m3)",
            b"0-2:24.2.1(101209112500W)(12.345*GJ)",
            b"1-0:32.7.0(230*V)",
        )
        found = dict(Dialect().decode(OLD.replace(b"!", b"\r\n".join((*lines, b"!")))).values)
        self.assertEqual([found[name] for name in ("MBUS1", "MBUS2", "VOLTAGE-L1")], ["12785.123", "12.345GJ", "230"])

    def test_options(self) -> None:
        """
        A wrong option is refused by its name.
        """
        wrong: dict[str, object] = {"sensor": "a b", "without": [1], "version": 5}
        for key, value in wrong.items():
            with self.assertRaisesRegex(ValueError, f"^{key}: "):
                Dialect({key: value})
