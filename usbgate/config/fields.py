"""
Fields, as the configuration of a sensor or a dialect describes them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from usbgate.config.settings import FIELD_KEYS
from usbgate.config.types import ConfigError, decode, refuse
from usbgate.core.fieldkinds import FIELD_KINDS
from usbgate.core.fieldnames import read_name
from usbgate.core.kinds import Kind
from usbgate.core.settings import FieldSettings

CALIBRATION_KEYS = ("offset", "scale", "min", "max")

# What a dialect may say of a field: when to raise an alarm, and what to correct, is for the user to decide.
KNOWN_KEYS = {key: kind for key, kind in FIELD_KEYS.items() if key not in ("alarm", *CALIBRATION_KEYS)}


def decode_fields(
    where: str, tables: Mapping[str, Mapping[str, Any]], keys: Mapping[str, Kind] = FIELD_KEYS
) -> dict[str, FieldSettings]:
    """
    Parse the tables of fields.

    Args:
        where: What an error begins with; the name of the field follows.
        tables: By the fields' names, as in the file.
        keys: The known keys.

    Returns:
        The fields, by name in upper case.

    Raises:
        ConfigError: Something is wrong.
    """
    known: dict[str, FieldSettings] = {}
    for name, table in tables.items():
        if not (field := read_name(name)):
            refuse(f"{where}{name}", "the name of a field such as TEMP", name)
        if field in known:
            raise ConfigError(f"{where}{name}: the same field as another: {field}")
        known[field] = _field(f"{where}{name}.", table, keys)
    return known


def _field(where: str, table: Mapping[str, Any], keys: Mapping[str, Kind]) -> FieldSettings:
    given = decode(where, table, keys)
    if "kind" in given and not given.get("values"):
        kind = FIELD_KINDS[given["kind"]]
        given = {"unit": kind.unit, "decimals": kind.decimals, **given}
    field = FieldSettings(**given)
    if field.states and (calibrated := [key for key in CALIBRATION_KEYS if key in given]):
        raise ConfigError(f"{where}{calibrated[0]}: for numbers, but the values of this field are states: leave it out")
    if field.min is not None and field.max is not None and field.min > field.max:
        raise ConfigError(f"{where}min: above max, so that no value would be shown")
    return field
