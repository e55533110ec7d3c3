"""
`usbgate database`: let others read the database, and move it.
"""

from __future__ import annotations

from pathlib import Path

import click

from usbgate.cli.group import pass_config
from usbgate.cli.reach import load_settings


@click.group("database")
def database_command() -> None:
    """
    Let a web site or Grafana read the database.
    """


@database_command.command("grant")
@click.argument("name")
@click.option("--state", metavar="DIR", help="The daemon's state folder, which contains the embedded database.")
@click.option(
    "--port",
    type=click.IntRange(1024, 65535),
    metavar="PORT",
    help="Let the embedded database listen on this port, too, for programs on this machine.",
)
@pass_config
def grant_command(config: Path | None, name: str, state: str | None, port: int | None) -> None:
    """
    Create the role NAME, which may read everything and change nothing, and print its connection string.

    The embedded database listens on a socket that only its own user and root can reach. With --port, it also listens on
    a port of this machine, with a password; its server restarts for that, and readings wait in the journal meanwhile.
    For a role that exists already, a new password replaces the old one.
    """
    from usbgate.cli.database import DatabaseFailed, find_database
    from usbgate.cli.grant import grant, open_port
    from usbgate.store.postgres.names import Schema

    settings = load_settings(config, state=state)
    embedded = settings.database == "embedded"
    if port is not None and not embedded:
        raise click.UsageError("--port is for the embedded database only")
    try:
        dsn = find_database(settings)
        place = None if settings.measures is None else ".".join(settings.measures)
        granted = grant(dsn, Schema(settings.schema), place, name, with_password=not embedded or port is not None)
        if port is not None:
            granted = open_port(settings, granted, port)
    except DatabaseFailed as error:
        raise click.ClickException(str(error)) from None
    click.echo(granted)
    if embedded and port is None:
        click.echo(
            f"Only root and the owner of {settings.state} can reach this socket; for others, use --port.", err=True
        )
