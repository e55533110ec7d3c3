"""
The benchmark's own processes, and the cost of any process.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.support.running import ROOT, environment

TICKS = os.sysconf("SC_CLK_TCK")


def start(module: str, *arguments: str, stdin: int = subprocess.DEVNULL) -> subprocess.Popen[bytes]:
    """
    Start a module in a session of its own: within one session, Linux gives too little time to whatever serves a pty.
    """
    return subprocess.Popen(
        [sys.executable, "-m", module, *arguments],
        stdin=stdin,
        stdout=subprocess.PIPE,
        cwd=ROOT,
        env=environment(),
        start_new_session=True,
    )


def run(module: str, *arguments: str, limit: float = 600.0) -> dict[str, Any]:
    """
    Run a module to its end; return its one line of JSON.
    """
    process = start(module, *arguments)
    try:
        output, _ = process.communicate(timeout=limit)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    if process.returncode:
        raise AssertionError(f"{module} ended with {process.returncode}")
    results: dict[str, Any] = json.loads(output)
    return results


def tree(root: int) -> list[int]:
    """
    Return a process and all its descendants.
    """
    children: dict[int, list[int]] = {}
    for pid, stat in _stats():
        children.setdefault(int(stat[1]), []).append(pid)
    found = [root]
    for pid in found:
        found += children.get(pid, [])
    return found


def cpu(root: int) -> float:
    """
    Return the CPU seconds of a process and its children, including those that have ended.
    """
    members = set(tree(root))
    # 11 to 14: user, system, and those of children that ended.
    return sum(sum(map(int, stat[11:15])) for pid, stat in _stats() if pid in members) / TICKS


def threads_cpu(pid: int) -> float:
    """
    Return the CPU seconds of all threads that a process has now, to the microsecond.
    """
    # The first number: nanoseconds on a CPU.
    return sum(int(each.read_text().split()[0]) for each in Path(f"/proc/{pid}/task").glob("*/schedstat")) / 1e9


def memory(pid: int, what: str = "VmRSS") -> int:
    """
    Return the resident bytes of a process; with `VmHWM`, the maximum so far.
    """
    found = re.search(rf"^{what}:\s+(\d+) kB$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1]) * 1024


def wakeups(pid: int) -> int:
    """
    Return how often the threads of a process have gone to sleep, which is how often they woke up.
    """
    total = 0
    for status in Path(f"/proc/{pid}/task").glob("*/status"):
        found = re.search(r"^voluntary_ctxt_switches:\s+(\d+)$", status.read_text(), re.MULTILINE)
        assert found is not None
        total += int(found[1])
    return total


def _stats() -> Iterator[tuple[int, list[str]]]:
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            text = path.read_text()
        except OSError:  # it has ended
            continue
        yield int(path.parent.name), text[text.rindex(")") + 2 :].split()
