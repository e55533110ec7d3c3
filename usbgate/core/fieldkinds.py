"""
Kinds of fields: the names of Home Assistant's device classes, and what each brings. The page has its words and icons.

Where Home Assistant uses a name for a measurement and for a state (`battery`, `gas`, `moisture`, `power`), it is the
measurement here; a field with `values` is a state in any case.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class FieldKind(NamedTuple):
    """
    A kind of field.

    Attributes:
        unit: The unit of its numbers; None for none.
        decimals: How many decimals the page shows; None for as many as the device sent.
        states: Whether it is a state, such as on or off, and no measurement.
    """

    unit: str | None = None
    decimals: int | None = None
    states: bool = False


FIELD_KINDS: Mapping[str, FieldKind] = {
    "apparent_power": FieldKind("VA", 0),
    "aqi": FieldKind(None, 0),
    "atmospheric_pressure": FieldKind("hPa", 0),
    "battery": FieldKind("%", 0),
    "carbon_dioxide": FieldKind("ppm", 0),
    "carbon_monoxide": FieldKind("ppm", 0),
    "current": FieldKind("A", 2),
    "distance": FieldKind("m", 2),
    "duration": FieldKind("s", 0),
    "energy": FieldKind("kWh", 2),
    "frequency": FieldKind("Hz", 1),
    "gas": FieldKind("m³", 2),
    "humidity": FieldKind("%", 0),
    "illuminance": FieldKind("lx", 0),
    "irradiance": FieldKind("W/m²", 0),
    "moisture": FieldKind("%", 0),
    "ph": FieldKind(None, 1),
    "pm1": FieldKind("µg/m³", 0),
    "pm10": FieldKind("µg/m³", 0),
    "pm25": FieldKind("µg/m³", 0),
    "power": FieldKind("W", 0),
    "precipitation": FieldKind("mm", 1),
    "pressure": FieldKind("hPa", 0),
    "signal_strength": FieldKind("dBm", 0),
    "sound_pressure": FieldKind("dB", 0),
    "speed": FieldKind("km/h", 0),
    "temperature": FieldKind("°C", 1),
    "volatile_organic_compounds": FieldKind("µg/m³", 0),
    "voltage": FieldKind("V", 1),
    "volume": FieldKind("L", 1),
    "water": FieldKind("m³", 2),
    "weight": FieldKind("kg", 1),
    "wind_direction": FieldKind("°"),
    "wind_speed": FieldKind("km/h", 0),
    **dict.fromkeys(
        [
            *("battery_charging", "cold", "connectivity", "door", "garage_door", "heat", "light", "lock", "motion"),
            *("moving", "occupancy", "opening", "outlet", "plug", "presence", "problem", "running", "safety"),
            *("smoke", "sound", "switch", "tamper", "vibration", "window"),
        ],
        FieldKind(states=True),
    ),
}
