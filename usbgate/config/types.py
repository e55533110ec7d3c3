"""
The types of settings, and how values of the file and of options are parsed by them.

The types of the settings that leave this package are in `usbgate.core.kinds`. Whatever is wrong is a `ConfigError`: one
line that names the file or the option, the key, and what was expected there.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from pwd import getpwnam
from typing import Annotated, Any, Literal, NamedTuple, NoReturn, get_args, get_origin, get_type_hints

import msgspec
from msgspec import Meta

from usbgate.access.doors import LOCAL, Door
from usbgate.access.roles import ROLES, Role
from usbgate.config.endpoints import parse_client, parse_host, parse_port, parse_server
from usbgate.core.connstring import check_url, is_url
from usbgate.core.endpointstring import split_endpoint
from usbgate.core.errors import Malformed
from usbgate.core.fieldline import is_sensor_id
from usbgate.core.fieldnames import read_name
from usbgate.core.kinds import PATH, Kind, duration, kind_of, matching
from usbgate.core.units import parse_size
from usbgate.device.usb import is_usb, parse_usb
from usbgate.rules.language import LanguageError


class ConfigError(Exception):
    """
    An option, a key or a value is wrong; the text is one line for a person.
    """


def keys(settings: type) -> dict[str, Kind]:
    """
    Return the keys of a table: those attributes of a class of settings that are annotated with a kind. One that is a
    word of Python ends in `_`, its key does not.
    """
    found: dict[str, Kind] = {}
    for key, hint in get_type_hints(settings, include_extras=True).items():
        for each in (hint, *get_args(hint)):  # `Wait`, and `Wait | None`
            if get_origin(each) is Annotated:
                found[key.removesuffix("_")] = kind_of(each)
    return found


def decode(where: str, table: Mapping[str, Any], kinds: Mapping[str, Kind], also: Sequence[str] = ()) -> dict[str, Any]:
    """
    Parse a table of the file, key by key.

    Args:
        where: What an error begins with; the key follows.
        table: What the file has.
        kinds: The known keys.
        also: Other keys that an error may suggest.

    Raises:
        ConfigError: A key is not known, or its value is wrong.
    """
    for key in table:
        if key not in kinds:
            near = get_close_matches(key, [*kinds, *also], 1)
            remedy = f"did you mean {near[0]}?" if near else "expected one of " + ", ".join([*kinds, *also])
            raise ConfigError(f"{where}{key}: unknown key, {remedy}")
    return {key: convert(where + key, value, kinds[key]) for key, value in table.items()}


def convert(where: str, value: object, kind: Kind, *, strict: bool = True) -> Any:
    """
    Parse one value. One at a time, so that an error can name its key: msgspec's own errors say `[...]` for it.

    Args:
        where: What an error begins with.
        value: What the file or the option has.
        kind: What it must be.
        strict: Whether a number must be a number; False for an option, which is always text.

    Raises:
        ConfigError: It is something else.
    """
    try:
        held = msgspec.convert(value, kind.holds, strict=strict)
        if kind.items is not None:
            held = tuple(convert(where, item, kind.items, strict=strict) for item in held)
        return kind.parse(held)
    except LanguageError as error:
        raise ConfigError(f"{where}, {error}") from None
    except (ValueError, Malformed) as error:  # msgspec's ValidationError is a ValueError
        if kind.secret and isinstance(value, str):
            raise ConfigError(f"{where}: expected {kind.expected}, got {error}") from None
        if near := get_close_matches(str(value), kind.names, 1):
            raise ConfigError(f"{where}: {value}: unknown name, did you mean {near[0]}?") from None
        refuse(where, kind.expected, value)


def refuse(where: str, expected: str, value: object) -> NoReturn:
    """
    Report a wrong value.

    Raises:
        ConfigError: Always.
    """
    got = json.dumps(value, ensure_ascii=False, default=str)
    raise ConfigError(f"{where}: expected {expected}, got {got if len(got) <= 80 else got[:79] + '…'}")


def _parse_database(text: str) -> str:
    # Errors show nothing of the text, which may hold a password.
    if is_url(text):
        check_url(text)
    elif text not in ("embedded", "none") and "=" not in text:
        raise ValueError("something else")
    return text


def _parse_url(text: str) -> str:
    if text in ("embedded", "none"):
        raise ValueError(f'"{text}"')
    return _parse_database(text)


def _parse_schema(name: str) -> str:
    # PostgreSQL cuts longer names off. Without the others, a name needs no care but quotes: % is psycopg2's, a dot
    # qualifies a name, and the body of a function stands between $$.
    if not 1 <= len(name.encode()) <= 63 or not name.isprintable() or set(name) & set('".%$'):
        raise ValueError(f"not a name: {name!r}")
    if name.startswith("pg_") or name == "information_schema":
        raise ValueError(f"PostgreSQL's own: {name!r}")
    return name


def _parse_view(text: str) -> tuple[str, str] | None:
    if text == "none":
        return None
    schema, _, name = text.partition(".")
    return _parse_schema(schema), _parse_schema(name)


def _parse_fields(names: Sequence[str]) -> frozenset[str]:
    fields = frozenset(map(read_name, names))
    if "" in fields:
        raise ValueError(f"not all are names of fields: {names!r}")
    return fields


class ListenAddress(NamedTuple):
    """
    Where usbgate listens: a Twisted server endpoint string, or `none`; and what clients may do there without a token.
    """

    endpoint: str
    door: Door = LOCAL


class _ListenTable(msgspec.Struct, forbid_unknown_fields=True):
    endpoint: str
    role: Literal["read", "ask", "command", "admin"] | None = None
    proxied: bool = False
    insecure: bool = False


def _parse_listen(held: str | _ListenTable) -> ListenAddress:
    if isinstance(held, str):
        return ListenAddress(parse_server(held))
    role = None if held.role is None else ROLES[held.role]
    return ListenAddress(parse_server(held.endpoint), Door(role, held.proxied, held.insecure))


def _parse_http_listen(held: str | _ListenTable) -> ListenAddress:
    return ListenAddress("none") if held == "none" else _parse_listen(held)


def _parse_networks(texts: Sequence[str]) -> tuple[IPv4Network | IPv6Network, ...]:
    return tuple(map(ip_network, texts))


def _parse_users(users: Sequence[str | int]) -> frozenset[int]:
    return frozenset(each if isinstance(each, int) else _user_number(each) for each in users)


def _user_number(name: str) -> int:
    try:
        return getpwnam(name).pw_uid
    except KeyError:
        raise ValueError(f"no such user: {name}") from None


def _parse_sensors(names: Sequence[str]) -> frozenset[str]:
    if not all(map(is_sensor_id, names)):
        raise ValueError(f"not all are sensor ids: {names!r}")
    return frozenset(names)


def _parse_place(text: str) -> str:
    if is_usb(text):
        parse_usb(text)
    elif not text.startswith(("/", ".")):
        parse_client(text)
    if "\0" in text:
        raise ValueError(f"not a path: {text!r}")
    return text


def _parse_broker(text: str) -> str:
    (kind, *arguments), options = split_endpoint(parse_client(text))
    if kind == "tls":
        if len(arguments) != 2 or options:
            raise ValueError(f"not a host and a port: {text!r}")
        parse_host(arguments[0])
        parse_port(arguments[1])
    elif kind not in ("tcp", "unix"):
        raise ValueError(f"not an endpoint of a broker: {text!r}")
    return text


def _or_auto(kind: Kind) -> Kind:
    # The kind of a setting that can also go by the board; its value is None then.
    return Kind(
        f'"auto" or {kind.expected}',
        Literal["auto"] | kind.holds,
        lambda held: None if held == "auto" else kind.parse(held),
    )


def _size(least: str, most: str, example: str) -> Kind:
    # The kind of a size between two others; its value is in bytes.
    def parse(text: str) -> int:
        size = parse_size(text)
        if not parse_size(least) <= size <= parse_size(most):
            raise ValueError(f"out of range: {text!r}")
        return size

    return Kind(f'a size from {least} to {most} such as "{example}"', parse=parse)


# The types of settings, each with its kind.
Folder = Annotated[Path, Kind("a folder", PATH, Path)]
Count = Annotated[int, Kind("an integer above 0", Annotated[int, Meta(gt=0)])]
Retries = Annotated[int, Kind("an integer from 0 to 20", Annotated[int, Meta(ge=0, le=20)])]
Window = Annotated[int, Kind("an integer from 1 to 64", Annotated[int, Meta(ge=1, le=64)])]
Rate = Annotated[float, Kind("a number from 0.1 to 100000", Annotated[float, Meta(ge=0.1, le=100_000)])]
MetricsLimit = Annotated[int, Kind("an integer from 0 to 10000", Annotated[int, Meta(ge=0, le=10_000)])]
Buffer = Annotated[
    int | None,
    _or_auto(Kind("an integer from 0 to 65536", Annotated[int, Meta(ge=0, le=65536)])),
]

MqttVersion = Annotated[str, Kind('"5" or "3.1.1"', Literal["5", "3.1.1"] | Literal[5], str)]

# Sizes, in bytes.
JournalLimit = Annotated[int, _size("16MiB", "1TiB", "1GiB")]
BytesPerTurn = Annotated[int, _size("1KiB", "64KiB", "4KiB")]
BytesPerSecond = Annotated[int, _size("16KiB", "1GiB", "1MiB")]

# Durations, in seconds.
Settle = Annotated[float | None, _or_auto(duration("0s", "60s", "2s"))]
Silence = Annotated[float, duration("1s", "7d", "1m")]
Keepalive = Annotated[float, duration("5s", "1h", "20s")]
Gap = Annotated[float, duration("1ms", "60s", "250ms")]
Repeats = Annotated[float, duration("1ms", "60s", "200ms")]
Durability = Annotated[float, duration("50ms", "60s", "5s")]

Place = Annotated[
    str,
    Kind(
        "a path that starts with / or ., a USB device such as usb:2341:8036[:SERIAL] or usb-port:1-1.3,"
        " a serial server such as rfc2217:host:port, or a Twisted client endpoint such as tcp:host:port",
        parse=_parse_place,
    ),
]
Dialect = Annotated[
    str, matching('the name of a dialect such as "fields", or of a module', r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*")
]
LineFormat = Annotated[
    str,
    matching('data bits, parity (N, E, O, M or S) and stop bits such as "8N1" or "7E1"', r"[5-8][NEOMS](?:1|1\.5|2)"),
]
FlowControl = Annotated[str, matching('"none", "rts/cts" or "xon/xoff"', "none|rts/cts|xon/xoff")]
Reset = Annotated[str, matching('"never", "open" or "silent"', "never|open|silent")]

Fields = Annotated[
    frozenset[str],  # in upper case
    Kind('names of fields such as ["TEMP", "HUM"]', tuple[str, ...], _parse_fields),
]

Listen = Annotated[
    ListenAddress,
    Kind(
        "a Twisted server endpoint such as tcp:50007:interface=127.0.0.1,"
        ' or a table such as { endpoint = "unix:/run/usbgate.sock", role = "read" }',
        str | _ListenTable,
        _parse_listen,
    ),
]
Listens = Annotated[
    tuple[ListenAddress, ...],
    Kind(
        'a list such as ["tcp:50007:interface=127.0.0.1"]',
        Annotated[tuple[str | dict[str, object], ...], Meta(min_length=1)],
        items=kind_of(Listen),
    ),
]
HttpListen = Annotated[
    ListenAddress,
    Kind(
        '"none", a Twisted server endpoint such as tcp:8080:interface=127.0.0.1,'
        ' or a table such as { endpoint = "tcp:8080:interface=127.0.0.1", role = "read" }',
        str | _ListenTable,
        _parse_http_listen,
    ),
]
ClientRole = Annotated[
    Role,
    Kind(
        '"none", "read", "ask", "command" or "admin"',
        Literal["none", "read", "ask", "command", "admin"],
        lambda name: Role[name.upper()],
    ),
]
Broker = Annotated[
    str,
    Kind(
        'a Twisted client endpoint such as "tcp:localhost:1883", "tls:mqtt.example:8883" or "unix:/run/mqtt.sock"',
        parse=_parse_broker,
    ),
]
MqttRole = Annotated[
    Role,
    Kind('"read", "ask" or "command"', Literal["read", "ask", "command"], lambda name: Role[name.upper()]),
]
Discovery = Annotated[str, Kind('"all", "configured" or "none"', Literal["all", "configured", "none"])]
Language = Annotated[str, Kind('"en" or "fr"', Literal["en", "fr"])]
TopicPrefix = Annotated[
    str, matching('levels of a topic such as "homeassistant"', r"[^/+#$\x00-\x1f][^+#\x00-\x1f]*(?<!/)")
]
Networks = Annotated[
    tuple[IPv4Network | IPv6Network, ...],
    Kind('addresses and networks such as ["192.168.1.0/24", "10.0.0.7"]', tuple[str, ...], _parse_networks),
]
Users = Annotated[
    frozenset[int],
    Kind('names or numbers of users of this machine such as ["www-data", 1001]', tuple[str | int, ...], _parse_users),
]
Sensors = Annotated[
    frozenset[str],
    Kind(
        'sensor ids such as ["20", "21"]',
        Annotated[tuple[str, ...], Meta(min_length=1)],
        _parse_sensors,
    ),
]
Hosts = Annotated[
    tuple[str, ...],
    Kind('names of hosts such as ["house.example"]', tuple[Annotated[str, Meta(pattern=r"^[A-Za-z0-9.-]+\Z")], ...]),
]
# As a browser spells an origin: in lower case, without the scheme's own port, a path or a slash.
_ORIGIN = r"^(?!https:.*:443\Z|http:.*:80\Z)(\*|https?://[a-z0-9.-]+(:[1-9][0-9]{0,4})?|https?://\[[0-9a-f:]+\](:[1-9][0-9]{0,4})?)\Z"
Origins = Annotated[
    tuple[str, ...],
    Kind(
        'origins of pages such as ["https://house.example", "http://10.0.0.2:3000"], in lower case and without a path, '
        'or "*"',
        tuple[Annotated[str, Meta(pattern=_ORIGIN)], ...],
    ),
]
BasePath = Annotated[str, matching('a path such as "/usbgate"', "(?:/[A-Za-z0-9._~-]+)*")]
Database = Annotated[
    str, Kind('"embedded", "none" or "postgresql://user@host/database"', parse=_parse_database, secret=True)
]
DatabaseUrl = Annotated[str, Kind('"postgresql://user@host/database"', parse=_parse_url, secret=True)]
SchemaName = Annotated[str, Kind('the name of a schema such as "usbgate"', parse=_parse_schema)]
ViewName = Annotated[
    tuple[str, str] | None,  # schema and name
    Kind('"none" or a schema and a name such as "public.measures"', parse=_parse_view),
]
