"""
SQL queries: what a daemon restores when the database is there, which are the newest readings, owners and replacements.
"""

from __future__ import annotations

from typing import Any

from usbgate.core.model import Reading
from usbgate.core.replacements import Replacement
from usbgate.store.postgres.queries import AT, MS, SERIES, Query

# The newest reading of each series of all gateways, with one index lookup for each: backwards, the first row of the
# next series is its newest.
NEWEST_READINGS = f"""
    recursive newest as (
        (select {SERIES} as series, * from usbgate.reading order by series desc, seq desc limit 1)
        union all
        select next.* from newest cross join lateral (
            select {SERIES} as series, * from usbgate.reading where {SERIES} < newest.series
            order by series desc, seq desc limit 1
        ) as next
    )
"""
# What a successor sent before it replaced a sensor is the sensor's.
_LATEST = f"""
    with {NEWEST_READINGS}
    select {MS.format("newest.at")}, newest.device, coalesce(replacement.sensor, newest.sensor), field, value, text,
        command, clock
    from newest left join usbgate.replacement on replacement.gateway = newest.gateway
        and replacement.successor = newest.sensor and newest.seq < replacement.seq and newest.at >= replacement.since
    where newest.gateway = %(gateway)s order by newest.seq desc limit %(limit)s
"""
_REPLACEMENTS = f"""
    select sensor, successor, device, {MS.format("since")}, {AT}, who from usbgate.replacement
    where gateway = %(gateway)s order by seq
"""

# The device to which a sensor was passed last, or else the one that claimed it first: a device that claims it later did
# so after a restart, before it was known that another one owns it.
_OWNERS = """
    select distinct on (sensor) sensor, device from usbgate.owner_event where gateway = %(gateway)s
    order by sensor, event = 'passed' desc, case when event = 'passed' then -seq else seq end limit %(limit)s
"""


def latest(gateway: str, limit: int) -> Query[Reading]:
    """
    Query the newest reading of each series (see `IStore.latest`), but newest first.
    """
    return Query(_LATEST, {"gateway": gateway, "limit": limit}, Reading._make)


def owners(gateway: str, limit: int) -> Query[tuple[str, str]]:
    """
    Query the owners of sensors (see `IStore.owners`).
    """
    return Query(_OWNERS, {"gateway": gateway, "limit": limit}, lambda row: (row[0], row[1]))


def replacements(gateway: str) -> Query[Replacement]:
    """
    Query the replacements that hold (see `IStore.replacements`).
    """

    def make(row: tuple[Any, ...]) -> Replacement:
        sensor, successor, device, since, at, who = row
        return Replacement(sensor=sensor, successor=successor, device=device, since=since, at=at, who=who)

    return Query(_REPLACEMENTS, {"gateway": gateway}, make)
