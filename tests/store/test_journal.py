"""
The journal, with real files and its real thread.
"""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

from twisted.internet.defer import CancelledError
from twisted.internet.task import deferLater
from zope.interface.verify import verifyObject

from tests.support.journal import JournalCase, connect
from tests.support.waiting import LIMIT, until
from usbgate.core.batch import PIECE_ROWS, START, Batch, encode, halve
from usbgate.core.model import ClockMark, Reading
from usbgate.store.interfaces import IChain, IJournal, IOutbox, Refusal, SinkUnavailable
from usbgate.store.journal import file, writer
from usbgate.store.journal import journal as journal_module
from usbgate.store.journal.file import JournalError, JournalFile
from usbgate.store.journal.journal import FLUSH_INTERVAL, FLUSH_ROWS, SOON_INTERVAL, SOON_ROWS, Journal
from usbgate.store.journal.readahead import MERGE_ROWS
from usbgate.testing import readings, request_record, rows_of


def values(batch: Batch) -> list[float]:
    """
    Return the values of a batch's readings.
    """
    return [float(cell) for cell in batch.of(Reading)[5].split("\n")] if batch.of(Reading) else []


def numbers(batch: Batch) -> list[int]:
    """
    Return the numbers of a batch's rows.
    """
    return list(rows_of(batch))


