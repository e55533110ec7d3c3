"""
What all commands have in common: errors in one line, exit statuses, and types of options.

Whatever is wrong is one line on standard error and an exit status, never a traceback.
"""

from __future__ import annotations

import sys
from typing import Any, NoReturn

import click

from usbgate.cli.connection import AskError
from usbgate.core.units import parse_duration

USAGE = 64  # EX_USAGE of sysexits.h; 2, click's own, is also an error of grep and diff
INTERRUPTED = 130  # as a shell reports a command that Ctrl-C ended


class PlainGroup(click.Group):
    """
    A click group that prints every error as one line.
    """

    def main(self, *args: Any, **extra: Any) -> NoReturn:
        """
        Run the command, and exit with its status.
        """
        extra["standalone_mode"] = False
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
            print_error(str(error))
            status = error.status
        except click.Abort:
            status = INTERRUPTED
        sys.exit(status)

    def invoke(self, ctx: click.Context) -> Any:
        """
        Run the chosen command; Ctrl-C ends it and prints nothing.
        """
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:  # click itself would print an empty line
            sys.exit(INTERRUPTED)


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


def print_error(text: str) -> None:
    """
    Print on standard error, in one line, what is wrong.
    """
    click.echo("usbgate: " + " ".join(text.split()), err=True)
