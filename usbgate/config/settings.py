"""
The settings: what there is to say, and what each may hold.

An option and a key of the file are checked by the same types here. Whatever is wrong is a `ConfigError`: one line
that names the file or the option, the key, and what was expected there.
"""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from importlib.util import find_spec
from math import inf
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, NoReturn, get_args, get_type_hints

import msgspec
from msgspec import Meta, Struct
from twisted.internet.endpoints import clientFromString, serverFromString

from usbgate.core.alarms import Condition
from usbgate.core.errors import Malformed
from usbgate.core.fieldline import RESERVED, check_value, is_key
from usbgate.core.messages import TIMEOUT_RANGE
from usbgate.device.usb import is_usb, parse_usb


class ConfigError(Exception):
    """
    An option, a key or a value is wrong; the text is one line for a person.
    """


class _Spelled:
    """
    Says that a key holds a text, and how it is read.
    """

    def __init__(self, read: Callable[[str], float]) -> None:
        """
        Take a function that raises ValueError where the text is something else.
        """
        self.read = read


_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
_BYTES = {"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}


def _measure(text: str, units: Mapping[str, float], least: float, most: float) -> float:
    spelled = re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]{1,9})?) ?([A-Za-z]+)", text)
    if spelled is None or spelled[2] not in units:
        raise ValueError(text)
    value = float(spelled[1]) * units[spelled[2]]
    if not least <= value <= most:
        raise ValueError(text)
    return value


def _duration(least: str, most: str) -> _Spelled:
    ends = [_measure(text, _SECONDS, 0, inf) for text in (least, most)]
    return _Spelled(lambda text: _measure(text, _SECONDS, *ends))


def _read_size(text: str) -> int:
    return int(_measure(text, _BYTES, 16 << 20, 1 << 40))


def _read_store(text: str) -> float:
    spelled = re.fullmatch(r"on change(?:, *at least every (.+))?", text)
    if spelled is None:
        raise ValueError(text)
    return inf if spelled[1] is None else _measure(spelled[1], _SECONDS, 1, 366 * 86_400)


def _reads_back(text: str) -> bool:
    try:
        check_value("", text)
    except Malformed:
        return False
    return True


def _is_condition(text: str) -> bool:
    try:
        Condition.parse(text)
    except ValueError:
        return False
    return True


def parse_command(text: str) -> tuple[str, dict[str, str]]:
    """
    Read what a button asks, such as `ON` or `L LEVEL=50`.

    Returns:
        The command, and its arguments with their keys in upper case.

    Raises:
        ValueError: It is something else.
    """
    command, *words = text.split()
    arguments = {key.upper(): value for key, equals, value in (word.partition("=") for word in words)}
    right = all(is_key(key) and key not in RESERVED and _reads_back(value) for key, value in arguments.items())
    if not _reads_back(command) or len(arguments) < len(words) or not right:
        raise ValueError(text)
    return command, arguments


def _are_buttons(buttons: Mapping[str, str]) -> bool:
    try:
        return all(label.strip() and parse_command(text) for label, text in buttons.items())
    except ValueError:
        return False


def _is_server_endpoint(text: str) -> bool:
    return _is_endpoint(text, serverFromString)


def _is_place(text: str) -> bool:
    if is_usb(text):
        try:
            parse_usb(text)
        except ValueError:
            return False
        return True
    return text.startswith(("/", ".")) or _is_endpoint(text, clientFromString)


def _is_endpoint(text: str, from_string: Any) -> bool:
    kind, colon, rest = text.partition(":")
    if not colon or not rest or not re.fullmatch("[A-Za-z][A-Za-z0-9]*", kind):
        return False
    if kind in ("tcp", "unix"):
        # Twisted parses these two without touching the reactor; other kinds may open files or load plug-ins.
        try:
            from_string(object(), text)
        except (ValueError, TypeError):
            return False
    return True


def _is_dialect(name: str) -> bool:
    try:
        return find_spec(name if "." in name else f"usbgate.device.dialects.{name}") is not None
    except (ImportError, ValueError):
        return False


def _is_database(text: str) -> bool:
    return text in ("embedded", "none") or text.startswith(("postgresql://", "postgres://")) or "=" in text


