"""
The journal's thread: commits queued writes together, and retries while the disk refuses them.

Queued writes are a ring: beyond its limit the oldest batches make room for new ones, so that memory stays bounded
however long the disk refuses writes or hangs in one.
"""

from __future__ import annotations

import sqlite3
from collections import deque
from collections.abc import Callable, Sequence
from math import inf
from queue import Empty, SimpleQueue
from threading import Lock, Thread
from time import monotonic
from typing import Any, Literal, NamedTuple, Protocol, TypeVar

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from usbgate.core.batch import Batch, Mark
from usbgate.store.interfaces import SinkUnavailable
from usbgate.store.journal.damage import is_damage
from usbgate.store.journal.file import JournalFile

T = TypeVar("T")

RETRY_FIRST, RETRY_MOST = 0.1, 5.0  # seconds between attempts while the disk refuses
STOP_PATIENCE = 1.5  # seconds to keep retrying after `stop`
LOOK_INTERVAL = 1.5  # seconds between looks at the files while nothing is committed

# Maximum bytes of a commit. A disk with little room left then takes as much of a long queue as fits, and while a commit
# hangs, no more than this is exempt from the limit of the queue.
COMMIT_MOST = 4 << 20


class Write(NamedTuple):
    """
    A request to commit (see `JournalFile.write`).

    Attributes:
        batch: New rows, if any.
        confirmed: Batches up to this position are deleted.
        kept: Batches up to this number are not dropped.
        lost: Rows to count as lost.
        restored: Batches that were in a file that was lost; None if none was.
    """

    batch: Batch | None
    confirmed: Mark
    kept: int = 0
    lost: int = 0
    restored: Sequence[Batch] | None = None

    @property
    def memory(self) -> int:
        """
        Approximate bytes of memory of its batch.
        """
        return 0 if self.batch is None else self.batch.memory


class Read(NamedTuple):
    """
    A request to read (see `JournalFile.read`); at most one is outstanding.
    """

    after: int
    most: int


class Call(NamedTuple):
    """
    A request to use the file.

    Attributes:
        operation: Is called with the file, in the thread.
        result: Is fired, in the reactor thread, with what it returns.
    """

    operation: Callable[[JournalFile], Any]
    result: Deferred[Any]


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

    def was_read(self, after: int, batch: Batch | None, complete: bool) -> None:
        """
        A read completed; `batch` is None if there is none. With `complete`, it covers everything committed so far.
        """

    def refused(self, reason: str) -> None:
        """
        The disk refused the operation; it will be retried.
        """

    def replaced(self) -> None:
        """
        The damaged or lost file was replaced by a new one; its rows and any pending read are gone.
        """

    def closed(self, lost: int) -> None:
        """
        The file is closed and the thread has ended; `lost` rows could not be written.
        """


