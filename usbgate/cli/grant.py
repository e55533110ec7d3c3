"""
Roles that may only read (`usbgate database grant` and `revoke`, protocol §5). Everything here blocks.
"""

from __future__ import annotations

import os
import secrets
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg2
from psycopg2.extensions import make_dsn, parse_dsn

from usbgate.cli.database import DatabaseFailed, connected, find_database
from usbgate.config.settings import Settings
from usbgate.store.embedded.cluster import DATABASE
from usbgate.store.embedded.postmaster import LOOPBACK, PORT_FILE, PidFile, read_port
from usbgate.store.postgres.names import Schema, quoted

READERS = "usbgate_reader"  # the role to which all roles belong that may only read

CONNECTIONS = 5  # of each role: the embedded server allows 20 in all, and the daemon needs some
QUERY_LIMIT = "60s"  # for a query, so that a forgotten one does not slow down a small computer for ever

# Who may come over the port: members of `READERS`, never the superuser.
RULES = f"""\
# Written by `usbgate database grant`. The socket lies in a private folder.
local all all trust
host {DATABASE} +{READERS} {LOOPBACK}/32 scram-sha-256
"""

RESTART_LIMIT = 30.0  # seconds
POLL = 0.05

_EXISTS = "select 1 from pg_roles where rolname = %s"
_IS_READER = """
    select 1 from pg_auth_members join pg_roles as r on r.oid = roleid join pg_roles as m on m.oid = member
    where r.rolname = %s and m.rolname = %s
"""
_READER_NAMES = """
    select m.rolname from pg_auth_members join pg_roles as r on r.oid = roleid join pg_roles as m on m.oid = member
    where r.rolname = %s order by 1
"""
_END_SESSIONS = "select pg_terminate_backend(pid) from pg_stat_activity where usename = %s"


def grant(dsn: str, schema: Schema, measures: str | None, name: str, with_password: bool) -> str:
    """
    Create a role that may read, or give an existing one a new password.

    Args:
        dsn: The database, for a role that may create others.
        schema: The schema of the tables.
        measures: The view, `SCHEMA.NAME`; None if there is none.
        name: The role.
        with_password: Whether it gets a password.

    Returns:
        Its connection string.

    Raises:
        DatabaseFailed: The database cannot be used, nothing is stored in it yet, or the role is somebody else's.
    """
    password = secrets.token_urlsafe(18) if with_password else None
    try:
        with connected(dsn) as connection, connection, connection.cursor() as cursor:
            for statement, parameters in _statements(cursor, schema, measures, name, password):
                cursor.execute(statement, parameters)
            own = connection.get_dsn_parameters()
    except (psycopg2.errors.UndefinedTable, psycopg2.errors.InvalidSchemaName):
        raise DatabaseFailed("nothing is stored yet; grant rights when the daemon has connected") from None
    given = {**parse_dsn(dsn), "user": name, "dbname": own["dbname"]}
    given.pop("password", None)
    return make_dsn(**given, **({} if password is None else {"password": password}))


def _statements(
    cursor: Any, schema: Schema, measures: str | None, name: str, password: str | None
) -> Iterator[tuple[str, tuple[object, ...] | None]]:
    readers, role = quoted(READERS), quoted(name)
    cursor.execute(_EXISTS, (READERS,))
    if not cursor.fetchone():
        yield f"create role {readers} nologin", None
    cursor.execute(_EXISTS, (name,))
    if not cursor.fetchone():
        yield f"create role {role} login connection limit {CONNECTIONS} in role {readers}", None
    else:
        cursor.execute(_IS_READER, (READERS, name))
        if not cursor.fetchone():
            raise DatabaseFailed(f"there is a role {name} that was not created by this command; choose another name")
    if password is not None:
        yield f"alter role {role} password %s", (password,)
    yield f"alter role {role} set default_transaction_read_only = on", None
    yield f"alter role {role} set statement_timeout = '{QUERY_LIMIT}'", None
    yield f"grant usage on schema {schema.quoted} to {readers}", None
    yield f"grant select on all tables in schema {schema.quoted} to {readers}", None
    yield f"alter default privileges in schema {schema.quoted} grant select on tables to {readers}", None
    if measures is not None:
        view = quoted(*measures.split(".", 1))
        cursor.execute("select to_regclass(%s)", (view,))
        if cursor.fetchone()[0] is not None:
            yield f"grant select on {view} to {readers}", None


def revoke(dsn: str, name: str) -> list[str]:
    """
    Remove a role that `grant` created, and end its sessions.

    Args:
        dsn: The database, for a role that may remove others.
        name: The role.

    Returns:
        The roles that are left.

    Raises:
        DatabaseFailed: The database cannot be used, there is no such role, or it owns something there.
    """
    with connected(dsn) as connection, connection, connection.cursor() as cursor:
        cursor.execute(_READER_NAMES, (READERS,))
        names = [row[0] for row in cursor.fetchall()]
        if name not in names:
            there = f"it has created: {', '.join(names)}" if names else "it has created none that is left"
            raise DatabaseFailed(f"there is no role {name} that `database grant` has created; {there}")
        cursor.execute(f"alter role {quoted(name)} nologin")
        connection.commit()  # so that it can't come back in between
        cursor.execute(_END_SESSIONS, (name,))
        cursor.execute(f"drop role {quoted(name)}")
    return [other for other in names if other != name]


def open_port(settings: Settings, dsn: str, port: int) -> str:
    """
    Let the embedded server listen on a port of the loopback interface, too; it restarts if it does not yet.

    Args:
        settings: The configuration.
        dsn: How the role connects by the socket.
        port: The port.

    Returns:
        How the role connects by the port.

    Raises:
        DatabaseFailed: The port is taken, or the server does not restart.
    """
    data = settings.state / "postgres" / "data"
    server = PidFile.read(data)
    if server is not None and read_port(data.parent) != port:
        _check_free(port)
        file = os.path.realpath(data.parent / PORT_FILE)
        with connected(find_database(settings)) as connection, connection.cursor() as cursor:
            connection.autocommit = True
            # Written by the server: the files are its own user's, and this process may be root.
            cursor.execute("select current_setting('hba_file')")
            _write(cursor, cursor.fetchone()[0], RULES)
            _write(cursor, file, f"{port}\n")
        os.kill(server.pid, signal.SIGINT)  # its fast shutdown; the daemon starts it again
        _await_port(settings, server.pid, port)
    parts = {key: value for key, value in parse_dsn(dsn).items() if key not in ("host", "port")}
    return make_dsn(**parts, host=LOOPBACK, port=port)


def _check_free(port: int) -> None:
    with socket.socket() as channel:
        channel.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            channel.bind((LOOPBACK, port))
        except OSError as error:
            raise DatabaseFailed(f"port {port} cannot be used: {error.strerror}; choose another one") from None


def _write(cursor: Any, path: str, text: str) -> None:
    rows = ", ".join(["(%s)"] * len(text.splitlines()))
    cursor.execute(f"copy (values {rows}) to %s", (*text.splitlines(), path))


def _await_port(settings: Settings, old: int, port: int) -> None:
    data = settings.state / "postgres" / "data"
    deadline = time.monotonic() + RESTART_LIMIT
    while True:
        server = PidFile.read(data)
        if server is not None and server.pid != old and server.ready and server.port == str(port):
            return
        if time.monotonic() > deadline:
            undo = f"rm {Path(data.parent, PORT_FILE)}"
            raise DatabaseFailed(f"the embedded database has not restarted with port {port}; to undo it: {undo}")
        time.sleep(POLL)
