"""
A journal in memory.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from twisted.internet.defer import Deferred, succeed
from zope.interface import implementer

from usbgate.core.batch import Batch, encode
from usbgate.core.model import Reading, RequestRecord, Row
from usbgate.store.interfaces import IJournal, IOutbox, Refusal


@implementer(IJournal, IOutbox)
class MemoryJournal:
    """
    A journal in memory: each `append` makes one batch.

    Attributes:
        rows: All rows appended, in order.
        events: The calls of the consumer, in order: `confirm 1-4`, `reject 3 REASON`.
        rejected: Rows set aside for good.
    """

    def __init__(self) -> None:
        self.rows: list[Row] = []
        self.events: list[str] = []
        self.rejected = 0
        self._batches: deque[Batch] = deque()
        self._waiting: Deferred[Batch] | None = None
        self._next = 1

    @property
    def backlog(self) -> int:
        """
        Rows appended and not yet confirmed.
        """
        return sum(batch.rows for batch in self._batches)

    @property
    def awaited(self) -> bool:
        """
        Whether the consumer waits for rows.
        """
        return self._waiting is not None

    @property
    def readings(self) -> list[Reading]:
        """
        The readings among `rows`.
        """
        return [row for row in self.rows if isinstance(row, Reading)]

    @property
    def requests(self) -> list[RequestRecord]:
        """
        The requests among `rows`.
        """
        return [row for row in self.rows if isinstance(row, RequestRecord)]

    def append(self, *runs: Sequence[Row]) -> None:
        runs = tuple(run for run in runs if run)
        if not runs:
            return
        for run in runs:
            self.rows += run
        batch = encode(self._next, *runs)
        self._next = batch.last + 1
        self._batches.append(batch)
        if self._waiting is not None:
            waiting, self._waiting = self._waiting, None
            waiting.callback(self._batches[0])

    def discard(self, index: int) -> None:
        """
        Lose an unconfirmed batch, as a journal does that has no more room.
        """
        del self._batches[index]

    def oldest(self) -> Deferred[Batch]:
        if self._batches:
            return succeed(self._batches[0])
        self._waiting = Deferred(self._withdraw)
        return self._waiting

    def _withdraw(self, waiting: Deferred[Batch]) -> None:
        self._waiting = None

    def confirm(self, batch: Batch) -> None:
        confirmed = self._batches.popleft()
        assert batch is confirmed, f"{batch} is confirmed, but {confirmed} is the oldest"
        self.events.append(f"confirm {batch.first}-{batch.last}")

    def reject(self, rows: Sequence[Refusal]) -> Deferred[None]:
        for row, reason in rows:
            assert row.rows == 1, f"{row} is more than one row"
            self.rejected += 1
            self.events.append(f"reject {row.first} {reason}")
        return succeed(None)
