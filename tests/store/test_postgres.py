"""
PostgresSink with real servers: each row is stored exactly once, whatever the server does.
"""

from __future__ import annotations

import itertools
import os
import re
import socket
import uuid
from collections.abc import Callable, Sequence
from contextlib import closing
from typing import Any

import psycopg2
from psycopg2.extensions import make_dsn, parse_dsn
from twisted.internet import reactor
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, fail, gatherResults, succeed
from twisted.internet.interfaces import (
    IAddress,
    IHostnameResolver,
    IHostResolution,
    IReactorPluggableNameResolver,
    IResolutionReceiver,
)
from twisted.internet.task import Clock, LoopingCall, deferLater
from twisted.trial.unittest import SkipTest
from zope.interface import implementer
from zope.interface.verify import verifyObject

from tests.support import postgresql
from tests.support.database import AnyJournal, PostgresTestCase, batch_of, numbered, numbered_request
from tests.support.waiting import until
from usbgate.core import batch
from usbgate.core.model import Alarm, AlarmRecord, ClockMark, OwnerRecord, Range, Selection, StoredAlarm
from usbgate.store.interfaces import ISink, IStore, SinkUnavailable
from usbgate.store.postgres import position, queries
from usbgate.store.postgres import session as pgsession
from usbgate.store.postgres import sink as postgres
from usbgate.store.postgres.names import Schema
from usbgate.store.postgres.position import Position
from usbgate.store.postgres.session import DatabaseSession
from usbgate.store.postgres.sink import Limits, PostgresSink
from usbgate.testing import AT

# Short, for tests that wait until they are over.
SHORT = Limits(connect=1.0, store=1.0, read=1.0)


@implementer(IHostnameResolver)
class OneName:
    """
    A name service that knows one name.
    """

    def __init__(self, name: str, address: str) -> None:
        self._name = name
        self._address = address

    def resolveHostName(
        self,
        resolutionReceiver: IResolutionReceiver,
        hostName: str,
        portNumber: int = 0,
        addressTypes: Sequence[type[IAddress]] | None = None,
        transportSemantics: str = "TCP",
    ) -> IHostResolution:
        """
        Resolve it to the address if it is that name.
        """
        resolution = HostResolution(hostName)
        resolutionReceiver.resolutionBegan(resolution)
        if hostName == self._name:
            resolutionReceiver.addressResolved(IPv4Address("TCP", self._address, portNumber))
        resolutionReceiver.resolutionComplete()
        return resolution


@implementer(IHostResolution)
class HostResolution:
    """
    The resolution of one name; there is nothing to cancel.
    """

    def __init__(self, name: str) -> None:
        self.name = name

    def cancel(self) -> None:
        """
        Do nothing: it is complete.
        """


