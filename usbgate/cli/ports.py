"""
The serial ports of this machine (`usbgate devices --all`): what each is, who has it open, and how to configure it.

No port is opened, which would reset some boards. Reading /proc blocks for some milliseconds.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import click

from usbgate.cli.findings import Machine
from usbgate.cli.reader import print_json, print_nothing
from usbgate.cli.tables import print_table
from usbgate.config.settings import DeviceSettings, Settings
from usbgate.core.display import shown
from usbgate.device.portusers import find_users
from usbgate.device.usb import UsbIds, UsbTree, UsbTty, is_usb, parse_usb

ALIASES = ("serial0", "serial1")  # of a Raspberry Pi's own ports, whatever their driver is


class SerialPort(NamedTuple):
    """
    A serial port.

    Attributes:
        node: The path of its tty now, such as /dev/ttyACM0.
        what: What it calls itself.
        ids: By what a USB device is recognized; None for a port that is not on USB.
        place: The path by which it is best configured.
        name: What the configuration may call it, or does.
        configured: Whether it is configured.
        users: The programs that have it open, as far as this user may see them.
    """

    node: str
    what: str
    ids: UsbIds | None
    place: str
    name: str
    configured: bool
    users: Sequence[str]


def show_ports(settings: Settings, machine: Machine, as_json: bool) -> None:
    """
    Print the serial ports of a machine.
    """
    ports = find_ports(machine, settings.devices)
    if as_json:
        print_json([_record(port) for port in ports])
        return
    if not ports:
        print_nothing("no serial port; plug the device in, with a cable that carries data")
        return
    rows = [
        (
            port.node,
            port.what,
            f"{port.ids.vendor}:{port.ids.product}" if port.ids else "",
            port.name if port.configured else "",
            ", ".join(port.users),
        )
        for port in ports
    ]
    print_table(("PORT", "WHAT", "USB", "CONFIGURED AS", "IN USE BY"), rows)
    new = [port for port in ports if not port.configured]
    if new:
        click.echo(f"\nTo use one, add its lines to {settings.file or '/etc/usbgate/usbgate.toml'}:")
    for port in new:
        click.echo("\n" + shown_table(port.name, port.place))


def shown_table(name: str, place: str, keys: Mapping[str, object] = {}) -> str:
    """
    Return the table of a device for the configuration.
    """
    lines = [f"[device.{name}]", *(f"{key} = {_toml(value)}" for key, value in {"path": place, **keys}.items())]
    return "\n".join(lines)


def _toml(value: object) -> str:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else str(value)


def _record(port: SerialPort) -> dict[str, object]:
    return {
        "port": port.node,
        "what": port.what,
        "vendor": port.ids and port.ids.vendor,
        "product": port.ids and port.ids.product,
        "serial": port.ids and port.ids.serial,
        "path": port.place,
        "name": port.name,
        "configured": port.configured,
        "users": list(port.users),
    }


def find_ports(
    machine: Machine,
    devices: Mapping[str, DeviceSettings],
    users: Callable[[os.stat_result, str], Sequence[str]] = find_users,
) -> list[SerialPort]:
    """
    Find all serial ports, those on USB first.

    Args:
        machine: Where to look.
        devices: The configured devices, by name.
        users: Finds the programs that have a tty open.
    """
    tree = machine.usb
    links = _links(machine.dev / "serial" / "by-id", machine.dev)
    configured = {_node(device.path, tree): name for name, device in devices.items()}
    taken = {*devices}
    ports = []
    found: Iterable[tuple[str, UsbTty | None]] = [
        *((tty.name, tty) for tty in tree.ttys()),
        *((name, None) for name in _own_ports(machine)),
    ]
    for name, tty in found:
        node = str(machine.dev / name)
        title = configured.get(os.path.realpath(node))
        what, ids = ("serial port", None) if tty is None else (tree.product(tty) or "USB device", tree.identify(tty))
        using: Sequence[str] = ()
        with suppress(OSError):
            using = users(os.stat(node), str(machine.proc))
        proposed = _unused(name if tty is None else _slug(what), taken) if title is None else title
        taken.add(proposed)
        place = _alias(machine.dev, name) if tty is None else _place(tree, tty, links.get(name))
        ports.append(SerialPort(node, shown(what), ids, place, proposed, title is not None, using))
    return ports


def best_place(machine: Machine, path: str) -> tuple[str, str]:
    """
    Return the path by which a port is best configured, and a name for it; any other path is returned as it is.
    """
    node = os.path.realpath(path)
    for port in find_ports(machine, {}, lambda status, proc: ()):
        if os.path.realpath(port.node) == node:
            return port.place, port.name
    return path, _slug(os.path.basename(path))


def _links(folder: Path, dev: Path) -> dict[str, str]:
    # The names of udev, by the name of the tty.
    with suppress(OSError):
        return {os.path.basename(os.readlink(link)): str(link) for link in sorted(folder.iterdir(), reverse=True)}
    return {}


def _node(path: str, tree: UsbTree) -> str:
    if is_usb(path):
        found = tree.find(parse_usb(path))
        return os.path.realpath(tree.path(found[0])) if len(found) == 1 else path
    return os.path.realpath(path)


def _own_ports(machine: Machine) -> Iterator[str]:
    # Those that are not on USB: neither consoles nor ptys, nor places of the kernel for chips that are not there.
    folder = machine.sys / "class" / "tty"
    with suppress(OSError):
        for name in sorted(os.listdir(folder)):
            with suppress(OSError):
                target = os.readlink(folder / name)
                if "/virtual/" in target or "/usb" in target:
                    continue
                kind = folder / name / "type"
                if not kind.exists() or kind.read_text("ascii").strip() != "0":
                    yield name


def _place(tree: UsbTree, tty: UsbTty, link: str | None) -> str:
    if link is not None and tree.ambiguity(link) is None:
        return link
    ids = tree.identify(tty)
    place = f"usb:{ids.vendor}:{ids.product}" + (f":{ids.serial}" if ids.serial else "")
    with suppress(ValueError):  # a serial number with blanks at its ends
        if tree.find(parse_usb(place)) == [tty]:
            return place
    return tty.place


def _alias(dev: Path, name: str) -> str:
    for alias in ALIASES:
        with suppress(OSError):
            if os.path.basename(os.readlink(dev / alias)) == name:
                return str(dev / alias)
    return str(dev / name)


def _slug(text: str) -> str:
    return re.sub("[^a-z0-9]+", "-", text.lower()).strip("-") or "board"


def _unused(name: str, taken: Iterable[str]) -> str:
    number, free = 1, name
    while free in taken:
        number += 1
        free = f"{name}-{number}"
    return free
