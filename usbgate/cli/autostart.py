"""
Start the daemon if none runs. Of many clients that try at the same time, exactly one starts it.

Two locks (`flock`) in the state folder decide that, not a pid file: the daemon holds `lock` while it runs, and a client
that starts a daemon holds `start.lock` until the daemon listens or has ended. The kernel releases a lock with its
process, however that ends.
"""

from __future__ import annotations

import fcntl
import os
import re
import subprocess
import sys
import sysconfig
import time
from collections.abc import Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO

from usbgate.cli.connection import Address, Connection, NoDaemon, connect, spell

START_LIMIT = 15.0  # seconds until the daemon must listen: it takes 1 on a PC, several on a Pi with a first initdb
DEATH_LIMIT = 1.0  # seconds in which a process that ends closes all its files
POLL = 0.05  # seconds between two checks

# -P: the working folder, which will be /, must not be searched for modules.
TWISTD = (sys.executable, "-P", "-m", "usbgate.cli.twistd")

LOG_TAIL = 65536  # bytes of the log that are searched for its last line

_STAMP = re.compile(r"^\S+ \[[^\]]*\] ")
_TROUBLE = re.compile(r"^\S+ \[[^\]]*#(?:warn|error|critical)\] ")
_ROUTINE = re.compile(
    r"^An error has occurred: |^Please look at log file|\] (?:Server Shut Down|Main loop terminated)\."
    r"|\] \(\w+ Port .* Closed\)$"
)


def twistd_arguments(state: Path, config: Path | None) -> list[str]:
    """
    Return the command that starts the daemon of a state folder.

    Args:
        state: The state folder, absolute.
        config: The configuration file, absolute; None if there is none, and the daemon opens the only device.
    """
    options = [] if config is None else ["--config", str(config)]
    return [*TWISTD, "--pidfile=", f"--logfile={state / 'usbgate.log'}", "usbgate", *options]


def environment(state: Path) -> dict[str, str]:
    """
    Return an environment in which a process finds this usbgate, whatever its working folder is.

    Args:
        state: The state folder, absolute.
    """
    environ = {**os.environ, "USBGATE_STATE": str(state)}
    environ.pop("USBGATE_TOKEN", None)  # of whoever starts it
    root = str(Path(__file__).resolve().parents[2])
    if root not in (sysconfig.get_path("purelib"), sysconfig.get_path("platlib")):  # a source tree
        environ["PYTHONPATH"] = os.pathsep.join(filter(None, [root, environ.get("PYTHONPATH")]))
    return environ


