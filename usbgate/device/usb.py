"""
Finding a USB serial device by its ids or by its port, whatever the name of its tty is now.

pyserial's `list_ports_linux` does not fit: it reads /sys only, eight files of every device even if one port is wanted,
and raises if a device is unplugged meanwhile.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass

from usbgate.core.model import UNKNOWN_BOARD, BoardKind, DeviceWarning

# The prefixes of USB devices; everything else is a path, or an endpoint string.
PREFIXES = ("usb:", "usb-port:")

EXAMPLES = "usb:2341:8036, usb:2341:8036:SERIAL, usb-port:1-1.3"

# A serial number may contain colons: an ESP32's is its MAC address.
_IDS = re.compile(r"usb:([0-9A-Fa-f]{4}):([0-9A-Fa-f]{4})(?::(\S.*))?")

# The kernel's names: the bus, then a port for each hub; an interface adds configuration and number.
_PORT = re.compile(r"usb-port:([0-9]+-[0-9]+(?:\.[0-9]+)*)(?::([0-9]+\.[0-9]+))?")

# A tty's folder in sysfs: the device's, named for its port, and below it the interface's.
_PLACE = re.compile(r"(.*/([0-9]+-[0-9]+(?:\.[0-9]+)*))/\2:([0-9]+\.[0-9]+)/.*")

# Chips between USB and a board's serial port whose DTR resets the board in most designs. Those of FTDI, Silicon Labs
# (CP210x) and Prolific (PL2303) have many product ids, also of the makers of boards, so their vendor ids decide.
_BRIDGE_VENDORS = {"0403", "067b", "10c4"}
_ATMEGA_16U2 = (  # Uno, Mega and Due
    *("0001", "0010", "003b", "003d", "003f", "0042", "0043"),
    *("0044", "0045", "0062", "006a", "0210", "0242", "0243"),
)
_CH340 = ("5523", "7522", "7523", "55d2", "55d3", "55d4", "55d5", "55d8")  # and its successors
_RESETTING_BRIDGES = {
    *((vendor, product) for vendor in ("2341", "2a03") for product in _ATMEGA_16U2),
    ("03eb", "204b"),  # a 16U2 with the firmware of LUFA
    *(("1a86", product) for product in _CH340),
}

# Bridges that are modems to USB (ttyACM) as a board with native USB is, and reset nothing.
_OTHER_BRIDGES = {
    ("2341", "0058"),  # Nano Every
    ("2341", "1002"),  # Uno R4 WiFi
    ("0483", "374b"),  # ST-Link
    ("0483", "374e"),
    ("0483", "374f"),
    ("0483", "3752"),
    ("0d28", "0204"),  # DAPLink: micro:bit
    ("03eb", "2111"),  # EDBG
    ("03eb", "2141"),
    ("03eb", "2145"),  # mEDBG: Uno WiFi Rev2
    ("2e8a", "000c"),  # Raspberry Pi Debug Probe
}

_DESCRIBED = 8  # ttys named in one message


@dataclass(frozen=True, slots=True)
class UsbIds:
    """
    A device by its USB descriptor.

    Attributes:
        vendor: The vendor id, four hexadecimal digits in lower case.
        product: The product id, likewise.
        serial: The serial number; None matches any, and none.
    """

    vendor: str
    product: str
    serial: str | None


@dataclass(frozen=True, slots=True)
class UsbPort:
    """
    A device by where it is plugged in.

    Attributes:
        port: As the kernel writes it, `1-1.3`.
        interface: The interface of a device with several ttys, `1.2`; None for its first tty.
    """

    port: str
    interface: str | None


@dataclass(frozen=True, slots=True)
class UsbTty:
    """
    A tty of a USB device that is plugged in now.

    Attributes:
        name: The name of the tty, `ttyACM0`.
        port: The device's port.
        interface: The interface of the device that the tty belongs to.
        first: Whether it is the device's first tty.
        folder: The device's folder in sysfs, relative to the folder of all ttys.
    """

    name: str
    port: str
    interface: str
    first: bool
    folder: str

    @property
    def place(self) -> str:
        """
        The unambiguous name of this tty in a configuration.
        """
        return f"usb-port:{self.port}" if self.first else f"usb-port:{self.port}:{self.interface}"


def is_usb(place: str) -> bool:
    """
    Return whether a place is a USB device's.
    """
    return place.startswith(PREFIXES)


def parse_usb(place: str) -> UsbIds | UsbPort:
    """
    Read `usb:VENDOR:PRODUCT`, `usb:VENDOR:PRODUCT:SERIAL`, `usb-port:PORT` or `usb-port:PORT:INTERFACE`.

    Raises:
        ValueError: The place has another form.
    """
    if match := _IDS.fullmatch(place):
        return UsbIds(match[1].lower(), match[2].lower(), match[3])
    if match := _PORT.fullmatch(place):
        return UsbPort(match[1], match[2])
    raise ValueError(f"expected a USB device such as {EXAMPLES}")


class UsbTree:
    """
    The USB serial devices of this machine, read from sysfs at each call.

    A call costs one `readlink` for each tty, a few hundred at most, and reads files of the possible matches only. The
    `serial` file is read last: it blocks while the kernel resets that device.
    """

    def __init__(self, sysfs: str = "/sys", dev: str = "/dev") -> None:
        """
        Args:
            sysfs: Where sysfs is mounted.
            dev: The folder of the device nodes.
        """
        self._ttys = os.path.join(sysfs, "class", "tty")
        self._dev = dev

    def path(self, tty: UsbTty) -> str:
        """
        Return the path of the device node of a tty.
        """
        return os.path.join(self._dev, tty.name)

    def ttys(self) -> list[UsbTty]:
        """
        Return the ttys of all USB devices, sorted by port, then by interface.
        """
        found = []
        try:
            names = os.listdir(self._ttys)
        except OSError:  # no sysfs
            return []
        for name in names:
            try:
                place = os.readlink(os.path.join(self._ttys, name))
            except OSError:  # unplugged meanwhile
                continue
            if match := _PLACE.fullmatch(place):
                device, port, interface = match.groups()
                found.append((_numbers(port), _numbers(interface), _numbers(name), name, port, interface, device))
        ttys: list[UsbTty] = []
        for *_, name, port, interface, device in sorted(found):
            first = not ttys or ttys[-1].folder != device
            ttys.append(UsbTty(name, port, interface, first, device))
        return ttys

    def find(self, wanted: UsbIds | UsbPort) -> list[UsbTty]:
        """
        Return one tty of each device that matches: the first one, unless an interface is given.
        """
        if isinstance(wanted, UsbPort):
            at_port = [tty for tty in self.ttys() if tty.port == wanted.port]
            if wanted.interface is None:
                return [tty for tty in at_port if tty.first]
            return [tty for tty in at_port if tty.interface == wanted.interface][:1]
        ttys = [tty for tty in self.ttys() if tty.first and self._ids(tty) == (wanted.vendor, wanted.product)]
        if wanted.serial is None:
            return ttys
        return [tty for tty in ttys if self._serial(tty) == wanted.serial]

    def identify(self, tty: UsbTty) -> UsbIds:
        """
        Return the ids and the serial number of the device of a tty.
        """
        return UsbIds(*self._ids(tty), self._serial(tty))

    def product(self, tty: UsbTty) -> str | None:
        """
        Return what the device of a tty calls itself, such as `Arduino Leonardo`; None if it does not.
        """
        return self._read(tty, "product")

    def describe_board(self, path: str | None, keep_dtr: bool = False) -> BoardKind:
        """
        Return what the USB ids tell of the board at a tty that was opened.

        Args:
            path: The path of the tty; None if there is none.
            keep_dtr: Whether opening the tty leaves DTR alone.
        """
        name = "" if path is None else os.path.basename(os.path.realpath(path))
        tty = next((tty for tty in self.ttys() if tty.name == name), None)
        if tty is None:
            return UNKNOWN_BOARD
        ids = self._ids(tty)
        resets = ids[0] in _BRIDGE_VENDORS or ids in _RESETTING_BRIDGES
        native = name.startswith("ttyACM") and not resets and ids not in _OTHER_BRIDGES
        return BoardKind(resets and not keep_dtr, native)

    def ambiguity(self, place: str) -> DeviceWarning | None:
        """
        Return a warning if a place matches several devices that are plugged in.

        That can happen to `usb:`, and to a name in /dev/serial/by-id, which udev makes of the USB descriptor: two
        devices with equal descriptors share one name, and it leads to either.

        Args:
            place: As the configuration spells it.

        Returns:
            A warning that names the matching devices without ambiguity, or None.
        """
        if is_usb(place):
            same = self.find(parse_usb(place))
        elif os.path.basename(os.path.dirname(place)) == "by-id":
            same = self._same_descriptor(place)
        else:
            return None
        if len(same) < 2:
            return None
        return DeviceWarning("name not unique", self.describe(same), self.describe_ambiguity(same))

    def describe_ambiguity(self, same: Sequence[UsbTty]) -> str:
        """
        Return a warning that several devices match one name, with an unambiguous name for each.
        """
        return f"{len(same)} devices match this name; use the port of one instead: {self.describe(same)}"

    def _same_descriptor(self, link: str) -> list[UsbTty]:
        try:
            name = os.path.basename(os.readlink(link))
        except OSError:
            return []
        ttys = self.ttys()
        own = next((tty for tty in ttys if tty.name == name), None)
        if own is None:
            return []
        ids, serial = self._ids(own), self._serial(own)
        others = [tty for tty in ttys if tty.port != own.port and tty.interface == own.interface]
        same = {tty.port: tty for tty in others if self._ids(tty) == ids and self._serial(tty) == serial}
        return [tty for tty in ttys if tty in (own, same.get(tty.port))]

    def describe(self, ttys: Sequence[UsbTty]) -> str:
        """
        Return a list of ttys for a message: the port, the name and the ids of each.
        """
        described = [f"{tty.place} ({tty.name}, {':'.join(self._ids(tty))})" for tty in ttys[:_DESCRIBED]]
        return ", ".join([*described, *([f"{len(ttys) - _DESCRIBED} more"] if len(ttys) > _DESCRIBED else [])])

    def _ids(self, tty: UsbTty) -> tuple[str, str]:
        return self._read(tty, "idVendor") or "", self._read(tty, "idProduct") or ""

    def _serial(self, tty: UsbTty) -> str | None:
        return self._read(tty, "serial")

    def _read(self, tty: UsbTty, name: str) -> str | None:
        # None if the device has no such file (many have no serial number), or was unplugged meanwhile.
        try:
            with open(os.path.join(self._ttys, tty.folder, name), encoding="utf-8", errors="replace") as file:
                return file.read().strip() or None
        except OSError:
            return None


def _numbers(name: str) -> list[int]:
    # A sort key: 1.10 comes after 1.2.
    return [int(digits) for digits in re.findall("[0-9]+", name)]
