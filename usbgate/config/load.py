"""
Load the configuration: a TOML file and the options of the command line become `Settings`.
"""

from __future__ import annotations

import os
import tomllib
from codecs import BOM_UTF8
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from usbgate.access.roles import Role
from usbgate.config.controls import decode_control
from usbgate.config.devices import check_paths, check_reset, parse_devices
from usbgate.config.endpoints import absolute_paths, local_addresses
from usbgate.config.fields import decode_fields
from usbgate.config.home import config_folder, state_folder
from usbgate.config.moved import moved_database
from usbgate.config.rules import check_devices, decode_mail, decode_rules
from usbgate.config.settings import (
    CLIENT_KEYS,
    COMMAND_KEYS,
    DATABASE_KEYS,
    DEVICE_KEYS,
    HTTP_KEYS,
    MQTT_KEYS,
    SENSOR_KEYS,
    TOP_KEYS,
    ClientSettings,
    CommandSettings,
    DeviceSettings,
    HttpSettings,
    MqttSettings,
    Settings,
)
from usbgate.config.types import ConfigError, Listen, ListenAddress, convert, decode, refuse
from usbgate.core.fieldline import fold, is_sensor_id
from usbgate.core.kinds import DeviceName, Text, kind_of
from usbgate.core.settings import SensorSettings

# Tables of tables, with an example of each.
TABLES = {"device": "[device.NAME]", "sensor": "[sensor.ID]", "command": "[command.NAME]"}

