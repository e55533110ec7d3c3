"""
How much is written to the disk, since the start and a day: what wears out an SD card.
"""

from __future__ import annotations

import resource
from collections import deque
from collections.abc import Callable

BLOCK = 512  # bytes, in which getrusage(2) counts on Linux

HOUR, DAY = 3600.0, 86400.0
HOURS = 24

LEAST = 60.0  # seconds from which on a day is extrapolated: the first ones have the start in them


def bytes_to_disk() -> int:
    """
    Tell what this process has sent to disks, whole pages and its log included; 0 where nobody counts.

    `/proc/self/io` says the same, but may not be read by a process that was started as root and is not any more.
    """
    return resource.getrusage(resource.RUSAGE_SELF).ru_oublock * BLOCK


class WriteRate:
    """
    A count that is looked at now and then, and what of it came in the last 24 hours.
    """

    def __init__(self, written: Callable[[], int], seconds: Callable[[], float]) -> None:
        """
        Begin now.

        Args:
            written: Tells the bytes written; never less than before.
            seconds: Tells monotonic seconds.
        """
        self._written = written
        self._seconds = seconds
        self._began = seconds()
        self._first = self._last = written()
        self._hours: deque[list[int]] = deque()  # hour, and the bytes in it; none where there were no bytes

    @property
    def total(self) -> int:
        """
        Bytes written since it began.
        """
        return self.look() - self._first

    def look(self) -> int:
        """
        Take note of what was written by now; best whenever something was, so that each hour gets its own.
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
        Bytes written in the last 24 hours; extrapolated where they have not passed yet.
        """
        self.look()
        passed = self._seconds() - self._began
        if passed < DAY:
            return round((self._last - self._first) * DAY / max(passed, LEAST))
        hour, part = divmod(passed / HOUR, 1.0)
        # Of the first of 25 hours that much is left as is missing in the last.
        return round(sum(count * (1.0 - part if when == hour - HOURS else 1.0) for when, count in self._hours))
