"""
The known sensors: their newest readings, which device reported them last, and when.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from usbgate.core.model import Reading

SENSORS_REMEMBERED = 10_000  # protocol §3; more are stored, not remembered
FIELDS_REMEMBERED = 64  # of one sensor; a line has room for more, but a device with more is broken


@dataclass(slots=True)
class KnownSensor:
    """
    One sensor.

    Attributes:
        device: The device that reported it last.
        seen: When: whole milliseconds since 1970, UTC.
        reports: Reports since usbgate started.
        newest: Its newest reading of each field.
        restored: The fields whose newest reading comes from the database.
    """

    device: str
    seen: int
    reports: int = 0
    newest: dict[str, Reading] = field(default_factory=dict)
    restored: set[str] = field(default_factory=set)

    def remember(self, reading: Reading) -> None:
        """
        Make a reading that was just received the newest of its field.
        """
        if reading.field in self.newest or len(self.newest) < FIELDS_REMEMBERED:
            self.newest[reading.field] = reading
            if self.restored:
                self.restored.discard(reading.field)

    def restore(self, reading: Reading) -> None:
        """
        Make a reading of the database the newest of its field, unless one was received since.
        """
        if reading.field in self.restored or reading.field not in self.newest:
            self.remember(reading)
            if reading.field in self.newest:
                self.restored.add(reading.field)


class KnownSensors:
    """
    The sensors in the order of their first appearance; of more than `SENSORS_REMEMBERED`, the first are kept.
    """

    def __init__(self) -> None:
        self._sensors: dict[str, KnownSensor] = {}

    def __len__(self) -> int:
        return len(self._sensors)

    def get(self, sensor: str) -> KnownSensor | None:
        """
        Look a sensor up.
        """
        return self._sensors.get(sensor)

    def items(self) -> list[tuple[str, KnownSensor]]:
        """
        List all sensors with their ids.
        """
        return list(self._sensors.items())

    def reported(self, sensor: str, device: str, at: int, readings: Sequence[Reading]) -> str | None:
        """
        Record one report.

        Returns:
            The device that reported this sensor before, if it was another one.
        """
        known = self._sensors.get(sensor)
        if known is None:
            if len(self._sensors) >= SENSORS_REMEMBERED:
                return None
            known = self._sensors[sensor] = KnownSensor(device, at)
        before = known.device
        known.device = device
        known.seen = at
        known.reports += 1
        for reading in readings:
            known.remember(reading)
        return before if before != device else None

    def restore(self, readings: Sequence[Reading]) -> None:
        """
        Fill in readings from the database, unless newer ones were received; they replace those restored before.

        Args:
            readings: The newest of each field, oldest first.
        """
        for reading in readings:
            known = self._sensors.get(reading.sensor)
            if known is None:
                if len(self._sensors) >= SENSORS_REMEMBERED:
                    continue
                known = self._sensors[reading.sensor] = KnownSensor(reading.device, reading.at)
            if not known.reports:  # oldest first, so the last one wins
                known.device, known.seen = reading.device, reading.at
            known.restore(reading)