class AlarmsTests(PostgresTestCase):
    """
    Alarms and their events.
    """

    async def test_open(self) -> None:
        """
        Alarms of this gateway that are active or not acknowledged are returned with their present state, oldest first.
        """
        sink = await self.connected()
        self.assertEqual(await sink.alarms(), [])

        def record(at: int, alarm: str, event: str, who: str | None = None, value: float | None = 61.5) -> AlarmRecord:
            return AlarmRecord(AT + at, alarm, "uno", "20", alarm.upper(), event, "> 60", value, None, who, True)

        rows = [
            *[record(at, alarm, "raised") for at, alarm in enumerate(["a", "b", "c", "d", "e", "f"])],
            record(10, "a", "ended", value=20.0),
            record(11, "b", "acknowledged", "Anna"),
            record(12, "c", "ended"),
            record(13, "c", "acknowledged", "Anna"),
            record(14, "d", "ended"),
            record(15, "d", "raised", value=99.0),
            record(16, "e", "joined"),
            record(17, "f", "acknowledged", "Bob"),
            record(18, "f", "acknowledged", "Carl"),
        ]
        await sink.store(batch.encode(1, rows), self.reject)
        columns = "alarm, device, sensor, field, event, condition, value, text, who, clock"
        at = "(extract(epoch from at) * 1000)::bigint"
        self.assertEqual(
            self.query(f"select {at}, {columns} from alarm_event order by seq"), [tuple(row) for row in rows]
        )

        def alarm(name: str, at: int, **others: Any) -> Alarm:
            return Alarm(name, "uno", "20", name.upper(), "> 60", 61.5, None, AT + at, **others)

        self.assertEqual(
            await sink.alarms(),
            [
                alarm("a", 0, ended=AT + 10),
                alarm("b", 1, acknowledged=AT + 11, by="Anna"),
                alarm("d", 3),
                alarm("f", 5, acknowledged=AT + 17, by="Bob"),
            ],
        )
        past = await sink.past_alarms(None, None, None, 9)
        self.assertEqual([each.alarm.alarm for each in past], ["f", "d", "c", "b", "a"])
        self.assertEqual(past[1:3], [
            StoredAlarm(alarm("d", 3), None, ((AT + 15, None), (AT + 3, AT + 14))),
            StoredAlarm(alarm("c", 2, ended=AT + 12, acknowledged=AT + 13, by="Anna"), None, ((AT + 2, AT + 12),)),
        ])  # fmt: skip
        self.query("update alarm_event set gateway = 'other'")
        self.assertEqual(await sink.alarms(), [])

    async def test_past(self) -> None:
        """
        Past alarms are selected by sensor and time, each with the number furthest beyond its condition while it held.
        """
        sink = await self.connected()

        def record(at: int, alarm: str, event: str, condition: str) -> AlarmRecord:
            sensor, field = alarm[0], alarm[1:]
            return AlarmRecord(AT + at, alarm, "uno", sensor, field, event, condition, 5.0, None, None, True)

        conditions = {"1HIGH": "> 4", "1LOW": "<= 7", "2HIGH": "> 4"}
        readings = [
            numbered(n, device=device, sensor="1", field=field, value=value, at=AT + at)
            for n, (device, field, at, value) in enumerate([
                *[("uno", "HIGH", 0, 5.0), ("uno", "HIGH", 4, 9.0), ("uno", "HIGH", 11, 10.0)],
                *[("mega", "HIGH", 4, 99.0), ("uno", "LOW", 4, 1.5), ("uno", "LOW", 5, 6.5)],
            ])
        ]  # fmt: skip
        records = [record(0, alarm, "raised", condition) for alarm, condition in conditions.items()]
        ends = [record(10, alarm, "ended", condition) for alarm, condition in conditions.items() if alarm != "2HIGH"]
        await sink.store(batch.encode(1, readings, [*records, *ends]), self.reject)

        async def found(*selection: Any) -> list[tuple[str, float | None]]:
            return [(each.alarm.alarm, each.peak) for each in await sink.past_alarms(*selection)]

        self.assertEqual(await found(None, None, None, 9), [("2HIGH", None), ("1LOW", 1.5), ("1HIGH", 9.0)])
        self.assertEqual(await found("1", None, None, 9), [("1LOW", 1.5), ("1HIGH", 9.0)])
        self.assertEqual(await found(None, AT + 10, None, 1), [("2HIGH", None)])
        self.assertEqual(await found(None, AT + 11, AT + 1, 9), [("2HIGH", None)])
        self.assertEqual(await found(None, None, AT, 9), [])
        ranges = [Range("1", "HIGH", 0.0, 8.0, False), Range("1", "LOW", 0.0, 9.0, True)]
        self.assertEqual(await found("1", None, None, 9, ranges), [("1LOW", 6.5), ("1HIGH", 5.0)])

    async def test_owners(self) -> None:
        """
        A sensor belongs to the device to which it was passed last, else to the one that claimed it first.
        """
        sink = await self.connected()
        self.assertEqual(await sink.owners(), {})
        events = [
            *[("1", "a", "claimed"), ("1", "b", "claimed"), ("2", "a", "claimed"), ("2", "b", "passed")],
            *[("2", "c", "passed"), ("2", "a", "claimed"), ("3", "c", "passed")],
        ]
        rows = [OwnerRecord(AT, *event, True) for event in events]
        await sink.store(batch.encode(1, rows), self.reject)
        self.assertEqual(await sink.owners(), {"1": "a", "2": "c", "3": "c"})
        self.query("update owner_event set gateway = 'other'")
        self.assertEqual(await sink.owners(), {})


