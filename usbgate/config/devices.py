"""
Devices on the command line: `--device SPEC`, or the only serial device of this machine.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from msgspec.structs import replace

from usbgate.config.settings import DEVICE_KEYS, DeviceSettings
from usbgate.config.types import ConfigError, convert, decode, refuse
from usbgate.core.kinds import DeviceName, kind_of

_PATH = DEVICE_KEYS["path"]
_DEFAULT_KEYS = {key: kind for key, kind in DEVICE_KEYS.items() if key not in ("path", "dialect", "tap")}
_KEY_AT_END = re.compile("(.*),([A-Za-z][A-Za-z0-9_-]*)=([^,]*)")
_SPEC_KEYS = {**{key: kind for key, kind in DEVICE_KEYS.items() if key != "path"}, "name": kind_of(DeviceName)}


def parse_device(spec: str) -> tuple[str, DeviceSettings]:
    """
    Parse the SPEC of `--device`: a path, USB device or Twisted client endpoint string, then `,key=value` for its keys.

    Keys that usbgate does not know are options of the dialect, which checks them; their values are texts, or true or
    false. What stands before the keys may itself have commas and colons.

    Returns:
        The device's name, which is given or made from the path, and the device.

    Raises:
        ConfigError: Something is wrong.
    """
    where = f"--device {spec}"
    place = spec
    given: dict[str, str] = {}
    while match := _KEY_AT_END.fullmatch(place):
        place, key, value = match.groups()
        if key in given:
            raise ConfigError(f"{where}: {key}: given twice")
        given[key] = value
    options: dict[str, object] = {
        key: {"true": True, "false": False}.get(value, value)
        for key, value in reversed(given.items())
        if key not in _SPEC_KEYS
    }
    keys = {
        key: convert(f"{where}: {key}", value, _SPEC_KEYS[key], strict=False)
        for key, value in given.items()
        if key not in options
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
    if "tap" in keys:
        keys["tap"] = Path(os.path.abspath(keys["tap"]))
    device = DeviceSettings(path=place, **keys, options=options, given=frozenset(keys))
    check_reset(device, f"{where}: ")
    return name, device


def with_defaults(device: DeviceSettings, defaults: Mapping[str, object]) -> DeviceSettings:
    """
    Complete what is configured of a device by the defaults of its dialect.

    Args:
        device: What is configured.
        defaults: Keys and values as in the file (`IDialect.defaults`).

    Raises:
        ConfigError: A default is wrong, or does not go with what is configured; the text begins with the key.
    """
    known = decode("", defaults, _DEFAULT_KEYS)
    completed = replace(device, **{key: value for key, value in known.items() if key not in device.given})
    check_reset(completed, "")
    return completed


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
