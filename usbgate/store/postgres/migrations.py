"""
Schema migrations (protocol §5) and the advisory locks that exclude concurrent daemons.
"""

from __future__ import annotations

import hashlib
import re
from importlib.resources import files

from twisted.logger import Logger

from usbgate.store.interfaces import SinkUnavailable
from usbgate.store.postgres.session import Session

_log = Logger()


def lock_key(text: str) -> int:
    """
    Return the advisory lock key for a text, specific to usbgate.
    """
    return int.from_bytes(hashlib.sha256(b"usbgate " + text.encode()).digest()[:8], "big", signed=True)


async def migrate(session: Session, limit: float, step_limit: float) -> None:
    """
    Migrate the schema to the newest version, atomically.

    Args:
        session: An open session.
        limit: Timeout of a short statement, in seconds.
        step_limit: Timeout of a step, and of waiting for another daemon's migration, in seconds.

    Raises:
        SinkUnavailable: The schema belongs to a newer usbgate, or a statement timed out.
        psycopg2.Error: The database refused a statement.
    """
    steps = steps_by_version()
    newest = max(steps)
    version = await _version(session, limit)
    if version > newest:
        raise SinkUnavailable(
            f"the database belongs to a newer usbgate: its schema has version {version}, this usbgate supports {newest}"
        )
    if version == newest:
        return
    # After waiting for another daemon, its changes must be visible.
    await session.run("begin isolation level read committed", None, limit)
    await session.run("set local statement_timeout = %s", (f"{step_limit:.0f}s",), limit)
    await session.run("select pg_advisory_xact_lock(%s)", (lock_key("schema"),), step_limit)
    # Unlike `to_regclass`, this reads the catalog as it is now, in the middle of a transaction.
    await session.run(
        "create table if not exists usbgate_schema "
        "(version integer primary key, applied timestamptz not null default now())",
        None,
        limit,
    )
    version = await _version(session, limit)
    for number, sql in steps.items():
        if number > version:
            await session.run(sql, None, step_limit)
            await session.run("insert into usbgate_schema (version) values (%s)", (number,), limit)
    await session.run("commit", None, limit)
    _log.info("migrated the database's schema to version {version}", version=newest)


def steps_by_version() -> dict[int, str]:
    """
    Return the SQL of each migration, the file `schema/NNNN.sql`, by the version to which it leads.
    """
    steps = [path for path in (files(__package__) / "schema").iterdir() if re.fullmatch(r"\d{4}\.sql", path.name)]
    return {int(path.name[:4]): path.read_text("utf-8") for path in sorted(steps, key=lambda path: path.name)}


async def _version(session: Session, limit: float) -> int:
    ((exists,),) = await session.run("select to_regclass('usbgate_schema') is not null", None, limit)
    if not exists:
        return 0
    ((version,),) = await session.run("select coalesce(max(version), 0) from usbgate_schema", None, limit)
    return int(version)