class StoringTests(PostgresTestCase):
    """
    Rows are stored once, unchanged.
    """

    async def test_columns(self) -> None:
        """
        Every column of all tables has the given value, or null if there is none.
        """
        sink = await self.connected()
        self.assertTrue(verifyObject(ISink, sink))
        self.assertTrue(verifyObject(IStore, sink))
        rows = [
            numbered(0, command="J", clock=False),
            numbered(1, value=None, text='it\'s \\n \\001 "x" %s é 漢 🌡 \u2028'),
            numbered(2, value=28.123456789012345678, text="28.123456789012345678"),
            *[numbered(3, value=value) for value in (1e308, -5e-324, 0.1, -0.0, 1e22)],
        ]
        asked = [
            numbered_request(0),
            numbered_request(
                1, origin="L'été \\ 漢", device=None, arguments="LEVEL:50_X:a b", outcome="timeout", latency_ms=0.0
            )._replace(clock=False),
        ]
        marks = [ClockMark(AT, 12345.678901234, "a1b2", True), ClockMark(-5, 0.1, "", False)]
        await sink.store(batch.encode(1, marks, rows, asked), self.reject)
        self.assertEqual(
            self.query(
                "select (extract(epoch from at) * 1000)::bigint, device, sensor, field, value, text, command, clock "
                "from reading order by seq"
            ),
            [tuple(row) for row in rows],
        )
        self.assertEqual(
            self.query(
                "select (extract(epoch from at) * 1000)::bigint, origin, client, device, sensor, command, arguments, "
                "outcome, latency_ms, clock from request order by seq"
            ),
            [tuple(row) for row in asked],
        )
        self.assertEqual(
            self.query(
                "select (extract(epoch from at) * 1000)::bigint, uptime, boot, clock from clock_mark order by seq"
            ),
            [tuple(mark) for mark in marks],
        )
        self.assertEqual(
            self.query("select distinct gateway from reading union select gateway from request"), [("pi",)]
        )
        self.assertEqual(
            self.query(
                "select seq from clock_mark union select seq from reading union select seq from request order by 1"
            ),
            [(number,) for number in range(1, 13)],
        )
        self.assertEqual(await sink.history(Selection("20"), 100), rows)

    async def test_empty_texts(self) -> None:
        """
        An empty text in a batch of one row stays empty, and null stays null.
        """
        sink = await self.connected()
        row = numbered(value=None, text="", command="")
        await sink.store(batch.encode(1, [row], [numbered_request(origin="", arguments="")]), self.reject)
        await sink.store(batch.encode(3, [], [numbered_request(5)]), self.reject)
        self.assertEqual(await sink.latest(), [row])
        self.assertEqual(
            self.query("select seq, origin, arguments, device from request order by seq"),
            [(2, "", "", "leonardo"), (3, "TOTO", None, "leonardo")],
        )

    async def refused(self, storing: Deferred[None]) -> list[int]:
        """
        Return the numbers of the rows of a batch that were rejected.
        """
        self.rejected.clear()
        await storing
        return [refusal.row.first for refusal in self.rejected]

    async def test_refused(self) -> None:
        """
        Rows with invalid data are rejected one by one, with the reason; the others of the batch are stored.
        """
        sink = await self.connected()
        self.query("alter table reading add constraint warm check (value < 1000)")
        invalid = (
            numbered(value=2000.0),  # 23514, by the constraint
            numbered(at=10**19),  # 22008
            numbered(device=None),  # 23502
            numbered(text="a\0b"),  # never sent
            numbered(text="\ud800"),  # no UTF-8
        )
        for number, bad in enumerate(invalid):
            first = 4 * number + 1
            rows = batch.encode(first, [numbered(), bad, numbered()], [numbered_request()])
            self.assertEqual(await self.refused(sink.store(rows, self.reject)), [first + 1])
            self.assertTrue(self.rejected[0].reason)
        all_bad = batch.encode(21, [bad._replace(device="") for bad in invalid[:2]])
        self.assertEqual(await self.refused(sink.store(all_bad, self.reject)), [21, 22])
        await sink.store(batch_of(23, 1), self.reject)
        self.assertEqual(
            self.query("select seq from reading union select seq from request order by 1"),
            [(number,) for number in range(1, 24) if number % 4 != 2 and number != 21],
        )
        self.assertEqual(self.query("select n from gateway"), [(23,)])

    async def test_refused_before_committed(self) -> None:
        """
        Nothing of a batch is stored before its refused rows are rejected, nor if that fails.
        """
        sink = await self.connected()
        rows = batch.encode(1, [numbered(), numbered(device=None)], [numbered_request()])

        def fail_to_reject(refusals: object) -> Deferred[None]:
            self.assertEqual(self.query("select seq from reading union select seq from request"), [])
            return fail(SinkUnavailable("the journal is full"))

        self.assertEqual(await self.unavailable(sink.store(rows, fail_to_reject)), "the journal is full")
        self.assertEqual(self.query("select seq from reading union select seq from request"), [])
        await sink.connect()
        self.assertEqual(await self.refused(sink.store(rows, self.reject)), [2])
        self.assertEqual(self.query("select seq from reading union all select seq from request"), [(1,), (3,)])

    async def test_deferred_constraint(self) -> None:
        """
        A row that violates a constraint which is checked at the commit is rejected alone.
        """
        sink = await self.connected()
        self.query("create table site (sensor text primary key); insert into site values ('20')")
        self.query(
            "alter table reading add constraint known foreign key (sensor) references site"
            " deferrable initially deferred"
        )
        rows = batch.encode(1, [numbered(1), numbered(2, sensor="9"), numbered(3)])
        self.assertEqual(await self.refused(sink.store(rows, self.reject)), [2])
        self.assertEqual(self.query("select seq from reading order by 1"), [(1,), (3,)])

    async def test_index_of_the_site(self) -> None:
        """
        A row that violates another unique index is refused, not silently dropped.
        """
        sink = await self.connected()
        self.query("create unique index site on reading (sensor, field, at)")
        rows = [numbered(1), numbered(1, value=2.0), numbered(3)]
        self.assertEqual(await self.refused(sink.store(batch.encode(1, rows, []), self.reject)), [2])
        self.assertIn("site", self.rejected[0].reason)
        self.assertEqual(self.query("select seq, value from reading order by seq"), [(1, 1.0), (3, 3.0)])

    async def test_encoding(self) -> None:
        """
        A text that the database's encoding can't represent is refused; any other is stored unchanged.
        """
        self.url = self.server().create_database(encoding="LATIN1")
        sink = await self.connected()
        await sink.store(batch.encode(1, [numbered(value=None, text="été")], []), self.reject)
        storing = sink.store(batch.encode(2, [numbered(value=None, text="漢")], []), self.reject)
        self.assertEqual(await self.refused(storing), [2])
        self.assertEqual([row.text for row in await sink.latest()], ["été"])

    async def test_dropped_table(self) -> None:
        """
        A missing table is the server's condition: no row is refused, and storing works when the table is back.
        """
        sink = await self.connected()
        self.query("alter table reading rename to away")
        self.assertIn("reading", await self.unavailable(sink.store(batch_of(1, 2), self.reject)))
        self.query("alter table away rename to reading")
        await sink.connect()
        await sink.store(batch_of(1, 2), self.reject)
        self.assertEqual(self.query("select count(*) from reading"), [(2,)])

    async def test_read_only(self) -> None:
        """
        A read-only database refuses no rows.
        """
        await (await self.connected()).close()
        name = self.url.rsplit("/", 1)[1]
        self.query(f"alter database {name} set default_transaction_read_only = on")
        sink = self.sink()
        self.assertIn("read-only", await self.unavailable(sink.connect()))


