"""
Questions about what is stored, to a real PostgreSQL.
"""

from __future__ import annotations

from contextlib import closing
from math import floor
from statistics import fmean
from typing import Any

import psycopg2
from zope.interface.verify import verifyObject

from tests.support.database import AT, PostgresTestCase, reading, request
from usbgate.core import batch
from usbgate.core.model import Bucket, Reading, Selection, StoredReading
from usbgate.store.interfaces import IArchive
from usbgate.store.postgres import queries
from usbgate.store.postgres.sink import PostgresSink

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


def selected(rows: list[StoredReading], selection: Selection) -> list[StoredReading]:
    """
    Select as the database should.
    """
    return [
        each
        for each in rows
        if each.reading.sensor == selection.sensor
        and selection.field in (None, each.reading.field)
        and (selection.since is None or each.reading.at >= selection.since)
        and (selection.until is None or each.reading.at < selection.until)
    ]


class ArchiveTests(PostgresTestCase):
    """
    What was stored comes out again, by number.
    """

    async def stored(self, rows: list[Reading], requests: int = 0) -> PostgresSink:
        """
        Store readings, numbered from 1, and requests.
        """
        sink = await self.connected()
        await sink.store(batch.encode(1, rows, [request(n, sensor=str(n % 2)) for n in range(requests)]))
        other = await self.connected(gateway="other", journal="7f2cfe0c-0000-4000-8000-000000000000")
        await other.store(batch.encode(1, [reading(n, sensor="0") for n in range(100)], [request(0, sensor="0")]))
        return sink

    def rows(self) -> list[Reading]:
        """
        Make readings of two sensors, with three fields, one of which is a text; one is a step back in time.
        """
        rows = [reading(n, sensor=str(n % 2), field=("TEMP", "VALUE", "BAT")[n % 3]) for n in range(90)]
        rows = [row._replace(value=None, text="é 漢") if row.field == "BAT" else row for row in rows]
        rows[50] = rows[50]._replace(at=AT - 1000)
        return rows

    async def test_pages(self) -> None:
        """
        All that is meant comes page by page, by number, whole, and nothing else; of all of it or of the newest. Which
        are the newest is said by time where a time is asked for: with those come all that were read between them.
        """
        rows = self.rows()
        sink = await self.stored(rows)
        self.assertTrue(verifyObject(IArchive, sink))
        numbered = [StoredReading(n, row) for n, row in enumerate(rows, 1)]
        for selection in SELECTIONS:
            for limit in (None, 1, 7, 1000):
                meant = selected(numbered, selection)
                timed = selection.since is not None or selection.until is not None
                newest = sorted(meant, key=lambda each: (each.reading.at if timed else 0, each.seq))[-(limit or 0) :]
                numbers = [each.seq for each in newest]
                expected = [each for each in meant if min(numbers) <= each.seq <= max(numbers)]
                extent = await sink.extent(selection, limit)
                self.assertEqual(extent, (expected[0].seq, expected[-1].seq) if expected else None, (selection, limit))
                if extent is None:
                    continue
                found: list[StoredReading] = []
                while page := await sink.page(selection, found[-1].seq + 1 if found else extent[0], extent[1], 4):
                    self.assertLessEqual(len(page), 4)
                    found += page
                self.assertEqual(found, expected, (selection, limit))

    async def test_buckets(self) -> None:
        """
        Numbers are summed up by intervals that begin at multiples of their width; texts are left out.
        """
        rows = [
            reading(sensor="0", field=("TEMP", "VALUE")[n % 2], at=AT + n * 7_000, value=n * n / 8) for n in range(100)
        ]
        rows += [reading(sensor="0", field="TEMP", value=None, text="broken"), reading(sensor="0.TEMP", value=99.0)]
        sink = await self.stored(rows)
        for selection in [
            Selection("0"),
            Selection("0", "TEMP"),
            Selection("0", "VALUE", since=AT + 20_000, until=AT + 500_000),
            Selection("0", "NO"),
        ]:
            for width in (MINUTE, 90_500):
                expected = self.sums(rows, selection, width)
                found = await sink.buckets(selection, width, 1000)
                self.assertEqual([each._replace(avg=0.0) for each in found], [e._replace(avg=0.0) for e in expected])
                for each, same in zip(found, expected, strict=True):
                    self.assertAlmostEqual(each.avg, same.avg)
                newest = await sink.buckets(selection, width, 3)
                self.assertEqual([each.at for each in newest], [each.at for each in expected[-3:]])

    def sums(self, rows: list[Reading], selection: Selection, width: int) -> list[Bucket]:
        """
        Sum up as the database should.
        """
        found: dict[tuple[int, str], list[float]] = {}
        for _, row in selected([StoredReading(0, row) for row in rows], selection):
            if row.value is not None:
                found.setdefault((floor(row.at / width) * width, row.field), []).append(row.value)
        return [Bucket(*key, min(of), fmean(of), max(of), len(of)) for key, of in sorted(found.items())]

    async def test_requests(self) -> None:
        """
        Requests come newest first, of one sensor or of all.
        """
        sink = await self.stored(self.rows(), requests=20)
        for sensor, numbers in [(None, range(20)), ("1", range(1, 20, 2)), ("5", ())]:
            expected: list[Any] = [(91 + n, request(n, sensor=str(n % 2))) for n in reversed(numbers)]
            self.assertEqual(await sink.requests(sensor, 1000), expected)
            self.assertEqual(await sink.requests(sensor, 3), expected[:3])

    async def test_plans(self) -> None:
        """
        However much is stored, a page, an extent and the sums of a short time read little of it.
        """
        await self.connected()
        self.query(
            "insert into reading select timestamptz 'epoch' + (1.7e9 + n) * interval '1 s', 'pi', n, 'd',"
            " (n % 40)::text, 'VALUE', n, null, null, true from generate_series(1, 100000) as n"
        )
        self.query("vacuum analyze reading")
        hour = Selection("7", None, since=1_700_100_000_000 - 3_600_000)
        questions: list[queries.Question[Any]] = [
            queries.extent("pi", Selection("7"), None),
            queries.extent("pi", Selection("7", "VALUE"), 10),
            queries.page("pi", Selection("7"), 50_000, 99_967, 100),
            queries.page("pi", Selection("7", "VALUE"), 50_000, 99_967, 100),
            queries.buckets("pi", hour, 300_000, 1000),
            queries.requests("pi", None, 10),
        ]
        for question in questions:
            connection = psycopg2.connect(self.url)
            with closing(connection), connection.cursor() as cursor:
                cursor.execute("explain (analyze, buffers, format json) " + question.sql, question.parameters)
                (((explained,),),) = cursor.fetchall()
            plan = explained["Plan"]
            self.assertLess(plan["Shared Hit Blocks"] + plan["Shared Read Blocks"], 250, plan)  # of 1,000
