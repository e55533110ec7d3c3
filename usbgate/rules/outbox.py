"""
What rules have still to do, and which have fired, on disk (docs/rules.md, "If an action fails").
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from usbgate.rules.ruleset import KeptState

_T = TypeVar("_T")

PATIENCE = 5.0  # seconds after which an action does not wait for a disk that hangs
FORMAT = 1  # PRAGMA user_version

_SCHEMA = """
    create table if not exists rule (name text primary key, condition text, fired integer, last integer, held text);
    create table if not exists action (
        seq integer primary key, id text unique, rule text, kind text, at integer, payload text
    );
"""


class InThread(Protocol):
    """
    Runs a function in another thread, and returns what it returns.
    """

    def __call__(self, function: Callable[[], _T]) -> Deferred[_T]: ...


class WaitingAction(NamedTuple):
    """
    What a rule has to do.

    Attributes:
        id: The same at every try.
        rule: The rule's name.
        kind: `command`, `mail`, `webhook` or `publish`.
        at: When the rule fired: whole milliseconds since 1970, UTC.
        payload: What to send; JSON.
    """

    id: str
    rule: str
    kind: str
    at: int
    payload: Mapping[str, Any]


class _Batch:
    # What the next transaction writes.

    def __init__(self) -> None:
        self.states: dict[str, KeptState] = {}
        self.added: list[WaitingAction] = []
        self.removed: list[str] = []
        self.written: list[Deferred[None]] = []


class Outbox:
    """
    A file of SQLite, used by one call in another thread at a time. What comes meanwhile is written together next.

    If the disk refuses, that is logged once, and rules go on without it.
    """

    log = Logger()

    def __init__(self, reactor: IReactorTime, file: Path, in_thread: InThread) -> None:
        """
        Args:
            reactor: The monotonic clock.
            file: The file; its folder must exist when it is opened.
            in_thread: Where to use it.
        """
        self._reactor = reactor
        self._file = file
        self._in_thread = in_thread
        self._db: sqlite3.Connection | None = None
        self._next = _Batch()
        self._busy: Deferred[None] | None = None  # until the running transactions have ended
        self._refused = False

    async def open(self) -> tuple[Mapping[str, KeptState], Sequence[WaitingAction]]:
        """
        Open the file.

        Returns:
            What was last written of each rule, by name; and the actions that were added and not removed, oldest first.
        """
        try:
            return await self._in_thread(self._open)
        except (sqlite3.Error, OSError) as error:
            self._refuse(error)
            return {}, ()

    def write(
        self,
        states: Mapping[str, KeptState] = {},
        added: Iterable[WaitingAction] = (),
        removed: Iterable[str] = (),
    ) -> Deferred[None]:
        """
        Write all this in one transaction, as soon as the one before has ended.

        Args:
            states: Of rules, by name.
            added: Actions to keep.
            removed: The ids of actions to forget.

        Returns:
            Fires when it is on disk, or after `PATIENCE`, or when the disk refuses.
        """
        batch = self._next
        batch.states.update(states)
        batch.added += added
        batch.removed += removed
        written: Deferred[None] = Deferred()
        batch.written.append(written)
        waited: Deferred[None] = Deferred()
        late = self._reactor.callLater(PATIENCE, waited.callback, None)

        def end(_: None) -> None:
            if late.active():
                late.cancel()
                waited.callback(None)

        written.addCallback(end)
        if self._busy is None:
            self._busy = Deferred()
            running = Deferred.fromCoroutine(self._run())
            running.addErrback(lambda failure: self.log.failure("unexpected error while writing", failure))
        return waited

    async def close(self) -> None:
        """
        Write what is left, and close the file.
        """
        if self._busy is not None:
            await self._busy
        if self._db is not None:
            db, self._db = self._db, None
            await self._in_thread(db.close)

    async def _run(self) -> None:
        while self._next.written:
            batch, self._next = self._next, _Batch()
            try:
                await self._in_thread(lambda batch=batch: self._commit(batch))  # type: ignore[misc]  # bound at once
                self._refused = False
            except (sqlite3.Error, OSError) as error:
                self._refuse(error)
            for written in batch.written:
                written.callback(None)
        busy, self._busy = self._busy, None
        if busy is not None:
            busy.callback(None)

    def _refuse(self, error: Exception) -> None:
        if not self._refused:
            self._refused = True
            self.log.error(
                "{file} cannot be used: {reason}; what rules do now may be done again, or be lost, after a restart",
                file=str(self._file),
                reason=str(error),
            )

    # In the other thread.

    def _open(self) -> tuple[Mapping[str, KeptState], Sequence[WaitingAction]]:
        try:
            return self._read()
        except (sqlite3.DatabaseError, ValueError, TypeError) as error:
            if isinstance(error, sqlite3.OperationalError):  # the disk, not what is in the file
                raise
            damaged = self._file.with_suffix(".damaged")
            self.log.error(
                "{file} is damaged ({reason}), and is replaced; it is now {damaged}",
                file=str(self._file),
                reason=str(error),
                damaged=damaged.name,
            )
            if self._db is not None:
                self._db.close()
            os.replace(self._file, damaged)
            for suffix in ("-wal", "-shm"):
                self._file.with_name(self._file.name + suffix).unlink(missing_ok=True)
            return self._read()

    def _read(self) -> tuple[Mapping[str, KeptState], Sequence[WaitingAction]]:
        self._db = db = sqlite3.connect(self._file, isolation_level=None, check_same_thread=False)
        db.execute("pragma journal_mode = wal")
        db.execute("pragma synchronous = full")
        db.executescript(_SCHEMA)
        db.execute(f"pragma user_version = {FORMAT}")
        with closing(db.execute("select name, condition, fired, last, held from rule")) as rows:
            states = {
                name: KeptState(condition, bool(fired), last, frozenset(map(int, json.loads(held))))
                for name, condition, fired, last, held in rows
            }
        with closing(db.execute("select id, rule, kind, at, payload from action order by seq")) as rows:
            actions = [WaitingAction._make((*row, json.loads(payload))) for *row, payload in rows]
        return states, actions

    def _commit(self, batch: _Batch) -> None:
        if self._db is None:
            self._read()
        db = self._db
        assert db is not None
        states = [
            (name, each.when, each.fired, each.last, json.dumps(sorted(each.held)))
            for name, each in batch.states.items()
        ]
        added = [(each.id, each.rule, each.kind, each.at, json.dumps(each.payload)) for each in batch.added]
        with db:
            db.execute("begin")
            db.executemany("insert or replace into rule values (?, ?, ?, ?, ?)", states)
            db.executemany("insert or replace into action values (null, ?, ?, ?, ?, ?)", added)
            db.executemany("delete from action where id = ?", [(each,) for each in batch.removed])
