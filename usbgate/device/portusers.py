"""
Which other programs have a tty open, as far as this user may read /proc.

Another reader takes lines away, and nothing else shows it: the lock of a port binds only those who ask for it.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread

# A process that is just being started has the descriptors of its parent, usbgate, for a moment.
CONFIRM_AFTER = 0.05  # seconds

USERS_LIMIT = 8  # programs to name; a person needs one or two

_PTY_MAJORS = range(136, 144)  # Unix98 ptys, as assigned by Linux


def is_pty(status: os.stat_result) -> bool:
    """
    Whether a character device is the device's end of a pty.
    """
    return os.major(status.st_rdev) in _PTY_MAJORS


def is_same_tty(one: os.stat_result, other: os.stat_result) -> bool:
    """
    Whether two files are the same tty. It may have several names, also in other file systems.
    """
    if not stat.S_ISCHR(other.st_mode) or one.st_rdev != other.st_rdev:
        return False
    return not is_pty(one) or one.st_dev == other.st_dev  # each container numbers its ptys from 0


def find_users(tty: os.stat_result, proc: str = "/proc") -> Sequence[str]:
    """
    Find the other processes that have a tty open; blocks for some milliseconds, or longer on a machine under load.

    Args:
        tty: The tty.
        proc: The folder of all processes.

    Returns:
        Up to `USERS_LIMIT` of them, such as "cat (process 4711)".
    """
    found = [pid for pid in _others(proc) if _has_open(f"{proc}/{pid}", tty)]
    if found:
        time.sleep(CONFIRM_AFTER)
        found = [pid for pid in found if _has_open(f"{proc}/{pid}", tty)]
    return [f"{_name(f'{proc}/{pid}')} (process {pid})" for pid in found[:USERS_LIMIT]]


def find_users_in_thread(tty: os.stat_result) -> Deferred[Sequence[str]]:
    """
    Call `find_users` in a thread of the reactor's pool.
    """
    return deferToThread(find_users, tty)


def _others(proc: str) -> Iterator[int]:
    own = os.getpid()
    return (int(name) for name in os.listdir(proc) if name.isdecimal() and int(name) != own)


def _has_open(process: str, tty: os.stat_result) -> bool:
    found = False
    with suppress(OSError):  # it has ended, or belongs to another user
        for name in os.listdir(f"{process}/fd"):
            with suppress(OSError):
                path = f"{process}/fd/{name}"
                target = os.readlink(path)
                # Files elsewhere may be on a file system that does not answer.
                if not target.startswith("/dev/"):
                    continue
                if target.endswith("/ptmx") and is_pty(tty) and _index_of_master(process, name) == _index(tty):
                    return False  # it is the device: whoever has the other end may have this one, too
                found = found or is_same_tty(tty, os.stat(path))
    return found


def _index(tty: os.stat_result) -> int:
    return (os.major(tty.st_rdev) - _PTY_MAJORS[0]) * 256 + os.minor(tty.st_rdev)


def _index_of_master(process: str, descriptor: str) -> int | None:
    for line in Path(process, "fdinfo", descriptor).read_text("ascii", "replace").splitlines():
        key, _, value = line.partition(":")
        if key == "tty-index":
            return int(value)
    return None


def _name(process: str) -> str:
    try:
        # Anybody can give a process any name.
        name = Path(process, "comm").read_bytes().strip().decode("ascii", "replace")
        return "".join(each if " " <= each <= "~" else "?" for each in name) or "?"
    except OSError:
        return "?"
