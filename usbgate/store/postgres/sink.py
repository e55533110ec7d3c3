"""
Readings and requests in PostgreSQL (protocol §5).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, NamedTuple, TypeVar

import psycopg2
from psycopg2.errors import UniqueViolation
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import deferLater
from zope.interface import implementer

from usbgate.core.batch import KINDS, NULL_CELL, Batch
from usbgate.core.model import Alarm, Bucket, Reading, Selection, StoredReading, StoredRequest
from usbgate.store.interfaces import ISink, IStore, RowsRefused, SinkUnavailable
from usbgate.store.postgres import queries
from usbgate.store.postgres.migrations import lock_key, migrate
from usbgate.store.postgres.session import Session, one_line
from usbgate.store.postgres.shared_session import SharedSession

T = TypeVar("T")

# The columns of numbers, and how some of the cells, all of them text, become values. `at` needs no base, as an integer
# would: 3,000,000,000 ms are beyond one.
_NUMBERS = {"n": "bigint", "at": "float8", "value": "float8", "latency_ms": "float8", "uptime": "float8"}
_VALUES = {"at": "timestamptz 'epoch' + {} * interval '1 ms'", "clock": "{}::boolean"}

_FIRST_CONTACT = """
    insert into gateway (name, journal, base) values (%(gateway)s, %(journal)s, {newest}) on conflict do nothing;
    select base, {newest} from gateway where name = %(gateway)s and journal = %(journal)s
""".format(
    newest="greatest(0, "
    + ", ".join(f"(select max(seq) from {kind.table} where gateway = %(gateway)s)" for kind in KINDS)
    + ")"
)

# What follows an insert of rows that may be there. `on conflict` alone would not know those whose `at` was corrected
# meanwhile, which are the same but for that. The range keeps the search short, whatever plan is chosen.
_UNLESS_THERE = """ where not exists (
    select from {table} as there
    where there.gateway = %s and there.seq between %s and %s and there.seq = %s + r.n
        and row({there}) is not distinct from row({given})
) on conflict (gateway, seq, at) do nothing"""
_CORRECTED = ("at", "clock")

# The holder of the name lock; sessions of other roles are not visible.
_HOLDER = """
    select coalesce(application_name, '') from pg_locks join pg_stat_activity using (pid)
    where locktype = 'advisory' and granted and objsubid = 1 and classid = %s and objid = %s
        and database = (select oid from pg_database where datname = current_database())
