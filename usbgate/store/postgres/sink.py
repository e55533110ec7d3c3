"""
Readings and requests in PostgreSQL (protocol §5).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, NamedTuple, TypeVar

import psycopg2
from psycopg2.errors import InsufficientPrivilege
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import deferLater
from zope.interface import implementer

from usbgate.core.batch import Batch, halve
from usbgate.core.model import (
    Alarm,
    Bucket,
    Range,
    Reading,
    Selection,
    StoredAlarm,
    StoredReading,
    StoredRequest,
    StoredState,
)
from usbgate.core.replacements import Replacement
from usbgate.store.interfaces import IChain, ISink, IStore, Refusal, Reject, SinkUnavailable
from usbgate.store.postgres import alarmqueries, queries, restorequeries
from usbgate.store.postgres.insert import insert
from usbgate.store.postgres.measures import Measures
from usbgate.store.postgres.migrations import lacks_rights, lock_key, migrate
from usbgate.store.postgres.names import DEFAULT_SCHEMA, Schema
from usbgate.store.postgres.position import CONFLICT, YIELD_FIRST, Position
from usbgate.store.postgres.session import DatabaseSession, refusal
from usbgate.store.postgres.shared_session import SharedSession

T = TypeVar("T")

# The session that holds the name lock; sessions of other roles are not visible.
_HOLDERS = """
    select coalesce(application_name, '') from pg_locks join pg_stat_activity using (pid)
    where locktype = 'advisory' and granted and objsubid = 1 and classid = %s and objid = %s
        and database = (select oid from pg_database where datname = current_database())
