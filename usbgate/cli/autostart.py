"""
Starting the daemon for a client that finds none, so that of many who try at a time exactly one does it.

Two locks (`flock`) in the state folder decide, never a pid file: `lock` is the daemon's, held while it lives;
`start.lock` is held by the client that starts one, until that listens or is dead. They end with their process,
however that ends.
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
from pathlib import Path
from typing import IO

from usbgate.cli.connection import Address, Connection, NoDaemon, connect, spell

START_LIMIT = 15.0  # seconds until the port must be there; ready in 1 s on a PC, several on a Pi with a first initdb
DEATH_LIMIT = 1.0  # seconds from the end of a process's first open file to that of its last
POLL = 0.05  # seconds between two looks

# -P: the working folder, which will be /, must not be searched for modules.
TWISTD = (sys.executable, "-P", "-m", "usbgate.cli.twistd")

LOG_TAIL = 65536  # bytes at the end of the log in which to look for its last line

_STAMP = re.compile(r"^\S+ \[[^\]]*\] ")
_TROUBLE = re.compile(r"^\S+ \[[^\]]*#(?:warn|error|critical)\] ")
_NO_NEWS = re.compile(
    r"^An error has occurred: |^Please look at log file|\] (?:Server Shut Down|Main loop terminated)\."
)


def twistd_arguments(state: Path, config: Path | None) -> list[str]:
    """
    Say how the daemon of a state folder is started.

    Args:
        state: Its state folder, absolute.
        config: Its configuration file, absolute; None for none, then it takes the only device there is.
    """
    options = [] if config is None else ["--config", str(config)]
    return [*TWISTD, "--pidfile=", f"--logfile={state / 'usbgate.log'}", "usbgate", *options]


def environment(state: Path) -> dict[str, str]:
    """
    Make the environment of a process that is to find this same usbgate, from any working folder.

    Args:
        state: The state folder, absolute: a relative one in the environment would lead elsewhere from /.
    """
    environ = {**os.environ, "USBGATE_STATE": str(state)}
    root = str(Path(__file__).resolve().parents[2])
    if root not in (sysconfig.get_path("purelib"), sysconfig.get_path("platlib")):  # not installed: a checkout
        environ["PYTHONPATH"] = os.pathsep.join(filter(None, [root, environ.get("PYTHONPATH")]))
    return environ


@dataclass
class DaemonStarter:
    """
    The daemon of one state folder, running or not.

    Attributes:
        state: Its state folder, absolute.
        arguments: How to start it; it may detach itself or not.
        environ: Its environment.
    """

    state: Path
    arguments: Sequence[str]
    environ: Mapping[str, str]

    def __post_init__(self) -> None:
        # What is in the log by now is not about us.
        try:
            self._log_start = self._log.stat().st_size
        except OSError:
            self._log_start = 0

    def reach(self, address: Address, within: float = START_LIMIT) -> Connection:
        """
        Connect to the daemon, and start it if there is none.

        Args:
            address: Where it will listen.
            within: Seconds that all of it may take.

        Raises:
            NoDaemon: It can't be started, died, or does not listen there.
        """
        connection = connect(address)
        if connection is not None:
            return connection
        deadline = time.monotonic() + within
        try:
            self.state.mkdir(parents=True, exist_ok=True)
            attempt = open(self.state / "start.lock", "a+b")  # noqa: SIM115  # closed below
        except OSError as error:
            raise NoDaemon(
                f"no daemon listens on {spell(address)}, and none can be started:"
                f" state folder {self.state}: {error.strerror or error}"
            ) from None
        with closing(attempt):
            return self._reach_in_turn(address, attempt, deadline)

    def is_alive(self) -> bool:
        """
        Find out whether a daemon holds this state folder.
        """
        try:
            with open(self.state / "lock", "rb") as lock:
                return not _take(lock, fcntl.LOCK_SH)
        except FileNotFoundError:
            return False
        except PermissionError:  # another user's: whoever answers here is that user's
            return True
        except OSError as error:
            raise NoDaemon(f"{self.state / 'lock'}: {error.strerror or error}") from None

    def check_death(self) -> None:
        """
        Find out whether a daemon that hung up is dead.

        Raises:
            NoDaemon: It is, and that is what its log said last.
        """
        # Its connections may end a moment before its lock does.
        deadline = time.monotonic() + DEATH_LIMIT
        while self.is_alive():
            if time.monotonic() > deadline:
                return
            time.sleep(POLL)
        raise NoDaemon(f"the daemon ended before it answered: {self._last_words()}")

    def _reach_in_turn(self, address: Address, attempt: IO[bytes], deadline: float) -> Connection:
        waited = False
        while not _take(attempt, fcntl.LOCK_EX):
            waited = True
            connection = self._look(address, deadline)
            if connection is not None:
                return connection
        # It is our turn: the one before us has a daemon that listens, or it wrote down why there is none.
        attempt.seek(0)
        why = attempt.read().decode()
        connection = connect(address)
        if connection is not None:
            return connection
        if waited and why:
            raise NoDaemon(why)
        attempt.truncate(0)
        try:
            return self._start(address, deadline)
        except NoDaemon as error:
            with suppress(OSError):  # the disk is full: then those who wait try for themselves
                os.write(attempt.fileno(), str(error).encode("utf-8", "replace"))
            raise

    def _start(self, address: Address, deadline: float) -> Connection:
        process: subprocess.Popen[bytes] | None = None
        while True:
            # In this order: a daemon that ended as we looked must not pass for one that never listened.
            dead = process is not None and process.poll() is not None and not self.is_alive()
            if dead:
                raise NoDaemon(f"the daemon ended at its start: {self._last_words()}")
            if process is None and not self.is_alive():
                process = self._spawn()
            connection = self._look(address, deadline)
            if connection is not None:
                return connection

    def _look(self, address: Address, deadline: float) -> Connection | None:
        connection = connect(address)
        if connection is None:
            if time.monotonic() > deadline:
                # Without a look at the lock: it would stand in the way of a daemon that is just taking it.
                raise NoDaemon(
                    f"the daemon is running or starting, but does not listen on {spell(address)} (see {self._log})"
                )
            time.sleep(POLL)
        return connection

    def _spawn(self) -> subprocess.Popen[bytes]:
        try:
            # What it says before it opens its log itself goes there, too.
            with open(self._log, "ab") as log:
                return subprocess.Popen(
                    self.arguments,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    cwd="/",
                    env=self.environ,
                    start_new_session=True,
                )
        except OSError as error:
            raise NoDaemon(f"the daemon cannot be started: {error.filename}: {error.strerror or error}") from None

    @property
    def _log(self) -> Path:
        return self.state / "usbgate.log"

    def _last_words(self) -> str:
        """
        Fetch the last line of the log that says something: of trouble, if there is one.
        """
        try:
            with open(self._log, "rb") as log:
                size = log.seek(0, os.SEEK_END)
                log.seek(max(self._log_start if self._log_start <= size else 0, size - LOG_TAIL))
                lines = log.read().decode("utf-8", "replace").splitlines()
        except OSError as error:
            return f"{self._log}: {error.strerror or error}"
        lines = [line for line in lines if line.strip() and not _NO_NEWS.search(line)]
        lines = [line for line in lines if _TROUBLE.search(line)] or lines
        return (
            _STAMP.sub("", lines[-1]).removeprefix("usbgate: ").strip()
            if lines
            else f"its log {self._log} says nothing"
        )


def _take(lock: IO[bytes], kind: int) -> bool:
    try:
        fcntl.flock(lock, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
