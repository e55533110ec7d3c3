"""
Schema migrations (protocol §5) and the advisory locks that exclude concurrent daemons.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from importlib.resources import files
from typing import NamedTuple

from psycopg2.errors import DuplicateFunction, DuplicateObject, DuplicateTable, InsufficientPrivilege
from twisted.logger import Logger

from usbgate.store.interfaces import SinkUnavailable
from usbgate.store.postgres.names import Schema, quoted
from usbgate.store.postgres.session import DatabaseSession, one_line

_log = Logger()


def lock_key(text: str) -> int:
    """
    Return the advisory lock key for a text, specific to usbgate.
    """
    return int.from_bytes(hashlib.sha256(b"usbgate " + text.encode()).digest()[:8], "big", signed=True)


class _Found(NamedTuple):
    """
    What is there: the role and the database by their names, and whether they have the schema and its table of versions.
    """

    role: str
    database: str
    schema: bool
    versions: bool


# Unlike `to_regclass`, this needs no rights, and reads the catalog as it is now, in the middle of a transaction.
_FIND = """
    select current_user::text, current_database()::text, exists (select from pg_namespace where nspname = %(schema)s),
        exists (
            select from pg_class join pg_namespace on pg_namespace.oid = relnamespace
            where nspname = %(schema)s and relname = 'usbgate_schema'
        )
"""

_VERSIONS = """create table usbgate.usbgate_schema
    (version integer primary key, applied timestamptz not null default now());
comment on table usbgate.usbgate_schema is 'The versions of these tables.';
comment on column usbgate.usbgate_schema.version is 'The number of the version';
comment on column usbgate.usbgate_schema.applied is 'When it was created'"""
_VERSION = "select coalesce(max(version), 0) from usbgate.usbgate_schema"


async def migrate(session: DatabaseSession, schema: Schema, limit: float, step_limit: float) -> None:
    """
    Create the schema, or migrate it to the newest version, atomically.

    Args:
        session: An open session.
        schema: The schema.
        limit: Timeout of a short statement, in seconds.
        step_limit: Timeout of a step, and of waiting for another daemon's migration, in seconds.

    Raises:
        SinkUnavailable: The schema belongs to a newer usbgate or to something else, the role has no right to create it,
            or a statement timed out.
        psycopg2.Error: The database refused a statement.
    """
    found = await _find(session, schema, limit)
    if found.versions and await _version(session, schema, limit) == max(steps_by_version()):
        return
    # After waiting for another daemon, its changes must be visible.
    await session.run("begin isolation level read committed", None, limit)
    await session.run("set local statement_timeout = %s", (f"{step_limit:.0f}s",), limit)
    await session.run("select pg_advisory_xact_lock(%s)", (lock_key("schema"),), step_limit)
    found = await _find(session, schema, limit)
    if not found.schema:
        await _create(session, schema, found, limit)
    try:
        if not found.versions:
            await session.run(schema.sql(_VERSIONS), None, limit)
        version = await _version(session, schema, limit)
        for number, sql in steps_by_version().items():
            if number > version:
                await session.run(schema.sql(sql), None, step_limit)
                insert = schema.sql("insert into usbgate.usbgate_schema (version) values (%s)")
                await session.run(insert, (number,), limit)
    except (DuplicateTable, DuplicateFunction, DuplicateObject) as error:
        raise SinkUnavailable(
            f"the schema {schema.name} holds something else: {one_line(error)}; choose another name: schema = …"
        ) from error
    await session.run("commit", None, limit)
    _log.info("migrated the schema {schema} to version {version}", schema=schema.name, version=max(steps_by_version()))


async def lacks_rights(
    session: DatabaseSession, schema: Schema, error: InsufficientPrivilege, limit: float
) -> SinkUnavailable:
    """
    Return an error that says what a role may not do, and what gives it the right.

    Args:
        session: The session, outside of a transaction or in one that failed.
        schema: The schema.
        error: The database's error.
        limit: Timeout of a statement, in seconds.
    """
    await session.run("rollback", None, limit)
    found = await _find(session, schema, limit)
    role = quoted(found.role)
    return SinkUnavailable(
        f"{one_line(error)}; as its owner, run: grant all on schema {schema.quoted} to {role}; "
        f"grant all on all tables in schema {schema.quoted} to {role}"
    )


async def _create(session: DatabaseSession, schema: Schema, found: _Found, limit: float) -> None:
    try:
        await session.run(f"create schema {schema.quoted}", None, limit)
    except InsufficientPrivilege as error:
        raise SinkUnavailable(
            f"the role {found.role} may not create the schema {schema.name} in the database {found.database}; as the "
            f"owner of the database, run: create schema {schema.quoted} authorization {quoted(found.role)}"
        ) from error


def steps_by_version() -> dict[int, str]:
    """
    Return the SQL of each migration, the file `schema/NNNN.sql`, by the version to which it leads.
    """
    steps = [path for path in (files(__package__) / "schema").iterdir() if re.fullmatch(r"\d{4}\.sql", path.name)]
    return {int(path.name[:4]): path.read_text("utf-8") for path in sorted(steps, key=lambda path: path.name)}


def creation(schema: Schema) -> Iterator[str]:
    """
    Yield the statements that create the schema in its newest version, in a database that does not have it.
    """
    yield f"create schema if not exists {schema.quoted}"
    yield schema.sql(_VERSIONS)
    for number, sql in steps_by_version().items():
        yield schema.sql(sql)
        yield schema.sql(f"insert into usbgate.usbgate_schema (version) values ({number})")


async def _find(session: DatabaseSession, schema: Schema, limit: float) -> _Found:
    (row,) = await session.run(_FIND, {"schema": schema.name}, limit)
    return _Found(*row)


async def _version(session: DatabaseSession, schema: Schema, limit: float) -> int:
    newest = max(steps_by_version())
    ((version,),) = await session.run(schema.sql(_VERSION), None, limit)
    if version > newest:
        raise SinkUnavailable(
            f"the schema {schema.name} belongs to a newer usbgate: it has version {version}, this usbgate supports "
            f"{newest}"
        )
    return int(version)
