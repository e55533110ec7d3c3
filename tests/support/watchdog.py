"""
Ends what a test process has started, however that process ends; run as a process: `watchdog.py NAME FOLDER...`.

The other end of its standard input belongs to the test process alone, so that the input ends with that process. Then
this ends every process that has NAME in its environment, in its command line or in its working directory's path, and
removes the folders. A process that changed its session, its user or its parent is found as well.
"""

import os
import shutil
import signal
import sys
import time
from collections.abc import Iterator

# How a process is asked to end, and for how many seconds.
ENDING = ((signal.SIGTERM, 2.0), (signal.SIGKILL, 10.0))

# Seconds in which a process that was being started shows what it was started with.
STARTING = 0.1


def started_under(name: str) -> Iterator[int]:
    """
    Find the processes that a test process with this name has started.
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
        except OSError:  # it has ended, or is another user's
            pass
    try:
        found += os.fsencode(os.readlink(f"/proc/{pid}/cwd"))
    except OSError:
        pass
    return found


def end_started_under(name: str) -> None:
    """
    End them all, and those that they start meanwhile.
    """
    for number, patience in ENDING:
        deadline = time.monotonic() + patience
        sent: set[int] = set()
        while time.monotonic() < deadline:
            found = set(started_under(name))
            for pid in found - sent:
                try:
                    os.kill(pid, number)
                    os.kill(pid, signal.SIGCONT)  # one that stands still would not end
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
