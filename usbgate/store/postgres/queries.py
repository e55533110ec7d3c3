"""
SQL queries: sensor history, pages, aggregates and the request log. Those of alarms are in `alarmqueries`; what is
restored when the database is there is in `restorequeries`.

A series is one field of one sensor of one gateway. Two indexes serve all queries (see `schema/0001.sql`): by series
number, and by the id of the web site's view and time. Queries without a time range use the former.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, NamedTuple, TypeVar

from usbgate.core.model import (
    Bucket,
    Range,
    Reading,
    RequestRecord,
    Selection,
    StoredReading,
    StoredRequest,
    StoredState,
)

T = TypeVar("T")

# Session settings for reading: PostgreSQL underestimates the rows that match so many conditions, and would read and
# sort a whole series instead of stopping an index scan at the limit.
SETTINGS = "set enable_seqscan = off; set enable_bitmapscan = off"

# Times that PostgreSQL can store, from whole years on: its first is 4713 BC, and our clocks end in 9999.
_FIRST, _LAST = -210_000_000_000_000, 253_402_300_799_000  # milliseconds

# The exact expressions of the two indexes; also with parameters or other columns in place of the columns.
_SERIES_OF = "usbgate.series({gateway}, {sensor}, {field})"
ID_OF = "(case when {field} = 'VALUE' then {sensor} else {sensor} || '.' || {field} end)"
_COLUMNS = {"gateway": "gateway", "sensor": "sensor", "field": "field"}
SERIES, ID = _SERIES_OF.format(**_COLUMNS), ID_OF.format(**_COLUMNS)

# A time as whole milliseconds since 1970, UTC.
MS = "round(date_part('epoch', {}) * 1000)::bigint"
AT = MS.format("at")

# Columns in the order of `Reading`.
_READING = ", ".join(Reading._fields).replace("at", AT, 1)

# The same with the sensor that was asked for, which may have been stored under the id of a successor.
_OF_SENSOR = _READING.replace("sensor", "%(asked)s::text", 1)

# Stands behind the conditions on readings. Where some fields have ranges, or readings of successors are joined, further
# conditions take its place.
_PLACE = "/* and */"
_PLAUSIBLE = " and (value is null or value between field.low and field.high)"
_JOINED = " and seq < field.before and at >= field.since"
_RANGES = """
    , field as (
        select named.*, coalesce(low, '-infinity') as low, coalesce(high, 'infinity') as high
        from named left join unnest(%(fields)s::text[], %(lows)s::float8[], %(highs)s::float8[])
            as range(name, low, high) using (name)
    )
"""

# The names are compared outside, in case of a collision of series numbers (1 in 10^19); inside, the planner could
# choose the unique index.
_NEWEST = f"""
    select * from (
        select * from usbgate.reading where {SERIES} = {{series}}{{condition}} {_PLACE}
        order by seq desc limit %(limit)s
    ) as newest
    where gateway = %(gateway)s and sensor = %(sensor)s and field = {{field}}
"""

# If no more rows than the limit are recent enough, return these; a search by number could read the whole series.
_NEWEST_SINCE = f"""
    with recent as materialized (
        select * from usbgate.reading
        where {ID} = {{id}} and at >= {{since}}
            and gateway = %(gateway)s and sensor = %(sensor)s and field = {{field}} {_PLACE}
        order by at desc limit %(limit)s + 1
    )
    select * from recent where (select count(*) from recent) <= %(limit)s
    union all
    ({_NEWEST.replace("{condition}", " and at >= {since} and (select count(*) from recent) > %(limit)s")})
"""

# The fields of a sensor, found one by one in the index; `/` follows `.`.
_FIELDS = f"""
    with recursive known(id) as (
        select %(sensor)s collate "C" || '.'
        union all
        select (
            select {ID} from usbgate.reading where {ID} > known.id and {ID} < %(sensor)s collate "C" || '/'
            order by {ID} limit 1
        )
        from known where known.id is not null
    ), {{field}}(name) as (
        select coalesce(nullif(substr(id, length(%(sensor)s) + 2), ''), 'VALUE') from known where id is not null
    )
"""

_ONE_FIELD = "with {field}(name) as (values (%(field)s::text))"

# The same of a sensor and of all that replaced it.
_SENSORS = """
    source(sensor, since, before) as (
        values (%(sensor)s::text collate "C", timestamptz '-infinity', 9223372036854775807)
        union all
        select successor, since, seq from usbgate.replacement where gateway = %(gateway)s and sensor = %(sensor)s
    )
"""
_ALL_FIELDS = f"""
    with recursive {_SENSORS}, known(sensor, since, before, id) as (
        select sensor, since, before, sensor || '.' from source
        union all
        select sensor, since, before, (
            select {ID} from usbgate.reading where {ID} > known.id and {ID} < known.sensor || '/' order by {ID} limit 1
        )
        from known where known.id is not null
    ), {{field}}(sensor, since, before, name) as (
        select sensor, since, before, coalesce(nullif(substr(id, length(sensor) + 2), ''), 'VALUE')
        from known where id is not null
    )
