"""
The words of the line protocol (protocol §3), one function each: those that do something; the others are in `queries`.

To add one, write an `async def` under `@word(…)`, and list it in `WORDS`: its docstring is its help, the usage says
which arguments it takes. It sends its data lines by `console.send_data`, and raises a `RequestError` if it fails;
`answer` sends the closing line.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from usbgate.access.roles import Role
from usbgate.core.errors import Denied, LimitExceeded, RequestError, Unknown
from usbgate.core.fieldline import format_line, is_key
from usbgate.core.messages import alarm_fields, answer_line, error_line, parse_request
from usbgate.server import queries
from usbgate.server.arguments import check_sensor, parse_options, take_flag
from usbgate.server.datalines import (
    held_fields,
    replacement_fields,
)
from usbgate.server.words import Word, word

if TYPE_CHECKING:
    from usbgate.server.console import Console


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
    for name, value in parse_options(ask, options):
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


@word("replace OLD [NEW] [undo=yes]")
async def replace(console: Console, arguments: Sequence[str]) -> None:
    """
    Let a sensor keep its id, name and history though it reports with a new id, as after a new battery.

    From now on, what NEW reports is OLD, and questions for OLD go to NEW. undo=yes takes the last replacement back.
    """
    undo, sensors = take_flag(replace, arguments, "undo")
    if len(sensors) != (1 if undo else 2):
        raise replace.usage_error()
    for sensor in sensors:
        check_sensor(replace, sensor)
    gateway, who = console.gateway, console.peer.access.who or console.peer.origin
    made = await (gateway.undo_replacement(sensors[0], who) if undo else gateway.replace(*sensors, who))
    command = "replace undo" if undo else "replace"
    console.record(command, device=made.device, ID=made.sensor, SUCCESSOR=made.successor)
    await console.send_data([replacement_fields(made, "undone" if undo else "replaced")])


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
    # Never within what has answered the word before this one: it may be the opening of the same device, which cannot be
    # closed before that is done.
    if not await console.turn_came():
        return
    lease = await console.gateway.lend(arguments[0], console.peer.name)
    console.record("lend", device=lease.device)
    console.keep(lease)
    await console.send_data([{"DEV": lease.device, "PORT": lease.port}])


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
WORDS: Mapping[str, Word] = {
    each.name: each
    for each in (
        ask,
        queries.last,
        queries.history,
        queries.watch,
        queries.unwatch,
        queries.sensors,
        queries.devices,
        queries.alarms,
        acknowledge,
        queries.rules,
        queries.replacements,
        replace,
        queries.requests,
        queries.held,
        cancel,
        lend,
        queries.status,
        queries.malformed,
        auth,
        ping,
        help_,
        quit_,
    )
}
ALIASES: Mapping[str, str] = {each.alias: each.name for each in WORDS.values() if each.alias is not None}
