"""
The database of the configuration, for commands that use it themselves. Everything here blocks.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

import psycopg2
from psycopg2.extensions import make_dsn

from usbgate.config.settings import Settings
from usbgate.store.embedded.cluster import DATABASE, USER
from usbgate.store.embedded.postmaster import PidFile, is_server_of
from usbgate.store.interfaces import SinkUnavailable
from usbgate.store.postgres.session import scrub, with_password

CONNECT_LIMIT = 10  # seconds


class DatabaseFailed(Exception):
    """
    The database cannot be used; the text says why, in one line.
    """


@contextmanager
def connected(dsn: str) -> Iterator[Any]:
    """
    Connect to the database, and close the connection in the end.

    Args:
        dsn: The connection string.

    Raises:
        DatabaseFailed: It cannot be reached, or fails later; not if a table or the schema is missing.
    """
    try:
        with closing(psycopg2.connect(dsn, connect_timeout=CONNECT_LIMIT, application_name="usbgate")) as connection:
            connection.set_client_encoding("UTF8")
            yield connection
    except (psycopg2.errors.UndefinedTable, psycopg2.errors.InvalidSchemaName):
        raise
    except psycopg2.Error as error:
        reason = scrub(" ".join(str(error).split()), dsn)
        raise DatabaseFailed(f"the database cannot be used: {reason}") from None


def find_database(settings: Settings) -> str:
    """
    Return the connection string of the configured database, or of the embedded server if it runs.

    Raises:
        DatabaseFailed: No database is configured, or the embedded server does not run.
    """
    if settings.database == "none":
        raise DatabaseFailed("nothing is stored: the setting `database` is none")
    if settings.database != "embedded":
        try:
            return with_password(settings.database, settings.password_file)
        except SinkUnavailable as error:
            raise DatabaseFailed(str(error)) from None
    data = settings.state / "postgres" / "data"
    server = PidFile.read(data)
    if server is None or not server.ready or not is_server_of(server.pid, data):
        raise DatabaseFailed(
            f"the embedded database in {settings.state} does not run; start the daemon, which starts it"
        )
    return make_dsn(host=server.socket_folder, port=server.port, user=USER, dbname=DATABASE)
