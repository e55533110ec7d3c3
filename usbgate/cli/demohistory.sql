-- The history that the demo shows: 30 days of readings up to now, with a smoke alarm three days ago. Newest first, a day
-- in a transaction, so that what is seen first is there first. Numbers are negative and rise with time: those of the
-- daemon come after them. Values meet those of the simulated home (`simulator/sensors.py`) now.

do $$
declare
    gateway_name constant text := (select name from usbgate.gateway limit 1);
    until_time constant timestamptz := date_trunc('second', now());
    smoke_at constant timestamptz := date_trunc('day', now()) - interval '3 days' + interval '18 hours 42 minutes';
begin
    for day in 0..29 loop
        insert into usbgate.reading
        with moments as (
            select until_time - make_interval(secs => age) as at, age,
                extract(hour from until_time - make_interval(secs => age)) as hour,
                -- Parts of a day from the warmest hour, then and now.
                cos((extract(epoch from until_time) - age - 54000) * pi() / 43200)
                    - cos((extract(epoch from until_time) - 54000) * pi() / 43200) as warmth,
                sin(age / 400000.0) as weather,
                -- Whether somebody is in a room: the same for 20 minutes.
                abs(hashtext(floor((extract(epoch from until_time) - age) / 1200)::text)) % 100 as chance
            from generate_series(day * 86400 + 60, (day + 1) * 86400, case when day = 0 then 120 else 600 end) as age
        ), readings as (
            select at, age, 0 as place, '20' as sensor, 'VALUE' as field,
                21.5 + 0.8 * warmth + 0.6 * weather + (random() - 0.5) * 0.3 as value, null as text from moments
            union all select at, age, 1, '21', 'VALUE', 48 - 4 * warmth + 3 * weather + (random() - 0.5), null from moments
            union all select at, age, 2, '22', 'TEMP', 23 + 0.5 * warmth + (random() - 0.5) * 0.4
                + case when hour = 7 then 1.5 else 0 end, null from moments
            union all select at, age, 3, '22', 'HUM', 61 + 2 * weather + (random() - 0.5) * 2
                + case when hour = 7 then 19 else 0 end, null from moments
            union all select at, age, 4, '22', 'BAT', null, 'OK' from moments
            union all select at, age, 5, '23', 'VALUE', 8 + 3.5 * warmth + 3 * weather + (random() - 0.5) * 0.4, null
                from moments
            union all select at, age, 6, '6', 'PRESENCE',
                case when hour between 7 and 22 and chance < 30 then 1 else 0 end, null from moments
            union all select at, age, 7, '7', 'PRESENCE',
                case when hour in (7, 12, 13, 19, 20) and chance < 75 then 1 else 0 end, null from moments
            union all select at, age, 8, '9', 'LEVEL',
                case when age > 3600 and hour between 20 and 22 then 60 else 0 end, null from moments
            union all select at, age, 9, '10', 'LEVEL',
                case when age > 3600 and hour between 8 and 20 then 100 else 0 end, null from moments
            union all select at, age, 10, '2', 'SMOKE', 0, null from moments
                where at not between smoke_at and smoke_at + interval '6 minutes'
        )
        select at, gateway_name, -age * 20 + place, 'arduino', sensor, field, round(value::numeric, 1), text, null, true
        from readings;
        commit;
    end loop;

    insert into usbgate.reading
    select at, gateway_name, -floor(extract(epoch from until_time - at))::bigint * 20 + 11, 'arduino', '2', 'SMOKE',
        case when at < smoke_at + interval '6 minutes' then 1 else 0 end, null, null, true
    from generate_series(smoke_at, smoke_at + interval '6 minutes', interval '1 minute') as at;
    insert into usbgate.alarm_event
    select at, gateway_name, -floor(extract(epoch from until_time - at))::bigint * 20 + 12, 'demo-smoke', 'arduino', '2',
        'SMOKE', event, '== 1', case when event = 'ended' then 0 else 1 end, null, who, true
    from (values
        (smoke_at, 'raised', null), (smoke_at + interval '4 minutes 10 seconds', 'acknowledged', 'Anna'),
        (smoke_at + interval '6 minutes', 'ended', null)
    ) as events (at, event, who);
end $$;
