"""
Examples of discovery messages, with which `tests.mqtt.test_discovery` compares. `python -m tests.support.discovery`
writes them anew, to be read before they are committed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from usbgate import __version__
from usbgate.core.condition import Condition
from usbgate.core.model import Button
from usbgate.core.settings import ControlSettings, FieldSettings, SensorSettings
from usbgate.mqtt.discovery import Discovery
from usbgate.mqtt.entities import Field
from usbgate.testing import reading

FOLDER = Path(__file__).parents[1] / "mqtt" / "discovery"

ON, OFF, SET = Button("", "ON"), Button("", "OFF"), Button("", "L", {"LEVEL": "{}"})


def field(name: str, value: float | str, text: str | None = None, was_number: bool = False, **about: Any) -> Field:
    """
    Make a field with a reading.
    """
    return Field(reading(value, field=name, text=text), FieldSettings(**about), was_number)


def message(
    settings: SensorSettings | None = None,
    *fields: Field,
    sensor: str = "20",
    gateway: str = "home",
    known: Mapping[str, FieldSettings] | None = None,
    **options: Any,
) -> dict[str, Any]:
    """
    Return the message of a sensor of the leonardo.
    """
    discovery = Discovery(gateway, **options)
    return discovery.sensor_message(sensor, "leonardo", settings or SensorSettings(), fields, known or {})


MESSAGES: Mapping[str, dict[str, Any]] = {
    "gateway": Discovery("home").gateway_message(["leonardo", "rf.2"]),
    "measurements": message(
        SensorSettings(name="Bedroom", place="First floor", stale=90.5),
        field("TEMP", 21.5, kind="temperature", unit="°C", decimals=1, label={"en": "Air", "fr": "Air ambiant"}),
        field("HUM", 45.0, kind="humidity", unit="%RH"),
        field("P", 1013.0, kind="atmospheric_pressure", unit="hpa"),
        field("CO2", 500.0, "500ppm"),
        field("DUST", 5.0, kind="pm25", unit="ug/m3"),
        field("LIGHT", 80.0, kind="illuminance", unit="%"),
        field("PH", 7.0, kind="ph"),
        field("LEVEL", 3.0),
        field("WIND", 350.0, kind="wind_direction", unit="°"),
        field("LATITUDE", 48.1, unit="°"),
        field("PROBE", "nan", was_number=True),
        language="fr",
    ),
    "counters": message(
        None,
        field("KWH", 1234.5, kind="energy", unit="KWh", decimals=2, never_falls=True),
        field("WH", 1234.5, kind="energy", unit="Wh"),
        field("RAIN", 5.0, kind="precipitation", unit="mm", never_falls=True),
        field("TURNS", 5.0, never_falls=True),
        field("TEMP", 5.0, kind="temperature", unit="°C", never_falls=True),
        sensor="météo/1+#",
        gateway="Chez nous",
    ),
    "states": message(
        SensorSettings(name="Cellar", fields={"SMOKE": FieldSettings(kind="smoke", alarm=Condition("==", 1.0))}),
        field("SMOKE", 0.0, kind="smoke"),
        field("DOOR", 1.0, kind="door", values={"0": "open", "1": {"en": "closed", "fr": "fermée"}}),
        field("WINDOW", 1.0, kind="window", label="Small window"),
        field("BAT", "LOW", kind="battery", values={"OK": "ok", "LOW": "low"}),
        field("CELL", "OK", kind="battery"),
        field("CHARGE", 2.0, kind="battery", values={"0": "low", "1": "half", "2": "full"}),
        field("RELAY", 1.0, kind="switch"),
        field("MODE", 2.0, values={"0": "off", "2": "é😀 \\ \" ' {{ }} {% #}"}),
        field("VERSION", "1.0.2"),
        field("SERIAL", 815.0, "0815"),
    ),
    "controls": message(
        SensorSettings(
            commands=(Button("Lamp on", "ON"), Button("Half", "L", {"LEVEL": "50"})),
            controls={
                "Relay": ControlSettings(type="switch", on=ON, off=OFF, state="RELAY"),
                "Blind relay": ControlSettings(type="switch", on=ON, off=OFF),
                "Lamp": ControlSettings(type="light", on=ON, off=OFF),
                "Dimmer": ControlSettings(type="light", on=ON, off=OFF, state="L", set=SET, level="L", max=255.0),
                "Gate": ControlSettings(type="cover", open=ON, close=OFF, state="GATE"),
                "Blind": ControlSettings(type="cover", open=ON, close=OFF, stop=ON, state="POS", set=SET, min=5.0),
                "Setpoint": ControlSettings(type="number", set=SET, state="T", max=30.0, step=0.5),
                "Mode": ControlSettings(
                    type="select", set=Button("", "{{M", {"M": "{}", "X": "{%"}), state="M", options=("A", "{{B")
                ),
            },
        ),
        known={"GATE": FieldSettings(values={"0": "open", "1": "closed"})},
        prefix="ha/discovery",
    ),
}


def main() -> None:
    """
    Write the examples.
    """
    FOLDER.mkdir(exist_ok=True)
    for name, example in MESSAGES.items():
        (FOLDER / f"{name}.json").write_text(spell(example))


def spell(example: dict[str, Any]) -> str:
    """
    Return what the file of an example has: the same for each release.
    """
    text = json.dumps(example, indent=2, ensure_ascii=False) + "\n"
    return text.replace(f'"sw_version": "{__version__}"', '"sw_version": "VERSION"')


if __name__ == "__main__":
    main()
