"""
`usbgate dialect guess`: listen to a device, and propose its speed, its line settings and its dialect.
"""

from __future__ import annotations

import os
import select
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import click

from usbgate.cli.borrow import Borrowed, borrowed
from usbgate.cli.credentials import token_option
from usbgate.cli.group import Duration, pass_config
from usbgate.cli.reach import port_option
from usbgate.cli.tables import count
from usbgate.core.display import shown

if TYPE_CHECKING:
    from usbgate.device.guess import Guess
    from usbgate.device.serialport import LockedSerial

LISTEN = 12.0  # seconds at each speed: many meters send every 10 s
LOOK = 0.5  # seconds between two looks at what has come
MOST = 16_384  # bytes at one speed: what is not recognized by then never is
LEAST = 64  # bytes by which a wrong speed is recognized
GARBLED = 0.6  # share of text at a wrong speed, at most
LINES = 3  # lines to show of what no dialect reads
WIDTH = 100  # characters to show of a line or a reading


class Sample(NamedTuple):
    """
    What came at one speed.

    Attributes:
        baud: The speed; 0 for a pty, which has none.
        data: What came, read as 8N1.
        guesses: The dialects that read some of it, the best first.
    """

    baud: int
    data: bytes
    guesses: list[Guess]

    @property
    def share(self) -> float:
        """
        The share of frames that the best dialect reads.
        """
        return self.guesses[0].share if self.guesses else 0.0


@click.command("guess")
@click.argument("device", required=False)
@click.option(
    "--each",
    type=Duration(min=0),
    default=f"{LISTEN:g}s",
    show_default=True,
    metavar="DURATION",
    help="How long to listen at each speed.",
)
@click.option(
    "--baud",
    "bauds",
    type=click.IntRange(1),
    multiple=True,
    metavar="N",
    help="A speed to listen at; repeatable.  [default: the usual ones]",
)
@port_option
@token_option
@pass_config
def guess_command(
    config: Path | None, device: str | None, each: float, bauds: tuple[int, ...], port: int | None
) -> None:
    """
    Listen to a device, guess its speed and its dialect, and print the lines for the configuration.

    \b
        usbgate dialect guess /dev/ttyUSB0

    DEVICE is the path of a port, a USB name, or a device of the configuration; by default, the only one. A daemon that
    has it lends it meanwhile. Nothing is written to the device, so one that only answers cannot be guessed. The exit
    status is 1 if no dialect reads what came.
    """
    from usbgate.cli.findings import Machine
    from usbgate.cli.ports import best_place, shown_table
    from usbgate.device.errors import DeviceError
    from usbgate.device.guess import POSSIBLE

    try:
        with borrowed(config, port, device) as lease:
            samples = list(_samples(lease, bauds, each))
    except DeviceError as error:
        raise click.ClickException(str(error)) from None
    except OSError as error:
        raise click.ClickException(f"{error.filename or 'the device'}: {error.strerror or error}") from None
    best = max(samples, key=lambda sample: sample.share)
    possible = [guess for guess in best.guesses if guess.share >= POSSIBLE]
    if not possible:
        raise click.ClickException(_failure(samples))
    place, name = best_place(Machine(), lease.place)
    for guess in possible:
        what = f"{guess.dialect}: {count(guess.readings, 'reading')}, {guess.malformed:,} malformed, such as"
        reading = shown(guess.shown[0])
        click.echo(f"{what} {reading if len(reading) <= WIDTH else f'{reading[:WIDTH]}…'}", err=True)
    if not possible[0].is_certain(len(best.data)):
        click.echo("This is not certain: `usbgate record` and `usbgate dialect try` show more.", err=True)
    click.echo(shown_table(lease.name or name, place, _keys(best, possible[0])))


def _samples(lease: Borrowed, bauds: Iterable[int], seconds: float) -> Iterator[Sample]:
    # Of each speed, until one is certain. The port stays open, so that a board is reset once at most.
    from usbgate.device.guess import BAUDS, find_line, text_share
    from usbgate.device.portusers import is_pty
    from usbgate.device.serialport import PortSettings, open_port

    speeds = list(bauds) or [*dict.fromkeys((*((lease.device.baud,) if lease.device else ()), *BAUDS))]
    keep_dtr = lease.device is not None and lease.device.reset == "never"
    with open_port(lease.path, PortSettings(speeds[0], keep_dtr=keep_dtr)) as port:
        has_speed = not is_pty(os.fstat(port.fileno()))
        for baud in speeds if has_speed else (0,):
            if has_speed:
                try:
                    port.baudrate = baud
                except (ValueError, OSError):
                    click.echo(f"{baud} baud: not possible with this port", err=True)
                    continue
                port.reset_input_buffer()
            sample = _listen(port, baud, seconds)
            what = "nothing came"
            if sample.data:
                share = text_share(sample.data)
                what = f"{count(len(sample.data), 'byte')}, {'no text' if share < GARBLED else 'text'}"
                if share >= GARBLED and (line := find_line(sample.data)) != "8N1":
                    what += f" with parity ({line})"
            click.echo(f"{f'{baud} baud' if baud else lease.path}: {what}", err=True)
            yield sample
            if sample.guesses and sample.guesses[0].is_certain(len(sample.data)):
                return


def _listen(port: LockedSerial, baud: int, seconds: float) -> Sample:
    from usbgate.device.guess import guess_dialects, text_share, without_parity

    data = b""
    guesses: list[Guess] = []
    looked = 0
    begun = time.monotonic()
    end, look = begun + seconds, begun + LOOK
    while True:
        now = time.monotonic()
        if now >= min(look, end) or len(data) >= MOST:
            look = now + LOOK
            if len(data) > looked:
                looked = len(data)
                guesses = guess_dialects(without_parity(data))
            certain = bool(guesses) and guesses[0].is_certain(len(data))
            garbled = len(data) >= LEAST and text_share(data) < GARBLED
            if certain or garbled or now >= end or len(data) >= MOST:
                return Sample(baud, data, guesses)
        if select.select([port], [], [], max(0.0, min(look, end) - now))[0]:
            with suppress(BlockingIOError):
                data += port.read_now(MOST - len(data))


def _keys(sample: Sample, guess: Guess) -> Mapping[str, object]:
    # What the defaults of the dialect do not say.
    from usbgate.device.guess import find_line

    keys: dict[str, object] = {} if guess.dialect == "fields" else {"dialect": guess.dialect}
    keys |= guess.options
    if sample.baud:
        line = find_line(sample.data)
        if sample.baud != guess.defaults.get("baud", 9600):
            keys["baud"] = sample.baud
        if line != guess.defaults.get("line", "8N1"):
            keys["line"] = line
    return keys


def _failure(samples: list[Sample]) -> str:
    from usbgate.device.guess import text_share, without_parity

    if not any(sample.data for sample in samples):
        return "nothing came; does the device send by itself, and often enough? --each 2m listens longer"
    best = max(samples, key=lambda sample: (text_share(sample.data) if sample.data else 0, len(sample.data)))
    if text_share(best.data) < GARBLED:
        return "no text came at any speed; docs/dialects.md says which devices must be asked, and how"
    lines = [line for line in without_parity(best.data).decode("utf-8", "replace").splitlines() if line.strip()]
    text = " | ".join(shown(line[:WIDTH]) for line in lines[1 : 1 + LINES] or lines)
    return f"no dialect reads what came{f' at {best.baud} baud' if best.baud else ''}: {text}; see docs/dialects.md"
