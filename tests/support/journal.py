"""
A journal on a real file.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any, cast

from twisted.logger import ILogObserver, LogEvent, globalLogPublisher
from twisted.trial.unittest import TestCase

from tests.support.waiting import until
from usbgate.core.batch import Batch
from usbgate.store.journal.file import JournalFile
from usbgate.store.journal.journal import Journal

connect = sqlite3.connect


class Connection(sqlite3.Connection):
    """
    A connection that can be made to fail.
    """

    failing: Exception | None = None

    def execute(self, *arguments: Any) -> sqlite3.Cursor:
        if self.failing is not None:
            raise self.failing
        return super().execute(*arguments)


class JournalCase(TestCase):
    """
    A folder for the journal; journals are stopped at the end of the test.
    """

    timeout = 60

    def setUp(self) -> None:
        """
        Make the folder.
        """
        from twisted.internet import reactor

        self.reactor: Any = reactor
        self.path = Path(self.mktemp()).absolute()
        self.path.mkdir(parents=True)
        self.path /= "journal.sqlite"
        self.pressure: list[bool] = []
        self.events: list[LogEvent] = []
        observer = cast(ILogObserver, self.events.append)
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)
        self.opened: list[Connection] = []
        self.open_fails: Exception | None = None
        self.patch(sqlite3, "connect", self.connect)

    def connect(self, *arguments: Any, **options: Any) -> Connection:
        """
        Open a database for a journal.
        """
        if self.open_fails is not None:
            raise self.open_fails
        self.opened.append(connect(*arguments, **options, factory=Connection))
        return self.opened[-1]

    def start(self, **limits: Any) -> Journal:
        """
        Start a journal on the file.
        """
        journal = Journal(self.reactor, self.path, self.pressure.append, **limits)
        journal.startService()
        self.addCleanup(lambda: journal.stopService() if journal.running else None)
        return journal

    async def committed(self, journal: Journal) -> None:
        """
        Write all that was appended now, and wait until it is on disk.
        """
        journal.flush()
        await until(lambda: journal.unwritten == 0)

    def count_reads(self) -> list[int]:
        """
        Return a list to which each reading of batches from the disk adds the number after which it begins.
        """
        reads: list[int] = []
        read = JournalFile.read

        def count(file: JournalFile, after: int, most: int) -> tuple[Batch | None, bool]:
            reads.append(after)
            return read(file, after, most)

        self.patch(JournalFile, "read", count)
        return reads

    async def take_all(self, journal: Journal) -> list[Batch]:
        """
        Take and confirm batches until nothing is left.
        """
        batches = []
        while journal.backlog:
            batch = await journal.oldest()
            batches.append(batch)
            journal.confirm(batch)
        return batches

    def query(self, sql: str) -> list[Any]:
        """
        Run a statement on the file over a connection of its own.
        """
        db = connect(self.path)
        try:
            found = db.execute(sql).fetchall()
            db.commit()
            return found
        finally:
            db.close()

    def logged(self, part: str) -> list[LogEvent]:
        """
        Return the log events whose format contains this text.
        """
        return [event for event in self.events if part in str(event.get("log_format"))]
