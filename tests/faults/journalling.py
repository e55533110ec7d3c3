"""
A journal in a process of its own that reports what it does.

    python -m tests.faults.journalling PATH ROWS ENDING [PRAGMA=VALUE ...]

Rows whose values are their numbers are appended one by one; of forty, the first ten are confirmed. It prints, a line
each: `committed FIRST LAST` when rows are on disk, `confirming LAST` before the rows up to there are confirmed,
`trouble TEXT` when the disk refused, `stopped` at the end; `unusable TEXT` instead of all that. If ENDING is not
`stop`, it ends as if killed.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater, react

from tests.faults.pragmas import SMALL_WAL, insist
from usbgate.core.batch import Batch
from usbgate.core.model import Reading
from usbgate.store.journal import journal as journal_module
from usbgate.store.journal.file import JournalError
from usbgate.store.journal.journal import Journal


def report(*words: object) -> None:
    """
    Print a line at once.
    """
    print(*words, flush=True)


class ReportingJournal(Journal):
    """
    A journal that reports what its disk did.
    """

    on_disk: Deferred[None] | None = None

    def committed(self, batches: Sequence[Batch], seconds: float) -> None:
        super().committed(batches, seconds)
        for batch in batches:
            report("committed", batch.first, batch.last)
        waiting, self.on_disk = self.on_disk, None
        if waiting is not None:
            waiting.callback(None)

    def refused(self, reason: str) -> None:
        super().refused(reason)
        report("trouble", reason)


async def keep(reactor: Any, path: str, rows: int, ending: str) -> None:
    """
    Run a journal until it has taken so many rows.
    """
    journal = ReportingJournal(reactor, Path(path))
    try:
        journal.startService()
    except JournalError as error:
        report("unusable", error)
        return
    while not journal.next_number:  # the disk refused
        await deferLater(reactor, 0.01)
    first = journal.next_number
    for n in range(first, first + rows):
        reading = Reading(1_700_000_000_000, "arduino", "20", "VALUE", float(n), "x" * 1000, None, True)
        journal.on_disk = Deferred()
        journal.append([reading], ())
        await journal.on_disk
        if n % 3 == 0 and n % 40 <= 10:
            batch = await journal.oldest()
            report("confirming", batch.last)
            journal.confirm(batch)
    if ending != "stop":
        os._exit(0)
    await journal.stopService()
    report("stopped")


def main(reactor: Any, path: str, rows: str, ending: str, *settings: str) -> Deferred[None]:
    """
    Set up SQLite and run.
    """
    insist({**SMALL_WAL, **dict(setting.split("=") for setting in settings)})
    # The disk is tested here, one commit at a time.
    journal_module.FLUSH_INTERVAL = 0.0
    return Deferred.fromCoroutine(keep(reactor, path, int(rows), ending))


if __name__ == "__main__":
    react(main, sys.argv[1:])
