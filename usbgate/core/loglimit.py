"""
Log lines that a stranger can cause: their events are counted, and logged once a minute.
"""

from __future__ import annotations

LOG_INTERVAL = 60.0  # seconds between two lines: enough to see that it goes on, too little to fill a disk


class LogLimit:
    """
    Counts the events of one kind of log line.
    """

    def __init__(self) -> None:
        self._count = 0
        self._logged_at = float("-inf")

    def add(self, now: float, events: int = 1) -> int:
        """
        Count events.

        Args:
            now: This moment, in monotonic seconds.
            events: How many there were.

        Returns:
            How many to log now: all since the last line, or 0 if that was less than `LOG_INTERVAL` ago.
        """
        self._count += events
        if now - self._logged_at < LOG_INTERVAL:
            return 0
        count, self._count, self._logged_at = self._count, 0, now
        return count
