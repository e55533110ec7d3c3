"""
`twistd`, with a daemon that ends itself, as `kill -9` would, when it next comes to a point after a SIGUSR1.

The journal's -wal file is kept small, so that there are many checkpoints.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from functools import wraps
from typing import Any

from twisted.scripts.twistd import run

from tests.faults.pragmas import SMALL_WAL, insist
from usbgate.core.batch import Batch, columns_of
from usbgate.core.model import Reading
from usbgate.store.journal.file import JournalFile, Written
from usbgate.store.journal.journal import Journal
from usbgate.store.postgres.sink import PostgresSink

# Whose method it is, and whether it ends before or behind that.
POINTS = {
    "committed and not sent": (JournalFile, "write", "behind"),
    "sent and not answered": (PostgresSink, "store", "behind"),  # it gives a Deferred
    "stored and not confirmed": (Journal, "confirm", "before"),
    "confirmed and not deleted": (Journal, "confirm", "behind"),
}

_SENSOR, _VALUE = columns_of(Reading).index("sensor"), columns_of(Reading).index("value")

_doomed = False


def _die() -> None:
    if _doomed:
        os.kill(os.getpid(), signal.SIGKILL)


def take_notes(notes: str) -> None:
    """
    Write down each commit before it is reported.
    """
    descriptor = os.open(notes, os.O_WRONLY | os.O_CREAT)
    write = JournalFile.write

    def write_and_note(file: JournalFile, batches: Sequence[Batch], *others: Any) -> Written:
        written = write(file, batches, *others)
        for batch in batches:
            if batch.of(Reading):
                columns = [column.split("\n") for column in batch.of(Reading)]
                rows = zip(columns[_SENSOR], columns[_VALUE], strict=True)
                newest = max((float(value) for sensor, value in rows if sensor == "1"), default=0.0)
                os.pwrite(descriptor, b"%20.0f" % newest, 0)
        return written

    JournalFile.write = write_and_note  # type: ignore[assignment,method-assign]  # it takes the same


def lay(owner: type, name: str, where: str) -> None:
    """
    Make a method a point: the daemon can end before or after it.
    """
    method = getattr(owner, name)

    @wraps(method)
    def until_then(*args: Any) -> Any:
        if where == "before":
            _die()
        result = method(*args)
        if where == "behind":
            _die()
        return result

    setattr(owner, name, until_then)


def doom(number: int, frame: object) -> None:
    """
    On SIGUSR1, end at the next point.
    """
    global _doomed
    _doomed = True


def main(point: str, notes: str) -> None:
    """
    Run twistd.

    Args:
        point: One of `POINTS`; any other word is no point.
        notes: A file for the newest number of sensor 1 that was committed to the journal.
    """
    signal.signal(signal.SIGUSR1, doom)
    insist(SMALL_WAL)
    take_notes(notes)
    if point in POINTS:
        lay(*POINTS[point])
    run()
