"""
The position of a journal in the database: who has stored last under a gateway's name, and how far (protocol §5).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple
from uuid import uuid4

import psycopg2
from twisted.logger import Logger

from usbgate.core.batch import KINDS, START, Batch, Mark, halve
from usbgate.core.model import Reading
from usbgate.store.interfaces import IChain, SinkUnavailable
from usbgate.store.postgres.insert import select_stored
from usbgate.store.postgres.names import Schema
from usbgate.store.postgres.restorequeries import NEWEST_READINGS
from usbgate.store.postgres.session import DatabaseSession, refusal

CONFLICT = "UG001"  # SQLSTATE of `advance`

# Seconds for which a journal that lost the name while it was connected leaves it to the other one; twice as long each
# time, unless the last time was an hour ago.
YIELD_FIRST, YIELD_MOST, YIELD_FORGOTTEN = 30.0, 600.0, 3600.0

# Fails if the database is read-only.
_FIND = """
    select from usbgate.gateway where name = %(gateway)s for update;
    select journal::text, base, n, chain from usbgate.gateway where name = %(gateway)s
"""
# The highest number stored under the name. No index has readings by gateway and number.
_NEWEST = """
    with {newest_readings}
    select greatest(0, (select max(seq) from newest where gateway = %(gateway)s),
        (select base + n from usbgate.gateway where name = %(gateway)s), {others})
""".format(
    newest_readings=NEWEST_READINGS,
    others=", ".join(
        f"(select max(seq) from usbgate.{kind.table} where gateway = %(gateway)s)"
        for kind in KINDS
        if kind.row is not Reading
    ),
)
_BEGIN = """
    insert into usbgate.gateway (name, journal, base, n, chain) values (%s, %s, %s, %s, %s)
    on conflict do nothing returning name
"""
_REPLACE = """
    update usbgate.gateway set (name, journal, base, n, chain, begun) = (%s, %s, %s, %s, %s, now())
    where (name, journal, base, n, chain) = (%s, %s, %s, %s, %s) returning name
