"""
The durable queue between the devices and the store (protocol §5).

Rows are appended and encoded in the reactor thread, committed every 50 ms by a writer thread and returned as batches.
Three bounds keep memory flat: rows not yet on disk are limited, rows on disk are cached for the delivery up to a limit
and read back beyond it, and the delivery holds one batch at a time.

A slow disk applies back-pressure to the devices. A disk that refuses writes does not, and neither does a slow store:
everything but writing continues, and the oldest rows not yet on disk are dropped beyond the limit.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from time import monotonic

from twisted.application.service import Service
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorFromThreads, IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from zope.interface import implementer

from usbgate.core.batch import KINDS, Batch, Draft, Mark
from usbgate.core.model import RequestRecord, Row
from usbgate.core.status import JournalStatus
from usbgate.store.interfaces import IChain, Identity, IJournal, IOutbox, Refusal
from usbgate.store.journal.file import LIMIT, JournalFile, JournalRefused
from usbgate.store.journal.health import JournalHealth
from usbgate.store.journal.readahead import MERGE_ROWS, ReadAhead
from usbgate.store.journal.writer import JournalWriter, Read, Write

FLUSH_INTERVAL = 0.05  # seconds, protocol §5
# Flush at once from here on: numbering them takes 0.5 ms. Two such batches, with a chunk each, merge.
FLUSH_ROWS = 4_500
# If nothing else waits, the next batch follows sooner after one of many rows of which few are requests: while
# PostgreSQL stores 1,000, it has a core for 5 ms, and answers wait for that. At maximum rates, it would cost more than
# it gains.
SOON_INTERVAL = 0.025  # seconds
SOON_ROWS = 500
SOON_REQUESTS = 0.1  # of the rows

STUCK_AFTER = 5.0  # seconds after which a commit counts as refused; an SD card can need two
CHECK_INTERVAL = 1.0  # seconds between checks for a stuck commit while the devices are held back

# While the disk refuses writes, flush rarely: larger batches take less memory.
REFUSED_FLUSH_INTERVAL = 2.0  # seconds

# Maximum rows to keep while the file can't be opened and they have no numbers: 4 MiB.
UNNUMBERED_ROWS = 50_000

# Bytes of encoded rows in memory; 16 MiB are 200,000 rows, more than a second of the fastest devices.
UNSYNCED_LIMIT = 16 << 20
LIVE_LIMIT = 16 << 20

_DELIMITING = {kind.row for kind in KINDS if kind.delimits}


class IJournalReactor(IReactorTime, IReactorFromThreads):
    """
    The reactor interfaces the journal needs.
    """


@implementer(IJournal, IOutbox, IChain)
class Journal(Service):
    """
    A durable queue of rows, read back as batches; also the writer's listener.

    Attributes:
        backlog: Rows appended and not yet confirmed.
        next_number: Number of the next row; 0 until the file is open.
        rejected: Rejected rows kept in the file.
        health: State of the disk.
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
        Create a journal; nothing is opened before `startService`.

        Args:
            reactor: The reactor.
            path: The file; its folder must exist.
            pressure: Called with True to pause the producers, with False to resume them.
            unsynced_limit: Bytes of encoded rows not yet on disk above which producers are paused, unless the disk
                refuses writes; at most twice as many are kept.
            live_limit: Bytes of encoded rows on disk to keep in memory.
            durability: Seconds that rows may wait for a commit; None for `FLUSH_INTERVAL`.
            limit: Bytes of rows that the file may hold.
        """
        self._reactor = reactor
        self._file = JournalFile(path, limit)
        self.health = JournalHealth(path, reactor.seconds, lambda: self._file.bytes_written)
        self._durability = FLUSH_INTERVAL if durability is None else durability
        self._pressure = pressure
        self._unsynced_limit = unsynced_limit
        # Beyond `unsynced_limit` only requests are appended while commits succeed: clients can't be held back.
        self._writer = JournalWriter(self._file, self, reactor.callFromThread, 2 * unsynced_limit)
        self._stopped: Deferred[None] = Deferred()
        self._ending: IDelayedCall | None = None  # gives up waiting for it
        self._draft = Draft()  # rows not yet handed to the writer
        self._undeleted = 0  # rows confirmed and still in the file
        self._uncounted = 0  # rows lost and not yet counted in the file
        self._restored: Sequence[Batch] | None = None  # batches to be written to a new file
        self._flushing: IDelayedCall | None = None
        self._soon = False  # whether the next batch follows after `SOON_INTERVAL`
        self.next_number = 0
        # Handed to the writer, not yet on disk.
        self._unsynced: dict[int, Batch] = {}  # by last number
        self._held = False  # whether producers are paused
        # While they are, nothing is appended, so only a timer can find that a commit is stuck.
        self._check = LoopingCall(self._regulate)
        self._check.clock = reactor
        # On disk, for the delivery.
        self._found = 0  # the last number of earlier runs, which may have been sent
        self._cache = ReadAhead(live_limit)
        self._reading: int | None = None  # the number behind which batches are being read
        self._asker: Deferred[Batch] | None = None
        self.backlog = 0

    @property
    def identity(self) -> Identity:
        sent = max(self._found, self._cache.pinned)
        return Identity(self._file.head.uuid, self._file.head.base, self._cache.confirmed, sent)

    @property
    def rejected(self) -> int:
        """
        Rejected rows kept in the file.
        """
        return self._file.rejected

    @property
    def unwritten(self) -> int:
        """
        Rows appended and not yet on disk.
        """
        return sum(batch.rows for batch in self._unsynced.values()) + self._draft.rows

    def status(self) -> JournalStatus:
        """
        Return the status, in which a commit that is stuck counts as refused.
        """
        self._regulate()
        return self.health.status()

    def startService(self) -> None:
        """
        Open the file and start the writer thread, which retries while the disk refuses.

        Raises:
            JournalError: The file is unusable.
        """
        self.health.started()
        try:
            self._file.open()
        except JournalRefused as error:
            self.refused(str(error))
        else:
            self._begin()
        Service.startService(self)
        self._writer.start()

    def _begin(self) -> None:
        self.next_number = self._file.head.n + 1
        self._found = self._file.head.n
        self._cache.confirm_to(self._file.head.done)
        self._cache.behind = self._file.backlog > 0
        self.backlog += self._file.backlog
        self.health.add_lost(self._file.head.lost)

    def stopService(self) -> Deferred[None]:
        """
        Write what was appended, close the file and end the thread.

        Returns:
            Fires when that is done, or when the disk refuses or hangs.
        """
        if not self.running:
            return succeed(None)
        Service.stopService(self)
        if self._asker is not None:
            self._asker.cancel()
        if self._draft.rows or self._undeleted or self._uncounted:
            self.flush()
        self.health.log_lost()
        self._regulate()
        self._writer.stop()
        self._ending = self._reactor.callLater(STUCK_AFTER, self._abandon)
        return self._stopped

    def _abandon(self) -> None:
        if monotonic() - self._writer.began < STUCK_AFTER:
            self._ending = self._reactor.callLater(CHECK_INTERVAL, self._abandon)
            return
        self._ending = None
        self.log.error("a write to the journal hangs: {rows} rows may be lost", rows=self.unwritten)
        self._stopped.callback(None)

    def append(self, *runs: Sequence[Row]) -> None:
        if not self.running:
            self.log.error("{rows} rows were appended while the journal was closed", rows=sum(map(len, runs)))
            return
        for rows in runs:
            if rows:
                kind = type(rows[0])
                if kind in _DELIMITING and self._draft.rows and self.next_number:
                    self.flush()
                self._draft.add(rows)
                self.backlog += len(rows)
        if not self.next_number:
            self._drop_unnumbered()
        elif self._draft.rows >= FLUSH_ROWS:
            self.flush()
        elif self._draft.rows:
            self._flush_soon()

    def _drop_unnumbered(self) -> None:
        while self._draft.rows > UNNUMBERED_ROWS:
            rows = self._draft.drop_oldest()
            self._uncounted += rows
            self._lose(rows)

    def _lose(self, rows: int) -> None:
        self.backlog -= rows
        self.health.lose(rows)

    def oldest(self) -> Deferred[Batch]:
        if self._asker is not None:
            raise RuntimeError("one asker at a time")
        asker: Deferred[Batch] = Deferred(self._forget_asker)
        self._asker = asker
        self._offer()
        return asker

    def _forget_asker(self, asker: Deferred[Batch]) -> None:
        self._asker = None

    def confirm(self, batch: Batch) -> None:
        if not self._cache.confirm(batch):
            return
        if self.health.unlogged:
            self.health.log_lost()
        self.backlog -= batch.rows
        self._undeleted += batch.rows
        # Deletions join the next commit of new rows, so that they cost none; after many without new rows they are
        # committed alone, so that a crash does not make the delivery repeat a long backlog.
        if self._undeleted >= MERGE_ROWS:
            self._flush_soon()
        if self._cache.behind:
            self._read_ahead()

    def reject(self, rows: Sequence[Refusal]) -> Deferred[None]:
        return self._writer.call(lambda file: file.reject(rows))

    def find(self, mark: Mark) -> Deferred[bool]:
        confirmed, current = self._cache.confirmed, self._cache.current
        if mark.n <= confirmed.n:
            return succeed(mark == confirmed)
        if current is not None and mark == current.mark:
            self.confirm(current)
            return succeed(True)

        def look(file: JournalFile) -> Sequence[tuple[int, int]] | None:
            return file.batches_to(mark.n) if file.is_known(mark) else None

        def found(batches: Sequence[tuple[int, int]] | None) -> bool:
            if batches is None:
                return False
            behind = sum(rows for last, rows in batches if last > self._cache.loaded)
            if behind:
                self._reading = None
            self._forget(self._cache.confirm_to(mark) + behind)
            self._offer()
            return True

        return self._writer.call(look).addCallback(found)

    def waiting(self, after: int) -> Deferred[Batch | None]:
        cached = [batch for batch in self._cache.batches if batch.last > after]
        if cached or not self._cache.behind:
            return succeed(cached[0] if cached else None)
        after = max(after, self._cache.loaded)
        return self._writer.call(lambda file: file.read(after, MERGE_ROWS)[0])

    def discard(self, numbers: Collection[int]) -> Deferred[None]:
        def discarded(deleted: Sequence[int]) -> None:
            behind = [number for number in deleted if number > self._cache.loaded]
            self._forget(self._cache.discard(numbers) + len(behind))

        return self._writer.call(lambda file: file.discard(numbers)).addCallback(discarded)

    def begin(self, journal: str, base: int) -> Deferred[None]:
        done = self._cache.confirmed
        return self._writer.call(lambda file: file.begin(journal, base, done))

    def _forget(self, rows: int) -> None:
        self.backlog -= rows
        self._undeleted += rows

    def _flush_soon(self) -> None:
        if self._flushing is None and self.running:
            wait = SOON_INTERVAL if self._soon and self._durability <= FLUSH_INTERVAL else self._durability
            # With nothing unsynced, these rows are the ones that show whether the disk has recovered.
            if self.health.trouble is not None and self._unsynced:
                wait = max(wait, REFUSED_FLUSH_INTERVAL)
            self._flushing = self._reactor.callLater(wait, self.flush)

    def flush(self) -> None:
        """
        Hand the appended rows to the writer now.
        """
        flushing, self._flushing = self._flushing, None
        if flushing is not None and flushing.active():
            flushing.cancel()
        if not self.next_number:
            return
        batch = None
        if self._draft.rows:
            draft, self._draft = self._draft, Draft()
            requests = draft.count(RequestRecord)
            self._soon = self.backlog == draft.rows >= SOON_ROWS and requests < SOON_REQUESTS * draft.rows
            batch = draft.finish(self.next_number)
            self.next_number = batch.last + 1
            self._unsynced[batch.last] = batch
        # A batch in delivery stays on disk until it is confirmed.
        cache = self._cache
        discarded = self._writer.write(Write(batch, cache.confirmed, cache.pinned, self._uncounted, self._restored))
        self._restored = None
        self._undeleted = 0
        self._uncounted = sum(batch.rows for batch in discarded)
        if discarded:
            for batch in discarded:
                del self._unsynced[batch.last]
            self._lose(self._uncounted)
        self._regulate()

    def _regulate(self) -> None:
        """
        Hold producers back while too many rows wait for the disk; declare the disk unusable if a commit is stuck.
        """
        if self.health.trouble is None and monotonic() - self._writer.began >= STUCK_AFTER:
            self.refused(f"a write has not ended after {STUCK_AFTER:g} s")
            return
        # Release at half the limit, so that devices are not paused and resumed at every commit.
        limit = self._unsynced_limit // 2 if self._held else self._unsynced_limit
        unsynced = sum(batch.memory for batch in self._unsynced.values())
        held = bool(self.running) and self.health.trouble is None and unsynced > limit
        if held == self._held:
            return
        self._held = held
        if held:
            self._check.start(CHECK_INTERVAL, now=False).addErrback(
                lambda failure: self.log.failure("unexpected error while devices are held back", failure=failure)
            )
        elif self._check.running:
            self._check.stop()
        self._pressure(held)

    def _offer(self) -> None:
        """
        Give the asker a batch, if there are both.
        """
        batch = self._cache.next() if self._asker is not None else None
        if self._cache.behind:
            self._read_ahead()
        if self._asker is not None and batch is not None:
            asker, self._asker = self._asker, None
            asker.callback(batch)

    def _read_ahead(self) -> None:
        # One batch is read while another is in delivery.
        if self._cache.is_empty and self._reading is None and self.running:
            self._reading = self._cache.loaded
            self._writer.read(Read(self._reading, MERGE_ROWS))

    # WriterListener.

    def opened(self) -> None:
        if self.next_number or not self.running:
            return
        self._begin()
        self._recover()
        self.flush()
        self._offer()

    def committed(self, batches: Sequence[Batch], seconds: float) -> None:
        self.health.committed(seconds)
        for batch in batches:
            del self._unsynced[batch.last]
        if self.health.trouble is not None:
            self._recover()
        self._cache.committed(batches)
        self._regulate()
        self._offer()

    def overflowed(self, dropped: Sequence[tuple[int, int]]) -> None:
        lost = self._cache.drop(dropped)
        self._uncounted += lost - sum(rows for _, rows in dropped)  # the file counted all of them
        self._lose(lost)

    def was_read(self, after: int, batch: Batch | None, complete: bool) -> None:
        if after != self._reading:  # requested from a file that was replaced, or before a reset
            return
        # Everything committed before the read was reported before it, so nothing is missed or doubled.
        self._reading = None
        if not self._unsynced and self.health.trouble is not None:  # otherwise the next commit shows the recovery
            self._recover()
        self._cache.was_read(batch, complete)
        self._offer()

    def replaced(self) -> None:
        self._reading = None
        self._cache.behind = False
        lost = self.backlog - self._cache.rows - self.unwritten
        if lost:
            self.log.error("{rows} rows that were only in the old journal are lost", rows=lost)
        self.backlog -= lost
        self._uncounted += lost
        self.health.add_lost(lost)
        self._restored = self._cache.batches
        self.flush()

    def refused(self, reason: str) -> None:
        self.health.refused(reason)
        self._regulate()  # releases the producers

    def _recover(self) -> None:
        self.health.recovered()
        if self._flushing is not None:
            self.flush()

    def closed(self, lost: int) -> None:
        if self._ending is None:  # `_abandon` gave up waiting
            return
        self._ending.cancel()
        lost += self._draft.rows
        if lost:
            self.log.error("{lost} rows could not be written to the journal and are lost", lost=lost)
        self._stopped.callback(None)
