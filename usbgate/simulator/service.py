"""
A simulated board as a device: a pty that a daemon opens like a serial port.
"""

from __future__ import annotations

import math
import os
import select
import termios
import tty
from pathlib import Path
from typing import Protocol

from twisted.application.service import Service
from twisted.internet.interfaces import IDelayedCall, IReactorCore, IReactorFDSet, IReactorTime, IReadWriteDescriptor
from twisted.internet.main import CONNECTION_LOST
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from usbgate.core.linebuffer import LineBuffer

# Bytes buffered for a slow reader; whole lines beyond are lost, as on a real board.
_UNSENT = 65_536

# Seconds between two checks whether a program has opened the device. The kernel reports only that none has.
_CHECK = 0.1

_LOST = Failure(CONNECTION_LOST)


class SimulatorError(Exception):
    """
    The device can't be created; the text says why, in one line.
    """


class SimulatedBoard(Protocol):
    """
    A board whose bytes and time the simulator moves: `Home` or `Replay`, which describe these.
    """

    @property
    def next_due(self) -> float: ...

    def power_on(self, now: float) -> None: ...

    def receive(self, line: bytes, now: float) -> None: ...

    def due(self, now: float) -> list[bytes]: ...


@implementer(IReadWriteDescriptor)
class Simulator(Service):
    """
    A simulated board on a pty, as long as the service runs.

    The board is switched on when the device is opened first. What it sends while no program has the device open is
    lost.
    """

    log = Logger()

    def __init__(self, reactor: IReactorTime, path: str | os.PathLike[str], board: SimulatedBoard) -> None:
        """
        Args:
            reactor: Also an `IReactorFDSet`.
            path: The path of the device: a symlink to the pty, which is removed at the end.
            board: The board.
        """
        self._reactor = reactor
        self._descriptors = IReactorFDSet(reactor)
        self._path = Path(path)
        self._board = board
        self._pty = -1
        self._device = ""
        self._lines = LineBuffer()
        self._unsent = bytearray()
        self._powered = False
        self._opened = False
        self._checks = LoopingCall(self._check_opened)
        self._checks.clock = reactor
        self._send_timer: IDelayedCall | None = None

    def startService(self) -> None:
        """
        Create the pty and the symlink.

        Raises:
            SimulatorError: Something else is at the path, or the symlink can't be created.
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
        self._wait(now=True)

    def stopService(self) -> None:
        """
        Remove the device, also for a program that has it open.
        """
        super().stopService()
        if self._checks.running:
            self._checks.stop()
        if self._send_timer is not None and self._send_timer.active():
            self._send_timer.cancel()
        if self._pty < 0:
            return
        try:
            if os.readlink(self._path) == self._device:
                os.unlink(self._path)
        except OSError:
            pass  # it was removed or replaced
        self._descriptors.removeReader(self)
        self._descriptors.removeWriter(self)
        os.close(self._pty)
        self._pty = -1

    def _wait(self, now: bool) -> None:
        # For a program that opens the device.
        self._checks.start(_CHECK, now).addErrback(
            lambda failure: self.log.failure("unexpected error in the simulator", failure=failure)
        )

    def _check_opened(self) -> None:
        poll = select.poll()
        poll.register(self._pty, select.POLLIN)
        happened = [event for _, event in poll.poll(0)]
        # A program may have written something and closed the device already.
        if happened and not happened[0] & select.POLLIN:
            return
        self._checks.stop()
        self._opened = True
        self._descriptors.addReader(self)
        if not self._powered:
            self._powered = True
            self._board.power_on(self._reactor.seconds())
        self._send_due()

    def _send_due(self) -> None:
        now = self._reactor.seconds()
        for line in self._board.due(now):
            if self._opened and len(self._unsent) + len(line) <= _UNSENT:
                self._unsent += line
        if self._unsent:
            self._descriptors.addWriter(self)
        if self._send_timer is not None and self._send_timer.active():
            self._send_timer.cancel()
        if self._board.next_due < math.inf:
            self._send_timer = self._reactor.callLater(max(0.0, self._board.next_due - now), self._send_due)

    def _discard_unread(self) -> None:
        # Bytes that a program has not read stay for the next one, and only its side of the pty can discard them.
        try:
            theirs = os.open(self._device, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
        except OSError:  # another program has opened it exclusively
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
        Read the requests that were written to the device.
        """
        try:
            data = os.read(self._pty, 65_536)
        except BlockingIOError:
            return None
        except OSError:
            return _LOST
        now = self._reactor.seconds()
        for line in self._lines.feed(data):
            self._board.receive(line, now)
        self._send_due()
        return None

    def doWrite(self) -> Failure | None:
        """
        Write what the pty has room for; the rest waits for its reader.
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
        Discard what was not read, and wait for the next program: none has the device open any more.
        """
        self._opened = False
        self._descriptors.removeReader(self)
        self._descriptors.removeWriter(self)
        self._unsent.clear()
        self._lines = LineBuffer()
        if self.running:
            self._discard_unread()
            self._wait(now=False)


def _make_symlink(path: Path, device: str) -> None:
    try:
        old = os.readlink(path)
    except OSError:  # nothing is there, or no symlink: then creating one fails with the reason
        old = ""
    if old.startswith("/dev/pts/"):
        # Left by a simulator that was killed; but the kernel reuses numbers, so `old` may be another program's.
        if os.path.exists(old) and old != device:
            raise SimulatorError(f"{path}: leads to {old}, which is in use; remove it if no simulator runs")
        os.unlink(path)
    os.symlink(device, path)


def run(reactor: IReactorCore, path: str | os.PathLike[str], board: SimulatedBoard, what: str) -> None:
    """
    Run a simulator and the reactor, until a signal ends it.

    Args:
        reactor: The reactor.
        path: The path of the device.
        board: The board.
        what: What it is, for a person.

    Raises:
        SimulatorError: The device can't be created.
    """
    simulator = Simulator(IReactorTime(reactor), path, board)
    simulator.startService()
    reactor.addSystemEventTrigger("before", "shutdown", simulator.stopService)
    reactor.callWhenRunning(print, f"{what} is at {os.path.abspath(path)}; Ctrl-C ends it", flush=True)
    reactor.run()
