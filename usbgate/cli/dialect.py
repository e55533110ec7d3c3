"""
`usbgate dialect`: see what dialects make of what a device sends.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping, Sequence
from typing import BinaryIO

import click

from usbgate.cli.group import PlainGroup
from usbgate.cli.guess import guess_command
from usbgate.core.recording import UnreadableRecording, is_recording, sent_by_device

PIECE = 16  # bytes that are fed at a time: so far, noise may be shown too late
READ = 4096

SHOWN = 200  # bytes of a frame


@click.group("dialect", cls=PlainGroup)
def dialect_command() -> None:
    """
    Find out which dialect a device speaks, and try it.
    """


dialect_command.add_command(guess_command)


@dialect_command.command("try")
@click.argument("file", type=click.File("rb"))
@click.option("--dialect", "name", required=True, metavar="NAME", help="The dialect, as in the configuration.")
@click.option(
    "--option",
    "options",
    multiple=True,
    metavar="KEY=VALUE",
    help='An option of the dialect; repeatable. Lists and tables as in the configuration: id=["model","id"].',
)
@click.option(
    "--device", default="device", show_default=True, metavar="NAME", help="The name of the device, and of its sensor."
)
def try_command(file: BinaryIO, name: str, options: tuple[str, ...], device: str) -> None:
    """
    Show what each frame of a recording becomes.

    \b
        usbgate dialect try capture --dialect json --option 'id=["model","id"]'

    FILE is a recording (`usbgate record`), or has the bytes as the device sent them; - is standard input. Each frame
    becomes a line: the reading as `usbgate last` has it, `text:`, `reply:`, `partial` for a first frame that may have
    been cut, or `malformed:` with the reason and the bytes. `noise:` counts bytes that belong to no frame, and
    `unended:` what has no end.
    """
    from usbgate.config.settings import DEVICE_KEYS
    from usbgate.device.finddialect import make_dialect
    from usbgate.device.transcript import transcribe

    given = _options(options)
    for key in given:
        if key in DEVICE_KEYS:
            raise click.UsageError(f"--option {key}: belongs to the device, not to its dialect, and changes no frame")
    try:
        dialect = make_dialect(name, given)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    dialect.device = device
    for made in transcribe(dialect, _pieces(file)):
        frame = ""
        if made.frame:
            frame = f"  {made.frame[:SHOWN]!r}" + ("…" if len(made.frame) > SHOWN else "")
        click.echo(f"{made.line}{f': {made.detail}' if made.detail else ''}{frame}")


def _options(given: Sequence[str]) -> Mapping[str, object]:
    options: dict[str, object] = {}
    for each in given:
        key, equals, text = each.partition("=")
        if not (key and equals):
            raise click.UsageError(f"--option {each}: expected KEY=VALUE")
        options[key] = text
        if text.startswith(("[", "{", '"', "'")) or text in ("true", "false"):  # as TOML; all else is a text
            try:
                options[key] = tomllib.loads(f"value = {text}")["value"]
            except tomllib.TOMLDecodeError as error:
                raise click.UsageError(f"--option {key}: {error}") from None
    return options


def _pieces(file: BinaryIO) -> Iterator[bytes]:
    for data in _chunks(file):
        for start in range(0, len(data), PIECE):
            yield data[start : start + PIECE]


def _chunks(file: BinaryIO) -> Iterator[bytes]:
    read = getattr(file, "read1", file.read)  # what has come of a pipe, without waiting for more
    try:
        data = read(READ)
        if is_recording(data):
            data = sent_by_device(data + file.read())
        while data:
            yield data
            data = read(READ)
    except OSError as error:
        raise click.ClickException(f"{file.name}: {error.strerror}") from None
    except UnreadableRecording as error:
        raise click.ClickException(f"{file.name}: {error}") from None
