"""
A store in memory, which can be told to fail in every way that a real one does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from twisted.internet.defer import Deferred, fail, succeed
from zope.interface import implementer

from usbgate.core.batch import KINDS, NULL_CELL, Batch
from usbgate.core.model import Alarm, Reading
from usbgate.store.interfaces import ISink, RowsRefused, SinkUnavailable


def rows_of(batch: Batch) -> list[dict[str, str | None]]:
    """
    Spell a batch out: a dict for each row, one kind after the other.
    """
    rows = []
    for kind, columns in zip(KINDS, batch.parts, strict=True):
        for cells in zip(*[column.split("\n") for column in columns], strict=True):
            values = [None if cell == NULL_CELL else cell for cell in cells]
            rows.append(dict(zip(kind.columns, values, strict=True)))
    return rows


def reading_of(row: Mapping[str, str | None]) -> Reading:
    """
    Make a reading of such a row.
    """
    return Reading(
        at=int(row["at"] or 0),
        device=row["device"] or "",
        sensor=row["sensor"] or "",
        field=row["field"] or "",
        value=None if row["value"] is None else float(row["value"]),
        text=row["text"],
        command=row["command"],
        clock=row["clock"] == "True",
    )


@implementer(ISink)
class MemorySink:
    """
    Keeps what it is given.

    Attributes:
        batches: What was stored, in the order of the calls.
        unavailable: Fail everything with `SinkUnavailable` and this reason; None to work.
        refuses: Whether a row (as `rows_of` spells it) is one to refuse.
        hanging: Leave `store` unanswered until `release` or `close`.
        calls: What was called, in order: `connect`, `close`, and `store 1-3` with the numbers of the rows.
        lost: Whom to tell when it is lost while nothing is asked of it.
    """

    def __init__(self) -> None:
        self.batches: list[Batch] = []
        self.unavailable: str | None = None
        self.refuses: Callable[[dict[str, str | None]], bool] = lambda row: False
        self.hanging = False
        self.calls: list[str] = []
        self.lost: Callable[[str], None] = lambda reason: None
        self._held: tuple[Batch, Deferred[None]] | None = None

    def connect(self) -> Deferred[None]:
        """
        Reach the store (see `ISink.connect`).
        """
        self.calls.append("connect")
        return self._unavailable() or succeed(None)

    def store(self, batch: Batch) -> Deferred[None]:
        """
        Store a batch (see `ISink.store`).
        """
        self.calls.append(f"store {batch.first}-{batch.last}")
        if self.hanging:
            held: Deferred[None] = Deferred()
            self._held = (batch, held)
            return held
        return self._store(batch)

    def _store(self, batch: Batch) -> Deferred[None]:
        failed = self._unavailable()
        if failed is not None:
            return failed
        if any(map(self.refuses, rows_of(batch))):
            return fail(RowsRefused("22P02: not to my taste"))
        self.batches.append(batch)
        return succeed(None)

    def _unavailable(self) -> Deferred[None] | None:
        return None if self.unavailable is None else fail(SinkUnavailable(self.unavailable))

    def release(self) -> None:
        """
        Answer the `store` that hangs.
        """
        self.hanging = False
        if self._held is not None:
            (batch, held), self._held = self._held, None
            self._store(batch).chainDeferred(held)

    def close(self) -> Deferred[None]:
        """
        Let go of it (see `ISink.close`).
        """
        self.calls.append("close")
        if self._held is not None:
            (_, held), self._held = self._held, None
            held.errback(SinkUnavailable("closed"))
        return succeed(None)

    def numbers(self) -> list[int]:
        """
        List the numbers of the rows as they were stored, with those that came twice.
        """
        return [int(row["n"] or 0) for batch in self.batches for row in rows_of(batch)]

    def _readings(self) -> list[Reading]:
        found = {}
        for batch in self.batches:
            for row in rows_of(batch):
                if "field" in row:
                    found[int(row["n"] or 0)] = reading_of(row)
        return [found[n] for n in sorted(found)]

    def latest(self) -> Deferred[list[Reading]]:
        """
        Fetch the newest of each field (see `IStore.latest`).
        """
        if self.unavailable is not None:
            return fail(SinkUnavailable(self.unavailable))
        newest: dict[tuple[str, str], Reading] = {}
        for reading in self._readings():
            newest.pop((reading.sensor, reading.field), None)
            newest[reading.sensor, reading.field] = reading
        return succeed(list(newest.values()))

    def alarms(self) -> Deferred[list[Alarm]]:
        """
        Fetch the open alarms (see `IStore.alarms`): none is ever.
        """
        return succeed([])

    def history(self, sensor: str, field: str | None, since: int | None, limit: int) -> Deferred[list[Reading]]:
        """
        Fetch stored readings (see `IStore.history`).
        """
        if self.unavailable is not None:
            return fail(SinkUnavailable(self.unavailable))
        found = [
            reading
            for reading in self._readings()
            if reading.sensor == sensor and field in (None, reading.field) and (since is None or reading.at >= since)
        ]
        return succeed(found[-limit:])
