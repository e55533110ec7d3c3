"""
SQL queries: latest readings, sensor history, pages, aggregates and the request log.

A series is one field of one sensor of one gateway. Two indexes serve all queries (see `schema/0001.sql`): by series
number, and by the id of the web site's view and time. Queries without a time range use the former.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, NamedTuple, TypeVar

from usbgate.core.model import (
    Alarm,
    Bucket,
    Reading,
    RequestRecord,
    Selection,
    StoredAlarm,
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
_ID_OF = "(case when {field} = 'VALUE' then {sensor} else {sensor} || '.' || {field} end)"
_COLUMNS = {"gateway": "gateway", "sensor": "sensor", "field": "field"}
_SERIES, _ID = _SERIES_OF.format(**_COLUMNS), _ID_OF.format(**_COLUMNS)

_MS = "round(date_part('epoch', {}) * 1000)::bigint"
_AT = _MS.format("at")

# Columns in the order of `Reading`.
_READING = ", ".join(Reading._fields).replace("at", _AT, 1)

# The newest reading of each series of all gateways, with one index lookup for each: backwards, the first row of the
# next series is its newest.
NEWEST_READINGS = f"""
    recursive newest as (
        (select {_SERIES} as series, * from usbgate.reading order by series desc, seq desc limit 1)
        union all
        select next.* from newest cross join lateral (
            select {_SERIES} as series, * from usbgate.reading where {_SERIES} < newest.series
            order by series desc, seq desc limit 1
        ) as next
    )
"""
_LATEST = f"""
    with {NEWEST_READINGS}
    select {_READING} from newest where gateway = %(gateway)s order by seq desc limit %(limit)s
"""

# Columns in the order of `Alarm`.
_ALARMS = f"""
    select alarm, device, sensor, field, condition, value, text, {_MS.format("since")},
        {_MS.format("ended")}, {_MS.format("acknowledged")}, who
    from usbgate.alarm where gateway = %(gateway)s and (ended is null or acknowledged is null)
    order by seq
"""

# The device to which a sensor was passed last, or else the one that claimed it first: a device that claims it later did
# so after a restart, before it was known that another one owns it.
_OWNERS = """
    select distinct on (sensor) sensor, device from usbgate.owner_event where gateway = %(gateway)s
    order by sensor, event = 'passed' desc, case when event = 'passed' then -seq else seq end limit %(limit)s
"""

# The names are compared outside, in case of a collision of series numbers (1 in 10^19); inside, the planner could
# choose the unique index.
_NEWEST = f"""
    select * from (
        select * from usbgate.reading where {_SERIES} = {{series}}{{condition}} order by seq desc limit %(limit)s
    ) as newest
    where gateway = %(gateway)s and sensor = %(sensor)s and field = {{field}}
"""

# If no more rows than the limit are recent enough, return these; a search by number could read the whole series.
_NEWEST_SINCE = f"""
    with recent as materialized (
        select * from usbgate.reading
        where {_ID} = {{id}} and at >= {{since}}
            and gateway = %(gateway)s and sensor = %(sensor)s and field = {{field}}
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
            select {_ID} from usbgate.reading where {_ID} > known.id and {_ID} < %(sensor)s collate "C" || '/'
            order by {_ID} limit 1
        )
        from known where known.id is not null
    ), field(name) as (
        select coalesce(nullif(substr(id, length(%(sensor)s) + 2), ''), 'VALUE') from known where id is not null
    )
"""

_ONE_FIELD = "with field(name) as (values (%(field)s::text))"

_TIME = """
    at >= timestamptz 'epoch' + %(since)s::float8 * interval '1 ms'
    and at < timestamptz 'epoch' + %(until)s::float8 * interval '1 ms'
