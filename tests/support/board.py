"""
A device on a pty, for tests.
"""

from __future__ import annotations

import os
from typing import Any

from twisted.internet import reactor as global_reactor

reactor: Any = global_reactor


class Board:
    """
    A device on a pty, behind a symlink that survives unplugging and plugging in again.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.plugged = False
        self.received = b""
        self.plug()

    def plug(self) -> None:
        """
        Plug the device in, on a new pty.
        """
        self.master, slave = os.openpty()
        os.set_blocking(self.master, False)
        self.tty = os.ttyname(slave)
        os.symlink(self.tty, self.path + ".new")
        os.close(slave)
        os.replace(self.path + ".new", self.path)
        self.plugged = True

    def unplug(self) -> None:
        """
        Unplug the device; its symlink goes, too.
        """
        if self.plugged:
            os.unlink(self.path)
            os.close(self.master)
            self.plugged = False

    def say(self, data: bytes) -> None:
        """
        Send bytes as the device.
        """
        assert os.write(self.master, data) == len(data)

    def listen(self) -> bytes:
        """
        Return all bytes received so far.
        """
        try:
            while data := os.read(self.master, 65536):
                self.received += data
        except OSError:  # no data, or the port is not open
            pass
        return self.received


def open_files() -> int:
    """
    Count the file descriptors of this process.
    """
    return len(os.listdir("/proc/self/fd"))
