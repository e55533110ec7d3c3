"""
A file system in memory whose power can fail: whatever was not synced by then is lost.

    python -m tests.faults.powercut MOUNTPOINT SURVIVED CHANGES SEED

After CHANGES changes every call fails, and the folder SURVIVED holds what a disk would still hold. Of the writes that
were not synced, all or some are lost, depending on the seed: a disk promises no order. A name survives from the sync of
its folder on. The exit status is 0 then, and `NO_MOUNT` if the file system can't be mounted.
"""

from __future__ import annotations

import errno
import os
import random
import stat
import sys
from pathlib import Path
from typing import Any, NamedTuple

import mfusepy

NO_MOUNT = 77  # the exit status where it can't be mounted


class Change(NamedTuple):
    """
    Bytes that were written, or a truncation if there are none.
    """

    offset: int
    data: bytes | None

    def make(self, content: bytearray) -> None:
        """
        Apply the change to the content of a file.
        """
        content.extend(bytes(max(0, self.offset - len(content))))
        if self.data is None:
            del content[self.offset :]
        else:
            content[self.offset : self.offset + len(self.data)] = self.data


class File:
    """
    One file: as programs see it, as it is on disk, and the changes in between.
    """

    def __init__(self) -> None:
        self.seen = bytearray()
        self.disk = bytearray()
        self.unsynced: list[Change] = []

    def change(self, change: Change) -> None:
        """
        Make a change that programs see.
        """
        change.make(self.seen)
        self.unsynced.append(change)

    def sync(self, survives: float = 1.0) -> None:
        """
        Write the changes to the disk; each of them only with the probability `survives`.
        """
        for change in self.unsynced:
            if random.random() < survives:
                change.make(self.disk)
        self.unsynced = []


class PowerCut(mfusepy.Operations):  # type: ignore[misc]  # untyped
    """
    The file system: one folder.
    """

    use_ns = True

    def __init__(self, survived: Path, changes: int, survives: float) -> None:
        self._survived = survived
        self._changes_left = changes
        self._survives = survives
        self._seen: dict[str, File] = {}
        self._disk: dict[str, File] = {}

    def _find(self, path: str) -> File:
        if path not in self._seen:
            raise mfusepy.FuseOSError(errno.ENOENT)
        return self._seen[path]

    def _count(self) -> None:
        self._changes_left -= 1
        if self._changes_left < 0:
            for path, file in self._disk.items():
                file.sync(self._survives)
                (self._survived / path[1:]).write_bytes(file.disk)
            os._exit(0)

    def getattr(self, path: str, fh: int | None = None) -> dict[str, Any]:
        if path == "/":
            return {"st_mode": stat.S_IFDIR | 0o755, "st_nlink": 2}
        size = len(self._find(path).seen)
        return {"st_mode": stat.S_IFREG | 0o644, "st_nlink": 1, "st_size": size}

    def readdir(self, path: str, fh: int) -> list[str]:
        return [".", "..", *(name[1:] for name in self._seen)]

    def create(self, path: str, *args: Any) -> int:
        self._count()
        self._seen[path] = File()
        return 0

    def read(self, path: str, size: int, offset: int, fh: int) -> bytes:
        return bytes(self._find(path).seen[offset : offset + size])

    def write(self, path: str, data: bytes, offset: int, fh: int) -> int:
        self._count()
        self._find(path).change(Change(offset, bytes(data)))
        return len(data)

    def truncate(self, path: str, length: int, fh: int | None = None) -> int:
        self._count()
        self._find(path).change(Change(length, None))
        return 0

    def fsync(self, path: str, datasync: int, fh: int) -> int:
        self._count()
        self._find(path).sync()
        return 0

    def fsyncdir(self, path: str, datasync: int, fh: int) -> int:
        self._count()
        self._disk = dict(self._seen)
        return 0

    def rename(self, old: str, new: str) -> int:
        self._count()
        self._seen[new] = self._seen.pop(old)
        return 0

    def unlink(self, path: str) -> int:
        self._count()
        del self._seen[path]
        return 0

    def chown(self, path: str, uid: int, gid: int) -> int:
        return 0

    def chmod(self, path: str, mode: int) -> int:
        return 0

    def utimens(self, path: str, times: Any = None) -> int:
        return 0


def main() -> None:
    """
    Mount the file system until the power fails.
    """
    mountpoint, survived, changes, seed = sys.argv[1:]
    random.seed(int(seed))
    system = PowerCut(Path(survived), int(changes), random.choice([0.0, 0.3, 0.9]))
    try:
        mfusepy.FUSE(system, mountpoint, foreground=True, nothreads=True)
    except RuntimeError:  # libfuse has said why
        sys.exit(NO_MOUNT)


if __name__ == "__main__":
    main()
