"""
Child processes in their own sessions, unaffected by a terminal's Ctrl-C, optionally run as another user.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from twisted.internet.defer import Deferred, TimeoutError, succeed
from twisted.internet.error import ProcessExitedAlready
from twisted.internet.interfaces import IProcessTransport, IReactorProcess, IReactorTime
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure

OUTPUT_LIMIT = 65536  # bytes of a program's output to keep, the last ones

# Signals that end a program, with the seconds to wait after each. The rest of the stop, 5 s in all, goes on meanwhile.
ENDING = ((signal.SIGTERM, 0.5), (signal.SIGKILL, 0.5))

LAUNCHER = str(Path(__file__).with_name("launcher.py"))


class Account(NamedTuple):
    """
    The user and group a process runs as, if not the current ones.
    """

    uid: int
    gid: int


class ProgramFailed(Exception):
    """
    A program failed or timed out; the message includes its error output.
    """


class Child(ProcessProtocol):
    """
    A child process.

    Attributes:
        pid: Its process id; also its session's.
        status: The exit status, or the negative number of a signal; None while it runs.
        output: The end of its standard output.
        errors: The end of its standard error.
    """

    transport: IProcessTransport

    def __init__(self) -> None:
        self.pid = 0
        self.status: int | None = None
        self.output = b""
        self.errors = b""
        self._waiting: list[Deferred[None]] = []

    @property
    def ended(self) -> bool:
        """
        Whether it has ended.
        """
        return self.status is not None

    def when_ended(self) -> Deferred[None]:
        """
        Wait for the process to exit; cancelling only ends the wait.
        """
        if self.ended:
            return succeed(None)
        waiting: Deferred[None] = Deferred()
        self._waiting.append(waiting)
        return waiting

    def send(self, number: int) -> None:
        """
        Send a signal to it and to all processes it started.
        """
        if self.ended:
            return
        try:
            os.killpg(self.pid, number)
        except OSError:  # it has no session of its own yet, or has just ended
            try:
                self.transport.signalProcess(number)
            except (ProcessExitedAlready, PermissionError):
                pass

    def connectionMade(self) -> None:
        """
        Keep the process id, which the transport forgets when the process ends.
        """
        self.pid = self.transport.pid

    def outReceived(self, data: bytes) -> None:
        """
        Collect standard output.
        """
        self.output = (self.output + data)[-OUTPUT_LIMIT:]

    def errReceived(self, data: bytes) -> None:
        """
        Collect standard error.
        """
        self.errors = (self.errors + data)[-OUTPUT_LIMIT:]

    def processEnded(self, reason: Failure) -> None:
        """
        Record the exit status and fire the waiting Deferreds.
        """
        signalled = getattr(reason.value, "signal", None)
        self.status = -signalled if signalled else getattr(reason.value, "exitCode", None) or 0
        waiting, self._waiting = self._waiting, []
        for each in waiting:
            each.callback(None)


class Programs:
    """
    Starts programs in their own sessions, and tracks the short-lived ones.

    Attributes:
        account: The account to run as; None for the current user.
    """

    def __init__(self, reactor: IReactorTime, home: str) -> None:
        """
        Create a launcher; nothing is started yet.

        Args:
            reactor: For processes and time.
            home: Value of HOME for the programs.
        """
        self.account: Account | None = None
        self._reactor = reactor
        self._home = home
        self._running: set[Child] = set()

    def start(self, command: Sequence[str], log: str = "") -> Child:
        """
        Start a program.

        It inherits no file but stdin, stdout and stderr, and nothing of our environment, where PGHOST, PGOPTIONS,
        NOTIFY_SOCKET and others would affect it. Its umask is 077.

        Args:
            command: The program, a path or a name in PATH, and its arguments.
            log: The file to which its output is appended; empty to collect it in the Child.
        """
        path = os.environ.get("PATH", os.defpath) + ":/usr/sbin:/sbin"
        program = shutil.which(command[0], path=path) or command[0]
        identity = ["", ""] if self.account is None else list(map(str, self.account))
        arguments = [sys.executable, "-I", "-S", LAUNCHER, *identity, log, program, *command[1:]]
        environment = {"PATH": path, "HOME": self._home, "LC_ALL": "C", "TZ": "UTC"}
        child = Child()
        IReactorProcess(self._reactor).spawnProcess(
            child,
            sys.executable,
            list(map(os.fsencode, arguments)),
            {os.fsencode(key): os.fsencode(value) for key, value in environment.items()},
        )
        return child

    async def run(self, command: Sequence[str], limit: float | None = None) -> str:
        """
        Run a program to completion.

        Args:
            command: As for `start`.
            limit: Seconds after which it is terminated; None for no limit.

        Returns:
            Its standard output.

        Raises:
            ProgramFailed: It failed or was terminated.
        """
        name = os.path.basename(command[0])
        child = self.start(command)
        self._running.add(child)
        child.when_ended().addCallback(lambda _: self._running.discard(child))
        ended = child.when_ended()
        try:
            await (ended if limit is None else ended.addTimeout(limit, self._reactor))
        except TimeoutError:
            await self._end(child)
            raise ProgramFailed(f"{name}: not finished after {limit:.0f} s") from None
        if child.status:
            reason = child.errors.decode(errors="replace").strip().replace("\n", "; ")
            raise ProgramFailed(f"{name}: {reason or f'exited with status {child.status}'}")
        return os.fsdecode(child.output)

    async def end(self) -> None:
        """
        Terminate all programs started by `run`, within the seconds of `ENDING`.
        """
        for child in list(self._running):
            await self._end(child)

    async def _end(self, child: Child) -> None:
        for number, patience in ENDING:
            child.send(number)
            try:
                await child.when_ended().addTimeout(patience, self._reactor)
                return
            except TimeoutError:
                pass
