"""
`usbgate database grant`: a daemon with the embedded database, and another server.
"""

from __future__ import annotations

import os
from contextlib import closing

import psycopg2
from click.testing import CliRunner, Result

from tests.support.daemon import RunningCase, StoreCase
from tests.support.running import free_port
from tests.support.waiting import eventually
from usbgate.cli.main import main


class GrantCase(RunningCase):
    """
    Runs the command, and uses what it says.
    """

    def grant(self, *arguments: str) -> Result:
        """
        Run the command.
        """
        return CliRunner().invoke(main, ["database", "grant", *arguments], env={"XDG_CONFIG_HOME": "/nonexistent"})

    def revoke(self, *arguments: str) -> Result:
        """
        Remove a role.
        """
        return CliRunner().invoke(main, ["database", "revoke", *arguments], env={"XDG_CONFIG_HOME": "/nonexistent"})

    def granted(self, *arguments: str) -> str:
        """
        Run the command; return the connection string.
        """
        result = self.grant(*arguments)
        self.assertEqual(result.exit_code, 0, result.output)
        return result.stdout.strip()

    def read(self, dsn: str, sql: str) -> list[tuple[object, ...]]:
        """
        Query the database.
        """
        connection = psycopg2.connect(dsn)
        try:
            with connection.cursor() as cursor:
                cursor.execute(sql)
                return list(cursor.fetchall())
        finally:
            connection.close()

    def assert_reads_only(self, dsn: str) -> None:
        """
        Check that a role can read all tables, and change none, even outside of a read-only transaction.
        """
        self.assertEqual(self.read(dsn, "select value from public.measures")[:1], [(456.0,)])
        self.assertTrue(self.read(dsn, "select * from usbgate.gateway"))
        for change in ("update usbgate.gateway set n = 0", "create table public.mine ()"):
            with self.assertRaises(psycopg2.errors.InsufficientPrivilege):
                self.read(dsn, f"set transaction read write; {change}")


class EmbeddedTests(GrantCase):
    """
    The embedded database.
    """

    def test_granted(self) -> None:
        """
        A role reads by the socket, or by a port with its password; nobody else comes over the port. The server restarts
        for that and nothing is lost. The port is kept when the daemon starts again. A role that is removed reads
        nothing more, nor does its open connection.
        """
        device = self.plug()
        daemon = self.run_daemon("--device", str(device.path))
        client = self.online(daemon)

        def store(count: int) -> None:
            self.assertTrue(client.word("ask 20")[0].startswith("ID:20_VALUE:456"))
            eventually(lambda: len(client.word("history 20")) == count + 1, "the reading is stored")

        store(1)
        state = ("--state", str(self.state))
        by_socket = self.granted("web", *state)
        self.assertIn(f"host={self.state}/postgres/socket", by_socket)
        self.assert_reads_only(by_socket)

        port = str(free_port())
        by_port = self.granted("web", *state, "--port", port)
        self.assertIn(f"port={port}", by_port)
        self.assert_reads_only(by_port)
        again = self.granted("web", *state, "--port", port)  # without a restart
        self.assert_reads_only(again)
        for dsn in (by_port, f"host=127.0.0.1 port={port} user=usbgate dbname=usbgate password=x"):
            with self.assertRaises(psycopg2.OperationalError):
                self.read(dsn, "select 1")
        store(2)

        client.close()
        daemon.stop()
        self.run_daemon("--device", str(device.path), port=daemon.port)

        def is_up() -> bool:
            try:
                return len(self.read(again, "select * from usbgate.reading")) == 2
            except psycopg2.OperationalError:
                return False

        eventually(is_up, "the server listens on its port again")

        self.granted("grafana", *state)
        with closing(psycopg2.connect(again)) as open_session:
            result = self.revoke("web", *state)
            self.assertEqual(result.output, "web can no longer read. Others can: grafana.\n")
            with self.assertRaises(psycopg2.OperationalError):
                open_session.cursor().execute("select 1")
        with self.assertRaises(psycopg2.OperationalError):
            self.read(again, "select 1")
        result = self.revoke("web", *state)
        self.assertEqual(result.exit_code, 1)
        self.assertIn("no role web that `database grant` has created; it has created: grafana", result.output)
        self.assertIn(f"Nobody needs port {port} any more", self.revoke("grafana", *state).output)


class OwnServerTests(GrantCase, StoreCase):
    """
    A server of one's own.
    """

    def test_granted(self) -> None:
        """
        A role gets a password; one that is not usbgate's is left alone, and so is a database without tables.
        """
        config = self.folder / "usbgate.toml"
        config.write_text(f'database = "{self.database}"\n')
        role, foreign = f"web_{os.getpid()}", f"foreign_{os.getpid()}"
        arguments = ("--config", str(config))
        result = self.grant(role, *arguments)
        self.assertEqual((result.exit_code, result.stdout), (1, ""))
        self.assertIn("nothing is stored yet", result.stderr)
        daemon = self.run_daemon("--device", str(self.plug().path), "--database", self.database)
        client = self.online(daemon)
        client.word("ask 20")
        eventually(lambda: self.rows("select id from public.measures"), "the reading is stored")

        self.addCleanup(self.server.query, self.database, f"drop role if exists {foreign}")
        self.server.query(self.database, f"create role {foreign}")
        result = self.grant(foreign, *arguments)
        self.assertEqual(result.exit_code, 1)
        self.assertIn(f"there is a role {foreign} that was not created", result.stderr)
        self.assertEqual(self.grant(role, *arguments, "--port", "5433").exit_code, 64)

        self.addCleanup(self.server.query, self.database, f"drop role if exists {role}")
        dsn = self.granted(role, *arguments)
        self.assert_reads_only(dsn)
        self.assertEqual(self.revoke(foreign, *arguments).exit_code, 1)
        self.assertEqual(self.revoke(role, *arguments).exit_code, 0)
