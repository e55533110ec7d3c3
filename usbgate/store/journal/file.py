"""
The journal file: unconfirmed batches and rejected rows, in SQLite.

This module is synchronous: every call blocks until the disk I/O is done.
"""

from __future__ import annotations

import errno
import json
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from uuid import uuid4

import msgspec
from twisted.logger import Logger

from usbgate.core.batch import KINDS, NULL_CELL, Batch, merge
from usbgate.core.errors import StartError
from usbgate.store.journal.damage import Unreadable, is_damage, primary_code, quick_check, set_aside
from usbgate.store.journal.presence import Displaced, Presence, Touched

FORMAT = 1  # PRAGMA user_version of the file; a new, empty file has 0

LOCK_TIMEOUT = 1.0  # seconds; only an external reader can hold the lock, and the writer retries

# An outage leaves the file as large as it ever was; beyond this many pages an empty one is made small again at
# the next start: 16 MiB, an hour of a busy device and quickly used again.
LARGE = 4096

REFUSALS = (errno.ENOSPC, errno.EDQUOT, errno.EIO)  # disk errors that may be transient

LIMIT = 1 << 30  # bytes; days of a busy device
ROW_BYTES = 32  # approximate SQLite overhead per batch
DROP_MOST = 10_000  # batches dropped per commit, to keep it short; the next commit continues

# `count` stands before `payload`, so that counting the backlog does not read the payloads' pages.
_SCHEMA = """
create table if not exists journal (uuid text not null, n integer not null, lost integer not null default 0);
create table if not exists batch (
    last integer primary key, first integer not null, count integer not null, payload blob not null);
create table if not exists rejected (
    n integer primary key,
    at text not null default (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')),
    reason text not null,
    kind text not null,
    row text not null);
"""


class JournalError(StartError):
    """
    The journal can't be opened; the message gives the reason.
    """


class JournalRefused(JournalError):
    """
    The disk refuses writes at present, so the journal can't be opened yet.
    """


