"""
`usbgate database move`: a daemon that stores meanwhile, and copies that are interrupted.
"""

from __future__ import annotations

import os
import uuid
from contextlib import ExitStack
from pathlib import Path
from threading import Event, Thread

import psycopg2
from click.testing import CliRunner
from psycopg2.extensions import parse_dsn

from tests.support import postgresql
from tests.support.daemon import RunningCase, StoreCase
from tests.support.waiting import eventually
from usbgate.cli import move
from usbgate.cli.database import DatabaseFailed, connected
from usbgate.cli.main import main
from usbgate.cli.move import Move, complete
from usbgate.config.load import load
from usbgate.store.embedded.postmaster import PidFile
from usbgate.store.postgres.migrations import creation
from usbgate.store.postgres.names import Schema


class DaemonTests(RunningCase):
    """
    The command, with the embedded database.
    """

    def test_moved(self) -> None:
        """
        While a device reports, everything moves; each reading is there once, in order, and later ones follow.
        After a restart, the old server no longer runs, and the daemon stores in the new place.
        """
        server = postgresql.server()
        target = server.create_database()
        device = self.plug()
        daemon = self.run_daemon("--device", str(device.path))
        client = self.online(daemon)
        device.say(*[f"ID:7_TEMP:{number}".encode() for number in range(500)])
        eventually(lambda: len(client.word("history 7 limit=500")) == 501, "the readings are stored")

        sent = [500]
        ended = Event()

        def report() -> None:
            while not ended.is_set():
                device.say(f"ID:7_TEMP:{sent[0]}".encode())
                eventually(lambda: client.word("last 7 TEMP")[0].startswith(f"ID:7_TEMP:{sent[0]}_"), "it was read")
                sent[0] += 1

        reporting = Thread(target=report)
        reporting.start()
        self.patch(move, "RANGE", 50)
        environ = {"XDG_CONFIG_HOME": "/nonexistent"}
        command = ["database", "move", target, "--state", str(self.state)]
        result = CliRunner().invoke(main, command, env=environ)
        before = sent[0]
        eventually(lambda: sent[0] > before + 5, "reports go on")
        ended.set()
        reporting.join()
        self.assertEqual(result.exit_code, 0, result.output)
        self.assertIn("the daemon stores there.", result.output)

        def stored() -> list[float]:
            return [value for (value,) in server.query(target, "select value from usbgate.reading order by seq")]

        eventually(lambda: len(stored()) >= sent[0], f"all is stored: {daemon.log}")
        self.assertEqual(stored(), [float(number) for number in range(sent[0])])
        self.assertEqual((self.state / "database").stat().st_mode & 0o777, 0o600)
        again = CliRunner().invoke(main, command, env=environ)
        self.assertEqual(again.exit_code, 1)
        self.assertIn("nothing to move", again.stderr)

        client.close()
        daemon.stop()
        daemon = self.run_daemon("--device", str(device.path), port=daemon.port)
        client = self.online(daemon)
        device.say(b"ID:7_TEMP:9999")
        eventually(lambda: stored()[-1] == 9999, "a later reading is stored there")
        self.assertIsNone(PidFile.read(self.state / "postgres" / "data"))