"""
_ONE_FIELD_OF_ALL = f"""
    with {_SENSORS}, {{field}}(sensor, since, before, name) as (
        select sensor, since, before, %(field)s::text from source
    )
"""

_TIME = """
    at >= timestamptz 'epoch' + %(since)s::float8 * interval '1 ms'
    and at < timestamptz 'epoch' + %(until)s::float8 * interval '1 ms'
"""

_BEFORE = "at < timestamptz 'epoch' + %(since)s::float8 * interval '1 ms'"

# By number. Collisions of series numbers (1 in 10^19) are ignored.
_OF = {"gateway": "%(gateway)s", "sensor": "%(sensor)s", "field": "field.name"}
_OF_SERIES = f"{SERIES} = {_SERIES_OF.format(**_OF)} {_PLACE}"

# By time. The view's index contains neither the gateway nor which dot of an id precedes the field. `offset 0` keeps the
# planner from joining all readings of the time with the fields instead (1 s for a day of 40 sensors).
_IN_TIME = f"""
    {ID} = {ID_OF.format(**_OF)} and {_TIME}
    and gateway = %(gateway)s and sensor = %(sensor)s and field = field.name {_PLACE}
"""

# The first number of a whole series is one index lookup, and so is the last.
_EXTENT = f"""
    select min(first), max(last) from field cross join lateral (
        select seq as first from usbgate.reading where {_OF_SERIES} order by seq limit 1
    ) as first cross join lateral (
        select seq as last from usbgate.reading where {_OF_SERIES} order by seq desc limit 1
    ) as last
"""
_EXTENT_IN_TIME = f"""
    select min(seq), max(seq) from field cross join lateral (
        select seq from usbgate.reading where {_IN_TIME} offset 0
    ) as found
"""
_EXTENT_OF_NEWEST = """
    select min(seq), max(seq) from (
        select seq from field cross join lateral (
            select at, seq from usbgate.reading where {which} order by {order} limit %(limit)s
        ) as newest order by {order} limit %(limit)s
    ) as newest
"""

_PAGE = f"""
    select seq, {_OF_SENSOR} from field cross join lateral (
        select * from usbgate.reading where {_OF_SERIES} and seq between %(first)s and %(last)s and {_TIME}
        order by seq limit %(limit)s
    ) as page order by seq limit %(limit)s
"""

# `date_bin` needs PostgreSQL 14.
_BUCKETS = f"""
    select bucket * %(width)s, device, field, min(value), avg(value), max(value), count(*)
    from field cross join lateral (
        select device, field, floor(date_part('epoch', at) * 1000 / %(width)s)::bigint as bucket, value
        from usbgate.reading where {_IN_TIME} and value is not null offset 0
    ) as numbers group by bucket, device, field order by bucket desc, device desc, field desc limit %(limit)s
"""

# A state ends with the next one, or before a gap. All rows are sorted, so they are bounded: 200,000 take 0.8 s, and
# buckets of them 0.5 s.
_STATES = f"""
    , given as (
        select given.* from field cross join lateral (
            (select at, seq, device, field, value, text from usbgate.reading
            where {_IN_TIME} order by at desc limit 200000)
            union all
            (select at, seq, device, field, value, text from usbgate.reading
            where {_IN_TIME.replace(_TIME, _BEFORE)} order by at desc limit 1)
        ) as given
    ), step as (
        select *, lag(at) over series as before,
            (value, text) is distinct from (lag(value) over series, lag(text) over series) as changed
        from given window series as (partition by device, field order by at, seq)
    ), usual as (
        select device, field, max(at) as last, 5 * percentile_disc(0.75) within group (order by at - before) as gap
        from step group by device, field
    )
    select {AT}, {MS.format("until")}, device, field, value, text from (
        select *, coalesce(
            lead(case when at - before > gap then before else at end)
                over (partition by device, field order by at, seq),
            last
        ) as until
        from step join usual using (device, field) where before is null or changed or at - before > gap
    ) as state order by at desc, device desc, field desc limit %(limit)s
"""

ANY_SENSOR = "(%(sensors)s::text[] is null or sensor = any(%(sensors)s))"

_REQUESTS = f"""
    select seq, {AT}, origin, client, device, sensor, command, arguments, outcome, latency_ms, coalesce(clock, false)
    from usbgate.request
    where gateway = %(gateway)s and {ANY_SENSOR} order by seq desc limit %(limit)s
