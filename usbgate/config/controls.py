"""
Controls, as the configuration of a sensor describes them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from usbgate.config.settings import CONTROL_KEYS
from usbgate.config.types import ConfigError, convert, decode, refuse
from usbgate.core.kinds import Text, kind_of
from usbgate.core.settings import ControlSettings

# By type, the keys that a control must have, and those that it may have.
_KEYS: Mapping[str, tuple[str, str]] = {
    "switch": ("on off", "state"),
    "light": ("on off", "state set level max"),
    "cover": ("open close", "state stop set min max"),
    "number": ("set", "state min max step"),
    "select": ("set options", "state"),
}

# A key without which another has no meaning.
_ONLY_WITH = {("light", "level"): "set", ("light", "max"): "set", ("cover", "set"): "state"}
_ONLY_WITH |= {("cover", "min"): "set", ("cover", "max"): "set"}


def decode_control(where: str, name: str, table: Mapping[str, Any]) -> ControlSettings:
    """
    Parse the table of a control.

    Args:
        where: What an error begins with; the name of the control follows.
        name: Its name.
        table: As in the file.

    Raises:
        ConfigError: Something is wrong.
    """
    convert(f"{where}{name}", name, kind_of(Text))
    where = f"{where}{name}."
    given = decode(where, table, CONTROL_KEYS)
    if "type" not in given:
        raise ConfigError(f"{where}type: missing, expected {CONTROL_KEYS['type'].expected}")
    kind = given["type"]
    required, optional = (each.split() for each in _KEYS[kind])
    for key in given:
        if key not in ("type", *required, *optional):
            raise ConfigError(f"{where}{key}: not for a {kind}, expected {', '.join([*required, *optional])}")
        needed = _ONLY_WITH.get((kind, key), key)
        if needed not in given:
            raise ConfigError(f"{where}{key}: only with {needed}")
    for key in required:
        if key not in given:
            raise ConfigError(f"{where}{key}: missing, expected {CONTROL_KEYS[key].expected}")
    control = ControlSettings(**given)
    if control.min >= control.max:
        refuse(f"{where}max", f"more than min, which is {control.min:g}", control.max)
    if kind in ("light", "cover") and not (control.min.is_integer() and control.max.is_integer()):
        raise ConfigError(f"{where}max: expected whole numbers for a {kind}")
    return control
