"""
`usbgate doctor`: look for what keeps usbgate from running, and say what to do.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from usbgate.cli.connection import AskError, NoDaemon
from usbgate.cli.group import pass_config
from usbgate.cli.reach import load_settings
from usbgate.cli.reader import json_option, print_json, reading
from usbgate.cli.records import device_record, status_record
from usbgate.cli.running import find_process, state_option
from usbgate.cli.tables import Cell, print_table

if TYPE_CHECKING:
    from usbgate.cli.findings import FoundDaemon
    from usbgate.config.settings import Settings

STYLES = {"ok": "green", "warning": "yellow", "problem": "red"}


@click.command("doctor")
@state_option
@json_option
@pass_config
def doctor_command(config: Path | None, state: str | None, as_json: bool) -> None:
    """
    Look for what keeps usbgate from running well, and say what to do about it.

    It looks at the configuration, the daemon, the serial ports (rights, who else uses them, what they send), the
    database, the MQTT broker, the sensors of rules, the clock, the disk, open files and versions. It changes nothing
    and opens no port. As root, it sees other users' programs, too. The exit status is 1 if there is a problem; warnings
    do not count.
    """
    from usbgate.cli.checks import Examination
    from usbgate.cli.findings import PROBLEM

    settings = load_settings(config, state=state)
    found = list(Examination(settings, _find_daemon(config, settings)).findings())
    if as_json:
        print_json([each._asdict() for each in found])
    else:
        rows: list[tuple[Cell, ...]] = []
        for each in found:
            rows.append(((each.state, STYLES[each.state]), each.check, each.text))
            if each.remedy is not None:
                rows.append(("", "", f"→ {each.remedy}"))
        print_table(("", "", ""), rows)
    if any(each.state == PROBLEM for each in found):
        sys.exit(1)


def _find_daemon(config: Path | None, settings: Settings) -> FoundDaemon:
    from usbgate.cli.findings import FoundDaemon

    pid, trouble = None, None
    try:
        pid = find_process(settings.state).pid
    except NoDaemon as error:
        trouble = str(error)
    except AskError as error:  # it runs, and is another user's
        trouble = str(error)
    try:
        with reading(config, None, None) as reader:
            status = status_record(reader.fetch("status"))
            return FoundDaemon(pid, status, list(map(device_record, reader.fetch("devices"))), reader.sensors)
    except AskError as error:
        return FoundDaemon(pid, trouble=str(error) if pid is not None else trouble)
