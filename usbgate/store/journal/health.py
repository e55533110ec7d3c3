"""
How it stands with the journal's disk: whether it takes what it is given, what was lost where it did not, what it cost.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from twisted.logger import Logger

from usbgate.core.status import JournalStatus
from usbgate.store.journal.writerate import WriteRate, bytes_to_disk

TOLD_INTERVAL = 60.0  # seconds between two lines of log about rows that were lost, or about trouble that comes and goes


class JournalHealth:
    """
    What is known of the disk, said in the log and in `status`.

    Attributes:
        trouble: Why the disk takes nothing now; None while all is well.
        commits: Commits since the start.
        slowest_commit: Seconds that the slowest of them took.
        lost: Rows dropped since the file was made, the oldest of those that waited, for want of room in the file, or in
            memory while the disk took nothing.
    """

    log = Logger()

    def __init__(self, path: Path, seconds: Callable[[], float], written: Callable[[], int]) -> None:
        """
        Think well of it.

        Args:
            path: The file, for the log.
            seconds: Tells monotonic seconds.
            written: Tells the bytes written to the file since the start.
        """
        self.trouble: str | None = None
        self.commits = 0
        self.slowest_commit = 0.0
        self.lost = 0
        self._path = path
        self._seconds = seconds
        self._written = written
        self._wear: WriteRate | None = None  # from the start on
        self._lost_told = 0
        self._lost_told_at = float("-inf")
        self._trouble_told = False
        self._trouble_told_at = float("-inf")

    def started(self) -> None:
        """
        Count what is written from now on.
        """
        before = bytes_to_disk()
        # The first of the two where nobody counts the other.
        self._wear = WriteRate(lambda: max(self._written(), bytes_to_disk() - before), self._seconds)

    def committed(self, seconds: float) -> None:
        """
        Record a commit, which took so long.
        """
        self.commits += 1
        self.slowest_commit = max(self.slowest_commit, seconds)
        if self._wear is not None:
            self._wear.look()

    def refused(self, reason: str) -> None:
        """
        Record that the disk takes nothing.
        """
        now = self._seconds()
        if self.trouble is None and now - self._trouble_told_at >= TOLD_INTERVAL:
            self.log.error(
                "the journal {path} can't be used: {reason}; it will be tried again",
                path=str(self._path),
                reason=reason,
            )
            self._trouble_told, self._trouble_told_at = True, now
        self.trouble = reason

    def recovered(self) -> None:
        """
        Record that the disk recovered.
        """
        self.tell_lost()
        self.trouble = None
        if self._trouble_told:
            self.log.info("the journal can be used again")
            self._trouble_told = False

    def lost_before(self, rows: int) -> None:
        """
        Record rows that were lost, and logged, before this start.
        """
        self.lost += rows
        self._lost_told += rows

    def lose(self, rows: int) -> None:
        """
        Record rows that are lost; logged at once, then once a minute.
        """
        self.lost += rows
        if self._seconds() - self._lost_told_at >= TOLD_INTERVAL:
            self.tell_lost()

    def tell_lost(self) -> None:
        """
        Say what was lost and not said yet.
        """
        if self.lost > self._lost_told:
            self.log.error(
                "{why}: the {rows} oldest rows were dropped and are lost",
                why="the journal is full" if self.trouble is None else "the disk takes nothing, and memory is full",
                rows=self.lost - self._lost_told,
            )
            self._lost_told, self._lost_told_at = self.lost, self._seconds()

    def status(self) -> JournalStatus:
        """
        Return the status.
        """
        return JournalStatus(
            trouble=self.trouble,
            commits=self.commits,
            slowest_commit=self.slowest_commit,
            written=None if self._wear is None else self._wear.total,
            daily=None if self._wear is None else self._wear.daily,
            lost=self.lost,
        )