class JournalFile:
    """
    The durable part of the journal.

    Attributes:
        path: Path of the file; SQLite keeps a `-wal` and a `-shm` file beside it.
        uuid: Unique id of this journal; generated with the file and stored in it.
        n: Number of the newest row ever written.
        backlog: Rows in the file when it was opened.
        rejected: Rejected rows kept in the file.
        lost: Rows lost since the file was created.
        bytes_written: Payload bytes committed since it was opened.
        content: Bytes of the batches in the file.
        checked: Whether `check` has completed.
        replaced: Whether a new file took the place of a damaged or lost one; to be reset by the caller.
    """

    log = Logger()

    def __init__(self, path: Path, limit: int = LIMIT) -> None:
        self.path = path
        self._limit = limit
        self.uuid = ""
        self.n = 0
        self.backlog = 0
        self.rejected = 0
        self.lost = 0
        self.bytes_written = 0
        self.content = 0
        self.checked = False
        self.replaced = False
        self._checking = False
        self._presence = Presence(path)
        self._connection: sqlite3.Connection | None = None

    def open(self) -> None:
        """
        Open or create the file; a damaged file is set aside and replaced.

        Raises:
            JournalRefused: The disk is full or failing; see `reopen`.
            JournalError: The file can't be opened, permanently.
        """
        try:
            try:
                self._open()
            except sqlite3.DatabaseError as error:
                if not is_damage(error):
                    raise
                self.replace(error)
                self.replaced = False
        except (sqlite3.Error, OSError) as error:
            codes = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR)
            if primary_code(error) in codes or getattr(error, "errno", 0) in REFUSALS:
                raise JournalRefused(str(error)) from None
            raise JournalError(f"cannot use the journal {self.path}: {error}") from None

    def _open(self) -> sqlite3.Connection:
        # One thread at a time: the reactor's opens the file, after that only the writer's uses it.
        db = sqlite3.connect(self.path, timeout=LOCK_TIMEOUT, isolation_level=None, check_same_thread=False)
        try:
            self._prepare(db)
            self._presence.opened()
        except BaseException:
            db.close()
            raise
        self._connection = db
        return db

    def _prepare(self, db: sqlite3.Connection) -> None:
        (found,) = db.execute("pragma user_version").fetchone()
        if found not in (0, FORMAT):
            raise JournalError(f"the journal {self.path} was created by another version of usbgate (format {found})")
        db.execute("pragma journal_mode = wal")
        db.execute("pragma synchronous = full")
        db.executescript(_SCHEMA)
        db.execute("begin immediate")
        row = db.execute("select uuid, n, lost from journal").fetchone()
        if row is None:
            # A replacement file keeps the uuid and the numbering.
            row = (self.uuid or str(uuid4()), self.n, self.lost)
            db.execute("insert into journal (uuid, n, lost) values (?, ?, ?)", row)
        db.execute("update journal set n = n")  # checks that the file is writable
        db.execute(f"pragma user_version = {FORMAT}")
        db.execute("commit")
        self.uuid, self.n, self.lost = row
        self.backlog, self.content = db.execute(
            "select coalesce(sum(count), 0), coalesce(sum(length(payload) + ?), 0) from batch", (ROW_BYTES,)
        ).fetchone()
        self.rejected = db.execute("select count(*) from rejected").fetchone()[0]
        if not self.backlog and db.execute("pragma page_count").fetchone()[0] > LARGE:
            db.execute("vacuum")
            db.execute("pragma wal_checkpoint(truncate)")  # makes the file small now, so that it never shrinks later

    def problem(self) -> Exception | None:
        """
        Return what else happened to the files since the last operation (see `is_damage`); None if nothing did.
        """
        return None if self._connection is None else self._presence.problem()

    def replace(self, error: Exception) -> None:
        """
        Set a damaged file aside and create a new one, unless the file proves intact; sets `replaced`.

        Args:
            error: The error that indicates the damage (see `is_damage`).

        Raises:
            OSError: The file can't be renamed.
            sqlite3.Error: The file can't be checked, or the new one can't be created.
        """
        final = any(isinstance(each, Unreadable | Displaced) for each in (error, self.problem()))
        self.close()
        # SQLite also reports damage when a single read fails at the wrong moment: the file and its rows are given up
        # only if the damage is confirmed.
        if not final:
            known = self.uuid, self.n, self.lost
            try:
                quick_check(self._open())
                if not known[0] or known[:2] == (self.uuid, self.n):
                    return
            except sqlite3.DatabaseError as confirmed:
                if not is_damage(confirmed):
                    raise
            self.close()
            self.uuid, self.n, self.lost = known
        aside = set_aside(self.path)
        self.replaced = True
        self.log.error(
            (
                "the journal {path} is lost"
                if isinstance(error, Displaced | Touched)
                else "the journal {path} is damaged"
            )
            + " ({reason}); {left}, and a new one created",
            path=str(self.path),
            reason=str(error),
            left=f"it was set aside as {aside.name}" if aside.exists() else "nothing is left of it",
        )
        self._open()

    def reopen(self) -> sqlite3.Connection:
        """
        Open the file if it is closed, because `open` was refused or a new file could not be created.

        Raises:
            sqlite3.Error: The file still can't be opened.
        """
        return self._connection or self._open()

    def check(self) -> None:
        """
        Check the file's integrity. This reads the whole file, which takes long with a large backlog.

        Raises:
            sqlite3.Error: The file is damaged (see `is_damage`) or can't be read.
        """
        db = self.reopen()
        self._checking = True
        try:
            quick_check(db)
            self.checked = True
        except sqlite3.Error as error:
            self.checked = not is_damage(error)  # an unreadable file may still be writable
            if primary_code(error) != sqlite3.SQLITE_INTERRUPT:
                raise
        finally:
            self._checking = False

    def interrupt_check(self) -> None:
        """
        Interrupt a check running in another thread.
        """
        if self._checking and self._connection is not None:
            self._connection.interrupt()

    def write(
        self,
        batches: Sequence[Batch],
        rejected: Sequence[tuple[Batch, str]],
        confirmed: int,
        kept: int = 0,
        lost: int = 0,
    ) -> list[tuple[int, int]]:
        """
        Commit atomically; if the new batches exceed the limit, the oldest ones are dropped.

        Args:
            batches: New batches, in order.
            rejected: Rejected rows, each with the reason; rows already present are left unchanged.
            confirmed: Batches up to this number are deleted.
            kept: Batches up to this number are not dropped.
            lost: Rows to count as lost in addition to those dropped; negative to correct an earlier count.

        Returns:
            The dropped batches, in order: last number and row count of each.

        Raises:
            sqlite3.Error: Nothing was committed.
        """
        db = self.reopen()
        packed = [(batch.last, batch.first, batch.rows, batch.to_bytes()) for batch in batches]
        n = batches[-1].last if batches else self.n
        content = self.content + sum(len(row[-1]) + ROW_BYTES for row in packed)
        dropped: list[tuple[int, int]] = []
        db.execute("begin immediate")
        try:
            (freed,) = db.execute(
                "select coalesce(sum(length(payload) + ?), 0) from batch where last <= ?", (ROW_BYTES, confirmed)
            ).fetchone()
            if freed:
                db.execute("delete from batch where last <= ?", (confirmed,))
                content -= freed
            if batches and content > self._limit:
                dropped, size = self._drop(db, max(kept, confirmed), content - self._limit)
                content -= size
            db.executemany("insert into batch values (?, ?, ?, ?)", packed)
            added = db.executemany(
                "insert or ignore into rejected (n, reason, kind, row) values (?, ?, ?, ?)",
                [_rejected_row(row, reason) for row, reason in rejected],
            ).rowcount
            lost += self.lost + sum(rows for _, rows in dropped)
            db.execute("update journal set n = ?, lost = ?", (n, lost))
            db.execute("commit")
        except BaseException:
            if db.in_transaction:
                db.execute("rollback")
            raise
        finally:
            self._presence.changed()
        self.n = n
        self.lost = lost
        self.rejected += max(added, 0)
        self.bytes_written += sum(len(row[-1]) for row in packed)
        self.content = content
        return dropped

    def restore(self, batches: Sequence[Batch]) -> None:
        """
        Commit batches that were written to the file that this one replaces, if they are not in this one.

        Raises:
            sqlite3.Error: Nothing was committed.
        """
        db = self.reopen()
        packed = [(batch.last, batch.first, batch.rows, batch.to_bytes()) for batch in batches]
        db.execute("begin immediate")
        try:
            db.executemany("insert or ignore into batch values (?, ?, ?, ?)", packed)
            (content,) = db.execute("select coalesce(sum(length(payload) + ?), 0) from batch", (ROW_BYTES,)).fetchone()
            db.execute("commit")
        except BaseException:
            if db.in_transaction:
                db.execute("rollback")
            raise
        finally:
            self._presence.changed()
        self.content = content

    def _drop(self, db: sqlite3.Connection, kept: int, excess: int) -> tuple[list[tuple[int, int]], int]:
        # Called before the new batches are inserted, so that they are never dropped.
        dropped: list[tuple[int, int]] = []
        freed = 0
        oldest = db.execute(
            "select last, count, length(payload) + ? from batch where last > ? order by last limit ?",
            (ROW_BYTES, kept, DROP_MOST),
        )
        with closing(oldest):
            for last, rows, size in oldest:
                dropped.append((last, rows))
                freed += size
                if freed >= excess:
                    break
        if dropped:
            db.execute("delete from batch where last > ? and last <= ?", (kept, dropped[-1][0]))
        return dropped, freed

    def read(self, after: int, most: int) -> tuple[Batch | None, bool]:
        """
        Read the oldest batches, merged into one.

        Args:
            after: Only batches after this number.
            most: Maximum rows to merge; the first batch is always read.

        Returns:
            The batch, None if there is none; and whether there is nothing after it.

        Raises:
            Unreadable: A payload is not a valid batch.
            sqlite3.Error: The file can't be read.
        """
        db = self.reopen()
        batches: list[Batch] = []
        rows = 0
        with closing(db.execute("select count, payload from batch where last > ? order by last", (after,))) as found:
            for count, payload in found:
                rows += count
                if batches and rows > most:
                    return merge(batches), False
                try:
                    batches.append(Batch.from_bytes(payload))
                except msgspec.MsgspecError as error:
                    raise Unreadable(f"batch up to {batches[-1].last if batches else after}: {error}") from None
        return (merge(batches) if batches else None), True

    def close(self) -> None:
        """
        Close the file; SQLite checkpoints it and removes the `-wal` and `-shm` files.
        """
        if self._connection is not None:
            try:
                # An interrupt stays in force until the next statement, and would end the checkpoint made by `close`.
                self._connection.execute("select 1")
                self._connection.close()
            except sqlite3.Error:  # what is committed remains in the -wal file
                pass
            self._connection = None


def _rejected_row(row: Batch, reason: str) -> tuple[int, str, str, str]:
    """
    Format a rejected row as ASCII-only JSON, for inspection and manual recovery.
    """
    ((kind, cells),) = [(kind, columns) for kind, columns in zip(KINDS, row.parts, strict=True) if columns]
    values = {name: None if cell == NULL_CELL else cell for name, cell in zip(kind.columns, cells, strict=True)}
    return row.first, reason.encode("utf-8", "replace").decode(), kind.table, json.dumps(values)
