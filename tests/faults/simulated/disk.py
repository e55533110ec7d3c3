"""
A journal in memory: `Disk` outlives the daemon, `SimulatedJournal` does not.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from twisted.application.service import Service
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall
from zope.interface import implementer

from tests.faults.simulated.life import Life, demand
from usbgate.core.batch import KINDS, Batch, encode, merge
from usbgate.core.model import ClockMark, Reading, RequestRecord, Row
from usbgate.store.interfaces import IJournal, IOutbox, Refusal
from usbgate.testing import rows_of

FLUSH_INTERVAL = 0.05  # seconds, as the real journal's
MERGE_ROWS = 12  # small, so that a backlog is many batches
UNSYNCED_ROWS = 24  # not yet on disk, from which on there is pressure while the disk takes some; twice as many are kept
RETRY = 0.5  # seconds between attempts of the disk
STOP_PATIENCE = 1.5  # seconds to go on trying when asked to end, as the real journal's

POISON = "bad"  # a cell that begins so is refused by the database for what it is


def is_poisoned(batch: Batch) -> bool:
    """
    Return whether the database refuses one of these rows for its data.
    """
    cells = [cell for row in rows_of(batch).values() for cell in row if isinstance(cell, str)]
    return any(cell.startswith(POISON) or ":" + POISON in cell for cell in cells)


class Disk:
    """
    The part of a journal that outlives the daemon.

    Attributes:
        refuses: Whether it takes nothing.
        latency: Seconds that a commit takes.
        ever: Every row that was ever committed, by number.
        rejected: Rows that were set aside, by number.
    """

    def __init__(self) -> None:
        self.refuses = False
        self.latency = 0.0
        self.n = 0
        self.batches: list[Batch] = []
        self.ever: dict[int, Row] = {}
        self.rejected: dict[int, Row] = {}

    def commit(self, batches: Sequence[Batch], rejected: Sequence[Batch], confirmed: int, given_up: int) -> None:
        """
        Commit all of this.

        Args:
            batches: New ones.
            rejected: Rows to set aside.
            confirmed: Up to this number they are let go.
            given_up: Up to this number those that were not on disk were given up; 0 for none.
        """
        self.batches = [batch for batch in self.batches if batch.last > confirmed]
        for batch in batches:
            expected = max(self.n, given_up) + 1
            demand(batch.first == expected, "numbers have no gap but where rows were given up", batch.first, expected)
            self.batches.append(batch)
            self.n = batch.last
            self.ever.update(rows_of(batch))
        for batch in rejected:
            for number, row in rows_of(batch).items():
                self.rejected.setdefault(number, row)


@implementer(IJournal, IOutbox)
class SimulatedJournal(Service):
    """
    A journal on a `Disk`, with the contract of the real one: rows are numbered and encoded every 50 ms and committed
    some time later; `oldest` returns the same batch until it is confirmed; a confirmed batch is deleted by the next
    commit; while the disk refuses there is no pressure, and the oldest rows that are not on disk are dropped beyond a
    limit.
    """

    def __init__(
        self,
        life: Life,
        disk: Disk,
        pressure: Callable[[bool], None],
        appended: Callable[[Sequence[Reading], Sequence[RequestRecord]], None],
        given_up: Callable[[Batch], None],
        stored: Callable[[int], bool],
    ) -> None:
        """
        Create a journal.

        Args:
            life: The run of the daemon that it belongs to.
            disk: What there is of it already.
            pressure: As the real journal's.
            appended: Told what was taken in.
            given_up: Told what will never be on disk.
            stored: Whether the row of a number is where it may be let go.
        """
        self.backlog = 0
        self.held = False
        self._life = life
        self._disk = disk
        self._pressure = pressure
        self._appended = appended
        self._tell_given_up = given_up
        self._stored = stored
        self._rows: dict[type[Row], list[Row]] = {kind.row: [] for kind in KINDS}
        self._waiting = 0
        self._rejects: list[tuple[Sequence[Refusal], Deferred[None]]] = []
        self._flushing: IDelayedCall | None = None
        self._committing: IDelayedCall | None = None
        self._batches: list[Batch] = []  # encoded, not yet on disk
        self._unsynced = 0
        self._refused = False  # the last time
        self._given_up = 0
        self._next = 0
        self._on_disk = 0  # the newest number reported to be on disk
        self._confirmed = 0
        self._current: Batch | None = None
        self._asker: Deferred[Batch] | None = None
        self._stopped: Deferred[None] | None = None
        self._stopping: IDelayedCall | None = None

    @property
    def rejected(self) -> int:
        return len(self._disk.rejected)

    @property
    def unwritten(self) -> int:
        """
        Rows that are not on disk.
        """
        return self._unsynced + self._waiting

    def startService(self) -> None:
        """
        Continue with what is on disk.
        """
        super().startService()
        self._next = self._disk.n + 1
        self._on_disk = self._disk.n
        self.backlog = sum(batch.rows for batch in self._disk.batches)

    def stopService(self) -> Deferred[None]:
        """
        Write everything, or give up after a while.
        """
        super().stopService()
        self._flush()
        if self._committing is None:
            return succeed(None)
        self._stopped = Deferred()
        self._stopping = self._life.callLater(STOP_PATIENCE, self._stop)
        return self._stopped

    def _stop(self) -> None:
        for call in (self._committing, self._stopping):
            if call is not None and call.active():
                call.cancel()
        self._committing = self._stopping = None
        stopped, self._stopped = self._stopped, None
        if stopped is not None:
            stopped.callback(None)

    def append(self, *runs: Sequence[Row]) -> None:
        if not self._life.deed():
            return
        demand(self.running == 1, "nothing comes to a journal that is closed")
        rows = [row for run in runs for row in run]
        self._appended(
            [row for row in rows if isinstance(row, Reading)], [row for row in rows if isinstance(row, RequestRecord)]
        )
        if self._waiting and any(isinstance(row, ClockMark) for row in rows):
            self._flush()
        for row in rows:
            self._rows[type(row)].append(row)
        self._waiting += len(rows)
        self.backlog += len(rows)
        self._flush_soon()

    def _flush_soon(self) -> None:
        if self._flushing is None and self.running:
            self._flushing = self._life.callLater(FLUSH_INTERVAL, self._flush)

    def _flush(self) -> None:
        flushing, self._flushing = self._flushing, None
        if flushing is not None and flushing.active():
            flushing.cancel()
        if self._waiting:
            batch = encode(self._next, *self._rows.values())
            self._next = batch.last + 1
            self._rows = {kind.row: [] for kind in KINDS}
            self._waiting = 0
            self._batches.append(batch)
            self._unsynced += batch.rows
            while self._unsynced > 2 * UNSYNCED_ROWS and len(self._batches) > 1:
                oldest = self._batches.pop(0)
                self._unsynced -= oldest.rows
                self.backlog -= oldest.rows
                self._given_up = oldest.last
                self._tell_given_up(oldest)
        if (self._batches or self._rejects) and self._committing is None:
            self._committing = self._life.callLater(self._disk.latency, self._commit)
        self._weigh()

    def _commit(self) -> None:
        self._committing = None
        self._refused = self._disk.refuses
        if self._refused:
            self._weigh()
            self._committing = self._life.callLater(RETRY, self._commit)
            return
        if not self._life.deed():
            return
        batches, self._batches = self._batches, []
        rejects, self._rejects = self._rejects, []
        rows = [refusal.row for refusals, _ in rejects for refusal in refusals]
        self._disk.commit(batches, rows, self._confirmed, self._given_up)
        if not self._life.deed():  # on disk, but not reported
            return
        for batch in batches:
            self._unsynced -= batch.rows
            self._on_disk = batch.last
        self._weigh()
        for _, done in rejects:
            if not done.called:  # it was cancelled
                done.callback(None)
        self._offer()
        if self._stopped is not None:
            self._stop()

    def _weigh(self) -> None:
        held = not self._refused and self._unsynced > (UNSYNCED_ROWS // 2 if self.held else UNSYNCED_ROWS)
        if held != self.held:
            self.held = held
            self._pressure(held)

    def oldest(self) -> Deferred[Batch]:
        demand(self._asker is None, "one asker at a time")
        asker: Deferred[Batch] = Deferred(self._forget_asker)
        self._asker = asker
        self._offer()
        return asker

    def _forget_asker(self, asker: Deferred[Batch]) -> None:
        self._asker = None

    def _offer(self) -> None:
        if self._asker is None or not self._life.alive:
            return
        if self._current is None:
            parts: list[Batch] = []
            rows = 0
            for batch in self._disk.batches:
                if self._confirmed < batch.last <= self._on_disk:
                    rows += batch.rows
                    if parts and rows > MERGE_ROWS:
                        break
                    parts.append(batch)
            self._current = merge(parts) if parts else None
        if self._current is not None:
            asker, self._asker = self._asker, None
            asker.callback(self._current)

    def confirm(self, batch: Batch) -> None:
        if not self._life.deed():
            return
        demand(batch is self._current, "what `oldest` gave is confirmed, and nothing else", batch, self._current)
        for n, row in rows_of(batch).items():
            demand(self._stored(n), "a row is let go only when it is stored or set aside", row)
        self._confirmed = batch.last
        self._current = None
        self.backlog -= batch.rows

    def reject(self, rows: Sequence[Refusal]) -> Deferred[None]:
        done: Deferred[None] = Deferred()
        if self._life.deed():
            for row, reason in rows:
                demand(row.rows == 1, "one row at a time is set aside", row)
                demand(is_poisoned(row), "nothing is set aside for a condition of the server", row, reason)
            self._rejects.append((rows, done))
            self._flush_soon()
        return done
