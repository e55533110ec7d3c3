"""
Kills a test runner and prints which processes it leaves behind; run as a process: `orphans.py READY LIMIT COMMAND...`.

It runs COMMAND, waits until the file READY is there, and kills the command with SIGKILL. It prints the names of the
processes that had been started, a line each, then `left` and the names of those that were still there LIMIT seconds
later.
"""

import ctypes
import os
import subprocess
import sys
import time
from pathlib import Path

LOOK = 0.01  # seconds


def descendants() -> dict[int, str]:
    """
    Return the descendants of this process, which inherits those whose parent has ended.
    """
    found: dict[int, tuple[int, str]] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            name, _, rest = (folder / "stat").read_text(errors="replace").partition("(")[2].rpartition(")")
            found[int(folder.name)] = (int(rest.split()[1]), name)
        except OSError:  # it has ended
            continue
    below = {os.getpid()}
    while more := {pid for pid, (parent, _) in found.items() if parent in below} - below:
        below |= more
    return {pid: found[pid][1] for pid in below - {os.getpid()}}


def reap() -> None:
    """
    Reap the children that have ended.
    """
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass


def main(ready: str, limit: str, *command: str) -> None:
    """
    Run the command, kill it, and look at what is left.
    """
    ctypes.CDLL(None).prctl(36, 1)  # PR_SET_CHILD_SUBREAPER
    runner = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=sys.stderr, start_new_session=True)
    while not os.path.exists(ready):
        if runner.poll() is not None:
            sys.exit(f"the runner ended with {runner.returncode}")
        time.sleep(LOOK)
    started = descendants()
    runner.kill()
    runner.wait()
    deadline = time.monotonic() + float(limit)
    while left := descendants():
        if time.monotonic() > deadline:
            break
        time.sleep(LOOK)
        reap()
    print(*sorted(started.values()), "left", *sorted(left.values()), sep="\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
