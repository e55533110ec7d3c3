"""
Run a program that uses the port of a device (`usbgate lend`).
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Sequence
from types import FrameType

# A signal that would end us ends the program, and then we end: the program must not go on using a port that the daemon
# opens again. The terminal itself sends the first two to the program as well, which may handle them as it likes.
_FROM_TERMINAL = (signal.SIGINT, signal.SIGQUIT)
_PASSED_ON = (signal.SIGTERM, signal.SIGHUP)


def run(program: Sequence[str], port: str) -> int:
    """
    Run a program to its end.

    Args:
        program: The program and its arguments; `{}` in an argument is replaced by the port.
        port: The path of the port.

    Returns:
        Its exit status; 128 and the signal's number if a signal ended it, as in a shell.

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
    # A handler, not SIG_IGN, which the program would inherit.
    before |= {number: signal.signal(number, lambda number, frame: None) for number in _FROM_TERMINAL}
    try:
        child = subprocess.Popen(
            [argument.replace("{}", port) for argument in program], env={**os.environ, "USBGATE_PORT": port}
        )
        for number in ended_by:  # it arrived before the program ran
            child.send_signal(number)
        status = child.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return status if status >= 0 else 128 - status
