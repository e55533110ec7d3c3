"""
The command `usbgate`: ask a sensor, show what the daemon knows, simulate a board, run a demo.
"""

from __future__ import annotations

import sys
from contextlib import closing
from pathlib import Path

import click

from usbgate import __version__
from usbgate.cli.connection import TIMEOUT, parse_data, send_word
from usbgate.cli.credentials import token_option
from usbgate.cli.group import EXIT_STATUS, PlainGroup, config_option, pass_config, print_error
from usbgate.cli.reach import load_settings, port_option, reach_running

NOT_FOUND, NOT_EXECUTABLE = 127, 126  # as a shell reports a program that can't be run


# Commands of other modules, each `NAME_command` there. They are imported when they are used, so that `ask` starts fast.
MODULES = {
    "ask": "ask",
    "status": "status",
    "watch": "watch",
    "acknowledge": "acknowledge",
    **dict.fromkeys(("held", "cancel"), "held"),
    "replace": "replace",
    **dict.fromkeys(("sensors", "devices", "last", "history", "alarms", "requests", "malformed", "ping"), "show"),
    **dict.fromkeys(("stop", "restart"), "running"),
    "rules": "rules",
    "token": "token",
    "tls": "tls",
    **dict.fromkeys(("install", "uninstall"), "install"),
    "doctor": "doctor",
    "dialect": "dialect",
    "record": "record",
    "simulate": "simulate",
    "database": "database_commands",
}


@click.group(
    cls=PlainGroup,
    modules=MODULES,
    epilog=EXIT_STATUS,
    context_settings={"help_option_names": ["-h", "--help"]},
)
@config_option
@click.version_option(__version__, prog_name="usbgate")
def main() -> None:
    """
    Talk to usbgate, the daemon that owns the serial port. `usbgate ask` and `twistd usbgate` start it.
    """


@main.command("lend", context_settings={"allow_interspersed_args": False})
@port_option
@token_option
@click.argument("device")
@click.argument("program", nargs=-1, required=True, type=click.UNPROCESSED, metavar="-- PROGRAM [ARGUMENT]...")
@pass_config
def lend_command(config: Path | None, port: int | None, device: str, program: tuple[str, ...]) -> None:
    """
    Run a program that needs a device's port.

    \b
        usbgate lend leonardo -- avrdude -c avr109 -p m32u4 -P {} -U flash:w:sketch.hex

    The daemon closes the port, and opens it again when the program has ended, however it ended. {} is replaced by the
    path of the port, which is also in the environment variable USBGATE_PORT. The exit status is the program's.
    """
    from usbgate.cli.lend import run

    if program[0] == "--":
        program = program[1:]
    if not program:
        raise click.UsageError("missing program: use -- PROGRAM")
    if device.split() != [device]:
        raise click.UsageError("a device's name cannot contain whitespace")
    with closing(reach_running(config, None, port)) as connection:
        (lease,) = send_word(connection, f"lend {device}", TIMEOUT)
        try:
            status = run(program, parse_data(lease)["PORT"])
        except OSError as error:
            print_error(f"{program[0]}: {error.strerror}")
            status = NOT_FOUND if isinstance(error, FileNotFoundError) else NOT_EXECUTABLE
    sys.exit(status)


@main.command("correct-clock")
@click.option("--database", metavar="URL", help="The database.  [default: the one in the configuration]")
@click.option("--state", metavar="DIR", help="The daemon's state folder, which contains the embedded database.")
@click.option("--dry-run", is_flag=True, help="Only print what would change.")
@pass_config
def correct_clock_command(config: Path | None, database: str | None, state: str | None, dry_run: bool) -> None:
    """
    Correct times that were stored while the clock was wrong.

    A computer without a battery-backed clock starts in 1970, or with the time at which it was switched off, until it
    reaches a time server. Rows stored before that have `clock` false. The intervals between them are right, so all rows
    of a stretch are moved by the error of the clock, which is known once the clock is right in the same boot. The
    daemon can keep running. A second run changes nothing.
    """
    from usbgate.cli.correct_clock import correct
    from usbgate.cli.database import DatabaseFailed, find_database
    from usbgate.daemon.statedir import gateway_name
    from usbgate.store.postgres.names import Schema

    settings = load_settings(config, database, state)
    try:
        name = gateway_name(settings.state, settings.gateway)
        correct(find_database(settings), Schema(settings.schema), name, dry_run, click.echo)
    except DatabaseFailed as error:
        raise click.ClickException(str(error)) from None


@main.command("rejected")
@click.option("--database", metavar="URL", help="The database.  [default: the one in the configuration]")
@click.option("--state", metavar="DIR", help="The daemon's state folder, which contains the journal.")
@click.option("--retry", is_flag=True, help="Try to store the rows again, under their old numbers.")
@click.option(
    "--export", "form", type=click.Choice(["json", "csv"]), help="Write the rows in this format to standard output."
)
@pass_config
def rejected_command(
    config: Path | None, database: str | None, state: str | None, retry: bool, form: str | None
) -> None:
    """
    List the rows that the database refused.

    usbgate sets single rows aside if the database refuses their data: because of a constraint, for example, or an
    encoding other than UTF-8. Remove the reason, then use --retry: rows that are stored leave the list. The daemon can
    keep running. The exit status of --retry is 1 if a row is left.
    """
    from usbgate.cli import rejected
    from usbgate.cli.database import DatabaseFailed, find_database
    from usbgate.daemon.statedir import gateway_name
    from usbgate.store.journal.rejected import JournalUnreadable, RejectedRows
    from usbgate.store.postgres.names import Schema

    if retry and form:
        raise click.UsageError("--retry and --export exclude each other")
    settings = load_settings(config, database, state)
    try:
        with closing(RejectedRows(settings.state / "journal.sqlite")) as rows:
            if form is not None:
                rejected.export(rows, form, sys.stdout)
            elif not retry:
                rejected.show(rows, click.echo)
            else:
                name = gateway_name(settings.state, settings.gateway)
                if not rejected.retry(rows, find_database(settings), Schema(settings.schema), name, click.echo):
                    sys.exit(1)
    except (DatabaseFailed, JournalUnreadable) as error:
        raise click.ClickException(str(error)) from None


@main.command("demo")
@click.option("--seed", type=int, default=None, help="Simulate the same home in every run with this seed.")
def demo_command(seed: int | None) -> None:
    """
    Run a demonstration, until Ctrl-C.

    It consists of a simulated Arduino, the daemon and a temporary database.
    """
    from usbgate.cli.demo import run

    sys.exit(run(seed))


if __name__ == "__main__":
    main()
