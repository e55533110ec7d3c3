"""
Get a serial port for a command: from the daemon, which lends it, or from the system if no daemon has it.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import click

from usbgate.cli.connection import TIMEOUT, NoDaemon, parse_data, send_word
from usbgate.cli.reach import load_settings, reach_running
from usbgate.cli.records import Record, device_record

if TYPE_CHECKING:
    from usbgate.config.settings import DeviceSettings


class Borrowed(NamedTuple):
    """
    A port that nobody else uses meanwhile.

    Attributes:
        path: The path of its tty.
        place: What the configuration should call it: as the command was given it, or as it is configured.
        device: What is configured of it, with the defaults of its dialect; None if nothing is.
        name: What the configuration, or the daemon, calls it; None if neither knows it.
        is_lent: Whether the daemon lends it.
    """

    path: str
    place: str
    device: DeviceSettings | None
    name: str | None
    is_lent: bool


@contextmanager
def borrowed(config: Path | None, port: int | None, wanted: str | None) -> Iterator[Borrowed]:
    """
    Borrow a port until the end of the context.

    Args:
        config: The configuration file; None for the one found.
        port: The daemon's port; None for the configured one.
        wanted: The name of a device, its path or USB name; None for the only one.

    Raises:
        ClickException: There is no such device, or it has no serial port.
        AskError: The daemon does not lend it.
    """
    devices = load_settings(config).devices
    wanted = wanted or _only(devices)
    name = wanted if wanted in devices else next((name for name in devices if _same(devices[name].path, wanted)), None)
    device = None if name is None else devices[name]
    place = wanted if device is None else device.path
    with ExitStack() as stack:
        try:
            connection = reach_running(config, None, port)
        except NoDaemon:
            lender = None
        else:
            stack.callback(connection.close)
            lines = list(send_word(connection, "devices", TIMEOUT))
            known = [device_record(parse_data(line)) for line in lines]
            lender = _lender(known, (wanted, name), place)
        if lender is None:
            path = _tty(place)
        else:
            name = str(lender["name"])
            (lease,) = send_word(connection, f"lend {name}", TIMEOUT)
            path = parse_data(lease)["PORT"]
            if device is None:  # it may be wanted by the name that the daemon has for it
                place = lender["path"] or path
        yield Borrowed(path, place, None if device is None else _complete(device), name, lender is not None)


def _only(devices: Mapping[str, DeviceSettings]) -> str:
    from usbgate.config.devices import only_device
    from usbgate.config.types import ConfigError

    if len(devices) > 1:
        raise click.UsageError(f"several devices are configured; choose one of: {', '.join(devices)}")
    if devices:
        return next(iter(devices))
    try:
        return only_device()[1].path
    except ConfigError as error:
        raise click.UsageError(str(error)) from None


def _lender(known: Iterable[Record], names: Collection[str | None], place: str) -> Record | None:
    for record in known:
        if record["name"] in names or (record["path"] is not None and _same(record["path"], place)):
            return record
    return None


def _same(path: str, other: str) -> bool:
    return path == other or os.path.realpath(path) == os.path.realpath(other)


def _tty(place: str) -> str:
    from usbgate.device.usb import UsbTree, is_usb, parse_usb

    if is_usb(place):
        tree = UsbTree()
        try:
            found = tree.find(parse_usb(place))
        except ValueError as error:
            raise click.UsageError(f"{place}: {error}") from None
        if len(found) > 1:
            raise click.ClickException(f"{place}: {tree.describe_ambiguity(found)}")
        if not found:
            raise click.ClickException(f"{place}: no such device; `usbgate devices --all` lists those that are there")
        return tree.path(found[0])
    if place.startswith("/") or os.path.exists(place):
        return os.path.abspath(place)
    raise click.ClickException(
        f"{place}: neither a device nor the path of a serial port; `usbgate devices --all` lists those that are there"
    )


def _complete(device: DeviceSettings) -> DeviceSettings:
    from usbgate.config.devices import with_defaults
    from usbgate.config.types import ConfigError
    from usbgate.device.finddialect import make_dialect

    try:
        return with_defaults(device, make_dialect(device.dialect, device.options).defaults)
    except (ValueError, ConfigError):  # the daemon says what is wrong; the port does not need the dialect
        return device
