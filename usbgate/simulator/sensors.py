"""
The sensors of the simulated home, and how each answers a command.
"""

from __future__ import annotations

from collections.abc import Mapping
from random import Random
from typing import Protocol

from usbgate.core.fieldline import parse_number

_TEST = 3  # reports of a detector under test: some 10 s in the demo


class Sensor(Protocol):
    """
    Something in the home that has an id.

    Attributes:
        sends_command: Whether its answers have `MSG`; new firmware sends it, old firmware does not.
    """

    sends_command: bool

    def answer(self, command: str, arguments: Mapping[str, str], random: Random) -> dict[str, str] | None:
        """
        Execute a command.

        Returns:
            The fields of the answer, empty for an acknowledgement; None if the command is unknown.
        """

    def measure(self, random: Random) -> dict[str, str]:
        """
        Return the fields of a report.
        """


class _Climate:
    """
    Temperature, humidity or both: values that drift about a mean.
    """

    def __init__(self, means: Mapping[str, float], sends_command: bool, battery: bool = False) -> None:
        self.sends_command = sends_command
        self._means = means
        self._values = dict(means)
        self._battery = {"BAT": "OK"} if battery else {}

    def answer(self, command: str, arguments: Mapping[str, str], random: Random) -> dict[str, str] | None:
        fields = self.measure(random)
        if command == "J":
            return fields
        # `T` and `H` ask a combined sensor for one of its values.
        wanted = {"T": "TEMP", "H": "HUM"}.get(command)
        return {wanted: fields[wanted]} if wanted in fields else None

    def measure(self, random: Random) -> dict[str, str]:
        for field, mean in self._means.items():
            self._values[field] += (mean - self._values[field]) * 0.05 + random.gauss(0, mean / 200)
        return {field: f"{value:.1f}" for field, value in self._values.items()} | self._battery


class _Detector:
    """
    Smoke or presence: 0 or 1, which changes with this chance from one report to the next. `TEST` makes it 1 for the
    answer and the next reports.
    """

    def __init__(self, field: str, chance: float, sends_command: bool) -> None:
        self.sends_command = sends_command
        self._field = field
        self._chance = chance
        self._state = "0"
        self._tested = 0  # reports that are 1

    def answer(self, command: str, arguments: Mapping[str, str], random: Random) -> dict[str, str] | None:
        if command == "TEST":
            self._tested = _TEST
        elif command != "J":
            return None
        return {self._field: "1" if self._tested else self._state}

    def measure(self, random: Random) -> dict[str, str]:
        if self._tested:
            self._tested -= 1
            return {self._field: "1"}
        if random.random() < self._chance:
            self._state = "0" if self._state == "1" else "1"
        return {self._field: self._state}


class _Actuator:
    """
    A lamp or a shutter: a level from 0 to 100.
    """

    sends_command = True

    def __init__(self, acknowledges: bool) -> None:
        self._acknowledges = acknowledges  # answers without the new level
        self._level = 0

    def answer(self, command: str, arguments: Mapping[str, str], random: Random) -> dict[str, str] | None:
        if command == "J":
            return self.measure(random)
        if command == "ON":
            self._level = 100
        elif command == "OFF":
            self._level = 0
        elif command == "TOGGLE":
            self._level = 0 if self._level else 100
        elif command == "L" and (level := parse_number(arguments.get("LEVEL", ""))) is not None and 0 <= level <= 100:
            self._level = round(level)
        else:
            return None
        return {} if self._acknowledges else self.measure(random)

    def measure(self, random: Random) -> dict[str, str]:
        return {"LEVEL": str(self._level)}


def furnish() -> dict[str, Sensor]:
    """
    Return the sensors of a home, by id.
    """
    return {
        "20": _Climate({"VALUE": 21.5}, sends_command=False),  # bedroom, °C
        "21": _Climate({"VALUE": 48.0}, sends_command=False),  # bedroom, % humidity
        "22": _Climate({"TEMP": 23.0, "HUM": 61.0}, sends_command=True, battery=True),  # bathroom
        "23": _Climate({"VALUE": 8.0}, sends_command=True),  # balcony, °C
        "2": _Detector("SMOKE", 0, sends_command=False),
        "6": _Detector("PRESENCE", 0.05, sends_command=False),  # hall
        "7": _Detector("PRESENCE", 0.03, sends_command=True),  # kitchen
        "9": _Actuator(acknowledges=False),  # lamp
        "10": _Actuator(acknowledges=True),  # shutter
    }


# The sensors that report unasked, with the relative frequency of each.
REPORTING = {"2": 2, "6": 4, "7": 4, "20": 2, "21": 1, "22": 2, "23": 1}