class JournalWriter:
    """
    The thread that owns the journal file from `start` until it reports `closed`.

    Attributes:
        began: When the commit in progress began, as `time.monotonic` counts; infinity if there is none.
    """

    log = Logger()

    def __init__(self, file: JournalFile, listener: WriterListener, call: Callable[..., object], limit: int) -> None:
        """
        Create a writer; nothing runs before `start`.

        Args:
            file: The file, already open or to be opened by the thread.
            listener: Receives the events.
            call: The reactor's `callFromThread`.
            limit: Maximum bytes of queued writes, by `Write.memory`.
        """
        self._file = file
        self._listener = listener
        self._call = call
        self._limit = limit
        self._queue: SimpleQueue[Call | Read | Literal["write"] | None] = SimpleQueue()
        self._lock = Lock()  # guards the next two
        self._waiting: deque[Write] = deque()
        self._memory = 0
        self.began = inf
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
            self._memory += write.memory
            discarded = self._make_room()
        if idle:  # otherwise the thread is already awake
            self._queue.put("write")
        return discarded

    def _make_room(self) -> list[Batch]:
        discarded: list[Batch] = []
        while self._memory > self._limit and len(self._waiting) > 1:
            oldest = self._waiting.popleft()
            self._memory -= oldest.memory
            if oldest.batch is not None:
                discarded.append(oldest.batch)
            following = self._waiting[0]
            if oldest.lost:
                self._waiting[0] = following = following._replace(lost=oldest.lost + following.lost)
            if oldest.restored is not None:
                self._waiting[0] = following._replace(restored=[*oldest.restored, *(following.restored or ())])
        return discarded

    def read(self, read: Read) -> None:
        """
        Request a read.
        """
        self._queue.put(read)

    def call(self, operation: Callable[[JournalFile], T]) -> Deferred[T]:
        """
        Use the file in the thread.

        Returns:
            Fires with what `operation` returns; fails with `SinkUnavailable` if the disk refuses or the file is closed.
        """
        result: Deferred[T] = Deferred()
        self._queue.put(Call(operation, result))
        return result

    def stop(self) -> None:
        """
        Write what is queued, close the file and end the thread.
        """
        self._file.interrupt_check()
        self._queue.put(None)

    def _run(self) -> None:
        read: Read | None = None
        calls: deque[Call] = deque()
        opened = False
        pause = due = 0.0  # retry interval in seconds, and time of the next attempt
        ends = inf  # deadline after `stop`
        while ends == inf or (self._waiting and (not pause or monotonic() < ends)):
            work = self._waiting or read or calls or not self._file.checked
            wait = max(0.0, min(due, ends) - monotonic()) if work else LOOK_INTERVAL
            for item in self._requests(min(wait, LOOK_INTERVAL)):
                if item is None:
                    ends = monotonic() + STOP_PATIENCE
                    due, pause = 0.0, min(pause, RETRY_FIRST)  # the disk may have recovered
                elif isinstance(item, Call):
                    calls.append(item)
                elif item != "write":
                    read = item
            problem = self._file.problem()
            if problem is not None and self._replace(problem):
                due = 0.0
            if monotonic() < due:
                continue
            try:
                self._file.reopen()
                if not opened:
                    self._call(self._listener.opened)
                    opened = True
                if self._file.replaced:
                    self._file.replaced = False
                    read = None
                    self._call(self._listener.replaced)
                self._file.refresh()
                if not self._file.checked:  # before any write, and in this thread, so that startup need not wait
                    self._file.check()
                # Read and commit are tried independently: a full disk can still be read.
                try:
                    while calls:
                        self._answer(calls.popleft())
                    if read is not None:
                        self._call(self._listener.was_read, read.after, *self._file.read(read.after, read.most))
                        read = None
                finally:
                    if self._waiting:
                        self._commit()
                pause = due = 0.0
            except Exception as error:
                if not isinstance(error, sqlite3.Error) and not pause:
                    self.log.failure("unexpected error while writing the journal")
                self._call(self._listener.refused, str(error))
                pause = min(max(RETRY_FIRST, pause * 2), RETRY_MOST)
                due = monotonic() + pause
                if is_damage(error) and self._replace(error):
                    due = 0.0
        for call in calls:
            self._call(_fire, call.result, call.result.errback, SinkUnavailable("the journal is closed"))
        self._file.close()
        self._call(self._closed, sum(write.batch.rows for write in self._waiting if write.batch is not None))

    def _answer(self, call: Call) -> None:
        try:
            if self._file.incomplete:
                raise SinkUnavailable("the journal is being replaced")
            result = call.operation(self._file)
        except Exception as error:
            refused = isinstance(error, sqlite3.Error)
            reason = SinkUnavailable(f"the journal can't be used: {error}") if refused else error
            self._call(_fire, call.result, call.result.errback, reason)
            if is_damage(error):
                raise
        else:
            self._call(_fire, call.result, call.result.callback, result)

    def _requests(self, seconds: float | None) -> list[Call | Read | Literal["write"] | None]:
        """
        Wait at most `seconds` for a request, None for no limit; return all queued ones.
        """
        items: list[Call | Read | Literal["write"] | None] = []
        try:
            items.append(self._queue.get(timeout=seconds))
            while True:
                items.append(self._queue.get_nowait())
        except Empty:
            return items

    def _commit(self) -> None:
        writes: list[Write] = []
        memory = 0
        with self._lock:
            newest = self._waiting[-1]
            while self._waiting and (not writes or memory + self._waiting[0].memory <= COMMIT_MOST):
                writes.append(self._waiting.popleft())
                memory += writes[-1].memory
            self._memory -= memory
        batches = [write.batch for write in writes if write.batch is not None]
        lost = sum(write.lost for write in writes)
        began = self.began = monotonic()
        try:
            restored = [write.restored for write in writes if write.restored is not None]
            if restored:
                self._file.restore([batch for each in restored for batch in each if batch.last > newest.confirmed.n])
            written = self._file.write(batches, newest.confirmed, newest.kept, lost)
        except BaseException:
            with self._lock:  # may exceed the limit until the next write
                self._waiting.extendleft(reversed(writes))
                self._memory += memory
            raise
        finally:
            self.began = inf
        if written.dropped:
            self._call(self._listener.overflowed, written.dropped)
        self._call(self._listener.committed, written.batches, monotonic() - began)

    def _replace(self, damage: Exception) -> bool:
        try:
            self._file.replace(damage)
        except (sqlite3.Error, OSError):  # perhaps a full disk; retried
            return False
        return self._file.replaced

    def _closed(self, lost: int) -> None:
        self._thread.join()  # it has nothing left to do
        self._listener.closed(lost)


def _fire(result: Deferred[T], fire: Callable[[Any], None], value: Any) -> None:
    if not result.called:  # it was cancelled
        fire(value)
