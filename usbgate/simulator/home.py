"""
A simulated home: the lines of a board with sensors, and when it sends them. It has no board, and no clock.
"""

from __future__ import annotations

import heapq
import itertools
import math
from random import Random

from usbgate.core.errors import Malformed
from usbgate.core.fieldline import LINE_LIMIT, format_line, parse
from usbgate.simulator.sensors import REPORTING, furnish

LONGEST_DELAY = 3.0  # seconds that an answer takes at most, as in the original's home
RATE = 0.5  # unrequested reports per second, slow enough to be read

# Answers that the home can have under way; a small board drops requests beyond.
_MEMORY = 256

# How much faster each sensor reports once after the start.
_FIRST = 10

# Lines returned by one call: after a clock has jumped ahead, nobody wants them all.
_BURST = 10_000


class Home:
    """
    A board whose bytes and time the caller moves. The same seed and the same calls give the same bytes.
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
        Args:
            seed: For the same behaviour each time; None for another one each time.
            rate: Unsolicited reports per second.
            noise: The share of lines, 0 to 1, that come after garbage or a piece of a line.
            mute: Whether it answers no request; it still sends reports.
            max_delay: Seconds that an answer takes at most.
        """
        self._random = Random(seed)
        self._rate = rate
        self._noise = noise
        self._mute = mute
        self._max_delay = max_delay
        self._sensors = furnish()
        self._first = list(self._sensors)  # those that have not reported yet
        self._answers: list[tuple[float, int, bytes]] = []  # a heap: when, a number that keeps order, the line
        self._numbers = itertools.count()
        self._next_report = math.inf

    @property
    def next_due(self) -> float:
        """
        When the next line is due, in seconds; infinity if none is before the next request.
        """
        return min(self._next_report, self._answers[0][0] if self._answers else math.inf)

    def power_on(self, now: float) -> None:
        """
        Switch the board on.

        Args:
            now: Seconds, on the same clock as in all other calls.
        """
        self._send_at(now, b"# home ready")
        self._next_report = self._after(now)

    def receive(self, line: bytes, now: float) -> None:
        """
        Receive a request. Like a board, ignore a line that is no request, or that the sensor does not understand.

        Args:
            line: The line without its end.
            now: Seconds.
        """
        try:
            fields = parse(line)
        except Malformed:
            return
        command, sensor_id, tag = fields.pop("MSG", None), fields.pop("ID", ""), fields.pop("TAG", None)
        if command is None or sensor_id not in self._sensors or len(self._answers) >= _MEMORY:
            return
        sensor = self._sensors[sensor_id]
        values = sensor.answer(command, fields, self._random)
        if values is None or self._mute:
            return
        answer = {"ID": sensor_id, **values}
        if sensor.sends_command or not values:
            answer["MSG"] = command
        if tag is not None:
            answer["TAG"] = tag
        # Each takes its own time, so that answers overtake each other.
        self._send_at(now + self._random.uniform(0, self._max_delay), format_line(answer).encode())

    def due(self, now: float) -> list[bytes]:
        """
        Return the lines that are due, in order, each with its end. Each line is returned once.

        Args:
            now: Seconds.
        """
        lines: list[bytes] = []
        while self.next_due <= now:
            if len(lines) >= _BURST:
                self._next_report = self._after(now)
                break
            if self._answers and self._answers[0][0] <= self._next_report:
                line = heapq.heappop(self._answers)[2]
            else:
                sensor = self._reporting()
                line = format_line({"ID": sensor, **self._sensors[sensor].measure(self._random)}).encode()
                self._next_report = self._after(self._next_report)
            if line.startswith(b"ID:") and self._random.random() < self._noise:
                lines.append(self._garbage(line) + b"\r\n")
            lines.append(line + b"\r\n")  # as Arduino's println ends a line
        return lines

    def _reporting(self) -> str:
        # After the start each sensor once, then at random.
        if self._first:
            return self._first.pop(0)
        return self._random.choices(list(REPORTING), list(REPORTING.values()))[0]

    def _send_at(self, when: float, line: bytes) -> None:
        heapq.heappush(self._answers, (when, next(self._numbers), line))

    def _after(self, now: float) -> float:
        rate = self._rate * (_FIRST if self._first else 1)
        return now + self._random.expovariate(rate) if rate else math.inf

    def _garbage(self, line: bytes) -> bytes:
        # None of these parses as a report: a wrong value that looks right would be no garbage.
        kind = self._random.randrange(4)
        if kind == 0:  # wrong bytes; 0xff is never UTF-8
            return b"\xff" + bytes(self._random.choices(range(0x20, 0x100), k=self._random.randrange(40)))
        if kind == 1:  # the beginning of a line, cut off before its first value
            return line[: self._random.randint(1, line.index(b":", len(b"ID:")))]
        if kind == 2:  # the end of a line, without its ID
            return b"LUE:" + line.rpartition(b":")[2]
        return b"ID:20_VALUE:" + b"9" * LINE_LIMIT  # longer than a line may be
