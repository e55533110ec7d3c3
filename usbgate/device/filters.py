"""
Lines of a device to ignore: echoes of what usbgate wrote, and repeats of what the device just sent.

Pure rules with bounded memory; the time is an argument.
"""

from __future__ import annotations

import re
from collections import OrderedDict

from usbgate.core.containers import BoundedDict
from usbgate.core.fieldline import KEY_PATTERN, without_checksum

# Written lines remembered. An echo comes back before that many others are written, whatever the patience; a line has at
# most 1,024 bytes, so this is 1 MiB.
ECHO_MEMORY = 1024

# Lines remembered that may be repeated, and sensors that were asked. A radio repeats a packet before that many others
# come. Again 1 MiB; the repeat of a line that was forgotten is delivered.
REPEAT_MEMORY = 1024

# A further field behind a written line: the device answers with its request and a value.
_FIELD = re.compile(b"_" + KEY_PATTERN.encode() + b":")

# What makes another number of one that a written line ends in.
_MORE_DIGITS = re.compile(rb"\.?[0-9]")


class EchoFilter:
    """
    Recognizes an echo: a line that was written, and comes back within the patience of its request.

    Attributes:
        written: The lines remembered, and until when (monotonic seconds) each is an echo if it comes back.
    """

    def __init__(self) -> None:
        self.written: OrderedDict[bytes, float] = OrderedDict()

    def line_written(self, line: bytes, until: float) -> None:
        """
        Record a written line, and what remains of it when a board cuts its checksum off.

        Args:
            line: The line.
            until: Monotonic seconds until which it is an echo; written twice, the later of the two counts.
        """
        body = without_checksum(line)
        for each in (line,) if body is None else (line, body):
            self.written[each] = max(until, self.written.pop(each, until))
            if len(self.written) > ECHO_MEMORY:
                self.written.popitem(last=False)

    def is_echo(self, line: bytes, now: float) -> bool:
        """
        Return whether a received line is an echo at this time.
        """
        until = self.written.get(line)
        if until is None:
            return False
        if now <= until:
            return True
        del self.written[line]
        return False

    def holds_echo(self, line: bytes, now: float) -> bool:
        """
        Return whether a received field line holds a written one as a whole, and no further field behind it.

        It looks at all written lines that may come back now, so call it only for lines in which one is likely.
        """
        if line.startswith(b"#"):  # text, which answers nothing
            return False
        # Written lines are in the order of their writing, nearly that of their times.
        while self.written and next(iter(self.written.values())) < now:
            self.written.popitem(last=False)
        for written, until in self.written.items():
            place = line.find(written)
            if place >= 0 and until >= now:
                rest = line[place + len(written) :]
                another = written[-1:].isdigit() and _MORE_DIGITS.match(rest)
                if not another and not _FIELD.search(rest):
                    return True
        return False


class RepeatFilter:
    """
    Recognizes a repeat: the same bytes again within some time.

    The time runs from the line that was delivered, not from its last repeat, so a device that sends the same line all
    the time is not ignored. If the sensor was asked in between, the line may be its answer and is no repeat.
    """

    def __init__(self, within: float) -> None:
        """
        Args:
            within: Seconds.
        """
        self._within = within
        self._delivered: BoundedDict[bytes, tuple[float, str, int]] = BoundedDict(REPEAT_MEMORY)
        self._asked: BoundedDict[str, int] = BoundedDict(REPEAT_MEMORY)
        self._asks = 0

    def is_repeat(self, line: bytes, now: float) -> bool:
        """
        Return whether this line was delivered within the time, and its sensor not asked since.
        """
        delivered = self._delivered.get(line)
        if delivered is None:
            return False
        at, sensor, asks = delivered
        return now - at < self._within and self._asked.get(sensor, 0) <= asks

    def line_delivered(self, line: bytes, sensor: str, now: float) -> None:
        """
        Record a line that is delivered.
        """
        self._delivered.remember(line, (now, sensor, self._asks))

    def sensor_asked(self, sensor: str) -> None:
        """
        Record that a sensor was asked.
        """
        self._asks += 1
        self._asked.remember(sensor, self._asks)
