"""
`usbgate watch`: follow readings, alarms and the states of devices.
"""

from __future__ import annotations

import json
from math import inf
from pathlib import Path

import click

from usbgate.cli.group import pass_config
from usbgate.cli.reader import Reader, daemon_options, json_option, reading, sensor_argument
from usbgate.cli.records import event_record


@click.command("watch")
@daemon_options
@json_option
@sensor_argument("[ID]...", name="sensors", nargs=-1)
@pass_config
def watch_command(
    config: Path | None, sensors: tuple[str, ...], port: int | None, host: str | None, as_json: bool
) -> None:
    """
    Follow readings, alarms and the states of devices, until Ctrl-C.

    With IDs, only the readings and alarms of these sensors. With --json, each event is an object on a line of its own,
    with the names of the HTTP API.
    """
    with reading(config, host, port) as reader:
        for sensor in sensors:
            reader.check_known(sensor)
        if as_json:
            _follow_as_json(reader, sensors)
        else:
            _follow(reader, sensors)


def _follow_as_json(reader: Reader, sensors: tuple[str, ...]) -> None:
    reader.connection.send(" ".join(["watch", *sensors]))
    while True:
        event = event_record(reader.connection.receive(inf))
        if event is not None:
            click.echo(json.dumps(event, ensure_ascii=False))


def _follow(reader: Reader, sensors: tuple[str, ...]) -> None:
    from rich.console import Console

    from usbgate.cli.readings import ReadingRows

    console = Console(highlight=False, soft_wrap=True)
    readings = ReadingRows(reader)
    reader.connection.send(" ".join(["watch", *sensors]))
    while True:
        for row in readings.rows(reader.connection.receive(inf)):
            row.rstrip()
            console.print(row)