class ContactTests(PostgresTestCase):
    """
    Names, numbers, the schema, and failing connections.
    """

    async def test_base(self) -> None:
        """
        A second journal of the same gateway continues after the first one's numbers; so does the first, if it comes
        back, as a new journal.
        """
        first = await self.connected()
        await first.store(batch.encode(5, [numbered(5)], [numbered_request(6), numbered_request(7)]), self.reject)
        await first.close()
        second = await self.connected(journal=str(uuid.uuid4()))
        await second.store(batch_of(1, 2), self.reject)
        await second.close()
        self.journals[self.journal].identity = self.journals[self.journal].identity._replace(
            done=batch.Mark(7, ""), sent=7
        )
        again = await self.connected()
        await again.store(batch_of(8, 1), self.reject)
        await again.close()
        elsewhere = await self.connected(gateway="attic", journal=str(uuid.uuid4()))
        await elsewhere.store(batch_of(1, 1), self.reject)
        self.assertEqual(
            self.query("select gateway, seq, value from reading order by 1, 2, 3"),
            [("attic", 1, 1.0), ("pi", 5, 5.0), ("pi", 8, 1.0), ("pi", 9, 2.0), ("pi", 10, 8.0)],
        )
        self.assertEqual(
            self.query("select name, base, n, begun <= now() from gateway order by begun"),
            [("pi", 2, 8, True), ("attic", 0, 1, True)],
        )
        self.assertNotEqual(self.journals[self.journal].identity.journal, self.journal)

    async def test_more_than_31_bits(self) -> None:
        """
        Numbers in the database may exceed 31 bits where those of the journal and what is added to them do not.
        """
        first = await self.connected()
        await first.store(batch_of(1_500_000_000, 1), self.reject)
        await first.close()
        second = await self.connected(journal=str(uuid.uuid4()))
        await second.store(batch_of(700_000_000, 2), self.reject)
        self.assertEqual(self.rejected, [])
        self.assertEqual(
            self.query("select seq from reading order by 1"), [(1_500_000_000,), (2_200_000_000,), (2_200_000_001,)]
        )

    async def test_base_of_readings(self) -> None:
        """
        A gateway that the table of gateways does not have continues after its readings.
        """
        await self.connected(gateway="attic", journal=str(uuid.uuid4()))
        self.query(
            "insert into reading values (now(), 'pi', 7, 'd', '20', 'VALUE', 1, null, null, true),"
            " (now(), 'pi', 5, 'd', '21', 'VALUE', 1, null, null, true),"
            " (now(), 'cellar', 9, 'd', '20', 'VALUE', 1, null, null, true)"
        )
        await self.connected()
        self.assertEqual(self.query("select base from gateway where name = 'pi'"), [(7,)])

    async def test_name_taken(self) -> None:
        """
        A second daemon with the same name gets an error, and the name when the first one is gone.
        """
        first = await self.connected()
        second = self.sink(journal=str(uuid.uuid4()))
        self.assertIn("another usbgate holds the name pi", await self.unavailable(second.connect()))
        await self.connected(gateway="attic")
        await first.close()
        await self.connect_in_time(second)
        ((journal,),) = self.query("select journal::text from gateway where name = 'pi'")
        self.assertNotEqual(journal, self.journal)

    async def test_taken_from_each_other(self) -> None:
        """
        Behind a pooler that keeps no session, the lock keeps nobody out. Of two daemons with one name, that which loses
        it says so, stores nothing, and leaves it to the other for a while, longer each time.
        """
        keys = itertools.count()
        self.patch(postgres, "lock_key", lambda text: next(keys))
        clock = Clock()
        self.patch(position, "YIELD_MOST", 70.0)
        names = [str(uuid.uuid4()) for _ in range(2)]
        first, second = [Position(Schema(), "pi", AnyJournal(name), clock.seconds, 30.0) for name in names]
        await self.connected(gateway="nobody")
        session = DatabaseSession(reactor)
        self.addCleanup(session.abandon)
        await session.open(self.url, "usbgate test", 10, 10)

        async def advance(at: Position, n: int) -> None:
            sql, parameters = at.advance(batch.Mark(n, "c"))
            await session.run(sql, parameters, 10)
            at.advanced(batch.Mark(n, "c"))

        await first.resume(session, 10)
        await advance(first, 1)
        await second.resume(session, 10)
        await advance(second, 2)
        for wait in (30.0, 60.0, 70.0):
            with self.assertRaises(psycopg2.Error) as caught:
                await advance(first, 3)
            self.assertEqual(caught.exception.pgcode, position.CONFLICT)
            self.assertIn("another usbgate has stored under the name pi", str(first.conflict()))
            clock.advance(wait - 1)
            message = await self.unavailable(Deferred.fromCoroutine(first.resume(session, 10)))
            self.assertIn("another usbgate stores under the name pi", message)
            clock.advance(1)
            await first.resume(session, 10)
            await advance(first, 4)
            await second.resume(session, 10)
        clock.advance(position.YIELD_FORGOTTEN + 1)
        first.conflict()
        clock.advance(30)
        await first.resume(session, 10)

    async def test_own_session(self) -> None:
        """
        An old session of the same journal is waited for, up to the limit.
        """
        first = await self.connected()
        hasty = self.sink(limits=Limits(own_session=0.0))
        self.assertIn("old session", await self.unavailable(hasty.connect()))
        second = self.sink()
        connecting = second.connect()
        sessions = f"select 1 {self.sessions()}"
        await until(lambda: len(self.query(sessions)) == 2)
        self.assertNoResult(connecting)
        await first.close()
        await connecting
        await second.store(batch_of(1, 1), self.reject)

    async def test_close_while_waiting(self) -> None:
        """
        `close` fails a pending `connect` at once, and all later calls.
        """
        await self.connected()
        second = self.sink()
        connecting = second.connect()
        sessions = f"select 1 {self.sessions()}"
        await until(lambda: len(self.query(sessions)) == 2)
        storing = second.store(batch_of(1, 1), self.reject)
        second.close()
        await self.unavailable(connecting)
        await self.unavailable(storing)
        await self.unavailable(second.connect())
        await self.unavailable(second.latest())

    async def test_migrations(self) -> None:
        """
        Daemons that connect first at the same moment create one schema; that of a newer usbgate is left unchanged.
        """
        sinks = [self.sink(gateway=f"pi{number}", journal=str(uuid.uuid4())) for number in range(5)]
        for connecting in [sink.connect() for sink in sinks]:
            await connecting
        self.assertEqual(self.query("select version from usbgate_schema"), [(1,)])
        self.query("insert into usbgate_schema values (9999)")
        self.assertIn("newer usbgate", await self.unavailable(self.sink().connect()))

    async def test_cannot_connect(self) -> None:
        """
        The reason why a connection fails is one line, without the password.
        """
        server = self.server()
        for url, words in (
            (server.url_of("nowhere"), "nowhere"),
            (server.url_of("postgres", password="wrong"), "password"),
            (server.url_of("postgres", port="1"), "refused"),
            (server.url_of("postgres", host="no-such-host.invalid"), "has no known address"),
            (server.url_of("postgres", host="no..name"), "host no..name is not the name of a host"),
            ("postgresql://x:sesame@127.0.0.1:99999999/x", "port"),
            ("colour=blue", "colour"),
            # libpq goes from one to the next, and the reactor must forget each socket.
            (make_dsn(server.url, target_session_attrs="standby", host="127.0.0.1,127.0.0.1"), "standby"),
        ):
            sink = self.sink(url)
            self.assertIn(words, await self.unavailable(sink.connect()))
            self.assertIn("was lost", await self.unavailable(sink.store(batch_of(1, 1), self.reject)))
            self.assertIn("not ready", await self.unavailable(sink.history(Selection("20"), 1)))

    async def test_explained(self) -> None:
        """
        What to do about an error of the database is added to it, whether rows are stored or read.
        """
        sink = PostgresSink(
            reactor,
            lambda: succeed(self.url),
            "pi",
            AnyJournal(self.journal),
            explain=lambda reason: f"{reason}: move the table back",
        )
        self.addCleanup(sink.close)
        await sink.connect()
        self.query("alter table reading rename to away")
        for call in (sink.store(batch_of(1, 1), self.reject), sink.history(Selection("20"), 1)):
            message = await self.unavailable(call)
            self.assertIn('relation "usbgate.reading" does not exist: move the table back', message)

    async def test_not_ready(self) -> None:
        """
        Nothing is read before the tables exist; after that, reading works even if the writer's session is gone.
        """
        sink = self.sink()
        connecting = sink.connect()
        for reading_back in (sink.latest(), sink.history(Selection("20"), 1)):
            self.assertEqual(await self.unavailable(reading_back), "the database is not ready yet")
        await connecting
        self.assertEqual(await sink.latest(), [])
        watched = len(reactor.getReaders())
        self.query(f"select pg_terminate_backend(pid) {self.sessions()}")
        await until(lambda: len(reactor.getReaders()) == watched - 2)
        self.assertEqual(await sink.latest(), [])

    async def test_one_connection(self) -> None:
        """
        With a role limited to one connection, storing works and queries fail with the reason.
        """
        name = self.url.rsplit("/", 1)[1]
        self.query(f"create role {name} login password 'x' connection limit 1")
        self.query(f"grant create on database {name} to {name}")
        sink = await self.connected(url=self.server().url_of(name, user=name, password="x"))
        await self.failing(sink.latest(), SinkUnavailable)
        await sink.store(batch_of(1, 1), self.reject)
        self.assertEqual(self.query("select count(*) from reading"), [(1,)])
        await sink.close()
        await until(lambda: not self.query(f"select 1 {self.sessions()}"))
        self.query(f"drop owned by {name} cascade; drop role {name}")

    async def test_host_name(self) -> None:
        """
        Host names are resolved by the reactor, and of several hosts one that answers is used.
        """
        options = parse_dsn(self.url)
        if options["host"] != "127.0.0.1":
            raise SkipTest("the server is elsewhere")
        port = options["port"]
        names = IReactorPluggableNameResolver(reactor)
        before = names.installNameResolver(OneName("database.example", "127.0.0.1"))
        self.addCleanup(names.installNameResolver, before)
        for hosts, ports in (("database.example", port), ("127.0.0.1,database.example", f"1,{port}")):
            sink = self.sink(make_dsn(self.url, host=hosts, port=ports))
            await sink.connect()
            await sink.close()
            await until(lambda: not self.query(f"select 1 {self.sessions()}"))

    async def test_url_known_later(self) -> None:
        """
        The connection string is requested at each attempt; if it is not available, that is `SinkUnavailable`.
        """
        urls: list[str] = []

        async def where() -> str:
            if not urls:
                raise SinkUnavailable("the database is starting")
            return urls.pop()

        sink = PostgresSink(reactor, where, "pi", AnyJournal(self.journal))
        self.addCleanup(sink.close)
        self.assertIn("starting", await self.unavailable(sink.connect()))
        urls.append(self.url)
        await sink.connect()
        await sink.store(batch_of(1, 1), self.reject)
        self.assertIn("starting", await self.unavailable(sink.latest()))
        urls.append(self.url)
        self.assertEqual(await sink.latest(), [numbered(1)])

    async def test_unix_socket(self) -> None:
        """
        A Unix socket can be used.
        """
        sink = self.sink(make_dsn(self.url, host=self.own_server().socket_folder))
        await sink.connect()
        await sink.store(batch_of(1, 1), self.reject)
        self.assertEqual(await sink.latest(), [numbered(1)])


