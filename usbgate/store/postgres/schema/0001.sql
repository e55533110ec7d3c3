-- The tables of usbgate (protocol §5). The name of another schema takes the place of `usbgate.` everywhere, also in the
-- bodies of functions, which must not depend on anybody's search_path. Names are compared bytewise: a language's
-- collation costs time at every insert, and a new version of the C library can corrupt an index that uses one.

-- How far each gateway has stored. There is room in the page for a new version of the row at each batch.
create table usbgate.gateway (
    name text collate "C" primary key,
    journal uuid not null,
    base bigint not null,
    n bigint not null,
    chain text collate "C" not null,
    begun timestamptz not null default now()
) with (fillfactor = 10);

-- Moves a gateway from one position to another, or fails with SQLSTATE UG001 if it is not there: then somebody else has
-- stored under its name, and the transaction that this call begins must not store.
create function usbgate.advance(
    gateway text, journal uuid, base bigint, n bigint, chain text, next_n bigint, next_chain text
) returns void language plpgsql as $$
begin
    update usbgate.gateway as g set n = advance.next_n, chain = advance.next_chain
        where g.name = advance.gateway and g.journal = advance.journal and g.base = advance.base
            and g.n = advance.n and g.chain = advance.chain;
    if not found then
        raise exception using errcode = 'UG001', message = 'another usbgate has stored under this name';
    end if;
end $$;

-- Three indexes, each for what no other one finds. Together they cost 2.3 us a row of 3.6 (docs/architecture.md).
create table usbgate.reading (
    at timestamptz not null,
    gateway text collate "C" not null,
    seq bigint not null,
    device text not null,
    sensor text collate "C" not null,
    field text collate "C" not null,
    value double precision,
    text text,
    command text,
    clock boolean not null
);

-- The number of a series, one field of one sensor of one gateway: one comparison instead of three of texts. PostgreSQL
-- inlines the function.
create function usbgate.series(gateway text, sensor text, field text) returns bigint
    immutable parallel safe language sql as 'select pg_catalog.hashtextextended(field, pg_catalog.hashtextextended(
        sensor, pg_catalog.hashtextextended(gateway, 0)))';

-- By series and number. It also refuses a row that is stored already.
create unique index reading_by_series on usbgate.reading (usbgate.series(gateway, sensor, field), seq);

