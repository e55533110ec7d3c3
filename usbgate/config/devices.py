"""
Devices on the command line: `--device SPEC`, or the only serial device of this machine.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path

from usbgate.config.dialects import check_options, option_names
from usbgate.config.settings import DEVICE_KEYS, DeviceSettings
from usbgate.config.types import ConfigError, convert, refuse
from usbgate.core.kinds import DeviceName, kind_of

DEFAULT_DIALECT = DeviceSettings(path="").dialect

_PATH = DEVICE_KEYS["path"]
_SPEC_KEYS = {**{key: kind for key, kind in DEVICE_KEYS.items() if key != "path"}, "name": kind_of(DeviceName)}


def parse_device(spec: str) -> tuple[str, DeviceSettings]:
    """
    Parse the SPEC of `--device`: a path, USB device or Twisted client endpoint string, then `,key=value` for its keys.

    Known keys, and options of the dialect, are taken off the end, since a path may itself have commas and colons.

    Returns:
        The device's name, which is given or made from the path, and the device.

    Raises:
        ConfigError: Something is wrong.
    """
    where = f"--device {spec}"
    place = spec
    given: dict[str, str] = {}
    options = _options(where, spec)
    while True:
        rest, comma, last = place.rpartition(",")
        key, equals, value = last.partition("=")
        if not comma or not equals:
            break
        if key not in _SPEC_KEYS and key not in options:
            if near := get_close_matches(key, [*_SPEC_KEYS, *options], 1, 0.7):
                raise ConfigError(f"{where}: {key}: unknown key, did you mean {near[0]}?")
            break
        if key in given:
            raise ConfigError(f"{where}: {key}: given twice")
        given[key] = value
        place = rest
    chosen: dict[str, object] = {
        key: {"true": True, "false": False}.get(given[key], given[key]) for key in options if key in given
    }
    keys = {
        key: convert(f"{where}: {key}", value, _SPEC_KEYS[key], strict=False)
        for key, value in given.items()
        if key not in chosen
    }
    place = convert(where, place, _PATH)
    if place.startswith(("/", ".")):
        place = os.path.abspath(place)
        name = os.path.basename(place)
    else:
        name = place
    name = keys.pop("name", None) or re.sub("[^A-Za-z0-9.:-]", "-", name)
    if not name:
        refuse(where, _PATH.expected, spec)
    device = DeviceSettings(path=place, **keys, options=chosen)
    check_reset(device, f"{where}: ")
    if chosen:
        try:
            check_options(device.dialect, chosen, DEVICE_KEYS)
        except ValueError as error:
            raise ConfigError(f"{where}: {error}") from None
    return name, device


def _options(where: str, spec: str) -> Sequence[str]:
    named = re.search(",dialect=([^,]*)", spec)
    dialect = convert(f"{where}: dialect", named[1], _SPEC_KEYS["dialect"]) if named else DEFAULT_DIALECT
    return option_names(dialect)


def parse_devices(specs: Sequence[str]) -> dict[str, DeviceSettings]:
    """
    Parse all `--device` options; see `parse_device`.
    """
    devices: dict[str, DeviceSettings] = {}
    for spec in specs:
        name, device = parse_device(spec)
        if name in devices:
            raise ConfigError(f"--device {spec}: name: {name} is taken by another device; add ,name=ANOTHER")
        devices[name] = device
    check_paths(devices, "--device: ")
    return devices


def check_reset(device: DeviceSettings, where: str) -> None:
    """
    Check that a device that is reset when it is silent can become silent.

    Raises:
        ConfigError: It cannot; the text begins with `where`.
    """
    if device.reset == "silent" and device.silence is None:
        raise ConfigError(f'{where}reset: "silent" requires silence, the time without a line after which it is reset')


def check_paths(devices: Mapping[str, DeviceSettings], where: str) -> None:
    """
    Check that no two devices have the same path.

    Args:
        devices: By name.
        where: What an error begins with.

    Raises:
        ConfigError: Two have.
    """
    owners: dict[str, str] = {}
    for name, device in devices.items():
        owner = owners.setdefault(device.path, name)
        if owner != name:
            raise ConfigError(f"{where}device.{name}.path: {device.path} is already the path of {owner}")


def only_device(folder: str = "/dev") -> tuple[str, DeviceSettings]:
    """
    Find the only serial device of this machine.

    Returns:
        Its name and the device.

    Raises:
        ConfigError: There is none, or there are several.
    """
    found = sorted(str(path) for kind in ("ttyACM*", "ttyUSB*") for path in Path(folder).glob(kind))
    if not found:
        raise ConfigError(
            f"no serial device: there is no {folder}/ttyACM* and no {folder}/ttyUSB*;"
            " connect one, or name one: [device.NAME] in the configuration, or `twistd usbgate --device PATH`"
        )
    if len(found) > 1:
        raise ConfigError(
            f'several serial devices: {", ".join(found)}; choose: [device.NAME] with path = "{found[0]}" in the'
            f" configuration, or `twistd usbgate --device {found[0]}`"
        )
    return parse_device(found[0])
