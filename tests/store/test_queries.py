"""
Queries of stored rows, with a real PostgreSQL.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from functools import cache
from math import inf
from operator import attrgetter
from typing import Any

import psycopg2
from zope.interface.verify import verifyObject

from tests.support import postgresql
from tests.support.database import PostgresTestCase, numbered, numbered_request
from tests.support.postgresql import SEARCH_PATH
from usbgate.core import batch
from usbgate.core.model import Range, Reading, ReplacementRecord, Selection, StoredReading, StoredState
from usbgate.store.interfaces import IStore
from usbgate.store.postgres import queries, restorequeries
from usbgate.store.postgres.insert import select_stored
from usbgate.store.postgres.migrations import creation
from usbgate.store.postgres.names import Schema
from usbgate.store.postgres.sink import PostgresSink
from usbgate.testing import AT, MemorySink

MINUTE = 60_000

# Which numbers are plausible; those of other sensors' fields change nothing.
RANGES = (Range("0", "TEMP", 20.0, 60.0, False), Range("0", "BAT", 5.0, 6.0, False), Range("0", "NO", 1.0, inf, True))

SELECTIONS = [
    Selection("0"),
    Selection("0", "TEMP"),
    Selection("0", "VALUE", since=AT + 20, until=AT + 50),
    Selection("0", None, since=AT + 20),
    Selection("0", None, until=AT + 20),
    Selection("0", "NO"),
    Selection("5"),
    Selection("0", None, since=10**18),
    Selection("0", None, since=-(10**18), until=10**18),
    Selection("0", ranges=RANGES),
    Selection("0", "TEMP", ranges=RANGES),
    Selection("0", "VALUE", since=AT + 20, ranges=RANGES),
    Selection("0", None, until=AT + 50, ranges=RANGES),
]


class ArchiveTests(PostgresTestCase):
    """
    Stored rows are returned unchanged, by number.
    """

    async def stored(self, rows: list[Reading], requests: int = 0) -> PostgresSink:
        """
        Store readings, numbered from 1, and requests.
        """
        sink = await self.connected()
        await sink.store(
            batch.encode(1, rows, [numbered_request(n, sensor=str(n % 2)) for n in range(requests)]), self.reject
        )
        other = await self.connected(gateway="other", journal="7f2cfe0c-0000-4000-8000-000000000000")
        await other.store(
            batch.encode(1, [numbered(n, sensor="0") for n in range(100)], [numbered_request(0, sensor="0")]),
            self.reject,
        )
        return sink

    def expected(self, rows: list[Reading]) -> MemorySink:
        """
        Return a sink in memory with the same readings.
        """
        sink = MemorySink()
        sink.add(rows)
        return sink

    def rows(self) -> list[Reading]:
        """
        Return readings of two sensors, with three fields, one of them a text; one goes back in time.
        """
        rows = [numbered(n, sensor=str(n % 2), field=("TEMP", "VALUE", "BAT")[n % 3]) for n in range(90)]
        rows = [row._replace(value=None, text="é 漢") if row.field == "BAT" else row for row in rows]
        rows[50] = rows[50]._replace(at=AT - 1000)
        return rows

    async def test_pages(self) -> None:
        """
        Pages return exactly the selected readings, by number; of all or of the newest. With a time range, the newest
        are those by time, and an extent also includes all readings numbered between them.
        """
        rows = self.rows()
        sink, expected = await self.stored(rows), self.expected(rows)
        self.assertTrue(verifyObject(IStore, sink))
        for selection in SELECTIONS:
            for limit in (None, 1, 7, 1000):
                extent = await sink.extent(selection, limit)
                self.assertEqual(extent, await expected.extent(selection, limit), (selection, limit))
                if extent is None:
                    continue
                found: list[StoredReading] = []
                while page := await sink.page(selection, found[-1].seq + 1 if found else extent[0], extent[1], 4):
                    self.assertLessEqual(len(page), 4)
                    found += page
                self.assertEqual(found, await expected.page(selection, *extent, 1000), (selection, limit))

    async def test_buckets(self) -> None:
        """
        Numbers are aggregated by intervals that begin at multiples of their width; texts are left out.
        """
        rows = [
            numbered(sensor="0", field=("TEMP", "VALUE")[n % 2], at=AT + n * 7_000, value=n * n / 8) for n in range(100)
        ]
        rows += [numbered(sensor="0", field="TEMP", value=None, text="broken"), numbered(sensor="0.TEMP", value=99.0)]
        sink, expected = await self.stored(rows), self.expected(rows)
        for selection in [
            Selection("0"),
            Selection("0", "TEMP"),
            Selection("0", "VALUE", since=AT + 20_000, until=AT + 500_000),
            Selection("0", "NO"),
            Selection("0", ranges=RANGES),
        ]:
            for width in (MINUTE, 90_500):
                for limit in (1000, 3):
                    found = await sink.buckets(selection, width, limit)
                    sums = await expected.buckets(selection, width, limit)
                    self.assertEqual([each._replace(avg=0.0) for each in found], [e._replace(avg=0.0) for e in sums])
                    for each, same in zip(found, sums, strict=True):
                        self.assertAlmostEqual(each.avg, same.avg)

    async def test_states(self) -> None:
        """
        Equal readings of a field and device in a row are one state until the next one, except across a gap, and
        beginning with the last one before the time range.
        """
        values = [0.0] * 10 + [1.0] * 3 + [0.0] * 7
        rows = [numbered(n, sensor="0", field="DOOR", value=value) for n, value in enumerate(values)]
        rows = [row._replace(at=AT + n * 1000 + (n > 15) * 60_000) for n, row in enumerate(rows)]
        rows += [numbered(sensor="0", field="DOOR", device="uno", at=AT + 2_500, value=None, text="open")]
        sink = await self.stored(rows)

        def state(since: int, until: int, value: float) -> StoredState:
            return StoredState(AT + since * 1000, AT + until * 1000, "leonardo", "DOOR", value, None)

        uno = StoredState(AT + 2_500, AT + 2_500, "uno", "DOOR", None, "open")
        first, *others = [state(0, 10, 0.0), state(10, 13, 1.0), state(13, 15, 0.0), state(76, 79, 0.0)]
        selection = Selection("0", "DOOR")
        self.assertEqual(await sink.states(selection, 9), [first, uno, *others])
        self.assertEqual(await sink.states(selection, 2), others[-2:])
        found = await sink.states(Selection("0", "DOOR", AT + 11_500, AT + 14_500), 9)
        self.assertEqual(found, [state(11, 13, 1.0), state(13, 14, 0.0)])
        plausible = Selection("0", "DOOR", ranges=(Range("0", "DOOR", -1.0, 0.5, False),))
        self.assertEqual(await sink.states(plausible, 9), [state(0, 15, 0.0), uno, others[-1]])

    async def test_joined(self) -> None:
        """
        What a successor sent between the sensor's last report and the replacement is the sensor's, in all questions; a
        replacement that was taken back changes nothing.
        """
        rows = [
            numbered(n, sensor=("0", "0.A", "1", "2")[n // 5 % 4], field=("TEMP", "VALUE")[n % 2]) for n in range(60)
        ]
        replaced = [
            ReplacementRecord(AT, "0", "1", "uno", "replaced", AT + 15, "me", True),
            ReplacementRecord(AT, "0", "2", "uno", "replaced", 0, "me", True),
            ReplacementRecord(AT, "0", "2", "uno", "undone", 0, "me", True),
            ReplacementRecord(AT, "0", "0.A", "uno", "replaced", AT + 40, "me", True),
        ]
        runs = [(rows[:40], replaced[:3]), (rows[40:], replaced[3:]), (rows[:20],)]
        sink, expected = await self.stored([]), MemorySink()
        other = [numbered(n, sensor="1") for n in range(5)]
        await (await self.connected(gateway="third", journal="7f2cfe0c-0000-4000-8000-000000000001")).store(
            batch.encode(1, other), self.reject
        )
        for run in runs:
            expected.add(*run)
            await sink.store(expected.batches[-1], self.reject)
        self.assertEqual(await sink.replacements(), await expected.replacements())
        self.assertEqual([each.successor for each in await sink.replacements()], ["1", "0.A"])
        key = attrgetter("sensor", "field", "at")
        self.assertEqual(sorted(await sink.latest(), key=key), sorted(await expected.latest(), key=key))
        for field in (None, "TEMP", "NO"):
            for since in (None, AT + 17):
                for ranges in ((), (Range("0", field or "VALUE", 12.0, 47.0, False),)):
                    selection = Selection("0", field, since, ranges=ranges, joined=True)
                    for limit in (7, 1000):
                        found = await expected.history(selection, limit)
                        self.assertEqual(await sink.history(selection, limit), found, (selection, limit))
                        extent = await expected.extent(selection, limit)
                        self.assertEqual(await sink.extent(selection, limit), extent, (selection, limit))
                    self.assertEqual(await sink.page(selection, 5, 50, 9), await expected.page(selection, 5, 50, 9))
                    buckets = await expected.buckets(selection, 20, 1000)
                    self.assertEqual(await sink.buckets(selection, 20, 1000), buckets)
                    self.assertEqual(bool(buckets), field != "NO")
        self.assertTrue(await sink.states(Selection("0", "TEMP", joined=True), 9))

    async def test_requests(self) -> None:
        """
        Requests are returned newest first, of some sensors or of all; what is about no sensor is among all.
        """
        sink = await self.stored(self.rows(), requests=20)
        action = numbered_request(20, sensor=None, command="lend")
        await sink.store(batch.encode(111, [], [action]), self.reject)
        requests = [*(numbered_request(n, sensor=str(n % 2)) for n in range(20)), action]
        for sensors, numbers in [(None, range(21)), (["1"], range(1, 20, 2)), (["0", "1"], range(20)), (["5"], ())]:
            expected: list[Any] = [(91 + n, requests[n]) for n in reversed(numbers)]
            self.assertEqual(await sink.requests(sensors, 1000), expected)
            self.assertEqual(await sink.requests(sensors, 3), expected[:3])


@cache
def filled() -> str:
    """
    Store 100,000 readings of 40 sensors of two gateways, by turns, in a database for all tests of this process; there
    are no statistics. Return its name.
    """
    server = postgresql.server()
    url = server.create_database()
    for statement in creation(Schema()):
        server.query(url, statement)
    server.query(
        url,
        "alter table reading set (autovacuum_enabled = off);"
        " insert into reading select timestamptz 'epoch' + (1.7e9 + n) * interval '1 s',"
        " case n / 1000 % 2 when 0 then 'pi' else 'attic' end, n + n / 1000 % 2 * 1e9, 'd', (n % 40)::text,"
        " (array['VALUE', 'TEMP'])[n / 40 % 2 + 1], n, null, null, true from generate_series(1, 100000) as n;"
        " select brin_summarize_new_values('reading_by_number')",
    )
    return url.rpartition("/")[2]


class BlocksTests(PostgresTestCase):
    """
    However much is stored, and whether PostgreSQL has statistics of it or not, a question reads little of it.
    """

    def setUp(self) -> None:
        """
        Copy the filled database.
        """
        super().setUp()
        self.url = self.server().create_database(template=filled())

    def blocks(self, sql: str, parameters: Any = None, settings: str = "") -> tuple[int, set[str]]:
        """
        Run a query; return how many blocks it read, of 1,500, and the indexes of `reading` that it used.
        """

        def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
            yield plan
            for each in plan.get("Plans", []):
                yield from nodes(each)

        with closing(psycopg2.connect(self.url, options=SEARCH_PATH)) as connection, connection.cursor() as cursor:
            cursor.execute(settings + "; explain (analyze, buffers, format json) " + sql, parameters)
            (((explained,),),) = cursor.fetchall()
        plan = explained["Plan"]
        used = {node.get("Index Name", "") for node in nodes(plan)}
        return plan["Shared Hit Blocks"] + plan["Shared Read Blocks"], {n for n in used if n.startswith("reading_by")}

    def both(self) -> Iterator[str]:
        """
        Yield twice: first without statistics, then with them.
        """
        yield "without statistics"
        self.query("vacuum analyze reading")
        yield "with statistics"

    async def test_questions(self) -> None:
        """
        The daemon's questions read a bounded number of blocks, by the two indexes of a series.
        """
        hour = Selection("7", None, since=1_700_100_000_000 - 3_600_000)
        day = Selection("7", "VALUE", since=1_700_100_000_000 - 3_600_000, until=1_700_100_000_000)
        ranges = (Range("7", "VALUE", 100.0, inf, False),)  # all but the first three of it
        questions: list[queries.Query[Any]] = [
            queries.extent("pi", Selection("7"), None),
            queries.extent("pi", Selection("7", "VALUE"), 10),
            queries.extent("pi", hour, 10),
            queries.page("pi", Selection("7"), 50_000, 98_967, 100),
            queries.page("pi", Selection("7", "VALUE"), 50_000, 98_967, 100),
            queries.page("pi", day, 50_000, 98_967, 100),
            queries.buckets("pi", hour, 300_000, 1000),
            queries.states("pi", hour, 1000),
            queries.history("pi", Selection("7"), 100),
            queries.history("pi", Selection("7", "VALUE"), 100),
            queries.history("pi", Selection("7", "VALUE", hour.since), 100),
            queries.history("pi", Selection("7", ranges=ranges), 100),
            queries.history("pi", Selection("7", "VALUE", hour.since, ranges=ranges), 100),
            queries.extent("pi", Selection("7", ranges=ranges), None),
            queries.extent("pi", replace(hour, ranges=ranges), 10),
            queries.page("pi", Selection("7", "VALUE", ranges=ranges), 50_000, 98_967, 100),
            queries.buckets("pi", replace(hour, ranges=ranges), 300_000, 1000),
            queries.states("pi", replace(hour, ranges=ranges), 1000),
            queries.history("pi", replace(hour, joined=True), 100),
            queries.history("pi", Selection("7", "VALUE", joined=True), 100),
            queries.extent("pi", Selection("7", joined=True), None),
            queries.page("pi", Selection("7", joined=True), 50_000, 98_967, 100),
            queries.buckets("pi", replace(day, joined=True, ranges=ranges), 300_000, 1000),
            queries.history("pi", Selection("no", "VALUE", hour.since), 100),
        ]
        for state in self.both():
            for question in questions:
                blocks, used = self.blocks(question.sql, question.parameters, queries.SETTINGS)
                self.assertLess(blocks, 350, (state, question.sql))
                self.assertTrue(used <= {"reading_by_series", "reading_by_id"} and used, (state, used, question.sql))
            latest = restorequeries.latest("pi", 100)
            blocks, used = self.blocks(latest.sql, latest.parameters, queries.SETTINGS)
            self.assertLess(blocks, 5 * 160 + 10, state)  # there are 160 series, and replacements are looked for
            self.assertEqual(used, {"reading_by_series"})

    async def test_web_site(self) -> None:
        """
        Questions that a web site asks, in a session with PostgreSQL's own settings, use the index that is for them.
        """
        await self.connected()  # which makes the view
        hour = '"timestamp" >= to_timestamp(1700050000) and "timestamp" < to_timestamp(1700053600)'
        questions = [
            ("select value from measures where id = '7' order by \"timestamp\" desc limit 1", "id"),
            ("select value from measures where id = 'no' order by \"timestamp\" desc limit 1", "id"),
            (f"select \"timestamp\", value from measures where id = '7.TEMP' and {hour} order by 1", "id"),
            (f"select id, avg(value) from measures where id in ('7', '8', '9.TEMP') and {hour} group by id", "id"),
            (
                "select value from reading where series(gateway, sensor, field) = series('pi', '7', 'VALUE')"
                " order by seq desc limit 1",
                "series",
            ),
        ]
        for state in self.both():
            for sql, index in questions:
                blocks, used = self.blocks(sql)
                self.assertEqual(used, {f"reading_by_{index}"}, (state, sql))
                self.assertLess(blocks, 350, (state, sql))

    async def test_numbers(self) -> None:
        """
        The readings of a gateway with some numbers are found by number, also beside another gateway's.
        """
        self.query("vacuum analyze reading")
        for name, first, last in [("pi", 98_000, 98_999), ("attic", 1_000_001_000, 1_000_001_999)]:
            sql = f"select * from reading where gateway = '{name}' and seq between {first} and {last} order by seq"
            blocks, used = self.blocks(sql, None, "set enable_indexscan = off")  # PostgreSQL 18 may skip through series
            self.assertEqual(used, {"reading_by_number"})
            self.assertLess(blocks, 350, name)

    async def test_landed(self) -> None:
        """
        Stored readings are found by the series and the numbers of a batch.
        """
        rows = [numbered(n, sensor=str(n % 40)) for n in range(98_001, 99_000)]
        sql, parameters = select_stored(batch.encode(98_001, rows), Schema(), "pi", 0)
        for state in self.both():
            blocks, used = self.blocks(sql, parameters, queries.SETTINGS)
            self.assertEqual(used, {"reading_by_series"}, state)
            self.assertLess(blocks, 5 * len(rows), state)

    async def test_requests(self) -> None:
        """
        The newest requests are the end of an index.
        """
        self.query(
            "insert into request select now(), 'pi', n, 'o', 'c', 'd', '20', 'J', null, 'answered', 1, true"
            " from generate_series(1, 20000) as n"
        )
        question = queries.requests("pi", None, 10)
        for state in self.both():
            self.assertLess(self.blocks(question.sql, question.parameters, queries.SETTINGS)[0], 20, state)


class InsertTests(PostgresTestCase):
    """
    How a batch is inserted.
    """

    async def test_order(self) -> None:
        """
        The readings of one sensor follow each other, by number: they go to the same pages of the indexes.
        """
        sink = await self.connected()
        rows = [numbered(n, sensor=str(n % 40)) for n in range(200)]
        await sink.store(batch.encode(1, rows), self.reject)
        found = self.query("select sensor, value::int from reading order by ctid")
        groups = [list(group) for _, group in itertools.groupby(found, key=lambda row: row[0])]
        self.assertEqual(len(groups), 40)
        for group in groups:
            self.assertEqual(group, sorted(group))

    async def test_times(self) -> None:
        """
        Times are exact to the millisecond, whether they differ within a batch or not.
        """
        sink = await self.connected()
        times = [
            0,
            1,
            999,
            *range(1_790_000_000_000, 1_790_000_002_000, 7),
            *range(8_589_934_590_000, 8_589_934_592_000),
        ]
        rows = [numbered(n)._replace(at=at) for n, at in enumerate(times, 1)]
        await sink.store(batch.encode(1, rows), self.reject)
        for n, at in enumerate(times[::100], len(times) + 1):
            await sink.store(batch.encode(n, [numbered(n)._replace(at=at)]), self.reject)
        found = self.query("select extract(epoch from at) * 1000 from reading order by seq")
        self.assertEqual([float(at) for (at,) in found], times + times[::100])

    async def test_doubled(self) -> None:
        """
        A reading that is stored already is refused.
        """
        sink = await self.connected()
        await sink.store(batch.encode(1, [numbered(1)]), self.reject)
        with self.assertRaises(psycopg2.errors.UniqueViolation):
            self.query("insert into reading select * from reading")
