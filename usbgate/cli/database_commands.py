"""
`usbgate database`: let others read the database, and move it.
"""

from __future__ import annotations

from pathlib import Path

import click

from usbgate.cli.group import PlainGroup, pass_config
from usbgate.cli.reach import load_settings
from usbgate.core.connstring import NO_PASSWORD, has_password


@click.group("database", cls=PlainGroup)
def database_command() -> None:
    """
    Let a web site or Grafana read the database, or move it.
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


@database_command.command("revoke")
@click.argument("name")
@click.option("--state", metavar="DIR", help="The daemon's state folder, which contains the embedded database.")
@pass_config
def revoke_command(config: Path | None, name: str, state: str | None) -> None:
    """
    Remove the role NAME, which `usbgate database grant` created, and end its connections.
    """
    from usbgate.cli.database import DatabaseFailed, find_database
    from usbgate.cli.grant import revoke
    from usbgate.store.embedded.postmaster import PORT_FILE, read_port

    settings = load_settings(config, state=state)
    try:
        left = revoke(find_database(settings), name)
    except DatabaseFailed as error:
        raise click.ClickException(str(error)) from None
    click.echo(f"{name} can no longer read." + (f" Others can: {', '.join(left)}." if left else ""))
    folder = settings.state / "postgres"
    if not left and settings.database == "embedded" and (port := read_port(folder)) is not None:
        click.echo(f"Nobody needs port {port} any more: to close it, rm {folder / PORT_FILE}, and restart usbgate.")


@database_command.command("move")
@click.argument("url")
@click.option("--state", metavar="DIR", help="The daemon's state folder, which contains the embedded database.")
@click.option("-W", "--password", "ask", is_flag=True, help="Ask for the password of USER.")
@pass_config
def move_command(config: Path | None, url: str, state: str | None, ask: bool) -> None:
    """
    Move everything from the embedded database to another PostgreSQL server, while the daemon runs.

    URL is postgresql://USER@HOST/DATABASE, of an existing database in which USER may create a schema. Its password is
    asked for with -W, or comes from ~/.pgpass, PGPASSFILE or PGPASSWORD; the daemon keeps it with the URL. Nothing that
    comes meanwhile is lost: the daemon stores there from the moment at which all is copied. If the command is
    interrupted, run it again; it continues where it was. The old database is kept. Until the end, do not run
    correct-clock or rejected --retry.
    """
    from psycopg2.extensions import make_dsn

    from usbgate.cli.database import DatabaseFailed, connected, find_database
    from usbgate.cli.move import RANGE, Move, await_daemon, complete, keep
    from usbgate.store.postgres.names import Schema

    if has_password(url):
        raise click.ClickException(f"the URL {NO_PASSWORD}, or use -W")
    settings = load_settings(config, state=state)
    if settings.database != "embedded":
        raise click.ClickException("the daemon does not store in the embedded database; nothing to move")
    target = load_settings(config, database=url, state=state).database
    if ask:
        target = make_dsn(target, password=click.prompt("Password", hide_input=True))
    try:
        with connected(find_database(settings)) as old, connected(target) as new:
            move = Move(old, new, Schema(settings.schema))
            move.prepare()
            with click.progressbar(length=move.left, label="copying") as bar:
                while move.left > RANGE:
                    move.copy(bar.update)
                    move.look()
                move.finish(bar.update, lambda: keep(settings.state, complete(target, new)))
            connects = await_daemon(new)
    except DatabaseFailed as error:
        raise click.ClickException(str(error)) from None
    click.echo(
        f"All is there, and the daemon stores there{'' if connects else ' as soon as it connects: see its log'}."
    )
    click.echo(f"The old database in {settings.state}/postgres is kept. Restart usbgate, and it no longer runs.")
    click.echo('To say so in the configuration, too: database = "URL". Roles that may read must be granted anew.')
