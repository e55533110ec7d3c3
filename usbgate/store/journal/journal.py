"""
The durable queue between the devices and the store (protocol §5).

Rows are appended in the reactor thread, encoded every 50 ms, committed by a writer thread and returned as batches.
Three bounds keep memory flat: rows not yet on disk are limited, rows on disk are cached for the delivery up to a limit
and read back beyond it, and the delivery holds one batch at a time.

A slow disk applies back-pressure to the devices. A disk that refuses writes does not, and neither does a slow store:
everything but writing continues, and the oldest rows not yet on disk are dropped beyond the limit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from twisted.application.service import Service
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorFromThreads, IReactorTime
from twisted.logger import Logger
from zope.interface import implementer

from usbgate.core.batch import KINDS, Batch, encode
from usbgate.core.model import Row
from usbgate.core.status import JournalStatus
from usbgate.store.interfaces import IJournal, IOutbox
from usbgate.store.journal.file import LIMIT, JournalFile, JournalRefused
from usbgate.store.journal.health import JournalHealth
from usbgate.store.journal.readahead import MERGE_ROWS, ReadAhead, memory_of
from usbgate.store.journal.writer import JournalWriter, Read, Write

FLUSH_INTERVAL = 0.05  # seconds, protocol §5
FLUSH_ROWS = 9_000  # at once beyond this: encoding them takes 8 ms of the reactor. Two, with a chunk each, still merge

STUCK_AFTER = 5.0  # seconds that a commit may take; beyond, the disk takes nothing. An SD card can need two.
LOOK_INTERVAL = 1.0  # seconds between two looks whether it is so, while the devices are held back

# While the disk refuses it is tried rarely, and rows wait for each other: then more of them fit into memory.
REFUSED_FLUSH_INTERVAL = 2.0  # seconds

# Rows that wait in memory, the newest, while the disk refuses to open the file: before they have numbers they can't be
# encoded, and take 300 bytes each.
UNNUMBERED_ROWS = 50_000

# Bytes of encoded rows in memory; 16 MiB are 200,000 rows, more than a second of the fastest devices.
UNSYNCED_LIMIT = 16 << 20
LIVE_LIMIT = 16 << 20


_DELIMITING = {kind.row for kind in KINDS if kind.delimits}


class IJournalReactor(IReactorTime, IReactorFromThreads):
    """
    The reactor interfaces the journal needs.
    """


@implementer(IJournal, IOutbox)
class Journal(Service):
    """
    A durable queue of rows, read back as batches.

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
            unsynced_limit: Bytes of encoded rows not yet on disk from which on there is pressure, unless the disk
                takes nothing; twice as much is kept at the most.
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
        # While commits go on only requests come beyond the mark, since who asks can't be held back.
        self._writer = JournalWriter(self._file, self, reactor.callFromThread, 2 * unsynced_limit)
        self._stopped: Deferred[None] = Deferred()
        # Not yet handed to the writer.
        self._rows: dict[type[Row], list[Row]] = {kind.row: [] for kind in KINDS}
        self._waiting = 0
        self._rejects: list[tuple[Batch, str]] = []
        self._flushing: IDelayedCall | None = None
        # Handed to the writer, not yet on disk.
        self.next_number = 0
        self._unsynced = 0
        self._unsynced_rows = 0
        self._held = False
        self._looking: IDelayedCall | None = None
        self._ending: IDelayedCall | None = None
        # On disk, for the delivery.
        self._shelf = ReadAhead(live_limit)
        self._reading = False
        self._asker: Deferred[Batch] | None = None
        self._undeleted = 0  # rows confirmed and still in the file
        self.backlog = 0
        self._uncounted = 0  # rows lost, and not yet counted in the file

    @property
    def uuid(self) -> str:
        """
        Unique id of this journal; empty until the file is open.
        """
        return self._file.uuid

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
        return self._unsynced_rows + self._waiting

    def status(self) -> JournalStatus:
        """
        Return the status, as fields whose values read back.
        """
        self._weigh()
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
        self.next_number = self._file.n + 1
        self._shelf.behind = self._file.backlog > 0
        self.backlog += self._file.backlog
        self.health.lost_before(self._file.lost)

    def stopService(self) -> Deferred[None]:
        """
        Write what was appended, close the file, end the thread.

        Returns:
            Fires when that is done, also where the disk refused; or when it hangs.
        """
        if not self.running:
            return succeed(None)
        Service.stopService(self)
        if self._asker is not None:
            self._asker.cancel()
        if self._waiting or self._rejects or self._undeleted or self._uncounted:
            self.flush()
        self.health.tell_lost()
        self._look_again(False)
        self._writer.stop()
        self._ending = self._reactor.callLater(STUCK_AFTER, self._end_anyway)
        return self._stopped

    def _end_anyway(self) -> None:
        if self._writer.busy < STUCK_AFTER:
            self._ending = self._reactor.callLater(LOOK_INTERVAL, self._end_anyway)
            return
        self._ending = None
        self.log.error("a write to the journal does not end: {rows} rows can be lost", rows=self._unsynced_rows)
        self._stopped.callback(None)

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
                if kind in _DELIMITING and self._waiting and self.next_number:
                    self.flush()
                self._rows[kind] += rows
                self._waiting += len(rows)
                self.backlog += len(rows)
        if not self.next_number:
            self._forget_oldest()
        elif self._waiting >= FLUSH_ROWS:
            self.flush()
        elif self._waiting:
            self._flush_soon()

    def _forget_oldest(self) -> None:
        while self._waiting > UNNUMBERED_ROWS:
            most = max(self._rows.values(), key=len)
            rows = max(1, len(most) // 100)  # some at a time, since the others are moved
            del most[:rows]
            self._waiting -= rows
            self._uncounted += rows
            self._lose(rows)

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
        if not self._shelf.confirm(batch):
            return
        self.health.tell_lost()
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
            wait = self._durability
            # Where none is on its way it is these rows that will tell when all is well.
            if self.health.trouble is not None and self._unsynced:
                wait = max(wait, REFUSED_FLUSH_INTERVAL)
            self._flushing = self._reactor.callLater(wait, self.flush)

    def flush(self) -> None:
        """
        Hand what was appended to the writer now, without waiting for more.
        """
        flushing, self._flushing = self._flushing, None
        if flushing is not None and flushing.active():
            flushing.cancel()
        if not self.next_number:
            return
        batch, size = None, 0
        if self._waiting:
            batch = encode(self.next_number, *self._rows.values())
            self.next_number = batch.last + 1
            for rows in self._rows.values():
                rows.clear()
            self._waiting = 0
            size = memory_of(batch)
            self._unsynced += size
            self._unsynced_rows += batch.rows
        # What is on its way to the store stays until that is over.
        shelf = self._shelf
        given_up = self._writer.write(
            Write(batch, self._rejects, shelf.confirmed, shelf.given_out, self._uncounted, size)
        )
        self._rejects = []
        self._uncounted = 0
        self._undeleted = 0
        if given_up:
            self._not_unsynced(given_up)
            self._uncounted = sum(batch.rows for batch in given_up)
            self._lose(self._uncounted)
        self._weigh()

    def _not_unsynced(self, batches: Sequence[Batch]) -> None:
        self._unsynced -= sum(map(memory_of, batches))
        self._unsynced_rows -= sum(batch.rows for batch in batches)

    def _weigh(self) -> None:
        if self.health.trouble is None and self._writer.busy >= STUCK_AFTER:
            self.refused(f"a write has not ended after {STUCK_AFTER:g} s")
            return
        # Let go at half of the mark, so that devices are not paused and resumed at every commit.
        mark = self._unsynced_limit // 2 if self._held else self._unsynced_limit
        held = self.health.trouble is None and self._unsynced > mark
        self._look_again(held)
        if held != self._held:
            self._held = held
            self._pressure(held)

    def _look_again(self, held: bool) -> None:
        # Nothing comes while the devices are held back, and then nothing would tell that the disk hangs.
        if self._looking is not None and self._looking.active():
            if not held:
                self._looking.cancel()
        elif held and self.running:
            self._looking = self._reactor.callLater(LOOK_INTERVAL, self._weigh)

    def _offer(self) -> None:
        """
        Give the asker a batch, if there are both.
        """
        batch = self._shelf.take() if self._asker is not None else None
        self._read_ahead()
        if self._asker is not None and batch is not None:
            asker, self._asker = self._asker, None
            asker.callback(batch)

    def _read_ahead(self) -> None:
        # One batch is read while one is being stored.
        if self._shelf.behind and self._shelf.is_empty and not self._reading and self.running:
            self._reading = True
            self._writer.read(Read(self._shelf.loaded, MERGE_ROWS))

    # What the writer tells (see `WriterListener`).

    def opened(self) -> None:
        if self.next_number or not self.running:
            return
        self._begin()
        self._recover()
        self.flush()
        self._offer()

    def committed(self, batches: Sequence[Batch], seconds: float) -> None:
        self.health.committed(seconds)
        self._not_unsynced(batches)
        self._recover()
        self._shelf.committed(batches)
        self._weigh()
        self._offer()

    def overflowed(self, dropped: Sequence[tuple[int, int]]) -> None:
        lost = self._shelf.drop(dropped)
        self._uncounted += lost - sum(rows for _, rows in dropped)  # the file has counted all of them
        self._lose(lost)

    def _lose(self, rows: int) -> None:
        self.backlog -= rows
        self.health.lose(rows)

    def was_read(self, batch: Batch | None, complete: bool) -> None:
        if not self._reading:  # asked of a file that has been set aside since
            return
        # What was committed before the reading is in it, and was told before: so nothing is left out or doubled.
        self._reading = False
        if not self._unsynced:  # else it is the next commit that will tell
            self._recover()
        self._shelf.was_read(batch, complete)
        self._offer()

    def began_again(self, n: int) -> None:
        self._reading = False
        self._shelf.behind = False
        self.backlog = self._shelf.rows + self.unwritten

    def refused(self, reason: str) -> None:
        self.health.refused(reason)
        self._weigh()  # who was held back is so no more

    def _recover(self) -> None:
        if self.health.trouble is None:
            return
        self.health.recovered()
        if self._flushing is not None:
            self.flush()

    def closed(self, lost: int) -> None:
        if self._ending is None:  # it was not waited for
            return
        self._ending.cancel()
        lost += self._waiting
        if lost:
            self.log.error("{lost} rows could not be written to the journal and are lost", lost=lost)
        self._stopped.callback(None)
