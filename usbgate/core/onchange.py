"""
Storing a sensor's readings on change only: the first and the last of each run of equal readings.

Pure rules with bounded memory; the time is an argument.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from usbgate.core.containers import BoundedDict
from usbgate.core.model import Reading

SERIES = 10_000  # as many as there are sensors remembered; each holds back one reading at most


@dataclass(eq=False, slots=True)
class _Run:
    value: tuple[float | None, str | None]
    kept_at: float
    held: Reading | None = None  # the newest reading, unless it was kept


class OnChangeFilter:
    """
    Keeps the first and the last of each run of equal readings, and some between; a series is a field of a sensor as
    one device reports it.
    """

    def __init__(self, rules: Mapping[str, float], device_rules: Mapping[str, float] = {}) -> None:
        """
        Args:
            rules: The sensors to filter; for each, seconds after which an equal reading is kept, too (infinity for
                never, 0 to keep all).
            device_rules: The same for all other sensors of these devices.
        """
        self._rules = rules
        self._device_rules = device_rules
        self._runs: BoundedDict[tuple[str, str, str], _Run] = BoundedDict(SERIES)

    def keep(self, readings: Sequence[Reading], now: float) -> Sequence[Reading]:
        """
        Return those of a report's readings that are to be stored; the last of a run comes before the one that ended it.

        Args:
            readings: The readings, all of one sensor.
            now: Monotonic seconds.
        """
        if not readings:
            return readings
        most = self._rules.get(readings[0].sensor)
        if most is None:
            most = self._device_rules.get(readings[0].device, 0.0)
        if not most:
            return readings
        kept: list[Reading] = []
        for reading in readings:
            key = (reading.device, reading.sensor, reading.field)
            value = (reading.value, reading.text)
            run = self._runs.get(key)
            if run is not None and run.value == value and now - run.kept_at < most:
                run.held = reading
                continue
            if run is not None and run.value != value and run.held is not None:
                kept.append(run.held)
            if run is None and len(self._runs) >= SERIES:
                kept.extend(self._held_by(next(iter(self._runs))))  # it is about to be dropped
            kept.append(reading)
            self._runs.remember(key, _Run(value, now))
        return kept

    def end(self) -> list[Reading]:
        """
        Return the readings held back: the last of each run.
        """
        held = [reading for key in self._runs for reading in self._held_by(key)]
        self._runs.clear()
        return held

    def _held_by(self, key: tuple[str, str, str]) -> list[Reading]:
        held = self._runs[key].held
        return [] if held is None else [held]
