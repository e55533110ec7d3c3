"""
Child processes in their own sessions, unaffected by a terminal's Ctrl-C, optionally run as another user.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Sequence
from typing import NamedTuple

from twisted.internet.defer import Deferred, TimeoutError, succeed
from twisted.internet.error import ProcessExitedAlready
from twisted.internet.interfaces import IProcessTransport, IReactorProcess, IReactorTime
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure

# How much of a program's output is kept: its last bytes.
KEPT_OUTPUT = 65536

# How a program is ended, and for how many seconds one waits. The rest of a stop, which has 5 in all, goes on meanwhile.
ENDING = ((signal.SIGTERM, 0.5), (signal.SIGKILL, 0.5))

# Privileges are dropped here, not by `spawnProcess(uid=)`: that user may have no way to the Python interpreter, nor
# to anything that could still be imported after that (as `os.execvp` would). The log is opened as that user, so that
# root follows no link of its. `-I -S` keeps it at 15 ms.
_LAUNCHER = """
import os, sys
uid, gid, log, *command = sys.argv[1:]
try:
    os.setsid()
    if uid:
        os.setgroups([])
        os.setgid(int(gid))
        os.setuid(int(uid))
    os.umask(0o077)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    if log:
        output = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        os.dup2(output, 1)
        os.dup2(output, 2)
    os.chdir("/")
    os.execv(command[0], command)
except OSError as error:
    sys.exit(f"{command[0]}: {error.strerror}")
"""


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
        pid: Its process id; also that of its session.
        status: How it ended: the exit status, or the negative number of a signal; None while it runs.
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
    def over(self) -> bool:
        """
        Whether it has ended.
        """
        return self.status is not None

    def when_over(self) -> Deferred[None]:
        """
        Wait for the process to exit; cancelling only ends the wait.
        """
        if self.over:
            return succeed(None)
        waiting: Deferred[None] = Deferred()
        self._waiting.append(waiting)
        return waiting

    def send(self, number: int) -> None:
        """
        Send a signal to it, and to all that it has started.
        """
        if self.over:
            return
        try:
            os.killpg(self.pid, number)
        except OSError:  # it has no session of its own yet, or just ended
            try:
                self.transport.signalProcess(number)
            except (ProcessExitedAlready, PermissionError):
                pass

    def connectionMade(self) -> None:
        """
        Keep the process id, which the transport forgets at the end.
        """
        self.pid = self.transport.pid

    def outReceived(self, data: bytes) -> None:
        """
        Collect standard output.
        """
        self.output = (self.output + data)[-KEPT_OUTPUT:]

    def errReceived(self, data: bytes) -> None:
        """
        Collect standard error.
        """
        self.errors = (self.errors + data)[-KEPT_OUTPUT:]

    def processEnded(self, reason: Failure) -> None:
        """
        Record the exit status and fire the waiting Deferreds.
        """
        signalled = getattr(reason.value, "signal", None)
        self.status = -signalled if signalled else getattr(reason.value, "exitCode", None) or 0
        waiting, self._waiting = self._waiting, []
        for one in waiting:
            one.callback(None)


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

        It gets no file of ours but its three, a umask of 077, and none of our environment: PGHOST, PGOPTIONS,
        NOTIFY_SOCKET and others would mean something there.

        Args:
            command: The program, looked for in PATH where it is no path, and its arguments.
            log: The file to which its output is appended; else the Child keeps it.
        """
        path = os.environ.get("PATH", os.defpath) + ":/usr/sbin:/sbin"
        program = shutil.which(command[0], path=path) or command[0]
        identity = ["", ""] if self.account is None else list(map(str, self.account))
        arguments = [sys.executable, "-I", "-S", "-c", _LAUNCHER, *identity, log, program, *command[1:]]
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
            limit: Seconds after which it is ended; None waits.

        Returns:
            Its standard output.

        Raises:
            ProgramFailed: It failed, or was ended.
        """
        name = os.path.basename(command[0])
        child = self.start(command)
        self._running.add(child)
        child.when_over().addCallback(lambda _: self._running.discard(child))
        over = child.when_over()
        try:
            await (over if limit is None else over.addTimeout(limit, self._reactor))
        except TimeoutError:
            await self._end(child)
            raise ProgramFailed(f"{name}: not done after {limit:.0f} s") from None
        if child.status:
            complaint = child.errors.decode(errors="replace").strip().replace("\n", "; ")
            raise ProgramFailed(f"{name}: {complaint or f'ended with status {child.status}'}")
        return os.fsdecode(child.output)

    async def end(self) -> None:
        """
        Terminate the program started by `run`, if any, within the seconds of `ENDING`.
        """
        for child in list(self._running):
            await self._end(child)

    async def _end(self, child: Child) -> None:
        for number, patience in ENDING:
            child.send(number)
            try:
                await child.when_over().addTimeout(patience, self._reactor)
                return
            except TimeoutError:
                pass
