"""
The words of the line protocol (protocol §3), one function each.

To add one, write an `async def` under `@word(…)`: its docstring is its help, the usage says which arguments it takes.
It sends its data lines by `console.send_data`, and raises a `RequestError` if it fails; `answer` sends the closing
line.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from usbgate.access.rights import DEVICE_PATHS
from usbgate.access.roles import Role
from usbgate.core.errors import Denied, LimitExceeded, RequestError, Unknown
from usbgate.core.fieldline import format_line, is_key, is_sensor_id
from usbgate.core.messages import alarm_fields, answer_line, error_line, parse_request
from usbgate.core.model import Selection
from usbgate.core.units import parse_moment
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
from usbgate.server.words import Word, word

if TYPE_CHECKING:
    from usbgate.server.console import Console

LIMIT_DEFAULT = 100  # protocol §3
HISTORY_LIMIT = 10_000  # readings
HISTORY_PAGE = 500  # readings: only their lines, 45 kB, wait for a client that does not read
OTHERS_LIMIT = 1_000  # alarms or requests, as over HTTP


async def answer(console: Console, line: str) -> None:
    """
    Answer one word line with its data lines and exactly one closing line, `OK:` or `ERROR:`.

    An exception that is not a `RequestError` is raised, and the closing line is then left to the caller.

    Args:
        console: The console of the client.
        line: The line; not blank.
    """
    name, *arguments = line.split()
    try:
        found = _find(name)
        console.factory.rates.check(console.peer.payers)
        console.factory.authority.check(console.peer.access, found.role)
        if arguments and not found.takes_arguments:
            raise found.usage_error()
        closing_line = await found.run(console, arguments) or format_line({"OK": found.name})
    except RequestError as error:
        if isinstance(error, LimitExceeded):
            console.factory.limited += 1
        if isinstance(error, Denied) and not error.is_recorded and console.peer.access.role > Role.NONE:
            console.record(_find(name).name, error.code, **_named(error))
        closing_line = error_line(error, {})
    console.send_lines(closing_line)


def _named(error: Denied) -> dict[str, str]:
    return {} if error.sensor is None else {"ID": error.sensor}


def _find(name: str) -> Word:
    try:
        return WORDS[ALIASES.get(name.lower(), name.lower())]
    except KeyError:
        raise Unknown(f"unknown word: {name[:40]!r}; try help") from None


@word("ask ID [COMMAND] [KEY=VALUE ...] [timeout=S] [max_age=S] [when=heard] [origin=WHO] [dev=DEVICE] [tag=MARK]")
async def ask(console: Console, arguments: Sequence[str]) -> str | None:
    """
    Ask a sensor and wait for the answer.

    The default command is the sensor's, or else the configured one. With max_age, accept an answer from memory that is
    no older than that many seconds. With when=heard, hold the question until the sensor reports (a node that sleeps).
    """
    if not arguments:
        raise ask.usage_error()
    sensor, *options = arguments
    has_command = bool(options) and "=" not in options[0]
    command = options.pop(0) if has_command else console.queries.default_command(sensor)
    # An error repeats the request's fields, including those behind the wrong option.
    fields = {name.upper(): value for name, _, value in (option.partition("=") for option in options)}
    fields |= {"MSG": command, "ID": sensor}
    try:
        request = parse_request(_request_fields(command, sensor, options), console.peer.origin, console.peer.name)
        tag = fields.get("TAG")
        console.factory.authority.check_request(console.peer.access, request)
        console.send_lines(answer_line(await console.gateway.ask(request, console.connection.requests.holder), tag))
    except RequestError as error:
        return error_line(error, fields)
    return format_line({"OK": "ask", "TAG": tag}) if tag else None


def _request_fields(command: str, sensor: str, options: Sequence[str]) -> dict[str, str]:
    fields = {"MSG": command, "ID": sensor}
    for name, value in _parse_options(ask, options):
        if name.lower() == "max_age":
            key = "MAXAGE"
        elif is_key(name):  # tested before `upper`, which makes ASCII letters of some that are not
            key = name.upper()
        else:
            raise ask.usage_error(f"not a key: {name!r}")
        if key in fields:
            raise ask.usage_error(f"key given twice: {name!r}")
        fields[key] = value
    return fields


@word("last [ID [FIELD]] [raw=yes]")
async def last(console: Console, arguments: Sequence[str]) -> None:
    """
    Show the newest readings, one per line.

    With raw=yes, show what the devices sent, without offset, scale, min and max of the configuration.
    """
    raw, arguments = _take_flag(last, arguments, "raw")
    if len(arguments) > 2:
        raise last.usage_error()
    sensor = arguments[0] if arguments else None
    field = _parse_field(last, arguments[1]) if len(arguments) > 1 else None
    await console.send_data(map(reading_fields, console.queries.last(sensor, field, raw)))


@word("history ID [FIELD] [since=1h] [limit=100] [raw=yes]")
async def history(console: Console, arguments: Sequence[str]) -> None:
    """
    Show stored readings, newest last.

    since is a duration before now (90s, 30m, 1.5h, 2d, 1w) or a time (2026-01-31T12:00:00Z); raw as for last.
    """
    raw, arguments = _take_flag(history, arguments, "raw")
    if not arguments:
        raise history.usage_error()
    sensor, *options = arguments
    _check_sensor(history, sensor)
    field = _parse_field(history, options.pop(0)) if options and "=" not in options[0] else None
    since, limit = _parse_window(history, options, console.factory.wall(), HISTORY_LIMIT)
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
    raw, arguments = _take_flag(watch, arguments, "raw")
    for sensor in arguments:
        _check_sensor(watch, sensor)
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
    sensor, options = _split_sensor(alarms, arguments)
    queries = console.queries
    if options:
        since, limit = _parse_window(alarms, options, console.factory.wall(), OTHERS_LIMIT)
        stored = await queries.past_alarms(None if sensor is None else [sensor], since, None, limit)
        await console.send_data(map(past_alarm_fields, reversed(stored)), held=True)
    else:
        if sensor is not None:
            console.factory.authority.check_sensor(console.peer.access, sensor)
        found = [alarm for alarm in queries.alarms() if sensor in (None, alarm.sensor)]
        await console.send_data(map(alarm_fields, reversed(found)))


@word("acknowledge ALARM [WHO ...]")
async def acknowledge(console: Console, arguments: Sequence[str]) -> None:
    """
    Acknowledge an alarm: somebody, by default this client's address, has seen it.
    """
    if not arguments:
        raise acknowledge.usage_error()
    alarm, *who = arguments
    console.factory.authority.check_alarm(console.peer.access, alarm, console.gateway.queries.alarms())
    by = " ".join(who) or console.peer.origin
    by = console.peer.access.acknowledge_as(by)
    acknowledged = await console.gateway.acknowledge(alarm, by)
    console.record("acknowledge", device=acknowledged.device, ALARM=alarm, ID=acknowledged.sensor, BY=by)
    await console.send_data([alarm_fields(acknowledged)])


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


@word("replace OLD [NEW] [undo=yes]")
async def replace(console: Console, arguments: Sequence[str]) -> None:
    """
    Let a sensor keep its id, name and history though it reports with a new id, as after a new battery.

    From now on, what NEW reports is OLD, and questions for OLD go to NEW. undo=yes takes the last replacement back.
    """
    undo, sensors = _take_flag(replace, arguments, "undo")
    if len(sensors) != (1 if undo else 2):
        raise replace.usage_error()
    for sensor in sensors:
        _check_sensor(replace, sensor)
    gateway, who = console.gateway, console.peer.access.who or console.peer.origin
    made = await (gateway.undo_replacement(sensors[0], who) if undo else gateway.replace(*sensors, who))
    command = "replace undo" if undo else "replace"
    console.record(command, device=made.device, ID=made.sensor, SUCCESSOR=made.successor)
    await console.send_data([replacement_fields(made, "undone" if undo else "replaced")])


@word("requests [ID] [limit=100]")
async def requests(console: Console, arguments: Sequence[str]) -> None:
    """
    Show stored requests, newest last.
    """
    sensor, options = _split_sensor(requests, arguments)
    if any(option.lower().startswith("since=") for option in options):
        raise requests.usage_error("unknown option: 'since'")
    _, limit = _parse_window(requests, options, console.factory.wall(), OTHERS_LIMIT)
    stored = await console.queries.requests(None if sensor is None else [sensor], limit)
    await console.send_data(map(request_fields, reversed(stored)), held=True)


@word("held")
async def held(console: Console, arguments: Sequence[str]) -> None:
    """
    List the questions that are held until their sensors report.
    """
    await console.send_data(map(held_fields, console.queries.held()))


@word("cancel NUMBER")
async def cancel(console: Console, arguments: Sequence[str]) -> None:
    """
    Cancel a question that is held.
    """
    if len(arguments) != 1:
        raise cancel.usage_error()
    found = console.factory.authority.find_held(console.peer.access, arguments[0], console.queries.held())
    console.gateway.cancel(found.number)
    sensor, command, _ = found.request.question
    console.record("cancel", device=found.device, HELD=arguments[0], ID=sensor, MSG=command)
    await console.send_data([held_fields(found)])


@word("lend DEVICE")
async def lend(console: Console, arguments: Sequence[str]) -> None:
    """
    Release a device until this connection ends, so that another program can open its port.
    """
    if len(arguments) != 1:
        raise lend.usage_error()
    lease = await console.gateway.lend(arguments[0], console.peer.name)
    console.record("lend", device=lease.device)
    console.keep(lease)
    await console.send_data([{"DEV": lease.device, "PORT": lease.port}])


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


@word("auth TOKEN")
async def auth(console: Console, arguments: Sequence[str]) -> None:
    """
    Authenticate: from now on, this connection may do what the token permits, instead of what its address does.

    Its subscription and its leases end.
    """
    if len(arguments) != 1:
        raise auth.usage_error()
    access = console.peer.authenticate(arguments[0])
    access.check(Role.NONE)
    console.connection.admit(access)
    sensors = {} if access.sensors is None else {"SENSORS": ",".join(sorted(access.sensors))}
    await console.send_data([{"NAME": access.who or "", "ROLE": access.role.spelled, **sensors}])


@word("ping")
async def ping(console: Console, arguments: Sequence[str]) -> None:
    """
    Check that usbgate replies.
    """


@word("help [WORD]")
async def help_(console: Console, arguments: Sequence[str]) -> None:
    """
    List the words, or explain one.
    """
    if len(arguments) > 1:
        raise help_.usage_error()
    if arguments:
        found = _find(arguments[0])
        await console.send_data([{"USAGE": found.usage}, *({"TEXT": text} for text in (found.summary, *found.details))])
    else:
        await console.send_data({"USAGE": each.usage, "TEXT": each.summary} for each in WORDS.values())


@word("quit")
async def quit_(console: Console, arguments: Sequence[str]) -> None:
    """
    Close the connection.
    """
    console.send_lines(format_line({"OK": "quit"}))
    console.close()  # nothing can be sent from now on, so this `OK:quit` is the only one


# In the order in which `help` lists them.
WORDS: Mapping[str, Word] = {each.name: each for each in list(globals().values()) if isinstance(each, Word)}
ALIASES: Mapping[str, str] = {each.alias: each.name for each in WORDS.values() if each.alias is not None}


def _parse_options(used: Word, options: Sequence[str]) -> list[tuple[str, str]]:
    parsed = []
    for option in options:
        name, _, value = option.partition("=")
        if not (name and value):
            raise used.usage_error(f"expected KEY=VALUE, got {option!r}")
        parsed.append((name, value))
    return parsed


def _take_flag(used: Word, arguments: Sequence[str], name: str) -> tuple[bool, Sequence[str]]:
    # Whether `name=yes` is among the arguments, and the others.
    given = [each for each in arguments if each.lower().startswith(f"{name}=")]
    if not given:
        return False, arguments
    values = [each.partition("=")[2].lower() for each in given]
    if values not in (["yes"], ["no"]):
        raise used.usage_error(f"{name}: expected yes or no")
    return values == ["yes"], [each for each in arguments if each not in given]


def _parse_field(used: Word, text: str) -> str:
    if not is_key(text):
        raise used.usage_error(f"not a field: {text!r}")
    return text.upper()


def _check_sensor(used: Word, text: str) -> None:
    if not is_sensor_id(text):
        raise used.usage_error(f"not a sensor id: {text!r}")


def _split_sensor(used: Word, arguments: Sequence[str]) -> tuple[str | None, Sequence[str]]:
    # The sensor, if one is named, and the options behind it.
    if not arguments or "=" in arguments[0]:
        return None, arguments
    _check_sensor(used, arguments[0])
    return arguments[0], arguments[1:]


def _parse_window(used: Word, options: Sequence[str], now: int, most: int) -> tuple[int | None, int]:
    # What `since` and `limit` say: whole milliseconds since 1970, UTC; and a number up to `most`.
    since: int | None = None
    limit = LIMIT_DEFAULT
    for name, value in _parse_options(used, options):
        match name.lower():
            case "since":
                try:
                    since = parse_moment(value, now)
                except ValueError:
                    raise used.usage_error(f'since: not a time: "{value}"') from None
            case "limit":
                limit = int(value) if re.fullmatch("[0-9]{1,5}", value) else 0
                if not 0 < limit <= most:
                    raise used.usage_error(f'limit: expected 1 to {most}, got "{value}"')
            case _:
                raise used.usage_error(f"unknown option: {name!r}")
    return since, limit
