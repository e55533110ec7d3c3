"""
What people say on telnet and netcat (protocol §3): one function a word, whose docstring is its help.

A word tells its data lines itself; `answer` adds the last line, `OK:` or `ERROR:`. A function may return that last
line, if it has more to say in it.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from functools import cache
from inspect import cleandoc
from typing import TypeVar

from twisted.internet.defer import Deferred
from zope.interface import Attribute, Interface

from usbgate.core.errors import Malformed, RequestError, Unknown
from usbgate.core.fieldline import (
    format_line,
    format_number,
    format_time,
    is_key,
    is_sensor_id,
    join_fields,
    plain_text,
    reads_back,
)
from usbgate.core.messages import answer_line, error_line, parse_request
from usbgate.core.model import Reading
from usbgate.core.status import JournalStatus, StoreStatus
from usbgate.core.units import parse_moment
from usbgate.gateway.interfaces import IGateway, Lease, Status, Totals

HISTORY_DEFAULT = 100  # readings, protocol §3
HISTORY_LIMIT = 10_000  # readings: they are in memory until they are sent, some MB for each client that asks

# Lines that are told before the reactor, and a slow client, get their turn: below a millisecond's work.
_LINES_A_TURN = 100

UNSURE_PER_LINE = 50  # sensors named in one line of `status`

_Item = TypeVar("_Item")


class ICaller(Interface):
    """
    Who said a word.
    """

    gateway: IGateway = Attribute("Whom to ask.")
    origin: str = Attribute("`ORIGIN` where none is given.")
    client: str = Attribute("The peer, for the record.")

    def wall() -> int:
        """
        Tell the wall clock: whole milliseconds since 1970, UTC.
        """

    def tell(*lines: str) -> None:
        """
        Send lines; does nothing when the caller is gone.
        """

    def room() -> Deferred[bool]:
        """
        Wait for a reactor turn, and until the caller took most of what it was told.

        Returns:
            Fires with whether the caller is still there; never fails.
        """

    def watch(sensors: Collection[str]) -> None:
        """
        Send every event from now on, instead of what was watched before.

        Args:
            sensors: Readings of these sensors only; of all, if empty.
        """

    def unwatch() -> None:
        """
        Send no more events.
        """

    def counts() -> Mapping[str, str]:
        """
        Tell what the face itself knows for `status`, as fields.
        """

    def borrow(lease: Lease) -> None:
        """
        Keep a lease until the caller hangs up, and end it then; at once, if that has happened.
        """

    def leave() -> None:
        """
        Close the connection when the word is answered.
        """


Word = Callable[[ICaller, Sequence[str]], Awaitable[str | None]]


async def answer(caller: ICaller, line: str) -> None:
    """
    Answer one word line: its data lines, and exactly one line with `OK:` or `ERROR:`.

    Where something inside goes wrong it raises that, and the last line is the caller's to tell.

    Args:
        caller: Who said it.
        line: What was said; not blank.
    """
    name, *arguments = line.split()
    name = name.lower()
    try:
        last_line = await _find(name)(caller, arguments)
    except RequestError as error:
        last_line = error_line(error, {})
    caller.tell(last_line or format_line({"OK": name}))


async def ask(caller: ICaller, arguments: Sequence[str]) -> str | None:
    """
    Ask a sensor and wait for its answer.

    Usage: ask ID [COMMAND] [KEY=VALUE ...] [timeout=S] [max_age=S] [origin=WHO] [dev=DEVICE] [tag=MARK]

    The default command reads the sensor. With max_age, an answer that is no older than so many seconds will do.
    """
    if not arguments:
        raise _misused(ask)
    sensor, *others = arguments
    command = others.pop(0) if others and "=" not in others[0] else caller.gateway.queries.default_command(sensor)
    # What is told of a request that is refused: its options are read before the first of them is judged.
    told = {name.upper(): value for name, _, value in (argument.partition("=") for argument in others)}
    told |= {"MSG": command, "ID": sensor}
    try:
        request = parse_request(_ask_fields(command, sensor, others), caller.origin, caller.client)
        tag = told.get("TAG")
        caller.tell(answer_line(await caller.gateway.ask(request), tag))
    except RequestError as error:
        return error_line(error, told)
    return format_line({"OK": "ask", "TAG": tag}) if tag else None


def _ask_fields(command: str, sensor: str, options: Sequence[str]) -> dict[str, str]:
    fields = {"MSG": command, "ID": sensor}
    for name, value in _options(ask, options):
        if name.lower() == "max_age":
            key = "MAXAGE"
        elif is_key(name):  # before it is upper case: that makes ASCII of some letters that are not
            key = name.upper()
        else:
            raise _misused(ask, f"{name!r} can't be a key")
        if key in fields:
            raise _misused(ask, f"{name} is given twice")
        fields[key] = value
    return fields


async def last(caller: ICaller, arguments: Sequence[str]) -> str | None:
    """
    Tell the newest readings, one a line.

    Usage: last [ID [FIELD]]
    """
    if len(arguments) > 2:
        raise _misused(last)
    sensor = arguments[0] if arguments else None
    field = _field(last, arguments[1]) if len(arguments) > 1 else None
    return await _tell_all(caller, caller.gateway.queries.last(sensor, field), _reading_fields)


async def history(caller: ICaller, arguments: Sequence[str]) -> str | None:
    """
    Tell stored readings, newest last.

    Usage: history ID [FIELD] [since=1h] [limit=100]

    since is a duration before now (90s, 30m, 1.5h, 2d, 1w) or a time (2026-01-31T12:00:00Z).
    """
    if not arguments:
        raise _misused(history)
    sensor, *others = arguments
    if not is_sensor_id(sensor):
        raise _misused(history, f"{sensor!r} is no sensor id")
    field = _field(history, others.pop(0)) if others and "=" not in others[0] else None
    since: int | None = None
    limit = HISTORY_DEFAULT
    for option, value in _options(history, others):
        name = option.lower()
        if name == "since":
            try:
                since = parse_moment(value, caller.wall())
            except ValueError:
                raise _misused(history, f'since: not a time: "{value}"') from None
        elif name == "limit":
            limit = int(value) if re.fullmatch("[0-9]{1,5}", value) else 0
            if not 0 < limit <= HISTORY_LIMIT:
                raise _misused(history, f"limit is 1 to {HISTORY_LIMIT}")
        else:
            raise _misused(history, f"no such option as {name!r}")
    readings = await caller.gateway.queries.history(sensor, field, since, limit)
    return await _tell_all(caller, readings, _reading_fields)


async def watch(caller: ICaller, arguments: Sequence[str]) -> str | None:
    """
    Tell every reading from now on, and when a device comes or goes.

    Usage: watch [ID ...]

    Only readings of these sensors, if any are named; another watch takes the place of the one before.
    """
    for sensor in arguments:
        if not is_sensor_id(sensor):
            raise _misused(watch, f"{sensor!r} is no sensor id")
    caller.watch(arguments)
    return None


async def unwatch(caller: ICaller, arguments: Sequence[str]) -> str | None:
    """
    End what watch began.

    Usage: unwatch
    """
    _no_arguments(unwatch, arguments)
    caller.unwatch()
    return None


async def sensors(caller: ICaller, arguments: Sequence[str]) -> str | None:
    """
    List the known sensors.

    Usage: sensors
    """
    _no_arguments(sensors, arguments)
    return await _tell_all(
        caller,
        caller.gateway.queries.sensors(),
        lambda known: {
            "ID": known.sensor,
            "DEV": known.device,
            **({"FIELDS": ",".join(known.fields)} if known.fields else {}),
            "SEEN": format_time(known.seen),
            "REPORTS": str(known.reports),
            **({"NAME": known.name} if known.name else {}),
        },
    )


async def devices(caller: ICaller, arguments: Sequence[str]) -> str | None:
    """
    List the devices: where they are, their state and since when, and what they said.

    Usage: devices
    """
    _no_arguments(devices, arguments)
    return await _tell_all(
        caller,
        caller.gateway.queries.devices(),
        lambda device: {
            "DEV": device.name,
            "PATH": device.path,
            "STATE": device.state,
            "SINCE": format_time(device.since),
            **{count.key: str(count.value) for count in device.counts},
            **({"TEXT": device.warning} if device.warning else {}),
        },
    )


async def lend(caller: ICaller, arguments: Sequence[str]) -> str | None:
    """
    Let go of a device, so that another program can open its port, for as long as this connection lasts.

    Usage: lend DEVICE
    """
    if len(arguments) != 1:
        raise _misused(lend)
    lease = await caller.gateway.lend(arguments[0], caller.client)
    caller.borrow(lease)
    return await _tell_all(caller, [{"DEV": lease.device, "PORT": lease.port}], dict)


async def status(caller: ICaller, arguments: Sequence[str]) -> str | None:
    """
    Tell how usbgate is.

    Usage: status
    """
    _no_arguments(status, arguments)
    queries = caller.gateway.queries
    return await _tell_all(caller, [*_status_lines(queries.status(), queries.totals()), caller.counts()], dict)


async def noise(caller: ICaller, arguments: Sequence[str]) -> str | None:
    """
    Tell the last malformed lines and why they are, newest last.

    Usage: noise
    """
    _no_arguments(noise, arguments)
    return await _tell_all(
        caller,
        caller.gateway.queries.malformed_lines(),
        lambda line: {
            "AT": format_time(line.at),
            "FROM": line.source,
            "REASON": line.reason,
            "TEXT": plain_text(line.line.decode("utf-8", "backslashreplace")),
        },
    )


async def ping(caller: ICaller, arguments: Sequence[str]) -> str | None:
    """
    Say that usbgate is there.

    Usage: ping
    """
    _no_arguments(ping, arguments)
    return None


async def help_(caller: ICaller, arguments: Sequence[str]) -> str | None:
    """
    Tell what can be said here.

    Usage: help [WORD]
    """
    if len(arguments) > 1:
        raise _misused(help_)
    if arguments:
        usage, *texts = _explain(_find(arguments[0].lower()))
        return await _tell_all(caller, [{"USAGE": usage}, *[{"TEXT": text} for text in texts]], dict)
    explained = [_explain(word) for word in WORDS.values()]
    return await _tell_all(caller, [{"USAGE": usage, "TEXT": text} for usage, text, *_ in explained], dict)


async def quit_(caller: ICaller, arguments: Sequence[str]) -> str | None:
    """
    Close the connection.

    Usage: quit
    """
    _no_arguments(quit_, arguments)
    caller.leave()
    return None


WORDS: Mapping[str, Word] = {
    word.__name__.rstrip("_"): word
    for word in (ask, last, history, watch, unwatch, sensors, devices, lend, status, noise, ping, help_, quit_)
}


def _find(name: str) -> Word:
    if name not in WORDS:
        raise Unknown(f"there is no word {name[:40]!r}; say help")
    return WORDS[name]


@cache
def _explain(word: Word) -> list[str]:
    """
    Read a word's docstring: its usage, and then its paragraphs.
    """
    summary, usage, *texts = [" ".join(part.split()) for part in cleandoc(word.__doc__ or "").split("\n\n")]
    return [usage.removeprefix("Usage: "), summary, *texts]


def _misused(word: Word, why: str = "") -> Malformed:
    # `TEXT` has no `_` (protocol §1), so an option is named here as it can be said, too, without one.
    return Malformed(why or "wrong arguments", "usage: " + _explain(word)[0].replace("max_age", "maxage"))


def _no_arguments(word: Word, arguments: Sequence[str]) -> None:
    if arguments:
        raise _misused(word)


def _options(word: Word, arguments: Sequence[str]) -> list[tuple[str, str]]:
    options = []
    for argument in arguments:
        name, equals, value = argument.partition("=")
        if not (name and equals and value):
            raise _misused(word, f"{argument!r} is not KEY=VALUE")
        options.append((name, value))
    return options


def _field(word: Word, text: str) -> str:
    if not is_key(text):
        raise _misused(word, f"{text!r} is no field")
    return text.upper()


def _reading_fields(reading: Reading) -> dict[str, str]:
    # A number that was spelled with more digits than a double holds has its text beside it.
    number = "" if reading.value is None else format_number(reading.value)
    return {
        "ID": reading.sensor,
        reading.field: reading.text or number,
        **({"MSG": reading.command} if reading.command is not None else {}),
        "AT": format_time(reading.at),
        "DEV": reading.device,
    }


def _status_lines(status: Status, totals: Totals) -> list[Mapping[str, str]]:
    lines: list[Mapping[str, str]] = [
        {
            "VERSION": status.version,
            "UPTIME": f"{status.uptime:.0f}",
            "CLOCK": "trusted" if status.clock_trusted else "untrusted",
            "SENSORS": str(status.sensors),
            "INFLIGHT": str(status.in_flight),
        },
        _store_line(status.store),
    ]
    if status.journal is not None:
        lines.append(_journal_line(status.journal))
    lines.extend({"REQUESTS": str(count), "OUTCOME": name} for name, count in totals.outcomes.items())
    lines.extend({"MALFORMED": str(count), "REASON": name} for name, count in totals.malformed.items())
    for device, unsure in status.unsure.items():
        for start in range(0, len(unsure), UNSURE_PER_LINE):
            shown = unsure[start : start + UNSURE_PER_LINE]
            lines.append(
                {
                    "DEV": device,
                    "UNSURE": str(len(shown)),
                    "SENSORS": ",".join(shown),
                    "TEXT": "they answer with neither MSG nor TAG: an unasked reading can pass for an answer",
                }
            )
    return lines


def _store_line(store: StoreStatus) -> Mapping[str, str]:
    fields = {"STORE": store.state}
    if store.gateway is not None:
        fields |= {"GW": store.gateway, "BACKLOG": str(store.backlog), "REJECTED": str(store.rejected)}
    if store.oldest is not None:
        fields["OLDEST"] = format_time(store.oldest)
    if store.trouble is not None:
        fields["TEXT"] = plain_text(store.trouble)
    return fields


def _journal_line(journal: JournalStatus) -> Mapping[str, str]:
    fields = {
        "JOURNAL": "ok" if journal.trouble is None else "trouble",
        "COMMITS": str(journal.commits),
        "SLOWEST": f"{journal.slowest_commit:.4f}",
    }
    if journal.written is not None and journal.daily is not None:
        fields |= {"WRITTEN": str(journal.written), "DAILY": str(journal.daily)}
    if journal.lost:
        fields["LOST"] = str(journal.lost)
    if journal.trouble is not None:
        fields["TEXT"] = plain_text(journal.trouble)
    return fields


def _spell(fields: Mapping[str, str]) -> str:
    """
    Write a data line; a value that would not read back is made so.
    """
    return join_fields({key: value if reads_back(value) else plain_text(value) for key, value in fields.items()})


async def _tell_all(
    caller: ICaller, items: Sequence[_Item], fields: Callable[[_Item], Mapping[str, str]]
) -> str | None:
    """
    Tell a line for each item, a few a turn.
    """
    for start in range(0, len(items), _LINES_A_TURN):
        if start and not await caller.room():
            break
        caller.tell(*[_spell(fields(item)) for item in items[start : start + _LINES_A_TURN]])
    return None
