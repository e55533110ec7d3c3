"""
The journal's thread: it writes what comes in one commit for all that waits, and tries again where the disk refuses.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from math import inf
from queue import Empty, SimpleQueue
from threading import Thread
from time import monotonic
from typing import NamedTuple, Protocol

from twisted.logger import Logger

from usbgate.batch import Batch
from usbgate.journalfile import JournalFile, is_damage

RETRY_FIRST, RETRY_MOST = 0.1, 5.0  # seconds between attempts while the disk refuses
STOP_PATIENCE = 1.5  # seconds to go on trying when asked to end


class Write(NamedTuple):
    """
    Something to commit (see `JournalFile.write`).
    """

    batch: Batch | None
    rejected: Sequence[tuple[Batch, str]]
    confirmed: int
    kept: int = 0


class Read(NamedTuple):
    """
    A batch to read back (see `JournalFile.read`); one at a time.
    """

    after: int
    most: int


class WriterListener(Protocol):
    """
    Who is told what the disk did, in the reactor's thread and in the order in which it happened.
    """

    def committed(self, batches: Sequence[Batch], seconds: float) -> None:
        """
        These are on disk; it took so long.
        """

    def overflowed(self, dropped: Sequence[tuple[int, int]]) -> None:
        """
        The file is at its limit: these were dropped, given by their last numbers and rows; `committed` comes next.
        """

    def was_read(self, batch: Batch | None, complete: bool) -> None:
        """
        A batch was read back, or there is none; with `complete`, it holds all that was told committed until now.
        """

    def refused(self, reason: str) -> None:
        """
        The disk refused; it will be tried again.
        """

    def began_again(self, n: int) -> None:
        """
        The file was damaged and is a new one now, without what had been read or was to be read; `n` is its newest
        number.
        """

    def closed(self, lost: int) -> None:
        """
        The file is closed and the thread has ended; so many rows could not be written.
        """


class JournalWriter:
    """
    A thread that has a journal's file for itself from `start` until it tells `closed`.
    """

    log = Logger()

    def __init__(self, file: JournalFile, listener: WriterListener, call: Callable[..., object]) -> None:
        """
        Make a writer; nothing runs before `start`.

        Args:
            file: The file, open when it starts.
            listener: Who is told.
            call: The reactor's `callFromThread`.
        """
        self._file = file
        self._listener = listener
        self._call = call
        self._queue: SimpleQueue[Write | Read | None] = SimpleQueue()
        # A daemon: what ends the process without stopping us must not wait for it, and the file is safe.
        self._thread = Thread(target=self._run, name="journal", daemon=True)

    def start(self) -> None:
        """
        Start the thread.
        """
        self._thread.start()

    def write(self, write: Write) -> None:
        """
        Commit this, with whatever else waits.
        """
        self._queue.put(write)

    def read(self, read: Read) -> None:
        """
        Read a batch back.
        """
        self._queue.put(read)

    def stop(self) -> None:
        """
        Write what waits, close the file, end.
        """
        self._file.interrupt_check()
        self._queue.put(None)

    def _run(self) -> None:
        writes: list[Write] = []
        read: Read | None = None
        pause = due = 0.0  # seconds between attempts while the disk refuses, and when the next one is
        ends = inf  # when to give up, once asked to end
        while ends == inf or (writes and monotonic() < ends):
            for item in self._take(
                max(0.0, min(due, ends) - monotonic()) if writes or read or not self._file.checked else None
            ):
                if item is None:
                    ends = monotonic() + STOP_PATIENCE
                    due, pause = 0.0, min(pause, RETRY_FIRST)  # the disk may be well again for a while
                elif isinstance(item, Write):
                    writes.append(item)
                else:
                    read = item
            if monotonic() < due:
                continue
            try:
                self._file.check()  # before anything else, in this thread: the daemon need not wait for it
                # Each is tried whatever becomes of the other: a disk that is full can still be read.
                try:
                    if read is not None:
                        self._call(self._listener.was_read, *self._file.read(read.after, read.most))
                        read = None
                finally:
                    if writes:
                        self._commit(writes)
                        writes = []
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
        self._call(self._closed, sum(write.batch.rows for write in writes if write.batch is not None))

    def _take(self, seconds: float | None) -> list[Write | Read | None]:
        """
        Wait for something to do, so long at most, and take all that there is.
        """
        items = []
        try:
            items.append(self._queue.get(timeout=seconds))
            while True:
                items.append(self._queue.get_nowait())
        except Empty:
            return items

    def _commit(self, writes: Sequence[Write]) -> None:
        batches = [write.batch for write in writes if write.batch is not None]
        rejected = [item for write in writes for item in write.rejected]
        began = monotonic()
        dropped = self._file.write(batches, rejected, writes[-1].confirmed, writes[-1].kept)
        if dropped:
            self._call(self._listener.overflowed, dropped)
        self._call(self._listener.committed, batches, monotonic() - began)

    def _begin_again(self, damage: Exception) -> bool:
        try:
            begun = self._file.begin_again(damage)
        except (sqlite3.Error, OSError):  # a full disk, perhaps: the next attempt will tell
            return False
        if not begun:
            return False
        self._call(self._listener.began_again, self._file.n)
        return True

    def _closed(self, lost: int) -> None:
        self._thread.join()  # it has nothing left to do
        self._listener.closed(lost)