class FaultTests(PostgresTestCase):
    """
    A server that goes away, hangs, or ends our session.
    """

    async def test_terminated(self) -> None:
        """
        A session terminated in the middle of a batch is `SinkUnavailable`; terminated while idle, `lost` is called.
        """
        sink = await self.connected()
        lost: list[str] = []
        sink.lost = lost.append
        ours = self.sessions()
        self.query(
            "create function wait() returns trigger language plpgsql as 'begin perform pg_sleep(100); return new; end'"
        )
        self.query("create trigger slow before insert on reading for each row execute function wait()")
        storing = sink.store(batch_of(1, 3), self.reject)
        await until(lambda: bool(self.query(f"select 1 {ours} and wait_event = 'PgSleep'")))
        self.query(f"select pg_terminate_backend(pid) {ours}")
        self.assertIn("terminating", await self.unavailable(storing))
        self.query("drop trigger slow on reading")
        await sink.connect()
        await sink.store(batch_of(1, 3), self.reject)
        self.assertEqual(lost, [])
        self.assertEqual(await sink.latest(), [numbered(3)])
        watched = len(reactor.getReaders())
        self.query(f"select pg_terminate_backend(pid) {ours}")
        await until(lambda: len(reactor.getReaders()) == watched - 2)
        (reason,) = lost  # of the writer's session, not of the reader's, which nobody misses
        self.assertIn("closed the connection", reason)
        await sink.connect()
        await sink.store(batch_of(4, 3), self.reject)
        self.assertEqual(self.query("select count(*) from reading"), [(6,)])
        self.assertEqual(len(lost), 1)
        await sink.close()
        await until(lambda: not self.query(f"select 1 {ours}"))
        self.assertEqual(len(lost), 1)

    async def test_lost_unnoticed(self) -> None:
        """
        A statement over a connection that has ended, which the reactor has not seen yet, fails as any other. Nothing of
        the connection stays in the reactor, which would not watch what gets the descriptor next.
        """
        session = DatabaseSession(reactor)
        await session.open(make_dsn(self.url, host=self.own_server().socket_folder), "usbgate test", 5.0, 5.0)
        with socket.socket(fileno=os.dup(session.fileno())) as same:
            same.shutdown(socket.SHUT_RDWR)
        # So long that libpq sends its beginning before it has all, and finds out in that call that nobody reads it.
        await self.failing(session.run(f"select '{'x' * 10_000}'", None, 5.0), psycopg2.OperationalError)
        session.abandon()
        self.assertNotIn(session, [*reactor.getReaders(), *reactor.getWriters()])

    async def test_idle_limit_of_the_server(self) -> None:
        """
        A server that ends idle sessions does not end ours, which holds the gateway's name.
        """
        ((version,),) = self.query("show server_version_num")
        if int(version) < 140000:
            raise SkipTest("this server has no such limit")
        self.query(f"alter database {self.url.rsplit('/', 1)[1]} set idle_session_timeout = '50ms'")
        sink = await self.connected()
        lost: list[str] = []
        sink.lost = lost.append
        with closing(psycopg2.connect(self.url, options=postgresql.SEARCH_PATH)) as other:
            self.assertEqual(await sink.latest(), [])
            await until(lambda: self.is_thrown_out(other))
        self.assertEqual(lost, [])

    async def test_close_in_the_middle(self) -> None:
        """
        `close` during a statement fails it at once, and a history query too.
        """
        sink = await self.connected()
        await sink.store(batch_of(1, 1), self.reject)
        await sink.latest()
        self.query(
            "create function wait() returns trigger language plpgsql as 'begin perform pg_sleep(100); return new; end'"
        )
        self.query("create trigger slow before insert on reading for each row execute function wait()")
        storing = sink.store(batch_of(2, 1), self.reject)
        await until(lambda: bool(self.query("select 1 from pg_stat_activity where wait_event = 'PgSleep'")))
        fetching = sink.latest()
        self.assertIsNone(self.successResultOf(sink.close()))
        self.failureResultOf(storing, SinkUnavailable)
        self.failureResultOf(fetching, SinkUnavailable)

    async def test_restart(self) -> None:
        """
        A server that is down is `SinkUnavailable`; when it is back, the sink works.
        """
        server = self.own_server()
        sink = await self.connected()
        await sink.store(batch_of(1, 1), self.reject)
        await sink.latest()
        server.stop()
        try:
            await self.unavailable(sink.store(batch_of(2, 1), self.reject))  # perhaps with the server's last words
            self.assertIn("refused", await self.unavailable(sink.connect()))
            await self.unavailable(sink.latest())
        finally:
            server.start()
        await sink.connect()
        await sink.store(batch_of(2, 1), self.reject)
        self.assertEqual(await sink.latest(), [numbered(2)])


