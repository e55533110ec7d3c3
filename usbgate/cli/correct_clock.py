"""
Correct the times of rows that were stored before the clock was right (`usbgate correct-clock`, protocol §5).

Each stretch is corrected in one transaction, while a daemon may be storing. Corrected rows are marked as right, so that
they are never moved twice.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import Any

import psycopg2

from usbgate.cli.database import DatabaseFailed, connected
from usbgate.cli.tables import count
from usbgate.core.batch import KINDS
from usbgate.core.clockmarks import plan
from usbgate.core.model import ClockMark
from usbgate.store.postgres.names import Schema

_TABLES = [kind.table for kind in KINDS]
# The tables with a time and `clock`, which says whether it can be right. The marks themselves stay unchanged.
_CORRECTED = [kind.table for kind in KINDS if {"at", "clock"} <= {*kind.columns} and kind.row is not ClockMark]

_OURS = "gateway = %(gateway)s and seq between %(first)s and %(last)s"


def _of_all(what: str, tables: Sequence[str]) -> str:
    return f"({' union all '.join(what.format(table=table) for table in tables)}) as rows"


# Fetched before the marks: rows stored later may have a mark that was not fetched.
_NEWEST = "select coalesce(max(seq), 0) from " + _of_all(
    "select max(seq) as seq from usbgate.{table} where gateway = %(gateway)s", _TABLES
)

_MARKS = """
    select seq, round(extract(epoch from at) * 1000)::bigint, uptime, boot, clock
    from usbgate.clock_mark where gateway = %(gateway)s order by seq
"""

# After two or more missing numbers nothing is certain, since a mark may have been among them. A mark is never stored
# alone, so that a single missing number is a row that was set aside.
_UNBROKEN = f"""
    select min(seq) from (
        select seq, lead(seq) over (order by seq) as following
        from {_of_all("select seq from usbgate.{table} where " + _OURS, _TABLES)}
    ) as rows where following > seq + 2
