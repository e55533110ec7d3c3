"""
Rows of the journal that are on disk and wait for the delivery: in memory as far as there is room, else to be read back.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from usbgate.core.batch import Batch, merge

MERGE_ROWS = 20_000  # a statement of 5,000 to 20,000 rows is what PostgreSQL stores fastest
BATCH_BYTES = 512  # what a batch takes in memory beside its characters, about


def memory_of(batch: Batch) -> int:
    """
    Return how many bytes a batch takes in memory, about.
    """
    return batch.size + BATCH_BYTES


class ReadAhead:
    """
    Batches in the order of their numbers, of which one at a time is being stored.

    Attributes:
        current: The batch that is being stored; None while none is.
        confirmed: The newest number that was stored.
        size: Bytes in memory of what waits.
        loaded: The newest number that waits here, or has.
        behind: Whether there is more on disk after that.
    """

    def __init__(self, limit: int) -> None:
        """
        Begin with nothing.

        Args:
            limit: Bytes in memory of what may wait.
        """
        self.current: Batch | None = None
        self.confirmed = 0
        self.size = 0
        self.loaded = 0
        self.behind = False
        self._limit = limit
        self._waiting: deque[Batch] = deque()

    @property
    def is_empty(self) -> bool:
        """
        Whether nothing waits here.
        """
        return not self._waiting

    @property
    def given_out(self) -> int:
        """
        The newest number that is stored, or is being stored.
        """
        return self.confirmed if self.current is None else self.current.last

    @property
    def rows(self) -> int:
        """
        Rows in memory, with those that are being stored.
        """
        return sum(batch.rows for batch in self._waiting) + (0 if self.current is None else self.current.rows)

    def committed(self, batches: Sequence[Batch]) -> None:
        """
        Keep what was just committed, as far as there is room.
        """
        for batch in batches:
            if self._waiting and self.size + memory_of(batch) > self._limit:
                self.behind = True
            if not self.behind:
                self._put(batch)

    def was_read(self, batch: Batch | None, complete: bool) -> None:
        """
        Keep what was read back (see `WriterListener.was_read`).
        """
        self.behind = not complete
        if batch is not None:
            self._put(batch)

    def take(self) -> Batch | None:
        """
        Give out the oldest rows that are not confirmed, as one batch, the same until it is; None where there are none.
        """
        if self.current is None and self._waiting:
            parts = [self._waiting.popleft()]
            rows = parts[0].rows
            while self._waiting and (rows := rows + self._waiting[0].rows) <= MERGE_ROWS:
                parts.append(self._waiting.popleft())
            self.size -= sum(map(memory_of, parts))
            self.current = merge(parts) if len(parts) > 1 else parts[0]
        return self.current

    def confirm(self, batch: Batch) -> bool:
        """
        Let a batch go.

        Returns:
            Whether it was not confirmed before.
        """
        if batch.last <= self.confirmed:
            return False
        self.confirmed = batch.last
        self.current = None
        return True

    def drop(self, dropped: Sequence[tuple[int, int]]) -> int:
        """
        Let go of rows that were dropped on disk, the oldest.

        Args:
            dropped: Batches on disk, by their last numbers and rows.

        Returns:
            How many rows are lost: what was given out meanwhile is stored all the same, and so is a batch in memory,
            merged of several, as long as a part of it is on disk: each is lost whole or not at all.
        """
        through = dropped[-1][0]
        lost, first, last = 0, 0, 0
        if self._waiting:
            first = self._waiting[0].first
        while self._waiting and self._waiting[0].last <= through:
            batch = self._waiting.popleft()
            self.size -= memory_of(batch)
            lost, last = lost + batch.rows, batch.last
        if self._waiting and self._waiting[0].first <= through:
            last = self._waiting[0].last
        stored = self.given_out
        return lost + sum(rows for number, rows in dropped if number > stored and not first <= number <= last)

    def _put(self, batch: Batch) -> None:
        self._waiting.append(batch)
        self.size += memory_of(batch)
        self.loaded = batch.last
