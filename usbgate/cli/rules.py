"""
`usbgate rules`: list the rules, and test them with stored readings.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING

import click

from usbgate.cli.group import MomentType, PlainGroup, pass_config
from usbgate.cli.reach import load_settings
from usbgate.cli.reader import daemon_options, json_option, print_json, print_nothing, reading
from usbgate.cli.records import Record, rule_record
from usbgate.cli.tables import Cell, count, print_table, spell_age, spell_time
from usbgate.core.fieldline import format_time
from usbgate.core.units import parse_moment

if TYPE_CHECKING:
    from usbgate.config.settings import Settings
    from usbgate.core.model import Reading
    from usbgate.rules.ruleset import Firing
    from usbgate.rules.settings import RuleSettings

# In the order in which they were received. What a successor sent before it replaced a sensor is the sensor's.
_READINGS = """
    select round(date_part('epoch', reading.at) * 1000)::bigint, reading.device,
        coalesce(replacement.sensor, reading.sensor), field, value, text, command, clock
    from usbgate.reading as reading left join usbgate.replacement as replacement
        on replacement.gateway = reading.gateway and replacement.successor = reading.sensor
        and reading.seq < replacement.seq and reading.at >= replacement.since
    where reading.gateway = %s and coalesce(replacement.sensor, reading.sensor) = any(%s)
        and reading.at >= timestamptz 'epoch' + %s * interval '1 ms'
    order by reading.seq
"""

_STATES: dict[bool | None, Cell] = {None: ("unknown", "yellow"), False: "no", True: ("yes", "bold")}


@click.group("rules", cls=PlainGroup, invoke_without_command=True)
@daemon_options
@json_option
@click.pass_context
def rules_command(context: click.Context, port: int | None, host: str | None, as_json: bool) -> None:
    """
    List the rules, whether their conditions hold, and when they fired last.
    """
    if context.invoked_subcommand is not None:
        return
    with reading(context.obj, host, port) as reader:
        rules = list(map(rule_record, reader.fetch("rules")))
    if as_json:
        print_json(rules)
    elif not rules:
        print_nothing("no rule is configured, or this client may not see all sensors")
    else:
        titles = ("RULE", "HOLDS", "FIRED", "LAST", "WAITING", "WHEN")
        print_table(titles, map(_row, rules), right=("FIRED", "WAITING"))
        for rule in rules:
            if rule["trouble"]:
                click.secho(f"{rule['name']}: {rule['trouble']}", fg="yellow")
            if rule["dropped"]:
                click.secho(
                    f"{rule['name']}: {count(rule['dropped'], 'action')} dropped, since too many waited", fg="red"
                )


def _row(rule: Record) -> Sequence[Cell]:
    last = f"{spell_age(rule['last'])} ago" if rule["last"] else "never"
    waiting = (str(rule["waiting"]), "yellow") if rule["waiting"] else ""
    return rule["name"], _STATES[rule["holds"]], f"{rule['fired']:,}", last, waiting, rule["when"]


@rules_command.command("test")
@click.argument("name", required=False)
@click.option(
    "--since",
    type=MomentType(),
    default="7d",
    show_default=True,
    metavar="TIME",
    help="From then on: a time, or an age.",
)
@click.option("--database", metavar="URL", help="The database.  [default: the one in the configuration]")
@click.option("--state", metavar="DIR", help="The daemon's state folder, which contains the embedded database.")
@json_option
@pass_config
def test_command(
    config: Path | None, name: str | None, since: str, database: str | None, state: str | None, as_json: bool
) -> None:
    """
    Show when the rules of the configuration would have fired, with the stored readings.

    \b
        usbgate rules test
        usbgate rules test smoke --since 30d

    Nothing is sent. NAME is a single rule. States of devices are not stored, so conditions with them are unknown.
    """
    settings = load_settings(config, database, state)
    rules = _chosen(settings, name)
    now = round(time.time() * 1000)
    start = parse_moment(since, now)
    firings = 0
    records = []
    for firing in _fired(settings, rules, start, now):
        firings += 1
        if as_json:
            records.append(_record(firing))
        else:
            click.echo(_line(firing))
    if as_json:
        print_json(records)
    else:
        print_nothing(f"{count(len(rules), 'rule')}, {count(firings, 'firing')} since {spell_time(format_time(start))}")


def _chosen(settings: Settings, name: str | None) -> Sequence[RuleSettings]:
    found = [rule for rule in settings.rules if name in (None, rule.name)]
    if not found and name is not None:
        near = get_close_matches(name, [rule.name for rule in settings.rules], 1)
        raise click.ClickException(f"no rule is called {name}{f'; did you mean {near[0]}?' if near else ''}")
    if not found:
        raise click.ClickException(f"{settings.file or 'the configuration'} has no tables [[rule]]")
    return found


def _fired(settings: Settings, rules: Sequence[RuleSettings], start: int, now: int) -> Iterator[Firing]:
    from usbgate.cli.database import DatabaseFailed
    from usbgate.core.settings import SensorSettings
    from usbgate.rules.conditions import sensors_of
    from usbgate.rules.replay import replay

    sensors = {
        sensor for rule in rules for sensor in (*sensors_of(rule.when.term), *(each.sensor for each in rule.fields()))
    }
    unconfigured = SensorSettings()
    try:
        yield from replay(
            rules,
            _readings(settings, sorted(sensors), start),
            start,
            now,
            lambda sensor: settings.sensors.get(sensor, unconfigured).stale,
        )
    except DatabaseFailed as error:
        raise click.ClickException(str(error)) from None


def _readings(settings: Settings, sensors: Sequence[str], start: int) -> Iterator[Reading]:
    import psycopg2

    from usbgate.cli.database import DatabaseFailed, connected, find_database
    from usbgate.core.calibration import Calibrations
    from usbgate.core.model import Reading
    from usbgate.daemon.statedir import gateway_name
    from usbgate.store.postgres.names import Schema

    name = gateway_name(settings.state, settings.gateway)
    try:
        # A cursor of the server, so that any number of readings takes little memory.
        with connected(find_database(settings)) as connection, connection.cursor("readings") as cursor:
            cursor.execute(Schema(settings.schema).sql(_READINGS), (name, list(sensors), start))
            calibrations = Calibrations(settings.sensors)
            yield from filter(None, map(calibrations.reading, map(Reading._make, cursor)))
    except (psycopg2.errors.UndefinedTable, psycopg2.errors.InvalidSchemaName):
        raise DatabaseFailed(f"usbgate has stored nothing in the schema {settings.schema}") from None


def _line(firing: Firing) -> str:
    from usbgate.rules.contents import spell

    readings = ", ".join(f"{name.sensor} {name.field} {spell(reading)}" for name, reading in firing.readings.items())
    return f"{spell_time(format_time(firing.moment.wall))}  {firing.rule.name}: {readings or firing.rule.when.text}"


def _record(firing: Firing) -> Record:
    return {
        "at": format_time(firing.moment.wall),
        "rule": firing.rule.name,
        "readings": [
            {"sensor": name.sensor, "field": name.field, "value": reading.value, "text": reading.text}
            for name, reading in firing.readings.items()
        ],
    }
