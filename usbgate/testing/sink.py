"""
A store in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import floor
from statistics import fmean
from typing import TypeVar

import msgspec
from twisted.internet.defer import Deferred, fail, succeed
from zope.interface import implementer

from usbgate.core.batch import KINDS, NULL_CELL, Batch, encode, without
from usbgate.core.model import (
    Alarm,
    Bucket,
    OwnerRecord,
    Range,
    Reading,
    ReplacementRecord,
    RequestRecord,
    Row,
    Selection,
    StoredAlarm,
    StoredReading,
    StoredRequest,
    StoredState,
)
from usbgate.core.replacements import Replacement
from usbgate.store.interfaces import ISink, IStore, Refusal, Reject, SinkUnavailable

_T = TypeVar("_T")
_R = TypeVar("_R", bound=Row)


def rows_of(batch: Batch, wanted: type[object] = object) -> dict[int, Row]:
    """
    Return the rows of a batch, or those of one kind, by their numbers, in ascending order.
    """
    rows: dict[int, Row] = {}
    for kind, columns in zip(KINDS, batch.parts, strict=True):
        if issubclass(kind.row, wanted):
            for number, *cells in zip(*[column.split("\n") for column in columns], strict=True):
                values = [None if cell == NULL_CELL else cell for cell in cells]
                rows[int(number)] = msgspec.convert(values, kind.row, strict=False)
    return dict(sorted(rows.items()))


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
            replaced = self._replaced()
            for number, stored in self._rows(Reading).items():
                each = stored._replace(sensor=_sensor_of(number, stored, replaced))
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

    def replacements(self) -> Deferred[list[Replacement]]:
        def found() -> list[Replacement]:
            return [
                Replacement(
                    sensor=each.sensor,
                    successor=each.successor,
                    device=each.device,
                    since=each.since,
                    at=each.at,
                    who=each.who,
                )
                for each in self._replaced().values()
            ]

        return self._answer(found)

    def history(self, selection: Selection, limit: int) -> Deferred[list[Reading]]:
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
        self,
        sensors: Sequence[str] | None,
        since: int | None,
        until: int | None,
        limit: int,
        ranges: Sequence[Range] = (),
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
        found = {number: row for batch in self.batches for number, row in rows_of(batch, kind).items()}
        return {number: row for number, row in sorted(found.items()) if isinstance(row, kind)}

    def _replaced(self) -> dict[int, ReplacementRecord]:
        held: dict[int, ReplacementRecord] = {}
        for number, each in self._rows(ReplacementRecord).items():
            if each.event == "replaced":
                held[number] = each
            else:
                pair = each.sensor, each.successor
                held = {n: other for n, other in held.items() if (other.sensor, other.successor) != pair}
        return held

    def _selected(self, selection: Selection) -> list[StoredReading]:
        replaced = self._replaced()
        return [
            StoredReading(number, each._replace(sensor=selection.sensor))
            for number, each in self._rows(Reading).items()
            if selection.sensor in (each.sensor, selection.joined and _sensor_of(number, each, replaced))
            and selection.field in (None, each.field)
            and (selection.since is None or each.at >= selection.since)
            and (selection.until is None or each.at < selection.until)
            and not any(_excludes(range_, each) for range_ in selection.ranges)
        ]


def _sensor_of(number: int, reading: Reading, replaced: Mapping[int, ReplacementRecord]) -> str:
    for before, each in replaced.items():
        if each.successor == reading.sensor and number < before and reading.at >= each.since:
            return each.sensor
    return reading.sensor


def _excludes(range_: Range, reading: Reading) -> bool:
    if reading.field != range_.field or reading.value is None:
        return False
    return not range_.low <= reading.value <= range_.high
