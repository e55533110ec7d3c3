"""
Copy a database to another server while the daemon stores, then let the daemon store there (`usbgate database move`).

A gateway's rows are stored in the order of their numbers, and with them how far it has stored. So they are copied in
ranges of numbers, each in one transaction: whatever ends the copy, it continues behind the highest number there. In the
end, the old database is locked for a moment. The daemon's rows wait in its journal meanwhile, and it continues in the
new database, which has its position. Everything here blocks.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any

import psycopg2
from psycopg2.extensions import make_dsn

from usbgate.cli.database import DatabaseFailed
from usbgate.config.moved import MOVED_FILE
from usbgate.core.batch import KINDS
from usbgate.core.model import Reading
from usbgate.daemon.files import replace_file
from usbgate.store.postgres.migrations import creation
from usbgate.store.postgres.names import Schema
from usbgate.store.postgres.restorequeries import NEWEST_READINGS

RANGE = 20_000  # numbers to copy in one transaction; about 2 MB of text
LOCK_LIMIT = 30  # seconds to wait for a statement of the daemon
CONNECT_LIMIT = 30.0  # seconds in which the daemon connects to the new database
POLL = 0.1

_TABLES = [kind.table for kind in KINDS]
_COLUMNS = {kind.table: ", ".join(["gateway", "seq", *kind.row._fields]) for kind in KINDS}
_OTHERS = [kind.table for kind in KINDS if kind.row is not Reading]

# The highest number of each gateway. Readings have no index by gateway and number.
_NEWEST = f"with {NEWEST_READINGS} select gateway, max(seq) from (select gateway, seq from newest " + " ".join(
    f"union all select gateway, max(seq) from usbgate.{table} group by gateway" for table in _OTHERS
)
_ROWS = "select {columns} from usbgate.{table} where gateway = {gateway} and seq > {after} and seq <= {to}"
_VERSION = "select max(version) from usbgate.usbgate_schema"
_END_SESSIONS = """
    select pg_stat_clear_snapshot();
    select pg_terminate_backend(pid) from pg_stat_activity
    where datname = current_database() and application_name like 'usbgate _%' and pid <> pg_backend_pid()
