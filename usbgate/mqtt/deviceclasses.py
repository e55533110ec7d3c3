"""
Home Assistant's device classes of measurements, and how it spells their units.

It refuses an entity with a unit that does not belong to its class. So a class is used only with units that Home
Assistant 2025.4 and 2026.11 both accept, and a field with any other unit has none.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

# How people and devices spell units, and how Home Assistant does. Its `µ` is U+00B5, except in `μs`.
_SPELLINGS: Mapping[str, str] = {
    **dict.fromkeys(["C", "ºC", "℃", "degC", "deg C", "Celsius", "celsius"], "°C"),
    **dict.fromkeys(["F", "ºF", "℉", "degF", "deg F", "Fahrenheit", "fahrenheit"], "°F"),
    **dict.fromkeys(["%RH", "%rH", "% RH", "RH%", "percent"], "%"),
    **dict.fromkeys(["lux", "Lux", "LUX"], "lx"),
    **dict.fromkeys(["m3", "m^3", "cbm"], "m³"),
    **dict.fromkeys(["m3/h", "m^3/h"], "m³/h"),
    **dict.fromkeys(["l", "ltr", "litre", "litres", "liter", "liters"], "L"),
    **dict.fromkeys(["l/min", "lpm"], "L/min"),
    **dict.fromkeys(["ug/m3", "ug/m³", "ug/m^3", "µg/m3", "µg/m^3", "μg/m3", "μg/m³", "μg/m^3"], "µg/m³"),
    **dict.fromkeys(["us", "µs"], "μs"),
    **dict.fromkeys(["uS/cm", "μS/cm"], "µS/cm"),
    **dict.fromkeys(["uV", "μV"], "µV"),
    **dict.fromkeys(["W/m2", "W/m^2"], "W/m²"),
    **dict.fromkeys(["dB(A)", "db(A)"], "dBA"),
    **dict.fromkeys(["kmh", "kph", "km/hr"], "km/h"),
    **dict.fromkeys(["kt", "kts", "knots"], "kn"),
    **dict.fromkeys(["sec", "secs", "second", "seconds"], "s"),
    **dict.fromkeys(["mins", "minute", "minutes"], "min"),
    **dict.fromkeys(["hour", "hours", "hr", "hrs"], "h"),
    **dict.fromkeys(["day", "days"], "d"),
    **dict.fromkeys(["deg", "degrees"], "°"),
    "Ohm": "Ω",
    "ohm": "Ω",
    "RPM": "rpm",
}


class DeviceClass(NamedTuple):
    """
    A device class of measurements.

    Attributes:
        units: The units that its entities may have; empty if they have none.
        state: Their usual state class.
        counted: Whether they may be totals that increase.
    """

    units: frozenset[str]
    state: str = "measurement"
    counted: bool = False


def _class(units: str, state: str = "measurement", counted: bool = False) -> DeviceClass:
    return DeviceClass(frozenset(units.split()), state, counted)


def _total(units: str) -> DeviceClass:
    return _class(units, "total", True)


_PRESSURE = "Pa hPa kPa bar cbar mbar mmHg inHg psi"
_SPEED = "m/s km/h mph kn ft/s mm/s in/s Beaufort"

# By the names of `FIELD_KINDS`, which are those of Home Assistant.
DEVICE_CLASSES: Mapping[str, DeviceClass] = {
    "apparent_power": _class("VA"),
    "aqi": _class(""),
    "atmospheric_pressure": _class(_PRESSURE),
    "battery": _class("%"),
    "carbon_dioxide": _class("ppm"),
    "carbon_monoxide": _class("ppm"),
    "current": _class("A mA"),
    "distance": _class("mm cm m km in ft yd mi nmi", counted=True),
    "duration": _class("μs ms s min h d", counted=True),
    "energy": _total("mWh Wh kWh MWh GWh TWh J kJ MJ GJ cal kcal Mcal Gcal"),
    "frequency": _class("Hz kHz MHz GHz"),
    "gas": _total("m³ ft³ CCF"),
    "humidity": _class("%"),
    "illuminance": _class("lx"),
    "irradiance": _class("W/m²"),
    "moisture": _class("%"),
    "ph": _class(""),
    "pm1": _class("µg/m³"),
    "pm10": _class("µg/m³"),
    "pm25": _class("µg/m³"),
    "power": _class("mW W kW MW GW TW"),
    "precipitation": _class("mm cm in", counted=True),
    "pressure": _class(_PRESSURE),
    "signal_strength": _class("dB dBm"),
    "sound_pressure": _class("dB dBA"),
    "speed": _class(_SPEED),
    "temperature": _class("°C °F K"),
    "volatile_organic_compounds": _class("µg/m³"),
    "voltage": _class("µV mV V kV MV"),
    "volume": _total("L mL m³ ft³ gal CCF"),
    "water": _total("L m³ ft³ gal CCF"),
    "weight": _class("µg mg g kg oz lb st", counted=True),
    "wind_direction": _class("°", "measurement_angle"),
    "wind_speed": _class(_SPEED),
}

NO_CLASS = DeviceClass(frozenset(), counted=True)


def spell_unit(unit: str, kind: str | None = None) -> str:
    """
    Return a unit as Home Assistant spells it; as it is, if Home Assistant has no such unit.

    Args:
        unit: The unit, as a person or a device spells it.
        kind: What it measures; then upper and lower case make no difference where that leaves one unit.
    """
    spelled = _SPELLINGS.get(unit, unit)
    units = DEVICE_CLASSES.get(kind or "", NO_CLASS).units
    if spelled not in units:
        alike = [each for each in units if each.casefold() == spelled.casefold()]
        if len(alike) == 1:
            return alike[0]
    return spelled


def device_class(kind: str | None, unit: str | None) -> str | None:
    """
    Return the device class of a measurement; None if none accepts its unit.

    Args:
        kind: What it measures (`FIELD_KINDS`).
        unit: Its unit, as `spell_unit` returns it.
    """
    known = DEVICE_CLASSES.get(kind or "")
    accepted = known is not None and (unit in known.units if unit is not None else not known.units)
    return kind if accepted else None


def state_class(kind: str | None, unit: str | None, never_falls: bool) -> str | None:
    """
    Return what Home Assistant's statistics make of a measurement; None for nothing.

    Args:
        kind: Its device class; None for none.
        unit: Its unit.
        never_falls: Whether it is a counter that only starts again, and never falls otherwise.
    """
    about = DEVICE_CLASSES.get(kind or "", NO_CLASS)
    if never_falls and about.counted:
        return "total_increasing"
    return None if kind is None and unit == "°" else about.state  # the mean of 1° and 359° is not 180°
