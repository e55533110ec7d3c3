"""
The neighbours of a simulated daemon: a journal, a database and transports in memory, which fail when they are told to.

What a crash leaves behind (`Disk`, `Database`) is apart from what dies with the process. A crash is a moment after
which nothing that the daemon does has any effect: every part here asks its `Life` first.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.task import Clock
from zope.interface import implementer

from tests.memory_gateway import PeerTransport
from tests.memory_sink import rows_of
from usbgate.batch import Batch, encode, merge
from usbgate.interfaces import IClock, IHistory, IJournal, IOutbox, ISink, RowsRefused, SinkUnavailable
from usbgate.model import Reading, RequestRecord

FLUSH_INTERVAL = 0.05  # seconds, as the real journal's
MERGE_ROWS = 12  # small, so that a backlog is many batches
UNSYNCED_ROWS = 24  # not yet on disk, from which on there is pressure
RETRY = 0.5  # seconds between attempts of the disk
STOP_PATIENCE = 1.5  # seconds to go on trying when asked to end, as the real journal's
CALL_LIMIT = 10.0  # seconds after which a call to a database that hangs is given up, as the real sink's

POISON = "bad"  # a cell that begins so is refused by the database for what it is

Row = Mapping[str, str | None]


class Violated(AssertionError):
    """
    The daemon broke a promise.
    """


def demand(truth: bool, rule: str, *details: object) -> None:
    """
    Fail the world unless it is so.
    """
    if not truth:
        raise Violated(" | ".join([rule, *map(str, details)]))


def number(row: Row) -> int:
    """
    Tell the journal's number of a row.
    """
    return int(row["n"] or 0)


@implementer(IReactorTime)
class Life:
    """
    One run of the daemon, from its start to its end or its crash; its reactor, whose calls die with it.

    Attributes:
        alive: Whether what the daemon does still has an effect.
        fuse: How many more deeds until it crashes; None for never.
        deeds: How many deeds were done.
    """

    def __init__(self, number: int, clock: Clock) -> None:
        self.number = number
        self.alive = True
        self.fuse: int | None = None
        self.deeds = 0
        self._clock = clock
        self._calls: list[IDelayedCall] = []

    def deed(self) -> bool:
        """
        Tell whether something with an effect may happen; a crash may come just before it.
        """
        self.deeds += 1
        if self.fuse is not None:
            self.fuse -= 1
            if self.fuse < 0:
                self.alive = False
        return self.alive

    def seconds(self) -> float:
        """
        See `IReactorTime`.
        """
        return float(self._clock.seconds())

    def callLater(self, delay: float, callable: Callable[..., object], *args: object, **kw: object) -> IDelayedCall:
        """
        See `IReactorTime`.
        """
        if len(self._calls) > 100:
            self.getDelayedCalls()
        call = self._clock.callLater(delay, callable, *args, **kw)
        self._calls.append(call)
        return call

    def getDelayedCalls(self) -> Sequence[IDelayedCall]:
        """
        See `IReactorTime`.
        """
        self._calls = [call for call in self._calls if call.active()]
        return self._calls

    def end(self) -> None:
        """
        Let nothing happen any more.
        """
        self.alive = False
        for call in self.getDelayedCalls():
            call.cancel()


@implementer(IClock)
class SteppingClock:
    """
    Monotonic time is the simulation's; the wall clock is off by whatever a world says.
    """

    def __init__(self, clock: Clock) -> None:
        self.offset = 1_800_000_000_000
        self.right = True
        self._clock = clock

    def wall(self) -> int:
        """
        See `IClock`.
        """
        return max(0, self.offset + int(self._clock.seconds() * 1000))

    def monotonic(self) -> float:
        """
        See `IClock`.
        """
        return float(self._clock.seconds())

    def trusted(self) -> bool:
        """
        See `IClock`.
        """
        return self.right


class Disk:
    """
    What outlives the daemon of its journal.

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

    def commit(self, batches: Sequence[Batch], rejected: Sequence[Batch], confirmed: int) -> None:
        """
        Do all of it.
        """
        self.batches = [batch for batch in self.batches if batch.last > confirmed]
        for batch in batches:
            demand(batch.first == self.n + 1, "numbers have no gap", batch.first, self.n)
            self.batches.append(batch)
            self.n = batch.last
            self.ever.update((number(row), row) for row in rows_of(batch))
        for batch in rejected:
            for row in rows_of(batch):
                self.rejected.setdefault(number(row), row)


