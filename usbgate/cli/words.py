"""
Subcommands that send a word of the line protocol (protocol §3) to the daemon and print the reply.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import click

from usbgate.cli.ask import TIMEOUT
from usbgate.cli.connection import send_word
from usbgate.cli.group import PlainGroup
from usbgate.cli.reach import port_option, reach_running

if TYPE_CHECKING:
    from usbgate.server.words import Word


class WordGroup(PlainGroup):
    """
    A click group that has a subcommand for each word, besides its own subcommands.

    The words are imported only for `--help` and for a name that is not one of its own subcommands: that takes longer
    than all that `ask` does.
    """

    def list_commands(self, ctx: click.Context) -> list[str]:
        """
        Return the names of all subcommands.
        """
        return sorted({*super().list_commands(ctx), *_shell_words()})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """
        Return a subcommand; None if there is none of that name.
        """
        own = super().get_command(ctx, cmd_name)
        if own is not None:
            return own
        word = _shell_words().get(cmd_name)
        return None if word is None else _command(word)


def _shell_words() -> Mapping[str, Word]:
    from usbgate.server.commands import WORDS

    return {name: word for name, word in WORDS.items() if word.shell}


def _command(word: Word) -> click.Command:
    @port_option
    @click.option("--host", metavar="HOST", help="The daemon's host.  [default: this machine]")
    @click.pass_obj
    def send(config: Path | None, port: int | None, host: str | None, arguments: tuple[str, ...] = ()) -> None:
        if any(argument.split() != [argument] for argument in arguments):
            raise click.UsageError("an argument cannot contain whitespace")
        with closing(reach_running(config, host, port)) as connection:
            for line in send_word(connection, " ".join([word.name, *arguments]), TIMEOUT):
                click.echo(line)

    if word.takes_arguments:
        usage = word.usage.removeprefix(word.name).strip()
        send = click.argument("arguments", nargs=-1, metavar=usage)(send)
    texts = [word.summary, *word.details, "Prints field lines. Starts no daemon."]
    return click.command(word.name, help="\n\n".join(texts))(send)
