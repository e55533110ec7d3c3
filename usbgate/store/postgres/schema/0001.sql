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
    sensor text collate "C" not null,
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
