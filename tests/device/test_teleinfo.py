"""
The dialect of French meters; what whole recordings become is in `dialects/teleinfo.*`.
"""

from __future__ import annotations

from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.support.dialects import assert_labelled
from tests.support.links import LinkCase
from usbgate.core.errors import Malformed
from usbgate.device.dialects.teleinfo import LIMIT, Dialect, Framing
from usbgate.device.link import Link
from usbgate.testing import check_dialect, report

RECORDINGS = Path(__file__).parent / "dialects"

FRAME = b"\x02\nADCO 270622224349 B\r\nPAPP 00520 (\r"


class FramingTests(SynchronousTestCase):
    """
    From STX to ETX.
    """

    def test_endless(self) -> None:
        """
        A frame without an end is returned once, cut, and needs no memory; the next one counts.
        """
        framing = Framing()
        frames: list[bytes] = []
        for _ in range(100):
            frames += framing.feed(b"\nPAPP 00520 (\r".ljust(1000, b"A"))
            self.assertLessEqual(len(framing.rest), LIMIT)
        self.assertEqual([len(frame) for frame in frames], [LIMIT + 1])
        self.assertEqual(list(framing.feed(b"\x03" + FRAME + b"\x03")), [FRAME])

    def test_noise(self) -> None:
        """
        What has no group between two frames is noise.
        """
        framing = Framing()
        self.assertEqual(list(framing.feed(FRAME + b"\x03\x00\x7f\xff" + FRAME + b"\x03")), [FRAME, FRAME])
        self.assertEqual(framing.take_noise(), (3, 1))


class LinkTests(LinkCase):
    """
    A link to a meter.
    """

    def test_pause(self) -> None:
        """
        A pause amid a group ends nothing; if a byte was lost in it, that costs the group.
        """
        self.link = Link(self.clock, self.device, "meter", "/dev/meter", Dialect(), lambda attempt: 1.0)
        self.link.listener = self.listener
        self.open()
        for check, values in [(b"]", {"BBRHPJW": "47946"}), (b"O", {})]:
            self.listener.calls.clear()
            self.device.say(FRAME + b"\nBBRHPJW 00004")
            self.clock.pump([1.0] * 30)
            self.device.say(b"7946 " + check + b"\r\x03")
            expected = report("270622224349", PAPP="520", **values)
            (received,) = [call for call in self.listener.calls if call[0] == "reports"]
            self.assertEqual(received[1]._replace(left_out=()), expected)


class DialectTests(SynchronousTestCase):
    """
    Frames in.
    """

    def test_frames(self) -> None:
        """
        A frame needs an address, and a group that is not damaged.
        """
        check_dialect(
            Dialect(),
            [(FRAME, report("270622224349", PAPP="520"))],
            [b"\x02\nADCO 270622224349 C\r\nPAPP 00520 )\r", b"\r\r", b"\x02\nADCO 270622224349 B\r"],
        )

    def test_first_frame(self) -> None:
        """
        Without an address nothing is reported, unless the configuration has a sensor; after another opening, the
        address of the meter before is not known any more.
        """
        group = b"\x02\nPAPP 00520 (\r"
        dialect = Dialect()
        self.assertRaises(Malformed, dialect.decode, group)
        dialect.decode(FRAME)
        self.assertEqual(dialect.decode(group), report("270622224349", PAPP="520"))
        dialect.opened()
        self.assertRaises(Malformed, dialect.decode, group)
        self.assertEqual(Dialect({"sensor": "meter"}).decode(group), report("meter", PAPP="520"))

    def test_damage(self) -> None:
        """
        No single bit that is wrong changes a value, or makes another sensor.
        """
        expected = {"PAPP": "520"}
        for place in range(1, len(FRAME)):
            for bit in range(7):
                dialect = Dialect()
                dialect.decode(FRAME)
                damaged = bytearray(FRAME)
                damaged[place] ^= 1 << bit
                try:
                    found = dialect.decode(bytes(damaged))
                except Malformed:
                    continue
                self.assertEqual(found.sensor, "270622224349", damaged)
                self.assertLessEqual(dict(found.values).items(), expected.items(), damaged)

    def test_fields(self) -> None:
        """
        All fields of the recordings have labels in English and in French.
        """
        assert_labelled(self, "teleinfo", Dialect())

    def test_options(self) -> None:
        """
        A wrong option is refused by its name.
        """
        wrong: dict[str, object] = {"sensor": "a b", "without": [1], "mode": "standard"}
        for key, value in wrong.items():
            with self.assertRaisesRegex(ValueError, f"^{key}: "):
                Dialect({key: value})
