-- What usbgate stores (protocol §5). Names are compared bytewise: sorting them by a language's rules costs time at
-- every insert, and an index must survive a new version of the C library.

create table gateway (
    name text collate "C" not null,
    journal uuid not null,
    base bigint not null,
    begun timestamptz not null default now(),
    primary key (name, journal)
);

create table reading (
    at timestamptz not null,
    gateway text collate "C" not null,
    seq bigint not null,
    device text not null,
    sensor text collate "C" not null,
    field text collate "C" not null,
    value double precision,
    text text,
    command text,
    clock boolean not null,
    unique (gateway, seq, at)
);

-- What a field of a sensor is known by, as one gateway tells it: one number, compared at once, instead of three texts,
-- compared one after the other. PostgreSQL puts the body in place of each call. Rows come by number, and with two such
-- columns, and no more, it fills the pages of an index on them: (sensor, field, gateway, seq, at) cost 2.9 us a row, and
-- this 0.9, at a third of its size.
create function series(gateway text, sensor text, field text) returns bigint immutable parallel safe language sql
    as 'select hashtextextended(field, hashtextextended(sensor, hashtextextended(gateway, 0)))';

create index reading_by_series on reading (series(gateway, sensor, field), seq);

-- For `measures`: the newest of one id is the first entry here, however many there are (0.1 ms; a view in two parts,
-- each with an index, sorts them all: 200 ms for 50,000). For the fields of a sensor, and for what it said lately, too:
-- so texts are in it as well. Rows that came at once have one time; to look for such twins costs more (0.35 us of 2.3)
-- than it saves.
create index reading_by_id on reading ((case when field = 'VALUE' then sensor else sensor || '.' || field end), at)
    with (deduplicate_items = off);

create table request (
    at timestamptz not null,
    gateway text collate "C" not null,
    seq bigint not null,
    origin text not null,
    client text not null,
    device text,
    sensor text collate "C" not null,
    command text not null,
    arguments text,
    outcome text not null,
    latency_ms double precision not null,
    clock boolean not null,
    unique (gateway, seq, at)
);

-- How a gateway's clocks stood, from one mark to the next (protocol §5): what `usbgate correct-clock` goes by.

create table clock_mark (
    at timestamptz not null,
    gateway text collate "C" not null,
    seq bigint not null,
    uptime double precision not null,
    boot text not null,
    clock boolean not null,
    unique (gateway, seq, at)
);

-- What the web site reads. The expression is that of the index, to the letter.
create view measures as
    select case when field = 'VALUE' then sensor else sensor || '.' || field end as id, at as "timestamp", value
    from reading
    where value is not null;

-- Alarms: what happened to each, in order, and what came of it.

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

-- An alarm that joined another, since both were the same, is shown as the other one.
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
