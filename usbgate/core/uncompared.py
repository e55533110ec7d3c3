"""
Conditions with which readings can't be compared, as a number with `nan` (protocol §5).
"""

from __future__ import annotations

from collections.abc import Set
from typing import NamedTuple

from usbgate.core.condition import Condition
from usbgate.core.model import Reading

UNCOMPARED_LIMIT = 20  # readings in a row after which a condition that they cannot be compared with is shown

_Series = tuple[str, str, str]  # a device, a sensor and a field


class Uncompared(NamedTuple):
    """
    A condition with which the newest readings of a field could not be compared.

    Attributes:
        device: The device that sent them.
        sensor: The sensor.
        field: The field.
        condition: The condition.
        readings: How many in a row.
        text: The last one.
    """

    device: str
    sensor: str
    field: str
    condition: str
    readings: int
    text: str | None


class UncomparedFields:
    """
    The fields whose newest readings could not be compared with their conditions.

    Attributes:
        counted: These, by device, sensor and field; as many as devices times conditions at most.
    """

    def __init__(self) -> None:
        self.counted: dict[_Series, Uncompared] = {}
        self._logged: set[_Series] = set()
        self._unlogged: list[Uncompared] = []

    def count(self, condition: Condition, reading: Reading) -> None:
        """
        Count a reading that can't be compared with its condition.
        """
        series = (reading.device, reading.sensor, reading.field)
        before = self.counted.get(series)
        count = 1 if before is None else before.readings + 1
        self.counted[series] = now = Uncompared(*series, str(condition), count, reading.text)
        if count == UNCOMPARED_LIMIT and series not in self._logged:
            self._logged.add(series)
            self._unlogged.append(now)

    def forget(self, series: _Series) -> None:
        """
        Record that a reading was compared.
        """
        self.counted.pop(series, None)

    def restart(self, fields: Set[tuple[str, str]]) -> None:
        """
        Begin anew with fields (each a sensor and a field) that have another condition now.
        """
        for series in [*self.counted, *self._logged]:
            if series[1:] in fields:
                self.counted.pop(series, None)
                self._logged.discard(series)

    def shown(self) -> list[Uncompared]:
        """
        List the conditions with which the last `UNCOMPARED_LIMIT` readings or more could not be compared.
        """
        return [each for each in self.counted.values() if each.readings >= UNCOMPARED_LIMIT]

    def take_unlogged(self) -> list[Uncompared]:
        """
        Return what became one of `shown` since the last call, to be logged; each field of a device once.
        """
        unlogged, self._unlogged = self._unlogged, []
        return unlogged
