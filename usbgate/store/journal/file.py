"""
The journal file, in SQLite: how it is opened, checked, replaced if it is damaged or lost, and written.

This module is synchronous: every call blocks until the disk I/O is done.
"""

from __future__ import annotations

import errno
import sqlite3
from collections.abc import Collection, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import NamedTuple
from uuid import uuid4

from twisted.logger import Logger

from usbgate.core.batch import Batch, Mark, link
from usbgate.core.errors import StartError
from usbgate.store.interfaces import Refusal
from usbgate.store.journal import tables
from usbgate.store.journal.damage import Unreadable, is_damage, primary_code, quick_check, set_aside
from usbgate.store.journal.presence import Displaced, Presence, Touched
from usbgate.store.journal.tables import ROW_BYTES, Head

FORMAT = 1  # PRAGMA user_version of the file; a new, empty file has 0

LOCK_TIMEOUT = 1.0  # seconds; only an external reader can hold the lock, and the writer retries

# An outage leaves the file as large as it ever was; beyond this many pages an empty one is made small again at
# the next start: 16 MiB, an hour of a busy device and quickly used again.
LARGE = 4096

REFUSALS = (errno.ENOSPC, errno.EDQUOT, errno.EIO)  # disk errors that may be transient

LIMIT = 1 << 30  # bytes; days of a busy device


class JournalError(StartError):
    """
    The journal can't be opened; the message gives the reason.
    """


class JournalRefused(JournalError):
    """
    The disk refuses writes at present, so the journal can't be opened yet.
    """


class Written(NamedTuple):
    """
    The result of a commit.

    Attributes:
        batches: The new batches, with their chain.
        dropped: The dropped batches, in order: last number and row count of each.
    """

    batches: Sequence[Batch]
    dropped: Sequence[tuple[int, int]]


