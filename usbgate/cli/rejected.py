"""
List and export the rows that the database refused, and try to store them again (`usbgate rejected`, protocol §5).

A daemon may be running: the rows of a batch that is not stored yet are left to it.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable
from typing import Any, TextIO

import psycopg2

from usbgate.cli.database import DatabaseFailed, connected
from usbgate.core.batch import KINDS
from usbgate.store.journal.rejected import RejectedRow, RejectedRows
from usbgate.store.postgres.insert import insert, select_stored
from usbgate.store.postgres.migrations import lock_key
from usbgate.store.postgres.names import Schema
from usbgate.store.postgres.session import refusal

STATEMENT_LIMIT = "30s"

_COLUMNS = list(dict.fromkeys(name for kind in KINDS for name in kind.columns[1:]))

# The number, in any table: a row of another one may have it if the gateway has had another name.
_TAKEN = " union all ".join(
    f"select 1 from usbgate.{kind.table} where gateway = %(gateway)s and seq = %(seq)s" for kind in KINDS
)


def show(rows: RejectedRows, say: Callable[[str], object]) -> None:
    """
    Print a line for each row.

    Raises:
        JournalUnreadable: The journal cannot be read.
    """
    nothing = True
    for page in rows.pages():
        nothing = False
        for row in page:
            say(f"{_spell(row)}; refused at {row.at}: {_quote(row.reason)}")
    if nothing:
        say("the database has refused nothing")


def export(rows: RejectedRows, form: str, file: TextIO) -> None:
    """
    Write all rows.

    Args:
        rows: The rows.
        form: `json`, one object a line, or `csv`.
        file: Where to write.

    Raises:
        JournalUnreadable: The journal cannot be read.
    """
    head = ["seq", "table", "refused", "reason"]
    writer = csv.writer(file, lineterminator="\n")
    if form == "csv":
        writer.writerow([*head, *_COLUMNS])
    for page in rows.pages():
        for row in page:
            about = (row.seq, row.table, row.at, row.reason)
            if form == "csv":
                cells = [row.cells.get(name) for name in _COLUMNS]
                writer.writerow([None if each is None else _writable(str(each)) for each in (*about, *cells)])
            else:
                cells_only = {name: cell for name, cell in row.cells.items() if name != "n"}
                file.write(json.dumps(dict(zip(head, about, strict=True)) | {"row": cells_only}) + "\n")


def retry(rows: RejectedRows, dsn: str, schema: Schema, gateway: str, say: Callable[[str], object]) -> bool:
    """
    Try to store all rows again, under their old numbers, and print what became of them.

    Args:
        rows: The rows.
        dsn: The connection string of the database.
        schema: The schema of the tables.
        gateway: The name under which to store.
        say: Prints a line.

    Returns:
        Whether none is left.

    Raises:
        DatabaseFailed: The database failed. Rows that were stored until then are no longer in the journal, or will be
            recognized.
        JournalUnreadable: The journal cannot be read or changed.
    """
    try:
        with connected(dsn) as connection:
            attempt = _Retry(connection, schema, gateway, rows.journal, rows.done, say)
            for page in rows.pages():
                rows.settle(*attempt.store(page))
    except (psycopg2.errors.UndefinedTable, psycopg2.errors.InvalidSchemaName):
        raise DatabaseFailed(f"the schema {schema.name} is not complete: start the daemon, which creates it") from None
    return attempt.report()


class _Retry:
    def __init__(
        self,
        connection: Any,
        schema: Schema,
        gateway: str,
        journal: str,
        done: int,
        say: Callable[[str], object],
    ) -> None:
        self._connection = connection
        self._schema = schema
        self._gateway = gateway
        self._journal = journal
        self._done = done
        self._say = say
        self._counts = {"stored": 0, "there": 0, "refused": 0, "waiting": 0, "taken": 0}

    def store(self, page: Iterable[RejectedRow]) -> tuple[list[RejectedRow], list[tuple[RejectedRow, str]]]:
        """
        Store what the database accepts now, in one transaction; return the rows that are there, and those refused.
        """
        there: list[RejectedRow] = []
        refused: list[tuple[RejectedRow, str]] = []
        with self._connection, self._connection.cursor() as cursor:
            # Rows are found by an index, whatever statistics there are.
            cursor.execute("set local statement_timeout = %s; set local enable_seqscan = off", (STATEMENT_LIMIT,))
            # Another `--retry` must not insert the same rows meanwhile.
            key = lock_key(f"rejected {self._schema.name}.{self._gateway}")
            cursor.execute("select pg_advisory_xact_lock(%s); set constraints all immediate", (key,))
            done = self._stored_to(cursor)
            for row in page:
                if row.n > done:
                    self._counts["waiting"] += 1
                    continue
                cursor.execute("savepoint row")
                try:
                    outcome = self._store(cursor, row)
                except (psycopg2.Error, ValueError) as error:
                    reason = refusal(error)
                    if reason is None:
                        raise
                    cursor.execute("rollback to savepoint row")
                    outcome = "refused"
                    refused.append((row, reason))
                    self._say(f"{_spell(row)}: refused again: {_quote(reason)}")
                cursor.execute("release savepoint row")
                self._counts[outcome] += 1
                if outcome in ("stored", "there"):
                    there.append(row)
                elif outcome == "taken":
                    self._say(f"{_spell(row)}: another row of gateway {self._gateway} has this number")
        return there, refused

    def _stored_to(self, cursor: Any) -> int:
        # The daemon will send the batches behind this number again. The file may not have it yet; but if the database
        # has another journal, only the file tells.
        cursor.execute(
            self._schema.sql("select n from usbgate.gateway where name = %s and journal::text = %s"),
            (self._gateway, self._journal),
        )
        found = cursor.fetchone()
        return self._done if found is None else int(found[0])

    def _store(self, cursor: Any, row: RejectedRow) -> str:
        base = row.seq - row.n
        cursor.execute(self._schema.sql(_TAKEN), {"gateway": self._gateway, "seq": row.seq})
        if cursor.fetchone() is not None:
            cursor.execute(*select_stored(row.batch, self._schema, self._gateway, base))
            return "taken" if cursor.fetchone() is None else "there"
        cursor.execute(*insert(row.batch, self._schema, self._gateway, base))
        return "stored"

    def report(self) -> bool:
        """
        Print the numbers of rows; return whether none is left.
        """
        words = {
            "stored": "stored",
            "there": "stored before",
            "refused": "refused again",
            "taken": "whose number another row has",
            "waiting": "of a batch that the daemon has not stored yet",
        }
        parts = [f"{self._counts[outcome]} {text}" for outcome, text in words.items() if self._counts[outcome]]
        self._say("rows: " + ", ".join(parts) if parts else "the database has refused nothing")
        return not (self._counts["refused"] or self._counts["taken"] or self._counts["waiting"])


def _spell(row: RejectedRow) -> str:
    cells = [f"{name}={_quote(cell)}" for name, cell in row.cells.items() if name != "n" and cell is not None]
    return f"{row.seq} {row.table} {' '.join(cells)}"


def _quote(text: str) -> str:
    return text if text.isprintable() else json.dumps(text)


def _writable(text: str) -> str:
    # Half of a surrogate pair, for which the database refused a row, is no text in UTF-8.
    return text.encode("utf-8", "backslashreplace").decode()
