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

from usbgate.core.errors import RequestError, Unknown
from usbgate.core.fieldline import format_line, format_number, format_time, is_key, is_sensor_id, plain_text
from usbgate.core.messages import answer_line, error_line, parse_request
from usbgate.core.model import Reading
from usbgate.core.units import parse_moment
from usbgate.server.status import status_fields
from usbgate.server.words import Word, word

if TYPE_CHECKING:
    from usbgate.server.console import Console

HISTORY_DEFAULT = 100  # readings, protocol §3
HISTORY_LIMIT = 10_000  # readings: they are in memory until they are sent, some MB for each client that asks


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
        if arguments and not found.takes_arguments:
            raise found.usage_error()
        closing_line = await found.run(console, arguments) or format_line({"OK": found.name})
    except RequestError as error:
        closing_line = error_line(error, {})
    console.send_lines(closing_line)


def _find(name: str) -> Word:
    try:
        return WORDS[name.lower()]
    except KeyError:
        raise Unknown(f"unknown word: {name[:40]!r}; try help") from None


@word("ask ID [COMMAND] [KEY=VALUE ...] [timeout=S] [max_age=S] [origin=WHO] [dev=DEVICE] [tag=MARK]")
async def ask(console: Console, arguments: Sequence[str]) -> str | None:
    """
    Ask a sensor and wait for the answer.

    The default command is the sensor's, or else the configured one. With max_age, accept an answer from memory that is
    no older than that many seconds.
    """
    if not arguments:
        raise ask.usage_error()
    sensor, *options = arguments
    has_command = bool(options) and "=" not in options[0]
    command = options.pop(0) if has_command else console.gateway.queries.default_command(sensor)
    # An error repeats the request's fields, including those behind the wrong option.
    fields = {name.upper(): value for name, _, value in (option.partition("=") for option in options)}
    fields |= {"MSG": command, "ID": sensor}
    try:
        request = parse_request(_request_fields(command, sensor, options), console.origin, console.client)
        tag = fields.get("TAG")
        console.send_lines(answer_line(await console.gateway.ask(request, console.connection.holder), tag))
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


@word("last [ID [FIELD]]")
async def last(console: Console, arguments: Sequence[str]) -> None:
    """
    Show the newest readings, one per line.
    """
    if len(arguments) > 2:
        raise last.usage_error()
    sensor = arguments[0] if arguments else None
    field = _parse_field(last, arguments[1]) if len(arguments) > 1 else None
    await console.send_data(map(_reading_fields, console.gateway.queries.last(sensor, field)))


@word("history ID [FIELD] [since=1h] [limit=100]")
async def history(console: Console, arguments: Sequence[str]) -> None:
    """
    Show stored readings, newest last.

    since is a duration before now (90s, 30m, 1.5h, 2d, 1w) or a time (2026-01-31T12:00:00Z).
    """
    if not arguments:
        raise history.usage_error()
    sensor, *options = arguments
    if not is_sensor_id(sensor):
        raise history.usage_error(f"not a sensor id: {sensor!r}")
    field = _parse_field(history, options.pop(0)) if options and "=" not in options[0] else None
    since: int | None = None
    limit = HISTORY_DEFAULT
    for name, value in _parse_options(history, options):
        match name.lower():
            case "since":
                try:
                    since = parse_moment(value, console.factory.wall())
                except ValueError:
                    raise history.usage_error(f'since: not a time: "{value}"') from None
            case "limit":
                limit = int(value) if re.fullmatch("[0-9]{1,5}", value) else 0
                if not 0 < limit <= HISTORY_LIMIT:
                    raise history.usage_error(f'limit: expected 1 to {HISTORY_LIMIT}, got "{value}"')
            case _:
                raise history.usage_error(f"unknown option: {name!r}")
    readings = await console.gateway.queries.history(sensor, field, since, limit)
    await console.send_data(map(_reading_fields, readings))


