"""
The rows in a journal file that the database refused, read and changed by another process than the daemon's.

This module is synchronous.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from usbgate.core.batch import KINDS, NULL_CELL, Batch, batch_of_row

PAGE = 500  # rows that are read at a time
LOCK_TIMEOUT = 10.0  # seconds; the daemon's commits take milliseconds

_SELECT = "select n, seq, at, reason, kind, row from rejected where n > ? order by n limit ?"


class JournalUnreadable(Exception):
    """
    The journal cannot be read or changed; the message gives the reason.
    """


class RejectedRow(NamedTuple):
    """
    A row that the database refused.

    Attributes:
        n: The journal's number.
        seq: Its number in the database.
        at: When it was set aside, in ISO 8601.
        reason: Why it was refused last.
        table: The table for which it is meant.
        cells: The text of each of its columns (see `Kind.columns`); None for null.
    """

    n: int
    seq: int
    at: str
    reason: str
    table: str
    cells: dict[str, str | None]

    @property
    def batch(self) -> Batch:
        """
        A batch of this row alone.
        """
        return batch_of_row(self.n, self.table, self.cells)


class RejectedRows:
    """
    The rejected rows of a journal file, which a daemon may be using.

    Attributes:
        journal: The uuid of the journal.
        done: Its batches up to this number are stored, as far as the file tells.
    """

    def __init__(self, path: Path) -> None:
        """
        Open the file.

        Raises:
            JournalUnreadable: It is missing, or cannot be opened.
        """
        if not path.exists():
            raise JournalUnreadable(f"there is no journal {path}: nothing was refused, or this is not the state folder")
        self._path = path
        try:
            # It must not be created: a daemon would take it for its own.
            self._db = sqlite3.connect(
                f"{path.absolute().as_uri()}?mode=rw", LOCK_TIMEOUT, isolation_level=None, uri=True
            )
            # Only the daemon writes to the main file while it runs (see `Presence`).
            self._db.execute("pragma wal_autocheckpoint = 0")
            (self.journal, self.done) = self._db.execute("select uuid, done from journal").fetchone()
        except (sqlite3.Error, TypeError) as error:
            raise self._unreadable(error) from None

    def close(self) -> None:
        """
        Close the file.
        """
        self._db.close()

    def pages(self) -> Iterator[list[RejectedRow]]:
        """
        Read all rows, by number, `PAGE` at a time; between two pages the file is not locked, and may be changed.

        Raises:
            JournalUnreadable: The file cannot be read.
        """
        after = -1
        while True:
            try:
                with closing(self._db.execute(_SELECT, (after, PAGE))) as found:
                    page = [RejectedRow._make((*row[:5], json.loads(row[5]))) for row in found]
            except (sqlite3.Error, ValueError) as error:
                raise self._unreadable(error) from None
            if not page:
                return
            yield page
            after = page[-1].n

    def settle(self, stored: Iterable[RejectedRow], refused: Iterable[tuple[RejectedRow, str]]) -> None:
        """
        Remove rows that are stored now, and change the reason of others.

        Raises:
            JournalUnreadable: Nothing was changed.
        """
        try:
            self._db.execute("begin immediate")
            self._db.executemany("delete from rejected where n = ?", [(row.n,) for row in stored])
            self._db.executemany(
                "update rejected set reason = ? where n = ?",
                [(printable(reason), row.n) for row, reason in refused if reason != row.reason],
            )
            self._db.execute("commit")
        except sqlite3.Error as error:
            raise self._unreadable(error) from None

    def _unreadable(self, error: Exception) -> JournalUnreadable:
        return JournalUnreadable(f"the journal {self._path} cannot be used: {error}")


def rejected_row(base: int, row: Batch, reason: str) -> Sequence[object]:
    """
    Return a refused row as the file keeps it: number, number in the database, reason, table, and ASCII-only JSON.
    """
    ((kind, cells),) = [(kind, columns) for kind, columns in zip(KINDS, row.parts, strict=True) if columns]
    values = {name: None if cell == NULL_CELL else cell for name, cell in zip(kind.columns, cells, strict=True)}
    (n,) = map(int, cells[:1])
    return n, base + n, printable(reason), kind.table, json.dumps(values)


def printable(reason: str) -> str:
    """
    Return a reason that SQLite can keep, whatever it quotes.
    """
    return reason.encode("utf-8", "replace").decode()
