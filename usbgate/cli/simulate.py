"""
`usbgate simulate`: a board on a pseudo-terminal, made up or replayed.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, BinaryIO

import click


class RealRange(click.FloatRange):
    """
    A number within limits. click takes `nan` for one, since it is not below the lower limit.
    """

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """
        Return the number; anything else, or outside the limits, is a usage error.
        """
        number = super().convert(value, param, ctx)
        if math.isnan(number):
            self.fail(f"{value!r} is not a number", param, ctx)
        return number


@click.command("simulate")
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--seed", type=int, default=None, help="Behave the same in every run with this seed.")
@click.option("--rate", type=RealRange(0, 1e6), default=None, metavar="N", help="Unsolicited reports per second.")
@click.option(
    "--noise",
    type=RealRange(0, 1),
    default=None,
    metavar="SHARE",
    help="Send garbage before this share of the lines, 0 to 1.",
)
@click.option("--mute", is_flag=True, help="Never answer a request.")
@click.option(
    "--replay",
    type=click.File("rb"),
    metavar="FILE",
    help="Send what is in FILE instead: a recording (`usbgate record`), or plain bytes, at 960 a second.",
)
@click.option("--speed", type=RealRange(0.001, 1000), default=None, metavar="N", help="Replay N times as fast.")
@click.option("--loop", is_flag=True, help="Replay again and again.")
@click.pass_context
def simulate_command(
    context: click.Context,
    path: Path,
    seed: int | None,
    rate: float | None,
    noise: float | None,
    mute: bool,
    replay: BinaryIO | None,
    speed: float | None,
    loop: bool,
) -> None:
    """
    Simulate a board, until Ctrl-C.

    It is an Arduino with the sensors of a home, or sends what another board has sent (--replay), from the moment at
    which PATH is opened. PATH becomes a symlink to its pseudo-terminal.
    """
    given = {"--seed": seed, "--rate": rate, "--noise": noise, "--mute": mute or None}
    wrong = given if replay is not None else {"--speed": speed, "--loop": loop or None}
    for name, value in wrong.items():
        if value is not None:
            rule = "is not for a replay" if replay is not None else "requires --replay"
            raise click.UsageError(f"{name} {rule}", context)

    from twisted.internet import reactor

    from usbgate.core.recording import UnreadableRecording
    from usbgate.simulator.home import RATE, Home
    from usbgate.simulator.replay import Replay, read_script
    from usbgate.simulator.sensors import furnish
    from usbgate.simulator.service import SimulatedBoard, SimulatorError, run

    board: SimulatedBoard
    if replay is None:
        board = Home(seed, rate=RATE if rate is None else rate, noise=noise or 0.0, mute=mute)
        what = f"a home with sensors {', '.join(furnish())}"
    else:
        try:
            board = Replay(read_script(replay.read()), speed=speed or 1.0, loop=loop)
        except UnreadableRecording as error:
            raise click.ClickException(f"{replay.name}: {error}") from None
        what = f"a replay of {replay.name}"
    try:
        run(reactor, path, board, what)
    except SimulatorError as error:
        raise click.ClickException(str(error)) from None
