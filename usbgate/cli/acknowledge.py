"""
`usbgate acknowledge`: somebody has seen an alarm.
"""

from __future__ import annotations

import getpass
from pathlib import Path

import click

from usbgate.cli.connection import AskError
from usbgate.cli.group import OneWord, pass_config
from usbgate.cli.reader import daemon_options, reading
from usbgate.cli.records import alarm_record


@click.command("acknowledge")
@daemon_options
@click.option("--by", metavar="NAME", help="Who has seen it.  [default: the name of this user]")
@click.argument("alarm", type=OneWord())
@pass_config
def acknowledge_command(config: Path | None, port: int | None, host: str | None, by: str | None, alarm: str) -> None:
    """
    Acknowledge an alarm: somebody has seen it.

    \b
        usbgate acknowledge 8ee34eb4a1a54e72
        usbgate acknowledge 2 --by Zoé

    ALARM is the id of an alarm, as `usbgate alarms` shows it, or the id of a sensor, which stands for all open alarms
    of that sensor. Only the first acknowledgement of an alarm counts.
    """
    with reading(config, host, port) as reader:
        found = [each for each in map(alarm_record, reader.fetch("alarms")) if alarm in (each["id"], each["sensor"])]
        if not found:
            raise AskError(f"no open alarm has the id {alarm}, nor has a sensor of that id one")
        for each in found:
            (line,) = reader.fetch("acknowledge", each["id"], *(by or _user()).split())
            now = alarm_record(line)
            about = f"{reader.name(now['sensor']) or 'sensor ' + now['sensor']}: {now['field']} {now['condition']}"
            click.echo(f"{about} acknowledged by {now['acknowledged']['by']}")


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # no such user is known here
        return ""