class JournalFile:
    """
    The durable part of the journal.

    Attributes:
        path: Path of the file; SQLite keeps a `-wal` and a `-shm` file beside it.
        head: What it knows of itself. It keeps the values of a lost file for the one that takes its place.
        backlog: Rows in the file when it was opened.
        rejected: Rejected rows kept in the file.
        bytes_written: Payload bytes committed since it was opened.
        content: Bytes of the batches in the file.
        checked: Whether `check` has completed.
        replaced: Whether a new file took the place of a damaged or lost one; to be reset by the caller.
        incomplete: Whether `restore` must be called before the rows in the file mean anything.
    """

    log = Logger()

    def __init__(self, path: Path, limit: int = LIMIT) -> None:
        self.path = path
        self._limit = limit
        self.head = Head()
        self.backlog = 0
        self.rejected = 0
        self.bytes_written = 0
        self.content = 0
        self.checked = False
        self.replaced = self.incomplete = False
        self._checking = False
        self._version = 0  # changes when another process changes the file
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
                self.replaced = self.incomplete = False
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
        db.executescript(tables.SCHEMA)
        db.execute("begin immediate")
        head = tables.load(db) or self.head  # a replacement file keeps the identity and the numbering
        if not head.uuid:
            head = head._replace(uuid=str(uuid4()))
        tables.save(db, head)  # checks that the file is writable, too
        db.execute(f"pragma user_version = {FORMAT}")
        db.execute("commit")
        self.head = head
        (self.backlog,) = db.execute("select coalesce(sum(count), 0) from batch").fetchone()
        self.content = tables.measure(db)
        self.rejected = tables.count_rejected(db)
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
            known = self.head
            try:
                quick_check(self._open())
                if not known.uuid or (known.uuid, known.n) == (self.head.uuid, self.head.n):
                    return
            except sqlite3.DatabaseError as confirmed:
                if not is_damage(confirmed):
                    raise
            self.close()
            self.head = known
        aside = set_aside(self.path)
        self.replaced = self.incomplete = True
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

    def refresh(self) -> None:
        """
        Count the rejected rows again if another process (`usbgate rejected --retry`) has changed the file.

        Raises:
            sqlite3.Error: The file can't be read.
        """
        db = self.reopen()
        (version,) = db.execute("pragma data_version").fetchone()
        if version != self._version:
            self.rejected = tables.count_rejected(db)
            self._version = version

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

    def write(self, batches: Sequence[Batch], confirmed: Mark, kept: int = 0, lost: int = 0) -> Written:
        """
        Commit atomically; if the new batches exceed the limit, the oldest ones are dropped.

        Args:
            batches: New batches, in order.
            confirmed: Batches up to this position are deleted.
            kept: Batches up to this number are not dropped.
            lost: Rows to count as lost in addition to those dropped; negative to correct an earlier count.

        Raises:
            sqlite3.Error: Nothing was committed.
        """
        head = self.head
        linked = link(batches, head.chain)
        if linked:
            newest = linked[-1][0]
            head = head._replace(n=newest.last, chain=newest.chain)
        size = sum(len(payload) for _, payload in linked)
        content = self.content + size + ROW_BYTES * len(linked)
        dropped: list[tuple[int, int]] = []
        done = max(confirmed, head.done)
        with self._transaction() as db:
            if done != head.done:
                content -= tables.forget(db, done.n)
            if batches and content > self._limit:  # before the new ones are inserted, so that these are never dropped
                dropped, freed = tables.drop(db, max(kept, done.n), content - self._limit)
                content -= freed
            tables.insert(db, linked)
            head = head._replace(lost=head.lost + lost + sum(rows for _, rows in dropped), done=done)
            tables.save(db, head)
        self.head, self.content = head, content
        self.bytes_written += size
        return Written([batch for batch, _ in linked], dropped)

    def _transaction(self) -> AbstractContextManager[sqlite3.Connection]:
        return tables.transaction(self.reopen(), self._presence.changed)

    def restore(self, batches: Sequence[Batch]) -> None:
        """
        Commit batches that were written to the file that this one replaces, if they are not in this one.

        Raises:
            sqlite3.Error: Nothing was committed.
        """
        packed = [(batch, batch.to_bytes()) for batch in batches]
        with self._transaction() as db:
            tables.insert(db, packed, again=True)
            content = tables.measure(db)
        self.content = content
        self.incomplete = False

    def reject(self, rows: Sequence[Refusal]) -> None:
        """
        Set rows aside; those that are there already keep their time and reason.

        Raises:
            sqlite3.Error: Nothing was committed.
        """
        with self._transaction() as db:
            tables.reject(db, self.head.base or 0, rows)
            rejected = tables.count_rejected(db)
        self.rejected = rejected

    def is_known(self, mark: Mark) -> bool:
        """
        Return whether a position, `done` or later, is in the history of this journal.

        Raises:
            sqlite3.Error: The file can't be read.
        """
        return mark == self.head.done or (mark.n > self.head.done.n and tables.is_known(self.reopen(), mark))

    def batches_to(self, number: int) -> list[tuple[int, int]]:
        """
        Return last number and row count of each batch up to a number.

        Raises:
            sqlite3.Error: The file can't be read.
        """
        return self.reopen().execute("select last, count from batch where last <= ?", (number,)).fetchall()

    def discard(self, numbers: Collection[int]) -> list[int]:
        """
        Delete rows that are stored already; return the numbers of those that were there.

        Raises:
            sqlite3.Error: Nothing was committed.
        """
        with self._transaction() as db:
            deleted = tables.discard(db, numbers)
            content = tables.measure(db)
        self.content = content
        return deleted

    def begin(self, uuid: str, base: int, done: Mark) -> None:
        """
        Set the identity, and delete the batches up to a position.

        Raises:
            sqlite3.Error: Nothing was committed.
        """
        head = self.head._replace(uuid=uuid, base=base, done=done)
        with self._transaction() as db:
            content = self.content - tables.forget(db, done.n)
            tables.save(db, head)
        self.head, self.content = head, content

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
        return tables.read(self.reopen(), after, most)

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
