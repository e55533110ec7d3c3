"""
Readings and requests in PostgreSQL (protocol §5).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple, TypeVar

import psycopg2
from psycopg2.errors import UniqueViolation
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import deferLater
from zope.interface import implementer

from usbgate.core.batch import KINDS, Batch
from usbgate.core.model import Alarm, Bucket, Reading, Selection, StoredReading, StoredRequest
from usbgate.store.interfaces import ISink, IStore, RowsRefused, SinkUnavailable
from usbgate.store.postgres import queries
from usbgate.store.postgres.insert import insert
from usbgate.store.postgres.migrations import lock_key, migrate
from usbgate.store.postgres.session import Session, one_line
from usbgate.store.postgres.shared_session import SharedSession

T = TypeVar("T")

# Registers the journal, with the highest number stored so far as its base, and returns base and highest number.
_REGISTER = """
    insert into gateway (name, journal, base) values (%(gateway)s, %(journal)s, {newest}) on conflict do nothing;
    select base, {newest} from gateway where name = %(gateway)s and journal = %(journal)s
""".format(
    newest="greatest(0, "
    + ", ".join(f"(select max(seq) from {kind.table} where gateway = %(gateway)s)" for kind in KINDS)
    + ")"
)

# The session that holds the name lock; sessions of other roles are not visible.
_HOLDERS = """
    select coalesce(application_name, '') from pg_locks join pg_stat_activity using (pid)
    where locktype = 'advisory' and granted and objsubid = 1 and classid = %s and objid = %s
        and database = (select oid from pg_database where datname = current_database())
"""

LATEST_LIMIT = 50_000  # rows; 10,000 sensors are remembered (protocol §3), with some fields each
OWNERS_LIMIT = 100_000  # rows; the sensors of ten devices
HISTORY_LIMIT = 10_000  # rows; they stay in memory until they are sent, 0.4 kB each


class Limits(NamedTuple):
    """
    Timeouts, in seconds.
    """

    connect: float = 10.0  # also for each statement that prepares a new connection
    store: float = 30.0  # 20,000 rows take 0.1 s on an idle machine
    read: float = 10.0  # interactive; also the limit on waiting for the session
    migrate: float = 600.0  # a new index on a hundred million rows
    idle: float = 60.0  # until the idle reading connection is closed
    own_session: float = 60.0  # after a power cut, keep-alives end our old session within 40 s


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
        journal_uuid: Callable[[], str],
        limits: Limits = Limits(),  # noqa: B008  # immutable
    ) -> None:
        """
        Create a sink; it connects on first use.

        Args:
            reactor: IReactorTime, IReactorFDSet and IReactorPluggableNameResolver.
            url: Returns the connection string, called at each connection attempt: a URL or libpq's `key=value`
                form; may fail with `SinkUnavailable`.
            gateway: The gateway's name in the database; unique per daemon.
            journal_uuid: Returns the journal's uuid, called at each connection attempt.
            limits: Timeouts.
        """
        self.lost: Callable[[str], None] = lambda reason: None
        self._reactor = reactor
        self._url = url
        self._gateway = gateway
        self._journal_uuid = journal_uuid
        self._limits = limits
        self._base = 0
        self._newest = 0  # the highest number stored when we connected
        self._ready = False  # the schema has been set up
        self._writing = SharedSession(reactor, self._open_writer, lost=lambda reason: self.lost(reason))
        self._reading = SharedSession(reactor, self._open_reader, turn_limit=limits.read, idle_limit=limits.idle)

    def connect(self) -> Deferred[None]:

        async def nothing(session: Session) -> None:
            pass

        return self._writing.call(nothing)

    def store(self, batch: Batch) -> Deferred[None]:

        async def store(session: Session) -> None:
            try:
                # Some of it may be stored already, if the daemon stopped or lost the connection between the commit and
                # its confirmation. Batches merge differently after a restart, so that may be any part.
                again = self._base + batch.first <= self._newest
                try:
                    await self._insert(session, batch, again)
                except UniqueViolation:
                    if again:
                        raise
                    await self._insert(session, batch, True)
            except ValueError as error:  # NUL, or not UTF-8
                raise RowsRefused(str(error)) from error
            except psycopg2.Error as error:
                if error.pgcode is not None and error.pgcode[:2] in ("22", "23"):
                    raise RowsRefused(one_line(error)) from error
                raise

        return self._writing.call(store)

    def close(self) -> Deferred[None]:
        self._writing.close()
        self._reading.close()
        return succeed(None)

    async def _insert(self, session: Session, batch: Batch, again: bool) -> None:
        statements, parameters = insert(batch, self._gateway, self._base, again)
        if statements:
            await session.run(statements, parameters, self._limits.store)

    def latest(self) -> Deferred[list[Reading]]:
        return self._rows(queries.latest(self._gateway, LATEST_LIMIT)).addCallback(_reversed)

    def alarms(self) -> Deferred[list[Alarm]]:
        return self._rows(queries.alarms(self._gateway))

    def owners(self) -> Deferred[dict[str, str]]:
        return self._rows(queries.owners(self._gateway, OWNERS_LIMIT)).addCallback(dict)

    def history(self, sensor: str, field: str | None, since: int | None, limit: int) -> Deferred[list[Reading]]:
        query = queries.history(self._gateway, sensor, field, since, min(limit, HISTORY_LIMIT))
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

    def requests(self, sensor: str | None, limit: int) -> Deferred[list[StoredRequest]]:
        return self._rows(queries.requests(self._gateway, sensor, limit))

    def _rows(self, query: queries.Query[T]) -> Deferred[list[T]]:
        async def read(session: Session) -> list[T]:
            return await session.fetch(query.sql, query.parameters, self._limits.read, query.make)

        if not self._ready:  # the tables may not exist yet
            return fail(SinkUnavailable("the database is not ready yet"))
        return self._reading.call(read)

    def _session_name(self) -> str:
        return "usbgate " + self._journal_uuid()

    async def _open_reader(self, session: Session) -> None:
        limits = self._limits
        await session.open(await self._url(), self._session_name(), limits.connect, limits.read)
        await session.run(queries.SETTINGS, None, limits.connect)

    async def _open_writer(self, session: Session) -> None:
        limits = self._limits
        await session.open(await self._url(), self._session_name(), limits.connect, limits.store)
        await migrate(session, limits.connect, limits.migrate)
        await self._take_name(session)
        names = {"gateway": self._gateway, "journal": self._journal_uuid()}
        ((self._base, self._newest),) = await session.run(_REGISTER, names, limits.connect)
        self._ready = True

    async def _take_name(self, session: Session) -> None:
        """
        Acquire the advisory lock on the gateway's name; wait for an old session of this daemon to release it.

        Raises:
            SinkUnavailable: Another daemon holds the name.
        """
        key = lock_key("name " + self._gateway)
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