@implementer(IJournal, IOutbox)
class MemoryJournal(Service):
    """
    A journal on a `Disk`, with the contract of the real one: rows are numbered and encoded every 50 ms and committed
    some time later; `oldest` gives the same batch until it is confirmed; a confirmed batch goes with the next commit.

    Attributes:
        dropped: Requests not recorded, for want of a disk that takes them.
    """

    def __init__(
        self,
        life: Life,
        disk: Disk,
        pressure: Callable[[bool], None],
        appended: Callable[[Sequence[Reading], Sequence[RequestRecord]], None],
        dropped: Callable[[Sequence[RequestRecord]], None],
        stored: Callable[[int], bool],
    ) -> None:
        """
        Make a journal.

        Args:
            life: The run of the daemon that it belongs to.
            disk: What there is of it already.
            pressure: As the real journal's.
            appended: Told what was taken in.
            dropped: Told what was not recorded.
            stored: Whether the row of a number is where it may be let go.
        """
        self.backlog = 0
        self.held = False
        self._life = life
        self._disk = disk
        self._pressure = pressure
        self._appended = appended
        self._dropped = dropped
        self._stored = stored
        self._readings: list[Reading] = []
        self._requests: list[RequestRecord] = []
        self._rejects: list[Batch] = []
        self._flushing: IDelayedCall | None = None
        self._committing: IDelayedCall | None = None
        self._batches: list[Batch] = []  # encoded, not yet on disk
        self._unsynced = 0
        self._next = 0
        self._on_disk = 0  # the newest number told to be on disk
        self._confirmed = 0
        self._current: Batch | None = None
        self._asker: Deferred[Batch] | None = None
        self._stopped: Deferred[None] | None = None

    @property
    def rejected(self) -> int:
        """
        See `IOutbox`.
        """
        return len(self._disk.rejected)

    def startService(self) -> None:
        """
        Go on with what is on disk.
        """
        super().startService()
        self._next = self._disk.n + 1
        self._on_disk = self._disk.n
        self.backlog = sum(batch.rows for batch in self._disk.batches)

    def stopService(self) -> Deferred[None]:
        """
        Write what there is, or give it up after a while.
        """
        super().stopService()
        self._flush()
        if self._committing is None:
            return succeed(None)
        self._stopped = Deferred()
        self._life.callLater(STOP_PATIENCE, self._stop)
        return self._stopped

    def _stop(self) -> None:
        if self._committing is not None:
            self._committing.cancel()
            self._committing = None
        stopped, self._stopped = self._stopped, None
        if stopped is not None:
            stopped.callback(None)

    def append(self, readings: Sequence[Reading], requests: Sequence[RequestRecord]) -> None:
        """
        See `IJournal`.
        """
        if not self._life.deed():
            return
        demand(self.running == 1, "nothing comes to a journal that is closed")
        if requests and self._unsynced > UNSYNCED_ROWS:
            self._dropped(requests)
            requests = ()
        self._appended(readings, requests)
        self._readings += readings
        self._requests += requests
        self.backlog += len(readings) + len(requests)
        self._flush_soon()

    def _flush_soon(self) -> None:
        if self._flushing is None and self.running:
            self._flushing = self._life.callLater(FLUSH_INTERVAL, self._flush)

    def _flush(self) -> None:
        flushing, self._flushing = self._flushing, None
        if flushing is not None and flushing.active():
            flushing.cancel()
        if self._readings or self._requests:
            batch = encode(self._next, self._readings, self._requests)
            self._next = batch.last + 1
            self._readings, self._requests = [], []
            self._batches.append(batch)
            self._unsynced += batch.rows
        if (self._batches or self._rejects) and self._committing is None:
            self._committing = self._life.callLater(self._disk.latency, self._commit)
        self._weigh()

    def _commit(self) -> None:
        self._committing = None
        if self._disk.refuses:
            self._committing = self._life.callLater(RETRY, self._commit)
            return
        if not self._life.deed():
            return
        batches, self._batches = self._batches, []
        rejects, self._rejects = self._rejects, []
        self._disk.commit(batches, rejects, self._confirmed)
        if not self._life.deed():  # on disk, and nobody was told
            return
        for batch in batches:
            self._unsynced -= batch.rows
            self._on_disk = batch.last
        self._weigh()
        self._offer()
        if self._stopped is not None:
            self._stop()

    def _weigh(self) -> None:
        held = self._unsynced > (UNSYNCED_ROWS // 2 if self.held else UNSYNCED_ROWS)
        if held != self.held:
            self.held = held
            self._pressure(held)

    def oldest(self) -> Deferred[Batch]:
        """
        See `IOutbox`.
        """
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
        """
        See `IOutbox`.
        """
        if not self._life.deed():
            return
        demand(batch is self._current, "what `oldest` gave is confirmed, and nothing else", batch, self._current)
        aside = {number(row) for reject in self._rejects for row in rows_of(reject)}
        for row in rows_of(batch):
            n = number(row)
            demand(self._stored(n) or n in aside, "a row is let go only when it is stored or set aside", row)
        self._confirmed = batch.last
        self._current = None
        self.backlog -= batch.rows

    def reject(self, row: Batch, reason: str) -> None:
        """
        See `IOutbox`.
        """
        if not self._life.deed():
            return
        demand(row.rows == 1, "one row at a time is set aside", row)
        poisoned = any((cell or "").startswith(POISON) or ":" + POISON in (cell or "") for cell in cells_of(row))
        demand(poisoned, "nothing is set aside for a condition of the server", row, reason)
        self._rejects.append(row)
        self._flush_soon()


def cells_of(batch: Batch) -> list[str | None]:
    """
    List all cells of a batch.
    """
    return [cell for row in rows_of(batch) for cell in row.values()]


class Database:
    """
    What outlives the daemon of its database, and how it is now.

    Attributes:
        away: Why it can't be used; None while it can.
        hangs: Whether calls are not answered.
        loses_confirmation: How many more batches are stored without anybody being told.
        latency: Seconds that a call takes.
        rows: What is stored, by number.
        readers: Whether there is a connection left for reading.
        repeated: How many rows came again.
    """

    def __init__(self) -> None:
        self.away: str | None = None
        self.hangs = False
        self.loses_confirmation = 0
        self.latency = 0.0
        self.readers = True
        self.rows: dict[int, Row] = {}
        self.repeated = 0

    def insert(self, batch: Batch) -> None:
        """
        Store a batch; what is there already must be the same.
        """
        for row in rows_of(batch):
            there = self.rows.setdefault(number(row), row)
            self.repeated += there is not row
            demand(there == row, "a number is never given twice", there, row)

    def readings(self) -> list[Reading]:
        """
        List all readings, by number.
        """
        return [
            Reading(
                at=int(row["at"] or 0),
                device=row["device"] or "",
                sensor=row["sensor"] or "",
                field=row["field"] or "",
                value=None if row["value"] is None else float(row["value"]),
                text=row["text"],
                command=row["command"],
                clock=row["clock"] == "True",
            )
            for _, row in sorted(self.rows.items())
            if "field" in row
        ]


@implementer(ISink, IHistory)
class MemoryDatabaseSink:
    """
    One daemon's connection to a `Database`.
    """

    def __init__(self, life: Life, database: Database) -> None:
        self.lost: Callable[[str], None] = lambda reason: None
        self._life = life
        self._database = database
        self._connected = False
        self._calls: dict[Deferred[Any], IDelayedCall] = {}
        self._storing = False

    def _call(self, done: Callable[[Deferred[Any]], None], latency: float) -> Deferred[Any]:
        # A call that is answered after a while, given up after `CALL_LIMIT`, or ended by `drop`.
        answer: Deferred[Any] = Deferred(lambda cancelled: self._calls.pop(cancelled).cancel())

        def look() -> None:
            del self._calls[answer]
            if self._database.hangs or latency > CALL_LIMIT:
                self._connected = False
                answer.errback(SinkUnavailable("no answer"))
            elif self._database.away is not None:
                answer.errback(SinkUnavailable(self._database.away))
            else:
                done(answer)

        wait = CALL_LIMIT if self._database.hangs else min(latency, CALL_LIMIT)
        self._calls[answer] = self._life.callLater(wait, look)
        return answer

    def connect(self) -> Deferred[None]:
        """
        See `ISink`.
        """
        if self._connected and self._database.away is None:
            return succeed(None)
        if self._database.away is not None:
            return fail(SinkUnavailable(self._database.away))

        def connected(answer: Deferred[None]) -> None:
            self._connected = True
            answer.callback(None)

        return self._call(connected, self._database.latency)

    def store(self, batch: Batch) -> Deferred[None]:
        """
        See `ISink`.
        """
        demand(not self._storing, "one statement is in flight at a time")
        if not self._connected:
            return fail(SinkUnavailable("not connected"))
        self._storing = True

        def stored(answer: Deferred[None]) -> None:
            if any((cell or "").startswith(POISON) or ":" + POISON in (cell or "") for cell in cells_of(batch)):
                answer.errback(RowsRefused("22P02: not to my taste"))
            elif self._life.deed():
                self._database.insert(batch)
                if self._database.loses_confirmation:
                    self._database.loses_confirmation -= 1
                    self._connected = False
                    answer.errback(SinkUnavailable("the connection was lost"))
                elif self._life.deed():  # else it is stored, and the daemon does not live to hear it
                    answer.callback(None)

        def over(result: Any) -> Any:
            self._storing = False
            return result

        return self._call(stored, self._database.latency).addBoth(over)

    def drop(self, reason: str) -> None:
        """
        Lose the connection.
        """
        was, self._connected = self._connected, False
        calls, self._calls = self._calls, {}
        for answer, call in calls.items():
            call.cancel()
            answer.errback(SinkUnavailable(reason))
        if was and not self._storing:
            self.lost(reason)

    def close(self) -> Deferred[None]:
        """
        See `ISink`.
        """
        self._connected = False
        calls, self._calls = self._calls, {}
        for answer, call in calls.items():
            call.cancel()
            answer.errback(SinkUnavailable("closed"))
        return succeed(None)

    def latest(self) -> Deferred[list[Reading]]:
        """
        See `IHistory`; what is fetched is as old as the call.
        """
        newest: dict[tuple[str, str], Reading] = {}
        for reading in self._database.readings():
            newest.pop((reading.sensor, reading.field), None)
            newest[reading.sensor, reading.field] = reading
        if not self._database.readers:
            return fail(SinkUnavailable("too many connections"))
        return self._call(lambda answer: answer.callback(list(newest.values())), self._database.latency * 3)

    def history(self, sensor: str, field: str | None, since: int | None, limit: int) -> Deferred[list[Reading]]:
        """
        See `IHistory`.
        """
        if not self._database.readers:
            return fail(SinkUnavailable("too many connections"))
        found = [
            reading
            for reading in self._database.readings()
            if reading.sensor == sensor and field in (None, reading.field) and (since is None or reading.at >= since)
        ]
        return self._call(lambda answer: answer.callback(found[-limit:]), self._database.latency)


class MemoryTransport(PeerTransport):
    """
    A transport whose other end is a function; it closes in a reactor turn of its own, as a socket's does.
    """

    def __init__(self, life: Life, heard: Callable[[bytes], None]) -> None:
        super().__init__(life)
        self.life = life
        self._heard = heard
        self._closed = False

    @property
    def open(self) -> bool:
        """
        Whether it is open, as far as its other end can tell.
        """
        return self.connected and self.life.alive and not self._closed

    @property
    def read(self) -> bool:
        """
        Whether the daemon reads from it.
        """
        return self.open and self.producerState == "producing" and not self.closing

    def write(self, data: bytes) -> None:
        """
        Give data to the other end.
        """
        if self.open and self.life.deed():
            self._heard(data)

    def loseConnection(self) -> None:
        """
        Close when all is taken.
        """
        self.closing = self.disconnecting = True
        if self.producer is None:
            self.reactor.callLater(0, self._close)

    def abortConnection(self) -> None:
        """
        Close in the next turn, whatever waits.
        """
        self.closing = self.disconnecting = True
        self.reactor.callLater(0, self._close)

    def cut(self) -> None:
        """
        The other end is gone.
        """
        if self.open:
            self._close()

    def take(self) -> None:
        """
        Take what was sent, unless stuck or closed.
        """
        if not self._closed:
            super().take()

    def _close(self) -> None:
        if not self._closed:
            self._closed = True
            super()._close()
