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

-- Null for what was stored before.
alter table request add column clock boolean;
