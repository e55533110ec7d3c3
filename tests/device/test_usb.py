"""
Finding USB devices in a made-up sysfs.
"""

from __future__ import annotations

import os
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.support.usb import MadeUpUsb
from usbgate.core.model import BoardKind, DeviceWarning
from usbgate.device.usb import UsbIds, UsbPort, UsbTree, is_usb, parse_usb

# A place, and what it means.
PLACES = [
    ("usb:2341:8036", UsbIds("2341", "8036", None)),
    ("usb:1A86:7523", UsbIds("1a86", "7523", None)),
    ("usb:2341:8036:85432", UsbIds("2341", "8036", "85432")),
    ("usb:303a:1001:7C:DF:A1:E0:00:3C", UsbIds("303a", "1001", "7C:DF:A1:E0:00:3C")),
    ("usb-port:1-1", UsbPort("1-1", None)),
    ("usb-port:3-1.4.2", UsbPort("3-1.4.2", None)),
    ("usb-port:1-1.3:1.2", UsbPort("1-1.3", "1.2")),
]

WRONG = [
    "usb:",
    "usb:2341",
    "usb:2341:803",
    "usb:2341:8036:",
    "usb:g341:8036",
    "usb-port:",
    "usb-port:1",
    "usb-port:usb1",
]


class PlaceTests(SynchronousTestCase):
    """
    Places as the configuration spells them.
    """

    def test_places(self) -> None:
        """
        Ids are read in either case, a serial number as it is, and a port with or without its interface.
        """
        for place, meaning in PLACES:
            self.assertTrue(is_usb(place))
            self.assertEqual(parse_usb(place), meaning)

    def test_wrong_places(self) -> None:
        """
        A place of another form is refused.
        """
        for place in WRONG:
            self.assertTrue(is_usb(place))
            self.assertRaises(ValueError, parse_usb, place)
        for place in ("/dev/ttyACM0", "./usb:1:2", "tcp:usb:1", "usbs:2341:8036"):
            self.assertFalse(is_usb(place))


