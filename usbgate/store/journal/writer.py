"""
The journal's thread: it writes what waits in one commit, and tries again where the disk refuses.

What waits is a ring: beyond its limit the oldest batches make room for new ones, so that memory stays flat however
long a disk refuses, or hangs in the middle of a write.
"""

from __future__ import annotations

import sqlite3
from collections import deque
from collections.abc import Callable, Sequence
from math import inf
from queue import Empty, SimpleQueue
from threading import Lock, Thread
from time import monotonic
from typing import Literal, NamedTuple, Protocol

from twisted.logger import Logger

from usbgate.core.batch import Batch
from usbgate.store.journal.file import JournalFile, is_damage

RETRY_FIRST, RETRY_MOST = 0.1, 5.0  # seconds between attempts while the disk refuses
STOP_PATIENCE = 1.5  # seconds to keep retrying after `stop`

# Characters of rows for one commit, so that a long ring goes to a disk that has a little room as far as it fits, and no
# more than this is out of reach of the ring's limit while a commit hangs.
COMMIT_MOST = 4 << 20


class Write(NamedTuple):
    """
    A commit request (see `JournalFile.write`).

    Attributes:
        lost: Rows to count as lost.
        size: Approximate bytes of the batch in memory.
    """

    batch: Batch | None
    rejected: Sequence[tuple[Batch, str]]
    confirmed: int
    kept: int = 0
    lost: int = 0
    size: int = 0


class Read(NamedTuple):
    """
    A read request (see `JournalFile.read`); at most one is outstanding.
    """

    after: int
    most: int


class WriterListener(Protocol):
    """
    Receives the writer's events, in the reactor thread and in order.
    """

    def opened(self) -> None:
        """
        The file is open; called once, before any other event.
        """

    def committed(self, batches: Sequence[Batch], seconds: float) -> None:
        """
        The batches are on disk; the commit took `seconds`.
        """

    def overflowed(self, dropped: Sequence[tuple[int, int]]) -> None:
        """
        The file is at its limit and batches were dropped, given as (last number, rows); `committed` follows.
        """

    def was_read(self, batch: Batch | None, complete: bool) -> None:
        """
        A read completed; `batch` is None if there is none. With `complete`, it covers everything committed so far.
        """

    def refused(self, reason: str) -> None:
        """
        The disk refused the operation; it will be retried.
        """

    def began_again(self, n: int) -> None:
        """
        The damaged file was replaced by a new one; its rows and any pending read are gone. `n` is the newest number.
        """

    def closed(self, lost: int) -> None:
        """
        The file is closed and the thread has ended; `lost` rows could not be written.
        """


