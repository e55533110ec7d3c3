"""
`usbgate token`: give other programs, people and machines rights, and take them back.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from usbgate.cli.group import Duration, PlainGroup, pass_config
from usbgate.cli.reach import load_settings
from usbgate.cli.reader import json_option, print_json, print_nothing
from usbgate.cli.running import state_option
from usbgate.cli.tables import Cell, print_table, spell_time

if TYPE_CHECKING:
    from usbgate.access.tokens import Token, TokenFile

LAST = 253_402_300_799_999  # the end of the year 9999, with which dates end, in milliseconds since 1970

ROLES = ("read", "ask", "command", "admin")


@click.group("token", cls=PlainGroup)
def token_command() -> None:
    """
    Add, list and remove tokens, which give a role to whoever has them.

    A running daemon knows of a change at once.
    """


@token_command.command("add")
@click.argument("name")
@click.option("--role", type=click.Choice(ROLES), required=True, help="What it permits; each includes those before.")
@click.option("--sensors", metavar="ID,…", help="Only for these sensors, such as 20,21.  [default: all]")
@click.option("--expires", type=Duration(1), metavar="DURATION", help="For how long, such as 90d.  [default: for ever]")
@state_option
@pass_config
def add_command(
    config: Path | None, state: str | None, name: str, role: str, sensors: str | None, expires: float | None
) -> None:
    """
    Make a token, and print it, once: only its hash is kept.

    \b
        usbgate token add phone --role command --expires 90d

    NAME says who has it: the record of requests shows it. With --sensors, other sensors are neither listed nor
    answered.
    """
    from usbgate.access.tokens import NAME, Token, TokensUnreadable, digest, new_secret

    if not NAME.fullmatch(name):
        raise click.UsageError(
            "a name has 1 to 32 letters, digits, dots and hyphens; `local`, `mqtt` and `uid` with a number are taken"
        )
    secret = new_secret()
    now = round(time.time() * 1000)
    end = None if expires is None else now + round(expires * 1000)
    if end is not None and end > LAST:
        raise click.UsageError("--expires: after the year 9999; leave it out, and the token is for ever")
    token = Token(
        name=name,
        role=role,  # type: ignore[arg-type]  # click has checked it
        sha256=digest(secret),
        created=now,
        expires=end,
        sensors=None if sensors is None else _parse_sensors(sensors, role),
    )
    try:
        _tokens(config, state, create=True).add(token)
    except (ValueError, TokensUnreadable) as error:
        raise click.ClickException(str(error)) from None
    click.echo(secret)


@token_command.command("list")
@state_option
@json_option
@pass_config
def list_command(config: Path | None, state: str | None, as_json: bool) -> None:
    """
    List the tokens; what they are is not known.
    """
    from usbgate.access.tokens import TokensUnreadable
    from usbgate.core.fieldline import format_time

    try:
        tokens = _tokens(config, state).tokens
    except TokensUnreadable as error:
        raise click.ClickException(str(error)) from None
    records = [
        {
            "name": each.name,
            "role": each.role,
            "sensors": each.sensors,
            "created": format_time(each.created),
            "expires": None if each.expires is None else format_time(each.expires),
        }
        for each in tokens
    ]
    if as_json:
        print_json(records)
    elif not records:
        print_nothing("there are no tokens; `usbgate token add` makes one")
    else:
        now = round(time.time() * 1000)
        rows = [
            (each.name, each.role, _spell_sensors(each), _spell(each.created), _spell_end(each, now)) for each in tokens
        ]
        print_table(("NAME", "ROLE", "SENSORS", "CREATED", "EXPIRES"), rows)


@token_command.command("remove")
@click.argument("name")
@state_option
@pass_config
def remove_command(config: Path | None, state: str | None, name: str) -> None:
    """
    Remove a token. Connections that have it are closed within a second.
    """
    from usbgate.access.tokens import TokensUnreadable

    try:
        _tokens(config, state).remove(name)
    except KeyError:
        raise click.ClickException(f"there is no token {name}") from None
    except TokensUnreadable as error:
        raise click.ClickException(str(error)) from None
    click.echo(f"{name} is removed")


def _parse_sensors(text: str, role: str) -> tuple[str, ...]:
    from usbgate.core.fieldline import is_sensor_id

    names = tuple(dict.fromkeys(name.strip() for name in text.split(",")))
    for name in names:
        if not is_sensor_id(name):
            raise click.UsageError(f"--sensors: not a sensor id: {name!r}")
    if role == "admin":
        raise click.UsageError("--sensors: the role admin is for all sensors")
    return names


def _spell_sensors(token: Token) -> str:
    return "all" if token.sensors is None else ",".join(token.sensors)


def _spell(at: int) -> str:
    from usbgate.core.fieldline import format_time

    return spell_time(format_time(at))


def _spell_end(token: Token, now: int) -> Cell:
    if token.expires is None:
        return "never"
    end = _spell(token.expires)
    return end if token.is_valid(now) else (f"{end} (expired)", "red")


def _tokens(config: Path | None, state: str | None, create: bool = False) -> TokenFile:
    from usbgate.access.tokens import TokenFile

    folder = load_settings(config, state=state).state
    try:
        if create:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise click.ClickException(f"the state folder {folder} cannot be used: {error.strerror}") from None
    return TokenFile(folder)