@word("watch [ID ...]", shell=False)
async def watch(console: Console, arguments: Sequence[str]) -> None:
    """
    Subscribe to readings and to changes of the devices' states.

    If sensors are named, send only their readings. Another watch replaces the one before.
    """
    for sensor in arguments:
        if not is_sensor_id(sensor):
            raise watch.usage_error(f"not a sensor id: {sensor!r}")
    console.watch(arguments)


@word("unwatch", shell=False)
async def unwatch(console: Console, arguments: Sequence[str]) -> None:
    """
    End the subscription.
    """
    console.unwatch()


@word("sensors")
async def sensors(console: Console, arguments: Sequence[str]) -> None:
    """
    List the sensors that have sent a report.
    """
    await console.send_data(
        {
            "ID": sensor.sensor,
            "DEV": sensor.device,
            **({"FIELDS": ",".join(sensor.fields)} if sensor.fields else {}),
            "SEEN": format_time(sensor.seen),
            "REPORTS": str(sensor.reports),
            **({"NAME": sensor.name} if sensor.name else {}),
        }
        for sensor in console.gateway.queries.sensors()
    )


@word("devices")
async def devices(console: Console, arguments: Sequence[str]) -> None:
    """
    List the devices, their states and counts.
    """
    await console.send_data(
        {
            "DEV": device.name,
            "PATH": device.path,
            "STATE": device.state,
            "SINCE": format_time(device.since),
            **{count.key: str(count.value) for count in device.counts},
            **({"TEXT": device.warning} if device.warning else {}),
        }
        for device in console.gateway.queries.devices()
    )


@word("lend DEVICE")
async def lend(console: Console, arguments: Sequence[str]) -> None:
    """
    Release a device until this connection ends, so that another program can open its port.
    """
    if len(arguments) != 1:
        raise lend.usage_error()
    lease = await console.gateway.lend(arguments[0], console.client)
    console.keep(lease)
    await console.send_data([{"DEV": lease.device, "PORT": lease.port}])


@word("status")
async def status(console: Console, arguments: Sequence[str]) -> None:
    """
    Show the state of usbgate.
    """
    queries = console.gateway.queries
    await console.send_data(status_fields(queries.status(), queries.totals(), console.factory.counts()))


@word("noise")
async def noise(console: Console, arguments: Sequence[str]) -> None:
    """
    Show the last malformed or damaged lines with their reasons.
    """
    await console.send_data(
        {
            "AT": format_time(line.at),
            "FROM": line.source,
            "REASON": line.reason,
            "TEXT": plain_text(line.line.decode("utf-8", "backslashreplace")),
        }
        for line in console.gateway.queries.malformed_lines()
    )


@word("ping")
async def ping(console: Console, arguments: Sequence[str]) -> None:
    """
    Check that usbgate replies.
    """


@word("help [WORD]", shell=False)
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


@word("quit", shell=False)
async def quit_(console: Console, arguments: Sequence[str]) -> None:
    """
    Close the connection.
    """
    console.send_lines(format_line({"OK": "quit"}))
    console.close()  # nothing can be sent from now on, so this `OK:quit` is the only one


# In the order in which `help` lists them.
WORDS: Mapping[str, Word] = {each.name: each for each in list(globals().values()) if isinstance(each, Word)}


def _parse_options(used: Word, options: Sequence[str]) -> list[tuple[str, str]]:
    parsed = []
    for option in options:
        name, _, value = option.partition("=")
        if not (name and value):
            raise used.usage_error(f"expected KEY=VALUE, got {option!r}")
        parsed.append((name, value))
    return parsed


def _parse_field(used: Word, text: str) -> str:
    if not is_key(text):
        raise used.usage_error(f"not a field: {text!r}")
    return text.upper()


def _reading_fields(reading: Reading) -> Mapping[str, str]:
    number = "" if reading.value is None else format_number(reading.value)
    return {
        "ID": reading.sensor,
        reading.field: reading.text or number,  # a number that is not a plain decimal has its text, too
        **({"MSG": reading.command} if reading.command is not None else {}),
        "AT": format_time(reading.at),
        "DEV": reading.device,
    }