# What each key may hold. The description is what an error says was expected; the function tells what a range or
# a pattern can't.
Text = Annotated[str, Meta(description="a non-empty text without `_KEY:`"), _reads_back]
Folder = Annotated[str, Meta(min_length=1, description="a folder")]
Place = Annotated[
    str,
    Meta(
        description="a path that starts with / or ., a USB device such as usb:2341:8036[:SERIAL] or usb-port:1-1.3,"
        " or a Twisted client endpoint such as tcp:host:port"
    ),
    _is_place,
]
Listen = Annotated[
    str, Meta(description="a Twisted server endpoint such as tcp:50007:interface=127.0.0.1"), _is_server_endpoint
]
Database = Annotated[str, Meta(description='"embedded", "none" or "postgresql://user@host/database"'), _is_database]
_Dialect = Annotated[str, Meta(description='the name of a dialect such as "fields"'), _is_dialect]
_Count = Annotated[int, Meta(gt=0, description="an integer above 0")]
_Window = Annotated[int, Meta(ge=1, le=64, description="an integer from 1 to 64")]
_Settle = Annotated[float, Meta(ge=0, le=60, description="seconds from 0 to 60")]
_Wait = Annotated[
    float,
    Meta(ge=TIMEOUT_RANGE[0], le=TIMEOUT_RANGE[1], description="seconds from {:g} to {:g}".format(*TIMEOUT_RANGE)),
]
_Silence = Annotated[float, Meta(ge=1, le=604_800, description="seconds from 1 to 604800")]
_Reset = Annotated[
    str,
    Meta(description='"never", "open" or "silent"'),
    lambda text: text in ("never", "open", "silent"),
]
_Repeats = Annotated[float, Meta(description='a time from 1ms to 60s such as "200ms"'), _duration("1ms", "60s")]
_Durability = Annotated[float, Meta(description='a time from 50ms to 60s such as "5s"'), _duration("50ms", "60s")]
_Size = Annotated[int, Meta(description='a size from 16MiB to 1TiB such as "1GiB"'), _Spelled(_read_size)]
_Store = Annotated[
    float,
    Meta(description='"on change", or "on change, at least every 5m" with a time from 1s to 366d'),
    _Spelled(_read_store),
]
_Stale = Annotated[float, Meta(description='a time from 1s to 366d such as "1h"'), _duration("1s", "366d")]
_Buttons = Annotated[
    dict[str, str],
    Meta(description='commands by label such as { "Lamp on" = "ON", "Half" = "L LEVEL=50" }'),
    _are_buttons,
]
_Decimals = Annotated[int, Meta(ge=0, le=9, description="an integer from 0 to 9")]
_Condition = Annotated[str, Meta(description='a condition such as "> 60", "== 1" or "!= OK"'), _is_condition]
_YesNo = Annotated[bool, Meta(description="true or false")]
_Fields = Annotated[
    tuple[str, ...],
    Meta(description='names of fields such as ["TEMP", "HUM"]'),
    lambda names: all(map(is_key, names)),
]
Listens = Annotated[
    tuple[Listen, ...], Meta(min_length=1, description='a list such as ["tcp:50007:interface=127.0.0.1"]')
]
HttpListen = Annotated[
    str,
    Meta(description='"none" or a Twisted server endpoint such as tcp:8080:interface=127.0.0.1'),
    lambda text: text == "none" or _is_server_endpoint(text),
]
_Hosts = Annotated[
    tuple[str, ...],
    Meta(description='names of hosts such as ["house.example"]'),
    lambda names: all(re.fullmatch("[A-Za-z0-9.-]+", name) for name in names),
]
_BasePath = Annotated[
    str,
    Meta(description='a path such as "/usbgate"'),
    lambda text: bool(re.fullmatch("(?:/[A-Za-z0-9._~-]+)*", text)),
]

_DEVICE_NAME = re.compile("[A-Za-z0-9.:-]+")
DeviceName = Annotated[
    str, Meta(description="letters, digits, dot, colon and hyphen"), lambda text: bool(_DEVICE_NAME.fullmatch(text))
]


class DeviceSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """
    A serial line: `[device.NAME]`.

    Attributes:
        path: An absolute path, a USB device (`usbgate.device.usb`), or a Twisted client endpoint string.
        baud: Speed of the line; means nothing for an endpoint string.
        dialect: How it spells things: a module of `usbgate.device.dialects`, or a dotted name.
        window: How many messages may be on the wire at a time.
        tags: Whether the device echoes a `TAG`.
        settle: Seconds to wait after opening; a board that resets then wants 2.
        patience: Seconds to wait for an answer before asking again; None leaves it to protocol §4.
        silence: Seconds without a line after which it is silent; None for never.
        reset: When the board is reset by DTR: `never`, at `open` as the system does, or when it is `silent`, too.
        repeats: Seconds in which an identical line again is only counted; None to take each as it comes.
    """

    path: Place
    baud: _Count = 9600
    dialect: _Dialect = "fields"
    window: _Window = 4
    tags: _YesNo = False
    settle: _Settle = 0.0
    patience: _Wait | None = None
    silence: _Silence | None = None
    reset: _Reset = "open"
    repeats: _Repeats | None = None


class FieldSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """
    What is known of a measurement beforehand: `[sensor.ID.field.NAME]`.

    Attributes:
        unit: What a person reads behind the number.
        decimals: To how many places a person is shown it; None for as it came.
        alarm: The condition for an alarm (`usbgate.core.alarms.Condition`).
    """

    unit: Text | None = None
    decimals: _Decimals | None = None
    alarm: _Condition | None = None


class SensorSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """
    What is known of a sensor beforehand: `[sensor.ID]`.

    Attributes:
        name: What a person calls it.
        place: Where it is, for people.
        stale: Seconds after which its newest reading is old news; None for the usual time.
        commands: What a person can have it do: commands, with `KEY=VALUE` arguments, by label.
        fields: Its measurements, by name in upper case.
        device: The link that serves it, by name.
        default_command: What `ask` means where no command is given.
        timeout: Seconds until an asker gives up.
        patience: Seconds to wait for an answer before asking again.
        store: Seconds after which an unchanged reading is stored, too, infinity for never; None stores every one.
    """

    name: Text | None = None
    place: Text | None = None
    device: DeviceName | None = None
    default_command: Text | None = None
    timeout: _Wait | None = None
    patience: _Wait | None = None
    store: _Store | None = None
    stale: _Stale | None = None
    commands: _Buttons = {}
    fields: dict[str, FieldSettings] = {}


class CommandSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """
    What is known of a command beforehand: `[command.NAME]`.

    Attributes:
        coalesce: Whether the same question may be asked once for several askers; not for a toggle.
        fields: Only a report with one of these, in upper case, can answer it; empty for any.
    """

    coalesce: _YesNo = True
    fields: _Fields = ()


class HttpSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """
    Where browsers connect: `http = "…"`, or `[http]`.

    Attributes:
        listen: A Twisted server endpoint string, or `none`.
        hosts: Names of hosts by which browsers may call us, beside addresses and the machine's own name.
        base_path: What a proxy leaves before our paths.
    """

    listen: HttpListen = "tcp:8080:interface=127.0.0.1"
    hosts: _Hosts = ()
    base_path: _BasePath = ""


class Settings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """
    All settings of a daemon.

    Attributes:
        state: The folder for what must outlive the daemon, absolute.
        database: `embedded`, `none`, or what libpq takes.
        gateway: The name under which this daemon stores.
        listen: Twisted server endpoint strings for clients.
        http: Where browsers connect.
        http_asked_for: Whether somebody said where; what is only the default may be taken by another program.
        default_command: What `ask` means where no command is given.
        max_connections: How many clients may be connected at a time.
        durability: Seconds that readings may wait for one commit to disk.
        journal_limit: Bytes that the journal may hold; beyond, the oldest are dropped.
        devices: By name, in the order of the configuration; empty where none was named.
        sensors: By id.
        commands: By name.
        file: Where this was read from, absolute.
    """

    state: Path
    database: Database = "embedded"
    gateway: Text = msgspec.field(default_factory=socket.gethostname)
    # Of Twisted's own backlog, 50, a burst of 1,500 connections took 28 s: whom the kernel has no room for comes again
    # after 1 s, then 2, 4, … With 511 it took 1.5 s.
    listen: Listens = ("tcp:50007:interface=127.0.0.1:backlog=511",)
    http: HttpSettings = HttpSettings()
    http_asked_for: bool = False
    default_command: Text = "J"
    max_connections: _Count = 1000
    durability: _Durability = 0.05
    journal_limit: _Size = 1 << 30
    devices: dict[str, DeviceSettings] = {}
    sensors: dict[str, SensorSettings] = {}
    commands: dict[str, CommandSettings] = {}
    file: Path | None = None


