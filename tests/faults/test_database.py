"""
PostgreSQL is down, goes away, hangs or refuses: readings and answers continue, and nothing is lost.
"""

from __future__ import annotations

import contextlib  # `suppress` by its bare name means something else to trial
import itertools
import re
import shutil
import socket
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event, Thread
from typing import Any
from unittest import SkipTest

import psycopg2
from click.testing import CliRunner

from tests.faults.ledger import FULL, LedgerCase
from tests.support import postgresql
from tests.support.postgresql import OwnServer
from tests.support.running import RUN, LineClient, TwistdDaemon, environment
from tests.support.waiting import eventually
from usbgate.cli.main import main

_roles = itertools.count(1)


class DatabaseCase(LedgerCase):
    """
    A server that the test may disturb.

    Attributes:
        own: The server.
    """

    own: OwnServer

    def setUp(self) -> None:
        """
        Create the database.
        """
        server = postgresql.server()
        if not isinstance(server, OwnServer):
            raise SkipTest("the server that USBGATE_TEST_DATABASE names is not ours to disturb")
        self.own = server
        super().setUp()

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """
        Stop the server meanwhile.
        """
        self.own.stop()
        try:
            yield
        finally:
            eventually(self._started, "its port is free again")

    def _started(self) -> bool:
        # Meanwhile the kernel may have given its port to somebody's connection.
        with contextlib.suppress(RuntimeError):
            self.own.start()
            return True
        return False

    def sessions(self) -> list[int]:
        """
        Return the processes that serve usbgate in this database.
        """
        found = self.own.query(
            self.own.url,
            "select pid from pg_stat_activity where datname = %s and application_name like 'usbgate %%'",
            (self.database.rpartition("/")[2],),
        )
        return [pid for (pid,) in found]

    def connected(self) -> None:
        """
        Wait until the store is connected.
        """
        eventually(lambda: self.store()["STORE"] == "connected", "the store is connected")


class AwayTests(DatabaseCase):
    """
    The server can't be reached.
    """

    def test_down(self) -> None:
        """
        With the server down at the start, and stopped later, everything is stored when it is back, and catching up
        delays no answer.
        """
        with self.stopped():
            daemon = self.start()
            self.lives_on("refused")
        self.all_stored()
        with self.stopped():
            self.lives_on("refused", count=1_000_000 if FULL else 20_000)
        while int(self.store()["BACKLOG"]) > 100:  # each answer adds to it
            self.ask()
        self.all_stored()
        self.assertIn("the store is back after", daemon.log)
        self.assertNotIn("Traceback", daemon.log)

    def test_sessions_ended(self) -> None:
        """
        `pg_terminate_backend` while readings come, again and again, loses nothing.
        """
        daemon = self.start()
        self.connected()
        self.client.word("history 1")  # a session for reading, too
        for _ in range(50 if FULL else 2):
            before = self.sessions()
            self.say(50)
            for pid in before:
                self.own.query(self.own.url, "select pg_terminate_backend(%s)", (pid,))
            self.say(50)
            self.ask()
            self.connected_anew(before)
        self.all_stored()
        self.assertTrue(self.client.word("history 1")[-1].startswith("OK:history"))
        self.assertNotIn("Traceback", daemon.log)

    def connected_anew(self, before: list[int]) -> None:
        """
        Wait for a new session.
        """
        eventually(lambda: set(self.sessions()) - set(before), "it is connected again")

    def test_hangs(self) -> None:
        """
        While the server is stopped by SIGSTOP, requests are answered at once.
        """
        daemon = self.start()
        self.say(100)
        self.all_stored()
        with self.own.frozen():
            began = time.monotonic()
            while time.monotonic() - began < 1.0:
                self.lives_on(history="", count=100)
        self.all_stored()
        self.assertNotIn("Traceback", daemon.log)

    def test_hangs_long(self) -> None:
        """
        While a server hangs until it is given up, `history` fails; what it stored all the same is not doubled.
        """
        if not FULL:
            raise SkipTest("takes a minute: USBGATE_FAULTS=full")
        daemon = self.start()
        self.say(100)
        self.all_stored()
        with self.own.frozen():
            self.say(100)
            self.assertTrue(self.client.word("history 1")[0].startswith("ERROR:failed_TEXT:"))
            eventually(lambda: self.store()["STORE"] == "away", "it is given up", 60)
            self.lives_on("did not answer")
        self.all_stored()
        self.assertNotIn("Traceback", daemon.log)

    def test_no_connection_left(self) -> None:
        """
        Where others hold all connections, the storing one continues; if it is lost, readings wait.
        """
        daemon = self.start()
        self.say(100)
        self.all_stored()
        maintenance = psycopg2.connect(self.own.url)
        self.addCleanup(maintenance.close)
        maintenance.autocommit = True
        cursor = maintenance.cursor()
        hoard: list[Any] = []

        def hoarded() -> bool:
            # All that there are; of those that ended, each is free a moment later.
            try:
                hoard.append(psycopg2.connect(self.own.url))
            except psycopg2.OperationalError as error:
                return "too many clients" in str(error)
            return False

        try:
            self.client.word("history 1")  # so that there are two: one that stores, one that reads
            ended = "select pg_terminate_backend(pid) from pg_stat_activity where application_name like 'usbgate %'"
            cursor.execute(ended + " and pid not in (select pid from pg_locks where locktype = 'advisory')")
            self.assertEqual(cursor.rowcount, 1)
            eventually(hoarded, "no connection is left")
            self.lives_on(history="ERROR:failed_TEXT:")
            self.assertIn("too many clients", self.client.word("history 1")[0])
            eventually(lambda: self.store()["BACKLOG"] == "0", "it still stores")
            cursor.execute(ended)
            eventually(lambda: hoarded() and self.store()["STORE"] == "away", "its connection is another's now")
            self.lives_on("too many clients")
        finally:
            for connection in hoard:
                connection.close()
        self.all_stored()
        self.assertNotIn("Traceback", daemon.log)

    def test_slow_and_cut(self) -> None:
        """
        A slow network delays no answer; rows whose confirmation was lost are stored once.
        """
        way = Way(self.own)
        self.addCleanup(way.close)
        daemon = self.start(database=way.url(self.database))
        self.say(100)
        self.connected()
        way.delay = 0.2
        self.lives_on(history="ID:1_N:")
        way.delay = 0.0
        self.all_stored()
        for _ in range(20 if FULL else 1):
            self.swallow(way)
            way.cut()
            self.say(100)
            self.ask()
            self.all_stored()
        self.assertNotIn("Traceback", daemon.log)

    def swallow(self, way: Way) -> None:
        """
        Send a number that is stored, but whose confirmation is lost.
        """
        [(before,)] = self.rows("select count(*) from reading")
        way.swallowing.set()
        self.say(100)
        eventually(lambda: self.rows("select count(*) from reading")[0][0] > before, "it is stored")
        eventually(lambda: way.swallowed, "the confirmation was on its way")


