"""
A journal whose files are deleted, replaced or cut short while it is open.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from tests.support.journal import JournalCase
from tests.support.waiting import until
from usbgate.core.batch import Batch, Mark
from usbgate.core.model import Reading
from usbgate.store.interfaces import SinkUnavailable
from usbgate.store.journal import writer
from usbgate.store.journal.file import JournalFile
from usbgate.store.journal.journal import Journal
from usbgate.testing import readings

Fault = Callable[[Path], None]


def values(batch: Batch) -> list[float]:
    """
    Return the values of a batch's readings.
    """
    return [float(cell) for cell in batch.of(Reading)[5].split("\n")]


def delete(*suffixes: str) -> Fault:
    """
    Return a fault: files are deleted.
    """

    def fault(path: Path) -> None:
        for suffix in suffixes:
            Path(f"{path}{suffix}").unlink()

    return fault


def cut(suffix: str, size: int) -> Fault:
    """
    Return a fault: a file is cut short.
    """
    return lambda path: os.truncate(f"{path}{suffix}", size)


def rename(path: Path) -> None:
    """
    Rename the journal.
    """
    path.rename(path.with_name("renamed"))


def replace_by_text(path: Path) -> None:
    """
    Put another file in its place.
    """
    path.with_name("other").write_text("no journal\n" * 100_000)
    path.with_name("other").rename(path)


def replace_by_copy(path: Path) -> None:
    """
    Put a copy of the main file in its place.
    """
    shutil.copy(path, path.with_name("copy"))
    path.with_name("copy").rename(path)


def replace_by_folder(path: Path) -> None:
    """
    Put a folder in its place.
    """
    path.unlink()
    path.mkdir()


def overwrite(path: Path) -> None:
    """
    Write something longer over the main file, as `cp` does.
    """
    path.write_bytes(b"no journal at all" * 100_000)


LOSSES: tuple[tuple[str, Fault], ...] = (
    ("main deleted", delete("")),
    ("all deleted", delete("", "-wal", "-shm")),
    ("renamed", rename),
    ("replaced by text", replace_by_text),
    ("replaced by a copy", replace_by_copy),
    ("replaced by a folder", replace_by_folder),
    ("emptied", cut("", 0)),
    ("cut to one page", cut("", 4096)),
    ("cut within a page", cut("", 9_000)),
    ("overwritten", overwrite),
    ("log emptied", cut("-wal", 0)),
    ("log cut short", cut("-wal", 5_000)),
)


class PresenceCase(JournalCase):
    """
    A journal of which a part is in the main file, and a part in its `-wal` file.
    """

    timeout = 120

    async def begin(self, **limits: int) -> Journal:
        """
        Start a journal, and write ten batches of a hundred rows to it, half of them to the main file.
        """
        self.patch(writer, "LOOK_INTERVAL", 0.02)
        journal = self.start(durability=0.0, **limits)
        for n in range(10):
            journal.append(readings(n * 100, 100))
            await self.committed(journal)
            if n == 4:
                await self.reopened(lambda path: self.changes("pragma wal_checkpoint(truncate)"))
        return journal

    def is_left(self, rows: list[float], lost: int) -> bool:
        """
        Whether a `kill -9` would leave exactly this.
        """
        return self.killed() == (rows, lost)

    async def reopened(self, fault: Fault) -> None:
        """
        Do something to the file, and wait until it is opened again.
        """
        opened = len(self.opened)
        fault(self.path)
        await until(lambda: len(self.opened) > opened)

    def changes(self, sql: str) -> None:
        """
        Run a statement as another program.
        """
        self.query(sql)

    def killed(self) -> tuple[list[float], int]:
        """
        Return the values that a `kill -9` would leave, and the number of rows counted as lost.
        """
        left = self.path.with_name("left") / self.path.name
        shutil.rmtree(left.parent, ignore_errors=True)
        left.parent.mkdir()
        for suffix in ("", "-wal"):
            if Path(f"{self.path}{suffix}").exists():
                shutil.copy(f"{self.path}{suffix}", f"{left}{suffix}")
        file = JournalFile(left)
        file.open()
        file.check()
        batch, _ = file.read(0, 1_000_000)
        file.close()
        return [] if batch is None else values(batch), file.head.lost


class LostTests(PresenceCase):
    """
    The file is lost.
    """

    async def test_rows_in_memory(self) -> None:
        """
        However the file is lost, all rows go to a new file, without waiting for a commit, and later ones, too. The
        journal's id, its numbers and the batch in delivery stay the same.
        """
        for name, fault in LOSSES:
            journal = await self.begin()
            uuid, batch = journal.identity.journal, await journal.oldest()
            self.events.clear()
            fault(self.path)
            await until(lambda: self.logged("is lost") and self.path.is_file())
            await until(lambda: self.killed() == ([float(n) for n in range(1_000)], 0))
            journal.append(readings(1_000, 5))
            await self.committed(journal)
            self.assertEqual(self.killed(), ([float(n) for n in range(1_005)], 0), name)
            self.assertEqual(len(self.logged("is lost")), 1, name)
            self.assertEqual((self.logged("are lost"), journal.status().trouble), ([], None), name)
            self.assertIs(await journal.oldest(), batch)
            journal.confirm(batch)
            found = values(batch) + [value for each in await self.take_all(journal) for value in values(each)]
            self.assertEqual(found, [float(n) for n in range(1_005)], name)
            self.assertEqual(journal.identity.journal, uuid, name)
            await journal.stopService()
            for left in self.path.parent.iterdir():
                shutil.rmtree(left) if left.is_dir() else left.unlink()

    async def test_looked_for_meanwhile(self) -> None:
        """
        Nothing is looked for in a new file that does not have the rows in memory yet.
        """
        journal = await self.begin()
        batch = await journal.oldest()

        def fail(file: JournalFile, batches: Sequence[Batch]) -> None:
            raise sqlite3.OperationalError("database or disk is full")

        failing = self.patch(JournalFile, "restore", fail)
        delete("")(self.path)
        await until(lambda: self.logged("is lost") and journal.health.trouble)
        later = Mark(batch.last + 1, "c")
        with self.assertRaisesRegex(SinkUnavailable, "the journal is being replaced"):
            await journal.find(later)
        failing.restore()
        await until(lambda: not journal.health.trouble)
        self.assertFalse(await journal.find(later))
        self.assertIs(await journal.oldest(), batch)

    async def test_soon(self) -> None:
        """
        The loss is noticed within 2 s, of which one look takes none, while nothing is appended.
        """
        self.assertLess(writer.LOOK_INTERVAL, 2.0)
        journal = self.start()
        journal.append(readings(0, 1))
        await self.committed(journal)
        delete("")(self.path)
        await until(lambda: self.logged("is lost"))

    async def test_rows_only_on_disk(self) -> None:
        """
        Rows that were only in the lost file are counted, in the status and in the new file; the others are stored.
        """
        for name, fault in LOSSES:
            journal = await self.begin(live_limit=1)
            fault(self.path)
            await until(lambda: self.logged("is lost"))
            journal.append(readings(1_000, 7))
            await self.committed(journal)
            lost = journal.status().lost
            self.assertEqual((lost, journal.backlog), (900, 107), name)
            self.assertEqual([event["rows"] for event in self.logged("are lost")], [900], name)
            kept = [float(n) for n in (*range(100), *range(1_000, 1_007))]
            await until(partial(self.is_left, kept, 900))
            self.assertEqual([value for each in await self.take_all(journal) for value in values(each)], kept, name)
            self.assertEqual(journal.backlog, 0)
            await journal.stopService()
            self.events.clear()
            for left in self.path.parent.iterdir():
                shutil.rmtree(left) if left.is_dir() else left.unlink()

    async def test_set_aside(self) -> None:
        """
        What took the journal's place is kept.
        """
        journal = await self.begin()
        replace_by_text(self.path)
        await until(lambda: self.logged("is lost"))
        aside = self.path.with_name("journal.sqlite.damaged-1")
        self.assertTrue(aside.read_text().startswith("no journal"))
        self.assertEqual([event["left"] for event in self.logged("is lost")], [f"it was set aside as {aside.name}"])
        await journal.stopService()

    async def test_confirmed_rows(self) -> None:
        """
        Confirmed rows are neither written again nor counted as lost.
        """
        journal = await self.begin()
        journal.confirm(await journal.oldest())
        delete("")(self.path)
        await until(lambda: self.logged("is lost"))
        journal.append(readings(0, 1))
        await self.committed(journal)
        self.assertEqual((self.killed(), journal.backlog), (([0.0], 0), 1))

    async def test_folder(self) -> None:
        """
        While the folder is gone, nothing can be written, and the status says so; later all rows in memory are written.
        """
        self.patch(writer, "RETRY_MOST", 0.2)
        journal = await self.begin()
        moved = self.path.parent.with_name("moved")
        self.path.parent.rename(moved)
        self.addCleanup(shutil.rmtree, moved)
        await until(lambda: journal.status().trouble)
        journal.append(readings(1_000, 1))
        self.path.parent.mkdir()
        await self.committed(journal)
        await until(lambda: journal.status().trouble is None)
        await until(lambda: self.killed() == ([float(n) for n in range(1_001)], 0))

    async def test_full_disk(self) -> None:
        """
        If the new file cannot be created at once, it is created later, with the rows that were in memory.
        """
        self.patch(writer, "RETRY_MOST", 0.2)
        journal = await self.begin()
        self.open_fails = sqlite3.OperationalError("unable to open database file")
        delete("")(self.path)
        await until(lambda: journal.status().trouble)
        journal.append(readings(1_000, 1))
        self.open_fails = None
        await self.committed(journal)
        await until(lambda: self.killed() == ([float(n) for n in range(1_001)], 0))


class IntactTests(PresenceCase):
    """
    The main file is intact, and nothing is given up.
    """

    async def test_intact(self) -> None:
        """
        A deleted `-wal` file is written once more from memory; what other programs may do harms nothing.
        """
        faults: tuple[tuple[str, Fault], ...] = (
            ("log deleted", delete("-wal")),
            ("log and index deleted", delete("-wal", "-shm")),
            ("touched", os.utime),
            ("checkpoint", lambda path: self.changes("pragma wal_checkpoint(truncate)")),
            ("written", lambda path: self.changes("delete from rejected")),
        )
        for name, fault in faults:
            journal = await self.begin(live_limit=1)
            if name == "written":
                fault(self.path)
            else:
                await self.reopened(fault)
            journal.append(readings(1_000, 5))
            await self.committed(journal)
            self.assertEqual(self.killed(), ([float(n) for n in range(1_005)], 0), name)
            self.assertEqual(self.logged("lost"), [], name)
            self.assertEqual(self.logged("cannot be used"), [], name)
            found = [value for each in await self.take_all(journal) for value in values(each)]
            self.assertEqual(found, [float(n) for n in range(1_005)], name)
            await journal.stopService()
            self.path.unlink()

    async def test_own_work(self) -> None:
        """
        What the journal itself does to its files, commits, checkpoints and shrinking, is no fault.
        """
        journal = self.start()
        for _ in range(4):
            for n in range(3):
                journal.append(readings(n, 9_000))
                await self.committed(journal)
            await self.take_all(journal)
        await journal.stopService()
        self.assertEqual((self.logged("lost"), self.logged("damaged")), ([], []))
        self.assertEqual(len(self.opened), 1)
