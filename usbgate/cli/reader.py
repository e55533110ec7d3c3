"""
What the commands that show something have in common: options, a connection that sends words, and output.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import click
from click.shell_completion import CompletionItem

from usbgate.cli.connection import TIMEOUT, AskError, Connection, Fields, parse_data, send_word
from usbgate.cli.credentials import token_option
from usbgate.cli.encryption import tls_options
from usbgate.cli.group import OneWord
from usbgate.cli.reach import port_option, reach_running
from usbgate.cli.records import Record, sensor_record
from usbgate.core.fieldline import format_number

_Command = TypeVar("_Command", bound=Callable[..., Any])

raw_option = click.option(
    "--raw", is_flag=True, help="What the devices sent, without offset, scale, min and max of the configuration."
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")


def daemon_options(command: _Command) -> _Command:
    """
    Add the options that say where the daemon is.
    """
    host = click.option("--host", metavar="HOST", help="The daemon's host.  [default: this machine]")
    return port_option(host(tls_options(token_option(command))))


def complete_sensor(context: click.Context, parameter: click.Parameter, begun: str) -> list[CompletionItem]:
    """
    Return the sensors whose ids begin so, for the completion of a shell; none if no daemon runs.
    """
    with suppress(click.ClickException, AskError):
        with reading(context.obj, context.params.get("host"), context.params.get("port")) as reader:
            return [
                CompletionItem(sensor, help=about["name"])
                for sensor, about in reader.sensors.items()
                if sensor.startswith(begun)
            ]
    return []


def sensor_argument(metavar: str, name: str = "sensor", **settings: Any) -> Callable[[_Command], _Command]:
    """
    Return an argument that is a sensor's id.

    Args:
        metavar: As help shows it; one that begins with `[` is optional.
        name: The parameter of the command.
        settings: Others of `click.argument`.
    """
    settings = {"required": not metavar.startswith("["), "type": OneWord(), **settings}
    return click.argument(name, metavar=metavar, shell_complete=complete_sensor, **settings)


class UnknownSensor(AskError):
    """
    There is no such sensor, or no such field of it; the text says which.
    """


class Reader:
    """
    Sends words to the daemon.

    Attributes:
        connection: The connection.
        sensors: The known sensors, by id (see `sensor_record`).
    """

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.sensors: Mapping[str, Record] = {
            sensor["id"]: sensor for sensor in map(sensor_record, self.fetch("sensors"))
        }

    def fetch(self, *words: str | None) -> list[Fields]:
        """
        Send a word, and return its data lines as fields.

        Args:
            words: The word and its arguments, none with whitespace; those that are None are left out.

        Raises:
            AskError: The word failed.
        """
        line = " ".join(word for word in words if word is not None)
        return [parse_data(data) for data in send_word(self.connection, line, TIMEOUT)]

    def check_known(self, sensor: str | None, field: str | None = None) -> None:
        """
        Refuse a sensor that is not known; to be called where there is nothing to show of it.

        Raises:
            UnknownSensor: It is neither configured nor has it sent a report, or it has no such field.
        """
        if sensor is None:
            return
        known = self.sensors.get(sensor)
        if known is None:
            raise UnknownSensor(f"unknown sensor: {sensor}; `usbgate sensors` lists those that are known")
        if field is not None and field.upper() not in known["fields"]:
            fields = ", ".join(known["fields"]) or "none yet"
            raise UnknownSensor(f"unknown field of sensor {sensor}: {field}; its fields are: {fields}")

    def name(self, sensor: str) -> str:
        """
        Return the name of a sensor; empty if it has none.
        """
        return self.sensors.get(sensor, {}).get("name") or ""

    def spell_value(self, record: Record) -> str:
        """
        Return the value of a reading or an alarm with its unit.
        """
        if record["text"] is not None:
            return str(record["text"])
        unit = self.sensors.get(record["sensor"], {}).get("units", {}).get(record["field"])
        return f"{format_number(record['value'])} {unit or ''}".rstrip()


def option(name: str, value: object) -> str | None:
    """
    Return an option of a word, for `Reader.fetch`; None if it has no value.
    """
    return None if value is None else f"{name}={value}"


def raw_word(raw: bool) -> str | None:
    """
    Return the option of a word for `--raw`.
    """
    return option("raw", "yes" if raw else None)


@contextmanager
def reading(config: Path | None, host: str | None, port: int | None) -> Iterator[Reader]:
    """
    Connect to the daemon; see `reach_running`.
    """
    with closing(reach_running(config, host, port)) as connection:
        yield Reader(connection)


def print_json(value: Record | list[Record]) -> None:
    """
    Print a record, or an array with one record on each line.
    """
    if isinstance(value, dict):
        click.echo(json.dumps(value, ensure_ascii=False, indent=2))
    else:
        click.echo("[" + ",\n ".join(json.dumps(each, ensure_ascii=False) for each in value) + "]")


def print_nothing(what: str) -> None:
    """
    Tell a person that there is nothing to show; on standard error, so that a pipe stays empty.
    """
    click.echo(what, err=True)
