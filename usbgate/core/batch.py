"""
Batches: runs of rows in the shape in which they go to PostgreSQL, so that nothing is encoded twice.

A batch holds each column as one text, its cells joined by newlines: the argument of `string_to_array(…, E'\\n',
NULL_CELL)`. Cells never hold control characters (protocol §1), so neither mark can be mistaken for a value.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import msgspec

from usbgate.core.model import AlarmRecord, ClockMark, Reading, RequestRecord, Row

NULL_CELL = "\x01"


class Kind(NamedTuple):
    """
    One kind of rows.

    Attributes:
        row: What a row is before it is encoded.
        table: Where it is stored.
        columns: The names of its columns: the journal's number, then the fields of `row`. New ones come last.
        delimits: Whether such a row is numbered behind all that came before it, whatever the order of kinds.
    """

    row: type[Row]
    table: str
    columns: tuple[str, ...]
    delimits: bool = False


def _kind(row: type[Row], table: str, delimits: bool = False) -> Kind:
    return Kind(row, table, ("n", *row._fields), delimits)


# In the order in which the rows of one batch are numbered. A kind more is an entry more.
KINDS = (
    _kind(ClockMark, "clock_mark", delimits=True),
    _kind(Reading, "reading"),
    _kind(RequestRecord, "request"),
    _kind(AlarmRecord, "alarm_event"),
)

_PLACES: Mapping[type[Row], int] = {kind.row: place for place, kind in enumerate(KINDS)}
_NOTHING: tuple[tuple[str, ...], ...] = ((),) * len(KINDS)


def columns_of(row: type[Row]) -> tuple[str, ...]:
    """
    Return the names of the columns of one kind.
    """
    return KINDS[_PLACES[row]].columns


class Batch(NamedTuple):
    """
    Some rows, ready to be sent.

    Attributes:
        first: The journal's number of the first row.
        last: The journal's number of the last row; numbers between may be missing.
        parts: For each of `KINDS` its columns, in the order of `Kind.columns`; empty where there are no such rows.
    """

    first: int
    last: int
    parts: tuple[tuple[str, ...], ...]

    @property
    def rows(self) -> int:
        """
        How many rows these are.
        """
        return sum(columns[0].count("\n") + 1 for columns in self.parts if columns)

    @property
    def size(self) -> int:
        """
        How many characters its cells and their marks are.
        """
        return sum(sum(map(len, columns)) for columns in self.parts)

    def of(self, row: type[Row]) -> tuple[str, ...]:
        """
        Give the columns of one kind.
        """
        return self.parts[_PLACES[row]]

    def to_bytes(self) -> bytes:
        """
        Pack it for the journal: kinds by the names of their tables.
        """
        named = {kind.table: columns for kind, columns in zip(KINDS, self.parts, strict=True) if columns}
        return _encoder.encode((self.first, self.last, named))

    @classmethod
    def from_bytes(cls, packed: bytes) -> Batch:
        """
        Unpack what `to_bytes` packed.

        Raises:
            msgspec.MsgspecError: The bytes are no packed batch.
        """
        first, last, named = _decoder.decode(packed)
        return cls(first, last, tuple(named.get(kind.table, ()) for kind in KINDS))


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(tuple[int, int, dict[str, tuple[str, ...]]])


def encode(first: int, *runs: Sequence[Row]) -> Batch:
    """
    Make a batch of rows; at least one.

    Args:
        first: The number of the first row; the numbers have no gap, and follow the order of `KINDS`.
        runs: Rows, each of these sequences of one kind, and no two of the same.
    """
    parts = list(_NOTHING)
    number = first
    for place, rows in sorted([(_PLACES[type(rows[0])], rows) for rows in runs if rows], key=_place):
        parts[place] = _columns(number, rows)
        number += len(rows)
    return Batch(first, number - 1, tuple(parts))


def _place(placed: tuple[int, Sequence[Row]]) -> int:
    return placed[0]


def _columns(first: int, rows: Sequence[Row]) -> tuple[str, ...]:
    numbers = "\n".join(map(str, range(first, first + len(rows))))
    return (numbers, *map(_cells, zip(*rows, strict=True)))


def _cells(column: Sequence[object]) -> str:
    first = column[0]
    if column.count(first) == len(column) and not isinstance(first, float):  # -0.0 is counted as 0.0
        cells = "\n".join([_cell(first)] * len(column))
    else:
        cells = "\n".join(_spell(column))
    if cells.count("\n") >= len(column):  # a dialect let one through: it would move all that follow by a row
        cells = "\n".join([_cell(value).replace("\n", " ") for value in column])
    return cells


def _spell(column: Sequence[object]) -> Iterable[str]:
    kinds = set(map(type, column))
    if kinds == {str}:
        return column  # type: ignore[return-value]  # they are texts
    if kinds == {float}:
        return map(repr, column)
    if float in kinds:
        return [NULL_CELL if value is None else repr(value) for value in column]
    table = {value: _cell(value) for value in set(column)}  # few are different, as a chunk has one time
    return map(table.__getitem__, column)


def _cell(value: object) -> str:
    # str(float) is the shortest text that reads back, and never beyond what PostgreSQL reads.
    return NULL_CELL if value is None else str(value)


def merge(batches: Sequence[Batch]) -> Batch:
    """
    Join batches, given in their order, into one.
    """
    kinds = zip(*[batch.parts for batch in batches], strict=True)
    parts = tuple(_join([columns for columns in kind if columns]) for kind in kinds)
    return Batch(batches[0].first, batches[-1].last, parts)


def _join(parts: Sequence[tuple[str, ...]]) -> tuple[str, ...]:
    return tuple("\n".join(cells) for cells in zip(*parts, strict=True))


def halve(batch: Batch) -> tuple[Batch, Batch]:
    """
    Cut a batch of two or more rows into two: one kind from the others where it has several, else in the middle.
    """
    (place, columns), *others = [(place, columns) for place, columns in enumerate(batch.parts) if columns]
    if others:
        return _part(_only(place, columns)), _part((*_NOTHING[: place + 1], *batch.parts[place + 1 :]))
    cells = [column.split("\n") for column in columns]
    middle = len(cells[0]) // 2
    early, late = [tuple("\n".join(c[half]) for c in cells) for half in (slice(middle), slice(middle, None))]
    return _part(_only(place, early)), _part(_only(place, late))


def _only(place: int, columns: tuple[str, ...]) -> tuple[tuple[str, ...], ...]:
    return (*_NOTHING[:place], columns, *_NOTHING[place + 1 :])


def _part(parts: tuple[tuple[str, ...], ...]) -> Batch:
    numbers = [columns[0] for columns in parts if columns]
    first = min(int(cells.split("\n", 1)[0]) for cells in numbers)
    return Batch(first, max(int(cells.rsplit("\n", 1)[-1]) for cells in numbers), parts)
