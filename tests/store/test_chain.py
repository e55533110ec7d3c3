"""
The chain: whatever is copied, put back, killed or taken over, no row is lost, doubled or numbered twice.

Real journals and real sinks on a real PostgreSQL, without the lock that would keep a second daemon out, as behind a
pooler of connections. A failure names its world: `USBGATE_FIRST_SEED=SEED USBGATE_WORLDS=1` runs it again.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from random import Random
from typing import Any

import psycopg2

from tests.faults.ledger import FULL
from tests.support.database import PostgresTestCase
from tests.support.gates import UNLIMITED, Crash, Gate
from tests.support.postgresql import SEARCH_PATH
from usbgate.store.interfaces import SinkUnavailable
from usbgate.store.journal import journal as journal_module
from usbgate.store.journal import readahead
from usbgate.store.postgres import sink as postgres

WORLDS = int(os.environ.get("USBGATE_WORLDS", "2000" if FULL else "12"))
FIRST_SEED = int(os.environ.get("USBGATE_FIRST_SEED", "0"))
UNLUCKY = 29  # readings with multiples of this value are refused by the database
BATCH = 320  # approximate bytes of a batch in the journal

# Mishaps with state folders and with the database, the frequent ones more than once.
FOLDERS = ("copy", "copy", "copy", "twin", "clone", "put back")
DATABASES = ("back up", "back up", "restore", "restore")


class ChainCase(PostgresTestCase):
    """
    Gateways with one name.
    """

    timeout = 3600
    CONSTRAINT = f"alter table reading add constraint unlucky check (value::bigint % {UNLUCKY} <> 0)"

    def setUp(self) -> None:
        """
        Create the tables, and take the lock out.
        """
        super().setUp()
        keys = itertools.count()
        self.patch(postgres, "lock_key", lambda text: next(keys))
        self.folders = itertools.count()
        self.connection = psycopg2.connect(self.url, options=SEARCH_PATH)
        self.connection.autocommit = True
        self.addCleanup(self.connection.close)
        self.step: Callable[[], None] = lambda: None
        self.gates: list[Gate] = []

    async def tables(self) -> None:
        """
        Create the tables; some rows are refused.
        """
        await (await self.connected(gateway="nobody")).close()
        self.sql(self.CONSTRAINT)

    @contextmanager
    def lenient(self) -> Iterator[None]:
        """
        Let the database refuse nothing.
        """
        self.sql("alter table reading drop constraint unlucky")
        try:
            yield
        finally:
            self.sql(self.CONSTRAINT + " not valid")

    def sql(self, sql: str, *parameters: object) -> list[Any]:
        """
        Run a statement.
        """
        with closing(self.connection.cursor()) as cursor:
            cursor.execute(sql, parameters or None)
            return cursor.fetchall() if cursor.description else []

    def folder(self) -> Path:
        """
        Make a new folder.
        """
        folder = Path(self.mktemp()).absolute() / str(next(self.folders))
        folder.mkdir(parents=True)
        return folder

    def gate(self, name: str = "pi", copy: Path | None = None, limit: int = UNLIMITED) -> Gate:
        """
        Start a gateway, perhaps on a copy of another's folder.
        """
        gate = Gate(self.folder() if copy is None else copy, self.url, name, lambda: self.step(), limit)
        self.addCleanup(gate.end)
        return gate

    def stored(self, name: str = "pi") -> list[tuple[int, float]]:
        """
        Return number and value of the readings in the database.
        """
        return self.sql("select seq, value from reading where gateway = %s order by seq", name)

    def values(self) -> list[float]:
        """
        Return the values of the readings in the database, by number.
        """
        return [value for _, value in self.stored()]


class RuleTests(ChainCase):
    """
    Each rule by itself.
    """

    async def test_lost_confirmation(self) -> None:
        """
        Rows whose confirmation was lost are found at the next connection and let go, in the same run and after a
        crash; no new identity begins.
        """
        await self.tables()
        gate = self.gate()
        await gate.sink.connect()
        first = gate.journal.identity.journal
        for crash in (False, True):
            await gate.read([1, 2])
            await gate.send_and_lose_the_confirmation()
            if crash:
                await gate.crash()
            await gate.sink.connect()
            self.assertEqual(gate.journal.backlog, 0)
        await gate.read([3])
        await gate.drain()
        self.assertEqual(self.stored(), [(1, 1.0), (2, 2.0), (3, 1.0), (4, 2.0), (5, 3.0)])
        self.assertEqual(gate.journal.identity.journal, first)

    async def test_fenced(self) -> None:
        """
        Of two daemons on copies of one folder, that which stores second stores nothing before it has a new identity;
        then its numbers are above all others.
        """
        await self.tables()
        gate = self.gate()
        await gate.read([1])
        await gate.drain()
        clone = self.gate(copy=gate.copy(self.folder()))
        await clone.sink.connect()
        await gate.read([2])
        await clone.read([3])
        await clone.send()
        await self.unavailable(gate.sink.store(await gate.journal.oldest(), gate.journal.reject))
        self.assertEqual(self.stored(), [(1, 1.0), (2, 3.0)])
        await gate.drain()
        self.assertEqual(self.stored(), [(1, 1.0), (2, 3.0), (3, 2.0)])
        await clone.read([4])
        await self.unavailable(clone.sink.store(await clone.journal.oldest(), clone.journal.reject))
        await clone.drain()
        self.assertEqual(self.values(), [1.0, 3.0, 2.0, 4.0])

    async def test_chain(self) -> None:
        """
        A copy that has other rows under the same numbers is told from the original by the chain.
        """
        await self.tables()
        gate = self.gate()
        await gate.read([1])
        await gate.drain()
        clone = self.gate(copy=gate.copy(self.folder()))
        await gate.read([2])
        await gate.drain()
        await clone.read([3])
        await clone.drain()
        self.assertEqual(self.values(), [1.0, 2.0, 3.0])

    async def test_old_copy(self) -> None:
        """
        A folder that was put back sends no row again that is stored under its number, even if its time was corrected,
        and gives no number again. What it had received after the copy is in the database only.
        """
        await self.tables()
        gate = self.gate()
        await gate.sink.connect()
        for value in (1, 2, 3):
            await gate.read([value])
        copy = gate.copy(self.folder())
        await gate.drain()
        await gate.read([4])
        await gate.drain()
        self.sql("update reading set at = at + interval '1 year', clock = false where seq = 2")
        await gate.restore(copy)
        self.assertEqual(gate.journal.backlog, 3)
        await gate.read([5])
        await gate.drain()
        self.assertEqual(self.stored(), [(1, 1.0), (2, 2.0), (3, 3.0), (4, 4.0), (5, 5.0)])

    async def test_partly_there(self) -> None:
        """
        Of a batch that is there in part, the rest is stored; what is there under another number is stored again.
        """
        await self.tables()
        gate = self.gate()
        await gate.sink.connect()
        await gate.read([1, 2, 3, 4])
        copy = gate.copy(self.folder())
        await gate.drain()
        self.sql("delete from reading where seq = 2")
        self.sql("update reading set value = 9 where seq = 4")
        self.sql("update gateway set chain = 'of another' where name = 'pi'")
        await gate.restore(copy)
        await gate.drain()
        self.assertEqual(self.stored(), [(1, 1.0), (3, 3.0), (4, 9.0), (5, 2.0), (7, 4.0)])

    async def test_restored_database(self) -> None:
        """
        A database that was put back gets none of the numbers for other rows that the journal has given out.
        """
        await self.tables()
        gate = self.gate()
        for value in (1, 2, 3):
            await gate.read([value])
            await gate.drain()
        self.sql("delete from reading where seq > 1")
        self.sql("update gateway set n = 1, chain = 'as it was' where name = 'pi'")
        gate.disconnect()
        await gate.read([4, 5, 6])
        await gate.send_and_lose_the_confirmation()
        self.assertEqual(self.stored(), [(1, 1.0), (4, 4.0), (5, 5.0), (6, 6.0)])
        self.sql("delete from reading where seq > 4")
        self.sql("update reading set value = 9 where seq = 4")
        self.sql("update gateway set n = 1, chain = 'as another left it' where name = 'pi'")
        await gate.drain()
        self.assertEqual(self.stored(), [(1, 1.0), (4, 9.0), (7, 4.0), (8, 5.0), (9, 6.0)])

    async def test_dropped(self) -> None:
        """
        The position of the database is known although the batches up to it were dropped.
        """
        await self.tables()
        gate = self.gate(limit=3 * BATCH)
        await gate.sink.connect()
        first = gate.journal.identity.journal
        await gate.read([1])
        await gate.read([2])
        await gate.send_and_lose_the_confirmation()
        await gate.crash()
        for value in range(3, 13):
            await gate.read([value])
        self.assertLessEqual({1.0, 2.0}, gate.lost)
        await gate.drain()
        self.assertEqual(gate.journal.identity.journal, first)
        self.assertEqual(set(self.values()), {float(value) for value in range(1, 13)} - (gate.lost - {1.0, 2.0}))

    async def test_begun_and_killed(self) -> None:
        """
        A daemon that is killed between taking the name and noting it, before or after, goes on.
        """
        await self.tables()
        for steps in (0, 1):
            gate = self.gate(name=f"pi{steps}")
            await gate.read([1])
            left = itertools.count(-steps)
            self.step = lambda left=left: self.crash_if(next(left) == 0)  # type: ignore[misc]
            await self.assertFailure(gate.sink.connect(), Crash)
            self.step = lambda: None
            await gate.crash()
            await gate.drain()
            self.assertEqual(self.stored(f"pi{steps}"), [(1, 1.0)])

    def crash_if(self, now: bool) -> None:
        """
        Kill the daemon now, or not.
        """
        if now:
            raise Crash

    async def test_refused_and_killed(self) -> None:
        """
        A daemon that is killed when the refused rows of a batch are set aside, and before it is stored, stores it
        later; the chain moves by the whole batch.
        """
        await self.tables()
        gate = self.gate()
        await gate.read([1, UNLUCKY, 2])
        await gate.sink.connect()
        self.step = lambda: self.crash_if(bool(gate.aside()))
        await self.assertFailure(gate.sink.store(await gate.journal.oldest(), gate.chain.reject), Crash)
        self.step = lambda: None
        self.assertEqual(self.stored(), [])
        await gate.crash()
        await gate.drain()
        self.assertEqual((self.stored(), gate.aside()), ([(1, 1.0), (3, 2.0)], {float(UNLUCKY)}))
        self.assertEqual(self.sql("select n from gateway where name = 'pi'"), [(3,)])


class WorldTests(ChainCase):
    """
    Random worlds.
    """

    async def test_worlds(self) -> None:
        """
        In every world: no number has two rows; every reading is stored, set aside, counted as dropped, or was in a
        database or folder that was thrown away; only what waited in a folder when it was copied, or was forgotten by
        the database, is doubled; without copies no identity changes and no number is given out twice.
        """
        await self.tables()
        doubled = retried = 0
        for seed in range(FIRST_SEED, FIRST_SEED + WORLDS):
            world = World(self, seed)
            try:
                doubled += await world.live()
            except Exception as error:
                raise AssertionError(f"world {seed}: {error!r}") from error
            retried += world.retried
            self.assertEqual(world.wrong, [], f"world {seed}")
            self.sql("truncate reading, gateway")
        if WORLDS >= 300:
            self.assertGreater(doubled, 0, "nothing happened that the chain is for")
            self.assertGreater(retried, 0, "no row that was refused was stored later")


class World:
    """
    A database and the gateways that store in it.
    """

    def __init__(self, case: ChainCase, seed: int) -> None:
        self.random = Random(seed)
        self.case = case
        # What goes wrong besides crashes, and how often.
        self.mishaps = self.random.choice([(), (), FOLDERS, DATABASES, FOLDERS + DATABASES])
        self.clumsy = self.random.choice([0.1, 0.3])
        self.limit = UNLIMITED if self.random.random() < 0.5 else 6 * BATCH
        case.step = lambda: None
        self.gates = [case.gate(limit=self.limit)]
        self.values = itertools.count(1)
        self.made: set[float] = set()
        self.copied: set[float] = set()  # may be doubled
        self.gone: set[float] = set()
        self.ever: dict[int, float] = {}
        self.reused = self.retried = 0
        self.copies: list[tuple[Path, Gate]] = []
        self.backups: list[tuple[list[Any], list[Any]]] = []
        self.wrong: list[str] = []

    def step(self) -> None:
        """
        Kill the daemon, at times.
        """
        if self.random.random() < 0.03:
            raise Crash

    async def live(self) -> int:
        """
        Let things happen, then store everything; return the number of readings that are doubled.
        """
        self.case.step = self.step
        identities = set()
        for _ in range(self.random.randint(30, 120)):
            gate = self.random.choice(self.gates)
            await self.survive(gate, lambda gate=gate: self.happen(gate))  # type: ignore[misc]
            identities.add(gate.journal.identity.journal)
            if len(self.gates) == 1 and not self.copies:
                for seq, value in self.case.stored():
                    self.reused += self.ever.setdefault(seq, value) != value
        for _ in range(300):
            waiting = [gate for gate in self.gates if gate.journal.backlog]
            if not waiting:
                break
            gate = self.random.choice(waiting)
            await self.survive(gate, gate.drain)
        else:
            self.wrong.append("never drained")
        doubled = self.check(len(identities))
        for gate in self.gates:
            await gate.end()
        return doubled

    async def survive(self, gate: Gate, act: Callable[[], Any]) -> None:
        """
        Let a gateway act; it may be killed, and the database may refuse.
        """
        self.case.patch(readahead, "MERGE_ROWS", self.random.randint(1, 9))
        self.case.patch(journal_module, "MERGE_ROWS", self.random.randint(1, 9))
        try:
            await act()
        except Crash:
            await gate.crash()
        except SinkUnavailable:
            pass

    async def happen(self, gate: Gate) -> None:
        """
        Let one thing happen.
        """
        if self.mishaps and self.random.random() < self.clumsy:
            await self.mishap(gate, self.random.choice(self.mishaps))
            return
        what = self.random.random()
        if what < 0.37:
            await self.read(gate, self.random.randint(1, 3))
        elif what < 0.54:
            await gate.sink.connect()
        elif what < 0.90 and gate.journal.backlog:
            if self.random.random() > 0.1:
                await gate.send()
                return
            await gate.send_and_lose_the_confirmation()
            for _ in range(self.random.choice([0, 8])):  # more than the journal may have room for
                await self.read(gate, self.random.randint(1, 3))
        elif what < 0.93:
            gate.disconnect()
        elif what < 0.97 and gate.aside():
            with self.case.lenient():
                self.retried += gate.retry()
        elif what < 0.98:
            with self.case.lenient():
                self.case.sql(
                    "update reading set at = at + interval '1 day', clock = not clock where seq %% 3 = %s",
                    self.random.randrange(3),
                )
        else:
            raise Crash

    async def read(self, gate: Gate, count: int) -> None:
        """
        Let a gateway read so many new readings.
        """
        values = list(itertools.islice(self.values, count))
        self.made |= set(map(float, values))
        await gate.read(values)

    async def mishap(self, gate: Gate, what: str) -> None:
        """
        Copy or restore something.
        """
        if what == "copy":
            self.copied |= gate.waiting()
            self.copies.append((gate.copy(self.case.folder()), gate))
        elif what == "twin" and self.copies and len(self.gates) < 3:
            copy, _ = self.random.choice(self.copies)
            folder = self.case.folder()
            twin = self.case.gate(copy=folder, limit=self.limit)
            await twin.restore(copy)
            self.gates.append(twin)
        elif what == "clone" and len(self.gates) < 3:
            # Both read as much, so that only the chain tells what the one has stored from what waits in the other.
            await gate.drain()
            twin = self.case.gate(copy=gate.copy(self.case.folder()), limit=self.limit)
            self.gates.append(twin)
            for each in (gate, twin):
                await self.read(each, 1)
            await gate.drain()
        elif what == "put back" and self.copies:
            lost = gate.waiting()
            self.copied |= lost
            self.gone |= lost | gate.aside() | gate.lost
            await gate.restore(self.random.choice(self.copies)[0])
        elif what == "back up":
            self.backups.append((self.case.sql("select * from reading"), self.case.sql("select * from gateway")))
        elif what == "restore" and self.backups:
            self.gone |= {value for _, value in self.case.stored()}
            self.copied |= self.gone
            rows, gateways = self.random.choice(self.backups)
            self.case.sql("truncate reading, gateway")
            with self.case.lenient():
                for table, lines in (("reading", rows), ("gateway", gateways)):
                    for line in lines:
                        self.case.sql(f"insert into {table} values ({', '.join(['%s'] * len(line))})", *line)
            for each in self.gates:
                each.disconnect()

    def check(self, identities: int) -> int:
        """
        Record what is wrong.
        """
        stored = self.case.stored()
        numbers, values = [seq for seq, _ in stored], [value for _, value in stored]
        twice = {value for value in values if values.count(value) > 1}
        aside = set().union(*[gate.aside() | gate.lost for gate in self.gates])
        wrong = {
            "numbers have two rows": len(numbers) - len(set(numbers)),
            "readings are missing": sorted(self.made - set(values) - self.gone - aside),
            "readings are doubled": sorted(twice - self.copied),
            "identities changed": not self.mishaps and identities > 1,
            "numbers were given out twice": self.reused,
        }
        self.wrong += [f"{what}: {count}" for what, count in wrong.items() if count]
        return len(twice)
