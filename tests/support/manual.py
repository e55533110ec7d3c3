"""
The manual pages, made from the help of the commands: `python -m tests.support.manual` writes them to docs/man.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from inspect import cleandoc
from pathlib import Path

import click

from tests.support.running import ROOT
from usbgate import __version__
from usbgate.cli.group import EXIT_STATUS
from usbgate.cli.main import main
from usbgate.tap import Options

FOLDER = ROOT / "docs" / "man"

FILES = [
    ("$XDG_CONFIG_HOME/usbgate/usbgate.toml, /etc/usbgate/usbgate.toml", "The configuration; the first that exists."),
    (
        "/var/lib/usbgate",
        "The state folder of root; for other users, $XDG_STATE_HOME/usbgate or ~/.local/state/usbgate.",
    ),
    ("usbgate.log", "In the state folder: the log of a daemon that `usbgate ask` has started."),
]


def pages() -> Iterator[tuple[Path, str]]:
    """
    Yield the file and the text of each page.
    """
    yield FOLDER / "usbgate.1", "\n".join(_command_page()) + "\n"
    yield FOLDER / "twistd-usbgate.1", "\n".join(_daemon_page()) + "\n"


def _command_page() -> Iterator[str]:
    context = click.Context(main, info_name="usbgate", **main.context_settings)
    yield from _head(
        "usbgate", "talk to the daemon that owns the serial port", r"\fBusbgate\fR [\fIOPTIONS\fR] \fICOMMAND\fR"
    )
    yield ".SH DESCRIPTION"
    yield from _paragraphs(main.help or "")
    yield ".SH OPTIONS"
    yield from _options(main, context)
    yield ".SH COMMANDS"
    for command, inner in _commands(main, context):
        yield f".SS {_text(' '.join([inner.command_path, *command.collect_usage_pieces(inner)]))}"
        yield from _paragraphs(command.help or "")
        yield from _options(command, inner)
    yield ".SH EXIT STATUS"
    yield from _paragraphs(EXIT_STATUS.strip().replace("Exit status:\n", ""))
    yield from _tail("twistd-usbgate")


def _commands(group: click.Group, context: click.Context) -> Iterator[tuple[click.Command, click.Context]]:
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        inner = click.Context(command, info_name=name, parent=context)
        yield command, inner
        if isinstance(command, click.Group):
            yield from _commands(command, inner)


def _daemon_page() -> Iterator[str]:
    yield from _head("twistd-usbgate", "run usbgate", r"\fBtwistd\fR [\fIOPTIONS\fR] \fBusbgate\fR [\fIOPTIONS\fR]")
    options = Options()
    yield ".SH DESCRIPTION"
    yield from _paragraphs(options.longdesc)
    yield ".PP"
    yield _text(
        "Without -n among the first options, it runs in the background. The configuration file has all settings."
    )
    yield ".SH OPTIONS"
    for line in options.getUsage(width=10_000).splitlines():
        if spelled := re.fullmatch(r" +((?:-\w, )?--\w+=?)  +(.*)", line):
            yield from _item(*spelled.groups())
    yield from _tail("usbgate")


def _head(name: str, purpose: str, synopsis: str) -> Iterable[str]:
    title = f'.TH {name.upper()} 1 "" "usbgate {__version__}"'
    return [title, ".SH NAME", f"{_text(name)} \\- {_text(purpose)}", ".SH SYNOPSIS", synopsis]


def _tail(other: str) -> Iterator[str]:
    yield ".SH FILES"
    for file, what in FILES:
        yield from _item(file, what)
    yield ".SH SEE ALSO"
    yield f"\\fB{_text(other)}\\fR(1)"


def _options(command: click.Command, context: click.Context) -> Iterator[str]:
    for parameter in command.get_params(context):
        record = parameter.get_help_record(context)
        if record is not None and record[1]:
            yield from _item(*record)


def _item(term: str, text: str) -> Iterator[str]:
    yield from (".TP", f"\\fB{_text(term)}\\fR", _text(text))


def _paragraphs(text: str) -> Iterator[str]:
    for paragraph in cleandoc(text).split("\n\n"):
        yield ".PP"
        if paragraph.startswith("\b"):
            yield from (".nf", *map(_text, paragraph.split("\n")[1:]), ".fi")
        else:
            yield _text(" ".join(paragraph.split()))


def _text(text: str) -> str:
    # A line of roff: a dot or an apostrophe at its beginning would be a request, and `-` a hyphen.
    escaped = text.replace("\\", r"\e").replace("-", r"\-")
    escaped = re.sub("`([^`]*)`", r"\\fB\1\\fR", escaped)
    return r"\&" + escaped if escaped.startswith((".", "'")) else escaped


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for path, page in pages():
        path.write_text(page)