@dataclass
class DaemonStarter:
    """
    The daemon of one state folder, whether it runs or not.

    Attributes:
        state: The state folder, absolute.
        arguments: The command that starts the daemon, which may detach itself.
        environ: The daemon's environment.
        folder: The daemon's working folder.
    """

    state: Path
    arguments: Sequence[str]
    environ: Mapping[str, str]
    folder: str = "/"

    def __post_init__(self) -> None:
        # Older lines of the log are about earlier daemons.
        try:
            self._log_start = self._log.stat().st_size
        except OSError:
            self._log_start = 0

    def reach(self, address: Address, within: float = START_LIMIT) -> Connection:
        """
        Connect to the daemon, and start it if it does not run.

        Args:
            address: Where it listens.
            within: Seconds that all this may take.

        Raises:
            NoDaemon: It can't be started, ended, or does not listen there.
        """
        connection = connect(address)
        if connection is not None:
            return connection
        deadline = time.monotonic() + within
        try:
            self.state.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = self.state / "start.lock"
            self._check_links(self.state, lock, self._log)
            attempt = open(lock, "a+b", opener=partial(os.open, mode=0o600))  # noqa: SIM115  # closed below
        except OSError as error:
            raise NoDaemon(
                f"no daemon listens on {spell(address)}, and none can be started:"
                f" state folder {self.state}: {error.strerror or error}"
            ) from None
        with closing(attempt):
            return self._reach_in_turn(address, attempt, deadline)

    def is_alive(self) -> bool:
        """
        Return whether a daemon holds the lock of this state folder.
        """
        try:
            with open(self.state / "lock", "rb") as lock:
                return not _take(lock, fcntl.LOCK_SH)
        except FileNotFoundError:
            return False
        except PermissionError:  # the daemon of another user
            return True
        except OSError as error:
            raise NoDaemon(f"{self.state / 'lock'}: {error.strerror or error}") from None

    def check_death(self) -> None:
        """
        Check whether a daemon that closed the connection has ended.

        Raises:
            NoDaemon: It has; the text has the last line of its log.
        """
        # Its connections may end a moment before its lock is released.
        deadline = time.monotonic() + DEATH_LIMIT
        while self.is_alive():
            if time.monotonic() > deadline:
                return
            time.sleep(POLL)
        raise NoDaemon(f"the daemon exited before it answered: {self._last_line()}")

    def _check_links(self, *paths: Path) -> None:
        from usbgate.daemon.links import foreign_link

        for path in paths:
            if reason := foreign_link(path):
                raise NoDaemon(f"the daemon cannot be started: {reason}")

    def _reach_in_turn(self, address: Address, attempt: IO[bytes], deadline: float) -> Connection:
        waited = False
        while not _take(attempt, fcntl.LOCK_EX):
            waited = True
            connection = self._look(address, deadline)
            if connection is not None:
                return connection
        # It is our turn: the client before us has started a daemon, or written to the file why it could not.
        attempt.seek(0)
        why = attempt.read().decode("utf-8", "replace")
        connection = connect(address)
        if connection is not None:
            return connection
        if waited and why:
            raise NoDaemon(why)
        attempt.truncate(0)
        try:
            return self._start(address, deadline)
        except NoDaemon as error:
            with suppress(OSError):  # the disk is full: then each client that waits tries to start one
                os.write(attempt.fileno(), str(error).encode("utf-8", "replace"))
            raise

    def _start(self, address: Address, deadline: float) -> Connection:
        process: subprocess.Popen[bytes] | None = None
        while True:
            # Checked before connecting: a daemon that ends in between must not be reported as one that does not listen.
            dead = process is not None and process.poll() is not None and not self.is_alive()
            if dead:
                raise NoDaemon(f"the daemon exited during its start: {self._last_line()}")
            if process is None and not self.is_alive():
                process = self._spawn()
            connection = self._look(address, deadline)
            if connection is not None:
                return connection

    def _look(self, address: Address, deadline: float) -> Connection | None:
        connection = connect(address)
        if connection is None:
            if time.monotonic() > deadline:
                # The lock is not tested here: that could get in the way of a daemon that is about to take it.
                raise NoDaemon(
                    f"the daemon is running or starting, but does not listen on {spell(address)} (see {self._log})"
                )
            time.sleep(POLL)
        return connection

    def _spawn(self) -> subprocess.Popen[bytes]:
        try:
            # The log also gets what the daemon prints before it opens the log.
            with open(self._log, "ab", opener=partial(os.open, mode=0o640)) as log:  # as the daemon makes it
                return subprocess.Popen(
                    self.arguments,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    cwd=self.folder,
                    env=self.environ,
                    start_new_session=True,
                )
        except OSError as error:
            raise NoDaemon(f"the daemon cannot be started: {error.filename}: {error.strerror or error}") from None

    @property
    def _log(self) -> Path:
        return self.state / "usbgate.log"

    def _last_line(self) -> str:
        """
        Return the last warning or error of the log, or else its last line that is not routine.
        """
        try:
            with open(self._log, "rb") as log:
                size = log.seek(0, os.SEEK_END)
                log.seek(max(self._log_start if self._log_start <= size else 0, size - LOG_TAIL))
                lines = log.read().decode("utf-8", "replace").splitlines()
        except OSError as error:
            return f"{self._log}: {error.strerror or error}"
        lines = [line for line in lines if line.strip() and not _ROUTINE.search(line)]
        lines = [line for line in lines if _TROUBLE.search(line)] or lines
        return _STAMP.sub("", lines[-1]).removeprefix("usbgate: ").strip() if lines else f"its log {self._log} is empty"


def _take(lock: IO[bytes], kind: int) -> bool:
    try:
        fcntl.flock(lock, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
