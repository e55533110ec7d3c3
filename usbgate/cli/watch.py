"""
`usbgate watch`: follow readings, alarms and the states of devices.
"""

from __future__ import annotations

import json
import time
from math import inf
from pathlib import Path
from typing import NoReturn

import click

from usbgate.cli.connection import ConnectionLost, NoDaemon
from usbgate.cli.group import pass_config
from usbgate.cli.reach import reach_running
from usbgate.cli.reader import Reader, daemon_options, json_option, raw_option, raw_word, reading, sensor_argument
from usbgate.cli.records import event_record

RETRY = 1.0  # seconds between two attempts to reach a daemon that has ended


@click.command("watch")
@daemon_options
@raw_option
@json_option
@sensor_argument("[ID]...", name="sensors", nargs=-1)
@pass_config
def watch_command(
    config: Path | None, sensors: tuple[str, ...], port: int | None, host: str | None, raw: bool, as_json: bool
) -> None:
    """
    Follow readings, alarms and the states of devices, until Ctrl-C.

    With IDs, only the readings and alarms of these sensors. If the daemon ends, wait until it runs again.

    With --json, each event is an object on a line of its own, with the names of the HTTP API, and the end of the daemon
    is an error.
    """
    words = " ".join(filter(None, ["watch", *sensors, raw_word(raw)]))
    checked = False
    while True:
        try:
            with reading(config, host, port) as reader:
                for sensor in () if checked else sensors:
                    reader.check_known(sensor)
                checked = True  # a daemon that has just started may not know them yet
                (_print_events if as_json else _print_rows)(reader, words)
        except ConnectionLost:
            if as_json:
                raise
            click.secho("usbgate has closed the connection; waiting until it runs again", fg="yellow")
        while not _is_running(config, host, port):
            time.sleep(RETRY)


def _is_running(config: Path | None, host: str | None, port: int | None) -> bool:
    try:
        reach_running(config, host, port).close()
    except NoDaemon:
        return False
    return True


def _print_events(reader: Reader, words: str) -> NoReturn:
    reader.connection.send(words)
    while True:
        event = event_record(reader.connection.receive(inf))
        if event is not None:
            click.echo(json.dumps(event, ensure_ascii=False))


def _print_rows(reader: Reader, words: str) -> NoReturn:
    from rich.console import Console

    from usbgate.cli.readings import ReadingRows

    console = Console(highlight=False, soft_wrap=True)
    readings = ReadingRows(reader)
    reader.connection.send(words)
    while True:
        for row in readings.rows(reader.connection.receive(inf)):
            row.rstrip()
            console.print(row)
