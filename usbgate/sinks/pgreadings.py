"""
Questions about what is stored in PostgreSQL: page by page by number, summed up by intervals, and who asked what.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Generic, NamedTuple, TypeVar

from usbgate.model import Bucket, Reading, RequestRecord, Selection, StoredReading, StoredRequest
from usbgate.sinks.pgqueries import FIELDS, ID, ID_OF, SERIES, SERIES_OF

T = TypeVar("T")

# What PostgreSQL can hold of time, to whole years: 4713 BC is its first, and our clocks end in 9999.
TIME_RANGE = (-210_000_000_000_000, 253_402_300_799_000)  # milliseconds

_AT = "round(date_part('epoch', at) * 1000)::bigint"

_ONE_FIELD = "with field(name) as (values (%(field)s::text))"

_TIME = """
    at >= timestamptz 'epoch' + %(since)s::float8 * interval '1 ms'
    and at < timestamptz 'epoch' + %(until)s::float8 * interval '1 ms'
"""

# By number. That two series have one number, once in 10^19 times, is not looked into.
_OF = {"gateway": "%(gateway)s", "sensor": "%(sensor)s", "field": "field.name"}
_OF_SERIES = f"{SERIES} = {SERIES_OF.format(**_OF)}"

# By time. The view's index knows nothing of gateways, nor which dot of an id stands before the field.
_IN_TIME = f"""
    {ID} = {ID_OF.format(**_OF)} and {_TIME}
    and gateway = %(gateway)s and sensor = %(sensor)s and field = field.name
"""

# Of a whole series the first number is one step down the index, as the last is.
_EXTENT = f"""
    select min(first), max(last) from field cross join lateral (
        select seq as first from reading where {_OF_SERIES} order by seq limit 1
    ) as first cross join lateral (
        select seq as last from reading where {_OF_SERIES} order by seq desc limit 1
    ) as last
"""
_EXTENT_IN_TIME = f"""
    select min(seq), max(seq) from field cross join lateral (select seq from reading where {_IN_TIME}) as found
"""
_EXTENT_OF_NEWEST = """
    select min(seq), max(seq) from (
        select seq from field cross join lateral (
            select at, seq from reading where {which} order by {order} limit %(limit)s
        ) as newest order by {order} limit %(limit)s
    ) as newest
"""

_PAGE = f"""
    select seq, {_AT}, device, sensor, field, value, text, command, clock from field cross join lateral (
        select * from reading where {_OF_SERIES} and seq between %(first)s and %(last)s and {_TIME}
        order by seq limit %(limit)s
    ) as page order by seq limit %(limit)s
"""

# Of `date_bin` only newer servers than 13 know.
_BUCKETS = f"""
    select bucket * %(width)s, field, min(value), avg(value), max(value), count(*) from field cross join lateral (
        select field, floor(date_part('epoch', at) * 1000 / %(width)s)::bigint as bucket, value from reading
        where {_IN_TIME} and value is not null
    ) as numbers group by bucket, field order by bucket desc, field desc limit %(limit)s
"""

_REQUESTS = f"""
    select seq, {_AT}, origin, client, device, sensor, command, arguments, outcome, latency_ms, coalesce(clock, false)
    from request
    where gateway = %(gateway)s and (%(sensor)s::text is null or sensor = %(sensor)s) order by seq desc limit %(limit)s
"""


class Question(NamedTuple, Generic[T]):
    """
    A statement, and what its rows are made into.
    """

    sql: str
    parameters: Mapping[str, object]
    make: Callable[[tuple[Any, ...]], T]


def extent(gateway: str, selection: Selection, limit: int | None) -> Question[tuple[int | None, int | None]]:
    """
    Ask for the first and the last number (see `IArchive.extent`); both are None where there are no rows.
    """
    timed = selection.since is not None or selection.until is not None
    if limit is None:
        sql = _EXTENT_IN_TIME if timed else _EXTENT
    elif timed:
        sql = _EXTENT_OF_NEWEST.format(which=_IN_TIME, order="at desc, seq desc")
    else:
        sql = _EXTENT_OF_NEWEST.format(which=_OF_SERIES, order="seq desc")
    return _select(sql, gateway, selection, lambda row: (row[0], row[1]), limit=limit)


def page(gateway: str, selection: Selection, first: int, last: int, limit: int) -> Question[StoredReading]:
    """
    Ask for readings (see `IArchive.page`).
    """

    def make(row: tuple[Any, ...]) -> StoredReading:
        return StoredReading(row[0], Reading._make(row[1:]))

    return _select(_PAGE, gateway, selection, make, first=first, last=last, limit=limit)


def buckets(gateway: str, selection: Selection, width: int, limit: int) -> Question[Bucket]:
    """
    Ask for sums (see `IArchive.buckets`), but newest first.
    """
    return _select(_BUCKETS, gateway, selection, Bucket._make, width=width, limit=limit)


def requests(gateway: str, sensor: str | None, limit: int) -> Question[StoredRequest]:
    """
    Ask for requests (see `IArchive.requests`).
    """

    def make(row: tuple[Any, ...]) -> StoredRequest:
        return StoredRequest(row[0], RequestRecord._make(row[1:]))

    return Question(_REQUESTS, {"gateway": gateway, "sensor": sensor, "limit": limit}, make)


def _select(
    sql: str, gateway: str, selection: Selection, make: Callable[[tuple[Any, ...]], T], **others: object
) -> Question[T]:
    earliest, latest = TIME_RANGE
    parameters = {
        "gateway": gateway,
        "sensor": selection.sensor,
        "field": selection.field,
        "since": earliest if selection.since is None else min(max(selection.since, earliest), latest),
        "until": latest if selection.until is None else min(max(selection.until, earliest), latest),
        **others,
    }
    return Question((FIELDS if selection.field is None else _ONE_FIELD) + sql, parameters, make)
