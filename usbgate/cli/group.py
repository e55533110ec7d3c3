"""
What all commands have in common: errors in one line, exit statuses, and types of options.

Whatever is wrong is one line on standard error and an exit status, never a traceback.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from difflib import get_close_matches
from importlib import import_module
from io import TextIOWrapper
from pathlib import Path
from typing import Any, NoReturn, TypeVar, cast

import click

from usbgate.cli.connection import AskError
from usbgate.core.units import parse_duration, parse_moment

EXIT_STATUS = """
\b
Exit status:
  0   done                  5    no daemon runs
  1   any other failure     64   wrong usage
  3   no answer in time     130  ended by Ctrl-C
  4   the device is offline
"""

ALIASES = {"noise": "malformed"}  # older names of commands

_Command = TypeVar("_Command", bound=Callable[..., Any])

USAGE = 64  # EX_USAGE of sysexits.h; 2, click's own, is also an error of grep and diff
INTERRUPTED = 130  # as a shell reports a command that Ctrl-C ended


class PlainGroup(click.Group):
    """
    A click group that prints every error as one line, and in its help every command's first sentence whole.
    """

    def __init__(self, *args: Any, modules: Mapping[str, str] | None = None, **extra: Any) -> None:
        """
        Args:
            args: As for click.
            modules: Further commands: their names, and the module of `usbgate.cli` with `NAME_command`.
            extra: As for click.
        """
        super().__init__(*args, **extra)
        self._modules = modules or {}

    def list_commands(self, ctx: click.Context) -> list[str]:
        """
        Return the names of all commands, sorted.
        """
        return sorted({*self.commands, *self._modules})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """
        Return a command by its name, or by an older one; import its module if necessary.
        """
        name = ALIASES.get(cmd_name, cmd_name)
        if name in self._modules and name not in self.commands:
            self.add_command(getattr(import_module(f"usbgate.cli.{self._modules[name]}"), f"{name}_command"))
        return super().get_command(ctx, name)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """
        Find the command that the arguments name; if there is none, suggest those with a similar name.
        """
        name = args[0]
        if not ctx.resilient_parsing and not name.startswith("-") and self.get_command(ctx, name) is None:
            alike = " or ".join(get_close_matches(name, self.list_commands(ctx)))
            raise click.UsageError(f"No such command {name!r}.{f' Did you mean {alike}?' if alike else ''}", ctx)
        return super().resolve_command(ctx, args)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """
        Parse the arguments; if there are none, but a command must be chosen, print the help as it is, and fail.
        """
        if not args and not ctx.resilient_parsing and not self.invoke_without_command:
            click.echo(ctx.get_help(), err=True)
            ctx.exit(USAGE)
        return super().parse_args(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """
        List the commands; click would cut what does not fit into one line.
        """
        with formatter.section("Commands"):
            commands = ((name, self.get_command(ctx, name)) for name in self.list_commands(ctx))
            formatter.write_dl([(name, command.get_short_help_str(1000)) for name, command in commands if command])

    def main(self, *args: Any, **extra: Any) -> NoReturn:
        """
        Run the command, and exit with its status.
        """
        extra["standalone_mode"] = False
        for name in ("stdout", "stderr"):
            if getattr(sys, name) is None:  # it was closed: `>&-`
                setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115  # until the end
            stream = getattr(sys, name)
            if isinstance(stream, TextIOWrapper):  # in a test it may be something else
                stream.reconfigure(errors="replace")  # a terminal may not have the degree sign
        try:
            status = super().main(*args, **extra)
        except click.UsageError as error:
            where = f" (see {error.ctx.command_path} --help)" if error.ctx else ""
            print_error(error.format_message() + where)
            status = USAGE
        except click.ClickException as error:
            print_error(error.format_message())
            status = 1
        except AskError as error:
            print_error(f"{error}; {error.remedy}" if error.remedy else str(error))
            status = error.status
        except click.Abort:
            status = INTERRUPTED
        except OSError as error:
            status = _output_failed(error)
        try:
            sys.stdout.flush()
        except OSError as error:
            status = status or _output_failed(error)
            with suppress(OSError, ValueError):  # so that Python does not try again at its end
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(status)

    def invoke(self, ctx: click.Context) -> Any:
        """
        Run the chosen command; Ctrl-C ends it and prints nothing.
        """
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:  # click itself would print an empty line
            sys.exit(INTERRUPTED)


def _output_failed(error: OSError) -> int:
    if not isinstance(error, BrokenPipeError):  # nobody reads it any more
        print_error(f"{error.filename or 'output'}: {error.strerror or error}")
    return 1


class Duration(click.FloatRange):
    """
    A duration in the grammar of `usbgate.core.units`; its value, and its limits, are in seconds.
    """

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """
        Return the seconds; anything else, or outside the limits, is a usage error.
        """
        try:
            seconds = parse_duration(value)
        except ValueError:
            self.fail(f"{value!r} is not a duration such as 2.5, 10s or 1h", param, ctx)
        return super().convert(seconds, param, ctx)


class MomentType(click.ParamType[str]):
    """
    A duration before now, or a time, in the grammar of `usbgate.core.units`; its value is the text for the daemon,
    whose clock counts.
    """

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """
        Return the text without whitespace; a text that is no moment is a usage error.
        """
        try:
            parse_moment(value, 0)
        except ValueError:
            self.fail(f"{value!r} is neither a duration such as 90s, 1.5h or 7d nor a time", param, ctx)
        # A word has no whitespace: `1.5 h`, `2026-01-31 12:00`.
        return value.replace(" ", "T" if "-" in value else "")


class OneWord(click.ParamType[str]):
    """
    An argument of a word (protocol §3), which cannot contain whitespace.
    """

    name = "text"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """
        Return the text; whitespace in it is a usage error.
        """
        if value.split() != [value]:
            self.fail("cannot be empty or contain whitespace", param, ctx)
        return value


def _keep_config(context: click.Context, parameter: click.Parameter, value: Path | None) -> None:
    if value is not None:
        context.obj = value


config_option = click.option(
    "--config",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    expose_value=False,
    callback=_keep_config,
    help="The daemon's configuration file.  [default: that of this user, or of this machine]",
)


def pass_config(command: _Command) -> _Command:
    """
    Pass the configuration file, or None, as the first argument; `--config` may stand before or behind the command's
    name.
    """
    return cast(_Command, config_option(click.pass_obj(command)))


def print_error(text: str) -> None:
    """
    Print on standard error, in one line, what is wrong.
    """
    click.echo("usbgate: " + " ".join(text.split()), err=True)
