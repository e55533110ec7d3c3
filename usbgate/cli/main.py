"""
The command `usbgate`: ask a sensor, see what the daemon knows, simulate a flat, see a demo.

Whatever is wrong is one line on standard error and an exit status, never a traceback.
"""

from __future__ import annotations

import sys
from contextlib import closing
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from usbgate import __version__
from usbgate.cli.autostart import DaemonStarter, environment, twistd_arguments
from usbgate.cli.connection import (
    Address,
    AskError,
    Connection,
    ConnectionLost,
    NoDaemon,
    ask,
    ask_word,
    connect,
    say_word,
    spell,
)
from usbgate.core.errors import Malformed
from usbgate.core.fieldline import LINE_LIMIT, format_number, is_key, parse
from usbgate.core.messages import TIMEOUT_RANGE, parse_request

if TYPE_CHECKING:
    from usbgate.config.settings import Settings

USAGE = 64  # EX_USAGE of sysexits.h: 2 would be a status of grep's, not of a wrong option
INTERRUPTED = 130  # what a shell says of a command that ^C ended
NOT_FOUND, NOT_EXECUTABLE = 127, 126  # what it says of one that can't be run

PORT = 50007  # the original's
TIMEOUT = 10.0  # seconds, the daemon's own default
MARGIN = 5.0  # seconds that the daemon gets beyond the time limit to say that it has passed


class PlainGroup(click.Group):
    """
    A click group that says every error in one line.
    """

    def main(self, *args: Any, **extra: Any) -> Any:
        """
        Run the command, and exit with its status.
        """
        extra["standalone_mode"] = False
        try:
            status = super().main(*args, **extra)
        except click.UsageError as error:
            where = f" (see {error.ctx.command_path} --help)" if error.ctx else ""
            complain(error.format_message() + where)
            status = USAGE
        except click.ClickException as error:
            complain(error.format_message())
            status = 1
        except AskError as error:
            complain(str(error))
            status = error.status
        except click.Abort:
            status = INTERRUPTED
        sys.exit(status)

    def invoke(self, ctx: click.Context) -> Any:
        """
        Run the command that was chosen; Ctrl-C ends it without a word.
        """
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:  # click itself would say an empty line
            sys.exit(INTERRUPTED)


def complain(text: str) -> None:
    """
    Say on standard error, in one line, what is wrong.
    """
    click.echo("usbgate: " + " ".join(text.split()), err=True)


@click.group(cls=PlainGroup, invoke_without_command=True)
@click.option(
    "--config",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="The daemon's configuration: says where it listens and how to start it.",
)
@click.version_option(__version__, prog_name="usbgate")
@click.pass_context
def main(context: click.Context, config: Path | None) -> None:
    """
    Talk to usbgate, the daemon that owns the serial port (started by itself, or as `twistd usbgate`).
    """
    context.obj = config
    if context.invoked_subcommand is None:
        click.echo(context.get_help(), err=True)
        context.exit(USAGE)


_port_option = click.option(
    "-p", "port", type=click.IntRange(1, 65535), help="Port of the daemon.  [default: the configuration's, else 50007]"
)


@main.command("ask")
@click.option("-s", "command", metavar="COMMAND", help="The command; without it, the daemon's own default.")
@click.option("-i", "sensor", metavar="ID", help="The sensor.")
@click.option("-o", "origin", metavar="ORIGIN", help="Who asks; without it, the daemon puts this machine's address.")
@_port_option
@click.option("--host", metavar="HOST", help="Another machine; no daemon is ever started there.")
@click.option(
    "--timeout",
    type=click.FloatRange(*TIMEOUT_RANGE),
    metavar="SECONDS",
    help="How long to wait for the answer.  [default: the sensor's setting, else 10]",
)
@click.option("--max-age", type=click.FloatRange(0), metavar="SECONDS", help="An answer this old will do.")
@click.argument("words", nargs=-1, metavar="[ID] [COMMAND] [KEY=VALUE]...")
@click.pass_obj
def ask_command(
    config: Path | None,
    words: tuple[str, ...],
    sensor: str | None,
    command: str | None,
    origin: str | None,
    port: int | None,
    host: str | None,
    timeout: float | None,
    max_age: float | None,
) -> None:
    """
    Ask a sensor, and print what usbgate received and the answer.

    \b
        usbgate ask -s J -i 20 -o TOTO     (as the original client)
        usbgate ask 20 J
        usbgate ask 9 L LEVEL=50

    If no daemon runs on this machine, it is started first.

    Without a COMMAND nothing is echoed, and only the answer is printed.

    \b
    Exit status:  0  the answer is there    4  the device is offline
                  1  anything else failed   5  there is no daemon
                  3  no answer in time      64 wrong usage
    """
    fields = _fields(words, sensor, command)
    if origin is not None:
        fields["ORIGIN"] = origin
    if max_age is not None:
        fields["MAXAGE"] = format_number(max_age)
    if timeout is not None:
        fields["TIMEOUT"] = format_number(timeout)
    try:
        request = parse_request({"MSG": "-", **fields}, "-", "-")
    except Malformed as error:
        raise click.UsageError(error.text) from None
    if request.size > LINE_LIMIT:
        raise click.UsageError(f"a request has at most {LINE_LIMIT} bytes")
    if "MSG" not in fields and any(map(str.isspace, "".join(fields.values()))):
        raise click.UsageError("a value with a blank in it needs a command, too")

    if host is not None and not _is_this_machine(host):
        with closing(_reach_there((host, port or PORT))) as connection:
            _print_answer(connection, fields, request.timeout or TIMEOUT)
        return
    settings = _settings(config)
    about = settings.sensors.get(fields["ID"])
    wait = request.timeout or (about and about.timeout) or TIMEOUT
    daemon = DaemonStarter(settings.state, twistd_arguments(settings.state, settings.file), environment(settings.state))
    with closing(_reach_here(settings, daemon, host, port)) as connection:
        try:
            _print_answer(connection, fields, wait)
        except ConnectionLost:
            daemon.check_death()
            raise


