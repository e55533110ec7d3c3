"""
Whether the files of an open journal are still there: deleting, replacing or truncating them does not make SQLite fail.
"""

from __future__ import annotations

import os
import sqlite3
from contextlib import suppress
from pathlib import Path


class Displaced(sqlite3.DatabaseError):
    """
    The main file was deleted, replaced or cut short.
    """


class Touched(sqlite3.DatabaseError):
    """
    The `-wal` file was deleted, replaced or cut short, or something else wrote to the main file.
    """


class Presence:
    """
    Compares the main file and its `-wal` file with what they were after the journal's own last operation.

    It never opens them: closing a second descriptor would drop the locks that SQLite holds on them.
    """

    def __init__(self, path: Path) -> None:
        self._paths = (path, Path(f"{path}-wal"))
        self._opened: tuple[os.stat_result | None, ...] = (None, None)
        self._seen: tuple[os.stat_result | None, ...] = (None, None)

    def opened(self) -> None:
        """
        Record the files that were just opened.
        """
        self._opened = self._seen = self._look()

    def changed(self) -> None:
        """
        Record what the journal's own operation made of the files.
        """
        # Files that were replaced during the operation stay unrecorded, so that `problem` finds them.
        with suppress(OSError):
            self._seen = tuple(
                now if _is_same(now, opened) else seen
                for now, opened, seen in zip(self._look(), self._opened, self._seen, strict=True)
            )

    def problem(self) -> Displaced | Touched | None:
        """
        Return what happened to the files since then; None if nothing did, or if that cannot be seen.
        """
        try:
            found = self._look()
        except OSError:
            return None
        kinds: tuple[type[Displaced | Touched], ...] = (Displaced, Touched)
        for kind, path, now, seen in zip(kinds, self._paths, found, self._seen, strict=True):
            if now is None or seen is None:
                if now is not seen:
                    return kind(f"{path.name} was deleted" if now is None else f"{path.name} was replaced")
            elif not _is_same(now, seen):
                return kind(f"{path.name} was replaced")
            elif now.st_size < seen.st_size:
                return kind(f"{path.name} was cut short")
            elif kind is Displaced and now.st_mtime_ns != seen.st_mtime_ns:
                return Touched(f"something else wrote to {path.name}")
        return None

    def _look(self) -> tuple[os.stat_result | None, ...]:
        return tuple(map(_stat, self._paths))


def _stat(path: Path) -> os.stat_result | None:
    try:
        return os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None


def _is_same(one: os.stat_result | None, other: os.stat_result | None) -> bool:
    return one is not None and other is not None and os.path.samestat(one, other)
