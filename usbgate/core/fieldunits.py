"""
The unit of each field whose numbers have one: a field with two units is text (protocol §5).

Pure rules with bounded memory.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from usbgate.core.containers import BoundedDict
from usbgate.core.fieldline import parse_value, unit_of
from usbgate.core.model import Reading

FIELDS_REMEMBERED = 10_000  # as many as there are sensors remembered; a forgotten field starts again

Series = tuple[str, str, str]  # a device, a sensor and a field


class UnitChange(NamedTuple):
    """
    A field came with another unit than before.
    """

    device: str
    sensor: str
    field: str
    before: str
    unit: str


class FieldUnits:
    """
    The units of the fields of all devices.

    Attributes:
        mixed: The fields that had two units; their values are texts. Usually there are none.
    """

    def __init__(self) -> None:
        self.mixed: BoundedDict[Series, None] = BoundedDict(FIELDS_REMEMBERED)
        self._units: BoundedDict[Series, str] = BoundedDict(FIELDS_REMEMBERED)

    def received(self, series: Series, text: str) -> UnitChange | None:
        """
        Record a value with a text beside its number.

        Returns:
            The change, if this is the first value with another unit; the field is mixed from now on.
        """
        unit = unit_of(text)
        if not unit or series in self.mixed:
            return None
        before = self._units.get(series, unit)
        self._units.remember(series, unit)
        if before == unit:
            return None
        self.mixed.remember(series, None)
        return UnitChange(*series, before, unit)

    def restore(self, readings: Iterable[Reading]) -> None:
        """
        Derive the units from the newest stored readings.
        """
        for reading in readings:
            if reading.text is None or parse_value(reading.text)[0] is None:
                continue
            series = (reading.device, reading.sensor, reading.field)
            if reading.value is None:
                self.mixed.remember(series, None)
            elif (unit := unit_of(reading.text)) and series not in self._units:
                self._units.remember(series, unit)
