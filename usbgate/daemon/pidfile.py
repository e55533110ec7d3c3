"""
twistd's pid file after a power cut: the process that it names may be anybody's by now, and twistd would never start
again.
"""

from __future__ import annotations

import os
import re
import time
from pathlib import Path

from twisted.logger import Logger

from usbgate.daemon.statedir import is_locked

# Seconds between the start of a daemon and the time of its pid file: before, because both are rounded; behind, because
# a slow machine takes some to import everything.
START_SPAN = (-2.0, 60.0)

MOST = 4_194_304  # a process id of Linux (PID_MAX_LIMIT)

# An argument of a daemon's command line: a program named twistd, or the name of our service.
_DAEMON = re.compile(rb"(?:.*[/.])?twistd[0-9.]*|.*\btwisted\.scripts\.twistd\b.*|usbgate", re.DOTALL)

log = Logger()


def remove_stale_pid_file(path: Path, state: Path) -> None:
    """
    Remove a pid file that no running daemon has written. To be called before twistd looks at it.

    A daemon of this state folder keeps its file, and so does any daemon that started just before the file was written:
    it may be of another folder and share the file.

    Args:
        path: The pid file; there may be none.
        state: The state folder.
    """
    try:
        text, written = path.read_bytes(), path.stat().st_mtime
        reason = _why_stale(text.strip(), written, state)
        if reason is not None:
            path.unlink()
            log.warn("removed the pid file {path}: {reason}", path=str(path), reason=reason)
    except OSError:
        pass  # there is none, or twistd says what is wrong with it


def why_unusable(path: Path) -> str | None:
    """
    Return why twistd cannot read or write a pid file, about which it would only raise an exception; None if it can.

    Args:
        path: The pid file; there may be none.
    """
    try:
        path.read_bytes()
    except FileNotFoundError:
        if not path.parent.is_dir():
            return "there is no such folder"
        return None if os.access(path.parent, os.W_OK | os.X_OK) else "its folder cannot be written to"
    except OSError as error:
        return error.strerror
    return None


def _why_stale(text: bytes, written: float, state: Path) -> str | None:
    # Why no daemon can have written that; None if one may have.
    if not text.isdigit() or not 0 < int(text[:20]) <= MOST:
        return "it contains no process id"
    pid = int(text)
    if pid == os.getpid():
        return "it names this process"
    try:
        arguments = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        started = _start_of(pid)
    except OSError:
        return None  # it has ended, which twistd notices, or there is no /proc
    if not any(map(_DAEMON.fullmatch, arguments)):
        return f"process {pid} is no daemon"
    if START_SPAN[0] <= written - started <= START_SPAN[1] or is_locked(state):
        return None  # the clock may have been set since it started, but then the lock is held
    return f"process {pid} did not start when the file was written"


def _start_of(pid: int) -> float:
    # When a process started, in seconds since 1970; see proc_pid_stat(5).
    ticks = int(Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[19])
    return time.time() - time.clock_gettime(time.CLOCK_BOOTTIME) + ticks / os.sysconf("SC_CLK_TCK")
