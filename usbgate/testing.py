"""
In-memory doubles and builders for tests of dialects and sinks.

For a dialect: `check_dialect`, the builders `report` and `request`, and `RecordingListener` for a `Link` that uses it.
For a sink: `MemoryJournal`, from which a `Delivery` takes what is to be stored. `MemorySink` is an example of a sink.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from math import floor
from statistics import fmean
from typing import Any, TypeVar

import msgspec
from twisted.internet.defer import Deferred, fail, succeed
from zope.interface import implementer
from zope.interface.verify import verifyObject

from usbgate.core.batch import KINDS, NULL_CELL, Batch, encode, without
from usbgate.core.counts import DAMAGES
from usbgate.core.errors import Malformed
from usbgate.core.fieldline import NOT_MEASUREMENTS, is_key, is_sensor_id, join_fields, reads_back
from usbgate.core.model import (
    UNKNOWN_BOARD,
    Alarm,
    BoardKind,
    Bucket,
    OwnerRecord,
    Question,
    Reading,
    Report,
    Request,
    RequestRecord,
    Row,
    Selection,
    StoredAlarm,
    StoredReading,
    StoredRequest,
    StoredState,
)
from usbgate.device.interfaces import IDialect, ILinkListener
from usbgate.store.interfaces import IJournal, IOutbox, ISink, IStore, Refusal, Reject, SinkUnavailable

AT = 1363035730123  # 2013-03-11T21:02:10.123Z in milliseconds, the time of what the builders make

_T = TypeVar("_T")
_R = TypeVar("_R", bound=Row)

# Lines that no dialect may fail on in any other way than by `Malformed`.
_GARBAGE = (b"\x00", b"\xff\xfe", b":", b"_", b"ID:", b"\xc3\xa9", b"1" * 1024, b"\r", b"ID:20_VALUE:\xff")


def report(sensor: str = "20", command: str | None = None, tag: str | None = None, **values: str) -> Report:
    """
    Make a report; its values are `VALUE:456` if none are given.
    """
    return Report(sensor, command, tag, tuple((values or {"VALUE": "456"}).items()))


def acknowledgement(sensor: str = "20", command: str = "J", tag: str | None = None) -> Report:
    """
    Make a report without values.
    """
    return Report(sensor, command, tag, ())


def request(
    sensor: str = "20",
    command: str = "J",
    *,
    origin: str = "TOTO",
    client: str = "test",
    timeout: float | None = None,
    max_age: float | None = None,
    device: str | None = None,
    **arguments: str,
) -> Request:
    """
    Make a request, as `MSG:J_ID:20_ORIGIN:TOTO` and its arguments make one.
    """
    fields = {"MSG": command, "ID": sensor, "ORIGIN": origin, **arguments}
    question = Question(sensor, command, frozenset(arguments.items()))
    line = join_fields(fields).encode()
    return Request(question, fields, line, origin, client, timeout, max_age, device)


def reading(
    value: float | str | None = 456.0,
    *,
    at: int = AT,
    device: str = "leonardo",
    sensor: str = "20",
    field: str = "VALUE",
    text: str | None = None,
    command: str | None = None,
    clock: bool = True,
) -> Reading:
    """
    Make a reading of a number, or of a text.
    """
    if isinstance(value, str):
        value, text = None, value
    return Reading(at, device, sensor, field, value, text, command, clock)


def readings(first: int, count: int) -> list[Reading]:
    """
    Make readings whose values are the numbers from `first`, one millisecond apart.
    """
    return [reading(float(n), at=AT + n) for n in range(first, first + count)]


def request_record(
    outcome: str = "answered",
    *,
    at: int = AT,
    origin: str = "TOTO",
    client: str = "127.0.0.1",
    device: str | None = "leonardo",
    sensor: str = "20",
    command: str = "J",
    arguments: str | None = None,
    latency_ms: float = 12.5,
    clock: bool = True,
) -> RequestRecord:
    """
    Make the record of a request.
    """
    return RequestRecord(at, origin, client, device, sensor, command, arguments, outcome, latency_ms, clock)


def rows_of(batch: Batch) -> dict[int, Row]:
    """
    Return the rows of a batch by their numbers, in ascending order.
    """
    rows: dict[int, Row] = {}
    for kind, columns in zip(KINDS, batch.parts, strict=True):
        for number, *cells in zip(*[column.split("\n") for column in columns], strict=True):
            values = [None if cell == NULL_CELL else cell for cell in cells]
            rows[int(number)] = msgspec.convert(values, kind.row, strict=False)
    return dict(sorted(rows.items()))


def check_dialect(
    dialect: IDialect, lines: Iterable[tuple[bytes, Report | str]], malformed: Iterable[bytes] = ()
) -> None:
    """
    Check a dialect against lines of its device, and against what `IDialect` demands of any.

    Args:
        dialect: A new instance.
        lines: Lines without their ends, each with what it must become.
        malformed: Lines that must raise `Malformed`.

    Raises:
        AssertionError: The dialect is wrong; the message has the line.
        zope.interface.Invalid: It does not provide `IDialect`.
    """
    verifyObject(IDialect, dialect)
    for line, expected in lines:
        found = dialect.decode(line)
        assert found == expected, f"{line!r} became {found!r}, not {expected!r}"
        _check_decoded(line, found)
    for line in malformed:
        assert _decode(dialect, line) is None, f"{line!r} is not refused"
    for line in _GARBAGE:
        _check_decoded(line, _decode(dialect, line))
    for each in (request(), request("9", "L", LEVEL="50")):
        for tag in (None, "3f"):
            written = dialect.encode(each, tag)
            assert isinstance(written, bytes), f"{each!r} becomes {written!r}"
            assert b"\n" not in written, f"{each!r} becomes more than one line: {written!r}"


def _decode(dialect: IDialect, line: bytes) -> Report | str | None:
    try:
        return dialect.decode(line)
    except Malformed:
        return None


def _check_decoded(line: bytes, found: Report | str | None) -> None:
    if isinstance(found, Report):
        assert is_sensor_id(found.sensor), f"{line!r}: not a sensor id: {found.sensor!r}"
        assert found.values or found.command is not None, f"{line!r}: neither values nor a command"
        for key, value in found.values:
            assert is_key(key), f"{line!r}: not a key: {key!r}"
            assert key == key.upper(), f"{line!r}: not in upper case: {key!r}"
            assert key not in NOT_MEASUREMENTS, f"{line!r}: usbgate uses this key itself: {key!r}"
            assert reads_back(value), f"{line!r}: not a value: {value!r}"
        for reason in found.left_out:
            assert reason in DAMAGES, f"{line!r}: not a reason to leave a field out: {reason!r}"


@implementer(ILinkListener)
class RecordingListener:
    """
    Records the calls of a link.

    Attributes:
        calls: The calls, in order: `("up",)`, `("started",)`, `("down", reason)`, `("drained",)`, `("silent",)`,
            `("active",)`, `("reports", report, …)` and `("malformed", line, reason)`.
    """

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []

    def link_up(self, board: BoardKind = UNKNOWN_BOARD) -> None:
        self.calls.append(("up",))

    def board_started(self) -> None:
        self.calls.append(("started",))

    def link_down(self, reason: str) -> None:
        self.calls.append(("down", reason))

    def link_drained(self) -> None:
        self.calls.append(("drained",))

    def link_silent(self) -> None:
        self.calls.append(("silent",))

    def link_active(self) -> None:
        self.calls.append(("active",))

    def reports_received(self, reports: Sequence[Report]) -> None:
        self.calls.append(("reports", *reports))

    def line_malformed(self, line: bytes, reason: str) -> None:
        self.calls.append(("malformed", line, reason))


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


@implementer(ISink, IStore)
class MemorySink:
    """
    A store in memory that can be made to fail.

    Attributes:
        batches: What was stored, in the order of the calls.
        unavailable: Fail everything with `SinkUnavailable` and this reason; None to work.
        refuses: Whether to refuse a row, given its number and itself.
        hanging: Leave `store` unanswered until `release` or `close`.
        calls: The calls, in order: `connect`, `close`, and `store 1-3` with the numbers of the rows.
        lost: As in `ISink`.
        open_alarms: What `alarms` returns.
        stored_states: What `states` returns.
        stored_alarms: What `past_alarms` returns.
    """

    def __init__(self) -> None:
        self.batches: list[Batch] = []
        self.unavailable: str | None = None
        self.refuses: Callable[[int, Row], bool] = lambda number, row: False
        self.hanging = False
        self.calls: list[str] = []
        self.lost: Callable[[str], None] = lambda reason: None
        self.open_alarms: list[Alarm] = []
        self.stored_states: list[StoredState] = []
        self.stored_alarms: list[StoredAlarm] = []
        self._hanging: tuple[Batch, Reject, Deferred[None]] | None = None

    def add(self, *runs: Sequence[Row]) -> None:
        """
        Add rows, as if they had been stored before.
        """
        self.batches.append(encode(self.batches[-1].last + 1 if self.batches else 1, *runs))

    def numbers(self) -> list[int]:
        """
        Return the numbers of the rows in the order in which they were stored; one stored twice is there twice.
        """
        return [number for batch in self.batches for number in rows_of(batch)]

    def release(self) -> None:
        """
        Answer the `store` that hangs, and hang no more.
        """
        self.hanging = False
        if self._hanging is not None:
            (batch, reject, answer), self._hanging = self._hanging, None
            self._store(batch, reject).chainDeferred(answer)

    def connect(self) -> Deferred[None]:
        self.calls.append("connect")
        return self._answer(lambda: None)

    def store(self, batch: Batch, reject: Reject) -> Deferred[None]:
        self.calls.append(f"store {batch.first}-{batch.last}")
        if self.hanging:
            answer: Deferred[None] = Deferred()
            self._hanging = (batch, reject, answer)
            return answer
        return self._store(batch, reject)

    def close(self) -> Deferred[None]:
        self.calls.append("close")
        if self._hanging is not None:
            (_, _, answer), self._hanging = self._hanging, None
            answer.errback(SinkUnavailable("closed"))
        return succeed(None)

    def latest(self) -> Deferred[list[Reading]]:
        def newest() -> list[Reading]:
            found: dict[tuple[str, str], Reading] = {}
            for each in self._rows(Reading).values():
                found.pop((each.sensor, each.field), None)  # its place is that of the newest
                found[each.sensor, each.field] = each
            return list(found.values())

        return self._answer(newest)

    def alarms(self) -> Deferred[list[Alarm]]:
        return self._answer(lambda: list(self.open_alarms))

    def owners(self) -> Deferred[dict[str, str]]:
        def found() -> dict[str, str]:
            claimed: dict[str, str] = {}
            passed: dict[str, str] = {}
            for each in self._rows(OwnerRecord).values():
                if each.event == "passed":
                    passed[each.sensor] = each.device
                else:
                    claimed.setdefault(each.sensor, each.device)
            return {**claimed, **passed}

        return self._answer(found)

    def history(self, sensor: str, field: str | None, since: int | None, limit: int) -> Deferred[list[Reading]]:
        selection = Selection(sensor, field, since)
        return self._answer(lambda: [each.reading for each in self._selected(selection)][-limit:])

    def extent(self, selection: Selection, limit: int | None) -> Deferred[tuple[int, int] | None]:
        def numbers() -> tuple[int, int] | None:
            found = self._selected(selection)
            if selection.since is not None or selection.until is not None:
                found.sort(key=lambda each: (each.reading.at, each.seq))
            newest = [each.seq for each in found[-(limit or 0) :]]
            return (min(newest), max(newest)) if newest else None

        return self._answer(numbers)

    def page(self, selection: Selection, first: int, last: int, limit: int) -> Deferred[list[StoredReading]]:
        return self._answer(lambda: [each for each in self._selected(selection) if first <= each.seq <= last][:limit])

    def buckets(self, selection: Selection, width: int, limit: int) -> Deferred[list[Bucket]]:
        def aggregate() -> list[Bucket]:
            found: dict[tuple[int, str, str], list[float]] = {}
            for _, each in self._selected(selection):
                if each.value is not None:
                    key = floor(each.at / width) * width, each.device, each.field
                    found.setdefault(key, []).append(each.value)
            return [Bucket(*key, min(of), fmean(of), max(of), len(of)) for key, of in sorted(found.items())][-limit:]

        return self._answer(aggregate)

    def states(self, selection: Selection, limit: int) -> Deferred[list[StoredState]]:
        return self._answer(lambda: self.stored_states[-limit:])

    def past_alarms(
        self, sensors: Sequence[str] | None, since: int | None, until: int | None, limit: int
    ) -> Deferred[list[StoredAlarm]]:
        return self._answer(lambda: self.stored_alarms[:limit])

    def requests(self, sensors: Sequence[str] | None, limit: int) -> Deferred[list[StoredRequest]]:
        def newest() -> list[StoredRequest]:
            found = [StoredRequest(*each) for each in self._rows(RequestRecord).items()]
            return [each for each in reversed(found) if sensors is None or each.record.sensor in sensors][:limit]

        return self._answer(newest)

    def _answer(self, answer: Callable[[], _T]) -> Deferred[_T]:
        return succeed(answer()) if self.unavailable is None else fail(SinkUnavailable(self.unavailable))

    def _store(self, batch: Batch, reject: Reject) -> Deferred[None]:
        if self.unavailable is not None:
            return fail(SinkUnavailable(self.unavailable))
        try:
            refused = {number: row for number, row in rows_of(batch).items() if self.refuses(number, row)}
        except Exception:
            return fail()
        if not refused:
            return self._answer(lambda: self.batches.append(batch))
        rows = [Refusal(encode(number, [row]), "22P02: refused by the test") for number, row in refused.items()]
        return reject(rows).addCallback(lambda _: self.batches.append(without(batch, refused)))

    def _rows(self, kind: type[_R]) -> dict[int, _R]:
        found = {number: row for batch in self.batches for number, row in rows_of(batch).items()}
        return {number: row for number, row in sorted(found.items()) if isinstance(row, kind)}

    def _selected(self, selection: Selection) -> list[StoredReading]:
        return [
            StoredReading(number, each)
            for number, each in self._rows(Reading).items()
            if each.sensor == selection.sensor
            and selection.field in (None, each.field)
            and (selection.since is None or each.at >= selection.since)
            and (selection.until is None or each.at < selection.until)
        ]
