"""
The chain of a journal file: a running hash over its batches, and the positions that the database may be at.

Synchronous, as `file`. The chain values of dropped batches are kept, since the database may have stored them.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection

import msgspec

from usbgate.core.batch import Batch, Mark, numbers_of, without
from usbgate.store.journal.damage import Unreadable

# Chain values of dropped batches, 60 bytes each. Only the first ones matter: the database is at most one statement
# ahead of the last confirmation on disk, which comes at least every 40,000 rows.
DROPPED_MOST = 100_000

SCHEMA = """
create table if not exists dropped (last integer primary key, chain text not null);
"""


def is_known(db: sqlite3.Connection, mark: Mark) -> bool:
    """
    Return whether a batch in the file, or a dropped one, ends at this position.
    """
    tables = ("batch", "dropped")
    return any(db.execute(f"select 1 from {table} where last = ? and chain = ?", mark).fetchone() for table in tables)


def drop(db: sqlite3.Connection, after: int, last: int) -> None:
    """
    Delete the batches numbered between, and keep their chain values.
    """
    db.execute(
        "insert into dropped select last, chain from batch where last > ? and last <= ? order by last "
        "limit max(0, ? - (select count(*) from dropped))",
        (after, last, DROPPED_MOST),
    )
    db.execute("delete from batch where last > ? and last <= ?", (after, last))


def unpack(last: int, chain: str, payload: bytes) -> Batch:
    """
    Return a batch of the file.

    Raises:
        Unreadable: The payload is not a valid batch.
    """
    try:
        return Batch.from_bytes(payload)._replace(chain=chain)
    except msgspec.MsgspecError as error:
        raise Unreadable(f"batch up to {last}: {error}") from None


def discard(db: sqlite3.Connection, numbers: Collection[int]) -> list[int]:
    """
    Delete rows, and a batch that has none left; return the numbers of those that were there.
    """
    deleted: list[int] = []
    affected = db.execute(
        "select last, chain, payload from batch where last >= ? and first <= ?", (min(numbers), max(numbers))
    ).fetchall()
    for last, chain, payload in affected:
        batch = unpack(last, chain, payload)
        rest = without(batch, numbers)
        deleted += numbers_of(batch) - numbers_of(rest)
        if rest.rows:
            db.execute(
                "update batch set first = ?, count = ?, payload = ? where last = ?",
                (rest.first, rest.rows, rest.to_bytes(), last),
            )
        else:
            db.execute("delete from batch where last = ?", (last,))
    return deleted
