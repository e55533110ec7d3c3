"""
A simulated flat: what a board full of sensors says and when, without a board and without a clock.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Mapping
from random import Random
from typing import Protocol

from usbgate.core.errors import Malformed
from usbgate.core.fieldline import LINE_LIMIT, format_line, parse, parse_number

LONGEST_DELAY = 3.0  # seconds that an answer takes at most, as in the original's flat
RATE = 0.5  # unasked lines a second: something to see, and nothing that scrolls away

# Requests that the flat remembers at a time; a small board forgets what comes beyond.
_MEMORY = 256

# Lines made in one go; behind a clock that jumped ahead nobody wants them all.
_BURST = 10_000


class _Thing(Protocol):
    """
    Something in the flat that has an id.
    """

    tells_command: bool  # whether its answers carry MSG; a flat has old firmware and new

    def hear(self, command: str, arguments: Mapping[str, str], random: Random) -> dict[str, str] | None:
        """
        Take a command; the fields of the answer, none for an acknowledgement, None to stay silent.
        """

    def speak(self, random: Random) -> dict[str, str]:
        """
        Say something unasked.
        """


class _Climate:
    """
    Temperature, humidity or both: what drifts about a mean.
    """

    def __init__(self, means: Mapping[str, float], tells_command: bool, battery: bool = False) -> None:
        self.tells_command = tells_command
        self._means = means
        self._values = dict(means)
        self._battery = {"BAT": "OK"} if battery else {}

    def hear(self, command: str, arguments: Mapping[str, str], random: Random) -> dict[str, str] | None:
        fields = self.speak(random)
        if command == "J":
            return fields
        # `T` and `H` ask a combined sensor for one of its values.
        wanted = {"T": "TEMP", "H": "HUM"}.get(command)
        return {wanted: fields[wanted]} if wanted in fields else None

    def speak(self, random: Random) -> dict[str, str]:
        for field, mean in self._means.items():
            self._values[field] += (mean - self._values[field]) * 0.05 + random.gauss(0, mean / 200)
        return {field: f"{value:.1f}" for field, value in self._values.items()} | self._battery


class _Detector:
    """
    Smoke or presence: 0 or 1.
    """

    def __init__(self, field: str, chance: float, tells_command: bool) -> None:
        self.tells_command = tells_command
        self._field = field
        self._chance = chance
        self._state = "0"

    def hear(self, command: str, arguments: Mapping[str, str], random: Random) -> dict[str, str] | None:
        return {self._field: self._state} if command == "J" else None

    def speak(self, random: Random) -> dict[str, str]:
        self._state = "1" if random.random() < self._chance else "0"
        return {self._field: self._state}


class _Actuator:
    """
    A lamp or a shutter: a level from 0 to 100.
    """

    tells_command = True

    def __init__(self, acknowledges: bool) -> None:
        self._acknowledges = acknowledges  # without saying what became of it
        self._level = 0

    def hear(self, command: str, arguments: Mapping[str, str], random: Random) -> dict[str, str] | None:
        if command == "J":
            return self.speak(random)
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
        return {} if self._acknowledges else self.speak(random)

    def speak(self, random: Random) -> dict[str, str]:
        return {"LEVEL": str(self._level)}


def furnish() -> dict[str, _Thing]:
    """
    Make all that is in the flat, by id.
    """
    return {
        "20": _Climate({"VALUE": 21.5}, tells_command=False),  # bedroom, °C
        "21": _Climate({"VALUE": 48.0}, tells_command=False),  # bedroom, % humidity
        "22": _Climate({"TEMP": 23.0, "HUM": 61.0}, tells_command=True, battery=True),  # bathroom
        "23": _Climate({"VALUE": 8.0}, tells_command=True),  # balcony, °C
        "2": _Detector("SMOKE", 0.03, tells_command=False),
        "6": _Detector("PRESENCE", 0.5, tells_command=False),  # hall
        "7": _Detector("PRESENCE", 0.3, tells_command=True),  # kitchen
        "9": _Actuator(acknowledges=False),  # lamp
        "10": _Actuator(acknowledges=True),  # shutter
    }


# Who speaks unasked, and how often beside the others.
_SPEAKERS = {"2": 2, "6": 4, "7": 4, "20": 2, "21": 1, "22": 2, "23": 1}


class Home:
    """
    What the board says and when, without a board: bytes and times in, bytes out. The same seed and the same calls
    give the same bytes.
    """

    def __init__(
        self,
        seed: int | None = None,
        *,
        rate: float = RATE,
        noise: float = 0.0,
        mute: bool = False,
        max_delay: float = LONGEST_DELAY,
    ) -> None:
        """
        Furnish a flat.

        Args:
            seed: Behave the same every time; None for another flat each time.
            rate: Unasked lines a second.
            noise: How probable it is, 0 to 1, that a line comes behind one of garbage, or a piece of one.
            mute: Whether it never answers; it goes on speaking unasked.
            max_delay: Seconds that an answer takes at most.
        """
        self._random = Random(seed)
        self._rate = rate
        self._noise = noise
        self._mute = mute
        self._max_delay = max_delay
        self._things = furnish()
        self._answers: list[tuple[float, int, bytes]] = []  # a heap: when, a number that keeps order, the line
        self._numbers = itertools.count()
        self._next_unasked = math.inf

    @property
    def next_due(self) -> float:
        """
        When there will be something to say; infinite for never, unless something is heard.
        """
        return min(self._next_unasked, self._answers[0][0] if self._answers else math.inf)

    def begin(self, now: float) -> None:
        """
        Switch the board on.

        Args:
            now: Seconds, of the same clock as in all other calls.
        """
        self._say_at(now, b"# flat ready")
        self._next_unasked = self._after(now)

    def hear(self, line: bytes, now: float) -> None:
        """
        Take a request; what is none, or nothing that the sensor knows, is left alone, as a board does.

        Args:
            line: Without its end.
            now: Seconds.
        """
        try:
            fields = parse(line)
        except Malformed:
            return
        command, sensor, tag = fields.pop("MSG", None), fields.pop("ID", ""), fields.pop("TAG", None)
        if command is None or sensor not in self._things or len(self._answers) >= _MEMORY:
            return
        thing = self._things[sensor]
        values = thing.hear(command, fields, self._random)
        if values is None or self._mute:
            return
        answer = {"ID": sensor, **values}
        if thing.tells_command or not values:
            answer["MSG"] = command
        if tag is not None:
            answer["TAG"] = tag
        # Each takes its own time, so that answers overtake each other.
        self._say_at(now + self._random.uniform(0, self._max_delay), format_line(answer).encode())

    def due(self, now: float) -> list[bytes]:
        """
        Take what is to be said by now, in order: whole lines with their ends.

        Args:
            now: Seconds.
        """
        said: list[bytes] = []
        while self.next_due <= now:
            if len(said) >= _BURST:
                self._next_unasked = self._after(now)
                break
            if self._answers and self._answers[0][0] <= self._next_unasked:
                line = heapq.heappop(self._answers)[2]
            else:
                sensor = self._random.choices(list(_SPEAKERS), list(_SPEAKERS.values()))[0]
                line = format_line({"ID": sensor, **self._things[sensor].speak(self._random)}).encode()
                self._next_unasked = self._after(self._next_unasked)
            if line.startswith(b"ID:") and self._random.random() < self._noise:
                said.append(self._garbage(line) + b"\r\n")
            said.append(line + b"\r\n")  # as Arduino's println ends a line
        return said

    def _say_at(self, when: float, line: bytes) -> None:
        heapq.heappush(self._answers, (when, next(self._numbers), line))

    def _after(self, now: float) -> float:
        return now + self._random.expovariate(self._rate) if self._rate else math.inf

    def _garbage(self, line: bytes) -> bytes:
        # None of these reads as a report: a wrong value that looks right would be no noise.
        kind = self._random.randrange(4)
        if kind == 0:  # wrong bytes; 0xff is never UTF-8
            return b"\xff" + bytes(self._random.choices(range(0x20, 0x100), k=self._random.randrange(40)))
        if kind == 1:  # a line's beginning, up to somewhere before its first value
            return line[: self._random.randint(1, line.index(b":", len(b"ID:")))]
        if kind == 2:  # a line's end, without its ID
            return b"LUE:" + line.rpartition(b":")[2]
        return b"ID:20_VALUE:" + b"9" * LINE_LIMIT  # longer than a line may be