class QueueTests(JournalCase):
    """
    Rows are returned in the order in which they were appended.
    """

    async def test_marks_delimit(self) -> None:
        """
        A clock mark is numbered after all rows appended before it and before all rows appended after it.
        """
        journal = self.start(durability=60.0)
        mark = ClockMark(1_700_000_000_000, 1.0, "a", True)
        journal.append([mark], readings(0, 2), [request_record()])
        journal.append([], readings(2, 1), [request_record()])
        journal.append([mark], readings(3, 1))
        journal.append(readings(4, 1))
        journal.append([mark], [], [request_record()])
        journal.flush()
        await self.committed(journal)
        self.assertEqual(journal.backlog, 11)
        rows = {n: row for batch in await self.take_all(journal) for n, row in rows_of(batch).items()}
        first, last = request_record(), request_record()
        ordered = [mark, *readings(0, 3), first, first, mark, *readings(3, 2), mark, last]
        self.assertEqual(rows, dict(enumerate(ordered, 1)))

    async def test_interfaces(self) -> None:
        """
        The journal provides the interfaces of the gateway, of the delivery and of the sink.
        """
        journal = self.start()
        verifyObject(IJournal, journal)
        verifyObject(IOutbox, journal)
        verifyObject(IChain, journal)

    async def test_order_and_numbers(self) -> None:
        """
        Rows are numbered from 1 in the order in which they were appended, readings before requests.
        """
        journal = self.start()
        journal.append(readings(0, 3), [request_record(sensor="7")])
        batch = await journal.oldest()
        self.assertEqual((batch.first, batch.last), (1, 4))
        expected = [*readings(0, 3), request_record(sensor="7")]
        self.assertEqual(rows_of(batch), dict(enumerate(expected, 1)))
        self.assertEqual(journal.backlog, 4)
        journal.confirm(batch)
        self.assertEqual(journal.backlog, 0)
        journal.append([], [request_record(sensor="8")])
        batch = await journal.oldest()
        self.assertEqual(numbers(batch), [5])

    async def test_waits_for_rows(self) -> None:
        """
        `oldest` waits until there are rows on disk; no row is returned before it is.
        """
        journal = self.start()
        asked = journal.oldest()
        journal.append(readings(0, 1), ())
        self.assertNoResult(asked)
        batch = await asked
        self.assertEqual(self.query("select first, last, count, payload from batch"), [(1, 1, 1, batch.to_bytes())])

    async def test_same_batch_until_confirmed(self) -> None:
        """
        `oldest` returns the same batch until it is confirmed, whatever was appended since.
        """
        journal = self.start()
        journal.append(readings(0, 1), ())
        batch = await journal.oldest()
        journal.append(readings(1, 1), ())
        await self.committed(journal)
        self.assertIs(await journal.oldest(), batch)
        journal.confirm(batch)
        journal.confirm(batch)  # once is enough
        self.assertEqual(journal.backlog, 1)
        self.assertEqual(values(await journal.oldest()), [1.0])

    async def test_cancelled_question(self) -> None:
        """
        A cancelled `oldest` loses no rows.
        """
        journal = self.start()
        asked = journal.oldest()
        asked.cancel()
        self.failureResultOf(asked, CancelledError)
        journal.append(readings(0, 1), ())
        self.assertEqual(values(await journal.oldest()), [0.0])

    async def test_idle(self) -> None:
        """
        While nothing is appended, no timer runs and nothing is written, not even the deletion of a confirmed batch.
        """
        await deferLater(self.reactor, 0)
        before = self.reactor.getDelayedCalls()  # trial's own time limit
        journal = self.start()
        self.assertEqual(self.reactor.getDelayedCalls(), before)
        journal.append(readings(0, 1), ())
        journal.confirm(await journal.oldest())
        self.assertEqual(self.reactor.getDelayedCalls(), before)
        self.assertEqual(journal.health.commits, 1)
        self.assertEqual(len(self.query("select * from batch")), 1)
        journal.append(readings(1, 1), ())
        await journal.oldest()
        self.assertEqual(self.query("select last from batch"), [(2,)])

    async def test_not_utf8(self) -> None:
        """
        A text that cannot be written, which a third-party dialect may let through, keeps no other row from the disk;
        the row is the same in memory and there.
        """
        journal = self.start(durability=60.0)
        odd, plain = readings(0, 2)
        journal.append([odd._replace(text="é \ud800"), plain])
        journal.flush()
        expected = {1: odd._replace(text="é ?"), 2: plain}
        self.assertEqual(rows_of(await journal.oldest()), expected)
        await journal.stopService()
        self.assertEqual(rows_of(await self.start().oldest()), expected)

    async def test_durability(self) -> None:
        """
        Rows wait for a commit as long as configured, share it, and are written at the stop at the latest.
        """
        await deferLater(self.reactor, 0)
        before = self.reactor.getDelayedCalls()
        for durability, expected in ((None, 0.05), (30.0, 30.0)):
            journal = self.start(durability=durability)
            commits, backlog = journal.health.commits, journal.backlog
            began = self.reactor.seconds()
            journal.append(readings(0, 1), ())
            (armed,) = set(self.reactor.getDelayedCalls()) - set(before)
            self.assertGreaterEqual(armed.getTime(), began + expected)
            self.assertLessEqual(armed.getTime(), self.reactor.seconds() + expected)
            journal.append(readings(1, 1), ())
            self.assertEqual(set(self.reactor.getDelayedCalls()) - set(before), {armed})
            self.assertEqual((journal.health.commits, journal.backlog), (commits, backlog + 2))
            await journal.stopService()
            self.assertEqual(journal.health.commits, 1)
        self.assertEqual(self.query("select count from batch"), [(2,), (2,)])

    async def test_soon(self) -> None:
        """
        After many readings the next batch follows sooner, unless many are requests, others wait, or commits are to be
        rare.
        """
        many = readings(0, SOON_ROWS)
        for durability, requests, batches, expected in (
            (None, 0, 1, SOON_INTERVAL),
            (None, 0, 2, FLUSH_INTERVAL),
            (None, SOON_ROWS, 1, FLUSH_INTERVAL),
            (30.0, 0, 1, 30.0),
        ):
            journal = self.start(durability=durability)
            for _ in range(batches):
                journal.append(many, [request_record()] * requests)
                await self.committed(journal)
            before = set(self.reactor.getDelayedCalls())
            began = self.reactor.seconds()
            journal.append(readings(0, 1), ())
            (armed,) = set(self.reactor.getDelayedCalls()) - before
            self.assertGreaterEqual(armed.getTime(), began + expected)
            self.assertLessEqual(armed.getTime(), self.reactor.seconds() + expected)
            await self.committed(journal)
            await self.take_all(journal)
            await journal.stopService()

    async def test_many_rows_at_once(self) -> None:
        """
        Many rows are written at once, and small batches are merged up to `MERGE_ROWS`.
        """
        await deferLater(self.reactor, 0)
        before = self.reactor.getDelayedCalls()
        journal = self.start()
        for _ in range(5):
            journal.append(readings(0, FLUSH_ROWS), ())
            self.assertEqual(self.reactor.getDelayedCalls(), before)
        await self.committed(journal)
        sizes = [batch.rows for batch in await self.take_all(journal)]
        self.assertEqual(sum(sizes), 5 * FLUSH_ROWS)
        self.assertLessEqual(max(sizes), MERGE_ROWS)
        self.assertLessEqual(len(sizes), 3)
        status = journal.status()
        self.assertEqual((status.trouble, status.commits), (None, journal.health.commits))
        assert status.written is not None
        self.assertGreater(status.written, 5 * FLUSH_ROWS)
        self.assertGreater(journal.health.slowest_commit, 0)

    async def test_behind_and_live_again(self) -> None:
        """
        Beyond the memory limit batches are read back from disk; none is lost, doubled or out of order.
        """
        journal = self.start(live_limit=2_000, durability=0.001)
        reads = self.count_reads()
        expected = 0
        taken: list[float] = []
        for _ in range(10):
            journal.append(readings(expected, 20), ())
            expected += 20
            await self.committed(journal)
        while journal.backlog:
            batch = await journal.oldest()
            if len(taken) < 600:  # more comes while it catches up
                journal.append(readings(expected, 40), ())
                expected += 40
            taken += values(batch)
            journal.confirm(batch)
        self.assertEqual(taken, [float(n) for n in range(expected)])
        self.assertLessEqual(reads[0], 40)  # no more fitted into memory
        del reads[:]
        journal.append(readings(expected, 1), ())
        journal.confirm(await journal.oldest())
        self.assertEqual(reads, [])

    async def test_catching_up_deletes(self) -> None:
        """
        Many confirmed rows are deleted even while nothing is appended.
        """
        journal = self.start()
        for _ in range(3):
            journal.append(readings(0, FLUSH_ROWS), ())
        await self.committed(journal)
        await self.take_all(journal)
        await until(
            lambda: journal.health.commits > 1 and self.query("select sum(count) from batch") != [(3 * FLUSH_ROWS,)]
        )


