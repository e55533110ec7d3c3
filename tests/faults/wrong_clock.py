"""
twistd with a wall clock whose error is in a file; all other clocks are the machine's.

`libfaketime` moves the monotonic clock with the wall clock, or breaks waiting; so the functions of `time` are replaced,
before anything of Twisted or usbgate has taken them.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path


class WrongClock:
    """
    The error of the clock, in a file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def set(self, wrong_by: float, synchronised: bool) -> None:
        """
        Set the error in seconds, atomically.
        """
        new = self._path.with_suffix(".new")
        new.write_text(f"{round(wrong_by * 1e9)} {synchronised:d}")
        os.replace(new, self._path)

    def read(self) -> tuple[int, bool]:
        """
        Return the error in nanoseconds, and whether the kernel calls the clock synchronized.
        """
        wrong_by, synchronised = self._path.read_text().split()
        return int(wrong_by), synchronised == "1"


def main() -> None:
    """
    Run twistd.
    """
    wrong = WrongClock(Path(sys.argv.pop(1)))
    right = time.time_ns
    time.time_ns = lambda: right() + wrong.read()[0]
    time.time = lambda: time.time_ns() / 1e9

    from twisted.scripts.twistd import run

    from usbgate.daemon import clock

    clock.is_synchronised = lambda: wrong.read()[1]
    run()


if __name__ == "__main__":
    main()