# The daemon's words that only tell: what each is for, and its arguments.
TELLING = {
    "devices": ("List the devices: where they are, their state, what is doubtful.", ""),
    "sensors": ("List the known sensors.", ""),
    "status": ("Tell how the daemon is.", ""),
    "last": ("Tell the newest readings.", "[ID [FIELD]]"),
    "noise": ("Tell the last malformed lines and why they are.", ""),
}


def _add_word(name: str, summary: str, usage: str) -> None:
    @_port_option
    @click.option("--host", metavar="HOST", help="Another machine.")
    @click.pass_obj
    def command(config: Path | None, port: int | None, host: str | None, arguments: tuple[str, ...] = ()) -> None:
        words = [name, *arguments]
        if any(word.split() != [word] for word in words):
            raise click.UsageError("an argument has no blank in it")
        with closing(_reach_running(config, host, port)) as connection:
            for line in say_word(connection, " ".join(words), TIMEOUT):
                click.echo(line)

    if usage:
        command = click.argument("arguments", nargs=-1, metavar=usage)(command)
    main.command(name, help=f"{summary} Prints field lines; no daemon is started for it.")(command)


for _name, _about in TELLING.items():
    _add_word(_name, *_about)


@main.command("lend", context_settings={"allow_interspersed_args": False})
@_port_option
@click.argument("device")
@click.argument("program", nargs=-1, required=True, type=click.UNPROCESSED, metavar="-- PROGRAM [ARGUMENT]...")
@click.pass_obj
def lend_command(config: Path | None, port: int | None, device: str, program: tuple[str, ...]) -> None:
    """
    Run a program that needs the port of a device for itself, such as one that flashes the board.

    \b
        usbgate lend leonardo -- avrdude -c avr109 -p m32u4 -P {} -U flash:w:sketch.hex

    The daemon lets go of the port, and takes it back when the program has ended, however that was. {} becomes the
    path of the port, which is in the variable USBGATE_PORT, too. The status is the program's.
    """
    from usbgate.cli.lend import run

    if program[0] == "--":
        program = program[1:]
    if not program:
        raise click.UsageError("which program? say -- PROGRAM")
    if device.split() != [device]:
        raise click.UsageError("a device's name has no blank in it")
    with closing(_reach_running(config, None, port)) as connection:
        (lease,) = say_word(connection, f"lend {device}", TIMEOUT)
        try:
            status = run(program, parse(lease.encode())["PORT"])
        except OSError as error:
            complain(f"{program[0]}: {error.strerror}")
            status = NOT_FOUND if isinstance(error, FileNotFoundError) else NOT_EXECUTABLE
    sys.exit(status)


def _print_answer(connection: Connection, fields: dict[str, str], wait: float) -> None:
    if "MSG" in fields:
        lines = ask(connection, fields, wait + MARGIN)
        click.echo(f"Received {next(lines)!r}")
        click.echo(next(lines))
    else:
        sensor, *options = fields.items()
        words = [sensor[1], *[f"{key}={value}" for key, value in options]]
        click.echo(ask_word(connection, " ".join(words), wait + MARGIN))


def _fields(words: tuple[str, ...], sensor: str | None, command: str | None) -> dict[str, str]:
    rest = list(words)
    if sensor is None:
        if not rest:
            raise click.UsageError("which sensor? say -i ID")
        sensor = rest.pop(0)
    if command is None and rest and "=" not in rest[0]:
        command = rest.pop(0)
    fields = {"ID": sensor} if command is None else {"MSG": command, "ID": sensor}
    for word in rest:
        key, equals, value = word.partition("=")
        if not equals or not is_key(key):
            raise click.UsageError(f"expected KEY=VALUE, got {word!r}")
        if key.upper() in fields:
            raise click.UsageError(f"{key.upper()} is given twice")
        fields[key.upper()] = value
    return fields