class FrozenTests(PostgresTestCase):
    """
    A server that hangs, of whatever version.
    """

    async def test_frozen(self) -> None:
        """
        Calls to a server that hangs fail within their limits, the reactor is never blocked, and all works afterwards.
        """
        server = self.own_server()
        sink = await self.connected(limits=SHORT)
        reader_uuid = str(uuid.uuid4())
        reader = await self.connected(gateway="reader", journal=reader_uuid, limits=SHORT)
        reader_journal = self.journals[reader_uuid]
        await reader.store(batch_of(1, 1), self.reject)
        await reader.latest()
        big = batch.encode(1, [numbered(n, value=None, text="x" * 1000) for n in range(20_000)], [])
        stranger = self.sink(gateway="stranger", limits=SHORT)
        beats = 0

        def beat() -> None:
            nonlocal beats
            beats += 1

        with server.frozen():
            at_once: list[Callable[[], Deferred[Any]]] = [
                lambda: sink.store(big, self.reject),  # more than a socket holds: it can't even be sent
                lambda: reader.store(batch_of(2, 1), self.reject),
                reader.latest,
                stranger.connect,
            ]
            for calls in (at_once, [sink.connect]):
                beating = deferLater(reactor, 0.5, beat)
                failing = [Deferred.fromCoroutine(self.unavailable(call())) for call in calls]
                for error in await gatherResults(failing):
                    self.assertIn("did not answer within 1 s", error)
                await beating
        self.assertEqual(beats, 2)
        # What was sent before it hung may have been stored since.
        await self.connect_in_time(reader)
        if reader_journal.found[-1].n < 2:
            await reader.store(batch_of(2, 1), self.reject)
        self.assertEqual(await reader.latest(), [numbered(2)])
        await sink.close()
        again = await self.connected()
        if self.journals[self.journal].found[-1].n < big.last:
            await again.store(big, self.reject)
        self.assertEqual(
            self.query("select gateway, count(*) from reading group by 1 order by 1"), [("pi", 20_000), ("reader", 2)]
        )


