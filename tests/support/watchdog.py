"""
Ends the processes of a test process, even if that was killed; run as a process: `watchdog.py NAME FOLDER...`.

Its standard input is a pipe from the test process, so it ends when that process does. Then this program ends every
process that has NAME in its environment, command line or working directory, and removes the folders. It also finds
processes that changed their session, user or parent.
"""

import os
import shutil
import signal
import sys
import time
from collections.abc import Iterator

# The signals that end a process, and the seconds to wait after each.
ENDING = ((signal.SIGTERM, 2.0), (signal.SIGKILL, 10.0))

# Seconds within which a process that is just starting shows its environment.
STARTING = 0.1


def started_under(name: str) -> Iterator[int]:
    """
    Return the processes that a test process with this name has started.
    """
    mark = os.fsencode(name)
    for pid in map(int, filter(str.isdecimal, os.listdir("/proc"))):
        if pid != os.getpid() and mark in _description(pid):
            yield pid


def _description(pid: int) -> bytes:
    found = b""
    for file in ("environ", "cmdline"):
        try:
            with open(f"/proc/{pid}/{file}", "rb") as opened:
                found += opened.read()
        except OSError:  # it has ended, or belongs to another user
            pass
    try:
        found += os.fsencode(os.readlink(f"/proc/{pid}/cwd"))
    except OSError:
        pass
    return found


def end_started_under(name: str) -> None:
    """
    End these processes, and those that they start meanwhile.
    """
    for number, patience in ENDING:
        deadline = time.monotonic() + patience
        sent: set[int] = set()
        while time.monotonic() < deadline:
            found = set(started_under(name))
            for pid in found - sent:
                try:
                    os.kill(pid, number)
                    os.kill(pid, signal.SIGCONT)  # a stopped one would not end
                except (ProcessLookupError, PermissionError):
                    pass
            sent |= found
            if not found:
                time.sleep(STARTING)
                if not any(started_under(name)):
                    return
            time.sleep(0.01)


def main(name: str, *folders: str) -> None:
    """
    Wait for the end of the input, then clean up.
    """
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    while os.read(0, 1024):
        pass
    if os.path.isdir("/proc/self"):
        end_started_under(name)
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
