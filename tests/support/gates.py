"""
Gateways that share a database and a name, each with a real journal and a real sink; their state folders can be copied
and put back, and they can be killed at any step.
"""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable, Collection, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, succeed
from zope.interface import implementer

from tests.support.waiting import until
from usbgate.cli.rejected import retry
from usbgate.core.batch import Batch, Mark
from usbgate.core.model import Reading
from usbgate.store.interfaces import IChain, Identity, Refusal
from usbgate.store.journal.journal import Journal
from usbgate.store.journal.rejected import RejectedRows
from usbgate.store.postgres.names import Schema
from usbgate.store.postgres.sink import Limits, PostgresSink
from usbgate.testing import readings, rows_of

UNLIMITED = 1 << 30  # bytes of a journal that never drops rows


class Crash(Exception):
    """
    The daemon is killed here.
    """


@implementer(IChain)
class Steps:
    """
    A journal as its sink sees it, with a step before and after each call that changes it.
    """

    def __init__(self, journal: Journal, step: Callable[[], None]) -> None:
        self._journal = journal
        self._step = step

    @property
    def identity(self) -> Identity:
        """
        The journal's.
        """
        return self._journal.identity

    def find(self, mark: Mark) -> Deferred[bool]:
        return self._journal.find(mark)

    def waiting(self, after: int) -> Deferred[Batch | None]:
        return self._journal.waiting(after)

    def discard(self, numbers: Collection[int]) -> Deferred[None]:
        return self._stepped(self._journal.discard(numbers))

    def begin(self, journal: str, base: int) -> Deferred[None]:
        self._step()
        return self._stepped(self._journal.begin(journal, base))

    def reject(self, rows: Sequence[Refusal]) -> Deferred[None]:
        """
        Set rows aside.
        """
        return self._stepped(self._journal.reject(rows))

    def _stepped(self, call: Deferred[None]) -> Deferred[None]:
        return call.addCallback(lambda _: self._step())


class Gate:
    """
    One gateway: a folder with a journal, and a sink.

    Attributes:
        path: The journal's file.
        journal: The journal.
        chain: The same, with steps.
        sink: The sink.
        lost: The values of readings that the journal dropped.
    """

    def __init__(
        self, folder: Path, url: str, name: str, step: Callable[[], None] = lambda: None, limit: int = UNLIMITED
    ) -> None:
        """
        Start it on a folder, which may hold a journal.

        Args:
            folder: The folder.
            url: The database.
            name: The gateway's name.
            step: Called at each step; may raise `Crash`.
            limit: The size of the journal.
        """
        self.path = folder / "journal.sqlite"
        self.lost: set[float] = set()
        self._url = url
        self._name = name
        self._step = step
        self._limit = limit
        self._start()

    def _start(self) -> None:
        self.journal = Journal(reactor, self.path, limit=self._limit)  # type: ignore[arg-type]
        self.journal.startService()
        self._connect_anew()

    def _connect_anew(self) -> None:
        self.chain = Steps(self.journal, self._step)
        self.sink = PostgresSink(reactor, lambda: succeed(self._url), self._name, self.chain, Limits(conflict=0.0))

    async def read(self, values: Sequence[int]) -> None:
        """
        Put readings with these values in the journal, as one batch.
        """
        waiting = self.waiting() if self._limit < UNLIMITED else set()
        self.journal.append([reading for value in values for reading in readings(value, 1)])
        self.journal.flush()
        await until(lambda: self.journal.unwritten == 0)
        if waiting:
            self.lost |= waiting - self.waiting()

    async def send(self) -> None:
        """
        Store the oldest batch, if there is one.
        """
        await self.sink.connect()
        if not self.journal.backlog:
            return
        batch = await self.journal.oldest()
        self._step()
        await self.sink.store(batch, self.chain.reject)
        self._step()
        self.journal.confirm(batch)

    async def send_and_lose_the_confirmation(self) -> None:
        """
        Store the oldest batch, without knowing of it.
        """
        await self.sink.connect()
        if not self.journal.backlog:
            return
        await self.sink.store(await self.journal.oldest(), self.chain.reject)
        self.disconnect()

    def retry(self) -> int:
        """
        Try to store what was set aside, as `usbgate rejected --retry` does; return the number of rows that were.
        """
        before = len(self.aside())
        with closing(RejectedRows(self.path)) as rows:
            retry(rows, self._url, Schema(), self._name, lambda line: None)
        return before - len(self.aside())

    def disconnect(self) -> None:
        """
        Lose the connection.
        """
        self.sink.close()
        self._connect_anew()

    async def drain(self) -> None:
        """
        Store everything.
        """
        while self.journal.backlog:
            await self.send()

    async def crash(self) -> None:
        """
        Kill it, and start it again.
        """
        copy = self.copy(self.path.parent / "killed")
        await self.restore(copy)

    async def restore(self, copy: Path) -> None:
        """
        Kill it, and start it on a copy of a folder.
        """
        await self.end()
        for file in self.path.parent.glob("journal.sqlite*"):
            file.unlink()
        for file in copy.iterdir():
            shutil.copy(file, self.path.parent)
        self._start()

    async def end(self) -> None:
        """
        End it.
        """
        self.sink.close()
        await self.journal.stopService()

    def copy(self, to: Path) -> Path:
        """
        Copy the folder as it is now.
        """
        shutil.rmtree(to, ignore_errors=True)
        to.mkdir(parents=True)
        for file in self.path.parent.glob("journal.sqlite*"):
            if not file.name.endswith("-shm"):
                shutil.copy(file, to)
        return to

    def waiting(self) -> set[float]:
        """
        Return the values of the readings in the file that are not confirmed.
        """
        done = self.journal.identity.done.n
        payloads = self._query("select payload from batch")
        rows = {n: row for (payload,) in payloads for n, row in rows_of(Batch.from_bytes(payload)).items()}
        return {row.value for n, row in rows.items() if n > done and isinstance(row, Reading) and row.value is not None}

    def aside(self) -> set[float]:
        """
        Return the values of the readings that were set aside.
        """
        return {float(value) for (value,) in self._query("select json_extract(row, '$.value') from rejected")}

    def _query(self, sql: str) -> list[Any]:
        with closing(sqlite3.connect(self.path)) as db:
            return db.execute(sql).fetchall()
