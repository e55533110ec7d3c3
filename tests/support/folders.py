"""
Folders for the tests' files. When this process ends, even if it is killed, a watchdog ends whatever it started and
removes the files.

Importing this module sets `TMPDIR`, by which the watchdog recognizes the processes (see `watchdog`).
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

PREFIX = "usbgate-"  # short, since the path of a socket has at most 108 bytes
MEMORY = Path("/dev/shm")
ENOUGH = 1 << 28  # bytes free in memory


def _base() -> Path:
    """
    Return the folder for temporary files, also in a process that a test process has started.
    """
    base = Path(tempfile.gettempdir())
    return base.parent if base.name.startswith(PREFIX) else base


def _make() -> tuple[Path, Path]:
    disk = Path(tempfile.mkdtemp(prefix=PREFIX, dir=BASE))
    disk.chmod(0o711)  # the database's user must be able to traverse it
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


def new_folder(size: int = 0) -> Path:
    """
    Create a folder with a short path, in memory if possible: that takes a tenth of the time.

    Args:
        size: How many bytes it may get, if they are many.
    """
    in_memory = not size or shutil.disk_usage(_memory).free > 4 * size
    folder = (_memory if in_memory else _disk) / str(next(_numbers))
    folder.mkdir(mode=0o700)
    return folder
