"""
SQLite with the settings of a test, whatever the tested code asks for.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Mapping
from typing import Any

_SETTING = re.compile(r"pragma (\w+) = \w+")

# A -wal file this small is checkpointed all the time; by default it grows to 1,000 pages.
SMALL_WAL = {"wal_autocheckpoint": "12"}


def insist(settings: Mapping[str, str]) -> None:
    """
    Give all later connections of this process these settings, even if their owner sets others.
    """
    connect = sqlite3.connect

    class Connection(sqlite3.Connection):
        """
        A connection whose owner can't change these settings.
        """

        def execute(self, sql: str, parameters: Any = ()) -> sqlite3.Cursor:
            setting = _SETTING.fullmatch(sql)
            if setting is not None and setting[1] in settings:
                sql = _spell(setting[1])
            return super().execute(sql, parameters)

    def _spell(name: str) -> str:
        return f"pragma {name} = {settings[name]}"

    def connect_so(*args: Any, **options: Any) -> sqlite3.Connection:
        db: sqlite3.Connection = connect(*args, **options, factory=Connection)
        for name in settings:
            db.execute(_spell(name))
        return db

    sqlite3.connect = connect_so  # type: ignore[assignment]  # it has many more signatures
