"""
The durable queue between what is read and what is stored (protocol §5).

Rows are taken in by the reactor's thread, encoded every 50 ms, committed by a thread of the journal's own, and
given out again as batches. Three bounds keep memory flat: rows that are not yet on disk hold back the devices (who
asks can't be held back, so requests are then not recorded), rows on disk are kept in memory for the delivery only up
to a mark and read back beyond it, and the delivery has one batch at a time. A slow store never holds back the devices.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path

from twisted.application.service import Service
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorFromThreads, IReactorTime
from twisted.logger import Logger
from zope.interface import implementer

from usbgate.batch import KINDS, Batch, encode, merge
from usbgate.fieldline import plain_text
from usbgate.interfaces import IJournal, IOutbox
from usbgate.journalfile import LIMIT, JournalFile
from usbgate.journalwriter import JournalWriter, Read, Write
from usbgate.model import RequestRecord, Row

FLUSH_INTERVAL = 0.05  # seconds, protocol §5
LOST_INTERVAL = 60.0  # seconds between two lines of log about rows that were lost
FLUSH_ROWS = 10_000  # at once beyond this: encoding them takes 10 ms of the reactor
MERGE_ROWS = 20_000  # a statement of 5,000 to 20,000 rows is what PostgreSQL stores fastest

# Characters of encoded rows, about as many bytes; 16 MiB are 200,000 rows, more than a second of the fastest devices.
UNSYNCED_LIMIT = 16 << 20
LIVE_LIMIT = 16 << 20


_DELIMITING = {kind.row for kind in KINDS if kind.delimits}


class IJournalReactor(IReactorTime, IReactorFromThreads):
    """
    What the journal needs of the reactor.
    """


@implementer(IJournal, IOutbox)
class Journal(Service):
    """
    Rows in, batches out, with the disk between.

    Attributes:
        backlog: Rows appended and not yet confirmed.
        rejected: Rows set aside in the file for good.
        trouble: Why the disk takes nothing now; None while all is well.
        commits: Commits since the start.
        slowest_commit: Seconds that the slowest of them took.
        dropped: Requests not recorded since the start, for want of a disk that takes them.
        lost: Rows dropped since the start, the oldest, for want of room in the file.
    """

    log = Logger()

    def __init__(
        self,
        reactor: IJournalReactor,
        path: Path,
        pressure: Callable[[bool], None] = lambda held: None,
        unsynced_limit: int = UNSYNCED_LIMIT,
        live_limit: int = LIVE_LIMIT,
        durability: float | None = None,
        limit: int = LIMIT,
    ) -> None:
        """
        Make a journal; nothing is opened before `startService`.

        Args:
            reactor: Where it lives.
            path: The file; its folder exists.
            pressure: Called with True when no more rows should come, with False when they may again.
            unsynced_limit: Characters of encoded rows not yet on disk from which on there is pressure.
            live_limit: Characters of encoded rows on disk to keep in memory.
            durability: Seconds that rows may wait for a commit; None for `FLUSH_INTERVAL`.
            limit: Bytes of rows that the file may hold.
        """
        self._reactor = reactor
        self._file = JournalFile(path, limit)
        self._durability = FLUSH_INTERVAL if durability is None else durability
        self._pressure = pressure
        self._unsynced_limit = unsynced_limit
        self._live_limit = live_limit
        self._writer = JournalWriter(self._file, self, reactor.callFromThread)
        self._stopped: Deferred[None] = Deferred()
        # Not yet handed to the thread.
        self._rows: dict[type[Row], list[Row]] = {kind.row: [] for kind in KINDS}
        self._waiting = 0
        self._rejects: list[tuple[Batch, str]] = []
        self._flushing: IDelayedCall | None = None
        # On the way to the disk.
        self._next = 1
        self._unsynced = 0
        self._held = False
        # On disk, for the delivery.
        self._live: deque[Batch] = deque()
        self._live_size = 0
        self._loaded = 0  # the newest number that is, or was, in `_live`
        self._behind = False  # whether there is more on disk after that
        self._reading = False
        self._current: Batch | None = None
        self._asker: Deferred[Batch] | None = None
        self._confirmed = 0
        self._undeleted = 0  # rows confirmed and still in the file
        self.backlog = 0
        self.trouble: str | None = None
        self.commits = 0
        self.slowest_commit = 0.0
        self.dropped = 0
        self._dropped_told = 0
        self.lost = 0
        self._lost_told = 0
        self._lost_told_at = float("-inf")

    @property
    def uuid(self) -> str:
        """
        What tells this journal from all others; empty before `startService`.
        """
        return self._file.uuid

    @property
    def rejected(self) -> int:
        """
        Rows set aside in the file for good.
        """
        return self._file.rejected

    def status(self) -> dict[str, str]:
        """
        Tell how it is, as fields whose values read back.
        """
        told = {
            "JOURNAL": "ok" if self.trouble is None else "trouble",
            "COMMITS": str(self.commits),
            "SLOWEST": f"{self.slowest_commit:.4f}",
            "WRITTEN": str(self._file.bytes_written),
        }
        if self.dropped:
            told["DROPPED"] = str(self.dropped)
        if self.lost:
            told["LOST"] = str(self.lost)
        if self.trouble is not None:
            told["TEXT"] = plain_text(self.trouble)
        return told

    def startService(self) -> None:
        """
        Open the file and start the thread.

        Raises:
            JournalError: The file can't be used.
        """
        self._file.open()
        Service.startService(self)
        self._next = self._file.n + 1
        self.backlog = self._file.backlog
        self._behind = self.backlog > 0
        self._writer.start()

    def stopService(self) -> Deferred[None]:
        """
        Write what was appended, close the file, end the thread.

        Returns:
            Fires when that is done, also where the disk refused.
        """
        if not self.running:
            return succeed(None)
        Service.stopService(self)
        if self._asker is not None:
            self._asker.cancel()
        if self._waiting or self._rejects or self._undeleted:
            self._flush()
        self._tell_lost()
        self._writer.stop()
        return self._stopped

    def append(self, *runs: Sequence[Row]) -> None:
        """
        Take rows in (see `IJournal.append`).
        """
        if not self.running:
            self.log.error("{rows} rows came while the journal was closed", rows=sum(map(len, runs)))
            return
        for rows in runs:
            if rows:
                kind = type(rows[0])
                if kind in _DELIMITING and self._waiting:
                    self._flush()
                self._take(kind, rows)
        if self._waiting >= FLUSH_ROWS:
            self._flush()
        elif self._waiting:
            self._flush_soon()

    def _take(self, kind: type[Row], rows: Sequence[Row]) -> None:
        if kind is RequestRecord and self._unsynced > self._unsynced_limit:
            self._drop(len(rows))
            return
        self._rows[kind] += rows
        self._waiting += len(rows)
        self.backlog += len(rows)

    def _drop(self, requests: int) -> None:
        if self.dropped == self._dropped_told:
            self.log.error("requests are not recorded until the journal has room again")
        self.dropped += requests

    def oldest(self) -> Deferred[Batch]:
        """
        Wait for the oldest rows on disk that are not confirmed (see `IOutbox.oldest`).
        """
        if self._asker is not None:
            raise RuntimeError("one asker at a time")
        asker: Deferred[Batch] = Deferred(self._forget_asker)
        self._asker = asker
        self._offer()
        return asker

    def _forget_asker(self, asker: Deferred[Batch]) -> None:
        self._asker = None

    def confirm(self, batch: Batch) -> None:
        """
        Let a batch go (see `IOutbox.confirm`); its deletion joins the next commit, so that it costs none.
        """
        if batch.last <= self._confirmed:
            return
        self._confirmed = batch.last
        self._current = None
        self._tell_lost()
        self.backlog -= batch.rows
        self._undeleted += batch.rows
        # While nothing new comes, too, so that a long backlog is not sent again whole after a crash.
        if self._undeleted >= MERGE_ROWS:
            self._flush_soon()
        self._read_ahead()

    def reject(self, row: Batch, reason: str) -> None:
        """
        Set one row aside for good (see `IOutbox.reject`).
        """
        self._rejects.append((row, reason))
        self._flush_soon()

    def _flush_soon(self) -> None:
        if self._flushing is None and self.running:
            self._flushing = self._reactor.callLater(self._durability, self._flush)

    def _flush(self) -> None:
        flushing, self._flushing = self._flushing, None
        if flushing is not None and flushing.active():
            flushing.cancel()
        batch = None
        if self._waiting:
            batch = encode(self._next, *self._rows.values())
            self._next = batch.last + 1
            for rows in self._rows.values():
                rows.clear()
            self._waiting = 0
            self._unsynced += batch.size
        # What is on its way to the store stays until that is over.
        kept = self._confirmed if self._current is None else self._current.last
        self._writer.write(Write(batch, self._rejects, self._confirmed, kept))
        self._rejects = []
        self._undeleted = 0
        self._weigh()

    def _weigh(self) -> None:
        # Let go at half of the mark, so that devices are not paused and resumed at every commit.
        held = self._unsynced > (self._unsynced_limit // 2 if self._held else self._unsynced_limit)
        if held != self._held:
            self._held = held
            self._pressure(held)
            if not held and self.dropped != self._dropped_told:
                self.log.info("{dropped} requests were not recorded", dropped=self.dropped - self._dropped_told)
                self._dropped_told = self.dropped

    def _offer(self) -> None:
        """
        Give the asker a batch, if there are both.
        """
        if self._asker is not None and self._current is None and self._live:
            parts = [self._live.popleft()]
            rows = parts[0].rows
            while self._live and (rows := rows + self._live[0].rows) <= MERGE_ROWS:
                parts.append(self._live.popleft())
            self._live_size -= sum(batch.size for batch in parts)
            self._current = merge(parts) if len(parts) > 1 else parts[0]
        self._read_ahead()
        if self._asker is not None and self._current is not None:
            asker, self._asker = self._asker, None
            asker.callback(self._current)

    def _read_ahead(self) -> None:
        # One batch is read while one is being stored.
        if self._behind and not self._reading and not self._live and self.running:
            self._reading = True
            self._writer.read(Read(self._loaded, MERGE_ROWS))

    # What the writer tells (see `WriterListener`).

    def committed(self, batches: Sequence[Batch], seconds: float) -> None:
        self.commits += 1
        self.slowest_commit = max(self.slowest_commit, seconds)
        self._recover()
        for batch in batches:
            size = batch.size
            self._unsynced -= size
            if self._live and self._live_size + size > self._live_limit:
                self._behind = True
            if not self._behind:
                self._live.append(batch)
                self._live_size += size
                self._loaded = batch.last
        self._weigh()
        self._offer()

    def overflowed(self, dropped: Sequence[tuple[int, int]]) -> None:
        through = dropped[-1][0]
        # What was given out meanwhile is stored all the same, and so is a batch in memory, merged of several, as long
        # as a part of it is on disk: each is lost whole or not at all.
        stored = self._confirmed if self._current is None else self._current.last
        lost, first, last = 0, self._next, 0
        if self._live:
            first = self._live[0].first
        while self._live and self._live[0].last <= through:
            batch = self._live.popleft()
            self._live_size -= batch.size
            lost, last = lost + batch.rows, batch.last
        if self._live and self._live[0].first <= through:
            last = self._live[0].last
        lost += sum(rows for number, rows in dropped if number > stored and not first <= number <= last)
        self.lost += lost
        self.backlog -= lost
        if self._reactor.seconds() - self._lost_told_at >= LOST_INTERVAL:
            self._tell_lost()

    def _tell_lost(self) -> None:
        if self.lost > self._lost_told:
            self.log.error(
                "the journal is full: its {rows} oldest rows were dropped and are lost",
                rows=self.lost - self._lost_told,
            )
            self._lost_told, self._lost_told_at = self.lost, self._reactor.seconds()

    def was_read(self, batch: Batch | None, complete: bool) -> None:
        if not self._reading:  # asked of a file that has been set aside since
            return
        # What was committed before the reading is in it, and was told before: so nothing is left out or doubled.
        self._reading = False
        self._behind = not complete
        if not self._unsynced:  # else it is the next commit that will tell
            self._recover()
        if batch is not None:
            self._live.append(batch)
            self._live_size += batch.size
            self._loaded = batch.last
        self._offer()

    def began_again(self, n: int) -> None:
        self._reading = False
        self._behind = False
        here = [*self._live] + ([self._current] if self._current is not None else [])
        unwritten = self._next - 1 - n + self._waiting
        self.backlog = sum(batch.rows for batch in here) + unwritten

    def refused(self, reason: str) -> None:
        if self.trouble is None:
            self.log.error(
                "the journal {path} can't be used: {reason}; it will be tried again",
                path=str(self._file.path),
                reason=reason,
            )
        self.trouble = reason

    def _recover(self) -> None:
        if self.trouble is not None:
            self.log.info("the journal can be used again")
            self.trouble = None

    def closed(self, lost: int) -> None:
        if lost:
            self.log.error("{lost} rows could not be written to the journal and are lost", lost=lost)
        self._stopped.callback(None)