-- By number alone: the rows of a gateway lie in the order of their batches, so the lowest and highest number of each
-- megabyte are enough. Where several gateways store into one table, they are several intervals (PostgreSQL 14 or later).
do $$ begin
    execute $sql$create index reading_by_number on usbgate.reading using brin (seq $sql$
        || case when current_setting('server_version_num')::int >= 140000 then 'int8_minmax_multi_ops' else '' end
        || ') with (autosummarize = on)';
end $$;

-- For the view `measures` (measures.py): the newest row of one id is the first entry, however many there are (0.1 ms; a
-- view in two parts, each with an index, sorts them all: 200 ms for 50,000). Also for the fields of a sensor and its
-- recent readings, so texts are included. Rows of one chunk have the same time; deduplication costs more (0.35 us of 2.3) than it saves.
create index reading_by_id on usbgate.reading (
    (case when field = 'VALUE' then sensor else sensor || '.' || field end), at
) with (deduplicate_items = off);

create table usbgate.request (
    at timestamptz not null,
    gateway text collate "C" not null,
    seq bigint not null,
    origin text not null,
    client text not null,
    device text,
    sensor text collate "C",
    command text not null,
    arguments text,
    outcome text not null,
    latency_ms double precision not null,
    clock boolean not null,
    unique (gateway, seq, at)
);

-- The state of a gateway's clocks, from one mark to the next (protocol §5), for `usbgate correct-clock`.

create table usbgate.clock_mark (
    at timestamptz not null,
    gateway text collate "C" not null,
    seq bigint not null,
    uptime double precision not null,
    boot text not null,
    clock boolean not null,
    unique (gateway, seq, at)
);

-- Alarms: the events of each, in order, and its state.

create table usbgate.alarm_event (
    at timestamptz not null,
    gateway text collate "C" not null,
    seq bigint not null,
    alarm text collate "C" not null,
    device text not null,
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

-- An alarm that was merged into an identical one (`joined`) is left out.
create view usbgate.alarm as
    select gateway, alarm, min(seq) as seq, min(device) as device, min(sensor) as sensor, min(field) as field,
        min(condition) as condition,
        (array_agg(value order by seq))[1] as value, (array_agg(text order by seq))[1] as text,
        (array_agg(at order by seq))[1] as since,
        case (array_agg(event order by seq desc) filter (where event in ('raised', 'ended')))[1] when 'ended'
            then (array_agg(at order by seq desc) filter (where event = 'ended'))[1] end as ended,
        (array_agg(at order by seq) filter (where event = 'acknowledged'))[1] as acknowledged,
        (array_agg(who order by seq) filter (where event = 'acknowledged'))[1] as who
    from usbgate.alarm_event
    group by gateway, alarm
    having not bool_or(event = 'joined');

-- Which device became the owner of a sensor (protocol §4.1).

create table usbgate.owner_event (
    at timestamptz not null,
    gateway text collate "C" not null,
    seq bigint not null,
    sensor text collate "C" not null,
    device text not null,
    event text not null,
    clock boolean not null,
    unique (gateway, seq, at)
);

-- Which sensor has a new id, as after a new battery (protocol §4, A new id).

create table usbgate.replacement_event (
    at timestamptz not null,
    gateway text collate "C" not null,
    seq bigint not null,
    sensor text collate "C" not null,
    successor text collate "C" not null,
    device text not null,
    event text not null,
    since timestamptz not null,
    who text not null,
    clock boolean not null,
    unique (gateway, seq, at)
);

-- Those that were not taken back.
create view usbgate.replacement as
    select at, gateway, seq, sensor, successor, device, since, who
    from usbgate.replacement_event as replaced
    where event = 'replaced' and not exists (
        select from usbgate.replacement_event as undone
        where undone.gateway = replaced.gateway and undone.sensor = replaced.sensor
            and undone.successor = replaced.successor and undone.event = 'undone' and undone.seq > replaced.seq
    );

-- What psql (\d+) and other tools show of each.

comment on table usbgate.gateway is 'How far each gateway has stored its journal. Written by the daemon only.';
comment on column usbgate.gateway.name is 'The name of the gateway';
comment on column usbgate.gateway.journal is 'The id of the journal that stored last under this name';
comment on column usbgate.gateway.base is 'What is added to the count of the journal to make seq';
comment on column usbgate.gateway.n is 'The count of the journal up to which its rows are stored or set aside';
comment on column usbgate.gateway.chain is 'A running hash over all batches of the journal up to n';
comment on column usbgate.gateway.begun is 'When this journal first stored under this name';

comment on function usbgate.advance is 'Moves a gateway from one position to another; fails if it is not there';
comment on function usbgate.series is
    'A hash of the three names: use it in conditions, so that PostgreSQL uses the index reading_by_series';

comment on table usbgate.reading is 'One row for each reading, exactly once. Order those of one gateway by seq.';
comment on column usbgate.reading.at is 'When it was read, to the millisecond';
comment on column usbgate.reading.gateway is 'The gateway that stored it';
comment on column usbgate.reading.seq is 'Its number: the order in which rows of this gateway arrived';
comment on column usbgate.reading.device is 'The name of the device that sent it';
comment on column usbgate.reading.sensor is 'The id of the sensor';
comment on column usbgate.reading.field is 'What was measured, upper case, such as TEMP';
comment on column usbgate.reading.value is 'The number; null if it is not a number';
comment on column usbgate.reading.text is 'The value as the device spelled it; null if that is a plain decimal';
comment on column usbgate.reading.command is 'The command that it answered; null if it was unsolicited';
comment on column usbgate.reading.clock is 'False while the clock may have been wrong; at may be corrected later';

comment on table usbgate.request is 'One row for each request that has ended, whatever became of it, and for what else somebody did or was denied.';
comment on column usbgate.request.at is 'When it was accepted, by the clock as it was when it ended';
comment on column usbgate.request.gateway is 'The gateway that stored it';
comment on column usbgate.request.seq is 'Its number: the order in which rows of this gateway arrived';
comment on column usbgate.request.origin is 'Who asked, as the client names itself, or its address';
comment on column usbgate.request.client is 'The address of the client, or local for a Unix socket, behind the name of its token or its user and an @';
comment on column usbgate.request.device is 'The name of the device for which it was meant; null if none was determined';
comment on column usbgate.request.sensor is 'The id of the sensor that was asked; null for what was no question';
comment on column usbgate.request.command is 'The command, or what was done or denied, such as acknowledge or token add';
comment on column usbgate.request.arguments is 'The arguments, such as LEVEL:50; null if there were none';
comment on column usbgate.request.outcome is 'answered, recent (from memory), done, or the code of an error such as timeout';
comment on column usbgate.request.latency_ms is 'Milliseconds from its acceptance to its end';
comment on column usbgate.request.clock is 'False while the clock may have been wrong when it ended';

comment on table usbgate.clock_mark is 'The state of the clocks before the rows that follow, to correct their times.';
comment on column usbgate.clock_mark.at is 'The wall clock';
comment on column usbgate.clock_mark.gateway is 'The gateway that stored it';
comment on column usbgate.clock_mark.seq is 'Its number: the order in which rows of this gateway arrived';
comment on column usbgate.clock_mark.uptime is 'Seconds since the machine started, including those in which it slept';
comment on column usbgate.clock_mark.boot is 'Identifies the boot of the machine';
comment on column usbgate.clock_mark.clock is 'Whether the wall clock was right for the rows up to the next mark';

comment on table usbgate.alarm_event is 'The history of alarms, one row for each change. The view alarm has their state.';
comment on column usbgate.alarm_event.at is 'When it changed';
comment on column usbgate.alarm_event.gateway is 'The gateway that stored it';
comment on column usbgate.alarm_event.seq is 'Its number: the order in which rows of this gateway arrived';
comment on column usbgate.alarm_event.alarm is 'The id of the alarm';
comment on column usbgate.alarm_event.device is 'The name of the device that sent the reading';
comment on column usbgate.alarm_event.sensor is 'The id of the sensor';
comment on column usbgate.alarm_event.field is 'The field, upper case';
comment on column usbgate.alarm_event.event is 'raised, ended, acknowledged, or joined to an older alarm that is the same';
comment on column usbgate.alarm_event.condition is 'The condition, such as > 60';
comment on column usbgate.alarm_event.value is 'The reading; null if it is not a number';
comment on column usbgate.alarm_event.text is 'The reading as the device spelled it; null if that is a plain decimal';
comment on column usbgate.alarm_event.who is 'Who acknowledged it';
comment on column usbgate.alarm_event.clock is 'False while the clock may have been wrong';

comment on view usbgate.alarm is 'One row for each alarm: what raised it, and whether it has ended and was acknowledged.';
comment on column usbgate.alarm.gateway is 'The gateway that stored it';
comment on column usbgate.alarm.alarm is 'The id of the alarm';
comment on column usbgate.alarm.seq is 'The number of its first event';
comment on column usbgate.alarm.device is 'The name of the device that sent the reading';
comment on column usbgate.alarm.sensor is 'The id of the sensor';
comment on column usbgate.alarm.field is 'The field, upper case';
comment on column usbgate.alarm.condition is 'The condition, such as > 60';
comment on column usbgate.alarm.value is 'The reading that raised it; null if it is not a number';
comment on column usbgate.alarm.text is 'The reading as the device spelled it; null if that is a plain decimal';
comment on column usbgate.alarm.since is 'When it was raised';
comment on column usbgate.alarm.ended is 'When its condition no longer held; null while it holds';
comment on column usbgate.alarm.acknowledged is 'When somebody acknowledged it; null until then';
comment on column usbgate.alarm.who is 'Who acknowledged it';

comment on table usbgate.owner_event is 'Which device became the owner of a sensor, if there are several devices.';
comment on column usbgate.owner_event.at is 'When';
comment on column usbgate.owner_event.gateway is 'The gateway that stored it';
comment on column usbgate.owner_event.seq is 'Its number: the order in which rows of this gateway arrived';
comment on column usbgate.owner_event.sensor is 'The id of the sensor';
comment on column usbgate.owner_event.device is 'The name of the device that is asked for it from now on';
comment on column usbgate.owner_event.event is 'claimed (nobody owned it), or passed (another device did)';
comment on column usbgate.owner_event.clock is 'False while the clock may have been wrong';

comment on table usbgate.replacement_event is 'Sensors that have new ids, as after a new battery.';
comment on column usbgate.replacement_event.at is 'When';
comment on column usbgate.replacement_event.gateway is 'The gateway that stored it';
comment on column usbgate.replacement_event.seq is 'Its number: the order in which rows of this gateway arrived';
comment on column usbgate.replacement_event.sensor is 'The sensor, which keeps its id';
comment on column usbgate.replacement_event.successor is 'The id with which it reports since';
comment on column usbgate.replacement_event.device is 'The name of the device that reports both';
comment on column usbgate.replacement_event.event is 'replaced, or undone';
comment on column usbgate.replacement_event.since is
    'What was read of the successor from then on, and has a lower number than this row, belongs to the sensor';
comment on column usbgate.replacement_event.who is 'Who did it';
comment on column usbgate.replacement_event.clock is 'False while the clock may have been wrong';
comment on view usbgate.replacement is 'Sensors that have new ids, without what was taken back.';
comment on column usbgate.replacement.at is 'When';
comment on column usbgate.replacement.gateway is 'The gateway that stored it';
comment on column usbgate.replacement.seq is 'The number of its row in replacement_event';
comment on column usbgate.replacement.sensor is 'The sensor, which keeps its id';
comment on column usbgate.replacement.successor is 'The id with which it reports since';
comment on column usbgate.replacement.device is 'The name of the device that reports both';
comment on column usbgate.replacement.since is
    'What was read of the successor from then on, and has a lower number than seq, belongs to the sensor';
comment on column usbgate.replacement.who is 'Who did it';
