"""
A journal on a real file, and rows for it.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any, cast

from twisted.logger import ILogObserver, LogEvent, globalLogPublisher
from twisted.trial.unittest import TestCase

from tests.support.waiting import until
from usbgate.core.batch import Batch
from usbgate.core.model import Reading, RequestRecord
from usbgate.store.journal.journal import Journal


def readings(first: int, count: int) -> list[Reading]:
    """
    Make readings whose values count up.
    """
    return [
        Reading(1_700_000_000_000, "arduino", "20", "VALUE", float(n), None, None, True)
        for n in range(first, first + count)
    ]


def request(sensor: str = "20") -> RequestRecord:
    """
    Make the record of a request.
    """
    return RequestRecord(1_700_000_000_000, "TOTO", "127.0.0.1", None, sensor, "J", None, "timeout", 10_000.0, True)


class JournalCase(TestCase):
    """
    A folder for the journal, and journals that are stopped at the end.
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
        Wait until all that was appended is on disk.
        """
        await until(lambda: self.stored_n(journal) == journal._next - 1 and not journal._waiting)

    def stored_n(self, journal: Journal) -> int:
        """
        Tell the newest number on disk, as far as the reactor knows.
        """
        return journal._file.n if not journal._unsynced else -1

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

    def look(self, sql: str) -> list[Any]:
        """
        Look into the file from outside.
        """
        db = sqlite3.connect(self.path)
        try:
            found = db.execute(sql).fetchall()
            db.commit()
            return found
        finally:
            db.close()

    def logged(self, part: str) -> list[LogEvent]:
        """
        List what was logged with these words.
        """
        return [event for event in self.events if part in str(event.get("log_format"))]
