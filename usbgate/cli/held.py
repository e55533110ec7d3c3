"""
`usbgate held` and `usbgate cancel`: the questions that are held until their sensors report.
"""

from __future__ import annotations

from pathlib import Path

import click

from usbgate.cli.group import OneWord, pass_config
from usbgate.cli.reader import daemon_options, json_option, print_json, print_nothing, reading
from usbgate.cli.records import held_record
from usbgate.cli.show import spell_asker
from usbgate.cli.tables import print_table, spell_time_briefly


@click.command("held")
@daemon_options
@json_option
@pass_config
def held_command(config: Path | None, port: int | None, host: str | None, as_json: bool) -> None:
    """
    List the questions that are held until their sensors report (`usbgate ask --when-heard`).
    """
    with reading(config, host, port) as reader:
        held = list(map(held_record, reader.fetch("held")))
    if as_json:
        print_json(held)
    elif not held:
        print_nothing("no question is held")
    else:
        rows = [
            (
                str(each["number"]),
                each["sensor"],
                each["command"],
                each["arguments"] or "",
                spell_asker(each["origin"], each["client"]),
                spell_time_briefly(each["at"]),
                spell_time_briefly(each["until"]),
                each["device"],
            )
            for each in held
        ]
        titles = ("NUMBER", "ID", "COMMAND", "ARGUMENTS", "ASKED BY", "SINCE", "UNTIL", "DEVICE")
        print_table(titles, rows, right=("NUMBER",))


@click.command("cancel")
@daemon_options
@click.argument("numbers", nargs=-1, required=True, type=OneWord(), metavar="NUMBER...")
@pass_config
def cancel_command(config: Path | None, port: int | None, host: str | None, numbers: tuple[str, ...]) -> None:
    """
    Cancel questions that are held, by their numbers in `usbgate held`.
    """
    with reading(config, host, port) as reader:
        for number in numbers:
            (cancelled,) = map(held_record, reader.fetch("cancel", number))
            click.echo(f"cancelled: {cancelled['command']} to sensor {cancelled['sensor']}")
