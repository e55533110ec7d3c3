"""
What a demo that was killed leaves behind: its processes end with it, and the next demo removes its folder.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import shutil
import signal
import stat
import tempfile
import time
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import IO

from usbgate.cli.autostart import DaemonStarter
from usbgate.store.embedded.postmaster import PidFile, is_server_of, kill_server

PREFIX = "usbgate-demo-"  # of the names of demos' folders
LOCK = "demo.lock"  # locked while the demo runs
YOUNG = 60.0  # seconds in which a folder without a lock may belong to a demo that just starts

END_LIMIT = 15.0  # seconds for the database to end
POLL = 0.05  # seconds between two checks

_SET_PARENT_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG of prctl(2)


def hold(folder: Path) -> IO[bytes]:
    """
    Mark the folder of a demo as in use, until the returned file is closed or this process ends, however it ends.
    """
    lock = (folder / LOCK).open("wb")
    fcntl.flock(lock, fcntl.LOCK_EX)
    return lock


def end_with_parent() -> Callable[[], None]:
    """
    Return a function for `preexec_fn` of Popen: the kernel sends SIGTERM to the process when this one ends.
    """
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    parent = os.getpid()

    def prepare() -> None:
        prctl(_SET_PARENT_DEATH_SIGNAL, signal.SIGTERM)
        if os.getppid() != parent:  # it has ended already
            os._exit(1)

    return prepare


def clear() -> None:
    """
    Remove the folders of demos of this user that were killed, and end their databases.
    """
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        with suppress(OSError):  # another demo clears it, too
            about = folder.lstat()
            if stat.S_ISDIR(about.st_mode) and about.st_uid == os.geteuid() and _is_abandoned(folder, about.st_ctime):
                end_database(folder / "state" / "postgres" / "data")
                shutil.rmtree(folder, ignore_errors=True)  # the simulator may be removing its own file just now


def _is_abandoned(folder: Path, changed: float) -> bool:
    try:
        lock = (folder / LOCK).open("rb")
    except FileNotFoundError:
        return time.time() - changed > YOUNG
    with closing(lock):
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return not DaemonStarter(folder / "state", (), {}).is_alive()  # it may be ending just now


def end_database(data: Path) -> None:
    """
    End the database server if the daemon could not: the server has a session of its own and outlives a killed daemon.
    """
    server = PidFile.read(data)
    if server is None or not is_server_of(server.pid, data):
        return
    for number in (signal.SIGINT, signal.SIGQUIT):  # PostgreSQL's fast stop, then its immediate one
        with suppress(ProcessLookupError):
            os.kill(server.pid, number)
        deadline = time.monotonic() + END_LIMIT
        while is_server_of(server.pid, data):
            if time.monotonic() > deadline:
                break
            time.sleep(POLL)
        else:
            return
    kill_server(server.pid)
