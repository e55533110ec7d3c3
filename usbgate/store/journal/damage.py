"""
Damaged SQLite files: how to recognize one, and how to set it aside.
"""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

from usbgate.store.journal.presence import Displaced, Touched


class Unreadable(sqlite3.DatabaseError):
    """
    A payload is not a valid batch.
    """


class Damaged(sqlite3.DatabaseError):
    """
    The integrity check found corrupt pages.
    """


def primary_code(error: Exception) -> int:
    """
    Return SQLite's error code without its extended part; 0 for any other error.
    """
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def is_damage(error: Exception) -> bool:
    """
    Whether an error means that the file itself is corrupt or gone, so that a retry is useless.
    """
    return isinstance(error, Unreadable | Damaged | Displaced | Touched) or primary_code(error) in (
        sqlite3.SQLITE_CORRUPT,
        sqlite3.SQLITE_NOTADB,
    )


def quick_check(db: sqlite3.Connection) -> None:
    """
    Check the integrity of a whole file.

    Raises:
        Damaged: It has corrupt pages.
        sqlite3.Error: It can't be read, or the check was interrupted.
    """
    ((verdict, *_), *_) = db.execute("pragma quick_check(1)")
    if verdict != "ok":
        raise Damaged(str(verdict).replace("\n", " "))


def set_aside(path: Path) -> Path:
    """
    Rename what there is of a closed file and its `-wal` and `-shm` files to an unused name; can be repeated if it
    failed.

    Returns:
        The new path.

    Raises:
        OSError: A file can't be renamed.
    """
    number = 1
    while (aside := path.with_name(f"{path.name}.damaged-{number}")).exists():
        number += 1
    for suffix in ("-shm", "-wal", ""):  # the file itself last: until then the name is unused
        beside = Path(f"{path}{suffix}")
        if beside.exists():
            os.replace(beside, f"{aside}{suffix}")
    return aside