"""

_COUNT = "select count(*) from usbgate.{table} where not clock and " + _OURS
_MOVE = f"update usbgate.{{table}} set at = at + %(shift)s * interval '1 ms', clock = true where not clock and {_OURS}"

# Formatted by the server, since Python's times end in the year 9999.
_SPELLED = "to_char({at} at time zone 'UTC', 'YYYY-MM-DD HH24:MI:SS UTC')"
_EARLIEST = (
    f"select {_SPELLED.format(at='at')}, {_SPELLED.format(at='(at + shift)')} from ("
    "select min(at) as at, %(shift)s * interval '1 ms' as shift from "
    + _of_all("select at from usbgate.{table} where not clock and " + _OURS, _CORRECTED)
    + ") as rows"
)
_RIGHT = (
    f"select {_SPELLED.format(at='at')} from usbgate.reading where clock and {_OURS} order by seq {{order}} limit 1"
)
_NEAR = 10_000  # numbers


def correct(dsn: str, schema: Schema, gateway: str, dry_run: bool, say: Callable[[str], object]) -> None:
    """
    Correct all times that can be corrected, and print a line for each stretch.

    Args:
        dsn: The connection string of the database.
        schema: The schema of the tables.
        gateway: The name under which the rows were stored.
        dry_run: Whether to change nothing.
        say: Prints a line.

    Raises:
        DatabaseFailed: The database failed. Stretches for which a line was printed are corrected.
    """
    try:
        with connected(dsn) as connection:
            _Correction(connection, schema, gateway, dry_run, say).run()
    except (psycopg2.errors.UndefinedTable, psycopg2.errors.InvalidSchemaName):
        raise DatabaseFailed(f"the schema {schema.name} has no clock marks: usbgate has stored nothing in it") from None


class _Correction:
    def __init__(
        self, connection: Any, schema: Schema, gateway: str, dry_run: bool, say: Callable[[str], object]
    ) -> None:
        self._connection = connection
        self._schema = schema
        self._gateway = gateway
        self._dry_run = dry_run
        self._say = say
        self._newest = 0  # the highest number stored

    def run(self) -> None:
        ((self._newest,),) = self._query(_NEWEST)
        marks = [(seq, ClockMark(*mark)) for seq, *mark in self._query(_MARKS)]
        if not marks:
            self._say(f"the clock of gateway {self._gateway} is unknown: no clock mark is stored")
            return
        first = marks[0][0]
        older = self._counts(0, first - 1)
        if older:
            self._say(f"{older}, before number {first}: cannot be corrected: older than the first clock mark")
        found = bool(older)
        for stretch in plan(marks):
            last = self._newest if stretch.last is None else min(stretch.last, self._newest)
            found = self._correct(stretch.first, last, stretch.shift) or found
        if found:
            self._say("Rows that still wait in the journal are not included: run this again when they are stored.")
        else:
            self._say(f"nothing to correct: gateway {self._gateway} stored nothing before its clock was right")

    def _query(self, sql: str, **parameters: object) -> list[tuple[Any, ...]]:
        with self._connection, self._connection.cursor() as cursor:  # one transaction
            cursor.execute(self._schema.sql(sql), {"gateway": self._gateway, **parameters})
            rows: list[tuple[Any, ...]] = cursor.fetchall()
            return rows

    def _counts(self, first: int, last: int) -> str:
        """
        Return how many rows there are to correct, as text; empty for none.
        """
        counts = {table: self._query(_COUNT.format(table=table), first=first, last=last)[0][0] for table in _CORRECTED}
        return _spell(counts)

    def _correct(self, first: int, last: int, shift: int | None) -> bool:
        """
        Correct one stretch, or print why not. Return whether it has rows to correct.
        """
        if not self._counts(first, last):
            return False
        ((unbroken,),) = self._query(_UNBROKEN, first=first, last=last)
        if unbroken is not None:
            if behind := self._counts(unbroken + 1, last):
                self._say(
                    f"{behind}, after number {unbroken}: cannot be corrected: rows before them were lost, and perhaps "
                    f"a clock mark{self._between(unbroken, last)}"
                )
            last = unbroken
        if not (counts := self._counts(first, last)):
            return True
        if shift is None:
            self._say(
                f"{counts}, numbers {first} to {last}: cannot be corrected: the clock was never right in that boot"
                f"{self._between(first, last)}"
            )
        else:
            self._move(first, last, shift, counts)
        return True

    def _move(self, first: int, last: int, shift: int, counts: str) -> None:
        parameters = {"gateway": self._gateway, "first": first, "last": last, "shift": shift}
        ((before, after),) = self._query(_EARLIEST, **parameters)
        if not self._dry_run:
            moved = {}
            with self._connection, self._connection.cursor() as cursor:  # all of the stretch, or nothing
                for table in _CORRECTED:
                    cursor.execute(self._schema.sql(_MOVE.format(table=table)), parameters)
                    moved[table] = cursor.rowcount
            counts = _spell(moved) or "nothing"  # another run has corrected them
        self._say(
            f"{counts}, numbers {first} to {last}: {'would be ' if self._dry_run else ''}moved by {_duration(shift)} "
            f"(the earliest from {before} to {after})"
        )

    def _between(self, first: int, last: int) -> str:
        # The bounds that the order of all stored rows gives.
        times = {"after": self._nearest(first, -1), "before": self._nearest(last, 1)}
        bounds = [f"{word} {time}" for word, time in times.items() if time]
        return f"; by their order, they were stored {' and '.join(bounds)}" if bounds else ""

    def _nearest(self, number: int, direction: int) -> str | None:
        """
        Return the time of the next reading before or behind a number that has a right one.
        """
        # In growing steps: the index finds the readings between two numbers, but not the next one.
        width = _NEAR
        while 0 < number <= self._newest:
            first, last = sorted((number + direction, number + direction * width))
            if rows := self._query(_RIGHT.format(order="asc" if direction > 0 else "desc"), first=first, last=last):
                time: str = rows[0][0]
                return time
            number += direction * width
            width *= 4
        return None


def _spell(counts: Mapping[str, int]) -> str:
    found = [count(number, table.replace("_", " ")) for table, number in counts.items() if number]
    return " and ".join(filter(None, [", ".join(found[:-1]), *found[-1:]]))


def _duration(shift: int) -> str:
    sign, milliseconds = "-" if shift < 0 else "+", abs(shift)
    if milliseconds < 60_000:
        return f"{sign}{milliseconds / 1000:.3f} s"
    days, seconds = divmod(round(milliseconds / 1000), 86_400)
    spelled = str(timedelta(seconds=seconds))
    return f"{sign}{days:,} days {spelled}" if days else sign + spelled
