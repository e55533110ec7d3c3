"""
Stored readings over HTTP, as JSON or CSV: fetched page by page while they are sent.
"""

from __future__ import annotations

import csv
import io
from collections.abc import AsyncIterator, Sequence
from http import HTTPStatus
from typing import Any

import msgspec
from twisted.internet.interfaces import IReactorTime

from usbgate.core.errors import Malformed
from usbgate.core.fieldline import format_number
from usbgate.core.model import Selection, StoredReading
from usbgate.gateway.interfaces import IGateway
from usbgate.web import schema
from usbgate.web.openapi import CSV, JSON, MOST_READINGS
from usbgate.web.problems import respond
from usbgate.web.query import Query
from usbgate.web.serialize import bucket_shape, reading_shape
from usbgate.web.streaming import StreamedResponse

MOST_BUCKETS = 10_000

# Readings of a page: 5 ms of the reactor's time, in which they are made into text.
PAGE = 1_000

_READING_COLUMNS = schema.Reading.__struct_fields__
_BUCKET_COLUMNS = schema.Bucket.__struct_fields__

_encode = msgspec.json.Encoder().encode


async def _json_pieces(pages: AsyncIterator[Sequence[StoredReading]]) -> AsyncIterator[bytes]:
    """
    Spell readings as one JSON object.
    """
    yield b'{"readings":['
    before = b""
    async for page in pages:
        yield before + _encode([reading_shape(stored) for stored in page])[1:-1]
        before = b","
    yield b"]}"


async def _csv_pieces(pages: AsyncIterator[Sequence[StoredReading]]) -> AsyncIterator[bytes]:
    """
    Spell readings as CSV (RFC 4180), names first.
    """
    yield _csv([_READING_COLUMNS])
    async for page in pages:
        yield _csv([_cells(reading_shape(stored)) for stored in page])


def _buckets_csv(buckets: Sequence[schema.Bucket]) -> bytes:
    """
    Spell sums as CSV, names first.
    """
    return _csv([_BUCKET_COLUMNS, *map(_cells, buckets)])


def _cells(row: msgspec.Struct) -> list[str]:
    return [_cell(value) for value in msgspec.structs.astuple(row)]


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return format_number(value)
    return str(value)


def _csv(rows: Sequence[Sequence[str]]) -> bytes:
    text = io.StringIO()
    csv.writer(text).writerows(rows)
    return text.getvalue().encode()


async def _pages(
    gateway: IGateway, selection: Selection, extent: tuple[int, int] | None
) -> AsyncIterator[list[StoredReading]]:
    """
    Fetch readings, oldest first.

    Args:
        gateway: Who has them.
        selection: Which ones.
        extent: The numbers of the first and the last; None for none.

    Raises:
        Failed: The store can't be asked.
    """
    if extent is None:
        return
    first, last = extent
    while first <= last:
        page = await gateway.queries.page(selection, first, last, PAGE)
        if page:
            yield page
        if len(page) < PAGE:
            return
        first = page[-1].seq + 1


async def tell_readings(reactor: IReactorTime, gateway: IGateway, now: int, request: Any, as_csv: bool) -> None:
    """
    Answer a request for readings, or for sums of them.

    Args:
        reactor: For time limits.
        gateway: Who has them.
        now: Whole milliseconds since 1970, UTC.
        request: The request.
        as_csv: Whether as CSV, else as JSON.

    Raises:
        RequestError: The query is wrong, or the store can't be asked.
    """
    query = Query(request.args, ("sensor", "field", "since", "until", "limit", "bucket"))
    sensor = query.sensor()
    if sensor is None:
        raise Malformed("no sensor", "expected sensor=ID")
    selection = Selection(sensor, query.field(), query.moment("since", now), query.moment("until", now))
    headers = {"Cache-Control": "no-store", "Vary": "Accept"}
    if as_csv:
        headers["Content-Disposition"] = 'attachment; filename="readings.csv"'
    content_type = f"{CSV}; charset=utf-8; header=present" if as_csv else JSON
    limit = query.limit(MOST_READINGS)
    bucket = query.bucket()
    if bucket is not None:
        found = await gateway.queries.buckets(selection, round(bucket * 1000), min(limit or MOST_BUCKETS, MOST_BUCKETS))
        shapes = [bucket_shape(sensor, each) for each in found]
        body = _buckets_csv(shapes) if as_csv else _encode(schema.Buckets(bucket=bucket, buckets=shapes))
        respond(request, HTTPStatus.OK, content_type, body, headers)
        return
    extent = await gateway.queries.extent(selection, limit)
    pages = _pages(gateway, selection, extent)
    for name, value in {"Content-Type": content_type, **headers}.items():
        request.setHeader(name, value)
    if request.method != b"HEAD":
        flow = StreamedResponse(reactor, request)
        try:
            async for piece in _csv_pieces(pages) if as_csv else _json_pieces(pages):
                await flow.write(piece)
        finally:
            flow.close()
    request.finish()


def wants_csv(accept: str) -> bool:
    """
    Whether CSV stands before JSON in what a client accepts.
    """
    kinds = [kind.partition(";")[0].strip().lower() for kind in accept.split(",")]
    return CSV in kinds and (JSON not in kinds or kinds.index(CSV) < kinds.index(JSON))
