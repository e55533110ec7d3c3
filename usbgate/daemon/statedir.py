"""
The state folder: made where it is missing, and held by one daemon at a time.
"""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path

from twisted.application.service import Service

from usbgate.core.errors import StartError

# A client that looks whether a daemon runs holds the lock for some microseconds. Nothing else runs yet that a pause
# could hold up.
LOCK_TRIES = 10
LOCK_PAUSE = 0.02  # seconds


class StateDirectoryError(StartError):
    """
    The state folder can't be used; the text says why, in one line.
    """


class StateDirectory(Service):
    """
    Holds a lock on `lock` in the folder for life: the lock decides whether a daemon runs, never a pid file.

    The kernel lets go of it however the process ends.
    """

    def __init__(self, folder: Path) -> None:
        """
        Remember the folder; nothing is opened before the service is started.
        """
        self._folder = folder
        self._lock: int | None = None

    def privilegedStartService(self) -> None:
        """
        Make the folder and take the lock, before anything else is touched.

        Raises:
            StateFolderError: It can't be made or written to, or another daemon holds it.
        """
        # What is in there is nobody else's, however we were started: twistd sets this only in the background.
        os.umask(0o077)
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            lock = os.open(self._folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StateDirectoryError(f"the state folder {self._folder} can't be used: {error.strerror}") from None
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
        Let go of the lock.
        """
        super().stopService()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None