def _keys(struct: type[Struct], *left_out: str) -> dict[str, Any]:
    hints = get_type_hints(struct, include_extras=True)
    return {key: hint for key, hint in hints.items() if key not in left_out}


# Keys by table; `device`, `sensor` and `command` stand for the tables of tables.
TOP_KEYS = {**_keys(Settings, "devices", "sensors", "commands", "file", "http", "http_asked_for"), "state": Folder}
TABLES = ("device", "sensor", "command")
DEVICE_KEYS, SENSOR_KEYS, FIELD_KEYS = _keys(DeviceSettings), _keys(SensorSettings, "fields"), _keys(FieldSettings)
COMMAND_KEYS, HTTP_KEYS = _keys(CommandSettings), _keys(HttpSettings)
SPEC_KEYS = {**_keys(DeviceSettings, "path"), "name": DeviceName}


def decode(where: str, table: Mapping[str, Any], hints: Mapping[str, Any], also: Sequence[str] = ()) -> dict[str, Any]:
    """
    Check a table of the file, key by key.

    Args:
        where: What an error begins with; the key follows.
        table: What the file says.
        hints: What each key may hold.
        also: Keys that are known, too, for the suggestion where one is not.

    Raises:
        ConfigError: A key is not known, or its value is wrong.
    """
    for key in table:
        if key not in hints:
            near = get_close_matches(key, [*hints, *also], 1)
            remedy = f"did you mean {near[0]}?" if near else "expected one of " + ", ".join([*hints, *also])
            raise ConfigError(f"{where}{key}: unknown key, {remedy}")
    return {key: convert(where + key, value, hints[key]) for key, value in table.items()}


def convert(where: str, value: object, hint: Any, *, strict: bool = True) -> Any:
    """
    Check one value. One at a time, so that an error knows its key: msgspec's own path has `[...]` for it.

    Args:
        where: What an error begins with.
        value: What was said.
        hint: What it may be: one of the types above.
        strict: Whether a number must be a number; False where all there can be is text.

    Raises:
        ConfigError: It is something else.
    """
    if NoneType in get_args(hint):
        hint = get_args(hint)[0]
    for spelled in hint.__metadata__:
        if isinstance(spelled, _Spelled):
            try:
                return spelled.read(value) if isinstance(value, str) else refuse(where, expected(hint), value)
            except ValueError:
                refuse(where, expected(hint), value)
    try:
        converted = msgspec.convert(value, hint, strict=strict)
    except msgspec.ValidationError:
        refuse(where, expected(hint), value)
    if not all(check(converted) for check in hint.__metadata__ if not isinstance(check, Meta)):
        refuse(where, expected(hint), value)
    if hint is Listens:
        for text in converted:
            convert(where, text, Listen)
    return converted


def expected(hint: Any) -> str:
    """
    Say what one of the types above holds.
    """
    return next(str(meta.description) for meta in hint.__metadata__ if isinstance(meta, Meta))


def refuse(where: str, expectation: str, value: object) -> NoReturn:
    """
    Say that a value is wrong.

    Raises:
        ConfigError: Always.
    """
    got = json.dumps(value, ensure_ascii=False, default=str)
    # A misspelled database URL may hold a password.
    got = re.sub(r"(//[^:@/]*):[^@]*@", r"\1:…@", got)
    raise ConfigError(f"{where}: expected {expectation}, got {got if len(got) <= 80 else got[:79] + '…'}")
