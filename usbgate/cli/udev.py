"""
The rules for udev: a stable name for each USB device of usbgate, and no ModemManager.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from usbgate.config.settings import DeviceSettings
from usbgate.device.usb import UsbIds, UsbTree, UsbTty, is_usb, parse_usb

FOLDER = "usbgate"  # of the names, in /dev

_HEAD = """\
# The USB devices of usbgate: each has a stable name in /dev/usbgate, and ModemManager leaves it alone.
# `usbgate install` writes this file.
"""

# What a serial number may have, so that udev compares it literally: no wildcards, no quotes.
_LITERAL = re.compile(r"[\w .:+-]+", re.ASCII)


class Board(NamedTuple):
    """
    A USB device that is plugged in.

    Attributes:
        name: What it is called in the configuration and in /dev/usbgate.
        tty: Its tty.
        ids: By what it is recognized.
        by_port: Whether only its USB port tells it from another one.
        several: Whether it has several ttys.
    """

    name: str
    tty: UsbTty
    ids: UsbIds
    by_port: bool
    several: bool

    @property
    def path(self) -> str:
        """
        Its stable name.
        """
        return f"/dev/{FOLDER}/{re.sub('[^A-Za-z0-9.-]', '-', self.name)}"


def configured_boards(tree: UsbTree, devices: Mapping[str, DeviceSettings]) -> list[Board]:
    """
    Return the configured devices that are USB devices and plugged in.
    """
    ttys = tree.ttys()
    return [_board(tree, name, tty) for name, device in devices.items() if (tty := _find(tree, ttys, device.path))]


def plugged_boards(tree: UsbTree) -> list[Board]:
    """
    Return all USB serial devices that are plugged in, named after what they call themselves.
    """
    boards: dict[str, Board] = {}
    for tty in tree.ttys():
        if tty.first:
            name = re.sub("[^a-z0-9]+", "-", (tree.product(tty) or "").lower()).strip("-") or "board"
            if name in boards:
                name = f"{name}-{len(boards) + 1}"
            boards[name] = _board(tree, name, tty)
    return list(boards.values())


def _find(tree: UsbTree, ttys: Iterable[UsbTty], path: str) -> UsbTty | None:
    if is_usb(path):
        found = tree.find(parse_usb(path))
        return found[0] if len(found) == 1 else None
    node = os.path.basename(os.path.realpath(path))
    return next((tty for tty in ttys if tty.name == node), None)


def _board(tree: UsbTree, name: str, tty: UsbTty) -> Board:
    ttys, ids = tree.ttys(), tree.identify(tty)
    alike = [other for other in ttys if other.port != tty.port and tree.identify(other) == ids]
    odd = ids.serial is not None and not _LITERAL.fullmatch(ids.serial)
    return Board(name, tty, ids, bool(alike) or odd, sum(other.port == tty.port for other in ttys) > 1)


def udev_rules(boards: Iterable[Board]) -> str:
    """
    Return the file of rules.
    """
    return "\n".join([_HEAD, *map("\n".join, map(_rules, boards))])


def _rules(board: Board) -> Iterator[str]:
    ids = {"idVendor": board.ids.vendor, "idProduct": board.ids.product}
    if board.by_port:
        tty, device = f'KERNELS=="{board.tty.port}"', f'KERNEL=="{board.tty.port}"'
    else:
        if board.ids.serial is not None:
            ids["serial"] = board.ids.serial
        tty = ", ".join(f'ATTRS{{{key}}}=="{value}"' for key, value in ids.items())
        device = tty.replace("ATTRS", "ATTR")
    if board.several:
        tty += f', ENV{{ID_USB_INTERFACE_NUM}}=="{int(board.tty.interface.rpartition(".")[2]):02x}"'
    link = board.path.removeprefix("/dev/")
    yield f"# {board.name}"
    yield f'SUBSYSTEM=="tty", {tty}, SYMLINK+="{link}", ENV{{ID_MM_PORT_IGNORE}}="1"'
    yield f'SUBSYSTEM=="usb", ENV{{DEVTYPE}}=="usb_device", {device}, ENV{{ID_MM_DEVICE_IGNORE}}="1"'
    yield ""
