"""
Configuration: options and a TOML file become `Settings`, checked once, as plain values.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from twisted.internet.endpoints import _parse, quoteStringArgument

from usbgate.config.settings import (
    COMMAND_KEYS,
    DEVICE_KEYS,
    FIELD_KEYS,
    HTTP_KEYS,
    SENSOR_KEYS,
    SPEC_KEYS,
    TABLES,
    TOP_KEYS,
    CommandSettings,
    ConfigError,
    Database,
    DeviceName,
    DeviceSettings,
    FieldSettings,
    HttpListen,
    HttpSettings,
    Listen,
    Place,
    SensorSettings,
    Settings,
    Text,
    convert,
    decode,
    expected,
    refuse,
)
from usbgate.core.fieldline import is_key, is_sensor_id

__all__ = [
    "CommandSettings",
    "ConfigError",
    "DeviceSettings",
    "FieldSettings",
    "SensorSettings",
    "Settings",
    "find_file",
    "listen_port",
    "load",
    "only_device",
    "parse_device",
]


def load(
    file: Path | None,
    *,
    devices: Sequence[str] = (),
    listen: Sequence[str] = (),
    database: str | None = None,
    state: str | None = None,
    http: str | None = None,
    environ: Mapping[str, str] = os.environ,
) -> Settings:
    """
    Read the configuration; an option that is given replaces all that the file says in its place.

    Args:
        file: Must exist; None looks for one (`find_file`) and does without.
        devices: As `parse_device` reads them.
        listen: Twisted server endpoint strings.
        database: As in the file.
        state: A folder.
        http: A Twisted server endpoint string, or `none`.
        environ: The environment.

    Raises:
        ConfigError: Something is wrong.
    """
    file = file or find_file(environ)
    table = {} if file is None else _read(file)
    folder = os.getcwd() if file is None else os.path.dirname(os.path.abspath(file))
    where = f"{file}: "

    tables = {key: _tables(where, key, table.pop(key, {})) for key in TABLES}
    browsers = _http(where, table.pop("http", {}), folder)
    top = decode(where, table, TOP_KEYS, also=(*TABLES, "http"))
    known = {name: _device(where, name, keys, folder) for name, keys in tables["device"].items()}
    sensors = {name: _sensor(where, name, keys) for name, keys in tables["sensor"].items()}
    commands = {name: _command(where, name, keys) for name, keys in tables["command"].items()}
    if devices:
        known = _devices_of_options(devices)
    _check_paths(known, "--device: " if devices else where)
    for sensor, about in sensors.items():
        if about.device is not None and known and about.device not in known:
            refuse(f"{where}sensor.{sensor}.device", "one of the devices " + ", ".join(known), about.device)
    if "listen" in top:
        top["listen"] = tuple(_absolute_socket(text, folder) for text in top["listen"])
    if listen:
        top["listen"] = tuple(_absolute_socket(convert("--listen", text, Listen), os.getcwd()) for text in listen)
    if database is not None:
        top["database"] = convert("--database", database, Database)
    if http is not None:
        browsers["listen"] = _absolute_socket(convert("--http", http, HttpListen), os.getcwd())
    in_file = top.pop("state", None)
    if state:
        place = Path(os.path.abspath(state))
    elif in_file is not None:
        place = Path(os.path.abspath(os.path.join(folder, in_file)))
    else:
        place = _usual_state(environ)
    return Settings(
        state=place,
        devices=known,
        sensors=sensors,
        commands=commands,
        http=HttpSettings(**browsers),
        http_asked_for="listen" in browsers,
        file=None if file is None else Path(os.path.abspath(file)),
        **top,
    )


def find_file(environ: Mapping[str, str] = os.environ) -> Path | None:
    """
    Find the configuration file of this user, or else of this machine.
    """
    own = environ.get("XDG_CONFIG_HOME") or os.path.join(_home(environ), ".config")
    for folder in (own, "/etc"):
        file = os.path.abspath(os.path.join(folder, "usbgate", "usbgate.toml"))
        if os.path.isfile(file):
            return Path(file)
    return None


def parse_device(spec: str) -> tuple[str, DeviceSettings]:
    """
    Read a `--device` SPEC: a path, USB device or Twisted client endpoint string, then `,key=value` for its keys.

    Those are taken off the end while their key is known, since a path may hold commas and colons itself.

    Returns:
        The device's name (given, or made of the path), and the device.

    Raises:
        ConfigError: Something is wrong.
    """
    where = f"--device {spec}"
    place = spec
    given: dict[str, str] = {}
    while True:
        rest, comma, last = place.rpartition(",")
        key, equals, value = last.partition("=")
        if not comma or not equals:
            break
        if key not in SPEC_KEYS:
            if near := get_close_matches(key, SPEC_KEYS, 1, 0.7):
                raise ConfigError(f"{where}: {key}: unknown key, did you mean {near[0]}?")
            break
        if key in given:
            raise ConfigError(f"{where}: {key}: given twice")
        given[key] = value
        place = rest
    keys = {key: convert(f"{where}: {key}", value, SPEC_KEYS[key], strict=False) for key, value in given.items()}
    place = convert(where, place, Place)
    if place.startswith(("/", ".")):
        place = os.path.abspath(place)
        name = os.path.basename(place)
    else:
        name = place
    name = keys.pop("name", None) or re.sub("[^A-Za-z0-9.:-]", "-", name)
    if not name:
        refuse(where, expected(Place), spec)
    return name, DeviceSettings(path=place, **keys)


def only_device(folder: str = "/dev") -> tuple[str, DeviceSettings]:
    """
    Take the only serial device of this machine.

    Returns:
        Its name and the device.

    Raises:
        ConfigError: There is none, or several.
    """
    found = sorted(str(path) for kind in ("ttyACM*", "ttyUSB*") for path in Path(folder).glob(kind))
    if not found:
        raise ConfigError(
            f"no serial device: there is no {folder}/ttyACM* and no {folder}/ttyUSB*;"
            " connect one, or say --device PATH or --device tcp:host:port"
        )
    if len(found) > 1:
        raise ConfigError(f"several serial devices: {', '.join(found)}; say which one, such as --device {found[0]}")
    return parse_device(found[0])


def listen_port(settings: Settings) -> list[tuple[str, int] | str]:
    """
    Return where a client on this machine can connect to: (host, port), or the path of a socket.

    What only Twisted can tell, such as `systemd:`, is left out, and so is a port that the system chooses.
    """
    found: list[tuple[str, int] | str] = []
    for text in settings.listen:
        (kind, *arguments), named = _parse(text)
        if kind == "unix":
            found.append(str(named.get("address") or arguments[0]))
        elif kind in ("tcp", "tcp6"):
            port = int(named.get("port") or arguments[0])
            interface = named.get("interface") or (arguments[1] if len(arguments) > 1 else "")
            any_address = {"": "127.0.0.1" if kind == "tcp" else "::1", "0.0.0.0": "127.0.0.1", "::": "::1"}
            if port:
                found.append((any_address.get(interface, interface), port))
    return found


def _read(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_bytes().decode())
    except OSError as error:
        raise ConfigError(f"{file}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{file}: expected TOML, which is UTF-8; byte {error.start} is not") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{file}: not TOML: {error}") from error


def _tables(where: str, key: str, value: object) -> dict[str, dict[str, Any]]:
    example = {
        "device": "[device.NAME]",
        "sensor": "[sensor.ID]",
        "field": "[sensor.ID.field.NAME]",
        "command": "[command.NAME]",
    }[key]
    if not isinstance(value, dict):
        refuse(f"{where}{key}", f"tables such as {example}", value)
    for name, keys in value.items():
        if not isinstance(keys, dict):
            refuse(f"{where}{key}.{name}", f"a table such as {example}", keys)
    return value


def _http(where: str, value: object, folder: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        keys: dict[str, Any] = {"listen": convert(f"{where}http", value, HttpListen)}
    else:
        keys = decode(f"{where}http.", value, HTTP_KEYS)
    if "listen" in keys:
        keys["listen"] = _absolute_socket(keys["listen"], folder)
    return keys


def _device(where: str, name: str, table: Mapping[str, Any], folder: str) -> DeviceSettings:
    convert(f"{where}device.{name}", name, DeviceName)
    keys = decode(f"{where}device.{name}.", table, DEVICE_KEYS)
    if "path" not in keys:
        raise ConfigError(f"{where}device.{name}.path: expected {expected(Place)}, and there is none")
    if keys["path"].startswith(("/", ".")):
        keys["path"] = os.path.abspath(os.path.join(folder, keys["path"]))
    return DeviceSettings(**keys)


def _sensor(where: str, name: str, table: Mapping[str, Any]) -> SensorSettings:
    if not is_sensor_id(name):
        refuse(f"{where}sensor.{name}", "a sensor id, 1 to 64 characters without blank or _", name)
    keys = dict(table)
    fields = _tables(f"{where}sensor.{name}.", "field", keys.pop("field", {}))
    return SensorSettings(
        **decode(f"{where}sensor.{name}.", keys, SENSOR_KEYS, also=["field"]),
        fields={field.upper(): _field(f"{where}sensor.{name}.", field, about) for field, about in fields.items()},
    )


def _field(where: str, name: str, table: Mapping[str, Any]) -> FieldSettings:
    if not is_key(name):
        refuse(f"{where}field.{name}", "the name of a field such as TEMP", name)
    return FieldSettings(**decode(f"{where}field.{name}.", table, FIELD_KEYS))


def _command(where: str, name: str, table: Mapping[str, Any]) -> CommandSettings:
    convert(f"{where}command.{name}", name, Text)
    keys = decode(f"{where}command.{name}.", table, COMMAND_KEYS)
    return CommandSettings(**{**keys, "fields": tuple(field.upper() for field in keys.get("fields", ()))})


def _devices_of_options(specs: Sequence[str]) -> dict[str, DeviceSettings]:
    devices: dict[str, DeviceSettings] = {}
    for spec in specs:
        name, device = parse_device(spec)
        if name in devices:
            raise ConfigError(f"--device {spec}: name: {name} is taken by another device; add ,name=ANOTHER")
        devices[name] = device
    return devices


def _check_paths(devices: Mapping[str, DeviceSettings], where: str) -> None:
    owners: dict[str, str] = {}
    for name, device in devices.items():
        owner = owners.setdefault(device.path, name)
        if owner != name:
            raise ConfigError(f"{where}device.{name}.path: expected another path than that of {owner}, {device.path}")


def _absolute_socket(text: str, folder: str) -> str:
    relative = re.match(r"unix:(?:address=)?(?=[^/:=\\][^:=]*(?::|$))", text)
    if relative is None:
        return text
    quoted: str = quoteStringArgument(folder + "/")
    return relative[0] + quoted + text[relative.end() :]


def _usual_state(environ: Mapping[str, str]) -> Path:
    place = environ.get("USBGATE_STATE") or environ.get("STATE_DIRECTORY", "").split(":")[0]
    if not place and os.geteuid() == 0:
        place = "/var/lib/usbgate"
    if not place:
        place = os.path.join(environ.get("XDG_STATE_HOME") or os.path.join(_home(environ), ".local/state"), "usbgate")
    return Path(os.path.abspath(place))


def _home(environ: Mapping[str, str]) -> str:
    return environ.get("HOME") or os.path.expanduser("~")
