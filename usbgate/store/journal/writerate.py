"""
Bytes written to disk, in total and per day: the wear on an SD card.
"""

from __future__ import annotations

import resource
from collections import deque
from collections.abc import Callable

BLOCK = 512  # bytes; the unit of getrusage(2) on Linux

HOUR, DAY = 3600.0, 86400.0
HOURS = 24

LEAST = 60.0  # minimum seconds to extrapolate from: the first ones include startup


def bytes_to_disk() -> int:
    """
    Return the bytes this process has written to disk, whole pages and its log included; 0 if not counted.

    `/proc/self/io` has the same value, but is unreadable for a process that dropped root privileges.
    """
    return resource.getrusage(resource.RUSAGE_SELF).ru_oublock * BLOCK


class WriteRate:
    """
    Samples a byte counter and computes its increase over the last 24 hours.
    """

    def __init__(self, written: Callable[[], int], seconds: Callable[[], float]) -> None:
        """
        Start counting now.

        Args:
            written: Returns the bytes written; monotonic.
            seconds: Returns monotonic seconds.
        """
        self._written = written
        self._seconds = seconds
        self._began = seconds()
        self._first = self._last = written()
        self._hours: deque[list[int]] = deque()  # [hour, bytes]; hours without writes are omitted

    @property
    def total(self) -> int:
        """
        Bytes written since the start.
        """
        return self.sample() - self._first

    def sample(self) -> int:
        """
        Sample the counter and return it; call after each write, so that bytes are attributed to the right hour.
        """
        hour = int((self._seconds() - self._began) / HOUR)
        written = self._written()
        if written > self._last:
            if not self._hours or self._hours[-1][0] != hour:
                self._hours.append([hour, 0])
            self._hours[-1][1] += written - self._last
            self._last = written
        while self._hours and self._hours[0][0] < hour - HOURS:
            self._hours.popleft()
        return written

    @property
    def daily(self) -> int:
        """
        Bytes written in the last 24 hours; extrapolated during the first day.
        """
        self.sample()
        passed = self._seconds() - self._began
        if passed < DAY:
            return round((self._last - self._first) * DAY / max(passed, LEAST))
        hour, part = divmod(passed / HOUR, 1.0)
        # Of the first of 25 hours, count the fraction that is missing in the last.
        return round(sum(count * (1.0 - part if when == hour - HOURS else 1.0) for when, count in self._hours))
