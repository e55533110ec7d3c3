"""
A database in memory, and one daemon's connection to it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IDelayedCall
from twisted.python.failure import Failure
from zope.interface import implementer

from tests.faults.simulated.disk import is_poisoned
from tests.faults.simulated.life import Life, demand
from usbgate.core.batch import Batch, encode, without
from usbgate.core.model import (
    Alarm,
    Bucket,
    Range,
    Reading,
    Row,
    Selection,
    StoredAlarm,
    StoredReading,
    StoredRequest,
    StoredState,
)
from usbgate.core.replacements import Replacement
from usbgate.store.interfaces import ISink, IStore, Refusal, Reject, SinkUnavailable
from usbgate.testing import rows_of

CALL_LIMIT = 10.0  # seconds after which a call to a database that hangs is given up, as the real sink's


class Database:
    """
    The part of a database that outlives the daemon, and its state.

    Attributes:
        away: Why it can't be used; None while it can.
        hangs: Whether calls are not answered.
        loses_confirmation: How many more batches are stored before the confirmation is lost.
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
        Store a batch; rows that are there already must be the same.
        """
        for number, row in rows_of(batch).items():
            there = self.rows.setdefault(number, row)
            self.repeated += there is not row
            demand(there == row, "a number is never given twice", there, row)

    def readings(self) -> list[Reading]:
        """
        Return all readings, by number.
        """
        return [row for _, row in sorted(self.rows.items()) if isinstance(row, Reading)]


@implementer(ISink, IStore)
class SimulatedSink:
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
        self._rejecting: Deferred[None] | None = None  # rows of the batch that is being stored

    def _call(self, done: Callable[[Deferred[Any]], None], latency: float) -> Deferred[Any]:
        # A call that is answered after a while, given up after `CALL_LIMIT`, or ended by `drop`.
        answer: Deferred[Any] = Deferred(lambda cancelled: self._calls.pop(cancelled).cancel())

        def look() -> None:
            del self._calls[answer]
            if self._database.hangs or latency > CALL_LIMIT:
                answer.errback(SinkUnavailable("no answer"))
            elif self._database.away is not None:
                answer.errback(SinkUnavailable(self._database.away))
            else:
                done(answer)

        wait = CALL_LIMIT if self._database.hangs else min(latency, CALL_LIMIT)
        self._calls[answer] = self._life.callLater(wait, look)
        return answer

    def connect(self) -> Deferred[None]:
        if self._connected and self._database.away is None:
            return succeed(None)
        if self._database.away is not None:
            return fail(SinkUnavailable(self._database.away))

        def connected(answer: Deferred[None]) -> None:
            self._connected = True
            answer.callback(None)

        return self._call(connected, self._database.latency)

    def store(self, batch: Batch, reject: Reject) -> Deferred[None]:
        demand(not self._storing, "one statement is in flight at a time")
        if not self._connected:
            return fail(SinkUnavailable("not connected"))
        self._storing = True
        refused = {number: row for number, row in rows_of(batch).items() if is_poisoned(encode(number, [row]))}

        def received(answer: Deferred[None]) -> None:
            if not refused:
                stored(answer)
                return
            rows = [Refusal(encode(number, [row]), "22P02: not to my taste") for number, row in refused.items()]
            self._rejecting = reject(rows)
            self._rejecting.addCallbacks(lambda _: stored(answer), lambda _: answer.errback(SinkUnavailable("ended")))

        def stored(answer: Deferred[None]) -> None:
            self._rejecting = None
            if self._life.deed():
                self._database.insert(without(batch, refused))
                if self._database.loses_confirmation:
                    self._database.loses_confirmation -= 1
                    answer.errback(SinkUnavailable("the connection was lost"))
                elif self._life.deed():  # else it is stored, and the daemon does not live to hear it
                    answer.callback(None)

        def over(result: Any) -> Any:
            self._storing = False
            if isinstance(result, Failure) and result.check(SinkUnavailable):  # others read by a connection of theirs
                self._connected = False
            return result

        return self._call(received, self._database.latency).addBoth(over)

    def drop(self, reason: str) -> None:
        """
        Lose the connection.
        """
        was, self._connected = self._connected, False
        self._end_calls(reason)
        if was and not self._storing:
            self.lost(reason)

    def close(self) -> Deferred[None]:
        self._connected = False
        self._end_calls("closed")
        return succeed(None)

    def _end_calls(self, reason: str) -> None:
        calls, self._calls = self._calls, {}
        for answer, call in calls.items():
            call.cancel()
            answer.errback(SinkUnavailable(reason))
        rejecting, self._rejecting = self._rejecting, None
        if rejecting is not None:
            rejecting.cancel()

    def latest(self) -> Deferred[list[Reading]]:
        """
        See `IStore`; the result is as old as the call.
        """
        newest: dict[tuple[str, str], Reading] = {}
        for reading in self._database.readings():
            newest.pop((reading.sensor, reading.field), None)
            newest[reading.sensor, reading.field] = reading
        if not self._database.readers:
            return fail(SinkUnavailable("too many connections"))
        return self._call(lambda answer: answer.callback(list(newest.values())), self._database.latency * 3)

    def alarms(self) -> Deferred[list[Alarm]]:
        """
        See `IStore`; there are no alarms here.
        """
        return self._call(lambda answer: answer.callback([]), self._database.latency * 3)

    def owners(self) -> Deferred[dict[str, str]]:
        """
        See `IStore`; nobody owns a sensor here.
        """
        return self._call(lambda answer: answer.callback({}), self._database.latency * 3)

    def replacements(self) -> Deferred[list[Replacement]]:
        """
        See `IStore`; no sensor is replaced here.
        """
        return self._call(lambda answer: answer.callback([]), self._database.latency)

    def history(self, selection: Selection, limit: int) -> Deferred[list[Reading]]:
        sensor, field, since = selection.sensor, selection.field, selection.since
        if not self._database.readers:
            return fail(SinkUnavailable("too many connections"))
        found = [
            reading
            for reading in self._database.readings()
            if reading.sensor == sensor and field in (None, reading.field) and (since is None or reading.at >= since)
        ]
        return self._call(lambda answer: answer.callback(found[-limit:]), self._database.latency)

    def extent(self, selection: Selection, limit: int | None) -> Deferred[tuple[int, int] | None]:
        """
        See `IStore`; not used here.
        """
        raise NotImplementedError

    def page(self, selection: Selection, first: int, last: int, limit: int) -> Deferred[list[StoredReading]]:
        """
        See `IStore`; not used here.
        """
        raise NotImplementedError

    def buckets(self, selection: Selection, width: int, limit: int) -> Deferred[list[Bucket]]:
        """
        See `IStore`; not used here.
        """
        raise NotImplementedError

    def states(self, selection: Selection, limit: int) -> Deferred[list[StoredState]]:
        """
        See `IStore`; not used here.
        """
        raise NotImplementedError

    def past_alarms(
        self,
        sensors: Sequence[str] | None,
        since: int | None,
        until: int | None,
        limit: int,
        ranges: Sequence[Range] = (),
    ) -> Deferred[list[StoredAlarm]]:
        """
        See `IStore`; not used here.
        """
        raise NotImplementedError

    def requests(self, sensors: Sequence[str] | None, limit: int) -> Deferred[list[StoredRequest]]:
        """
        See `IStore`; not used here.
        """
        raise NotImplementedError