class ReadingTests(PostgresTestCase):
    """
    Stored rows are read, by number.
    """

    async def test_latest(self) -> None:
        """
        The newest reading of each field of each sensor of this gateway, by number, whatever the clock was.
        """
        other = await self.connected(gateway="attic", journal=str(uuid.uuid4()))
        await other.store(batch.encode(1, [numbered(9, sensor="99")], []), self.reject)
        sink = await self.connected()
        self.assertEqual(await sink.latest(), [])
        rows = [
            numbered(0, sensor="7", field="TEMP"),
            numbered(3_600_000),
            numbered(1, sensor="28:FF", field="HUM"),
            numbered(2),  # the clock was stepped back an hour
            numbered(3, sensor="7", field="HUM"),
            numbered(4, sensor="7", field="HUM", value=None, text="wet"),
        ]
        await sink.store(batch.encode(1, rows, [numbered_request()]), self.reject)
        self.assertEqual(await sink.latest(), [rows[0], rows[2], rows[3], rows[5]])

    async def test_history(self) -> None:
        """
        The newest readings of one sensor, newest last; of one field or all, and since a time.
        """
        sink = await self.connected()
        rows = [numbered(n, sensor=str(n % 2), field=("TEMP", "HUM", "BAT")[n % 3]) for n in range(60)]
        rows[50] = rows[50]._replace(at=AT - 1000)  # a step back: its place is by number
        await sink.store(batch.encode(1, rows, []), self.reject)
        mine = [row for row in rows if row.sensor == "0"]
        since = AT + 30
        for field, start, limit in (
            (None, None, 100), (None, None, 4), ("TEMP", None, 100), ("HUM", None, 3), (None, since, 100),
            ("BAT", since, 100), ("BAT", since, 2), ("NO", None, 5), (None, 10**18, 5), (None, -(10**18), 3),
        ):  # fmt: skip
            expected = [row for row in mine if field in (None, row.field) and (start is None or row.at >= start)][
                -limit:
            ]
            self.assertEqual(await sink.history(Selection("0", field, start), limit), expected, (field, start, limit))
        self.assertEqual(await sink.history(Selection("5"), 5), [])

    async def test_many_rows(self) -> None:
        """
        At most `HISTORY_LIMIT` rows are read, complete and in order.
        """
        sink = await self.connected()
        await sink.store(batch_of(1, 12_000), self.reject)
        expected = [numbered(n) for n in range(12_001 - postgres.HISTORY_LIMIT, 12_001)]
        self.assertEqual(await sink.history(Selection("20"), 50_000), expected)

    async def test_slices(self) -> None:
        """
        Only a slice of many rows is converted per reactor turn.
        """
        session = DatabaseSession(reactor)
        self.addCleanup(session.abandon)
        await session.open(self.url, "usbgate slices", 10, 10)
        made = [0]
        turns = LoopingCall(lambda: made.append(0))
        turned = turns.start(0)

        def make(row: tuple[Any, ...]) -> Any:
            made[-1] += 1
            return row[0]

        count = 10 * pgsession.SLICE + 1
        numbers = await session.fetch("select generate_series(1, %(count)s)", {"count": count}, 10, make)
        turns.stop()
        await turned
        self.assertEqual(numbers, list(range(1, count + 1)))
        self.assertEqual(max(made), pgsession.SLICE)

    async def test_side_by_side(self) -> None:
        """
        A waiting query delays no batch, and an idle reading connection is closed.
        """
        sink = await self.connected(limits=Limits(idle=0.05))
        await sink.store(batch_of(1, 1), self.reject)
        sessions = f"select 1 {self.sessions()}"
        self.assertEqual(len(self.query(sessions)), 1)
        fetching = [sink.latest() for _ in range(3)]
        await sink.store(batch_of(2, 1), self.reject)
        for fetched in fetching:
            self.assertEqual(len(await fetched), 1)
        await until(lambda: len(self.query(sessions)) == 1)
        self.assertEqual(await sink.latest(), [numbered(2)])

    async def test_measures(self) -> None:
        """
        The web site's view has numbers only, by the sensor's id or SENSOR.FIELD.
        """
        sink = await self.connected()
        rows = [numbered(1), numbered(2, field="TEMP"), numbered(3, value=None, text="x"), numbered(4, text="4.0")]
        await sink.store(batch.encode(1, rows, []), self.reject)
        self.assertEqual(
            self.query(
                f'select id, extract(epoch from "timestamp")::float8 * 1000 - {AT}, value from measures order by value'
            ),
            [("20", 1.0, 1.0), ("20.TEMP", 2.0, 2.0), ("20", 4.0, 4.0)],
        )


