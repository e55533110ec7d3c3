"""
A program that has the port of a device while it runs (`usbgate lend`).
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Sequence
from types import FrameType

# What ends us ends the program, and then we end as it did: it must not go on with a port that is taken back. Of the
# first two it hears from the terminal as we do, and it is its to decide what they mean.
_FROM_TERMINAL = (signal.SIGINT, signal.SIGQUIT)
_PASSED_ON = (signal.SIGTERM, signal.SIGHUP)


def run(program: Sequence[str], port: str) -> int:
    """
    Run a program to its end.

    Args:
        program: It and its arguments; `{}` in an argument becomes the port.
        port: The path of the port.

    Returns:
        Its exit status; as a shell says it, where a signal ended it.

    Raises:
        OSError: It can't be run.
    """
    ended_by: list[int] = []

    def pass_on(number: int, frame: FrameType | None) -> None:
        ended_by.append(number)
        if child is not None:
            child.send_signal(number)

    child: subprocess.Popen[bytes] | None = None
    before = {number: signal.signal(number, pass_on) for number in _PASSED_ON}
    # A handler, not SIG_IGN: that would be the program's, too.
    before |= {number: signal.signal(number, lambda number, frame: None) for number in _FROM_TERMINAL}
    try:
        child = subprocess.Popen(
            [argument.replace("{}", port) for argument in program], env={**os.environ, "USBGATE_PORT": port}
        )
        for number in ended_by:  # it came before there was anybody to pass it on to
            child.send_signal(number)
        status = child.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return status if status >= 0 else 128 - status