"""


class Query(NamedTuple, Generic[T]):
    """
    A statement with its parameters and the function that makes a result of a row.
    """

    sql: str
    parameters: Mapping[str, object]
    make: Callable[[tuple[Any, ...]], T]


def history(gateway: str, selection: Selection, limit: int) -> Query[Reading]:
    """
    Query the newest readings of a sensor (see `IStore.history`), but newest first.
    """
    since = selection.since
    one_series = selection.field is not None and not selection.ranges and not selection.joined
    rows = _newest("%(field)s" if one_series else "field.name", since is not None)
    if not one_series:
        rows = f"select newest.* from field cross join lateral ({rows}) as newest"
    parameters = {
        "gateway": gateway,
        "sensor": selection.sensor,
        "asked": selection.sensor,
        "field": selection.field,
        "since": None if since is None else _storable(since),
        "limit": limit,
    }
    sql = f"select {_OF_SENSOR} from ({rows}) as newest order by seq desc limit %(limit)s"
    if one_series:
        return Query(sql, parameters, Reading._make)
    return _of_fields(sql, selection, parameters, Reading._make)


def extent(gateway: str, selection: Selection, limit: int | None) -> Query[tuple[int | None, int | None]]:
    """
    Query the first and the last number (see `IStore.extent`); both are None if there are no rows.
    """
    timed = selection.since is not None or selection.until is not None
    if limit is None:
        sql = _EXTENT_IN_TIME if timed else _EXTENT
    elif timed:
        sql = _EXTENT_OF_NEWEST.format(which=_IN_TIME, order="at desc, seq desc")
    else:
        sql = _EXTENT_OF_NEWEST.format(which=_OF_SERIES, order="seq desc")
    return _select(sql, gateway, selection, lambda row: (row[0], row[1]), limit=limit)


def page(gateway: str, selection: Selection, first: int, last: int, limit: int) -> Query[StoredReading]:
    """
    Query a page of readings (see `IStore.page`).
    """

    def make(row: tuple[Any, ...]) -> StoredReading:
        return StoredReading(row[0], Reading._make(row[1:]))

    return _select(_PAGE, gateway, selection, make, first=first, last=last, limit=limit)


def buckets(gateway: str, selection: Selection, width: int, limit: int) -> Query[Bucket]:
    """
    Query aggregates (see `IStore.buckets`), but newest first.
    """
    return _select(_BUCKETS, gateway, selection, Bucket._make, width=width, limit=limit)


def states(gateway: str, selection: Selection, limit: int) -> Query[StoredState]:
    """
    Query states (see `IStore.states`), but newest first.
    """
    return _select(_STATES, gateway, selection, StoredState._make, limit=limit)


def requests(gateway: str, sensors: Sequence[str] | None, limit: int) -> Query[StoredRequest]:
    """
    Query requests (see `IStore.requests`).
    """

    def make(row: tuple[Any, ...]) -> StoredRequest:
        return StoredRequest(row[0], RequestRecord._make(row[1:]))

    return Query(_REQUESTS, {"gateway": gateway, "sensors": as_array(sensors), "limit": limit}, make)


def as_array(texts: Sequence[str] | None) -> list[str] | None:
    """
    Return texts as psycopg2 makes an array of them.
    """
    return None if texts is None else list(texts)


def _newest(field: str, since: bool) -> str:
    names = {"gateway": "%(gateway)s", "sensor": "%(sensor)s", "field": field}
    return (_NEWEST_SINCE if since else _NEWEST).format(
        series=_SERIES_OF.format(**names),
        id=ID_OF.format(**names),
        field=field,
        since="timestamptz 'epoch' + %(since)s::float8 * interval '1 ms'",
        condition="",
    )


def _select(
    sql: str, gateway: str, selection: Selection, make: Callable[[tuple[Any, ...]], T], **others: object
) -> Query[T]:
    parameters = {
        "gateway": gateway,
        "sensor": selection.sensor,
        "asked": selection.sensor,
        "field": selection.field,
        **times_between(selection.since, selection.until),
        **others,
    }
    return _of_fields(sql, selection, parameters, make)


def _of_fields(
    sql: str, selection: Selection, parameters: Mapping[str, object], make: Callable[[tuple[Any, ...]], T]
) -> Query[T]:
    # A statement about `field`: the fields of the sensor, or the one that is named, perhaps also of its successors.
    one, joined, ranges = selection.field is not None, selection.joined, selection.ranges
    fields = (_ONE_FIELD_OF_ALL if one else _ALL_FIELDS) if joined else _ONE_FIELD if one else _FIELDS
    fields = fields.format(field="named") + _RANGES if ranges else fields.format(field="field")
    if joined:
        sql = sql.replace("%(sensor)s", "field.sensor")
    sql = sql.replace(_PLACE, (_JOINED if joined else "") + (_PLAUSIBLE if ranges else "")) if joined or ranges else sql
    return Query(fields + sql, {**parameters, **range_parameters(ranges)}, make)


def range_parameters(ranges: Sequence[Range]) -> dict[str, list[object]]:
    """
    Return the parameters `fields`, `lows` and `highs`.
    """
    return {
        "fields": [each.field for each in ranges],
        "lows": [each.low for each in ranges],
        "highs": [each.high for each in ranges],
    }


def times_between(since: int | None, until: int | None) -> dict[str, int]:
    """
    Return the parameters `since` and `until`; None is the first time, and the last one, that PostgreSQL can store.
    """
    return {
        "since": _FIRST if since is None else _storable(since),
        "until": _LAST if until is None else _storable(until),
    }


def _storable(at: int) -> int:
    return min(max(at, _FIRST), _LAST)
