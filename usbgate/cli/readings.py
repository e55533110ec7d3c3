"""
Show what `watch` sends to a person.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from rich.text import Text

from usbgate.core.errors import Malformed
from usbgate.core.fieldline import parse, parse_value
from usbgate.core.settings import FieldSettings, SensorSettings


def rows(line: str, sensors: Mapping[str, SensorSettings]) -> list[Text]:
    """
    Return a row for each reading in a line of `watch`, or for a change of a device's state; none for any other line.

    Args:
        line: The line.
        sensors: The configured sensors, by id: their names, units and alarms.
    """
    try:
        fields = parse(line.encode())
    except Malformed:
        return []
    event = fields.pop("EVENT", "")
    if event == "device":
        return [Text(f"          {fields.get('DEV')} is {fields.get('STATE')}", "dim")]
    if event != "reading":
        return []
    sensor = fields.pop("ID")
    at = datetime.fromisoformat(fields.pop("AT")).astimezone()
    command = fields.pop("MSG", None)
    about = sensors.get(sensor, SensorSettings())
    return [_row(at, sensor, about, field, value, command) for field, value in fields.items()]


def _row(at: datetime, sensor: str, about: SensorSettings, field: str, value: str, command: str | None) -> Text:
    row = Text(f"{at:%H:%M:%S}  ", "dim")
    row.append(f"{sensor:>3} {about.name or '':<20}  ", "cyan")
    row.append(f"{field:<9}", "dim")
    unit = (parse_value(value)[0] is not None and about.fields.get(field, FieldSettings()).unit) or ""
    row.append(f"{value:>6} {unit:<2}", "red" if (field, value) == ("SMOKE", "1") else "bold")
    if command is not None:
        row.append(f"  answers {command}", "dim")
    row.rstrip()
    return row