# In the state folder: the private key and the certificate of this host, which `usbgate tls init` makes.
CERTIFICATE = "tls/server.pem"


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
    Load the configuration. An option replaces all values that the file has in its place.

    Args:
        file: The file; None for the one that `find_file` finds, if any.
        devices: See `parse_device`.
        listen: Twisted server endpoint strings.
        database: As in the file.
        state: A folder.
        http: A Twisted server endpoint string, or `none`.
        environ: The environment.

    Raises:
        ConfigError: The file cannot be read, or something in it or in an option is wrong.
    """
    file = file or find_file(environ)
    table = {} if file is None else _read(file)
    try:
        here = os.getcwd()
    except FileNotFoundError:
        raise ConfigError("the current folder was removed: change to another one") from None
    folder = here if file is None else os.path.dirname(os.path.abspath(file))
    where = f"{file}: "

    tables = {key: _tables(where, key, table.pop(key, {}), example) for key, example in TABLES.items()}
    clients = _clients(where, table.pop("client", []))
    mail = decode_mail(where, table.pop("mail"), folder) if "mail" in table else None
    web = _http(where, table.pop("http", {}))
    mqtt = _mqtt(where, table.pop("mqtt"), folder) if "mqtt" in table else None
    rules = decode_rules(where, table.pop("rule", []), folder, mail, mqtt is not None)
    password_file: Path | None = None
    if isinstance(table.get("database"), dict):
        keys = decode(f"{where}database.", table["database"], DATABASE_KEYS)
        if "url" not in keys:
            raise ConfigError(f"{where}database.url: missing, expected {DATABASE_KEYS['url'].expected}")
        table["database"] = keys["url"]
        password_file = keys.get("password_file") and Path(os.path.join(folder, keys["password_file"]))
    top = decode(where, table, TOP_KEYS, also=(*TABLES, "client", "http", "mail", "mqtt", "rule"))
    known = {name: _device(where, name, keys, folder) for name, keys in tables["device"].items()}
    sensors = {name: _sensor(where, name, keys) for name, keys in tables["sensor"].items()}
    commands = {name: _command(where, name, keys) for name, keys in tables["command"].items()}
    spelled: dict[str, str] = {}
    for name in commands:
        if (other := spelled.setdefault(fold(name), name)) != name:
            raise ConfigError(f"{where}command.{name}: the same command as command.{other}")
    if devices:
        known = parse_devices(devices)
    else:
        check_paths(known, where)
    for sensor, about in sensors.items():
        if about.device is not None and known and about.device not in known:
            refuse(f"{where}sensor.{sensor}.device", "one of the devices " + ", ".join(known), about.device)

    for rule in rules:
        check_devices(rule, known, f"{where}rule {rule.name}: ")
    state = state or (os.path.join(folder, top["state"]) if "state" in top else _usual_state(environ))
    top["state"] = Path(os.path.abspath(state))
    certificate = str(top["state"] / CERTIFICATE)
    for key, address in (*(("listen", each) for each in top.get("listen", ())), ("http.listen", web.get("listen"))):
        if address is not None and address.door.proxied and address.door.role is not None:
            raise ConfigError(f"{where}{key}: role with proxied: behind a proxy, nobody has a role without a token")
    if "listen" in top:
        top["listen"] = tuple(_from(folder, each, certificate) for each in top["listen"])
    if "listen" in web:
        web["listen"] = _from(folder, web["listen"], certificate)
    if listen:
        addresses = [convert("--listen", text, kind_of(Listen)) for text in listen]
        top["listen"] = tuple(_from(here, each, certificate) for each in addresses)
    if http is not None:
        web["listen"] = _from(here, convert("--http", http, HTTP_KEYS["listen"]), certificate)
    _check_distinct(top.get("listen", ()), web.get("listen"))
    if database is not None:
        top["database"] = convert("--database", database, TOP_KEYS["database"])
        password_file = None
    if top.get("database", "embedded") == "embedded":
        top["database"] = moved_database(top["state"]) or "embedded"
    return Settings(
        clients=clients,
        devices=known,
        sensors=sensors,
        commands=commands,
        rules=rules,
        mail=mail,
        http=HttpSettings(**web, required="listen" in web),
        mqtt=mqtt,
        password_file=password_file,
        file=None if file is None else Path(os.path.abspath(file)),
        **top,
    )


def _from(folder: str, address: ListenAddress, certificate: str) -> ListenAddress:
    return address._replace(endpoint=absolute_paths(address.endpoint, folder, certificate))


def _check_distinct(listen: Sequence[ListenAddress], http: ListenAddress | None) -> None:
    # The system would only say that an address is in use.
    seen: set[tuple[str, int] | str] = set()
    for key, address in (*(("listen", each) for each in listen), ("http.listen", http)):
        if address is not None:
            for place in local_addresses([address.endpoint]):
                if place in seen:
                    raise ConfigError(f"{key}: {address.endpoint}: usbgate is to listen there already")
                seen.add(place)


def find_file(environ: Mapping[str, str] = os.environ) -> Path | None:
    """
    Return the configuration file of this user, or else of this machine; None if there is none.
    """
    for folder in (config_folder(environ), Path("/etc/usbgate")):
        if folder is not None and os.path.isfile(file := folder / "usbgate.toml"):
            return file
    return None


def _read(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_bytes().removeprefix(BOM_UTF8).decode())
    except OSError as error:
        raise ConfigError(f"{file}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{file}: not TOML: byte {error.start} is not UTF-8") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{file}: not TOML: {error}") from error
    except RecursionError as error:
        raise ConfigError(f"{file}: too many levels of [ or {{") from error
    except ValueError as error:  # Python's limit, of which tomllib knows nothing
        raise ConfigError(f"{file}: a number has too many digits") from error


def _tables(where: str, key: str, value: object, example: str) -> dict[str, dict[str, Any]]:
    if not isinstance(value, dict):
        refuse(f"{where}{key}", f"tables such as {example}", value)
    for name, keys in value.items():
        if not isinstance(keys, dict):
            refuse(f"{where}{key}.{name}", f"a table such as {example}", keys)
    return value


def _clients(where: str, value: object) -> tuple[ClientSettings, ...]:
    if not isinstance(value, list) or not all(isinstance(each, dict) for each in value):
        refuse(f"{where}client", "tables [[client]]", value)
    return tuple(_client(f"{where}client {number}: ", table) for number, table in enumerate(value, 1))


def _client(where: str, table: Mapping[str, Any]) -> ClientSettings:
    keys = decode(where, table, CLIENT_KEYS)
    if "role" not in keys:
        raise ConfigError(f"{where}role: missing, expected {CLIENT_KEYS['role'].expected}")
    if not (keys.get("addresses") or keys.get("users")):
        raise ConfigError(f"{where}addresses or users: missing; for whom is it?")
    client = ClientSettings(**keys)
    if client.sensors is not None and client.role is Role.ADMIN:
        raise ConfigError(f"{where}sensors: the role admin is for all sensors")
    return client


def _http(where: str, value: object) -> dict[str, Any]:
    if isinstance(value, dict):
        return decode(f"{where}http.", value, HTTP_KEYS)
    return {"listen": convert(f"{where}http", value, HTTP_KEYS["listen"])}


def _mqtt(where: str, value: object, folder: str) -> MqttSettings:
    if not isinstance(value, dict):
        refuse(f"{where}mqtt", "a table [mqtt]", value)
    keys = decode(f"{where}mqtt.", value, MQTT_KEYS)
    if "broker" not in keys:
        raise ConfigError(f"{where}mqtt.broker: missing, expected {MQTT_KEYS['broker'].expected}")
    if "password_file" in keys and "user" not in keys:
        raise ConfigError(f"{where}mqtt.user: missing, the password of password_file needs one")
    if "ca" in keys and not keys["broker"].startswith("tls:"):
        raise ConfigError(f'{where}mqtt.ca: only with TLS, broker = "tls:HOST:PORT"')
    keys["broker"] = absolute_paths(keys["broker"], folder, "")
    for key in ("password_file", "ca"):
        if key in keys:
            keys[key] = Path(os.path.abspath(os.path.join(folder, keys[key])))
    return MqttSettings(**keys)


def _device(where: str, name: str, table: Mapping[str, Any], folder: str) -> DeviceSettings:
    convert(f"{where}device.{name}", name, kind_of(DeviceName))
    options = {key: value for key, value in table.items() if key not in DEVICE_KEYS}
    keys = decode(f"{where}device.{name}.", {key: table[key] for key in table if key not in options}, DEVICE_KEYS)
    if "path" not in keys:
        raise ConfigError(f"{where}device.{name}.path: missing, expected {DEVICE_KEYS['path'].expected}")
    if keys["path"].startswith(("/", ".")):
        keys["path"] = os.path.abspath(os.path.join(folder, keys["path"]))
    if "tap" in keys:
        keys["tap"] = Path(os.path.abspath(os.path.join(folder, keys["tap"])))
    device = DeviceSettings(**keys, options=options, given=frozenset(keys))
    check_reset(device, f"{where}device.{name}.")
    return device


def _sensor(where: str, name: str, table: Mapping[str, Any]) -> SensorSettings:
    if not is_sensor_id(name):
        refuse(f"{where}sensor.{name}", "a sensor id, 1 to 64 characters without whitespace or _", name)
    keys = dict(table)
    where = f"{where}sensor.{name}."
    tables = _tables(where, "field", keys.pop("field", {}), "[sensor.ID.field.NAME]")
    fields = decode_fields(f"{where}field.", tables)
    tables = _tables(where, "control", keys.pop("control", {}), "[sensor.ID.control.NAME]")
    controls = {each: decode_control(f"{where}control.", each, table) for each, table in tables.items()}
    return SensorSettings(
        **decode(where, keys, SENSOR_KEYS, also=["field", "control"]), fields=fields, controls=controls
    )


def _command(where: str, name: str, table: Mapping[str, Any]) -> CommandSettings:
    convert(f"{where}command.{name}", name, kind_of(Text))
    command = CommandSettings(**decode(f"{where}command.{name}.", table, COMMAND_KEYS))
    if command.retries is not None and not command.idempotent:
        raise ConfigError(
            f"{where}command.{name}.retries: requires idempotent = true: the device may carry out each of the messages"
        )
    return command


def _usual_state(environ: Mapping[str, str]) -> str:
    place = environ.get("USBGATE_STATE") or environ.get("STATE_DIRECTORY", "").split(":")[0]
    if not place and os.geteuid() == 0:
        place = "/var/lib/usbgate"
    if place:
        return place
    own = state_folder(environ)
    if own is None:
        raise ConfigError("state: this user has no home folder: set it in the configuration, or HOME or USBGATE_STATE")
    return str(own)