class FindingTests(SynchronousTestCase):
    """
    Which ttys a place matches, and which places are ambiguous.
    """

    def setUp(self) -> None:
        """
        Plug in a Leonardo, two clones with one serial number in a hub, and a converter with several ttys.
        """
        self.usb = MadeUpUsb(Path(self.mktemp()))
        self.tree = UsbTree(str(self.usb.sysfs), str(self.usb.dev))
        self.usb.plug("1-2", "2341:8036", "LEO", ttyACM0="1.0")
        self.usb.plug("1-1.3", "1a86:7523", "0001", ttyUSB1="1.0")
        self.usb.plug("1-1.4", "1a86:7523", "0001", ttyUSB0="1.0")
        self.usb.plug("1-1.2", "0403:6011", "FT4", ttyUSB2="1.10", ttyUSB3="1.2", ttyUSB4="1.3")

    def find(self, place: str) -> list[str]:
        """
        Return the paths of the ttys found, relative to the folder of device nodes.
        """
        return [os.path.relpath(self.tree.path(tty), self.usb.dev) for tty in self.tree.find(parse_usb(place))]

    def test_find(self) -> None:
        """
        A device is found by its ids, with its serial number and without, and by its port, behind a hub or not.
        """
        for place, found in [
            ("usb:2341:8036", ["ttyACM0"]),
            ("usb:2341:8036:LEO", ["ttyACM0"]),
            ("usb:2341:8036:leo", []),
            ("usb:2341:8037", []),
            ("usb-port:1-2", ["ttyACM0"]),
            ("usb-port:1-1.3", ["ttyUSB1"]),
            ("usb-port:1-1.4", ["ttyUSB0"]),
            ("usb-port:1-1", []),
            ("usb-port:1-1.33", []),
            ("usb:0424:2514", []),
            ("usb:1a86:7523", ["ttyUSB1", "ttyUSB0"]),
            ("usb:1a86:7523:0001", ["ttyUSB1", "ttyUSB0"]),
        ]:
            self.assertEqual(self.find(place), found, place)

    def test_several_ttys(self) -> None:
        """
        Of a device with several ttys the one with the lowest interface is found, or the one whose interface is given.
        """
        for place, found in [
            ("usb:0403:6011", ["ttyUSB3"]),
            ("usb:0403:6011:FT4", ["ttyUSB3"]),
            ("usb-port:1-1.2", ["ttyUSB3"]),
            ("usb-port:1-1.2:1.2", ["ttyUSB3"]),
            ("usb-port:1-1.2:1.10", ["ttyUSB2"]),
            ("usb-port:1-1.2:1.1", []),
        ]:
            self.assertEqual(self.find(place), found, place)
        for tty in self.tree.ttys():
            self.assertEqual(self.tree.find(parse_usb(tty.place)), [tty])

    def test_another_name(self) -> None:
        """
        A device that is plugged in again is found under its new name.
        """
        self.usb.unplug("1-2")
        self.assertEqual(self.find("usb:2341:8036"), [])
        self.usb.plug("1-1.1", "2341:8036", "LEO", ttyACM1="1.0")
        self.assertEqual(self.find("usb:2341:8036"), ["ttyACM1"])
        self.assertEqual(self.find("usb-port:1-2"), [])

    def test_vanishes_meanwhile(self) -> None:
        """
        A device that is unplugged during the search is not found, and the others are.
        """
        listdir, readlink = os.listdir, os.readlink
        left = ["1-2", "1-1.3"]

        def listed(folder: str) -> list[str]:  # gone when its name has been read
            names = listdir(folder)
            if "1-2" in left:
                left.remove("1-2")
                self.usb.unplug("1-2")
            return names

        def followed(link: str) -> str:  # gone when its place has been read
            place = readlink(link)
            if "/1-1.3/" in place and "1-1.3" in left:
                left.remove("1-1.3")
                self.usb.unplug("1-1.3")
            return place

        self.patch(os, "listdir", listed)
        self.patch(os, "readlink", followed)
        self.assertEqual(self.find("usb:1a86:7523:0001"), ["ttyUSB0"])
        self.assertEqual(left, [])

    def test_no_sysfs(self) -> None:
        """
        Without sysfs, nothing is found.
        """
        self.assertEqual(UsbTree(self.mktemp()).find(UsbPort("1-1", None)), [])

    def text(self, place: str) -> str:
        """
        Return the text of the warning that a place is ambiguous.
        """
        warning = self.tree.ambiguity(place)
        assert warning is not None
        return warning.text

    def test_ambiguity(self) -> None:
        """
        A name that matches two devices gives a warning with an unambiguous name for each; any other name gives none.
        """
        by_id = str(self.usb.name_by_id("usb-1a86_USB_Serial_0001-if00-port0", "ttyUSB0"))
        line = (
            "2 devices match this name; use the port of one instead:"
            " usb-port:1-1.3 (ttyUSB1, 1a86:7523), usb-port:1-1.4 (ttyUSB0, 1a86:7523)"
        )
        for place in (by_id, "usb:1a86:7523", "usb:1a86:7523:0001"):
            warning = self.tree.ambiguity(place)
            self.assertEqual(warning, DeviceWarning("name not unique", line.partition("instead: ")[2], line))
        leonardo = str(self.usb.name_by_id("usb-Arduino_LLC_Arduino_Leonardo-if00", "ttyACM0"))
        for place in (
            *(leonardo, leonardo + "-gone", str(self.usb.name_by_id("stale", "ttyACM7"))),
            *("usb:2341:8036", "usb-port:1-1.3", str(self.usb.dev / "ttyUSB0"), "tcp:h:1", "usb:1a86:7523:0002"),
        ):
            self.assertIsNone(self.tree.ambiguity(place), place)
        self.usb.unplug("1-1.3")
        for place in (by_id, "usb:1a86:7523"):
            self.assertIsNone(self.tree.ambiguity(place), place)

    def test_ambiguity_of_some_ttys(self) -> None:
        """
        A device of the same kind with another serial number, or with none, does not make a name in by-id ambiguous;
        two devices with several ttys are each named with the interface in question.
        """
        by_id = str(self.usb.name_by_id("usb-FT4-if10", "ttyUSB2"))
        self.usb.plug("1-3", "0403:6011", "FT5", ttyUSB5="1.2", ttyUSB6="1.10")
        self.usb.plug("1-4", "0403:6011", None, ttyUSB7="1.2", ttyUSB8="1.10")
        self.assertIsNone(self.tree.ambiguity(by_id))
        none = str(self.usb.name_by_id("usb-FT-if10", "ttyUSB8"))
        self.assertIsNone(self.tree.ambiguity(none))
        self.usb.plug("1-5", "0403:6011", "FT4", ttyUSB9="1.2", ttyUSB10="1.10")
        self.assertIn("usb-port:1-1.2:1.10 (ttyUSB2, 0403:6011), usb-port:1-5:1.10 (ttyUSB10,", self.text(by_id))
        first = str(self.usb.name_by_id("usb-FT4-if02", "ttyUSB9"))
        self.assertIn("usb-port:1-1.2 (ttyUSB3, 0403:6011), usb-port:1-5 (ttyUSB9,", self.text(first))
        self.usb.plug("1-6", "0403:6011", None, ttyUSB11="1.2", ttyUSB12="1.10")
        self.assertRegex(self.text(none), "^2 devices .*usb-port:1-4:1.10.*usb-port:1-6:1.10")

    def test_many(self) -> None:
        """
        A message names a limited number of devices.
        """
        for number in range(10):
            self.usb.plug(f"1-1.1.{number}", "dead:beef", None, **{f"ttyACM{20 + number}": "1.0"})
        self.assertRegex(
            self.text("usb:dead:beef"),
            r"^10 devices .* usb-port:1-1.1.7 \(ttyACM27, dead:beef\), 2 more$",
        )


