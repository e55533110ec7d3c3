"""
The links to the devices, each with its dialect, which completes what is configured.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from msgspec.structs import replace

from usbgate.config.devices import with_defaults
from usbgate.config.fields import KNOWN_KEYS, decode_fields
from usbgate.config.settings import DEVICE_KEYS, DeviceSettings, Settings
from usbgate.config.types import ConfigError
from usbgate.core.clock import IClock
from usbgate.core.model import DeviceWarning
from usbgate.core.rules import Rules
from usbgate.core.settings import FieldSettings, SensorSettings
from usbgate.daemon.kept import KeptTable
from usbgate.device.endpoint import open_device
from usbgate.device.finddialect import make_dialect
from usbgate.device.interfaces import IDialect
from usbgate.device.link import Link
from usbgate.device.portusers import find_users_in_thread
from usbgate.device.serialport import PortSettings
from usbgate.device.tapport import TapPort
from usbgate.device.usb import UsbTree
from usbgate.gateway.gateway import Gateway


class WrongDevice(ConfigError):
    """
    A device or its dialect cannot be made as configured; the text begins with the key.
    """


def make_links(
    reactor: Any,
    settings: Settings,
    devices: Mapping[str, DeviceSettings],
    gateway: Gateway,
    patience: Mapping[str, float],
    clock: IClock,
) -> list[Link]:
    """
    Make a link to each device, and give it to the gateway.

    Args:
        reactor: The reactor.
        settings: The configuration.
        devices: The devices, by name.
        gateway: Receives what the devices send.
        patience: See `sensor_patience`; it may change.
        clock: The wall clock.

    Raises:
        WrongDevice: A device or its dialect cannot be made as configured.
    """
    usb = UsbTree()
    links = []
    for name, configured in devices.items():
        dialect, device, fields = _dialect(name, configured)
        dialect.device = name
        dialect.tags = device.tags
        dialect.now = lambda: clock.wall() / 1000
        dialect.kept = KeptTable(settings.state / "kept" / f"{name}.json")
        link = _link(reactor, name, device, dialect, usb)
        rules = _rules(settings, device, dialect, patience)
        gateway.add_link(link, rules, partial(_warnings, link, usb, device.path), device.store, fields)
        links.append(link)
    return links


def _dialect(name: str, configured: DeviceSettings) -> tuple[IDialect, DeviceSettings, Mapping[str, FieldSettings]]:
    try:
        dialect = make_dialect(configured.dialect, configured.options, DEVICE_KEYS)
        device = with_defaults(configured, dialect.defaults)
        if dialect.alone and device.window > 1:
            raise ConfigError(f"window: expected 1, since answers of {device.dialect} do not say what they answer")
        known = decode_fields("dialect.fields.", dialect.fields, KNOWN_KEYS)
        fields = {field: replace(about, rank=rank) for rank, (field, about) in enumerate(known.items())}
        return dialect, device, fields
    except (ValueError, ConfigError) as error:
        raise WrongDevice(f"device.{name}.{error}") from None


def _link(reactor: Any, name: str, device: DeviceSettings, dialect: IDialect, usb: UsbTree) -> Link:
    port = PortSettings(device.baud, device.line, device.flow, keep_dtr=device.reset == "never")
    try:
        endpoint = open_device(reactor, device.path, port, usb)
    except (ValueError, TypeError) as error:
        raise WrongDevice(f"device.{name}.path: {device.path}: {error}") from None
    return Link(
        reactor,
        endpoint,
        name,
        device.path,
        dialect,
        silence=device.silence,
        reset_silent=device.reset == "silent",
        repeats=device.repeats,
        gap=device.gap,
        describe=partial(usb.describe_board, keep_dtr=device.reset == "never"),
        find_users=find_users_in_thread,
        tap=None if device.tap is None else TapPort(name, str(device.tap)),
    )


def _warnings(link: Link, usb: UsbTree, path: str) -> list[DeviceWarning]:
    return [each for each in (link.warning, usb.ambiguity(path)) if each is not None]


def _rules(
    settings: Settings, device: DeviceSettings, dialect: IDialect, sensor_patience: Mapping[str, float]
) -> Rules:
    return Rules(
        window=device.window,
        buffer=device.buffer,
        tags=device.tags,
        named=dialect.named,
        settle=device.settle,
        patience=device.patience,
        sensor_patience=sensor_patience,
        once=frozenset(name for name, about in settings.commands.items() if not about.coalesce),
        retries={name: about.retries for name, about in settings.commands.items() if about.retries is not None},
        fields={name: about.fields for name, about in settings.commands.items() if about.fields},
    )


def sensor_patience(sensors: Mapping[str, SensorSettings]) -> dict[str, float]:
    """
    Return the seconds to wait for an answer, by sensor, where they are configured.
    """
    return {sensor: about.patience for sensor, about in sensors.items() if about.patience is not None}