def _is_this_machine(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _settings(config: Path | None, database: str | None = None, state: str | None = None) -> Settings:
    from usbgate.config.load import load
    from usbgate.config.types import ConfigError

    try:
        return load(config, database=database, state=state)
    except ConfigError as error:
        raise click.ClickException(str(error)) from None


def _reach_here(settings: Settings, daemon: DaemonStarter, host: str | None, port: int | None) -> Connection:
    from usbgate.config.endpoints import local_addresses

    listens = local_addresses(settings.listen)
    address = _choose(listens, host, port)
    if any(_same(address, other) for other in listens):
        return daemon.reach(address)
    connection = connect(address)
    if connection is None:
        raise NoDaemon(
            f"no daemon listens on {spell(address)}, and none is started,"
            f" since {settings.file or 'the default'} has it listen on {', '.join(settings.listen)}"
        )
    return connection


def _reach_running(config: Path | None, host: str | None, port: int | None) -> Connection:
    from usbgate.config.endpoints import local_addresses

    if host is not None and not _is_this_machine(host):
        return _reach_there((host, port or PORT))
    address = _choose(local_addresses(_settings(config).listen), host, port)
    connection = connect(address)
    if connection is None:
        raise NoDaemon(f"no daemon listens on {spell(address)}; `usbgate ask` and `twistd usbgate` start one")
    return connection


def _choose(listens: list[Address], host: str | None, port: int | None) -> Address:
    if host is None and port is None and listens:
        return listens[0]
    if host is None:
        for address in listens:
            if not isinstance(address, str) and address[1] == port:
                return address
    return host or "127.0.0.1", port or PORT


def _same(address: Address, other: Address) -> bool:
    # All names of this machine's own are one: which of them a port is bound to is seen when it is there.
    if isinstance(address, str) or isinstance(other, str):
        return address == other
    return address[1] == other[1]


def _reach_there(address: Address) -> Connection:
    connection = connect(address)
    if connection is None:
        raise NoDaemon(f"no daemon listens on {spell(address)}, and none is started on another machine")
    return connection


@main.command("simulate")
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--seed", type=int, default=None, help="Behave the same every time.")
@click.option("--rate", type=click.FloatRange(0, 1e6), default=None, metavar="N", help="Unasked readings a second.")
@click.option(
    "--noise", type=click.FloatRange(0, 1), default=0.0, metavar="SHARE", help="Garbage before this share of lines."
)
@click.option("--mute", is_flag=True, help="Never answer.")
def simulate_command(path: Path, seed: int | None, rate: float | None, noise: float, mute: bool) -> None:
    """
    Be a flat full of sensors behind an Arduino, on a pty that PATH points to, until Ctrl-C.
    """
    from twisted.internet import reactor

    from usbgate.simulator.home import RATE, Home
    from usbgate.simulator.service import SimulatorError, run

    try:
        run(reactor, path, Home(seed, rate=RATE if rate is None else rate, noise=noise, mute=mute))
    except SimulatorError as error:
        raise click.ClickException(str(error)) from None


@main.command("correct-clock")
@click.option("--database", metavar="URL", help="The database.  [default: the configuration's]")
@click.option("--state", metavar="DIR", help="The daemon's state folder, where the embedded database is.")
@click.option("--dry-run", is_flag=True, help="Only say what would be moved.")
@click.pass_obj
def correct_clock_command(config: Path | None, database: str | None, state: str | None, dry_run: bool) -> None:
    """
    Correct the times of what was stored before this machine's clock was right.

    A computer without a clock of its own starts in 1970, or where it was switched off, until it has found a time
    server. What was stored by then has `clock` false. Its order and its distances in time are right all the same, so
    it is moved as a whole, by as much as the clock proved to be wrong at the nearest moment of the same start of the
    machine at which it was right. The daemon may go on storing meanwhile. To run it again does no harm.
    """
    from usbgate.cli.correct_clock import CorrectionFailed, correct, find_database

    settings = _settings(config, database, state)
    try:
        correct(find_database(settings), settings.gateway, dry_run, click.echo)
    except CorrectionFailed as error:
        raise click.ClickException(str(error)) from None


@main.command("demo")
@click.option("--seed", type=int, default=None, help="Simulate the same flat every time.")
@click.pass_obj
def demo_command(config: Path | None, seed: int | None) -> None:
    """
    See all of it at work, with a simulated Arduino and a database that is gone afterwards; Ctrl-C ends it.
    """
    from usbgate.cli.demo import run

    sys.exit(run(seed))


if __name__ == "__main__":
    main()