class RestartTests(JournalCase):
    """
    Rows on disk survive a restart.
    """

    async def test_goes_on(self) -> None:
        """
        The stop writes what was appended; a restart finds it and continues the uuid and the numbers.
        """
        journal = self.start()
        uuid = journal.identity.journal
        self.assertEqual(len(uuid), 36)
        journal.append(readings(0, 3), [request_record()])
        await journal.stopService()
        self.assertNotIn("journal", [thread.name for thread in threading.enumerate()])
        journal = self.start()
        self.assertEqual((journal.identity.journal, journal.backlog), (uuid, 4))
        journal.append(readings(3, 1), ())
        await self.committed(journal)
        batches = await self.take_all(journal)
        self.assertEqual(sorted(n for batch in batches for n in numbers(batch)), [1, 2, 3, 4, 5])

    async def test_much_left(self) -> None:
        """
        A backlog is read back in parts, completely, before any newer rows.
        """
        journal = self.start()
        for n in range(5):
            journal.append(readings(n * FLUSH_ROWS, FLUSH_ROWS), ())
        await journal.stopService()
        journal = self.start()
        journal.append(readings(5 * FLUSH_ROWS, 1), ())
        batches = await self.take_all(journal)
        self.assertLessEqual(max(batch.rows for batch in batches), MERGE_ROWS)
        found = [value for batch in batches for value in values(batch)]
        self.assertEqual(found, [float(n) for n in range(5 * FLUSH_ROWS + 1)])

    async def test_numbers_of_an_empty_file(self) -> None:
        """
        Numbers continue although no batch is left in the file.
        """
        journal = self.start()
        journal.append(readings(0, 3), ())
        journal.confirm(await journal.oldest())
        await journal.stopService()
        self.assertEqual(self.query("select * from batch"), [])
        journal = self.start()
        self.assertEqual(journal.backlog, 0)
        journal.append(readings(0, 1), ())
        self.assertEqual(numbers(await journal.oldest()), [4])

    async def test_confirmed_and_crashed(self) -> None:
        """
        A batch whose confirmation was not on disk at a crash is returned again.
        """
        journal = self.start()
        journal.append(readings(0, 3), ())
        batch = await journal.oldest()
        journal.confirm(batch)
        left = self.path.with_name("left.sqlite")
        for suffix in ("", "-wal"):
            shutil.copy(f"{self.path}{suffix}", f"{left}{suffix}")
        self.path = left
        again = self.start()
        self.assertEqual(again.backlog, 3)
        self.assertEqual(await again.oldest(), batch)

    async def test_killed(self) -> None:
        """
        After a `kill -9`, every row that was on disk is returned once, in order, and no batch is incomplete.
        """
        output = self.path.with_name("output")
        root = Path(__file__).parents[2]
        with output.open("wb") as out:
            child = subprocess.Popen(
                [sys.executable, "-c", CHILD, self.path],
                stdout=out,
                cwd=self.path.parent,
                env={**os.environ, "PYTHONPATH": str(root)},
                start_new_session=True,
            )
        try:
            await until(lambda: output.read_bytes().count(b"\n") >= 8 or child.poll() is not None)
        finally:
            child.send_signal(signal.SIGKILL)
            status = child.wait()
        self.assertEqual(status, -signal.SIGKILL)
        durable = int(output.read_text().rpartition("\n")[0].rpartition("\n")[2])
        journal = self.start()
        found = [value for batch in await self.take_all(journal) for value in values(batch)]
        self.assertGreaterEqual(len(found), durable)
        self.assertEqual(found, [float(n) for n in range(len(found))])
        journal.append(readings(0, 1), ())
        self.assertEqual(numbers(await journal.oldest()), [len(found) + 1])

    def test_every_commit_reaches_the_disk(self) -> None:
        """
        The file is in WAL mode, and each commit waits for the disk.
        """
        file = JournalFile(self.path)
        file.open()
        self.addCleanup(file.close)
        (db,) = self.opened
        self.assertEqual(db.execute("pragma synchronous").fetchone(), (2,))
        self.assertEqual(db.execute("pragma journal_mode").fetchone(), ("wal",))

    async def test_rows_while_closed(self) -> None:
        """
        Rows appended after the stop are logged as lost.
        """
        journal = self.start()
        await journal.stopService()
        journal.append(readings(0, 2), ())
        self.assertEqual([event["rows"] for event in self.logged("while the journal was closed")], [2])

    async def test_never_started(self) -> None:
        """
        Creating a journal opens nothing, and one that was never started can be stopped.
        """
        journal = Journal(self.reactor, self.path)
        await journal.stopService()
        self.assertFalse(self.path.exists())

    async def test_stop_with_a_question_open(self) -> None:
        """
        The stop cancels a pending `oldest`.
        """
        journal = self.start()
        asked = journal.oldest()
        await journal.stopService()
        self.failureResultOf(asked, CancelledError)

    async def test_large_empty_file_shrinks(self) -> None:
        """
        A file that grew large in an outage is made small at the next start.
        """
        self.patch(file, "LARGE", 32)
        journal = self.start()
        journal.append(readings(0, FLUSH_ROWS), ())
        journal.confirm(await journal.oldest())
        await journal.stopService()
        large = self.path.stat().st_size
        journal = self.start()
        await journal.stopService()
        self.assertLess(self.path.stat().st_size, large // 4)


class RejectTests(JournalCase):
    """
    Rows that the store refuses.
    """

    async def test_set_aside_for_good(self) -> None:
        """
        A rejected row is kept in the file once, with its number in the database, its reason and its time, also after a
        restart.
        """
        journal = self.start()
        journal.append(readings(0, 1), [request_record(sensor="7")])
        batch = await journal.oldest()
        reading, refused = halve(batch)
        odd = encode(1, [readings(0, 1)[0]._replace(text="half a pair: \ud800")])
        await journal.reject([Refusal(odd, "22021: not UTF-8: \ud800")])
        await journal.begin(journal.identity.journal, 100)
        await journal.reject([Refusal(reading, "once more, after a crash"), Refusal(refused, "23514: sensor 7")])
        journal.confirm(batch)
        await journal.stopService()
        self.assertEqual(
            self.query("select n, seq, reason, kind, json_extract(row, '$.sensor') from rejected order by n"),
            [(1, 101, "22021: not UTF-8: ?", "reading", "20"), (2, 102, "23514: sensor 7", "request", "7")],
        )
        self.assertEqual(self.query("select count(*) from rejected where at like '20__-__-__T__:__:__.___Z'"), [(2,)])
        self.assertEqual(self.query("select * from batch"), [])
        self.assertEqual(self.start().rejected, 2)

    async def test_durable_before_its_batch_is_let_go(self) -> None:
        """
        `reject` fires when the row is on disk, whether or not its batch is confirmed.
        """
        journal = self.start()
        journal.append(readings(0, 1), ())
        batch = await journal.oldest()
        rejecting = journal.reject([Refusal(batch, "22003")])
        self.assertNoResult(rejecting)
        await rejecting
        self.assertEqual(self.query("select n, reason from rejected"), [(1, "22003")])
        self.assertEqual(self.query("select last from batch"), [(1,)])


class TroubleTests(JournalCase):
    """
    A disk that refuses writes, hangs or damages the file.
    """

    def refuse(self) -> sqlite3.Connection:
        """
        Lock the file until the returned connection is closed.
        """
        self.opened[-1].execute("pragma busy_timeout = 1")
        db = connect(self.path, isolation_level=None)
        db.execute("begin immediate")
        return db

    async def test_ring(self) -> None:
        """
        A disk that refuses writes holds no device back: rows are kept up to a limit, then the oldest are dropped,
        readings and requests alike, counted in the status and logged at a limited rate. When it recovers, the rest is
        written and returned in order.
        """
        journal = self.start(unsynced_limit=20_000)
        journal.append(readings(0, 1), ())
        journal.confirm(await journal.oldest())
        holder = self.refuse()
        journal.append(readings(1, 1), ())
        await until(lambda: journal.health.trouble)
        self.assertEqual(journal.health.trouble, "database is locked")
        for n in range(2, 1_000, 10):
            journal.append(readings(n, 9), [request_record(sensor=str(n + 9))])
            journal.flush()
            self.assertLess(journal.unwritten, 500)
            await deferLater(self.reactor, 0)
        self.assertEqual((journal.health.commits, self.pressure), (1, []))
        self.assertGreater(journal.health.lost, 500)
        self.assertEqual(journal.backlog, 1_001 - journal.health.lost)
        status = journal.status()
        self.assertEqual((status.trouble, status.lost), ("database is locked", journal.health.lost))
        self.assertEqual(len(self.logged("are lost")), 1)
        holder.close()
        rows = [row for batch in await self.take_all(journal) for row in rows_of(batch).values()]
        taken = [row.value if isinstance(row, Reading) else float(getattr(row, "sensor", "0")) for row in rows]
        self.assertEqual(taken, list(range(1 + journal.health.lost, 1_002)))
        self.assertEqual(sum(event["rows"] for event in self.logged("are lost")), journal.health.lost)
        self.assertIsNone(journal.health.trouble)
        self.assertEqual((len(self.logged("cannot be used")), len(self.logged("can be used again"))), (1, 1))
        self.assertEqual((journal.backlog, journal.unwritten), (0, 0))
        journal.append(readings(0, 1), ())
        journal.confirm(await journal.oldest())
        self.assertEqual(self.query("select lost from journal"), [(journal.health.lost,)])

    def hang(self) -> tuple[threading.Event, threading.Event]:
        """
        Make the next write hang until the second event; the first event is set when it has begun.
        """
        hanging, going_on = threading.Event(), threading.Event()
        self.addCleanup(going_on.set)
        write = JournalFile.write

        def hang(*arguments: Any) -> Any:
            hanging.set()
            self.assertTrue(going_on.wait(LIMIT))
            return write(*arguments)

        self.patch(JournalFile, "write", hang)
        return hanging, going_on

    async def test_slow_disk(self) -> None:
        """
        During a slow write the devices are held back above the limit, and released when it ends; requests are recorded
        all the same. Nothing is lost.
        """
        journal = self.start(unsynced_limit=20_000)
        _, going_on = self.hang()
        appended = 0
        while not self.pressure:
            journal.append(readings(appended, 100), ())
            journal.flush()
            appended += 100
            await deferLater(self.reactor, 0.002)
        self.assertEqual(self.pressure, [True])
        journal.append((), [request_record()])
        going_on.set()
        batches = await self.take_all(journal)
        self.assertEqual([value for each in batches for value in values(each)], [float(n) for n in range(appended)])
        self.assertEqual(sum(each.rows for each in batches), appended + 1)
        self.assertEqual(self.pressure, [True, False])
        self.assertEqual((journal.health.lost, self.logged("cannot be used")), (0, []))

    async def test_hanging_disk(self) -> None:
        """
        A write that hangs counts as refused: devices are released, even if nothing was appended meanwhile, and memory
        stays bounded. When it ends, all rows but the dropped ones are returned.
        """
        self.patch(journal_module, "CHECK_INTERVAL", 0.02)
        journal = self.start(unsynced_limit=20_000)
        hanging, going_on = self.hang()
        journal.append(readings(0, 10), ())
        journal.flush()
        await until(hanging.is_set)
        journal.append(readings(10, 1_000), ())
        journal.flush()
        self.assertEqual(self.pressure, [True])
        self.patch(journal_module, "STUCK_AFTER", 0.1)  # not before: the machine may be slower
        await until(lambda: self.pressure == [True, False])
        self.assertIn("not ended", journal.status().trouble or "")
        for n in range(1_010, 3_010, 100):
            journal.append(readings(n, 100), ())
            journal.flush()
        self.assertEqual(self.pressure, [True, False])
        self.assertGreater(journal.health.lost, 1_000)
        going_on.set()
        batches = await self.take_all(journal)
        self.assertLessEqual(sum(batch.memory for batch in batches[1:]), 40_000)
        taken = [value for batch in batches for value in values(batch)]
        kept = 3_000 - journal.health.lost
        self.assertEqual(taken, [float(n) for n in (*range(10), *range(3_010 - kept, 3_010))])
        self.assertIsNone(journal.status().trouble)

    async def test_stop_while_hanging(self) -> None:
        """
        A write that hangs does not keep the daemon from stopping; the number of rows that may be lost is logged.
        """
        self.patch(journal_module, "STUCK_AFTER", 0.1)
        self.patch(journal_module, "CHECK_INTERVAL", 0.02)
        journal = self.start()
        _, going_on = self.hang()
        journal.append(readings(0, 3), ())
        await journal.stopService()
        self.assertEqual([event["rows"] for event in self.logged("a write to the journal hangs")], [3])
        going_on.set()
        await until(lambda: "journal" not in [thread.name for thread in threading.enumerate()])
        await deferLater(self.reactor, 0.01)  # what it tells then concerns nobody

    async def test_comes_and_goes(self) -> None:
        """
        Recurring trouble does not fill the log; `status` shows it each time.
        """
        journal = self.start()
        for _ in range(3):
            holder = self.refuse()
            journal.append(readings(0, 1), ())
            await until(lambda: journal.status().trouble is not None)
            holder.close()
            await until(lambda: journal.status().trouble is None)
        self.assertEqual((len(self.logged("cannot be used")), len(self.logged("can be used again"))), (1, 1))

    async def test_lost_rows_are_counted_later(self) -> None:
        """
        While the disk refuses, rows can't be rejected; the count of lost rows is written when it recovers, whatever was
        dropped meanwhile.
        """
        journal = self.start(unsynced_limit=5_000)
        journal.append(readings(0, 1), ())
        batch = await journal.oldest()
        holder = self.refuse()
        with self.assertRaisesRegex(SinkUnavailable, "the journal can't be used: database is locked"):
            await journal.reject([Refusal(batch, "22003")])
        for n in range(100):
            journal.append(readings(n, 10), ())
            journal.flush()
        self.assertGreater(journal.health.lost, 0)
        holder.close()
        await until(lambda: not journal.unwritten)
        await journal.reject([Refusal(batch, "22003")])
        self.assertEqual(self.query("select n, reason from rejected"), [(1, "22003")])
        await journal.stopService()
        self.assertEqual(self.query("select lost from journal"), [(journal.health.lost,)])

    async def test_a_little_room(self) -> None:
        """
        A disk with little room is filled with as many batches as fit, the oldest first.
        """
        self.patch(writer, "COMMIT_MOST", 20_000)
        journal = self.start()
        journal.append(readings(0, 1), ())
        await self.committed(journal)
        db = self.opened[-1]
        db.execute("pragma max_page_count = 1")
        journal.append(readings(1, 100), ())
        await until(lambda: journal.health.trouble)
        for n in range(1, 50):
            journal.append(readings(n * 100 + 1, 100), ())
            journal.flush()
        db.execute("pragma max_page_count = 40")
        await until(lambda: journal.health.commits > 3 and journal.health.trouble)
        (written,) = self.query("select max(last) from batch")[0]
        self.assertTrue(0 < written < 5_001, written)
        db.execute("pragma max_page_count = 100000")
        taken = [value for batch in await self.take_all(journal) for value in values(batch)]
        self.assertEqual(taken, [float(n) for n in range(5_001)])

    def refuse_to_open(self) -> None:
        """
        Make the opening of any file fail, as on a full disk.
        """
        error = sqlite3.OperationalError("database or disk is full")
        error.sqlite_errorcode = sqlite3.SQLITE_FULL
        self.open_fails = error

    async def test_start_on_a_full_disk(self) -> None:
        """
        A journal that can't be opened at the start is opened later. Rows appended meanwhile are written after those in
        it, except for the oldest beyond a limit, which are counted as lost.
        """
        journal = self.start()
        uuid = journal.identity.journal
        journal.append(readings(0, 10), ())
        await journal.stopService()
        self.patch(journal_module, "UNNUMBERED_ROWS", 1_000)
        self.refuse_to_open()
        journal = self.start()
        self.assertEqual((journal.identity.journal, journal.status().trouble or ""), ("", "database or disk is full"))
        asked = journal.oldest()
        for n in range(10, 2_010, 20):
            journal.append(readings(n, 20), [request_record()])
        self.assertEqual(journal.backlog, 2_100 - journal.health.lost)
        self.assertTrue(1_000 >= journal.backlog > 1_000 - 2 * PIECE_ROWS, journal.backlog)
        self.assertNoResult(asked)
        self.open_fails = None
        first = await asked
        journal.confirm(first)
        self.assertEqual(journal.identity.journal, uuid)
        batches = [first, *await self.take_all(journal)]
        taken = [value for batch in batches for value in values(batch)]
        self.assertEqual(taken[:10], [float(n) for n in range(10)])
        self.assertEqual(taken[10:], [float(n) for n in range(2_010 - len(taken) + 10, 2_010)])
        self.assertEqual(sum(batch.rows for batch in batches) + journal.health.lost, 2_110)
        self.assertEqual((self.pressure, journal.status().trouble), ([], None))
        await journal.stopService()
        self.assertEqual(self.query("select lost from journal"), [(journal.health.lost,)])

    async def test_stop_on_a_full_disk(self) -> None:
        """
        A journal that could never be opened stops all the same, and logs the number of lost rows.
        """
        self.refuse_to_open()
        journal = self.start()
        journal.append(readings(0, 3), ())
        await journal.stopService()
        self.assertEqual([event["lost"] for event in self.logged("could not be written")], [3])

    async def test_slow_store_is_no_pressure(self) -> None:
        """
        Rows that are on disk but not stored hold no device back.
        """
        journal = self.start(unsynced_limit=6_000, live_limit=6_000)
        for n in range(8):
            journal.append(readings(n * 100, 100), ())
            await self.committed(journal)
        self.assertEqual(self.pressure, [])
        self.assertEqual(journal.backlog, 800)

    async def test_full_disk(self) -> None:
        """
        A full disk is still read for the delivery, stored rows make room, and nothing is lost.
        """
        journal = self.start(live_limit=1)
        for n in range(10):
            journal.append(readings(n * 100, 100), ())
            await self.committed(journal)
        db = self.opened[-1]
        db.execute("pragma max_page_count = 1")  # not below what it has
        journal.append(readings(1_000, 1_000), ())
        await until(lambda: journal.health.trouble)
        self.assertEqual(journal.health.trouble, "database or disk is full")
        first = await journal.oldest()
        journal.confirm(first)
        second = await journal.oldest()
        self.assertEqual(values(first) + values(second), [float(n) for n in range(1_000)])
        journal.confirm(second)
        db.execute("pragma max_page_count = 100000")
        self.assertEqual(values(await journal.oldest()), [float(n) for n in range(1_000, 2_000)])

    async def test_unreadable_disk_is_written(self) -> None:
        """
        While the disk can't be read, rows are written to it; those on it are returned when it can be read again.
        """
        journal = self.start()
        journal.append(readings(0, 3), ())
        await journal.stopService()
        journal = self.start()

        def fail(file: JournalFile, after: int, most: int) -> tuple[Batch | None, bool]:
            raise sqlite3.OperationalError("disk I/O error")

        unreadable = self.patch(JournalFile, "read", fail)
        asked = journal.oldest()
        await until(lambda: journal.health.trouble)
        journal.append(readings(3, 2), ())
        await until(lambda: journal.health.commits)
        self.assertNoResult(asked)
        unreadable.restore()
        self.assertEqual(values(await asked), [0.0, 1.0, 2.0, 3.0, 4.0])
        self.assertIsNone(journal.health.trouble)

    async def stop_while_refusing(self) -> None:
        """
        Stop with three rows that the disk refuses to the end.
        """
        journal = self.start()
        holder = self.refuse()
        self.addCleanup(holder.close)
        journal.append(readings(0, 3), ())
        await until(lambda: journal.health.trouble)
        await journal.stopService()
        self.assertEqual([event["lost"] for event in self.logged("are lost")], [3])

    async def test_stop_while_refusing(self) -> None:
        """
        A disk that refuses writes to the end does not keep the daemon from stopping; the loss is logged.
        """
        self.patch(writer, "STOP_PATIENCE", 0.01)
        await self.stop_while_refusing()

    async def test_stop_tries_at_once(self) -> None:
        """
        The stop retries at once, so that nothing is lost if the disk has recovered.
        """
        self.patch(writer, "RETRY_FIRST", 1_000.0)
        self.patch(writer, "RETRY_MOST", 1_000.0)
        journal = self.start()
        holder = self.refuse()
        journal.append(readings(0, 3), ())
        await until(lambda: journal.health.trouble)
        holder.close()
        await journal.stopService()
        self.assertEqual(self.logged("are lost"), [])
        self.assertEqual(self.query("select sum(count) from batch"), [(3,)])

    async def test_stop_does_not_wait_for_the_next_attempt(self) -> None:
        """
        The stop gives up after `STOP_PATIENCE`, however far off the next attempt is.
        """
        self.patch(writer, "RETRY_FIRST", 1_000.0)
        self.patch(writer, "RETRY_MOST", 1_000.0)
        self.patch(writer, "STOP_PATIENCE", 0.1)
        await self.stop_while_refusing()

    async def test_damaged_file(self) -> None:
        """
        A file that is not a database is set aside and logged, and a new one is created.
        """
        for number in (1, 2):
            self.path.write_bytes(b"no database " * 1_000)
            journal = self.start()
            self.assertEqual(journal.backlog, 0)
            journal.append(readings(0, 1), ())
            self.assertEqual(values(await journal.oldest()), [0.0])
            await journal.stopService()
            aside = self.path.with_name(f"journal.sqlite.damaged-{number}")
            self.assertEqual(aside.read_bytes()[:11], b"no database")
            self.assertEqual(len(self.logged("is damaged")), number)

    async def test_damage_found_later(self) -> None:
        """
        Damage found while reading sets the file aside; uuid and numbers continue, and new rows are stored.
        """
        await self.damage_later("00")

    async def test_damaged_text(self) -> None:
        """
        So does text that is not UTF-8.
        """
        await self.damage_later("93010281a1ff90")

    async def damage_later(self, payload: str) -> None:
        """
        Damage a batch of a journal that is open: put this payload in its place, in hexadecimal digits.
        """
        journal = self.start(live_limit=1)
        for n in range(3):
            journal.append(readings(n, 1), ())
            await self.committed(journal)
        self.query(f"update batch set payload = x'{payload}' where last = 3")
        first = await journal.oldest()
        journal.confirm(first)
        asked = journal.oldest()
        await until(lambda: self.logged("is damaged"))
        journal.append(readings(3, 1), ())
        self.assertEqual(numbers(await asked), [4])
        self.assertEqual(journal.backlog, 1)
        uuid = journal.identity.journal
        await journal.stopService()
        self.assertEqual(self.start().identity.journal, uuid)
        self.assertTrue(self.path.with_name("journal.sqlite.damaged-1").exists())

    def damages(self, count: int) -> bool:
        """
        Whether damage was logged this many times.
        """
        return len(self.logged("is damaged")) == count

    async def test_every_page(self) -> None:
        """
        Damage to any page of the file is found at the start, before any of its rows are returned.
        """
        journal = self.start()
        for n in range(20):
            journal.append(readings(n * 300, 10 if n % 2 else 300), ())
            await self.committed(journal)
        await journal.stopService()
        whole = self.path.read_bytes()
        pages = len(whole) // 4096
        self.assertGreater(pages, 20)
        for page in range(pages):
            flipped = bytes(byte ^ 0xFF for byte in whole[page * 4096 : page * 4096 + 4096])
            self.path.write_bytes(whole[: page * 4096] + flipped + whole[page * 4096 + 4096 :])
            journal = self.start(durability=0.001)
            await until(partial(self.damages, page + 1))
            journal.append(readings(0, 1), ())
            self.assertEqual(len(values(await journal.oldest())), 1)
            self.assertEqual(journal.backlog, 1)
            await journal.stopService()
            for left in self.path.parent.glob("journal.sqlite*"):
                left.unlink()

    def test_check_that_does_not_end(self) -> None:
        """
        A file that can't be read, or whose check was interrupted by the stop, is not damaged, and is written.
        """
        for code, raises in ((sqlite3.SQLITE_IOERR, True), (sqlite3.SQLITE_INTERRUPT, False)):
            error = sqlite3.OperationalError("what SQLite says")
            error.sqlite_errorcode = code

            file = JournalFile(self.path)
            file.open()
            self.opened[-1].failing = error
            if raises:
                self.assertRaises(sqlite3.OperationalError, file.check)
            else:
                file.check()
            self.assertTrue(file.checked)
            self.opened[-1].failing = None
            self.assertEqual(file.write([encode(1, readings(0, 1), ())], START).dropped, [])
            file.close()
            self.path.unlink()

    def test_cannot_be_used(self) -> None:
        """
        For a file that can't be used, the error is one sentence, and no thread is left running.
        """
        self.path.mkdir()
        journal = Journal(self.reactor, self.path)
        error = self.assertRaises(JournalError, journal.startService)
        self.assertEqual(str(error), f"cannot use the journal {self.path}: unable to open database file")
        self.assertFalse(journal.running)
        self.assertNotIn("journal", [thread.name for thread in threading.enumerate()])

    def test_other_format(self) -> None:
        """
        A file of another format is refused and left unchanged.
        """
        self.query("pragma user_version = 99")
        self.assertRaises(JournalError, Journal(self.reactor, self.path).startService)
        self.assertEqual(self.query("select count(*) from sqlite_master"), [(0,)])


class LimitTests(JournalCase):
    """
    A journal with a size limit.
    """

    async def test_oldest_are_dropped(self) -> None:
        """
        Beyond the limit the oldest batches are dropped whole, counted in the status and logged; the rest is returned in
        order.
        """
        journal = self.start(limit=100_000)
        for n in range(30):
            journal.append(readings(n * 100, 100), ())
            await self.committed(journal)
            (size,) = self.query("select sum(length(payload) + 32) from batch")[0]
            self.assertLessEqual(size, 100_000)
        self.assertGreater(size, 90_000)
        self.assertGreater(journal.health.lost, 0)
        self.assertEqual(journal.health.lost % 100, 0)
        self.assertEqual(journal.status().lost, journal.health.lost)
        self.assertEqual(len(self.logged("are lost")), 1)
        taken = [value for batch in await self.take_all(journal) for value in values(batch)]
        self.assertEqual(taken, [float(n) for n in range(journal.health.lost, 3_000)])
        self.assertEqual(sum(event["rows"] for event in self.logged("are lost")), journal.health.lost)
        self.assertEqual(journal.backlog, 0)
        self.assertEqual({event["why"] for event in self.logged("are lost")}, {"the journal is full"})
        before = journal.health.lost
        await journal.stopService()
        again = self.start(limit=100_000)
        self.assertEqual(again.status().lost, before)
        self.events.clear()
        await again.stopService()
        self.assertEqual(self.logged("are lost"), [])

    async def test_below_the_limit(self) -> None:
        """
        Nothing is dropped if stored rows make room.
        """
        journal = self.start(limit=50_000, durability=0.001)
        for n in range(30):
            journal.append(readings(n * 100, 100), ())
            journal.confirm(await journal.oldest())
        self.assertEqual(journal.health.lost, 0)
        self.assertEqual(journal.status().lost, 0)

    async def test_dropped_but_in_memory(self) -> None:
        """
        Rows that were dropped on disk but are still in memory, in one batch with later ones, wait like any others: they
        can be read, discarded and delivered, and are counted.
        """
        journal = self.start(limit=30_000)
        for n in range(2):
            journal.append(readings(n * 100, 100), ())
            await self.committed(journal)
        await journal.stopService()
        reads = self.count_reads()
        journal = self.start(limit=30_000)
        journal.append(readings(200, 1), ())
        await self.committed(journal)
        await until(lambda: reads)
        appended = 201
        while self.query("select min(first) from batch") == [(1,)]:
            journal.append(readings(appended, 50), ())
            appended += 50
            await self.committed(journal)
        first = await journal.waiting(0)
        assert first is not None
        self.assertEqual((first.first, journal.backlog), (1, appended))
        await journal.discard({1, 2, 150, 9_999})
        self.assertEqual(journal.backlog, appended - 3)
        taken = [value for batch in await self.take_all(journal) for value in values(batch)]
        self.assertEqual(taken, [float(n) for n in range(appended) if n not in (0, 1, 149)])
        self.assertEqual((journal.health.lost, journal.backlog), (0, 0))

    async def test_in_flight(self) -> None:
        """
        A batch in delivery is not dropped, and is returned again after a crash.
        """
        journal = self.start(limit=50_000)
        journal.append(readings(0, 100), ())
        batch = await journal.oldest()
        for n in range(1, 20):
            journal.append(readings(n * 100, 100), ())
            await self.committed(journal)
        self.assertEqual(self.query("select min(last) from batch"), [(batch.last,)])
        self.assertIs(await journal.oldest(), batch)
        await journal.stopService()
        again = self.start(limit=50_000)
        taken = [value for each in await self.take_all(again) for value in values(each)]
        self.assertEqual(taken[:100], values(batch))
        self.assertEqual(taken[100:], [float(n) for n in range(100 + journal.health.lost, 2_000)])

    async def test_smaller_limit(self) -> None:
        """
        A limit that was lowered holds from the first commit on.
        """
        journal = self.start()
        for n in range(10):
            journal.append(readings(n * 100, 100), ())
            await self.committed(journal)
        await journal.stopService()
        journal = self.start(limit=30_000)
        journal.append(readings(1_000, 1), ())
        await self.committed(journal)
        self.assertLessEqual(self.query("select sum(length(payload)) from batch")[0][0], 30_000)
        taken = [value for batch in await self.take_all(journal) for value in values(batch)]
        self.assertEqual(taken, [float(n) for n in range(journal.health.lost, 1_001)])

    async def test_every_order(self) -> None:
        """
        Whatever the order of appending, reading and confirming, each row is returned once and in order, or counted as
        lost.
        """
        lost = 0
        for seed in range(8):
            dice = Random(seed)
            journal = self.start(limit=40_000, durability=0.001, live_limit=dice.choice([1, 10_000, 1_000_000]))
            appended = 0
            taken: list[float] = []
            current: Batch | None = None
            for _ in range(150):
                chance = dice.random()
                if chance < 0.5:
                    count = dice.choice([1, 50, 300])
                    journal.append(readings(appended, count), ())
                    appended += count
                    if dice.random() < 0.7:
                        journal.flush()
                elif chance < 0.6:
                    await self.committed(journal)
                elif chance < 0.8 and current is None and journal.backlog:
                    current = await journal.oldest()
                elif current is not None:
                    taken += values(current)
                    journal.confirm(current)
                    current = None
            if current is not None:
                taken += values(current)
                journal.confirm(current)
            await self.committed(journal)
            taken += [value for batch in await self.take_all(journal) for value in values(batch)]
            self.assertEqual(taken, sorted(set(taken)), seed)
            self.assertEqual((len(taken) + journal.health.lost, journal.backlog), (appended, 0), seed)
            lost += journal.health.lost
            await journal.stopService()
            self.assertEqual(self.query("select lost from journal"), [(journal.health.lost,)], seed)
            self.path.unlink()
        self.assertGreater(lost, 0)  # with one seed alone, the thread may have kept up


CHILD = """
import sys
from pathlib import Path
from twisted.internet import reactor, task
from usbgate.testing import readings
from usbgate.store.journal.journal import Journal

journal = Journal(reactor, Path(sys.argv[1]))
journal.startService()
appended = printed = 0

def more():
    global appended, printed
    journal.append(readings(appended, 7), ())
    appended += 7
    if journal.backlog - journal.unwritten > printed:
        printed = journal.backlog - journal.unwritten
        print(printed, flush=True)

task.LoopingCall(more).start(0.001)
reactor.run()
"""
