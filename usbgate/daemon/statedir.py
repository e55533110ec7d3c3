"""
The state folder: created if it is missing, and locked by one daemon at a time.
"""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path

from twisted.application.service import Service

from usbgate.core.errors import StartError

# A client that checks whether a daemon runs holds the lock for some microseconds. A pause blocks nothing at this time.
LOCK_TRIES = 10
LOCK_PAUSE = 0.02  # seconds


class StateDirectoryError(StartError):
    """
    The state folder can't be used; the text says why, in one line.
    """


class StateDirectory(Service):
    """
    Holds a lock on the file `lock` in the folder. The lock, not a pid file, says whether a daemon runs: the kernel
    releases it however the process ends.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
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
            self._folder.mkdir(parents=True, exist_ok=True)
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
                return
        os.close(lock)
        raise StateDirectoryError(f"another usbgate is running with the state folder {self._folder}")

    def stopService(self) -> None:
        """
        Release the lock.
        """
        super().stopService()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None
