"""
`usbgate status`: whether all is well, and what was counted.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import click

from usbgate.cli.group import pass_config
from usbgate.cli.reader import daemon_options, json_option, print_json, reading
from usbgate.cli.records import Record, alarm_record, device_record, status_record
from usbgate.cli.show import STATE_STYLES, TROUBLE
from usbgate.cli.tables import Cell, count, print_table, spell_age, spell_duration, spell_size


@click.command("status")
@daemon_options
@json_option
@pass_config
def status_command(config: Path | None, port: int | None, host: str | None, as_json: bool) -> None:
    """
    Show the state of usbgate: devices, database, alarms, and what was counted since it started.
    """
    with reading(config, host, port) as reader:
        status = status_record(reader.fetch("status"))
        devices = list(map(device_record, reader.fetch("devices")))
        alarms = list(map(alarm_record, reader.fetch("alarms")))
    if as_json:
        print_json(status)
    else:
        print_table(("", ""), _rows(status, devices, alarms))


def _rows(status: Record, devices: Sequence[Record], alarms: Sequence[Record]) -> Iterator[tuple[Cell, Cell]]:
    clock = "" if status["clock"] == "trusted" else "; the clock is not trusted"
    yield "usbgate", f"{status['version']}, running for {spell_duration(status['uptime'])}{clock}"
    for device in devices:
        text = f"{device['name']} is {device['state']} for {spell_age(device['since'])}"
        if device["warning"]:
            text += f": {device['warning']}"
        yield "device", (text, STATE_STYLES.get(device["state"], TROUBLE))
    yield "database", _store(status["store"])
    if "journal" in status:
        yield "journal", _journal(status["journal"])
    if "mqtt" in status:
        yield "mqtt", _mqtt(status["mqtt"])
    active = sum(alarm["ended"] is None for alarm in alarms)
    yield "alarms", (f"{active} active, {len(alarms)} open", TROUBLE if active else "")
    yield "sensors", f"{status['sensors']:,}"
    held = f", {status['held']:,} held until a sensor reports" if status["held"] else ""
    yield "requests", f"{_counts(status['requests'])}; {status['inflight']:,} not answered yet{held}"
    yield "malformed", _counts(status["malformed"])
    for device, sensors in status["unsure"].items():
        yield "unsure", (f"{device}: the answers of {', '.join(sensors)} have neither MSG nor TAG", "yellow")
    for each in status["uncompared"]:
        yield "alarm", (f"sensor {each['sensor']}, {each['field']}: {each['text']}", "yellow")
    for each in status["implausible"]:
        readings = count(each["readings"], "reading")
        yield "implausible", (f"sensor {each['sensor']}, {each['field']}: {readings} {each['text']}", "yellow")
    clients = status["clients"]
    now, watching, accepted = (clients[key] for key in ("clients", "watchers", "accepted"))
    yield "clients", f"{now:,} connected, of which {watching:,} watch; {accepted:,} since the start"


def _store(store: Record) -> Cell:
    if store["state"] == "none":
        return "none: nothing is stored"
    text = f"{store['state']}, {count(store['backlog'], 'row')} waiting, {store['rejected']:,} rejected"
    if "oldest" in store:
        text += f", the oldest for {spell_age(store['oldest'])}"
    if "text" in store:
        text += f": {store['text']}"
    return text, "green" if store["state"] == "connected" else TROUBLE


def _journal(journal: Record) -> Cell:
    text = f"{journal['state']}, {count(journal['commits'], 'commit')}, the slowest took {journal['slowest']:.3f} s"
    if "daily" in journal:
        text += f", {spell_size(journal['daily'])} written per day"
    if "lost" in journal:
        text += f", {count(journal['lost'], 'row')} lost"
    if "text" in journal:
        text += f": {journal['text']}"
    return text, "" if journal["state"] == "ok" and "lost" not in journal else TROUBLE


def _mqtt(mqtt: Record) -> Cell:
    text = f"{mqtt['state']}, {mqtt['published']:,} published, {mqtt['dropped']:,} dropped, {mqtt['refused']:,} refused"
    if mqtt["unasked"]:
        text += f", {mqtt['unasked']:,} questions refused"
    if "text" in mqtt:
        text += f": {mqtt['text']}"
    return text, "green" if mqtt["state"] == "connected" else TROUBLE


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{number:,} {what}" for what, number in counts.items()) or "none"