class PlanTests(PostgresTestCase):
    """
    With many rows, every query uses an index.
    """

    def setUp(self) -> None:
        """
        Fill a database with 60,000 rows of two gateways, 20 sensors and 3 fields, and record the plans of its queries.
        """
        super().setUp()
        self.plans: list[str] = []

    async def filled(self) -> PostgresSink:
        """
        Create a sink that also explains every query.
        """
        sink = await self.connected()
        self.query(
            "insert into reading select timestamptz 'epoch' + (1700000000000 + n * 1000.0) * interval '1 ms', "
            "case when n % 10 = 0 then 'attic' else 'pi' end, n, 'ttyACM0', (n % 20)::text, "
            "(array['VALUE', 'TEMP', 'HUM'])[n % 3 + 1], n, null, null, true from generate_series(1, 60000) as n"
        )
        self.query("vacuum analyze reading")
        original = DatabaseSession.fetch

        async def explained(session: DatabaseSession, sql: str, parameters: Any, limit: float, make: Any) -> list[Any]:
            other = psycopg2.connect(self.url, options=postgresql.SEARCH_PATH)
            with closing(other), other.cursor() as cursor:
                cursor.execute(f"{queries.SETTINGS}; explain (analyze, costs off) {sql}", parameters)
                self.plans.append("\n".join(line for (line,) in cursor.fetchall()))
            return await original(session, sql, parameters, limit, make)

        self.patch(DatabaseSession, "fetch", explained)
        return sink

    def by_index(self, plan: str, name: str) -> None:
        """
        Check that a plan reads the table by this index only, and few rows in each step.
        """
        self.assertIn(name, plan)
        for other in ("Seq Scan on reading", "reading_by_number"):
            self.assertNotIn(other, plan)
        for rows in re.findall(r"Scan.* on reading.*actual.* rows=(\d+)", plan):
            self.assertLessEqual(int(rows), 100, plan)

    async def test_plans(self) -> None:
        """
        `latest`, each form of `history`, and both kinds of id of the web site's view use an index.
        """
        sink = await self.filled()
        newest = await sink.latest()
        self.assertEqual(len(newest), 60 - 6)  # every tenth row, and so two of the 20 sensors, is the other gateway's
        newest_at = newest[-1].at
        await sink.history(Selection("1"), 100)
        await sink.history(Selection("1", "HUM"), 100)
        await sink.history(Selection("1", None, newest_at - 3_600_000), 100)
        await sink.history(Selection("1", "TEMP", newest_at - 3_600_000), 100)  # fewer than that
        await sink.history(Selection("1", "TEMP", newest_at - 3_600_000), 10)
        self.assertEqual(len(self.plans), 6)
        for plan in self.plans:
            self.by_index(plan, "reading_by_series")
        for sensor_id in ("7", "7.TEMP"):
            rows = self.query(f"explain select * from measures where id = '{sensor_id}'")
            self.assertIn("reading_by_id", str(rows))
            self.assertNotIn("Seq Scan", str(rows))
            rows = self.query(
                f"explain (analyze, costs off) select * from measures where id = '{sensor_id}' "
                'order by "timestamp" desc limit 1'
            )
            plan = "\n".join(line for (line,) in rows)
            self.by_index(plan, "reading_by_id")
            self.assertNotIn("Sort", plan)


class OnInstalledServer(PostgresTestCase):
    """
    The same tests with this machine's own PostgreSQL.
    """

    @classmethod
    def server(cls) -> postgresql.Server:
        """
        The server to test with.
        """
        server = postgresql.installed()
        if server is None:
            raise SkipTest("this machine has no PostgreSQL of its own")
        return server


class InstalledStoringTests(OnInstalledServer, StoringTests):
    """
    Storing, with this machine's own PostgreSQL.
    """


class InstalledContactTests(OnInstalledServer, ContactTests):
    """
    Names, numbers and the schema, with this machine's own PostgreSQL.
    """


class InstalledFaultTests(OnInstalledServer, FaultTests):
    """
    Faults, with this machine's own PostgreSQL.
    """


class InstalledReadingTests(OnInstalledServer, ReadingTests):
    """
    Reading, with this machine's own PostgreSQL.
    """


class InstalledPlanTests(OnInstalledServer, PlanTests):
    """
    Plans, with this machine's own PostgreSQL.
    """
