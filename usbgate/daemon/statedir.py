"""
The state folder: created if it is missing, locked by one daemon at a time, and keeper of the gateway's name.
"""

from __future__ import annotations

import fcntl
import os
import socket
import time
from pathlib import Path

from twisted.application.service import Service
from twisted.logger import Logger

from usbgate.core.errors import StartError
from usbgate.core.fieldline import reads_back
from usbgate.daemon.files import replace_file

log = Logger()

NAME_FILE = "gateway"  # the gateway's name, in UTF-8, in one line

# A client that checks whether a daemon runs holds the lock for some microseconds. A pause blocks nothing at this time.
LOCK_TRIES = 10
LOCK_PAUSE = 0.02  # seconds


class StateDirectoryError(StartError):
    """
    The state folder can't be used; the text says why, in one line.
    """


def gateway_name(folder: Path, configured: str | None) -> str:
    """
    Return the name under which a gateway stores its rows (protocol §5): the configured one, or else the one that its
    state folder keeps, or else the host's.

    Args:
        folder: The state folder; it may be missing.
        configured: The setting; None if there is none.
    """
    return configured or _kept_name(folder) or socket.gethostname()


def _kept_name(folder: Path) -> str | None:
    # A file that cannot be read is as good as none: readings come first, and the log says under which name.
    try:
        name = (folder / NAME_FILE).read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return None
    return name if reads_back(name) else None


class StateDirectory(Service):
    """
    Holds a lock on the file `lock` in the folder, which contains the process id. The lock, not a pid file, says whether
    a daemon runs: the kernel releases it however the process ends. The file `gateway` keeps the gateway's name, so that
    a new host name, as in a container that is created again, does not leave behind what was stored.
    """

    def __init__(self, folder: Path, name: str) -> None:
        """
        Args:
            folder: The folder.
            name: The gateway's name, see `gateway_name`.
        """
        self._folder = folder
        self._name = name
        self._lock: int | None = None

    def privilegedStartService(self) -> None:
        """
        Create the folder and take the lock.

        Raises:
            StateDirectoryError: The folder can't be created or written to, or another daemon holds the lock.
        """
        # Only this user may read the folder's files. twistd sets a umask only when it detaches.
        os.umask(0o077)
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = os.open(self._folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StateDirectoryError(f"the state folder {self._folder} cannot be used: {error.strerror}") from None
        for _ in range(LOCK_TRIES):
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                time.sleep(LOCK_PAUSE)
            else:
                self._lock = lock
                self._write_pid(lock)
                return
        os.close(lock)
        raise StateDirectoryError(f"another usbgate is running with the state folder {self._folder}")

    def _write_pid(self, lock: int) -> None:
        # For `usbgate stop`. It means something only while the lock is held.
        try:
            os.ftruncate(lock, 0)
            os.write(lock, str(os.getpid()).encode())
        except OSError as error:  # a full disk is no reason not to start
            log.warn("{folder}/lock cannot be written to: {reason}", folder=self._folder, reason=error.strerror)

    def startService(self) -> None:
        """
        Keep the gateway's name, and log it if the folder or the host has another one.

        Raises:
            StateDirectoryError: The folder belongs to another user, as whom the daemon has taken the lock.
        """
        super().startService()
        if not os.access(self._folder, os.R_OK | os.W_OK | os.X_OK, effective_ids=True):
            raise StateDirectoryError(
                f"the state folder {self._folder} must belong to the user of twistd --uid: chown -R it to that user"
            )
        kept, host = _kept_name(self._folder), socket.gethostname()
        if kept == self._name:
            if host != self._name:
                log.info("this gateway is {name}, as before; the host is {host}", name=self._name, host=host)
            return
        if kept is not None:
            log.warn(
                'this gateway is {name} from now on, as configured; it was {kept}: gateway = "{kept}" continues what '
                "was stored before",
                name=self._name,
                kept=kept,
            )
        elif (self._folder / NAME_FILE).exists():
            log.warn("{file} has no name: this gateway is {name}", file=self._folder / NAME_FILE, name=self._name)
        try:
            self._keep_name()
        except OSError as error:
            log.warn(
                "the gateway's name cannot be kept in {folder}: {reason}", folder=self._folder, reason=error.strerror
            )

    def _keep_name(self) -> None:
        # Before anything is stored under it.
        replace_file(self._folder / NAME_FILE, f"{self._name}\n".encode(), mode=0o644)

    def stopService(self) -> None:
        """
        Release the lock.
        """
        super().stopService()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def is_locked(folder: Path) -> bool:
    """
    Return whether a daemon holds the lock of a state folder.
    """
    try:
        lock = os.open(folder / "lock", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(lock)
    return False
