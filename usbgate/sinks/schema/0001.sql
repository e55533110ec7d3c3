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

-- For the newest reading of each field and for a sensor's history, by number. Ascending, since rows come in that
-- order: descending, pages would be split in the middle. `at` is last, so that "since" is checked without reading rows.
create index reading_by_sensor on reading (sensor, field, gateway, seq, at);

-- For `measures`: the newest of one id is the first entry here, however many there are (0.1 ms; a view in two parts,
-- each with an index, sorts them all: 200 ms for 50,000).
create index reading_by_id on reading ((case when field = 'VALUE' then sensor else sensor || '.' || field end), at)
    where value is not null;

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
    unique (gateway, seq, at)
);

-- What the web site reads. The expression is that of the index, to the letter.
create view measures as
    select case when field = 'VALUE' then sensor else sensor || '.' || field end as id, at as "timestamp", value
    from reading
    where value is not null;
