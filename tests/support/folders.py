"""
Where the tests' files are. When this process ends, however it does, all that it started ends and the files go.

Importing this sets `TMPDIR`, by which a watchdog recognizes the processes that were started (see `watchdog`).
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from itertools import count
from pathlib import Path

from tests.support import watchdog

PREFIX = "usbgate-"  # short, since the paths of sockets have 108 bytes
MEMORY = Path("/dev/shm")
ENOUGH = 1 << 28  # bytes in memory


def _base() -> Path:
    """
    Return the folder for temporary files, also in a process that a test process has started.
    """
    base = Path(tempfile.gettempdir())
    return base.parent if base.name.startswith(PREFIX) else base


def _make() -> tuple[Path, Path]:
    disk = Path(tempfile.mkdtemp(prefix=PREFIX, dir=BASE))
    disk.chmod(0o711)  # a database's user goes through it
    if not (MEMORY.is_dir() and os.access(MEMORY, os.W_OK) and shutil.disk_usage(MEMORY).free > ENOUGH):
        return disk, disk
    memory = MEMORY / disk.name
    memory.mkdir()
    memory.chmod(0o711)
    return disk, memory


def _watch(*folders: Path) -> int:
    """
    Start the watchdog; return the file descriptor that must stay open until this process ends.
    """
    reading, writing = os.pipe()
    with open(reading) as ending:
        subprocess.Popen(
            [sys.executable, "-I", "-S", watchdog.__file__, folders[0].name, *map(str, folders)],
            stdin=ending,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            env={},  # so that no other watchdog ends this one
            start_new_session=True,
        )
    return writing


BASE = _base()
_disk, _memory = _make()
os.environ["TMPDIR"] = tempfile.tempdir = str(_disk)
_open = _watch(_disk, _memory)
_numbers = count(1)


def new_folder() -> Path:
    """
    Make a folder with a short name, for sockets; a memory disk takes a tenth of the time.
    """
    folder = _memory / str(next(_numbers))
    folder.mkdir(mode=0o700)
    return folder
