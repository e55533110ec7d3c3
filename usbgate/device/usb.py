"""
Finding a USB serial device whatever the kernel calls its tty today: by its ids, or by the port that it sits in.

sysfs is read here and not by pyserial's `list_ports_linux`: that one knows no other place than /sys, reads eight
files of every device even where one port is looked for, and raises if a device goes away while it reads.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass

# How a place begins that is looked up here; everything else is a path, or an endpoint string.
PREFIXES = ("usb:", "usb-port:")

EXAMPLES = "usb:2341:8036, usb:2341:8036:SERIAL, usb-port:1-1.3"

# A serial number may hold colons itself: an ESP32's is its MAC address.
_IDS = re.compile(r"usb:([0-9A-Fa-f]{4}):([0-9A-Fa-f]{4})(?::(\S.*))?")

# The kernel's names: bus, then the ports of hub after hub; an interface has its configuration and number behind.
_PORT = re.compile(r"usb-port:([0-9]+-[0-9]+(?:\.[0-9]+)*)(?::([0-9]+\.[0-9]+))?")

# A tty's folder in sysfs: the device's, named by its port, and below it the interface's.
_PLACE = re.compile(r"(.*/([0-9]+-[0-9]+(?:\.[0-9]+)*))/\2:([0-9]+\.[0-9]+)/.*")

_SHOWN = 8  # devices named in one line


@dataclass(frozen=True, slots=True)
class UsbIds:
    """
    A device by what it says of itself.

    Attributes:
        vendor: Four hexadecimal digits, lower case.
        product: As well.
        serial: Its serial number; None for any, and for none.
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
        interface: Of a device with several ttys the one wanted, `1.2`; None for the first.
    """

    port: str
    interface: str | None


@dataclass(frozen=True, slots=True)
class UsbTty:
    """
    A tty of a USB device that is plugged in now.

    Attributes:
        name: The tty's, `ttyACM0`.
        port: The device's port.
        interface: Which of the device's interfaces the tty is.
        first: Whether it is the device's first tty.
        folder: The device's, seen from the folder of all ttys.
    """

    name: str
    port: str
    interface: str
    first: bool
    folder: str

    @property
    def place(self) -> str:
        """
        How to say, in a configuration, that this one is meant and no other.
        """
        return f"usb-port:{self.port}" if self.first else f"usb-port:{self.port}:{self.interface}"


def is_usb(place: str) -> bool:
    """
    Return whether a place is meant to be looked up here.
    """
    return place.startswith(PREFIXES)


def parse_usb(place: str) -> UsbIds | UsbPort:
    """
    Read `usb:VENDOR:PRODUCT`, `usb:VENDOR:PRODUCT:SERIAL`, `usb-port:PORT` or `usb-port:PORT:INTERFACE`.

    Raises:
        ValueError: It is none of them.
    """
    if match := _IDS.fullmatch(place):
        return UsbIds(match[1].lower(), match[2].lower(), match[3])
    if match := _PORT.fullmatch(place):
        return UsbPort(match[1], match[2])
    raise ValueError(f"expected such as {EXAMPLES}")


class UsbTree:
    """
    The USB serial devices of this machine, as sysfs shows them at the moment of asking.

    One look costs one `readlink` for each tty there is, a few hundred at most; files are read of those that may be
    the one wanted. The `serial` file comes last: the kernel makes its reader wait while it resets that device.
    """

    def __init__(self, sysfs: str = "/sys", dev: str = "/dev") -> None:
        """
        Look at nothing yet.

        Args:
            sysfs: Where sysfs is mounted.
            dev: The folder of the device nodes.
        """
        self._ttys = os.path.join(sysfs, "class", "tty")
        self._dev = dev

    def path(self, tty: UsbTty) -> str:
        """
        Return the path of a tty's device node.
        """
        return os.path.join(self._dev, tty.name)

    def ttys(self) -> list[UsbTty]:
        """
        List the ttys of all USB devices, by port, the interfaces of one device in their order.
        """
        found = []
        try:
            names = os.listdir(self._ttys)
        except OSError:  # no sysfs: then nothing can be found by it
            return []
        for name in names:
            try:
                place = os.readlink(os.path.join(self._ttys, name))
            except OSError:  # it is gone by now
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
        Find what is wanted: the tty of each device that fits, its first one where no interface is wanted.
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

    def doubt(self, place: str) -> str | None:
        """
        Say what is doubtful about a place: several devices that are plugged in could be meant.

        That is so for `usb:`, and for a name in /dev/serial/by-id, which udev makes of what a device says of itself:
        where two say the same there is one name, and it leads to either.

        Args:
            place: As the configuration spells it.

        Returns:
            One line, with the places that are without doubt; None where there is none.
        """
        if is_usb(place):
            same = self.find(parse_usb(place))
        elif os.path.basename(os.path.dirname(place)) == "by-id":
            same = self._namesakes(place)
        else:
            return None
        return self.told_apart(same) if len(same) > 1 else None

    def told_apart(self, same: Sequence[UsbTty]) -> str:
        """
        Describe how to name each of several devices that share a name.
        """
        return f"{len(same)} devices that are plugged in have this name; say which one by its port: {self.listed(same)}"

    def _namesakes(self, link: str) -> list[UsbTty]:
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

    def listed(self, ttys: Sequence[UsbTty]) -> str:
        """
        Name ttys for a person, by their ports.
        """
        shown = [f"{tty.place} ({tty.name}, {':'.join(self._ids(tty))})" for tty in ttys[:_SHOWN]]
        return ", ".join([*shown, *([f"{len(ttys) - _SHOWN} more"] if len(ttys) > _SHOWN else [])])

    def _ids(self, tty: UsbTty) -> tuple[str, str]:
        return self._read(tty, "idVendor") or "", self._read(tty, "idProduct") or ""

    def _serial(self, tty: UsbTty) -> str | None:
        return self._read(tty, "serial")

    def _read(self, tty: UsbTty, name: str) -> str | None:
        # None where the device has no such file, as many have no serial number, or is gone by now.
        try:
            with open(os.path.join(self._ttys, tty.folder, name), encoding="utf-8", errors="replace") as file:
                return file.read().strip() or None
        except OSError:
            return None


def _numbers(name: str) -> list[int]:
    # So that 1.10 comes after 1.2.
    return [int(digits) for digits in re.findall("[0-9]+", name)]