"""

# Settings of the writing session. A batch is sorted (see `insert`): 10,000 rows of 400 bytes exceed the usual 4 MB.
_SETTINGS = "select set_config('application_name', %s, false), set_config('work_mem', '16MB', false)"

LATEST_LIMIT = 50_000  # rows; 10,000 sensors are remembered (protocol §3), with some fields each
OWNERS_LIMIT = 100_000  # rows; the sensors of ten devices
HISTORY_LIMIT = 10_000  # rows; they stay in memory until they are sent, 0.4 kB each


class Limits(NamedTuple):
    """
    Timeouts, in seconds.
    """

    connect: float = 10.0  # also for each statement that prepares a new connection
    store: float = 30.0  # 10,000 rows take 0.05 s on an idle machine
    read: float = 10.0  # interactive; also the limit on waiting for the session
    migrate: float = 600.0  # a new index on a hundred million rows
    idle: float = 60.0  # until the idle reading connection is closed
    own_session: float = 60.0  # after a power cut, keep-alives end our old session within 40 s
    conflict: float = YIELD_FIRST  # for which the name is left to another daemon that took it


@implementer(ISink, IStore)
class PostgresSink:
    """
    Stores batches over one connection and queries over another, so that no query delays storing.
    """

    def __init__(
        self,
        reactor: Any,
        url: Callable[[], Awaitable[str]],
        gateway: str,
        journal: IChain,
        limits: Limits = Limits(),  # noqa: B008  # immutable
        schema: str = DEFAULT_SCHEMA,
        measures: tuple[str, str] | None = None,
        explain: Callable[[str], str] = str,
    ) -> None:
        """
        Create a sink; it connects on first use.

        Args:
            reactor: IReactorTime, IReactorFDSet and IReactorPluggableNameResolver.
            url: Returns the connection string, called at each connection attempt: a URL or libpq's `key=value`
                form; may fail with `SinkUnavailable`.
            gateway: The gateway's name in the database; unique per daemon.
            journal: The journal whose batches are stored; its file must be open when `url` has fired.
            limits: Timeouts.
            schema: The schema of the tables.
            measures: Schema and name of the view `measures`; None for no view.
            explain: Returns a message of the database, perhaps with what to do about it.
        """
        self.lost: Callable[[str], None] = lambda reason: None
        self._reactor = reactor
        self._url = url
        self._gateway = gateway
        self._journal = journal
        self._limits = limits
        self._schema = Schema(schema)
        self._measures = Measures(self._schema, measures)
        self._position = Position(self._schema, gateway, journal, reactor.seconds, limits.conflict)
        self._ready = False  # the schema has been set up
        self._writing = SharedSession(
            reactor, self._open_writer, lost=lambda reason: self.lost(reason), explain=explain
        )
        self._reading = SharedSession(
            reactor, self._open_reader, turn_limit=limits.read, idle_limit=limits.idle, explain=explain
        )

    def connect(self) -> Deferred[None]:

        async def nothing(session: DatabaseSession) -> None:
            pass

        return self._writing.call(nothing)

    def store(self, batch: Batch, reject: Reject) -> Deferred[None]:

        async def store(session: DatabaseSession) -> None:
            try:
                try:
                    await self._run(session, self._position.advance(batch.mark), self._insert(batch))
                except (psycopg2.Error, ValueError) as error:
                    if refusal(error) is None:
                        raise
                    await self._store_accepted(session, batch, reject)
            except psycopg2.Error as error:
                if error.pgcode == CONFLICT:
                    raise self._position.conflict() from error
                raise
            self._position.advanced(batch.mark)

        if not self._writing.is_open:  # the next connection may find that some of these rows are stored
            return fail(SinkUnavailable("the connection to the database was lost"))
        return self._writing.call(store)

    def close(self) -> Deferred[None]:
        self._writing.close()
        self._reading.close()
        return succeed(None)

    async def _store_accepted(self, session: DatabaseSession, batch: Batch, reject: Reject) -> None:
        # In one transaction: a batch with refused rows is halved until each of them is alone.
        refused: list[Refusal] = []
        waiting = deque([batch])
        begin = "begin; set constraints all immediate"
        await self._run(session, (begin, []), self._position.advance(batch.mark), ("savepoint part", []))
        while waiting:
            part = waiting.popleft()
            try:
                await self._run(session, self._insert(part), ("release savepoint part; savepoint part", []))
            except (psycopg2.Error, ValueError) as error:
                reason = refusal(error)
                if reason is None:
                    raise
                await self._run(session, ("rollback to savepoint part", []))
                if part.rows > 1:
                    waiting.extendleft(reversed(halve(part)))
                else:
                    refused.append(Refusal(part, reason))
        if refused:
            await reject(refused)
        await self._run(session, ("commit", []))

    def _insert(self, batch: Batch) -> tuple[str, list[object]]:
        return insert(batch, self._schema, self._gateway, self._position.base)

    async def _run(self, session: DatabaseSession, *statements: tuple[str, list[object]]) -> None:
        sql = "; ".join(statement for statement, _ in statements)
        await session.run(sql, [each for _, parameters in statements for each in parameters], self._limits.store)

    def latest(self) -> Deferred[list[Reading]]:
        return self._rows(restorequeries.latest(self._gateway, LATEST_LIMIT)).addCallback(_reversed)

    def alarms(self) -> Deferred[list[Alarm]]:
        return self._rows(alarmqueries.alarms(self._gateway))

    def owners(self) -> Deferred[dict[str, str]]:
        return self._rows(restorequeries.owners(self._gateway, OWNERS_LIMIT)).addCallback(dict)

    def replacements(self) -> Deferred[list[Replacement]]:
        return self._rows(restorequeries.replacements(self._gateway))

    def history(self, selection: Selection, limit: int) -> Deferred[list[Reading]]:
        query = queries.history(self._gateway, selection, min(limit, HISTORY_LIMIT))
        return self._rows(query).addCallback(_reversed)

    def extent(self, selection: Selection, limit: int | None) -> Deferred[tuple[int, int] | None]:
        def found(rows: list[tuple[int | None, int | None]]) -> tuple[int, int] | None:
            ((first, last),) = rows
            return None if first is None or last is None else (first, last)

        return self._rows(queries.extent(self._gateway, selection, limit)).addCallback(found)

    def page(self, selection: Selection, first: int, last: int, limit: int) -> Deferred[list[StoredReading]]:
        return self._rows(queries.page(self._gateway, selection, first, last, limit))

    def buckets(self, selection: Selection, width: int, limit: int) -> Deferred[list[Bucket]]:
        return self._rows(queries.buckets(self._gateway, selection, width, limit)).addCallback(_reversed)

    def states(self, selection: Selection, limit: int) -> Deferred[list[StoredState]]:
        return self._rows(queries.states(self._gateway, selection, limit)).addCallback(_reversed)

    def past_alarms(
        self,
        sensors: Sequence[str] | None,
        since: int | None,
        until: int | None,
        limit: int,
        ranges: Sequence[Range] = (),
    ) -> Deferred[list[StoredAlarm]]:
        return self._rows(alarmqueries.past_alarms(self._gateway, sensors, since, until, limit, ranges))

    def requests(self, sensors: Sequence[str] | None, limit: int) -> Deferred[list[StoredRequest]]:
        return self._rows(queries.requests(self._gateway, sensors, limit))

    def _rows(self, query: queries.Query[T]) -> Deferred[list[T]]:
        async def read(session: DatabaseSession) -> list[T]:
            return await session.fetch(self._schema.sql(query.sql), query.parameters, self._limits.read, query.make)

        if not self._ready:  # the tables may not exist yet
            return fail(SinkUnavailable("the database is not ready yet"))
        return self._reading.call(read)

    def _session_name(self) -> str:
        return "usbgate " + self._journal.identity.journal

    async def _open_reader(self, session: DatabaseSession) -> None:
        limits = self._limits
        await session.open(await self._url(), self._session_name(), limits.connect, limits.read)
        await session.run(queries.SETTINGS, None, limits.connect)

    async def _open_writer(self, session: DatabaseSession) -> None:
        limits = self._limits
        await session.open(await self._url(), self._session_name(), limits.connect, limits.store)
        try:
            await migrate(session, self._schema, limits.connect, limits.migrate)
            await self._take_name(session)
            await self._position.resume(session, limits.connect)
        except InsufficientPrivilege as error:
            raise await lacks_rights(session, self._schema, error, limits.connect) from error
        await self._measures.ensure(session, limits.connect)
        await session.run(_SETTINGS, (self._session_name(),), limits.connect)
        self._ready = True

    async def _take_name(self, session: DatabaseSession) -> None:
        """
        Acquire the advisory lock on the gateway's name; wait for an old session of this daemon to release it.

        Raises:
            SinkUnavailable: Another daemon holds the name.
        """
        key = lock_key(f"name {self._schema.name}.{self._gateway}")
        high, low = divmod(key % 2**64, 2**32)
        patience = self._limits.own_session
        pause = 0.5  # seconds, after which a session whose process was killed has ended
        while True:
            ((taken,),) = await session.run("select pg_try_advisory_lock(%s)", (key,), self._limits.connect)
            if taken:
                return
            holders = await session.run(_HOLDERS, (high, low), self._limits.connect)
            if any(name != self._session_name() for (name,) in holders):
                raise SinkUnavailable(
                    f"another usbgate holds the name {self._gateway} in this database, "
                    "choose another one for this gateway: gateway = …"
                )
            if patience <= 0:
                raise SinkUnavailable(f"an old session of this usbgate still holds the name {self._gateway}")
            patience -= pause
            await deferLater(self._reactor, pause)


def _reversed(rows: list[T]) -> list[T]:
    rows.reverse()
    return rows