"""

_BEFORE = "at < timestamptz 'epoch' + %(since)s::float8 * interval '1 ms'"

# By number. Collisions of series numbers (1 in 10^19) are ignored.
_OF = {"gateway": "%(gateway)s", "sensor": "%(sensor)s", "field": "field.name"}
_OF_SERIES = f"{_SERIES} = {_SERIES_OF.format(**_OF)}"

# By time. The view's index contains neither the gateway nor which dot of an id precedes the field. `offset 0` keeps the
# planner from joining all readings of the time with the fields instead (1 s for a day of 40 sensors).
_IN_TIME = f"""
    {_ID} = {_ID_OF.format(**_OF)} and {_TIME}
    and gateway = %(gateway)s and sensor = %(sensor)s and field = field.name
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
    select seq, {_AT}, device, sensor, field, value, text, command, clock from field cross join lateral (
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
    select {_AT}, {_MS.format("until")}, device, field, value, text from (
        select *, coalesce(
            lead(case when at - before > gap then before else at end)
                over (partition by device, field order by at, seq),
            last
        ) as until
        from step join usual using (device, field) where before is null or changed or at - before > gap
    ) as state order by at desc, device desc, field desc limit %(limit)s
"""

_ANY_SENSOR = "(%(sensors)s::text[] is null or sensor = any(%(sensors)s))"

# An alarm that was merged into another one (`joined`) is left out. The `next` of `raised` is `ended`. Bounds: the spans
# of an alarm, of which the newest are returned, and the readings in which its extreme is looked for.
_PAST_ALARMS = f"""
    with change as (
        select *, lead(at) over (partition by alarm, event = 'acknowledged' order by seq) as next
        from usbgate.alarm_event where gateway = %(gateway)s and {_ANY_SENSOR}
    ), past as (
        select alarm, min(device) as device, min(sensor) as sensor, min(field) as field, min(condition) as condition,
            (array_agg(value order by seq))[1] as value, (array_agg(text order by seq))[1] as text,
            (array_agg(at order by seq))[1] as since,
            (array_agg(next order by seq desc) filter (where event = 'raised'))[1] as ended,
            (array_agg(at order by seq) filter (where event = 'acknowledged'))[1] as acknowledged,
            (array_agg(who order by seq) filter (where event = 'acknowledged'))[1] as who,
            (array_agg({_AT} order by seq desc) filter (where event = 'raised'))[:200] as starts,
            (array_agg({_MS.format("next")} order by seq desc) filter (where event = 'raised'))[:200] as ends,
            min(seq) as seq
        from change group by alarm having not bool_or(event = 'joined')
    ), shown as (
        select * from past
        where since < timestamptz 'epoch' + %(until)s::float8 * interval '1 ms'
            and coalesce(ended, 'infinity') >= timestamptz 'epoch' + %(since)s::float8 * interval '1 ms'
        order by seq desc limit %(limit)s
    )
    select alarm, device, sensor, field, condition, value, text, {_MS.format("since")}, {_MS.format("ended")},
        {_MS.format("acknowledged")}, who,
        case left(condition, 1) when '<' then lowest when '>' then highest end, starts, ends
    from shown left join lateral (
        select min(number) as lowest, max(number) as highest from (
            select value as number from usbgate.reading
            where {_ID_OF.format(sensor="shown.sensor", field="shown.field")} = {_ID}
                and at between shown.since and coalesce(shown.ended, 'infinity') and gateway = %(gateway)s
                and sensor = shown.sensor and field = shown.field and device = shown.device
            order by at limit 100000
        ) as numbers
    ) as extreme on true order by seq desc
"""

_REQUESTS = f"""
    select seq, {_AT}, origin, client, device, sensor, command, arguments, outcome, latency_ms, coalesce(clock, false)
    from usbgate.request
    where gateway = %(gateway)s and {_ANY_SENSOR} order by seq desc limit %(limit)s
"""


class Query(NamedTuple, Generic[T]):
    """
    A statement with its parameters and the function that makes a result of a row.
    """

    sql: str
    parameters: Mapping[str, object]
    make: Callable[[tuple[Any, ...]], T]


def latest(gateway: str, limit: int) -> Query[Reading]:
    """
    Query the newest reading of each series (see `IStore.latest`), but newest first.
    """
    return Query(_LATEST, {"gateway": gateway, "limit": limit}, Reading._make)


def alarms(gateway: str) -> Query[Alarm]:
    """
    Query the open alarms (see `IStore.alarms`).
    """
    return Query(_ALARMS, {"gateway": gateway}, Alarm._make)


def owners(gateway: str, limit: int) -> Query[tuple[str, str]]:
    """
    Query the owners of sensors (see `IStore.owners`).
    """
    return Query(_OWNERS, {"gateway": gateway, "limit": limit}, lambda row: (row[0], row[1]))


def history(gateway: str, sensor: str, field: str | None, since: int | None, limit: int) -> Query[Reading]:
    """
    Query the newest readings of a sensor (see `IStore.history`), but newest first.
    """
    if field is not None:
        rows, before = _newest("%(field)s", since is not None), ""
    else:
        newest = _newest("field.name", since is not None)
        rows, before = f"select newest.* from field cross join lateral ({newest}) as newest", _FIELDS
    parameters = {
        "gateway": gateway,
        "sensor": sensor,
        "field": field,
        "since": None if since is None else _storable(since),
        "limit": limit,
    }
    sql = f"{before} select {_READING} from ({rows}) as newest order by seq desc limit %(limit)s"
    return Query(sql, parameters, Reading._make)


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


def past_alarms(
    gateway: str, sensors: Sequence[str] | None, since: int | None, until: int | None, limit: int
) -> Query[StoredAlarm]:
    """
    Query alarms (see `IStore.past_alarms`).
    """

    def make(row: tuple[Any, ...]) -> StoredAlarm:
        *alarm, peak, starts, ends = row
        return StoredAlarm(Alarm._make(alarm), peak, tuple(zip(starts, ends, strict=True)))

    parameters = {"gateway": gateway, "sensors": _array(sensors), "limit": limit, **_times(since, until)}
    return Query(_PAST_ALARMS, parameters, make)


def requests(gateway: str, sensors: Sequence[str] | None, limit: int) -> Query[StoredRequest]:
    """
    Query requests (see `IStore.requests`).
    """

    def make(row: tuple[Any, ...]) -> StoredRequest:
        return StoredRequest(row[0], RequestRecord._make(row[1:]))

    return Query(_REQUESTS, {"gateway": gateway, "sensors": _array(sensors), "limit": limit}, make)


def _array(texts: Sequence[str] | None) -> list[str] | None:
    return None if texts is None else list(texts)  # psycopg2 makes an array of a list only


def _newest(field: str, since: bool) -> str:
    names = {"gateway": "%(gateway)s", "sensor": "%(sensor)s", "field": field}
    return (_NEWEST_SINCE if since else _NEWEST).format(
        series=_SERIES_OF.format(**names),
        id=_ID_OF.format(**names),
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
        "field": selection.field,
        **_times(selection.since, selection.until),
        **others,
    }
    return Query((_FIELDS if selection.field is None else _ONE_FIELD) + sql, parameters, make)


def _times(since: int | None, until: int | None) -> dict[str, int]:
    return {
        "since": _FIRST if since is None else _storable(since),
        "until": _LAST if until is None else _storable(until),
    }


def _storable(at: int) -> int:
    return min(max(at, _FIRST), _LAST)