class JournalWriter:
    """
    The thread that owns the journal file from `start` until it reports `closed`.
    """

    log = Logger()

    def __init__(self, file: JournalFile, listener: WriterListener, call: Callable[..., object], limit: int) -> None:
        """
        Create a writer; nothing runs before `start`.

        Args:
            file: The file, already open or to be opened by the thread.
            listener: Receives the events.
            call: The reactor's `callFromThread`.
            limit: Maximum bytes of queued writes, by `Write.size`.
        """
        self._file = file
        self._listener = listener
        self._call = call
        self._limit = limit
        self._queue: SimpleQueue[Read | Literal["write"] | None] = SimpleQueue()
        self._lock = Lock()  # guards the next two
        self._waiting: deque[Write] = deque()
        self._size = 0
        self._began = inf  # start of the commit in progress
        # A daemon thread, so that it never delays process exit; the file is crash-safe.
        self._thread = Thread(target=self._run, name="journal", daemon=True)

    def start(self) -> None:
        """
        Start the thread.
        """
        self._thread.start()

    def write(self, write: Write) -> list[Batch]:
        """
        Queue a write; it is committed together with the other queued writes.

        Returns:
            The oldest batches, discarded to stay within the limit; they will never be written.
        """
        with self._lock:
            idle = not self._waiting
            self._waiting.append(write)
            self._size += write.size
            given_up = self._make_room()
        if idle:  # otherwise the thread is already awake
            self._queue.put("write")
        return given_up

    def _make_room(self) -> list[Batch]:
        given_up: list[Batch] = []
        while self._size > self._limit and len(self._waiting) > 1:
            oldest = self._waiting.popleft()
            self._size -= oldest.size
            if oldest.batch is not None:
                given_up.append(oldest.batch)
            if oldest.rejected or oldest.lost:
                heir = self._waiting[0]
                rejected = [*oldest.rejected, *heir.rejected]
                self._waiting[0] = heir._replace(rejected=rejected, lost=oldest.lost + heir.lost)
        return given_up

    @property
    def busy(self) -> float:
        """
        Seconds since the commit in progress began; 0 if there is none.
        """
        return max(0.0, monotonic() - self._began)

    def read(self, read: Read) -> None:
        """
        Request a read.
        """
        self._queue.put(read)

    def stop(self) -> None:
        """
        Write what is queued, close the file and end the thread.
        """
        self._file.interrupt_check()
        self._queue.put(None)

    def _run(self) -> None:
        read: Read | None = None
        told = False  # whether `opened` was reported
        pause = due = 0.0  # retry interval in seconds, and time of the next attempt
        ends = inf  # deadline after `stop`
        while ends == inf or (self._waiting and (not pause or monotonic() < ends)):
            for item in self._take(
                max(0.0, min(due, ends) - monotonic()) if self._waiting or read or not self._file.checked else None
            ):
                if item is None:
                    ends = monotonic() + STOP_PATIENCE
                    due, pause = 0.0, min(pause, RETRY_FIRST)  # the disk may have recovered
                elif item != "write":
                    read = item
            if monotonic() < due:
                continue
            try:
                if not told:
                    self._file.open_again()
                    self._call(self._listener.opened)
                    told = True
                self._file.check()  # first of all, and in this thread, so that startup need not wait
                # Read and commit are tried independently: a full disk can still be read.
                try:
                    if read is not None:
                        self._call(self._listener.was_read, *self._file.read(read.after, read.most))
                        read = None
                finally:
                    if self._waiting:
                        self._commit()
                pause = due = 0.0
            except Exception as error:
                if not isinstance(error, sqlite3.Error) and not pause:
                    self.log.failure("unexpected, while writing the journal")
                self._call(self._listener.refused, str(error))
                pause = min(max(RETRY_FIRST, pause * 2), RETRY_MOST)
                due = monotonic() + pause
                if is_damage(error) and self._begin_again(error):
                    read = None
                    due = 0.0
        self._file.close()
        self._call(self._closed, sum(write.batch.rows for write in self._waiting if write.batch is not None))

    def _take(self, seconds: float | None) -> list[Read | Literal["write"] | None]:
        """
        Wait at most `seconds` for a request and return all that are queued.
        """
        items: list[Read | Literal["write"] | None] = []
        try:
            items.append(self._queue.get(timeout=seconds))
            while True:
                items.append(self._queue.get_nowait())
        except Empty:
            return items

    def _commit(self) -> None:
        writes: list[Write] = []
        size = 0
        with self._lock:
            newest = self._waiting[-1]
            while self._waiting and (not writes or size + self._waiting[0].size <= COMMIT_MOST):
                writes.append(self._waiting.popleft())
                size += writes[-1].size
            self._size -= size
        batches = [write.batch for write in writes if write.batch is not None]
        rejected = [item for write in writes for item in write.rejected]
        lost = sum(write.lost for write in writes)
        began = self._began = monotonic()
        try:
            dropped = self._file.write(batches, rejected, newest.confirmed, newest.kept, lost)
        except BaseException:
            with self._lock:  # may exceed the limit until the next write
                self._waiting.extendleft(reversed(writes))
                self._size += size
            raise
        finally:
            self._began = inf
        if dropped:
            self._call(self._listener.overflowed, dropped)
        self._call(self._listener.committed, batches, monotonic() - began)

    def _begin_again(self, damage: Exception) -> bool:
        try:
            begun = self._file.begin_again(damage)
        except (sqlite3.Error, OSError):  # perhaps a full disk; retried
            return False
        if not begun:
            return False
        self._call(self._listener.began_again, self._file.n)
        return True

    def _closed(self, lost: int) -> None:
        self._thread.join()  # it has nothing left to do
        self._listener.closed(lost)