class UnwillingTests(DatabaseCase):
    """
    The server is up, but refuses everything or something.
    """

    def test_read_only(self) -> None:
        """
        On a server that is read-only for a while, stored rows can be read, and nothing is lost.
        """
        daemon = self.start()
        self.say(100)
        self.all_stored()

        def read_only(setting: str) -> None:
            self.own.query(self.own.url, f"alter system set default_transaction_read_only = {setting}")
            self.own.query(self.own.url, "select pg_reload_conf()")
            eventually(
                lambda: self.own.query(self.own.url, "show default_transaction_read_only") == [(setting,)], "it is set"
            )

        self.addCleanup(read_only, "off")
        read_only("on")
        self.lives_on("read-only transaction", history="ID:1_N:")
        read_only("off")
        self.all_stored()
        self.assertNotIn("Traceback", daemon.log)

    def test_table_dropped(self) -> None:
        """
        A table that is dropped and restored loses no row.
        """
        daemon = self.start()
        self.say(100)
        self.all_stored()
        # In one transaction: what is stored between a copy and the drop would be lost by whoever did this.
        self.rows(
            "begin; create table saved (like reading including all);"
            "lock table reading; insert into saved select * from reading; drop table reading cascade; commit"
        )
        self.lives_on('relation "usbgate.reading" does not exist')
        self.rows("alter table saved rename to reading")
        self.all_stored()
        self.assertNotIn("Traceback", daemon.log)

    def test_right_withdrawn(self) -> None:
        """
        The right to write is withdrawn and granted again, and the daemon killed meanwhile: nothing is lost.

        The next one knows the newest that is stored, and what was in the journal as soon as that is stored, too.
        """
        name = f"usbgate_test_role_{next(_roles)}"
        self.own.query(self.own.url, f"create role {name} login password '{postgresql.PASSWORD}'")
        self.rows(f"grant create on database {self.database.rpartition('/')[2]} to {name}")
        database = re.sub("//[^@]*@", f"//{name}@", self.database)
        daemon = self.start(database=database)
        self.say(100)
        self.all_stored()
        self.rows(f"revoke insert on reading from {name}")
        self.lives_on("permission denied for table reading", history="ID:1_N:")
        eventually(self.on_disk, "all is in the journal")
        daemon.kill()
        daemon = self.start(database=database)
        self.newest_is(99)
        self.rows(f"grant insert on reading to {name}")
        self.all_stored()
        self.newest_is(self.said - 1)
        self.assertNotIn("Traceback", daemon.log)

    def on_disk(self) -> bool:
        """
        Return whether everything is in the journal: an answer and a request each time, and the clock mark.
        """
        with contextlib.closing(sqlite3.connect(self.state / "journal.sqlite")) as journal:
            return journal.execute("select n from journal").fetchall() == [(self.said + 2 * self.asked + 1,)]

    def newest_is(self, number: int) -> None:
        """
        Wait until this is the newest number known.
        """
        beginning = f"ID:1_N:{number}_"
        eventually(lambda: self.client.word("last 1")[0].startswith(beginning), f"{number} is the newest that is known")

    def test_rows_refused(self) -> None:
        """
        Of a batch with readings that PostgreSQL refuses, only those are rejected, with the reason.
        """
        self.database = self.own.create_database("LATIN1")
        daemon = self.start()
        self.connected()
        self.rows("alter table reading add constraint unlucky check (value is distinct from 13)")
        lines = [b"ID:1_N:%d" % n for n in range(400)]
        lines[100] = "ID:1_T:日本".encode()
        self.device.say(*lines)
        eventually(lambda: self.client.word("last 1 N")[0].startswith("ID:1_N:399_"), "all was read")
        eventually(lambda: self.store()["BACKLOG"] == "0", "all is stored or set aside")
        eventually(lambda: self.store()["REJECTED"] == "2", "two are set aside")
        self.assertEqual(
            self.rows("select value from reading order by seq"),
            [(float(n),) for n in range(400) if n not in (13, 100)],
        )
        first, second = self.rejected()  # a mark of the clock comes first
        self.assertRegex(first, r"^15 reading .* value=13.0 .*: .*unlucky")
        self.assertRegex(second, r"^102 reading .* text=日本 .*: .*LATIN1")
        self.rows("alter table reading drop constraint unlucky")
        self.assertEqual(self.rejected("--retry")[-1], "rows: 1 stored, 1 refused again")
        self.assertEqual(self.rows("select seq from reading where value = 13"), [(15,)])
        eventually(lambda: self.store()["REJECTED"] == "1", "one is left")
        self.device.say(b"ID:1_N:400")
        eventually(lambda: self.rows("select seq from reading where value = 400"), "storing goes on")
        self.assertNotIn("journal.sqlite", daemon.log)
        self.assertEqual(daemon.stop(), -15)
        (left,) = self.rejected()
        self.assertIn("日本", left)
        self.assertEqual(self.rows("select max(seq) from reading"), [(402,)])
        self.assertNotIn("Traceback", daemon.log)

    def rejected(self, *options: str) -> list[str]:
        """
        Run `usbgate rejected`; return the lines of its output.
        """
        where = ["--state", str(self.state), "--database", self.database]
        ran = CliRunner().invoke(main, ["rejected", *where, *options], env=environment())
        self.assertEqual(ran.stderr, "")
        return ran.stdout.splitlines()


