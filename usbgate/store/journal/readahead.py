"""
The journal's rows on disk that await delivery: cached in memory up to a limit, read back from disk beyond it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Sequence

from usbgate.core.batch import START, Batch, Mark, merge, without

# PostgreSQL stores fastest with 5,000 to 20,000 rows a statement. To make one of 10,000 takes 0.25 ms, of 20,000 1 ms.
MERGE_ROWS = 10_000


class ReadAhead:
    """
    Committed batches, by number; one at a time is in delivery.

    Attributes:
        current: The batch in delivery; None if there is none.
        confirmed: The last confirmed position.
        pinned: The last number confirmed or in delivery: rows up to it must stay on disk.
        memory: Bytes of memory of the cached batches, without `current`.
        loaded: The last number ever cached.
        behind: Whether the disk has rows after `loaded`.
    """

    def __init__(self, limit: int) -> None:
        """
        Create an empty cache.

        Args:
            limit: Maximum bytes of memory of the cached batches.
        """
        self.current: Batch | None = None
        self.confirmed = START
        self.pinned = 0
        self.memory = 0
        self.loaded = 0
        self.behind = False
        self._limit = limit
        self._cached: deque[Batch] = deque()

    @property
    def is_empty(self) -> bool:
        """
        Whether nothing is cached.
        """
        return not self._cached

    @property
    def rows(self) -> int:
        """
        Rows in memory, including those in delivery.
        """
        return sum(batch.rows for batch in self.batches)

    @property
    def batches(self) -> list[Batch]:
        """
        The batches in memory, including the one in delivery.
        """
        return [*([] if self.current is None else [self.current]), *self._cached]

    def committed(self, batches: Sequence[Batch]) -> None:
        """
        Cache newly committed batches up to the limit.
        """
        for batch in batches:
            if self._cached and self.memory + batch.memory > self._limit:
                self.behind = True
            if not self.behind:
                self._add(batch)

    def was_read(self, batch: Batch | None, complete: bool) -> None:
        """
        Cache a batch read from disk (see `WriterListener.was_read`).
        """
        self.behind = not complete
        if batch is not None:
            self._add(batch)

    def next(self) -> Batch | None:
        """
        Return the oldest unconfirmed rows as one batch, the same one until it is confirmed; None if nothing is cached.
        """
        if self.current is None and self._cached:
            parts = [self._cached.popleft()]
            rows = parts[0].rows
            while self._cached and (rows := rows + self._cached[0].rows) <= MERGE_ROWS:
                parts.append(self._cached.popleft())
            self.memory -= sum(batch.memory for batch in parts)
            self.current = merge(parts) if len(parts) > 1 else parts[0]
            self.pinned = self.current.last
        return self.current

    def confirm(self, batch: Batch) -> bool:
        """
        Confirm a batch.

        Returns:
            False if it was confirmed before.
        """
        if batch.last <= self.confirmed.n:
            return False
        self.confirmed, self.pinned = Mark(batch.last, batch.chain), batch.last
        self.current = None
        return True

    def confirm_to(self, mark: Mark) -> int:
        """
        Confirm all rows up to a position, which may be within a batch that was merged.

        Returns:
            How many of them were in memory.
        """
        before = self.rows
        self._filter(lambda batch: without(batch, range(batch.first, mark.n + 1)) if batch.first <= mark.n else batch)
        self.confirmed = mark
        self.pinned = max(self.pinned, mark.n)
        self.loaded = max(self.loaded, mark.n)
        return before - self.rows

    def discard(self, numbers: Collection[int]) -> int:
        """
        Remove rows.

        Returns:
            How many of them were in memory.
        """
        before = self.rows
        first, last = min(numbers), max(numbers)
        self._filter(lambda batch: without(batch, numbers) if first <= batch.last and batch.first <= last else batch)
        return before - self.rows

    def _filter(self, change: Callable[[Batch], Batch]) -> None:
        if self.current is not None:
            self.current = change(self.current)
            if not self.current.rows:
                self.current = None
                self.pinned = self.confirmed.n
        self._cached = deque(batch for batch in map(change, self._cached) if batch.rows)
        self.memory = sum(batch.memory for batch in self._cached)

    def drop(self, dropped: Sequence[tuple[int, int]]) -> int:
        """
        Discard the oldest rows, which were dropped on disk.

        Args:
            dropped: The dropped batches as (last number, rows).

        Returns:
            Number of rows lost. Rows handed out meanwhile are still stored. So is a cached batch that was merged from
            several on disk until the last of them is dropped: it is lost whole or not at all.
        """
        through = dropped[-1][0]
        lost, first, last = 0, 0, 0
        if self._cached:
            first = self._cached[0].first
        while self._cached and self._cached[0].last <= through:
            batch = self._cached.popleft()
            self.memory -= batch.memory
            lost, last = lost + batch.rows, batch.last
        if self._cached and self._cached[0].first <= through:
            last = self._cached[0].last
        return lost + sum(rows for number, rows in dropped if number > self.pinned and not first <= number <= last)

    def _add(self, batch: Batch) -> None:
        self._cached.append(batch)
        self.memory += batch.memory
        self.loaded = batch.last