class CopyTests(StoreCase):
    """
    Two databases of one server, without a daemon.
    """

    def setUp(self) -> None:
        """
        Store 100 readings and 100 requests of one gateway, and 10 readings of another one that has no position.
        """
        super().setUp()
        self.source = self.server.create_database()
        for statement in creation(Schema()):
            self.server.query(self.source, statement)
        self.journal = str(uuid.uuid4())
        self.server.query(
            self.source,
            "insert into usbgate.gateway values ('pi', %s, 0, 200, 'c');"
            "insert into usbgate.reading select now(), 'pi', 2 * i, 'uno', (i %% 7)::text, 'VALUE', 'nan',"
            " E'\\\\x\\t', null, true from generate_series(1, 100) as i;"
            "insert into usbgate.request select now(), 'pi', 2 * i - 1, 'a', 'b', null, '1', 'J', null, 'answered',"
            " 1.5, true from generate_series(1, 100) as i;"
            "insert into usbgate.reading select now(), 'attic', i, 'uno', '1', 'VALUE', i, null, null, true"
            " from generate_series(1, 10) as i",
            (self.journal,),
        )
        self.patch(move, "RANGE", 30)
        self.moved = 0

    def move(self, most: int = 1000) -> None:
        """
        Move everything, or fail after so many numbers.
        """
        left = most

        def progress(numbers: int) -> None:
            nonlocal left
            left -= numbers
            if left <= 0:
                raise KeyboardInterrupt

        def finished() -> None:
            self.moved += 1

        with ExitStack() as connections:
            old, new = (connections.enter_context(connected(each)) for each in (self.source, self.database))
            going = Move(old, new, Schema())
            going.prepare()
            self.expected = going.left
            while going.left > move.RANGE:
                going.copy(progress)
                going.look()
            going.finish(progress, finished)

    def assert_same(self) -> None:
        """
        Check that both databases have the same rows.
        """
        for table in ("gateway", "reading", "request"):
            sql = f"select t::text from usbgate.{table} as t order by 1"
            self.assertEqual(self.server.query(self.database, sql), self.server.query(self.source, sql), table)

    def test_resumed(self) -> None:
        """
        A move that was interrupted continues where it was, and one that was complete changes nothing.
        """
        with self.assertRaises(KeyboardInterrupt):
            self.move(most=60)
        self.assertEqual(self.moved, 0)
        self.assertEqual(self.server.query(self.database, "select * from usbgate.gateway"), [])
        self.move()
        self.assertLessEqual(self.expected, 150)
        self.assert_same()
        self.server.query(self.source, "update usbgate.gateway set n = 201, chain = 'd'")
        self.move()
        self.assertEqual((self.expected, self.moved), (1, 2))
        self.assert_same()

    def test_sessions(self) -> None:
        """
        The sessions of daemons have ended before these are to connect elsewhere, and so have those that came since:
        when the lock is released, none of their statements runs here, however the command ends.
        """
        sessions = "select count(*) from pg_stat_activity where datname = %s and application_name = 'usbgate journal'"

        def daemon() -> None:
            connection = psycopg2.connect(self.source, application_name="usbgate journal")
            self.addCleanup(connection.close)

        def have_ended() -> bool:
            ((count,),) = self.server.query(self.database, sessions, (parse_dsn(self.source)["dbname"],))
            return bool(count == 0)

        def moved() -> None:
            eventually(have_ended, "the first session has ended")
            daemon()

        daemon()
        self.assertFalse(have_ended())
        with ExitStack() as connections:
            old, new = (connections.enter_context(connected(each)) for each in (self.source, self.database))
            going = Move(old, new, Schema())
            going.prepare()
            going.finish(lambda numbers: None, moved)
            eventually(have_ended, "so has the second one")

    def test_refused(self) -> None:
        """
        A database in which another gateway of that name stores is left alone; one that lacks rows is not taken.
        """
        with self.assertRaises(KeyboardInterrupt):
            self.move(most=60)
        self.server.query(self.database, "delete from usbgate.reading where gateway = 'pi' and seq = 2")
        with self.assertRaisesRegex(DatabaseFailed, "110 rows of reading here, but 109 there"):
            self.move()
        self.assertEqual(self.moved, 0)
        self.server.query(self.database, "insert into usbgate.gateway values ('pi', gen_random_uuid(), 0, 5, 'x')")
        with self.assertRaisesRegex(DatabaseFailed, "another gateway pi stores there"):
            self.move()

    def test_nothing(self) -> None:
        """
        A database in which nothing was stored yet need not be moved.
        """
        self.source = self.server.create_database()
        with self.assertRaisesRegex(DatabaseFailed, "nothing is stored yet"):
            self.move()

    def test_password(self) -> None:
        """
        A password on the command line, which everybody can read, is refused with the remedies, here and by the other
        commands; nothing shows it. The daemon gets the one that was asked for, or that came from elsewhere.
        """
        for command in (["database", "move"], ["correct-clock", "--database"], ["rejected", "--database"]):
            result = CliRunner().invoke(main, [*command, "postgresql://me:ses%ame@db/home"])
            self.assertEqual(result.exit_code, 1)
            self.assertIn("has a password, which every user", result.stderr)
            self.assertIn("PGPASSFILE", result.stderr)
            self.assertNotIn("ame@", result.output)
        url, expected = self.database, parse_dsn(self.database)
        if "password" not in expected and (used := os.environ.get("PGPASSWORD")):
            expected["password"] = used
        with connected(url) as there:
            self.assertEqual(parse_dsn(complete(url, there)), expected)

    def test_kept(self) -> None:
        """
        The state folder keeps where the embedded database went; a configured one goes before that.
        """
        self.state.mkdir()
        move.keep(self.state, "postgresql://u@host/home")
        self.assertEqual([path.name for path in self.state.iterdir()], ["database"])
        config = Path(self.folder, "usbgate.toml")
        for line, database in (
            ("", "postgresql://u@host/home"),
            ('database = "embedded"', "postgresql://u@host/home"),
            ('database = "none"', "none"),
        ):
            config.write_text(f'state = "state"\n{line}\n')
            self.assertEqual(load(config).database, database)