class TwoDaemonsTests(DatabaseCase):
    """
    Two daemons with one gateway name.
    """

    def setUp(self) -> None:
        """
        Start the first daemon.
        """
        super().setUp()
        self.first = self.start()
        self.say(50)
        self.all_stored()
        self.second_device = self.plug(name="ttyACM1")

    def second(self, *options: str) -> tuple[TwistdDaemon, LineClient]:
        """
        Start another daemon with a state folder of its own.
        """
        daemon = TwistdDaemon(
            self.folder / "second",
            *("--device", str(self.second_device.path), "--database", self.database, *options),
            program=RUN,
        )
        self.addCleanup(daemon.stop)
        daemon.ready()
        return daemon, self.online(daemon)

    def refused(self) -> TwistdDaemon:
        """
        Start another daemon; `status` and the log must say why it stores nothing.
        """
        daemon, client = self.second()
        self.second_device.say(*[b"ID:2_N:%d" % n for n in range(50)])

        def says_so() -> bool:
            [store] = [line for line in client.word("status") if line.startswith("STORE:")]
            return "STORE:away" in store and "another usbgate holds the name" in store and "BACKLOG:51" in store

        eventually(says_so, f"it says so and keeps its readings: {client.word('status')}")
        self.assertTrue(client.word("ask 2")[0].startswith("ID:2_VALUE:456"))
        self.assertEqual(self.rows("select 1 from reading where sensor = '2'"), [])
        self.assertEqual(daemon.log.count("another usbgate holds the name"), 1)
        return daemon

    def stored_by_second(self) -> None:
        """
        Check that all readings of the second daemon are stored, in order.
        """
        sql = "select value from reading where sensor = '2' and field = 'N' order by seq"
        eventually(lambda: len(self.rows(sql)) == 50, "they are stored")
        self.assertEqual(self.rows(sql), [(float(n),) for n in range(50)])

    def test_first_ends(self) -> None:
        """
        When the first daemon has ended, the second continues under the name, with its own numbers.
        """
        daemon = self.refused()
        self.first.stop()
        self.stored_by_second()
        eventually(lambda: self.rows("select count(*) from request") == [(1,)], "its request is stored, too")
        self.assertEqual(
            self.rows(
                "select count(*) - count(distinct seq), count(distinct gateway)"
                " from (select seq, gateway from reading union all select seq, gateway from request) as rows"
            ),
            [(0, 1)],
        )
        self.assertEqual(self.rows("select count(*) from reading where sensor = '1'"), [(50,)])
        self.assertNotIn("Traceback", daemon.log)

    def test_name_of_its_own(self) -> None:
        """
        A second daemon that is restarted with its own name stores what it kept under that name.
        """
        self.refused().stop()
        settings = self.folder / "second.toml"
        settings.write_text('gateway = "second"\n')
        self.second("--config", str(settings))
        self.stored_by_second()
        self.assertEqual(
            self.rows("select distinct sensor, gateway = 'second' from reading order by sensor"),
            [("1", False), ("2", True)],
        )
        self.say(10)
        self.all_stored_by_first()

    def all_stored_by_first(self) -> None:
        """
        Check that the first daemon was not disturbed.
        """
        eventually(
            lambda: self.rows("select count(*) from reading where sensor = '1'") == [(self.said,)], "all is stored"
        )


