"""
Batches: rows encoded once, in the form in which PostgreSQL receives them.

A batch holds each column as one text, its cells joined by newlines: the argument of `string_to_array(…, E'\\n',
NULL_CELL)`. Cells never hold control characters (protocol §1), so neither mark can be mistaken for a value.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Container, Mapping, Sequence
from operator import attrgetter
from typing import NamedTuple

import msgspec

from usbgate.core.model import (
    AlarmRecord,
    ClockMark,
    OwnerRecord,
    Reading,
    ReplacementRecord,
    RequestRecord,
    Row,
)

NULL_CELL = "\x01"
OVERHEAD = 512  # approximate bytes of memory that a batch takes beside its characters
PIECE_ROWS = 128  # rows that are encoded at a time, in less than 0.1 ms; smaller pieces cost more a row


class RowKind(NamedTuple):
    """
    One kind of rows.

    Attributes:
        row: The type of its rows.
        table: The table that stores them.
        columns: The names of its columns: the journal's number, then the fields of `row`. New ones go last.
        delimits: Whether a row of this kind is numbered after all rows appended before it, of any kind.
    """

    row: type[Row]
    table: str
    columns: tuple[str, ...]
    delimits: bool = False


def _kind(row: type[Row], table: str, delimits: bool = False) -> RowKind:
    return RowKind(row, table, ("n", *row._fields), delimits)


# In the order in which the rows of one batch are numbered.
KINDS = (
    _kind(ClockMark, "clock_mark", delimits=True),
    _kind(Reading, "reading"),
    _kind(RequestRecord, "request"),
    _kind(AlarmRecord, "alarm_event"),
    _kind(OwnerRecord, "owner_event"),
    _kind(ReplacementRecord, "replacement_event", delimits=True),
)

_PLACES: Mapping[type[Row], int] = {kind.row: place for place, kind in enumerate(KINDS)}
_NOTHING: tuple[tuple[str, ...], ...] = ((),) * len(KINDS)


def columns_of(row: type[Row]) -> tuple[str, ...]:
    """
    Return the names of the columns of one kind.
    """
    return KINDS[_PLACES[row]].columns


class Mark(NamedTuple):
    """
    A position between two batches of a journal.

    Attributes:
        n: The number of the last row before it.
        chain: The running hash over all batches before it.
    """

    n: int
    chain: str


START = Mark(0, "")  # before the first batch of any journal


class Batch(NamedTuple):
    """
    Encoded rows; made by `encode`, `merge`, `halve`, `without` and `from_bytes`.

    Attributes:
        first: The journal's number of the first row.
        last: The journal's number of the last row; numbers between may be missing.
        parts: The columns of each of `KINDS`, in the order of `RowKind.columns`; empty for a kind without rows.
        rows: Number of rows.
        memory: Approximate bytes of memory.
        chain: The journal's running hash, this batch included; empty if it comes from no journal.
    """

    first: int
    last: int
    parts: tuple[tuple[str, ...], ...]
    rows: int
    memory: int
    chain: str = ""

    @property
    def mark(self) -> Mark:
        """
        The position behind this batch.
        """
        return Mark(self.last, self.chain)

    def of(self, row: type[Row]) -> tuple[str, ...]:
        """
        Return the columns of one kind.
        """
        return self.parts[_PLACES[row]]

    def to_bytes(self) -> bytes:
        """
        Serialize the batch, without its chain, for the journal; kinds are identified by their tables.
        """
        named = {kind.table: columns for kind, columns in zip(KINDS, self.parts, strict=True) if columns}
        return _encoder.encode((self.first, self.last, named))

    @classmethod
    def from_bytes(cls, packed: bytes) -> Batch:
        """
        Deserialize the result of `to_bytes`.

        Raises:
            msgspec.MsgspecError: The bytes are not a serialized batch.
        """
        first, last, named = _decoder.decode(packed)
        return _batch(first, last, tuple(named.get(kind.table, ()) for kind in KINDS))


_numbers = msgspec.json.Encoder()
_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(tuple[int, int, dict[str, tuple[str, ...]]])


def _batch(first: int, last: int, parts: tuple[tuple[str, ...], ...]) -> Batch:
    rows = sum(columns[0].count("\n") + 1 for columns in parts if columns)
    return Batch(first, last, parts, rows, OVERHEAD + sum(sum(map(len, columns)) for columns in parts))


def encode(first: int, *runs: Sequence[Row]) -> Batch:
    """
    Encode rows, at least one.

    Args:
        first: The number of the first row; rows are numbered without gaps, in the order of `KINDS`.
        runs: Sequences of rows, at most one of each kind.
    """
    draft = Draft()
    for rows in runs:
        draft.add(rows)
    return draft.finish(first)


def batch_of_row(n: int, table: str, cells: Mapping[str, str | None]) -> Batch:
    """
    Make a batch of one row that is encoded already.

    Args:
        n: Its number.
        table: Its table.
        cells: The text of each column by its name, the number included; None for null.
    """
    parts = list(_NOTHING)
    for place, kind in enumerate(KINDS):
        if kind.table == table:
            parts[place] = tuple(NULL_CELL if (cell := cells[name]) is None else cell for name in kind.columns)
    return _batch(n, n, tuple(parts))


class _Run:
    # Rows of one kind: encoded pieces, each with its number of rows, and the newest rows.
    def __init__(self) -> None:
        self.rows = 0
        self.pieces: deque[tuple[int, tuple[str, ...]]] = deque()
        self.newest: list[Row] = []

    def encode(self) -> None:
        if self.newest:
            self.pieces.append((len(self.newest), tuple(map(_cells, zip(*self.newest, strict=True)))))
            self.newest.clear()


class Draft:
    """
    The next batch: rows are encoded in pieces as they are added, so that no call takes long, and numbered at the end.

    Attributes:
        rows: Number of rows.
    """

    def __init__(self) -> None:
        self.rows = 0
        self._runs = tuple(_Run() for _ in KINDS)

    def add(self, rows: Sequence[Row]) -> None:
        """
        Add rows of one kind.
        """
        if not rows:
            return
        run = self._runs[_PLACES[type(rows[0])]]
        run.newest += rows
        run.rows += len(rows)
        self.rows += len(rows)
        if len(run.newest) >= PIECE_ROWS:
            run.encode()

    def count(self, row: type[Row]) -> int:
        """
        Return the number of rows of one kind.
        """
        return self._runs[_PLACES[row]].rows

    def finish(self, first: int) -> Batch:
        """
        Return all rows, at least one, as a batch; the draft is of no further use.

        Args:
            first: The number of the first row; rows are numbered without gaps, in the order of `KINDS`.
        """
        parts = list(_NOTHING)
        number = first
        for place, run in enumerate(self._runs):
            if run.rows:
                run.encode()
                numbers = "\n".join(map(str, range(number, number + run.rows)))
                parts[place] = (numbers, *_join([columns for _, columns in run.pieces]))
                number += run.rows
        return _batch(first, number - 1, tuple(parts))

    def drop_oldest(self) -> int:
        """
        Drop the oldest piece of the kind that has the most rows; return the number of its rows.
        """
        run = max(self._runs, key=attrgetter("rows"))
        if not run.pieces:
            run.encode()
        rows, _ = run.pieces.popleft()
        run.rows -= rows
        self.rows -= rows
        return rows


def _cells(column: Sequence[object]) -> str:
    first = column[0]
    if column.count(first) == len(column) and not isinstance(first, float):  # -0.0 is counted as 0.0
        cells = "\n".join([_cell(first)] * len(column))
    else:
        cells = _spell(column)
    if cells.count("\n") >= len(column):  # a dialect let a line end through, which would shift the cells after it
        cells = "\n".join([_cell(value).replace("\n", " ") for value in column])
    return cells


def _spell(column: Sequence[object]) -> str:
    kinds = set(map(type, column))
    if kinds == {str}:
        return "\n".join(column)  # type: ignore[arg-type]  # all are str
    if (
        float in kinds
    ):  # finite, and perhaps None; as JSON, the shortest text of each takes a third of the time of `repr`
        return _numbers.encode(column).decode()[1:-1].replace(",", "\n").replace("null", NULL_CELL)
    table = {value: _cell(value) for value in set(column)}  # few distinct values: all rows of a chunk have one time
    return "\n".join(map(table.__getitem__, column))


def _cell(value: object) -> str:
    # str(float) is the shortest text with the same value, and always within PostgreSQL's range.
    return NULL_CELL if value is None else str(value)


def merge(batches: Sequence[Batch]) -> Batch:
    """
    Merge batches, given in order.
    """
    kinds = zip(*[batch.parts for batch in batches], strict=True)
    parts = tuple(_join([columns for columns in kind if columns]) for kind in kinds)
    return _batch(batches[0].first, batches[-1].last, parts)._replace(chain=batches[-1].chain)


def _join(parts: Sequence[tuple[str, ...]]) -> tuple[str, ...]:
    return tuple("\n".join(cells) for cells in zip(*parts, strict=True))


def link(batches: Sequence[Batch], chain: str) -> list[tuple[Batch, bytes]]:
    """
    Return batches with their chain, and serialized. What is no UTF-8 (half a surrogate pair) becomes `?`.

    Args:
        batches: The next batches of a journal.
        chain: The journal's running hash so far.
    """
    linked = []
    for batch in batches:
        try:
            packed = batch.to_bytes()
        except UnicodeEncodeError:  # a dialect let it through; no later row could be written
            parts = tuple(tuple(map(_encodable, columns)) for columns in batch.parts)
            batch = batch._replace(parts=parts)
            packed = batch.to_bytes()
        chain = hashlib.sha256(chain.encode() + packed).hexdigest()[:32]
        linked.append((batch._replace(chain=chain), packed))
    return linked


def _encodable(cells: str) -> str:
    return cells.encode("utf-8", "replace").decode()


def numbers_of(batch: Batch) -> set[int]:
    """
    Return the numbers of the rows of a batch.
    """
    return {int(number) for columns in batch.parts if columns for number in columns[0].split("\n")}


def halve(batch: Batch) -> tuple[Batch, Batch]:
    """
    Split a batch of two or more rows: the first kind from the others if it has several, otherwise in the middle.
    """
    (place, columns), *others = [(place, columns) for place, columns in enumerate(batch.parts) if columns]
    if others:
        return _part(_only(place, columns)), _part((*_NOTHING[: place + 1], *batch.parts[place + 1 :]))
    cells = [column.split("\n") for column in columns]
    middle = len(cells[0]) // 2
    early, late = [tuple("\n".join(c[half]) for c in cells) for half in (slice(middle), slice(middle, None))]
    return _part(_only(place, early)), _part(_only(place, late))


def without(batch: Batch, numbers: Container[int]) -> Batch:
    """
    Leave out the rows with these numbers, perhaps all of them; the batch keeps its mark.
    """
    parts = []
    first = batch.last
    for columns in batch.parts:
        if columns:
            rows = zip(*[column.split("\n") for column in columns], strict=True)
            kept = [row for row in rows if int(row[0]) not in numbers]
            columns = tuple(map("\n".join, zip(*kept, strict=True)))
            first = min([first, *[int(row[0]) for row in kept[:1]]])
        parts.append(columns)
    return _batch(first, batch.last, tuple(parts))._replace(chain=batch.chain)


def _only(place: int, columns: tuple[str, ...]) -> tuple[tuple[str, ...], ...]:
    return (*_NOTHING[:place], columns, *_NOTHING[place + 1 :])


def _part(parts: tuple[tuple[str, ...], ...]) -> Batch:
    numbers = [columns[0] for columns in parts if columns]
    first = min(int(cells.split("\n", 1)[0]) for cells in numbers)
    return _batch(first, max(int(cells.rsplit("\n", 1)[-1]) for cells in numbers), parts)
