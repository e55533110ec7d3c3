-- Alarms: what happened to each, in the order in which it happened, and what came of it.

create table alarm_event (
    at timestamptz not null,
    gateway text collate "C" not null,
    seq bigint not null,
    alarm text collate "C" not null,
    sensor text collate "C" not null,
    field text collate "C" not null,
    event text not null,
    condition text not null,
    value double precision,
    text text,
    who text,
    clock boolean not null,
    unique (gateway, seq, at)
);

-- One that joined another, since both were the same, is told by the other one.
create view alarm as
    select gateway, alarm, min(seq) as seq, min(sensor) as sensor, min(field) as field, min(condition) as condition,
        (array_agg(value order by seq))[1] as value, (array_agg(text order by seq))[1] as text,
        (array_agg(at order by seq))[1] as since,
        case (array_agg(event order by seq desc) filter (where event in ('raised', 'ended')))[1] when 'ended'
            then (array_agg(at order by seq desc) filter (where event = 'ended'))[1] end as ended,
        (array_agg(at order by seq) filter (where event = 'acknowledged'))[1] as acknowledged,
        (array_agg(who order by seq) filter (where event = 'acknowledged'))[1] as who
    from alarm_event
    group by gateway, alarm
    having not bool_or(event = 'joined');