"""
# Whatever statistics there are: a hundred million readings are not read for each batch.
_BY_INDEX = "set local enable_seqscan = off; set local enable_bitmapscan = off; "
_ADVANCE = "select usbgate.advance(%s, %s, %s, %s, %s, %s, %s)"


class _Stored(NamedTuple):
    """
    The row of the table `gateway`, without its name.
    """

    journal: str
    base: int
    n: int
    chain: str

    @property
    def mark(self) -> Mark:
        return Mark(self.n, self.chain)


class Position:
    """
    Keeps the database's position and the journal's together.

    Attributes:
        base: What is added to the journal's numbers.
    """

    log = Logger()

    def __init__(
        self, schema: Schema, gateway: str, journal: IChain, seconds: Callable[[], float], yield_first: float
    ) -> None:
        """
        Create an unknown position.

        Args:
            schema: The schema of the tables.
            gateway: The gateway's name in the database.
            journal: The journal.
            seconds: Returns monotonic seconds.
            yield_first: As `YIELD_FIRST`.
        """
        self.base = 0
        self._schema = schema
        self._advance = schema.sql(_ADVANCE)
        self._gateway = gateway
        self._journal = journal
        self._seconds = seconds
        self._yield_first = yield_first
        self._at: _Stored | None = None  # where we left the database
        self._yields = 0.0  # seconds, the last time
        self._yields_until = self._lost_at = float("-inf")

    async def resume(self, session: DatabaseSession, limit: float) -> None:
        """
        Find out which rows are stored already; begin a new identity if somebody else has stored.

        Args:
            session: A session.
            limit: Timeout of a statement, in seconds.

        Raises:
            SinkUnavailable: Another daemon has the name at present, or the journal's disk refuses.
            psycopg2.Error: The database refused.
        """
        found = await session.run(self._schema.sql(_FIND), {"gateway": self._gateway}, limit)
        stored = _Stored(*found[0]) if found else None
        own = self._journal.identity
        ours = stored is not None and stored.journal == own.journal and own.base in (None, stored.base)
        if stored is not None and ours and await self._journal.find(stored.mark):
            if own.base is None:  # it ended before that was on disk
                await self._journal.begin(own.journal, stored.base)
            self._at, self.base = stored, stored.base
            return
        ((newest,),) = await session.run(self._schema.sql(_NEWEST), {"gateway": self._gateway}, limit)
        if stored is None and own.base is None and own.done == START:
            await self._take(session, limit, stored, own.journal, newest)
            return
        self._yield()
        await self._discard_stored(session, limit, newest)
        given = newest if own.base is None else max(newest, own.base + own.sent)
        batch = await self._journal.waiting(own.done.n)
        first = max(own.sent, own.done.n) + 1 if batch is None else batch.first
        await self._take(session, limit, stored, str(uuid4()), max(own.base or 0, given + 1 - first))
        if stored is None:
            why = "this database does not know the gateway {gateway}"
        elif own.base is None:
            why = "an earlier journal has stored under the name {gateway}"
        else:
            why = (
                "somebody else has stored under the name {gateway}: another usbgate, perhaps with a copy of this state "
                "folder, or this folder or the database is an older copy that was put back"
            )
        self.log.warn(why + "; continuing as a new journal from number {n} on", gateway=self._gateway, n=given + 1)

    async def _take(
        self, session: DatabaseSession, limit: float, stored: _Stored | None, journal: str, base: int
    ) -> None:
        done = self._journal.identity.done
        new = _Stored(journal, base, *done)
        if stored is None:
            taken = await session.run(self._schema.sql(_BEGIN), (self._gateway, *new), limit)
        else:
            taken = await session.run(self._schema.sql(_REPLACE), (self._gateway, *new, self._gateway, *stored), limit)
        if not taken:
            raise self.conflict()
        await self._journal.begin(journal, base)
        self._at, self.base = new, base

    async def _discard_stored(self, session: DatabaseSession, limit: float, newest: int) -> None:
        # Rows that are there under their number, since only the confirmation was lost.
        own = self._journal.identity
        after = own.done.n
        while own.base is not None and own.base + after < newest:
            batch = await self._journal.waiting(after)
            if batch is None:
                return
            numbers = await self._stored(session, limit, batch, own.base)
            if numbers:
                await self._journal.discard(numbers)
            after = batch.last

    async def _stored(self, session: DatabaseSession, limit: float, batch: Batch, base: int) -> set[int]:
        try:
            sql, parameters = select_stored(batch, self._schema, self._gateway, base)
            rows = await session.run(_BY_INDEX + sql, parameters, limit)
        except (psycopg2.Error, ValueError) as error:
            if refusal(error) is None:
                raise
            if batch.rows == 1:
                return set()
            return set().union(*[await self._stored(session, limit, half, base) for half in halve(batch)])
        return {seq - base for (seq,) in rows}

    def _yield(self) -> None:
        if self._seconds() < self._yields_until:
            raise SinkUnavailable(
                f"another usbgate stores under the name {self._gateway} in this database, "
                "choose another one for this gateway: gateway = …"
            )

    def conflict(self) -> SinkUnavailable:
        """
        Record that somebody else has taken the name; return the error.
        """
        now = self._seconds()
        forgotten = now - self._lost_at > YIELD_FORGOTTEN
        self._yields = self._yield_first if forgotten else min(2 * self._yields, YIELD_MOST)
        self._lost_at, self._yields_until = now, now + self._yields
        return SinkUnavailable(f"another usbgate has stored under the name {self._gateway} in this database")

    def advance(self, to: Mark) -> tuple[str, list[object]]:
        """
        Return the statement that must precede the rows up to a position in their transaction, with its parameters.
        """
        assert self._at is not None
        return self._advance, [self._gateway, *self._at, *to]

    def advanced(self, to: Mark) -> None:
        """
        Record that the transaction was committed.
        """
        assert self._at is not None
        self._at = self._at._replace(n=to.n, chain=to.chain)
