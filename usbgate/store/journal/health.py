"""
The state of the journal's disk: whether it accepts writes, which rows were lost, and how much was written.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from twisted.logger import Logger

from usbgate.core.status import JournalStatus
from usbgate.store.journal.writerate import WriteRate, bytes_to_disk

LOG_INTERVAL = 60.0  # minimum seconds between two log lines about lost rows, or about recurring trouble


class JournalHealth:
    """
    Records what happens to the disk, for the log and for `status`.

    Attributes:
        trouble: Why the disk refuses writes; None if it accepts them.
        commits: Commits since the start.
        slowest_commit: Seconds of the slowest of them.
        lost: Rows dropped since the file was created: the oldest ones, when the file was full, or memory while the
            disk refused writes.
        unlogged: Those of the lost rows that were not logged yet.
    """

    log = Logger()

    def __init__(self, path: Path, seconds: Callable[[], float], written: Callable[[], int]) -> None:
        """
        Start with no known problem.

        Args:
            path: The file, for the log.
            seconds: Returns monotonic seconds.
            written: Returns the bytes written to the file since the start.
        """
        self.trouble: str | None = None
        self.commits = 0
        self.slowest_commit = 0.0
        self.lost = 0
        self.unlogged = 0
        self._path = path
        self._seconds = seconds
        self._written = written
        self._rate: WriteRate | None = None  # None until `started`
        self._lost_logged_at = float("-inf")
        self._trouble_logged = False
        self._trouble_logged_at = float("-inf")

    def started(self) -> None:
        """
        Start measuring the bytes written.
        """
        before = bytes_to_disk()
        # `bytes_to_disk` is 0 if the system does not count.
        self._rate = WriteRate(lambda: max(self._written(), bytes_to_disk() - before), self._seconds)

    def committed(self, seconds: float) -> None:
        """
        Record a commit that took `seconds`.
        """
        self.commits += 1
        self.slowest_commit = max(self.slowest_commit, seconds)
        if self._rate is not None:
            self._rate.sample()

    def refused(self, reason: str) -> None:
        """
        Record that the disk refuses writes.
        """
        now = self._seconds()
        if self.trouble is None and now - self._trouble_logged_at >= LOG_INTERVAL:
            self.log.error(
                "the journal {path} cannot be used: {reason}; retrying",
                path=str(self._path),
                reason=reason,
            )
            self._trouble_logged, self._trouble_logged_at = True, now
        self.trouble = reason

    def recovered(self) -> None:
        """
        Record that the disk accepts writes again.
        """
        self.log_lost()
        self.trouble = None
        if self._trouble_logged:
            self.log.info("the journal can be used again")
            self._trouble_logged = False

    def add_lost(self, rows: int) -> None:
        """
        Add lost rows that are logged already, by earlier runs or with their file.
        """
        self.lost += rows

    def lose(self, rows: int) -> None:
        """
        Record lost rows; logged at once, then once a minute.
        """
        self.lost += rows
        self.unlogged += rows
        if self._seconds() - self._lost_logged_at >= LOG_INTERVAL:
            self.log_lost()

    def log_lost(self) -> None:
        """
        Log the lost rows that were not logged yet.
        """
        if self.unlogged > 0:
            self.log.error(
                "{why}: the {rows} oldest rows were dropped and are lost",
                why="the journal is full" if self.trouble is None else "the disk refuses writes and memory is full",
                rows=self.unlogged,
            )
            self.unlogged, self._lost_logged_at = 0, self._seconds()

    def status(self) -> JournalStatus:
        """
        Return the status.
        """
        return JournalStatus(
            trouble=self.trouble,
            commits=self.commits,
            slowest_commit=self.slowest_commit,
            written=None if self._rate is None else self._rate.total,
            daily=None if self._rate is None else self._rate.daily,
            lost=self.lost,
        )
