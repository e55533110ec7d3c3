"""
The benchmark's own view of the stored rows.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import psycopg2

from tests.bench import child
from tests.support.postgresql import SEARCH_PATH

GATEWAY = "bench"  # the name under which daemons here store


class Database:
    """
    A database on the benchmark's server, and one connection to it.
    """

    def __init__(self, url: str, server_pid: Callable[[], int]) -> None:
        self.url = url
        self._server_pid = server_pid
        self.connect()

    def connect(self) -> None:
        """
        Connect, or connect again after the server was stopped.
        """
        self._connection = psycopg2.connect(self.url, options=SEARCH_PATH)
        self._connection.autocommit = True

    def close(self) -> None:
        """
        Close the connection.
        """
        self._connection.close()

    def query(self, sql: str, parameters: Mapping[str, object] | tuple[object, ...] = ()) -> list[tuple[Any, ...]]:
        """
        Run a statement; return its rows.
        """
        with self._connection.cursor() as cursor:
            cursor.execute(sql, parameters or None)
            return cursor.fetchall() if cursor.description else []

    def copy(self, sql: str, file: Any) -> None:
        """
        Run a `copy` from or to a file.
        """
        with self._connection.cursor() as cursor:
            cursor.copy_expert(sql, file, 1 << 18)

    @property
    def newest(self) -> int:
        """
        The number up to which all rows are stored; 0 if there are none. Polling it costs nothing.
        """
        rows = self.query("select base + n from gateway where name = %s", (GATEWAY,))
        return int(rows[0][0]) if rows else 0

    def wait_for(self, number: int, limit: float = 300.0, patience: float = 30.0) -> float:
        """
        Wait until the row with a number is stored; return the time.

        Args:
            number: Its number.
            limit: Seconds to wait.
            patience: Seconds to wait with nothing new.
        """
        begun = seen_at = time.monotonic()
        seen = -1
        while (newest := self.newest) < number:
            now = time.monotonic()
            if newest != seen:
                seen, seen_at = newest, now
            if now > begun + limit or now > seen_at + patience:
                raise AssertionError(f"of {number} rows {newest} were stored in {now - begun:.0f} s")
            time.sleep(0.02)
        return time.monotonic()

    @property
    def server_cpu(self) -> float:
        """
        The CPU seconds that the server has used, all of it.
        """
        return child.cpu(self._server_pid())
