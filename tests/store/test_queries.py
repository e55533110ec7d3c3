"""
Queries of stored rows, with a real PostgreSQL.
"""

from __future__ import annotations

from contextlib import closing
from typing import Any

import psycopg2
from zope.interface.verify import verifyObject

from tests.support.database import PostgresTestCase, numbered, numbered_request
from tests.support.postgresql import SEARCH_PATH
from usbgate.core import batch
from usbgate.core.model import Reading, Selection, StoredReading, StoredState
from usbgate.store.interfaces import IStore
from usbgate.store.postgres import queries
from usbgate.store.postgres.sink import PostgresSink
from usbgate.testing import AT, MemorySink

MINUTE = 60_000

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

    async def test_requests(self) -> None:
        """
        Requests are returned newest first, of one sensor or of all.
        """
        sink = await self.stored(self.rows(), requests=20)
        for sensor, numbers in [(None, range(20)), ("1", range(1, 20, 2)), ("5", ())]:
            expected: list[Any] = [(91 + n, numbered_request(n, sensor=str(n % 2))) for n in reversed(numbers)]
            self.assertEqual(await sink.requests(sensor, 1000), expected)
            self.assertEqual(await sink.requests(sensor, 3), expected[:3])

    async def test_plans(self) -> None:
        """
        However much is stored, a page, an extent and the buckets of a short time read little of it.
        """
        await self.connected()
        self.query(
            "insert into reading select timestamptz 'epoch' + (1.7e9 + n) * interval '1 s', 'pi', n, 'd',"
            " (n % 40)::text, 'VALUE', n, null, null, true from generate_series(1, 100000) as n"
        )
        self.query("vacuum analyze reading")
        hour = Selection("7", None, since=1_700_100_000_000 - 3_600_000)
        questions: list[queries.Query[Any]] = [
            queries.extent("pi", Selection("7"), None),
            queries.extent("pi", Selection("7", "VALUE"), 10),
            queries.page("pi", Selection("7"), 50_000, 99_967, 100),
            queries.page("pi", Selection("7", "VALUE"), 50_000, 99_967, 100),
            queries.buckets("pi", hour, 300_000, 1000),
            queries.states("pi", hour, 1000),
            queries.requests("pi", None, 10),
        ]
        for question in questions:
            connection = psycopg2.connect(self.url, options=SEARCH_PATH)
            with closing(connection), connection.cursor() as cursor:
                cursor.execute("explain (analyze, buffers, format json) " + question.sql, question.parameters)
                (((explained,),),) = cursor.fetchall()
            plan = explained["Plan"]
            self.assertLess(plan["Shared Hit Blocks"] + plan["Shared Read Blocks"], 250, plan)  # of 1,000
