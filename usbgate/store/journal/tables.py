"""
The tables of a journal file: its head, the batches, the chain values of dropped ones, and the rejected rows.

Synchronous, as `file`.
"""

from __future__ import annotations

import sqlite3
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from typing import NamedTuple

import msgspec

from usbgate.core.batch import START, Batch, Mark, merge, numbers_of, without
from usbgate.store.interfaces import Refusal
from usbgate.store.journal.damage import Unreadable
from usbgate.store.journal.rejected import rejected_row

ROW_BYTES = 32  # approximate SQLite overhead per batch
DROP_MOST = 10_000  # batches dropped per commit, to keep it short; the next commit continues

# Chain values of dropped batches, 60 bytes each; the database may have stored these batches. Only the first ones
# matter: the database is at most one statement ahead of the last confirmation on disk, which comes at least every
# 40,000 rows.
DROPPED_MOST = 100_000

# `count` stands before `payload`, so that counting the backlog does not read the payloads' pages.
SCHEMA = """
create table if not exists journal (
    uuid text not null, n integer not null, lost integer not null, base integer, chain text not null,
    done integer not null, done_chain text not null);
create table if not exists batch (
    last integer primary key, first integer not null, count integer not null, chain text not null,
    payload blob not null);
create table if not exists dropped (last integer primary key, chain text not null);
create table if not exists rejected (
    n integer primary key,
    seq integer not null,
    at text not null default (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')),
    reason text not null,
    kind text not null,
    row text not null);
"""


class Head(NamedTuple):
    """
    The only row of the table `journal`.

    Attributes:
        uuid: Unique id of the journal; generated with the file.
        n: Number of the newest row ever written.
        lost: Rows lost since the file was created.
        base: What is added to its numbers in the database; None until it first reached one.
        chain: The running hash over all batches ever written.
        done: The last confirmed position.
    """

    uuid: str = ""
    n: int = 0
    lost: int = 0
    base: int | None = None
    chain: str = START.chain
    done: Mark = START


@contextmanager
def transaction(db: sqlite3.Connection, ended: Callable[[], None]) -> Iterator[sqlite3.Connection]:
    """
    Commit what is done meanwhile, or, if that fails, nothing.

    Args:
        db: The file.
        ended: Called then.

    Raises:
        sqlite3.Error: Nothing was committed.
    """
    db.execute("begin immediate")
    try:
        yield db
        db.execute("commit")
    except BaseException:
        if db.in_transaction:
            db.execute("rollback")
        raise
    finally:
        ended()


def load(db: sqlite3.Connection) -> Head | None:
    """
    Return the head of a file; None if it has none yet.
    """
    row = db.execute("select uuid, n, lost, base, chain, done, done_chain from journal").fetchone()
    if row is None:
        return None
    uuid, n, lost, base, chain, *done = row
    return Head(uuid, n, lost, base, chain, Mark(*done))


def save(db: sqlite3.Connection, head: Head) -> None:
    """
    Set the head of a file.
    """
    db.execute("delete from journal")
    db.execute("insert into journal values (?, ?, ?, ?, ?, ?, ?)", (*head[:5], *head.done))


def measure(db: sqlite3.Connection, last: int = sys.maxsize) -> int:
    """
    Return the bytes of the batches up to a number.
    """
    found = db.execute("select coalesce(sum(length(payload) + ?), 0) from batch where last <= ?", (ROW_BYTES, last))
    (size,) = found.fetchone()
    return int(size)


def insert(db: sqlite3.Connection, batches: Iterable[tuple[Batch, bytes]], *, again: bool = False) -> None:
    """
    Insert batches.

    Args:
        db: The file.
        batches: Each with its payload.
        again: Whether some may be there already.
    """
    db.executemany(
        f"insert {'or ignore ' if again else ''}into batch values (?, ?, ?, ?, ?)",
        [(batch.last, batch.first, batch.rows, batch.chain, payload) for batch, payload in batches],
    )


def read(db: sqlite3.Connection, after: int, most: int) -> tuple[Batch | None, bool]:
    """
    Read the oldest batches; see `JournalFile.read`.
    """
    batches: list[Batch] = []
    rows = 0
    query = "select count, last, chain, payload from batch where last > ? order by last"
    with closing(db.execute(query, (after,))) as found:
        for count, *packed in found:
            rows += count
            if batches and rows > most:
                return merge(batches), False
            batches.append(_unpack(*packed))
    return (merge(batches) if batches else None), True


def _unpack(last: int, chain: str, payload: bytes) -> Batch:
    try:
        return Batch.from_bytes(payload)._replace(chain=chain)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise Unreadable(f"batch up to {last}: {error}") from None


def is_known(db: sqlite3.Connection, mark: Mark) -> bool:
    """
    Return whether a batch in the file, or a dropped one, ends at this position.
    """
    tables = ("batch", "dropped")
    return any(db.execute(f"select 1 from {table} where last = ? and chain = ?", mark).fetchone() for table in tables)


def forget(db: sqlite3.Connection, done: int) -> int:
    """
    Delete the batches up to a number, which are stored.

    Returns:
        How many bytes they had.
    """
    freed = measure(db, done)
    db.execute("delete from batch where last <= ?", (done,))
    db.execute("delete from dropped where last <= ?", (done,))
    return freed


def drop(db: sqlite3.Connection, kept: int, excess: int) -> tuple[list[tuple[int, int]], int]:
    """
    Delete the oldest batches, at most `DROP_MOST`, and keep their chain values.

    Args:
        db: The file.
        kept: Batches up to this number stay.
        excess: How many bytes are to be freed.

    Returns:
        Last number and row count of each, and how many bytes they had.
    """
    dropped: list[tuple[int, int]] = []
    freed = 0
    oldest = db.execute(
        "select last, count, length(payload) + ? from batch where last > ? order by last limit ?",
        (ROW_BYTES, kept, DROP_MOST),
    )
    with closing(oldest):
        for last, rows, size in oldest:
            dropped.append((last, rows))
            freed += size
            if freed >= excess:
                break
    if dropped:
        between = kept, dropped[-1][0]
        db.execute(
            "insert into dropped select last, chain from batch where last > ? and last <= ? order by last "
            "limit max(0, ? - (select count(*) from dropped))",
            (*between, DROPPED_MOST),
        )
        db.execute("delete from batch where last > ? and last <= ?", between)
    return dropped, freed


def discard(db: sqlite3.Connection, numbers: Collection[int]) -> list[int]:
    """
    Delete rows, and a batch that has none left; return the numbers of those that were there.
    """
    deleted: list[int] = []
    affected = db.execute(
        "select last, chain, payload from batch where last >= ? and first <= ?", (min(numbers), max(numbers))
    ).fetchall()
    for last, chain, payload in affected:
        batch = _unpack(last, chain, payload)
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


def reject(db: sqlite3.Connection, base: int, rows: Sequence[Refusal]) -> None:
    """
    Add rejected rows; those that are there already keep their time and reason.

    Args:
        db: The file.
        base: See `Head`.
        rows: The rows.
    """
    db.executemany(
        "insert into rejected (n, seq, reason, kind, row) values (?, ?, ?, ?, ?) "
        "on conflict (n) do update set seq = excluded.seq",
        [rejected_row(base, *each) for each in rows],
    )


def count_rejected(db: sqlite3.Connection) -> int:
    """
    Return how many rejected rows there are.
    """
    (count,) = db.execute("select count(*) from rejected").fetchone()
    return int(count)
