"""
Write files of the state folder, whole or not at all.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path


def replace_file(path: Path, data: bytes, mode: int = 0o600, durable: bool = True) -> None:
    """
    Put a new file in place of an old one: whoever reads it gets either. Root writes it for the owner of its folder.

    Args:
        path: The file.
        data: What it holds.
        mode: Its mode, which it has from the beginning; at most these bits, as the umask counts, too.
        durable: Whether to wait until it is on the disk, so that it survives a power cut.

    Raises:
        OSError: It cannot be written.
    """
    draft = f"{path}.new"
    with suppress(FileNotFoundError):
        os.unlink(draft)
    with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode), "wb") as file:
        if os.geteuid() == 0:
            owner = os.stat(path.parent)
            os.fchown(file.fileno(), owner.st_uid, owner.st_gid)
        file.write(data)
        file.flush()
        if durable:
            os.fsync(file.fileno())
    os.replace(draft, path)
    if durable:
        with suppress(OSError):  # not every file system can sync a folder, and the file is in its place
            _sync_folder(path.parent)


def _sync_folder(path: Path) -> None:
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
