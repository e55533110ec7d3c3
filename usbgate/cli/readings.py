"""
Show what `watch` sends to a person.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from rich.text import Text

from usbgate.cli.reader import Reader
from usbgate.cli.records import Record, alarm_record, event_record
from usbgate.cli.show import STATE_STYLES, TROUBLE
from usbgate.core.display import shown
from usbgate.core.fieldline import parse_value

ALARM_STYLE = "bold white on red"

COLUMN_LIMIT = 30  # characters of an id or a name, so that a row fits 80 columns


class ReadingRows:
    """
    Turns events into rows, and knows which fields have an active alarm.
    """

    def __init__(self, reader: Reader) -> None:
        """
        Ask the daemon for the alarms that are open.

        Args:
            reader: Knows the names and the units of sensors.
        """
        self._reader = reader
        alarms = map(alarm_record, reader.fetch("alarms"))
        self._id_width = _width(reader.sensors, 3)
        self._name_width = _width(map(reader.name, reader.sensors), 0)
        self._alarming = {(each["sensor"], each["field"]) for each in alarms if each["ended"] is None}

    def rows(self, line: str) -> list[Text]:
        """
        Return a row for each reading in a line of `watch`, or for a change of an alarm or of a device's state; none for
        any other line.
        """
        rows = self._rows(line)
        for row in rows:
            row.plain = shown(row.plain)
        return rows

    def _rows(self, line: str) -> list[Text]:
        event = event_record(line)
        if event is None:
            return []
        match event["event"]:
            case "reading":
                return [self._reading(event, field, value) for field, value in event["values"].items()]
            case "alarm":
                return [self._alarm(event)]
            case "device":
                row = Text(f"{'':10}{event['device']} is ")
                return [row.append(event["state"], STATE_STYLES.get(event["state"], TROUBLE))]
            case "dropped":
                return [Text(f"{'':10}{event['count']} events were dropped, since they were not read in time", TROUBLE)]
        return []

    def _reading(self, event: Record, field: str, value: float | str) -> Text:
        sensor = event["sensor"]
        number, text = (value, None) if isinstance(value, float) else parse_value(value)
        reading = {"sensor": sensor, "field": field, "value": number, "text": text}
        row = self._start(event["at"], sensor)
        row.append(f"{field:<9}", "dim")
        row.append(f"{self._reader.spell_value(reading):>9}", TROUBLE if (sensor, field) in self._alarming else "bold")
        if event["command"] is not None:
            row.append(f"  answers {event['command']}", "dim")
        return row

    def _alarm(self, event: Record) -> Text:
        key = (event["sensor"], event["field"])
        active = event["ended"] is None
        (self._alarming.add if active else self._alarming.discard)(key)
        row = self._start(event["at"], event["sensor"])
        what = f"{event['field']} {event['condition']}"
        if event["change"] == "acknowledged":
            return row.append(f"alarm acknowledged by {event['acknowledged']['by']}: {what}")
        return row.append(f"ALARM {event['change']}: {what}", ALARM_STYLE if active else "bold")

    def _start(self, at: str, sensor: str) -> Text:
        row = Text().append(f"{datetime.fromisoformat(at).astimezone():%H:%M:%S}  ", "dim")
        name = self._reader.name(sensor)
        return row.append(f"{sensor:>{self._id_width}} {name:<{self._name_width}}  ", "cyan")


def _width(texts: Iterable[str], least: int) -> int:
    # Of a column with these texts; a longer one shifts its row.
    return max([least, *(len(text) for text in texts if len(text) <= COLUMN_LIMIT)])
