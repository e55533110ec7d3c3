"""
`usbgate record`: keep what a device sends and receives.
"""

from __future__ import annotations

import select
import signal
import time
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, TYPE_CHECKING

import click

from usbgate.cli.borrow import borrowed
from usbgate.cli.credentials import token_option
from usbgate.cli.group import Duration, pass_config
from usbgate.cli.reach import port_option
from usbgate.core.recording import PAUSE, RecordingWriter

if TYPE_CHECKING:
    from usbgate.config.settings import DeviceSettings
    from usbgate.device.serialport import LockedSerial, PortSettings
    from usbgate.device.tapport import TapPort

READ_SIZE = 4096  # bytes
UNSENT = 65_536  # bytes that the device may not have taken yet; then the program beside has to wait


@click.command("record")
@click.argument("file", type=click.Path(allow_dash=True, dir_okay=False, path_type=Path))
@click.option(
    "--device",
    "wanted",
    metavar="DEVICE",
    help="The device: its name, its path or USB name.  [default: the only one]",
)
@click.option("--baud", type=click.IntRange(1), metavar="N", help="Bits per second.  [default: as configured, or 9600]")
@click.option(
    "--line", metavar="8N1", help="Data bits, parity and stop bits.  [default: as configured, or 8N1]", default=None
)
@click.option("--for", "seconds", type=Duration(min=0), metavar="DURATION", help="End after this time.")
@click.option(
    "--through",
    type=click.Path(path_type=Path),
    metavar="PATH",
    help="Make a pseudo-terminal at PATH: a program that opens it talks with the device, and is recorded, too.",
)
@port_option
@token_option
@pass_config
def record_command(
    config: Path | None,
    file: Path,
    wanted: str | None,
    baud: int | None,
    line: str | None,
    seconds: float | None,
    through: Path | None,
    port: int | None,
) -> None:
    """
    Record what a device sends, with times, until Ctrl-C.

    \b
        usbgate record board.txt --device /dev/ttyUSB0 --baud 115200
        usbgate simulate /tmp/board --replay board.txt

    FILE is a new file, or - for standard output. It is text: each line has the seconds since the beginning, < for what
    the device sent or > for what was written to it, and the bytes. A daemon that has the device lends it meanwhile. To
    record what a program says to the device, let it open the PATH of --through.
    """
    from usbgate.device.errors import DeviceError
    from usbgate.device.serialport import open_port

    if through is not None and through.exists():  # a dangling symlink may be left of a crash; it is replaced
        raise click.ClickException(f"{through}: exists already")
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with borrowed(config, port, wanted) as lease:
            settings = _port_settings(lease.device, baud, line)
            with (
                open_port(lease.path, settings) as opened,
                click.open_file("-", "w") if str(file) == "-" else file.open("x") as output,
            ):
                lent = f", lent by usbgate ({lease.name})" if lease.is_lent else ""
                click.echo(f"recording {lease.path} at {settings.baud} baud, {settings.line}{lent}", err=True)
                writer = RecordingWriter(output.write, time.monotonic())
                writer.comment(f"{lease.place}, {settings.baud} baud, {settings.line}, {_now()}")
                try:
                    Recording(opened, writer, output, through).run(seconds)
                finally:
                    writer.flush()
    except KeyboardInterrupt:
        pass  # the usual end
    except DeviceError as error:
        raise click.ClickException(str(error)) from None
    except BrokenPipeError:
        raise  # nobody reads it any more
    except OSError as error:
        raise click.ClickException(f"{error.filename or file}: {error.strerror or error}") from None
    finally:
        signal.signal(signal.SIGTERM, before)


def _port_settings(device: DeviceSettings | None, baud: int | None, line: str | None) -> PortSettings:
    from usbgate.config.settings import DEVICE_KEYS
    from usbgate.config.types import ConfigError, convert
    from usbgate.device.serialport import PortSettings

    settings = PortSettings()
    if device is not None:
        settings = PortSettings(device.baud, device.line, device.flow, keep_dtr=device.reset == "never")
    try:
        return settings._replace(
            baud=baud or settings.baud,
            line=settings.line if line is None else convert("--line", line, DEVICE_KEYS["line"]),
        )
    except ConfigError as error:
        raise click.UsageError(str(error)) from None


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


class Recording:
    """
    Records an open port, and lets a program talk with it.
    """

    def __init__(self, port: LockedSerial, writer: RecordingWriter, output: IO[str], through: Path | None) -> None:
        """
        Args:
            port: The port.
            writer: Receives what comes.
            output: Where that writes, for flushing.
            through: Where a pseudo-terminal for a program is; None for none.
        """
        self._port = port
        self._writer = writer
        self._output = output
        self._through = through
        self._unsent = bytearray()

    def run(self, seconds: float | None) -> None:
        """
        Record until the time is over, or the device is unplugged.

        Raises:
            OSError: It was unplugged, or the file or the pseudo-terminal is not possible.
        """
        from usbgate.device.tapport import TapPort

        passage = None
        if self._through is not None:
            passage = TapPort("", str(self._through.absolute()), self._received)
            try:
                passage.create()
            except OSError as error:  # about some step of it
                raise OSError(error.errno, error.strerror, str(self._through)) from None
        end = None if seconds is None else time.monotonic() + seconds
        try:
            while end is None or time.monotonic() < end:
                self._turn(passage, PAUSE if end is None else min(PAUSE, max(0.0, end - time.monotonic())))
        finally:
            if passage is not None:
                passage.stop()

    def _turn(self, passage: TapPort | None, timeout: float) -> None:
        sources: list[LockedSerial | TapPort] = [self._port]
        if passage is not None and len(self._unsent) < UNSENT and passage.read():
            sources.append(passage)
        readable, writable, _ = select.select(sources, [self._port] if self._unsent else [], [], timeout)
        now = time.monotonic()
        if self._port in readable:
            with suppress(BlockingIOError):
                data = self._port.read_now(READ_SIZE)
                self._writer.feed(False, data, now)
                if passage is not None:
                    passage.write(data)
        if passage is not None and passage in readable:
            passage.read()
        if writable:
            with suppress(BlockingIOError):
                del self._unsent[: self._port.write_now(self._unsent)]
        self._writer.expire(now)
        self._output.flush()

    def _received(self, data: bytes) -> None:
        self._writer.feed(True, data, time.monotonic())
        self._unsent += data
