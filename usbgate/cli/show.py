"""
Commands that show what the daemon knows: as a table for people, as JSON for programs.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, TypeVar

import click

from usbgate.cli.connection import TIMEOUT, send_word
from usbgate.cli.group import MomentType, OneWord, pass_config
from usbgate.cli.reach import load_settings, reach_running
from usbgate.cli.reader import (
    Reader,
    daemon_options,
    json_option,
    option,
    print_json,
    print_nothing,
    raw_option,
    raw_word,
    reading,
    sensor_argument,
)
from usbgate.cli.records import (
    Record,
    alarm_record,
    device_record,
    malformed_record,
    reading_record,
    request_record,
)
from usbgate.cli.tables import Cell, count, print_table, spell_age, spell_duration, spell_time, spell_time_briefly
from usbgate.core.display import defused

_Command = TypeVar("_Command", bound=Callable[..., Any])

HISTORY_LIMIT = 10_000  # the most readings that the daemon sends, protocol §3
OTHERS_LIMIT = 1_000  # likewise, of alarms and requests

STATE_STYLES = {"online": "green", "starting": "yellow", "settling": "yellow", "silent": "yellow", "lent": "cyan"}
TROUBLE = "red"


def limit_option(most: int) -> Callable[[_Command], _Command]:
    """
    Return the option `--limit`, which is at most that.
    """
    return click.option("--limit", type=click.IntRange(1, most), metavar="N", help="Only the newest N.")


@click.command("sensors")
@daemon_options
@json_option
@pass_config
def sensors_command(config: Path | None, port: int | None, host: str | None, as_json: bool) -> None:
    """
    List the sensors that are configured or have sent a report.
    """
    with reading(config, host, port) as reader:
        sensors = list(reader.sensors.values())
    if as_json:
        print_json(sensors)
    elif not sensors:
        print_nothing("no sensor has sent a report yet")
    else:
        polled = any(each["poll"] for each in sensors)
        rows = [
            (
                each["id"],
                each["name"] or "",
                each["place"] or "",
                ", ".join(each["fields"]),
                f"{spell_age(each['seen'])} ago" if each["seen"] else ("never", "yellow"),
                f"{each['reports']:,}",
                *([spell_duration(each["poll"]) if each["poll"] else ""] if polled else []),
                each["device"] or "",
            )
            for each in sensors
        ]
        titles = ("ID", "NAME", "PLACE", "FIELDS", "REPORTED", "REPORTS", *(("POLL",) if polled else ()), "DEVICE")
        print_table(titles, rows, right=("REPORTS",))


@click.command("devices")
@daemon_options
@json_option
@click.option(
    "--all", "every", is_flag=True, help="List all serial ports of this machine instead: what each is, and who has it."
)
@pass_config
def devices_command(config: Path | None, port: int | None, host: str | None, as_json: bool, every: bool) -> None:
    """
    List the devices with their states and counts.

    With --all, list the serial ports that this machine has, with the programs that have them open (those of other users
    are shown to root only) and the lines with which usbgate uses them. That needs no daemon.
    """
    if every:
        if host is not None:
            raise click.UsageError("--all is for this machine, not for --host")
        from usbgate.cli.findings import Machine
        from usbgate.cli.ports import show_ports

        show_ports(load_settings(config), Machine(), as_json)
        return
    with reading(config, host, port) as reader:
        devices = list(map(device_record, reader.fetch("devices")))
    if as_json:
        print_json(devices)
    else:
        print_table(("DEVICE", "STATE", "FOR", "PATH", "COUNTS"), map(_device_row, devices))
        for device in devices:
            if device["warning"]:
                click.secho(f"{device['name']}: {device['warning']}", fg="yellow")


def _device_row(device: Record) -> Sequence[Cell]:
    counts = ", ".join(f"{name} {number:,}" for name, number in device["counts"].items() if number)
    return device["name"], state_cell(device["state"]), spell_age(device["since"]), device["path"] or "", counts


def state_cell(state: str) -> Cell:
    """
    Return a device's state in its colour.
    """
    return state, STATE_STYLES.get(state, TROUBLE)


@click.command("last")
@daemon_options
@raw_option
@json_option
@sensor_argument("[ID]")
@click.argument("field", metavar="[FIELD]", required=False, type=OneWord())
@pass_config
def last_command(
    config: Path | None,
    sensor: str | None,
    field: str | None,
    port: int | None,
    host: str | None,
    raw: bool,
    as_json: bool,
) -> None:
    """
    Show the newest readings, of all sensors or of one.
    """
    with reading(config, host, port) as reader:
        readings = list(map(reading_record, reader.fetch("last", sensor, field, raw_word(raw))))
        alarming = {
            (alarm["sensor"], alarm["field"])
            for alarm in map(alarm_record, reader.fetch("alarms", sensor))
            if alarm["ended"] is None
        }
    if not readings:
        reader.check_known(sensor, field)
    if as_json:
        print_json(readings)
    elif not readings:
        print_nothing("no reading yet")
    else:
        rows = [
            (
                each["sensor"],
                reader.name(each["sensor"]),
                each["field"],
                (reader.spell_value(each), TROUBLE if (each["sensor"], each["field"]) in alarming else "bold"),
                spell_age(each["at"]),
                each["command"] or "",
                each["device"],
            )
            for each in readings
        ]
        print_table(("ID", "NAME", "FIELD", "VALUE", "AGE", "ANSWERED", "DEVICE"), rows, right=("VALUE",))


@click.command("history")
@daemon_options
@click.option("--since", type=MomentType(), metavar="TIME", help="Only from then on: a time, or an age such as 1d.")
@limit_option(HISTORY_LIMIT)
@raw_option
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV, with the columns of the HTTP API.")
@json_option
@sensor_argument("ID")
@click.argument("field", metavar="[FIELD]", required=False, type=OneWord())
@pass_config
def history_command(
    config: Path | None,
    sensor: str,
    field: str | None,
    since: str | None,
    limit: int | None,
    raw: bool,
    as_csv: bool,
    port: int | None,
    host: str | None,
    as_json: bool,
) -> None:
    """
    Show the stored readings of a sensor, newest last.

    \b
        usbgate history 20
        usbgate history 20 VALUE --since 1d --csv > day.csv

    Without options, the newest 100. For more than 10,000 readings at once, use the HTTP API or the database.
    """
    if as_csv and as_json:
        raise click.UsageError("--csv and --json exclude each other")
    most = limit or (HISTORY_LIMIT if since else None)
    with reading(config, host, port) as reader:
        words = ("history", sensor, field, option("since", since), option("limit", most), raw_word(raw))
        readings = list(map(reading_record, reader.fetch(*words)))
    if not readings:
        reader.check_known(sensor, field)
    if as_json:
        print_json(readings)
    elif as_csv:
        writer = csv.DictWriter(sys.stdout, ("at", "sensor", "field", "device", "value", "text", "command"))
        writer.writeheader()
        for each in readings:
            writer.writerow({key: defused(cell) if isinstance(cell, str) else cell for key, cell in each.items()})
    elif not readings:
        print_nothing("no reading is stored" + (f" since {since}" if since else ""))
    else:
        rows = [
            (
                spell_time(each["at"]),
                each["field"],
                (reader.spell_value(each), "bold"),
                each["command"] or "",
                each["device"],
            )
            for each in readings
        ]
        print_table(("TIME", "FIELD", "VALUE", "ANSWERED", "DEVICE"), rows, right=("VALUE",))
    if limit is None and len(readings) == HISTORY_LIMIT:
        print_nothing(f"only the newest {count(HISTORY_LIMIT, 'reading')} are shown")


@click.command("alarms")
@daemon_options
@click.option("--since", type=MomentType(), metavar="TIME", help="Also those that are over, if they ended after that.")
@limit_option(OTHERS_LIMIT)
@json_option
@sensor_argument("[ID]")
@pass_config
def alarms_command(
    config: Path | None,
    sensor: str | None,
    since: str | None,
    limit: int | None,
    port: int | None,
    host: str | None,
    as_json: bool,
) -> None:
    """
    List the alarms that are active or not acknowledged yet, newest last.

    \b
        usbgate alarms
        usbgate alarms 2 --since 7d

    With --since or --limit, alarms that are over are listed, too. `usbgate acknowledge` acknowledges one.
    """
    most = limit or (OTHERS_LIMIT if since else None)
    with reading(config, host, port) as reader:
        words = ("alarms", sensor, option("since", since), option("limit", most))
        alarms = list(map(alarm_record, reader.fetch(*words)))
    if not alarms:
        reader.check_known(sensor)
    if as_json:
        print_json(alarms)
    elif not alarms:
        print_nothing("no alarm" if most else "no alarm is active, and all are acknowledged")
    else:
        titles = ("ALARM", "SENSOR", "FIELD", "VALUE", "LIMIT", "RAISED", "STATE", "SEEN BY")
        print_table(titles, [_alarm_row(each, reader) for each in alarms], right=("VALUE",))


def _alarm_row(alarm: Record, reader: Reader) -> Sequence[Cell]:
    seen = alarm["acknowledged"]
    return (
        alarm["id"],
        f"{alarm['sensor']} {reader.name(alarm['sensor'])}".strip(),
        alarm["field"],
        reader.spell_value(alarm),
        alarm["condition"],
        spell_time_briefly(alarm["since"]),
        ("active", TROUBLE) if alarm["ended"] is None else f"ended {spell_age(alarm['ended'], 1)} ago",
        ("nobody", "yellow") if seen is None else f"{seen['by']} {spell_age(seen['at'], 1)} ago",
    )


@click.command("requests")
@daemon_options
@limit_option(OTHERS_LIMIT)
@json_option
@sensor_argument("[ID]")
@pass_config
def requests_command(
    config: Path | None, sensor: str | None, limit: int | None, port: int | None, host: str | None, as_json: bool
) -> None:
    """
    Show the stored requests, newest last: who asked what, and how it ended; and what else somebody did, or was denied.

    Without --limit, the newest 100.
    """
    with reading(config, host, port) as reader:
        requests = list(map(request_record, reader.fetch("requests", sensor, option("limit", limit))))
    if not requests:
        reader.check_known(sensor)
    if as_json:
        print_json(requests)
    elif not requests:
        print_nothing("no request is stored")
    else:
        rows = [
            (
                spell_time(each["at"]),
                each["sensor"] or "",
                each["command"],
                each["arguments"] or "",
                spell_asker(each["origin"], each["client"]),
                (each["outcome"], "" if each["outcome"] in ("answered", "recent", "done") else "yellow"),
                f"{each['latency_ms']:,.1f} ms",
                each["device"] or "",
            )
            for each in requests
        ]
        titles = ("TIME", "ID", "COMMAND", "ARGUMENTS", "ASKED BY", "OUTCOME", "TOOK", "DEVICE")
        print_table(titles, rows, right=("TOOK",))


def spell_asker(origin: str, client: str) -> str:
    """
    Return who asked.
    """
    # The name of a token, or a user, says more than an address; that of the local token says nothing.
    who = client.rpartition("@")[0]
    return origin if who in ("", "local", origin) else f"{origin} ({who})"


@click.command("malformed")
@daemon_options
@json_option
@pass_config
def malformed_command(config: Path | None, port: int | None, host: str | None, as_json: bool) -> None:
    """
    Show the last lines that were malformed or damaged, with the reasons, newest last.
    """
    with reading(config, host, port) as reader:
        lines = list(map(malformed_record, reader.fetch("malformed")))
    if as_json:
        print_json(lines)
    elif not lines:
        print_nothing("no line was malformed")
    else:
        rows = [(spell_time(each["at"]), each["source"], (each["reason"], "yellow"), each["text"]) for each in lines]
        print_table(("TIME", "FROM", "REASON", "LINE"), rows)


@click.command("ping")
@daemon_options
@pass_config
def ping_command(config: Path | None, port: int | None, host: str | None) -> None:
    """
    Check that usbgate replies.
    """
    with closing(reach_running(config, host, port)) as connection:
        list(send_word(connection, "ping", TIMEOUT))
    click.echo("usbgate replies")
