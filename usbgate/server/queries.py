"""
The words that query (protocol §3): they read from `console.queries`, which shows only what the client may see.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from usbgate.access.rights import DEVICE_PATHS
from usbgate.core.messages import alarm_fields
from usbgate.core.model import Selection
from usbgate.server.arguments import check_sensor, parse_field, parse_window, split_sensor, take_flag
from usbgate.server.datalines import (
    device_fields,
    held_fields,
    malformed_fields,
    offer_fields,
    past_alarm_fields,
    reading_fields,
    replacement_fields,
    request_fields,
    rule_fields,
    sensor_fields,
)
from usbgate.server.status import status_fields
from usbgate.server.words import word

if TYPE_CHECKING:
    from usbgate.server.console import Console

HISTORY_LIMIT = 10_000  # readings
HISTORY_PAGE = 500  # readings: only their lines, 45 kB, wait for a client that does not read
OTHERS_LIMIT = 1_000  # alarms or requests, as over HTTP


@word("last [ID [FIELD]] [raw=yes]")
async def last(console: Console, arguments: Sequence[str]) -> None:
    """
    Show the newest readings, one per line.

    With raw=yes, show what the devices sent, without offset, scale, min and max of the configuration.
    """
    raw, arguments = take_flag(last, arguments, "raw")
    if len(arguments) > 2:
        raise last.usage_error()
    sensor = arguments[0] if arguments else None
    field = parse_field(last, arguments[1]) if len(arguments) > 1 else None
    await console.send_data(map(reading_fields, console.queries.last(sensor, field, raw)))


@word("history ID [FIELD] [since=1h] [limit=100] [raw=yes]")
async def history(console: Console, arguments: Sequence[str]) -> None:
    """
    Show stored readings, newest last.

    since is a duration before now (90s, 30m, 1.5h, 2d, 1w) or a time (2026-01-31T12:00:00Z); raw as for last.
    """
    raw, arguments = take_flag(history, arguments, "raw")
    if not arguments:
        raise history.usage_error()
    sensor, *options = arguments
    check_sensor(history, sensor)
    field = parse_field(history, options.pop(0)) if options and "=" not in options[0] else None
    since, limit = parse_window(history, options, console.factory.wall(), HISTORY_LIMIT)
    if limit <= HISTORY_PAGE:
        readings = await console.queries.history(sensor, field, since, limit, raw)
        await console.send_data(map(reading_fields, readings), held=True)
    else:
        await _send_pages(console, Selection(sensor, field, since, raw=raw), limit)


async def _send_pages(console: Console, selection: Selection, limit: int) -> None:
    # Fetch each page when the client has read most of those before it.
    queries = console.queries
    extent = await queries.extent(selection, limit)
    if extent is None:
        return
    first, last = extent
    while limit:
        page = await queries.page(selection, first, last, min(HISTORY_PAGE, limit))
        await console.send_data((reading_fields(stored.reading) for stored in page), held=True)
        if len(page) < HISTORY_PAGE:
            return
        limit -= len(page)
        first = page[-1].seq + 1
        del page  # larger than its lines, which alone wait for the client
        if not await console.room_made():
            return


@word("watch [ID ...] [raw=yes]")
async def watch(console: Console, arguments: Sequence[str]) -> None:
    """
    Subscribe to readings, to alarms, and to changes of the devices' states.

    If sensors are named, send only their readings and alarms. Another watch replaces the one before. raw as for last.
    """
    raw, arguments = take_flag(watch, arguments, "raw")
    for sensor in arguments:
        check_sensor(watch, sensor)
        console.factory.authority.check_sensor(console.peer.access, sensor)
    console.watch(arguments or console.peer.access.sensors or (), raw)


@word("unwatch")
async def unwatch(console: Console, arguments: Sequence[str]) -> None:
    """
    End the subscription.
    """
    console.unwatch()


@word("sensors")
async def sensors(console: Console, arguments: Sequence[str]) -> None:
    """
    List the configured sensors and those that have sent a report.
    """
    await console.send_data(sensor_fields(console.queries))


@word("devices")
async def devices(console: Console, arguments: Sequence[str]) -> None:
    """
    List the devices, their states and counts.
    """
    devices = console.queries.devices()
    await console.send_data(device_fields(each, console.peer.access.role >= DEVICE_PATHS) for each in devices)


@word("alarms [ID] [since=7d] [limit=100]")
async def alarms(console: Console, arguments: Sequence[str]) -> None:
    """
    List alarms, newest last: those that are active or not acknowledged yet.

    With since or limit, list stored alarms, those that are over included.
    """
    sensor, options = split_sensor(alarms, arguments)
    queries = console.queries
    if options:
        since, limit = parse_window(alarms, options, console.factory.wall(), OTHERS_LIMIT)
        stored = await queries.past_alarms(None if sensor is None else [sensor], since, None, limit)
        await console.send_data(map(past_alarm_fields, reversed(stored)), held=True)
    else:
        if sensor is not None:
            console.factory.authority.check_sensor(console.peer.access, sensor)
        found = [alarm for alarm in queries.alarms() if sensor in (None, alarm.sensor)]
        await console.send_data(map(alarm_fields, reversed(found)))


@word("rules")
async def rules(console: Console, arguments: Sequence[str]) -> None:
    """
    List the rules, and whether their conditions hold.
    """
    await console.send_data(map(rule_fields, console.queries.rules()))


@word("replacements")
async def replacements(console: Console, arguments: Sequence[str]) -> None:
    """
    List the sensors that have a new id, and those that may have one.
    """
    queries = console.queries
    await console.send_data([*map(replacement_fields, queries.replacements())])
    await console.send_data([*map(offer_fields, await queries.offers())])


@word("requests [ID] [limit=100]")
async def requests(console: Console, arguments: Sequence[str]) -> None:
    """
    Show stored requests, newest last.
    """
    sensor, options = split_sensor(requests, arguments)
    if any(option.lower().startswith("since=") for option in options):
        raise requests.usage_error("unknown option: 'since'")
    _, limit = parse_window(requests, options, console.factory.wall(), OTHERS_LIMIT)
    stored = await console.queries.requests(None if sensor is None else [sensor], limit)
    await console.send_data(map(request_fields, reversed(stored)), held=True)


@word("held")
async def held(console: Console, arguments: Sequence[str]) -> None:
    """
    List the questions that are held until their sensors report.
    """
    await console.send_data(map(held_fields, console.queries.held()))


@word("status")
async def status(console: Console, arguments: Sequence[str]) -> None:
    """
    Show the state of usbgate.
    """
    queries = console.queries
    await console.send_data(status_fields(queries.status(), queries.totals(), console.factory.counts()))


@word("malformed", alias="noise")
async def malformed(console: Console, arguments: Sequence[str]) -> None:
    """
    Show the last malformed or damaged lines with their reasons.
    """
    await console.send_data(map(malformed_fields, console.queries.malformed_lines()))
