"""
A sink on a real PostgreSQL, and numbered rows for it.
"""

from __future__ import annotations

import select
import uuid
from collections.abc import Collection, Sequence
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import deferLater
from twisted.trial.unittest import SkipTest, TestCase
from zope.interface import implementer

from tests.support import postgresql
from usbgate.core import batch
from usbgate.core.model import Reading, RequestRecord
from usbgate.store.interfaces import IChain, Identity, Refusal, SinkUnavailable
from usbgate.store.postgres.sink import Limits, PostgresSink
from usbgate.testing import AT, readings, request_record


def numbered(number: int = 0, **other: Any) -> Reading:
    """
    Make a reading whose value is its number, with other columns, which may be wrong.
    """
    (plain,) = readings(number, 1)
    return plain._replace(**other)


def numbered_request(number: int = 0, **other: Any) -> RequestRecord:
    """
    Make the record of a request, each number a millisecond later.
    """
    return request_record(at=AT + number)._replace(**other)


def batch_of(first: int, count: int) -> batch.Batch:
    """
    Make a batch of readings whose values are their numbers.
    """
    return batch.encode(first, readings(first, count))


@implementer(IChain)
class AnyJournal:
    """
    A journal that has any position in its history, and no rows.

    Attributes:
        found: The positions that were looked for.
    """

    def __init__(self, journal: str) -> None:
        self.identity = Identity(journal, None, batch.START, 0)
        self.found: list[batch.Mark] = []

    def find(self, mark: batch.Mark) -> Deferred[bool]:
        self.found.append(mark)
        self.identity = self.identity._replace(done=mark, sent=mark.n)
        return succeed(True)

    def waiting(self, after: int) -> Deferred[batch.Batch | None]:
        return succeed(None)

    def discard(self, numbers: Collection[int]) -> Deferred[None]:
        return succeed(None)

    def begin(self, journal: str, base: int) -> Deferred[None]:
        self.identity = self.identity._replace(journal=journal, base=base)
        return succeed(None)


class PostgresTestCase(TestCase):
    """
    An empty database for each test; subclasses choose the server.
    """

    @classmethod
    def server(cls) -> postgresql.Server:
        """
        Return the server to test with.
        """
        return postgresql.server()

    def setUp(self) -> None:
        """
        Make the database.
        """
        self.url = self.server().create_database()
        self.journal = str(uuid.uuid4())
        self.journals: dict[str, AnyJournal] = {}
        self.rejected: list[Refusal] = []

    def reject(self, rows: Sequence[Refusal]) -> Deferred[None]:
        """
        Record rows that are rejected.
        """
        self.rejected += rows
        return succeed(None)

    def own_server(self) -> postgresql.OwnServer:
        """
        Return the server if it may be frozen and stopped; else skip the test.
        """
        server = self.server()
        if not isinstance(server, postgresql.OwnServer):
            raise SkipTest("this server is not ours to stop")
        return server

    def sink(
        self,
        url: str = "",
        gateway: str = "pi",
        journal: str = "",
        limits: Limits = Limits(),  # noqa: B008  # immutable
        schema: str = "usbgate",
        measures: tuple[str, str] | None = ("public", "measures"),
    ) -> PostgresSink:
        """
        Create a sink; it is closed at the end of the test.
        """
        url, journal = url or self.url, journal or self.journal
        known = self.journals.setdefault(journal, AnyJournal(journal))
        sink = PostgresSink(reactor, lambda: succeed(url), gateway, known, limits, schema, measures)
        self.addCleanup(sink.close)
        return sink

    async def connected(self, **how: Any) -> PostgresSink:
        """
        Create a connected sink.
        """
        sink = self.sink(**how)
        await sink.connect()
        return sink

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        """
        Query the database directly.
        """
        return self.server().query(self.url, sql)

    def sessions(self) -> str:
        """
        Return the SQL that selects the sink's sessions.
        """
        return f"from pg_stat_activity where application_name = 'usbgate {self.journal}'"

    def is_thrown_out(self, connection: Any) -> bool:
        """
        Return whether the server has closed this connection, without sending anything.
        """
        return bool(select.select([connection], [], [], 0)[0])

    async def unavailable(self, call: Deferred[Any]) -> str:
        """
        Return the message of a call that must fail with SinkUnavailable: one line, without the password.
        """
        failure = await self.failing(call, SinkUnavailable)
        self.assertNotIn("\n", failure)
        self.assertNotIn("sesame", failure)
        return failure

    async def failing(self, call: Deferred[Any], kind: type[Exception]) -> str:
        """
        Return the message of a call that must fail with this exception.
        """
        error: Exception = await self.assertFailure(call, kind)
        self.assertTrue(str(error))
        return str(error)

    async def connect_in_time(self, sink: PostgresSink) -> None:
        """
        Connect, and retry for up to 20 s.
        """
        for _ in range(400):
            try:
                await sink.connect()
                return
            except SinkUnavailable:
                await deferLater(reactor, 0.05)
        await sink.connect()
