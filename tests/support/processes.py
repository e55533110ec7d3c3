"""
Processes that a test looks for or ends.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from functools import cache
from pathlib import Path

from tests.support.waiting import eventually


def is_running(pid: int) -> bool:
    """
    Return whether a process runs; a zombie does not.
    """
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def heed_interrupts() -> None:
    """
    Let SIGINT end the processes started from now on, even if this one ignores it: a shell's background job does.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def end(pid: int) -> None:
    """
    Kill a process, which need not be our child, and wait until it has ended.
    """
    if is_running(pid):
        os.kill(pid, signal.SIGKILL)
        eventually(lambda: not is_running(pid), f"process {pid} ends")


def processes_of(text: str) -> list[int]:
    """
    Return the processes whose command line contains a text.
    """
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                if text.encode() in (folder / "cmdline").read_bytes():
                    found.append(int(folder.name))
            except OSError:
                continue
    return found


@cache
def needs_strace() -> str | None:
    """
    Return why strace can't be used; None if it can.
    """
    if shutil.which("strace") is None:
        return "strace is not installed"
    tried = subprocess.run(
        ["strace", "-qq", "-e", "inject=getcwd:error=EIO", "pwd", "-P"], capture_output=True, text=True
    )
    if "INJECTED" not in tried.stderr:
        return f"strace can't trace here: {tried.stderr.strip()[-200:]}"
    return None