class BoardTests(SynchronousTestCase):
    """
    What the USB ids tell of a board.
    """

    def setUp(self) -> None:
        """
        Prepare a machine with nothing plugged in.
        """
        self.usb = MadeUpUsb(Path(self.mktemp()))
        self.tree = UsbTree(str(self.usb.sysfs), str(self.usb.dev))

    def test_boards(self) -> None:
        """
        A bridge that resets its board is told from others, and from a board with native USB.
        """
        for ids, tty, board in [
            ("2341:0043", "ttyACM0", BoardKind(resets=True)),  # Uno
            ("2a03:0042", "ttyACM0", BoardKind(resets=True)),  # Mega
            ("1a86:7523", "ttyUSB0", BoardKind(resets=True)),  # CH340
            ("1a86:55d4", "ttyACM3", BoardKind(resets=True)),  # CH9102
            ("0403:6001", "ttyUSB0", BoardKind(resets=True)),  # FT232R
            ("0403:6015", "ttyUSB0", BoardKind(resets=True)),
            ("10c4:ea60", "ttyUSB11", BoardKind(resets=True)),  # CP2102
            ("067b:2303", "ttyUSB0", BoardKind(resets=True)),  # PL2303
            ("067b:23a3", "ttyUSB0", BoardKind(resets=True)),
            ("2341:8036", "ttyACM0", BoardKind(native=True)),  # Leonardo
            ("303a:1001", "ttyACM0", BoardKind(native=True)),  # ESP32-S3
            ("2e8a:000a", "ttyACM0", BoardKind(native=True)),  # Pico
            ("2e8a:000c", "ttyACM0", BoardKind()),  # Debug Probe
            ("0d28:0204", "ttyACM0", BoardKind()),  # micro:bit
            ("dead:beef", "ttyUSB0", BoardKind()),
        ]:
            with self.subTest(ids=ids):
                self.usb.plug("1-2", ids, None, **{tty: "1.0"})
                path = self.tree.path(self.tree.ttys()[0])
                self.assertEqual(self.tree.describe_board(path), board)
                self.assertEqual(self.tree.describe_board(path, keep_dtr=True), board._replace(resets=False))
                self.usb.unplug("1-2")

    def test_any_name(self) -> None:
        """
        A board is found by whatever link leads to its tty; without a USB tty, nothing is known of it.
        """
        self.usb.plug("1-1.3", "2341:8036", "LEO", ttyACM0="1.0")
        self.usb.plug("1-2", "1a86:7523", None, ttyUSB0="1.0")
        by_id = self.usb.name_by_id("usb-Arduino_LLC_Arduino_Leonardo-if00", "ttyACM0")
        self.assertEqual(self.tree.describe_board(str(by_id)), BoardKind(native=True))
        for path in (None, "/dev/ttyS0", "/dev/pts/0", "/dev/ttyACM1", ""):
            self.assertEqual(self.tree.describe_board(path), BoardKind())
