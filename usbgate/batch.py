"""
Batches: runs of rows in the shape in which they go to PostgreSQL, so that nothing is encoded twice.

A batch holds each column as one text, its cells joined by newlines: the argument of `string_to_array(…, E'\\n',
NULL_CELL)`. Cells never hold control characters (protocol §1), so neither mark can be mistaken for a value.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from usbgate.model import Reading, RequestRecord

NULL_CELL = "\x01"

READING_COLUMNS = ("n", *Reading._fields)
REQUEST_COLUMNS = ("n", *RequestRecord._fields)


class Batch(NamedTuple):
    """
    Some rows, ready to be sent.

    Attributes:
        first: The journal's number of the first row.
        last: The journal's number of the last row; numbers between may be missing.
        readings: Columns in the order of `READING_COLUMNS`; empty where there are no readings.
        requests: Columns in the order of `REQUEST_COLUMNS`; empty where there are no requests.
    """

    first: int
    last: int
    readings: tuple[str, ...]
    requests: tuple[str, ...]

    @property
    def rows(self) -> int:
        """
        How many rows these are.
        """
        return sum(columns[0].count("\n") + 1 for columns in (self.readings, self.requests) if columns)

    def to_bytes(self) -> bytes:
        """
        Pack it for the journal.
        """
        return _encoder.encode(self)

    @classmethod
    def from_bytes(cls, packed: bytes) -> Batch:
        """
        Unpack what `to_bytes` packed.
        """
        return cls(*_decoder.decode(packed))


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(tuple[int, int, tuple[str, ...], tuple[str, ...]])


def encode(first: int, readings: Sequence[Reading], requests: Sequence[RequestRecord]) -> Batch:
    """
    Make a batch of rows; at least one.

    Args:
        first: The number of the first row; readings come first, and the numbers have no gap.
        readings: Rows of table `reading`.
        requests: Rows of table `request`.
    """
    split = first + len(readings)
    last = split + len(requests) - 1
    return Batch(first, last, _columns(first, readings), _columns(split, requests))


def _columns(first: int, rows: Sequence[Reading] | Sequence[RequestRecord]) -> tuple[str, ...]:
    if not rows:
        return ()
    numbers = "\n".join(map(str, range(first, first + len(rows))))
    return (numbers, *map(_cells, zip(*rows, strict=True)))


def _cells(column: Sequence[object]) -> str:
    try:
        cells = "\n".join(column)  # type: ignore[arg-type]  # most columns hold nothing but texts
    except TypeError:
        cells = "\n".join(map(_cell, column))
    if cells.count("\n") >= len(column):  # a dialect let one through: it would move all that follow by a row
        cells = "\n".join([_cell(value).replace("\n", " ") for value in column])
    return cells


def _cell(value: object) -> str:
    # str(float) is the shortest text that reads back, and never beyond what PostgreSQL reads.
    return NULL_CELL if value is None else str(value)


def merge(batches: Sequence[Batch]) -> Batch:
    """
    Join batches, given in their order, into one.
    """
    return Batch(
        batches[0].first,
        batches[-1].last,
        _join([batch.readings for batch in batches if batch.readings]),
        _join([batch.requests for batch in batches if batch.requests]),
    )


def _join(parts: Sequence[tuple[str, ...]]) -> tuple[str, ...]:
    return tuple("\n".join(cells) for cells in zip(*parts, strict=True))


def halve(batch: Batch) -> tuple[Batch, Batch]:
    """
    Cut a batch of two or more rows into two: readings from requests where it has both, else in the middle.
    """
    if batch.readings and batch.requests:
        return _part(batch.readings, ()), _part((), batch.requests)
    columns = [column.split("\n") for column in batch.readings or batch.requests]
    middle = len(columns[0]) // 2
    halves = [tuple("\n".join(c[part]) for c in columns) for part in (slice(middle), slice(middle, None))]
    if batch.readings:
        return _part(halves[0], ()), _part(halves[1], ())
    return _part((), halves[0]), _part((), halves[1])


def _part(readings: tuple[str, ...], requests: tuple[str, ...]) -> Batch:
    numbers = (readings or requests)[0]
    return Batch(int(numbers.split("\n", 1)[0]), int(numbers.rsplit("\n", 1)[-1]), readings, requests)