"""

_MOST_LATEST = 50_000  # 10,000 sensors are remembered (protocol §3), with some fields each
MOST_HISTORY = 10_000  # at once: they are in memory while they are sent, 0.4 kB each


class Limits(NamedTuple):
    """
    Timeouts, in seconds.
    """

    connect: float = 10.0  # also each statement that makes a new connection ready
    store: float = 30.0  # 20,000 rows take 0.1 s on a machine at ease
    read: float = 10.0  # interactive; also the limit on waiting for the session
    migrate: float = 600.0  # a new index on a hundred million rows
    idle: float = 60.0  # until the idle reading connection is closed
    own_session: float = 60.0  # a dead session of ours ends 40 s after a power cut, by its keep-alives


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
        self._newest = 0  # the highest number that was there when we connected
        self._ready = False  # the schema has been set up
        self._writing = SharedSession(reactor, self._open_writer, lost=lambda reason: self.lost(reason))
        self._reading = SharedSession(reactor, self._open_reader, turn_limit=limits.read, idle_limit=limits.idle)

    # ISink

    def connect(self) -> Deferred[None]:
        """
        Connect to the database and prepare it (see `ISink.connect`).
        """
        return self._writing.call(self._nothing)

    def store(self, batch: Batch) -> Deferred[None]:
        """
        Store a batch (see `ISink.store`); reconnects if the connection was lost.
        """

        async def store(session: Session) -> None:
            try:
                # Part of it may already be stored, if the daemon stopped or lost the connection between the commit
                # and its confirmation. Batches merge differently after a restart, so any part may be.
                again = self._base + batch.first <= self._newest
                try:
                    await self._insert(session, batch, again)
                except UniqueViolation:
                    if again:
                        raise
                    await self._insert(session, batch, True)
            except ValueError as error:  # NUL, or what is no UTF-8
                raise RowsRefused(str(error)) from error
            except psycopg2.Error as error:
                if error.pgcode is not None and error.pgcode[:2] in ("22", "23"):
                    raise RowsRefused(one_line(error)) from error
                raise

        return self._writing.call(store)

    def close(self) -> Deferred[None]:
        """
        Close all connections permanently, at once; pending operations fail with `SinkUnavailable`.
        """
        self._writing.close()
        self._reading.close()
        return succeed(None)

    async def _nothing(self, session: Session) -> None:
        pass

    async def _insert(self, session: Session, batch: Batch, again: bool) -> None:
        statements: list[str] = []
        parameters: list[object] = []
        for kind, columns in zip(KINDS, batch.parts, strict=True):
            if columns:
                named = dict(zip(kind.columns, columns, strict=True))
                statement, values = _insert_statement(kind.table, named, self._gateway, self._base)
                parameters += values
                if again:
                    same = [name for name in kind.columns[1:] if name not in _CORRECTED]
                    statement += _UNLESS_THERE.format(
                        table=kind.table,
                        there=", ".join("there." + name for name in same),
                        given=", ".join("r." + name for name in same),
                    )
                    parameters += [self._gateway, self._base + batch.first, self._base + batch.last, self._base]
                statements.append(statement)
        if statements:
            await session.run("; ".join(statements), parameters, self._limits.store)

    # IStore

    def latest(self) -> Deferred[list[Reading]]:
        """
        Fetch the newest reading of each field of each sensor (see `IStore.latest`).
        """
        return self._rows(queries.latest(self._gateway, _MOST_LATEST)).addCallback(_reversed)

    def alarms(self) -> Deferred[list[Alarm]]:
        """
        Fetch the open alarms, oldest first (see `IStore.alarms`).
        """
        return self._rows(queries.alarms(self._gateway))

    def history(self, sensor: str, field: str | None, since: int | None, limit: int) -> Deferred[list[Reading]]:
        """
        Fetch the newest readings of a sensor (see `IStore.history`).
        """
        question = queries.history(self._gateway, sensor, field, since, min(limit, MOST_HISTORY))
        return self._rows(question).addCallback(_reversed)

    def extent(self, selection: Selection, limit: int | None) -> Deferred[tuple[int, int] | None]:
        """
        Return the first and last number of the selection (see `IStore.extent`).
        """

        def found(rows: list[tuple[int | None, int | None]]) -> tuple[int, int] | None:
            ((first, last),) = rows
            return None if first is None or last is None else (first, last)

        return self._rows(queries.extent(self._gateway, selection, limit)).addCallback(found)

    def page(self, selection: Selection, first: int, last: int, limit: int) -> Deferred[list[StoredReading]]:
        """
        Fetch a page of readings (see `IStore.page`).
        """
        return self._rows(queries.page(self._gateway, selection, first, last, limit))

    def buckets(self, selection: Selection, width: int, limit: int) -> Deferred[list[Bucket]]:
        """
        Aggregate readings by interval (see `IStore.buckets`).
        """
        return self._rows(queries.buckets(self._gateway, selection, width, limit)).addCallback(_reversed)

    def requests(self, sensor: str | None, limit: int) -> Deferred[list[StoredRequest]]:
        """
        Fetch completed requests (see `IStore.requests`).
        """
        return self._rows(queries.requests(self._gateway, sensor, limit))

    def _rows(self, question: queries.Question[T]) -> Deferred[list[T]]:
        async def read(session: Session) -> list[T]:
            return await session.fetch(question.sql, question.parameters, self._limits.read, question.make)

        if not self._ready:  # the tables may not exist yet
            return fail(SinkUnavailable("the database is not ready yet"))
        return self._reading.call(read)

    # Connections

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
        told = {"gateway": self._gateway, "journal": self._journal_uuid()}
        ((self._base, self._newest),) = await session.run(_FIRST_CONTACT, told, limits.connect)
        self._ready = True

    async def _take_name(self, session: Session) -> None:
        """
        Acquire the lock on the gateway's name, waiting for an old session of this daemon to release it.

        Raises:
            SinkUnavailable: Another daemon holds the name.
        """
        key = lock_key("name " + self._gateway)
        high, low = divmod(key % 2**64, 2**32)
        patience = self._limits.own_session
        pause = 0.5  # seconds; a session whose process was killed is gone by then
        while True:
            ((taken,),) = await session.run("select pg_try_advisory_lock(%s)", (key,), self._limits.connect)
            if taken:
                return
            holders = await session.run(_HOLDER, (high, low), self._limits.connect)
            if any(name != self._session_name() for (name,) in holders):
                raise SinkUnavailable(
                    f"another usbgate holds the name {self._gateway} in this database, "
                    "give this one a name of its own: gateway = …"
                )
            if patience <= 0:
                raise SinkUnavailable(f"an old session of this usbgate still holds the name {self._gateway}")
            patience -= pause
            await deferLater(self._reactor, pause)


def _reversed(rows: list[T]) -> list[T]:
    rows.reverse()
    return rows


def _insert_statement(table: str, columns: Mapping[str, str], gateway: str, base: int) -> tuple[str, list[object]]:
    """
    Build the insert statement for one table, with its parameters.

    Constant columns are sent once, and numbers as numeric arrays: both save parsing and conversion in PostgreSQL,
    1.65 us a row instead of 3.1.
    """
    rows = columns["n"].count("\n") + 1
    values: list[str] = []
    constants: list[object] = []
    arrays: dict[str, str] = {}
    parameters: list[object] = []
    for name, cells in columns.items():
        number = _NUMBERS.get(name)
        cell = cells.partition("\n")[0]
        if name == "n" and int(cells.rpartition("\n")[2]) - int(cell) + 1 == rows:
            value = f"r.n + {int(cell) - 1}"  # without gaps, the row's position gives its number
        elif cells == "\n".join([cell] * rows):
            constants.append(None if cell == NULL_CELL else cell)
            value = f"%s::{number or 'text'}"
        else:
            value = "r." + name
            if number:
                arrays[name] = f"%s::{number}[]"
                parameters.append("{" + cells.replace("\n", ",").replace(NULL_CELL, "null") + "}")
            else:
                arrays[name] = r"string_to_array(%s, E'\n', E'\x01')"
                parameters.append(cells)
        values.append(f"{_VALUES.get(name, '{}').format(value)} as {name}")
    if not arrays:
        source = f"generate_series(1, {rows}) as r (n)"
    elif "n" in arrays:
        source = f"unnest({', '.join(arrays.values())}) as r ({', '.join(arrays)})"
    else:
        source = f"unnest({', '.join(arrays.values())}) with ordinality as r ({', '.join(arrays)}, n)"
    names = list(columns)[1:]
    return (
        f"insert into {table} (gateway, seq, {', '.join(names)}) "
        f"select %s, %s + r.n, {', '.join('r.' + name for name in names)} from ("
        f"select {', '.join(values)} from {source}) as r"
    ), [gateway, base, *constants, *parameters]
