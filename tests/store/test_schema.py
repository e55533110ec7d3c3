"""
Where the tables lie in a database that belongs to others, too (protocol §5).
"""

from __future__ import annotations

import itertools
import re
import uuid
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg2
from twisted.internet.defer import Deferred
from twisted.logger import capturedLogs, formatEvent

from tests.support.database import PostgresTestCase, batch_of
from tests.support.waiting import until
from usbgate.core.batch import KINDS
from usbgate.core.model import Selection
from usbgate.store.postgres.names import Schema
from usbgate.store.postgres.sink import PostgresSink

_numbers = itertools.count(1)


class SchemaTests(PostgresTestCase):
    """
    Sinks whose database has nothing in its `search_path`.
    """

    def setUp(self) -> None:
        """
        Record the log.
        """
        super().setUp()
        self._events = self.enterContext(capturedLogs())
        self._seen = 0

    def log(self) -> list[str]:
        """
        Return what was logged about the view since the last call.
        """
        lines = list(map(formatEvent, self._events))
        new, self._seen = lines[self._seen :], len(lines)
        return [line for line in new if "the view" in line]

    async def stores(self, **how: Any) -> PostgresSink:
        """
        Store two readings, and read them back.
        """
        sink = await self.connected(journal=str(uuid.uuid4()), **how)
        await sink.store(batch_of(1, 2), self.reject)
        self.assertEqual([reading.value for reading in await sink.history(Selection("20"), 5)], [1.0, 2.0])
        return sink

    def places(self) -> set[tuple[str, str]]:
        """
        Return schema and name of everything in the database that is not PostgreSQL's own.
        """
        return set(
            self.query(
                "select nspname, relname from pg_class join pg_namespace on pg_namespace.oid = relnamespace "
                "where relkind in ('r', 'v', 'S') and nspname !~ '^pg_' and nspname <> 'information_schema' union "
                "select nspname, proname from pg_proc join pg_namespace on pg_namespace.oid = pronamespace "
                "where nspname !~ '^pg_' and nspname <> 'information_schema'"
            )
        )

    def role(self, *rights: str) -> str:
        """
        Create a role with rights on the database; return the URL for it.
        """
        name = f"Usbgate test {uuid.uuid4().hex[:8]} {next(_numbers)}"
        self.query(f"create role \"{name}\" login password 'sesame'")
        for right in rights:
            self.query(right.format(role=f'"{name}"', database=self.url.rpartition("/")[2]))
        self.role_name = name
        return self.server().url_of(self.url.rpartition("/")[2], user=name.replace(" ", "%20"), password="sesame")

    async def test_everything_has_a_place(self) -> None:
        """
        All tables, views and functions lie in the schema; outside of it there is only the view for web sites.
        """
        await self.stores()
        names = [
            *[kind.table for kind in KINDS],
            "gateway",
            "usbgate_schema",
            "alarm",
            "replacement",
            "advance",
            "series",
        ]
        self.assertEqual(self.places(), {("public", "measures")} | {("usbgate", name) for name in names})
        self.assertEqual(self.query("select id, value from public.measures order by value"), [("20", 1.0), ("20", 2.0)])

    async def test_comments(self) -> None:
        """
        Every table, view, column and function says in the database what it is.
        """
        await self.stores(schema="Home", measures=("public", "Measures"))
        ours = "(nspname = 'Home' or nspname = 'public')"
        described = self.query(
            "select relname, attname, col_description(pg_class.oid, attnum) from pg_class "
            "join pg_namespace on pg_namespace.oid = relnamespace join pg_attribute on attrelid = pg_class.oid "
            f"where relkind in ('r', 'v') and {ours} and attnum > 0 union "
            "select relname, '', obj_description(pg_class.oid, 'pg_class') from pg_class "
            f"join pg_namespace on pg_namespace.oid = relnamespace where relkind in ('r', 'v') and {ours} union "
            "select proname, '', obj_description(pg_proc.oid, 'pg_proc') from pg_proc "
            f"join pg_namespace on pg_namespace.oid = pronamespace where {ours}"
        )
        self.assertIn(("reading", "seq", "Its number: the order in which rows of this gateway arrived"), described)
        self.assertIn(("Measures", "value", "The number"), described)
        self.assertEqual([row for row in described if not row[2] or '"' in row[2]], [])

    async def test_search_path_of_others(self) -> None:
        """
        What others find first, or instead, makes no difference: neither to usbgate nor to who reads the view.
        """
        name = self.url.rpartition("/")[2]
        self.query(
            "create schema evil; create table evil.reading (x text); create table evil.gateway (x text); "
            "create function evil.series(text, text, text) returns bigint immutable language sql as 'select 1'; "
            "create function evil.hashtextextended(text, bigint) returns bigint immutable language sql as 'select 1'; "
            f"alter database {name} set search_path = evil, pg_catalog"
        )
        await self.stores()
        read = self.server().query(
            self.server().url_of(name), "set search_path = evil; select count(*) from public.measures"
        )
        self.assertEqual(read, [(2,)])
        self.assertEqual(
            self.query("select count(distinct usbgate.series('pi', n::text, '')) from generate_series(1, 9) n"), [(9,)]
        )

    async def test_odd_names(self) -> None:
        """
        A schema and a view may have any name that the configuration allows; each schema has tables of its own.
        """
        names = ["public", "HOME", "home", "select", "a b-'\\{0}", "Élan", "usbgate"]
        for name in names:
            sink = await self.stores(schema=name, measures=(name, "My 'measures'"))
            self.assertEqual(
                self.query(f"""select count(*) from {Schema(name).quoted}."My 'measures'" """), [(2,)], name
            )
            await sink.close()
        self.assertEqual(self.log(), [])

    async def test_name_of_the_view_is_taken(self) -> None:
        """
        Anything else under the view's name stays as it is; that is logged once, with what to do about it.
        """
        for taken, what in (
            ("create table public.measures (id text)", "a table that is not usbgate's"),
            ("create view public.measures as select 1 as id", "a view that is not usbgate's"),
            ("create materialized view public.measures as select 1 as id", "a view that is not usbgate's"),
            ("create sequence public.measures", "a sequence that is not usbgate's"),
            ("create type public.measures as enum ('a')", '"measures" already exists'),
            ("drop schema public cascade", 'schema "public" does not exist'),
        ):
            self.url = self.server().create_database()
            self.query(taken)
            before = {place for place in self.places() if place[0] == "public"}
            sink = await self.stores()
            writer = "from pg_stat_activity where datname = current_database() and application_name like 'usbgate %'"
            lost: Deferred[str] = Deferred()
            sink.lost = lost.callback
            self.query(f"select pg_terminate_backend(pid) {writer}")
            await lost
            await sink.connect()
            (line,) = self.log()
            self.assertIn("the view public.measures is left out: ", line)
            self.assertIn(what, line)
            self.assertIn('measures = "SCHEMA.NAME", or "none"', line)
            self.assertEqual({place for place in self.places() if place[0] == "public"}, before)

    async def test_view_that_was_there(self) -> None:
        """
        A view of our readings under this name is kept, whatever it shows, and needs no words.
        """
        await (await self.stores()).close()
        self.query(
            "create or replace view public.measures as "
            'select sensor as id, at as "timestamp", value from usbgate.reading where value > 1'
        )
        await self.stores(gateway="attic")
        self.assertEqual(self.query("select count(*) from public.measures"), [(2,)])
        self.assertEqual(self.log(), [])

    async def test_view_at_the_same_moment(self) -> None:
        """
        Of two daemons that create the view at the same moment, neither fails.
        """
        await (await self.stores(measures=None)).close()
        with closing(psycopg2.connect(self.url)) as other:
            with other.cursor() as cursor:
                cursor.execute("create view public.measures as select sensor as id, at, value from usbgate.reading")
            connecting = self.sink(gateway="attic", journal=str(uuid.uuid4())).connect()
            waits = "select 1 from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'"
            await until(lambda: bool(self.query(waits)))
            other.commit()
        await connecting
        self.assertEqual(self.log(), [])

    async def test_no_view(self) -> None:
        """
        Without a place there is no view.
        """
        await self.stores(measures=None)
        self.assertNotIn("measures", {name for _, name in self.places()})
        self.assertEqual(self.log(), [])

    async def test_two_gateways(self) -> None:
        """
        Two gateways of different names share the tables of one schema; in two schemas they may even have one name.
        """
        await self.stores()
        await self.stores(gateway="attic")
        self.assertEqual(self.log(), [])
        await self.stores(schema="Second")
        self.assertEqual(self.query("select name from gateway order by 1"), [("attic",), ("pi",)])
        self.assertEqual(self.query('select name from "Second".gateway'), [("pi",)])
        (line,) = self.log()
        self.assertIn("the view public.measures is left out: a view that is not usbgate's has this name", line)

    async def test_no_right_to_create_a_schema(self) -> None:
        """
        A role that may not create the schema learns what the owner of the database must run, which then suffices.
        """
        sink = self.sink(url=self.role())
        message = await self.unavailable(sink.connect())
        self.assertIn("may not create the schema usbgate in the database", message)
        statement = message.rpartition("run: ")[2]
        self.assertEqual(statement, f'create schema "usbgate" authorization "{self.role_name}"')
        self.query(statement)
        await sink.connect()
        await sink.store(batch_of(1, 2), self.reject)
        (line,) = self.log()  # nor may it create the view
        self.assertIn("the view public.measures is left out: permission denied for schema public", line)

    async def test_no_right_to_use_the_schema(self) -> None:
        """
        A role that may not use a schema, or the tables of another role there, learns which rights it needs.
        """
        self.query("create schema usbgate")
        for tables in (False, True):
            if tables:
                await self.stores(gateway="attic")
            sink = self.sink(url=self.role())
            message = await self.unavailable(sink.connect())
            self.assertIn("permission denied for schema usbgate; as its owner, run: ", message)
            self.query(message.rpartition("run: ")[2])
            if not tables:
                self.query(f'drop owned by "{self.role_name}"')
                continue
            await sink.connect()
            await sink.store(batch_of(1, 2), self.reject)

    async def test_schema_of_something_else(self) -> None:
        """
        A schema that has a table, a view or a function of the same name as ours is not used; nothing in it changes.
        """
        for taken in (
            "create table reading (a int)",
            "create view alarm as select 1 as a",
            "create function advance(text, uuid, bigint, bigint, text, bigint, text) returns void language sql as ''",
            "create type request as enum ('a')",
        ):
            self.url = self.server().create_database()
            self.query("create schema usbgate; " + taken)
            before = self.places()
            message = await self.unavailable(self.sink().connect())
            self.assertIn("the schema usbgate holds something else: ", message)
            self.assertIn("choose another name: schema = …", message)
            self.assertEqual(self.places(), before)
            await self.stores(schema="Free")

    async def test_documentation(self) -> None:
        """
        Every statement of the documentation names the schema: it runs with nothing in the search path.
        """
        await self.stores()
        blocks = [
            block
            for page in ("README.md", "docs/operating.md", "docs/protocol.md")
            for block in re.findall(r"(?s)```sql\n(.*?)```", Path(__file__).parents[2].joinpath(page).read_text())
        ]
        self.assertGreater(len(blocks), 4)
        for block in blocks:
            self.query(f"begin; set local search_path = nowhere; {block}; rollback")
