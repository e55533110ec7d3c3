"""
A simulated sysfs and /dev in which a test plugs and unplugs USB serial devices.
"""

from __future__ import annotations

import os
from pathlib import Path
from shutil import rmtree

from tests.support.running import RUN

# Other entries of a sysfs: consoles, and a serial port that is not on USB.
OTHERS = {
    "tty0": "virtual/tty/tty0",
    "ptmx": "virtual/tty/ptmx",
    "ttyS0": "pnp0/00:04/00:04:0/00:04:0.0/tty/ttyS0",
}


class MadeUpUsb:
    """
    The parts of sysfs and /dev in which devices are looked for.

    Attributes:
        sysfs: The mount point of sysfs.
        dev: The folder of the device nodes, with `serial/by-id` in it.
    """

    def __init__(self, folder: Path) -> None:
        """
        Create a hub at port 1-1, with nothing plugged in.
        """
        self.sysfs = folder / "sys"
        self.dev = folder / "dev"
        self._ttys = self.sysfs / "class" / "tty"
        self._ttys.mkdir(parents=True)
        self._by_id = self.dev / "serial" / "by-id"
        self._by_id.mkdir(parents=True)
        self._usb = self.sysfs / "devices" / "pci0000:00" / "0000:00:14.0" / "usb1"
        self._describe(self._usb, "1d6b", "0002", "0000:00:14.0")
        self._describe(self._usb / "1-1", "0424", "2514", None)
        (self._usb / "1-1" / "1-1:1.0").mkdir()
        for name, place in OTHERS.items():
            (self.sysfs / "devices" / place).mkdir(parents=True)
            self._link(name, f"../../devices/{place}")

    def device(self, port: str) -> Path:
        """
        Return the folder of the device at a port: `1-1.3` is the hub's third port, `1-2` the machine's second.
        """
        bus, _, path = port.partition("-")
        ports = path.split(".")
        return self._usb.joinpath(*[f"{bus}-{'.'.join(ports[: depth + 1])}" for depth in range(len(ports))])

    def plug(self, port: str, ids: str, serial: str | None, **ttys: str) -> None:
        """
        Plug a device in.

        Args:
            port: The port.
            ids: `VENDOR:PRODUCT`.
            serial: Its serial number; None if it has none.
            ttys: The USB interface of each tty, by the name of the tty.
        """
        folder = self.device(port)
        vendor, product = ids.split(":")
        self._describe(folder, vendor, product, serial)
        for name, interface in ttys.items():
            # The driver of a converter (ttyUSB) has one more folder than that of a modem.
            inside = f"{name}/tty/{name}" if name.startswith("ttyUSB") else f"tty/{name}"
            place = folder / f"{port}:{interface}" / inside
            place.mkdir(parents=True)
            self._link(name, os.path.relpath(place, self._ttys))

    def unplug(self, port: str) -> None:
        """
        Unplug the device at a port.
        """
        for link in self._ttys.iterdir():
            if f"/{port}/" in os.readlink(link):
                link.unlink()
        rmtree(self.device(port))

    def program(self) -> str:
        """
        Return the program of a daemon that looks for its devices here.
        """
        tree = f"partial(devices.UsbTree, {str(self.sysfs)!r}, {str(self.dev)!r})"
        return f"from functools import partial; from usbgate.assembly import devices; devices.UsbTree = {tree}; {RUN}"

    def name_by_id(self, name: str, tty: str | None) -> Path:
        """
        Link a name in /dev/serial/by-id to a tty, or remove it.
        """
        link = self._by_id / name
        link.unlink(missing_ok=True)
        if tty is not None:
            link.symlink_to(f"../../{tty}")
        return link

    def _link(self, name: str, target: str) -> None:
        (self._ttys / name).symlink_to(target)

    def _describe(self, folder: Path, vendor: str, product: str, serial: str | None) -> None:
        folder.mkdir(parents=True)
        (folder / "idVendor").write_text(vendor + "\n")
        (folder / "idProduct").write_text(product + "\n")
        if serial is not None:
            (folder / "serial").write_text(serial + "\n")