class CopiedFolderTests(DatabaseCase):
    """
    A state folder that was copied.
    """

    def test_put_back(self) -> None:
        """
        A daemon whose state folder is put back from an older copy says so, stores what it reads under new numbers, and
        sends nothing again; a crash or a stop alone changes nothing.
        """
        daemon = self.start()
        self.say(20)
        self.all_stored()
        daemon.kill()
        self.start()
        self.say(20)
        self.all_stored()
        daemon = self.start_again()
        shutil.copytree(self.state, self.folder / "copy")
        self.say(20)
        self.all_stored()
        self.assertNotIn("continuing as a new journal", daemon.log)
        daemon.kill()
        shutil.rmtree(self.state)
        shutil.copytree(self.folder / "copy", self.state)
        for left in self.state.glob("*.pid"):
            left.unlink()
        daemon = self.start()
        self.say(20)
        self.all_stored()
        self.assertEqual(daemon.log.count("somebody else has stored under the name"), 1)
        self.assertNotIn("Traceback", daemon.log)

    def start_again(self) -> TwistdDaemon:
        """
        Stop the daemon, and start it.
        """
        self.daemon.stop()
        return self.start()

    def start(self, *options: str, database: str = "") -> TwistdDaemon:
        """
        Start a daemon; see `LedgerCase`.
        """
        self.daemon = super().start(*options, database=database)
        return self.daemon


class Way:
    """
    A network between usbgate and PostgreSQL that can be slow, lose replies, and be cut.

    Attributes:
        delay: Seconds of delay in each direction.
        swallowing: Whether replies are lost.
        swallowed: How many bytes were.
    """

    def __init__(self, server: OwnServer) -> None:
        parts = psycopg2.extensions.parse_dsn(server.url)
        self.delay = 0.0
        self.swallowing = Event()
        self.swallowed = 0
        self._to = (parts["host"], int(parts["port"]))
        self._from = parts["port"]
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._closed = False
        Thread(target=self._accept, daemon=True).start()

    def url(self, database: str) -> str:
        """
        Return the URL of a database over this network.
        """
        return database.replace(f":{self._from}/", f":{self._listening.getsockname()[1]}/")

    def cut(self) -> None:
        """
        End all connections; new ones work.
        """
        self.swallowing.clear()
        self.swallowed = 0
        pairs, self._pairs = self._pairs, []
        for end in itertools.chain.from_iterable(pairs):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """
        Stop it.
        """
        self._closed = True
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self.cut()

    def _accept(self) -> None:
        while not self._closed:
            try:
                near, _ = self._listening.accept()
            except OSError:
                return
            far = socket.create_connection(self._to)
            for end in (near, far):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._pairs.append((near, far))
            Thread(target=self._carry, args=(near, far, False), daemon=True).start()
            Thread(target=self._carry, args=(far, near, True), daemon=True).start()

    def _carry(self, source: socket.socket, target: socket.socket, back: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                time.sleep(self.delay)
                if back and self.swallowing.is_set():
                    self.swallowed += len(data)
                else:
                    target.sendall(data)
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_RDWR)
        source.close()
