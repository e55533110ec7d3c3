"""
`usbgate replace`: a sensor has a new id, as after a new battery.
"""

from __future__ import annotations

from pathlib import Path

import click

from usbgate.cli.group import pass_config
from usbgate.cli.reader import (
    Reader,
    daemon_options,
    json_option,
    option,
    print_json,
    print_nothing,
    reading,
    sensor_argument,
)
from usbgate.cli.records import Record, replacement_record
from usbgate.cli.tables import Cell, print_table, spell_time


@click.command("replace")
@daemon_options
@click.option("--undo", is_flag=True, help="Take the last replacement of OLD back.")
@json_option
@sensor_argument("[OLD]", name="old")
@sensor_argument("[NEW]", name="new")
@pass_config
def replace_command(
    config: Path | None,
    old: str | None,
    new: str | None,
    undo: bool,
    port: int | None,
    host: str | None,
    as_json: bool,
) -> None:
    """
    Let a sensor that has a new id keep its name, its place and its history.

    \b
        usbgate replace
        usbgate replace 20 31
        usbgate replace --undo 20

    Some radio sensors choose another id when they get a new battery. From now on, what 31 reports is sensor 20, and
    questions for 20 go to 31. What is stored is not changed. Without OLD and NEW, list the replacements, and the
    sensors that fell silent while another one like them appeared.
    """
    if undo and (old is None or new is not None):
        raise click.UsageError("--undo needs OLD alone")
    if not undo and (old is None) != (new is None):
        raise click.UsageError("missing NEW")
    with reading(config, host, port) as reader:
        if old is None:
            _list(reader, as_json)
            return
        (line,) = reader.fetch("replace", old, new, option("undo", "yes" if undo else None))
        found = replacement_record(line)
        if as_json:
            print_json(found)
        elif undo:
            click.echo(f"{found['successor']} is no longer sensor {_named(reader, found)}")
        else:
            click.echo(f"{found['successor']} is sensor {_named(reader, found)} from now on")


def _named(reader: Reader, found: Record) -> str:
    return f"{found['sensor']} {reader.name(found['sensor'])}".strip()


def _list(reader: Reader, as_json: bool) -> None:
    found = list(map(replacement_record, reader.fetch("replacements")))
    if as_json:
        print_json(found)
    elif not found:
        print_nothing("no sensor was replaced")
    else:
        rows = [(_named(reader, each), each["successor"], each["device"], _spell_state(each)) for each in found]
        print_table(("SENSOR", "IS NOW", "DEVICE", "REPLACED"), rows)


def _spell_state(found: Record) -> Cell:
    if found["state"] == "replaced":
        return f"{spell_time(found['at'])} by {found['by']}"
    return (
        f"silent since {spell_time(found['since'])}: usbgate replace {found['sensor']} {found['successor']}?",
        "yellow",
    )
