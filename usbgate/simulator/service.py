"""
The simulator: a flat behind a pty, for trying things out without a board.
"""

from __future__ import annotations

import math
import os
import select
import termios
import tty
from pathlib import Path

from twisted.application.service import Service
from twisted.internet.interfaces import IDelayedCall, IReactorCore, IReactorFDSet, IReactorTime, IReadWriteDescriptor
from twisted.internet.main import CONNECTION_LOST
from twisted.python.failure import Failure
from zope.interface import implementer

from usbgate.core.linebuffer import LineBuffer
from usbgate.simulator.home import Home, furnish

__all__ = ["Home", "Simulator", "SimulatorError", "run"]

# Bytes kept for a slow reader; whole lines beyond are lost, as on a real board.
_UNSENT = 65_536

# Seconds between two looks whether somebody has opened the device: the kernel tells only that nobody has it open.
_LOOK = 0.1

_LOST = Failure(CONNECTION_LOST)


class SimulatorError(Exception):
    """
    The simulator can't make its device; the text says why, in one line.
    """


@implementer(IReadWriteDescriptor)
class Simulator(Service):
    """
    A flat on a pty, as long as the service runs.

    The board is switched on when the device is opened first; what it says while nobody has it open is lost.
    """

    def __init__(self, reactor: IReactorTime, path: str | os.PathLike[str], flat: Home) -> None:
        """
        Remember what to do; nothing is opened before the service is started.

        Args:
            reactor: Also an `IReactorFDSet`.
            path: Where the device is to be found: a symlink is made there, and removed at the end.
            flat: What speaks and hears.
        """
        self._reactor = reactor
        self._descriptors = IReactorFDSet(reactor)
        self._path = Path(path)
        self._flat = flat
        self._pty = -1
        self._device = ""
        self._heard = LineBuffer()
        self._unsent = bytearray()
        self._begun = False
        self._opened = False
        self._look_timer: IDelayedCall | None = None
        self._speak_timer: IDelayedCall | None = None

    def startService(self) -> None:
        """
        Make the pty and the symlink.

        Raises:
            SimulatorError: Something else is at the path, or it can't be made.
        """
        self._pty, theirs = os.openpty()
        tty.setraw(theirs)
        os.set_blocking(self._pty, False)
        self._device = os.ttyname(theirs)
        os.close(theirs)
        try:
            _make_symlink(self._path, self._device)
        except (OSError, SimulatorError) as error:
            os.close(self._pty)
            self._pty = -1
            if isinstance(error, OSError):
                raise SimulatorError(f"{self._path}: {error.strerror or error}") from error
            raise
        super().startService()
        self._look()

    def stopService(self) -> None:
        """
        End it: the device is gone for whoever has it open.
        """
        super().stopService()
        for timer in (self._look_timer, self._speak_timer):
            if timer is not None and timer.active():
                timer.cancel()
        if self._pty < 0:
            return
        try:
            if os.readlink(self._path) == self._device:
                os.unlink(self._path)
        except OSError:
            pass  # somebody took it away, or put something in its place
        self._descriptors.removeReader(self)
        self._descriptors.removeWriter(self)
        os.close(self._pty)
        self._pty = -1

    def _look(self) -> None:
        poll = select.poll()
        poll.register(self._pty, select.POLLIN)
        happened = [event for _, event in poll.poll(0)]
        # Something may have been written by somebody who is gone already.
        if happened and not happened[0] & select.POLLIN:
            self._look_timer = self._reactor.callLater(_LOOK, self._look)
            return
        self._opened = True
        self._descriptors.addReader(self)
        if not self._begun:
            self._begun = True
            self._flat.begin(self._reactor.seconds())
        self._speak()

    def _speak(self) -> None:
        now = self._reactor.seconds()
        for line in self._flat.due(now):
            if self._opened and len(self._unsent) + len(line) <= _UNSENT:
                self._unsent += line
        if self._unsent:
            self._descriptors.addWriter(self)
        if self._speak_timer is not None and self._speak_timer.active():
            self._speak_timer.cancel()
        if self._flat.next_due < math.inf:
            self._speak_timer = self._reactor.callLater(max(0.0, self._flat.next_due - now), self._speak)

    def _forget_unread(self) -> None:
        # What a pty's reader left behind stays for the next one, and only their side can throw it away.
        try:
            theirs = os.open(self._device, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
        except OSError:  # somebody else was quick, and wants it alone
            return
        try:
            termios.tcflush(theirs, termios.TCIFLUSH)
        finally:
            os.close(theirs)

    def fileno(self) -> int:
        """
        Return the descriptor for the reactor to watch.
        """
        return self._pty

    def logPrefix(self) -> str:
        """
        Name this for the reactor's own messages.
        """
        return "simulator"

    def doRead(self) -> Failure | None:
        """
        Hear what was written to the device.
        """
        try:
            data = os.read(self._pty, 65_536)
        except BlockingIOError:
            return None
        except OSError:
            return _LOST
        now = self._reactor.seconds()
        for line in self._heard.feed(data):
            self._flat.hear(line, now)
        self._speak()
        return None

    def doWrite(self) -> Failure | None:
        """
        Say what the device takes; the rest waits for its reader.
        """
        try:
            del self._unsent[: os.write(self._pty, self._unsent)]
        except BlockingIOError:
            return None
        except OSError:
            return _LOST
        if not self._unsent:
            self._descriptors.removeWriter(self)
        return None

    def connectionLost(self, reason: Failure) -> None:
        """
        Nobody has the device open any more: forget what was not read, and look for the next one.
        """
        self._opened = False
        self._descriptors.removeReader(self)
        self._descriptors.removeWriter(self)
        self._unsent.clear()
        self._heard = LineBuffer()
        if self.running:
            self._forget_unread()
            self._look_timer = self._reactor.callLater(_LOOK, self._look)


def _make_symlink(path: Path, device: str) -> None:
    try:
        old = os.readlink(path)
    except OSError:  # nothing there, or no symlink: then making one says what is wrong
        old = ""
    if old.startswith("/dev/pts/"):
        # Only of a simulator that was killed; but the kernel gives numbers out again, so `old` may be anybody's.
        if os.path.exists(old) and old != device:
            raise SimulatorError(f"{path}: leads to {old}, which is in use; remove it if no simulator runs")
        os.unlink(path)
    os.symlink(device, path)


def run(reactor: IReactorCore, path: str | os.PathLike[str], flat: Home) -> None:
    """
    Run a simulator and the reactor, until somebody ends it.

    Raises:
        SimulatorError: The device can't be made; the reactor was not run.
    """
    simulator = Simulator(IReactorTime(reactor), path, flat)
    simulator.startService()
    reactor.addSystemEventTrigger("before", "shutdown", simulator.stopService)
    ready = f"a flat with sensors {', '.join(furnish())} is at {os.path.abspath(path)}; Ctrl-C ends it"
    reactor.callWhenRunning(print, ready, flush=True)
    reactor.run()
