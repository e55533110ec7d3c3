"""
A pty with a copy of what a device sends, for programs that expect to have the device for themselves.
"""

from __future__ import annotations

import errno
import grp
import os
import select
import tty
from collections.abc import Callable
from contextlib import suppress

from twisted.logger import Logger

GROUP = "dialout"  # those who may open serial ports, on Debian and most others

READ_SIZE = 65536  # bytes; the kernel keeps less than that for a pty


class TapPort:
    """
    Copies what a device sends to a pty from `start` to `stop`, at the path of a symlink.

    It has no buffer of its own: what a program does not read in time is lost to it, and so is what is sent while no
    program has the pty open. What a program writes goes nowhere, unless the caller wants it.
    """

    log = Logger()

    def __init__(self, device: str, path: str, received: Callable[[bytes], object] = lambda data: None) -> None:
        """
        Args:
            device: The device's name, for the log.
            path: Where the symlink is; its folder must exist.
            received: Called by `read` and `write` with what a program has written.
        """
        self._device = device
        self._path = path
        self._received = received
        self._master = -1
        self._tty = ""
        self._poll = select.poll()
        self._warned = False  # that the program which has it open reads too slowly

    def start(self) -> None:
        """
        Create the pty and its symlink; if that is not possible, log why, and copy nothing.
        """
        try:
            self.create()
        except OSError as error:
            reason = error.strerror or str(error)
            self.log.error("{device}: no tap at {path}: {reason}", device=self._device, path=self._path, reason=reason)
            self.stop()

    def create(self) -> None:
        """
        Create the pty and its symlink.

        Raises:
            OSError: That is not possible.
        """
        if os.path.lexists(self._path) and not os.path.islink(self._path):
            raise FileExistsError(errno.EEXIST, "there is a file of this name", self._path)
        self._master, slave = os.openpty()
        try:
            tty.setraw(slave)
            self._tty = os.ttyname(slave)
            os.fchmod(slave, 0o660)
            with suppress(OSError, KeyError):  # only a member may, and not every system has it
                os.fchown(slave, -1, grp.getgrnam(GROUP).gr_gid)
        finally:
            os.close(slave)
        os.set_blocking(self._master, False)
        self._poll.register(self._master, select.POLLIN)
        new = f"{self._path}.new"
        with suppress(FileNotFoundError):
            os.unlink(new)
        os.symlink(self._tty, new)
        os.replace(new, self._path)

    def stop(self) -> None:
        """
        Remove the pty and the symlink.
        """
        if self._master < 0:
            return
        with suppress(OSError):  # it was removed, or replaced by another one
            if os.readlink(self._path) == self._tty:
                os.unlink(self._path)
        self._poll = select.poll()
        os.close(self._master)
        self._master = -1

    def fileno(self) -> int:
        """
        Return the descriptor, to wait for what a program writes; not while none has the pty open.
        """
        return self._master

    def read(self) -> bool:
        """
        Read what a program has written, without waiting.

        Returns:
            Whether a program has the pty open.
        """
        flags = sum(flags for _, flags in self._poll.poll(0))
        with suppress(OSError):
            if flags & select.POLLIN:
                self._received(os.read(self._master, READ_SIZE))
        return not flags & select.POLLHUP

    def write(self, data: bytes) -> None:
        """
        Copy what the device has sent.
        """
        if self._master < 0:
            return
        if not self.read():
            self._warned = False
            return
        written = 0
        with suppress(OSError):
            written = os.write(self._master, data)
        if written < len(data) and not self._warned:
            self._warned = True
            self.log.warn("{device}: the program at {path} reads too slowly", device=self._device, path=self._path)
