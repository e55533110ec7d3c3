"""
The journal's file is deleted or cut short while the daemon runs.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from tests.support.daemon import RunningCase
from tests.support.waiting import eventually
from usbgate.core.batch import Batch
from usbgate.core.model import Reading


def delete(state: Path) -> None:
    """
    Delete the journal's files.
    """
    for path in state.glob("journal.sqlite*"):
        path.unlink()


def empty(state: Path) -> None:
    """
    Cut the journal's main file short.
    """
    os.truncate(state / "journal.sqlite", 0)


class JournalLostTests(RunningCase):
    """
    A daemon whose database is away, so that the journal has all rows.
    """

    timeout = 120

    def found(self) -> set[float]:
        """
        Return the values in the journal.
        """
        with closing(sqlite3.connect(self.state / "journal.sqlite")) as db:
            batches = [Batch.from_bytes(payload) for (payload,) in db.execute("select payload from batch")]
        return {float(cell) for batch in batches for cell in batch.of(Reading)[5].split("\n")}

    def lose(self, fault: Callable[[Path], None]) -> None:
        """
        Lose the journal, and kill the daemon later.
        """
        device = self.plug()
        daemon = self.run_daemon("--device", str(device.path), "--database", "postgresql://127.0.0.1:1/nothing")
        client = self.online(daemon)

        device.say(*(f"ID:7_N:{n}".encode() for n in range(50)))
        eventually(lambda: len(self.found()) == 50, "the first lines are in the journal")
        fault(self.state)
        eventually(lambda: "is lost" in daemon.log, "it is noticed")
        device.say(*(f"ID:7_N:{n}".encode() for n in range(50, 100)))
        eventually(lambda: "_N:99" in str(client.word("last 7")), "the other lines are read")
        eventually(lambda: len(self.found()) == 100, "all lines are in the journal")
        daemon.kill()
        self.assertEqual(self.found(), {float(n) for n in range(100)})

    def test_deleted(self) -> None:
        """
        After the journal was deleted, a `kill -9` loses no row that was in memory or read later.
        """
        self.lose(delete)

    def test_cut_short(self) -> None:
        """
        The same after it was cut short.
        """
        self.lose(empty)
