"""
What PostgreSQL is asked for: the newest reading of everything, and the history of one sensor. By number, never by time.

A series is a field of a sensor as one gateway tells it. Two indexes serve all of this (see `schema/0001.sql`): by the
number that stands for a series, and by the id of the web site's view and the time.
"""

from __future__ import annotations

from usbgate.model import Reading

# The expressions of the two indexes, to the letter; each also with parameters or columns in place of the columns.
SERIES_OF = "series({gateway}, {sensor}, {field})"
ID_OF = "(case when {field} = 'VALUE' then {sensor} else {sensor} || '.' || {field} end)"
_COLUMNS = {"gateway": "gateway", "sensor": "sensor", "field": "field"}
SERIES, ID = SERIES_OF.format(**_COLUMNS), ID_OF.format(**_COLUMNS)

# As `Reading` has them.
READING = ", ".join(Reading._fields).replace("at", "round(extract(epoch from at) * 1000)::bigint", 1)

# One step down the index for each series: backwards, the first row of the next one is its newest.
LATEST = f"""
    with recursive newest as (
        (select {SERIES} as series, * from reading order by series desc, seq desc limit 1)
        union all
        select next.* from newest cross join lateral (
            select {SERIES} as series, * from reading where {SERIES} < newest.series
            order by series desc, seq desc limit 1
        ) as next
    )
    select {READING} from newest where gateway = %(gateway)s order by seq desc limit %(limit)s
"""

# For the session that asks: PostgreSQL thinks that few rows can meet so many conditions, and rather than stop at the
# limit on its way down an index it would read and sort a whole series.
SETTINGS = "set enable_seqscan = off; set enable_bitmapscan = off"

# The names are compared outside: two series have the same number once in 10^19 times, and inside they would offer the
# unique index, too.
_NEWEST = f"""
    select * from (
        select * from reading where {SERIES} = {{series}}{{condition}} order by seq desc limit %(limit)s
    ) as newest
    where gateway = %(gateway)s and sensor = %(sensor)s and field = {{field}}
"""

# Where no more than the limit are recent enough, it is these; to find that out by number could read the whole series.
_NEWEST_SINCE = f"""
    with recent as materialized (
        select * from reading
        where {ID} = {{id}} and at >= {{since}}
            and gateway = %(gateway)s and sensor = %(sensor)s and field = {{field}}
        order by at desc limit %(limit)s + 1
    )
    select * from recent where (select count(*) from recent) <= %(limit)s
    union all
    ({_NEWEST.replace("{condition}", " and at >= {since} and (select count(*) from recent) > %(limit)s")})
"""

# The fields of a sensor, found one by one in the index; `/` is what comes behind `.`.
FIELDS = f"""
    with recursive known(id) as (
        select %(sensor)s collate "C" || '.'
        union all
        select (
            select {ID} from reading where {ID} > known.id and {ID} < %(sensor)s collate "C" || '/'
            order by {ID} limit 1
        )
        from known where known.id is not null
    ), field(name) as (
        select coalesce(nullif(substr(id, length(%(sensor)s) + 2), ''), 'VALUE') from known where id is not null
    )
"""


def _newest(field: str, since: bool) -> str:
    names = {"gateway": "%(gateway)s", "sensor": "%(sensor)s", "field": field}
    return (_NEWEST_SINCE if since else _NEWEST).format(
        series=SERIES_OF.format(**names),
        id=ID_OF.format(**names),
        field=field,
        since="timestamptz 'epoch' + %(since)s::float8 * interval '1 ms'",
        condition="",
    )


def history(field: bool, since: bool) -> str:
    """
    Tell how to ask for the history of a sensor; the newest come first.

    Args:
        field: Whether it is of one field only, the parameter `field`.
        since: Whether it begins at a time, the parameter `since`, in whole milliseconds.
    """
    if field:
        rows, before = _newest("%(field)s", since), ""
    else:
        rows = f"select newest.* from field cross join lateral ({_newest('field.name', since)}) as newest"
        before = FIELDS
    return f"{before} select {READING} from ({rows}) as newest order by seq desc limit %(limit)s"