"""
_POSITION = "insert into usbgate.gateway (name, journal, base, n, chain, begun) values (%s, %s, %s, %s, %s, %s)"


class Move:
    """
    One move.

    Attributes:
        bounds: The highest number to copy, by gateway, as far as is known.
        copied: The highest number that is copied, by gateway.
    """

    def __init__(self, old: Any, new: Any, schema: Schema) -> None:
        """
        Args:
            old: A connection to the old database, as its superuser.
            new: A connection to the new one.
            schema: The schema of the tables, in both.
        """
        self._old = old
        self._new = new
        self._schema = schema
        self.bounds: dict[str, int] = {}
        self.copied: dict[str, int] = {}
        old.autocommit = True

    def prepare(self) -> None:
        """
        Create the tables, or find how far an earlier attempt has come.

        Raises:
            DatabaseFailed: The new database has something else, or the old one nothing.
        """
        try:
            version = self._ask(self._old, _VERSION)
        except (psycopg2.errors.UndefinedTable, psycopg2.errors.InvalidSchemaName):
            raise DatabaseFailed(
                "nothing is stored yet: `database` in the configuration is all there is to do"
            ) from None
        with self._new, self._new.cursor() as new:
            new.execute(f"set lock_timeout = '{LOCK_LIMIT}s'")
            new.execute("select to_regclass(%s)", (f"{self._schema.quoted}.usbgate_schema",))
            if new.fetchone()[0] is None:
                for statement in creation(self._schema):
                    new.execute(statement)
        if self._ask(self._new, _VERSION) != version:
            raise DatabaseFailed(f"the schema {self._schema.name} there has another version; choose an empty database")
        for each in (self._old, self._new):
            self._plan_by_index(each, True)
        self._ask(self._old, "select brin_summarize_new_values('usbgate.reading_by_number')")
        self._read_positions(all_rows=True)
        places = "select name, journal::text, base from usbgate.gateway"
        here = {name: place for name, *place in self._ask(self._old, places)}
        for name, *place in self._ask(self._new, places):
            if name in self.bounds and here.get(name) != place:
                raise DatabaseFailed(f"another gateway {name} stores there already; choose another database")
        newest = dict(self._ask(self._new, f"{_NEWEST}) as rows group by gateway"))
        self._new.commit()
        self.copied = {name: min(newest.get(name, 0), bound) for name, bound in self.bounds.items()}

    @property
    def left(self) -> int:
        """
        The numbers that are not copied yet.
        """
        return sum(bound - self.copied.get(name, 0) for name, bound in self.bounds.items())

    def copy(self, progress: Callable[[int], object]) -> None:
        """
        Copy all rows up to `bounds`.

        Args:
            progress: Called with the numbers that were copied, after each transaction.
        """
        for name, bound in self.bounds.items():
            after = self.copied.setdefault(name, 0)
            while after < bound:
                to = min(after + RANGE, bound)
                with self._new, self._new.cursor() as new:
                    for table in _TABLES:
                        self._copy(new, table, name, after, to)
                self.copied[name] = to
                progress(to - after)
                after = to

    def _copy(self, new: Any, table: str, gateway: str, after: int, to: int) -> None:
        text = StringIO()
        columns = _COLUMNS[table]
        with self._old.cursor() as old:
            quoted = old.mogrify("%s", (gateway,)).decode()
            query = _ROWS.format(columns=columns, table=table, gateway=quoted, after=after, to=to)
            old.copy_expert(self._schema.sql(f"copy ({query}) to stdout"), text)
        if text.tell():
            text.seek(0)
            new.copy_expert(self._schema.sql(f"copy usbgate.{table} ({columns}) from stdin"), text)

    def look(self) -> None:
        """
        Find what was stored meanwhile.
        """
        self._read_positions(all_rows=False)

    def _read_positions(self, all_rows: bool) -> None:
        positions = "select name, base + n from usbgate.gateway"
        if all_rows:  # also of gateways that have no position, as after a restored dump
            positions = f"{_NEWEST} union all {positions}) as rows group by gateway"
        self.bounds |= dict(self._ask(self._old, positions))

    def finish(self, progress: Callable[[int], object], moved: Callable[[], object]) -> None:
        """
        Lock the old database, copy what is left, and let the daemon go.

        Args:
            progress: See `copy`.
            moved: Called when the new database has everything; from then on the daemon must connect there.

        Raises:
            DatabaseFailed: The new database lacks rows, or has others; nothing has changed for the daemon.
        """
        self._old.autocommit = False
        with self._old, self._old.cursor() as old:
            old.execute(f"set local lock_timeout = '{LOCK_LIMIT}s'")
            old.execute(self._schema.sql("lock table usbgate.gateway in exclusive mode"))
            self.look()
            self.copy(progress)
            self._compare()
            old.execute(self._schema.sql("select name, journal, base, n, chain, begun from usbgate.gateway"))
            positions = old.fetchall()
            with self._new, self._new.cursor() as new:
                new.execute(self._schema.sql("delete from usbgate.gateway where name = any(%s)"), (list(self.bounds),))
                for position in positions:
                    new.execute(self._schema.sql(_POSITION), position)
            # A statement that waits for the lock must never run here: not now, nor if this process is killed when the
            # daemon is to connect there, for which it waits for a moment after it lost its sessions.
            old.execute(_END_SESSIONS)
            moved()
            old.execute(_END_SESSIONS)

    def _compare(self) -> None:
        names = list(self.bounds)
        for each in (self._old, self._new):
            self._plan_by_index(each, False)
        for table in _TABLES:
            count = f"select count(*) from usbgate.{table} where gateway = any(%s)"
            ((here,),) = self._ask(self._old, count, (names,))
            ((there,),) = self._ask(self._new, count, (names,))
            if here != there:
                raise DatabaseFailed(
                    f"{here} rows of {table} here, but {there} there: was something else changed meanwhile? "
                    f"Run there: drop schema {self._schema.quoted} cascade, and move again"
                )

    def _plan_by_index(self, connection: Any, by_index: bool) -> None:
        # Ranges of numbers and the newest rows are read by an index, whatever statistics there are; all rows are not.
        with connection.cursor() as cursor:
            cursor.execute(f"set enable_seqscan = {'off' if by_index else 'on'}")

    def _ask(self, connection: Any, sql: str, parameters: tuple[object, ...] | None = None) -> list[tuple[Any, ...]]:
        with connection.cursor() as cursor:
            cursor.execute(self._schema.sql(sql), parameters)
            rows: list[tuple[Any, ...]] = cursor.fetchall()
        return rows


def complete(url: str, connection: Any) -> str:
    """
    Return the connection string of a database with the password with which somebody has connected there: the daemon has
    neither the environment nor the password file of this process.
    """
    password = connection.info.password
    return str(make_dsn(url, password=password)) if password else url


def keep(state: Path, url: str) -> None:
    """
    Let the daemon of a state folder store in another database from now on.

    Raises:
        DatabaseFailed: The folder cannot be written to.
    """
    try:
        replace_file(state / MOVED_FILE, f"{url}\n".encode())
    except OSError as error:
        raise DatabaseFailed(f"{state} cannot be written to: {error.strerror}") from None


def await_daemon(new: Any) -> bool:
    """
    Wait until a daemon has connected to the new database; return whether one has, in time.
    """
    deadline = time.monotonic() + CONNECT_LIMIT
    while time.monotonic() < deadline:
        with new, new.cursor() as cursor:
            cursor.execute("select count(*) from pg_stat_activity where application_name like 'usbgate _%'")
            if cursor.fetchone()[0]:
                return True
        time.sleep(POLL)
    return False
