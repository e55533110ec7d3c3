"""
SQL queries: the alarms that are open, and past ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from usbgate.core.model import Alarm, Range, StoredAlarm
from usbgate.store.postgres.queries import (
    ANY_SENSOR,
    AT,
    ID,
    ID_OF,
    MS,
    Query,
    as_array,
    range_parameters,
    times_between,
)

# Columns in the order of `Alarm`.
_ALARMS = f"""
    select alarm, device, sensor, field, condition, value, text, {MS.format("since")},
        {MS.format("ended")}, {MS.format("acknowledged")}, who
    from usbgate.alarm where gateway = %(gateway)s and (ended is null or acknowledged is null)
    order by seq
"""

# An alarm that was merged into another one (`joined`) is left out. The `next` of `raised` is `ended`. Bounds: the spans
# of an alarm, of which the newest are returned, and the readings in which its extreme is looked for.
_PAST_ALARMS = f"""
    with change as (
        select *, lead(at) over (partition by alarm, event = 'acknowledged' order by seq) as next
        from usbgate.alarm_event where gateway = %(gateway)s and {ANY_SENSOR}
    ), past as (
        select alarm, min(device) as device, min(sensor) as sensor, min(field) as field, min(condition) as condition,
            (array_agg(value order by seq))[1] as value, (array_agg(text order by seq))[1] as text,
            (array_agg(at order by seq))[1] as since,
            (array_agg(next order by seq desc) filter (where event = 'raised'))[1] as ended,
            (array_agg(at order by seq) filter (where event = 'acknowledged'))[1] as acknowledged,
            (array_agg(who order by seq) filter (where event = 'acknowledged'))[1] as who,
            (array_agg({AT} order by seq desc) filter (where event = 'raised'))[:200] as starts,
            (array_agg({MS.format("next")} order by seq desc) filter (where event = 'raised'))[:200] as ends,
            min(seq) as seq
        from change group by alarm having not bool_or(event = 'joined')
    ), shown as (
        select * from past
        where since < timestamptz 'epoch' + %(until)s::float8 * interval '1 ms'
            and coalesce(ended, 'infinity') >= timestamptz 'epoch' + %(since)s::float8 * interval '1 ms'
        order by seq desc limit %(limit)s
    )
    select alarm, device, sensor, field, condition, value, text, {MS.format("since")}, {MS.format("ended")},
        {MS.format("acknowledged")}, who,
        case when left(condition, 1) in ('<', '>') then
            case when (left(condition, 1) = '<') = coalesce(falling, false) then highest else lowest end
        end,
        starts, ends
    from shown left join unnest(
        %(of_sensors)s::text[], %(fields)s::text[], %(lows)s::float8[], %(highs)s::float8[], %(falling)s::bool[]
    ) as range(sensor, field, low, high, falling) using (sensor, field) left join lateral (
        select min(number) as lowest, max(number) as highest from (
            select value as number from usbgate.reading
            where {ID_OF.format(sensor="shown.sensor", field="shown.field")} = {ID}
                and at between shown.since and coalesce(shown.ended, 'infinity') and gateway = %(gateway)s
                and sensor = shown.sensor and field = shown.field and device = shown.device
                and (low is null or value between low and high)
            order by at limit 100000
        ) as numbers
    ) as extreme on true order by seq desc
"""


def alarms(gateway: str) -> Query[Alarm]:
    """
    Query the open alarms (see `IStore.alarms`).
    """
    return Query(_ALARMS, {"gateway": gateway}, Alarm._make)


def past_alarms(
    gateway: str,
    sensors: Sequence[str] | None,
    since: int | None,
    until: int | None,
    limit: int,
    ranges: Sequence[Range] = (),
) -> Query[StoredAlarm]:
    """
    Query alarms (see `IStore.past_alarms`).
    """

    def make(row: tuple[Any, ...]) -> StoredAlarm:
        *alarm, peak, starts, ends = row
        return StoredAlarm(Alarm._make(alarm), peak, tuple(zip(starts, ends, strict=True)))

    parameters = {
        "gateway": gateway,
        "sensors": as_array(sensors),
        "limit": limit,
        **times_between(since, until),
        **range_parameters(ranges),
        "of_sensors": [each.sensor for each in ranges],
        "falling": [each.falling for each in ranges],
    }
    return Query(_PAST_ALARMS, parameters, make)
