"""
Stored readings as JSON or CSV, fetched page by page while they are sent; and aggregates of them.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from http import HTTPStatus
from typing import Any

import msgspec

from usbgate.core.errors import Malformed
from usbgate.core.model import Selection, StoredReading
from usbgate.gateway.interfaces import IQueries
from usbgate.web.csvformat import CsvFormat
from usbgate.web.parameters import MAX_BUCKETS, MAX_SELECTIONS, ReadingsQuery
from usbgate.web.query import check_order
from usbgate.web.schema import CSV, JSON, ApiBucket, ApiBuckets, ApiReading
from usbgate.web.serialize import bucket_json, reading_json
from usbgate.web.streaming import Responses

# Readings of a page: 5 ms of the reactor's time, in which they are encoded.
PAGE = 1_000

BUCKETS_PER_TURN = 1_000  # some ms of the reactor's time

_encode = msgspec.json.Encoder().encode


async def send_readings(
    responses: Responses,
    queries: IQueries,
    request: Any,
    query: ReadingsQuery,
    csv: CsvFormat | None,
    now: int,
) -> None:
    """
    Respond with readings, or with aggregates of them.

    Args:
        responses: Sends long responses.
        queries: The gateway's queries.
        request: The request.
        query: Selects the readings.
        csv: How to spell CSV; None to send JSON.
        now: Milliseconds since 1970, UTC.

    Raises:
        Malformed: `since` is later than `until`, or there are too many selections.
        StoreUnavailable: The store can't be queried; the response may have begun.
        LimitExceeded: Too much waits for other clients.
    """
    check_order(query.since, query.until)
    selections = _selections(query)
    headers = {"Cache-Control": "no-store"}
    request.responseHeaders.addRawHeader("Vary", "Accept")
    if csv is not None:
        names = [_name(queries, selection.sensor) for selection in selections]
        headers["Content-Disposition"] = csv.disposition(
            names[0] if len({*names}) == 1 else "", query.since, query.until or now
        )
    content_type = JSON if csv is None else f"{CSV}; charset=utf-8; header=present"
    if query.bucket is not None:
        # What it is made from is not kept while the client reads.
        width, limit = query.bucket, query.limit
        body = await responses.make(lambda: _buckets(responses, queries, selections, width, limit, csv))
        await responses.send(request, HTTPStatus.OK, content_type, body, headers)
        return
    extents = [(selection, await queries.extent(selection, query.limit or None)) for selection in selections]
    pieces = _json_pieces(queries, extents) if csv is None else _csv_pieces(queries, extents, csv)
    await responses.stream_fetched(request, content_type, pieces, headers)


async def _buckets(
    responses: Responses,
    queries: IQueries,
    selections: Sequence[Selection],
    width: float,
    most: int | None,
    csv: CsvFormat | None,
) -> bytes:
    limit = min(most or MAX_BUCKETS, MAX_BUCKETS // len(selections))
    buckets: list[ApiBucket] = []
    times: list[int] = []
    for selection in selections:
        found = await queries.buckets(selection, round(width * 1000), limit)
        made = (bucket_json(selection.sensor, each) for each in found)
        buckets += await responses.collect(made, BUCKETS_PER_TURN)
        times += [each.at for each in found]
    if csv is None:
        return _encode(ApiBuckets(bucket=float(width), buckets=buckets))
    return b"".join(await responses.collect(_buckets_csv(csv, buckets, times), 1))


def _name(queries: IQueries, sensor: str) -> str:
    settings = queries.sensor_settings().get(sensor)
    return (settings and settings.name) or sensor


def _selections(query: ReadingsQuery) -> Sequence[Selection]:
    # msgspec encodes no subclass of str, so the id becomes a plain one.
    selections = [
        Selection(str(sensor), field, query.since, query.until, query.raw)
        for sensor in dict.fromkeys(query.sensor)
        for field in dict.fromkeys(query.field) or (None,)
    ]
    if len(selections) > MAX_SELECTIONS:
        raise Malformed("value out of range", f"more than {MAX_SELECTIONS} fields in all")
    return selections


def wants_csv(accept: str) -> bool:
    """
    Return whether a client's `Accept` names CSV, and before JSON.
    """
    kinds = [kind.partition(";")[0].strip().lower() for kind in accept.split(",")]
    return CSV in kinds and (JSON not in kinds or kinds.index(CSV) < kinds.index(JSON))


async def _pages(
    queries: IQueries,
    extents: Sequence[tuple[Selection, tuple[int, int] | None]],
    encode: Callable[[Sequence[StoredReading]], bytes],
) -> AsyncIterator[bytes]:
    """
    Fetch and encode readings, one selection after the other, each oldest first.

    Args:
        queries: The gateway's queries.
        extents: The selections, each with the numbers of the first and the last reading; None for none.
        encode: Encodes a page.

    Raises:
        StoreUnavailable: The store can't be queried.
    """
    for selection, extent in extents:
        if extent is None:
            continue
        first, last = extent
        while first <= last:
            page = await queries.page(selection, first, last, PAGE)
            if not page:
                break
            piece, first, is_last = encode(page), page[-1].seq + 1, len(page) < PAGE
            del page  # three times as large as its encoding, which alone waits for the client
            yield piece
            if is_last:
                break


async def _json_pieces(
    queries: IQueries, extents: Sequence[tuple[Selection, tuple[int, int] | None]]
) -> AsyncIterator[bytes]:
    """
    Encode readings as one `ApiReadings`.
    """
    separator = b'{"readings":['
    async for piece in _pages(queries, extents, lambda page: _encode([*map(reading_json, page)])[1:-1]):
        yield separator + piece
        separator = b","
    yield b"]}" if separator == b"," else separator + b"]}"


async def _csv_pieces(
    queries: IQueries, extents: Sequence[tuple[Selection, tuple[int, int] | None]], csv: CsvFormat
) -> AsyncIterator[bytes]:
    """
    Encode readings as CSV with a header row.
    """
    yield csv.encode([ApiReading.__struct_fields__])

    def encode(page: Sequence[StoredReading]) -> bytes:
        return csv.encode([csv.cells(reading_json(stored), stored.reading.at) for stored in page])

    async for piece in _pages(queries, extents, encode):
        yield piece


def _buckets_csv(csv: CsvFormat, buckets: Sequence[ApiBucket], times: Sequence[int]) -> Iterator[bytes]:
    yield csv.encode([ApiBucket.__struct_fields__])
    for start in range(0, len(buckets), BUCKETS_PER_TURN):
        part = slice(start, start + BUCKETS_PER_TURN)
        yield csv.encode([*map(csv.cells, buckets[part], times[part])])
