"""
The times of what is stored are corrected, on a real PostgreSQL.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

from click.testing import CliRunner
from twisted.trial.unittest import SynchronousTestCase

from tests.support import postgresql
from tests.support.folders import new_folder
from usbgate.cli.correct_clock import correct
from usbgate.cli.database import DatabaseFailed, find_database
from usbgate.cli.main import main
from usbgate.config.load import load
from usbgate.store.postgres import migrations
from usbgate.store.postgres.names import Schema


class CorrectionTests(SynchronousTestCase):
    """
    Rows as a gateway leaves them, written by hand: a number's time is its number, in seconds, by a clock that is wrong.
    """

    def setUp(self) -> None:
        """
        Make a database with the tables.
        """
        self.server = postgresql.server()
        self.url = self.server.create_database()
        self.query("create schema usbgate")
        for sql in migrations.steps_by_version().values():
            self.query(sql)
        self.said: list[str] = []

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        """
        Ask the database.
        """
        return self.server.query(self.url, sql)

    def mark(self, seq: int, at: float, uptime: float, clock: bool, boot: str = "a") -> None:
        """
        Store a mark.
        """
        self.query(
            f"insert into clock_mark (at, gateway, seq, uptime, boot, clock)"
            f" values (to_timestamp({at}), 'pi', {seq}, {uptime}, '{boot}', {clock})"
        )

    def readings(self, first: int, last: int, clock: bool = False, gateway: str = "pi") -> None:
        """
        Store readings.
        """
        self.query(
            "insert into reading (at, gateway, seq, device, sensor, field, value, clock)"
            f" select to_timestamp(n), '{gateway}', n, 'tty', '20', 'VALUE', n, {clock}"
            f" from generate_series({first}, {last}) as n"
        )

    def request(self, seq: int, clock: str = "false") -> None:
        """
        Store a request.
        """
        self.query(
            "insert into request (at, gateway, seq, origin, client, sensor, command, outcome, latency_ms, clock)"
            f" values (to_timestamp({seq}), 'pi', {seq}, 'o', 'c', '20', 'J', 'answered', 1, {clock})"
        )

    def shifts(self) -> dict[int, int]:
        """
        Tell by how many seconds the rows of this gateway are away from where they were stored, and are marked as right.
        """
        found = self.query(
            "select seq, extract(epoch from at), clock from reading where gateway = 'pi'"
            " union all select seq, extract(epoch from at), clock from request"
        )
        for seq, at, clock in found:
            self.assertEqual(clock is False, at == seq and clock is not None, (seq, at, clock))
        return {seq: round(at - seq) for seq, at, _ in found if at != seq}

    def correct(self, dry_run: bool = False) -> list[str]:
        """
        Correct, and give what is said.
        """
        said: list[str] = []
        correct(self.url, Schema(), "pi", dry_run, said.append)
        return said

    def test_name_kept(self) -> None:
        """
        The command corrects the rows of the gateway whose name the state folder keeps.
        """
        state = new_folder()
        (state / "gateway").write_text("attic\n")
        arguments = ["correct-clock", "--database", self.url, "--state", str(state)]
        result = CliRunner().invoke(main, arguments, env={"XDG_CONFIG_HOME": "/nonexistent"})
        self.assertIn("the clock of gateway attic is unknown", result.output)

    def test_moved(self) -> None:
        """
        A stretch is moved as a whole, readings and requests; not twice; nothing else is; what comes later is, later.
        """
        self.mark(1, 1, 1, False)
        self.readings(2, 5)
        self.request(6)
        self.mark(8, 1010, 10, True)  # 7 was set aside
        self.readings(2, 5, gateway="attic")
        before = self.query("select * from reading order by gateway, seq")
        expected = (
            "4 readings and 1 request, numbers 1 to 7: would be moved by +0:16:40 (the earliest from "
            "1970-01-01 00:00:02 UTC to 1970-01-01 00:16:42 UTC)"
        )
        self.assertEqual(self.correct(dry_run=True)[0], expected)
        self.assertEqual(self.query("select * from reading order by gateway, seq"), before)
        self.shifts()
        # It was 1010 when the machine's own clock was 10, and 1 when that was 1: behind by 1000.
        self.assertEqual(self.correct()[0], expected.replace("would be ", ""))
        self.assertEqual(self.shifts(), dict.fromkeys([2, 3, 4, 5, 6], 1000))
        self.assertEqual(self.correct(), ["nothing to correct: gateway pi stored nothing before its clock was right"])
        self.assertEqual(self.query("select count(*) from reading where gateway = 'attic' and not clock"), [(4,)])
        self.request(7)
        said = self.correct()
        self.assertTrue(said[0].startswith("1 request, numbers 1 to 7: moved by +0:16:40 "), said)
        self.assertEqual(self.shifts(), dict.fromkeys([2, 3, 4, 5, 6, 7], 1000))

    def test_not_known(self) -> None:
        """
        Where no mark tells, nothing is moved; it is said what is known by the order.
        """
        self.mark(1, 1, 1, True, "before")
        self.readings(2, 3, clock=True)
        self.mark(4, 1, 1, False, "a")
        self.readings(5, 6)
        self.mark(7, 7, 7, True, "after")
        self.readings(8, 9, clock=True)
        self.assertEqual(
            self.correct()[0],
            "2 readings, numbers 4 to 6: cannot be corrected: the clock was never right in that boot; by their "
            "order, they were stored after 1970-01-01 00:00:03 UTC and before 1970-01-01 00:00:08 UTC",
        )
        self.assertEqual(self.query("select count(*) from reading where not clock"), [(2,)])

    def test_far_away(self) -> None:
        """
        A clock can be anywhere.
        """
        self.mark(1, 1000, 1, True)
        self.mark(2, 500_000_000_000, 2, False)  # the year 17,814
        self.query(
            "insert into reading (at, gateway, seq, device, sensor, field, value, clock)"
            " values (to_timestamp(500000000000), 'pi', 3, 'tty', '20', 'VALUE', 1, false)"
        )
        self.assertIn("(the earliest from 17814-05-16", self.correct()[0])
        self.assertEqual(self.query("select extract(epoch from at)::int, clock from reading"), [(1001, True)])

    def test_lost_rows(self) -> None:
        """
        Behind rows that were lost, a mark may be missing: what comes there is left alone, and said.
        """
        self.mark(1, 1001, 1, True)
        self.mark(2, 2, 2, False)
        self.readings(3, 4)
        self.readings(7, 9)
        said = self.correct()
        self.assertTrue(said[0].startswith("3 readings, after number 4: cannot be corrected: rows before"))
        self.assertTrue(said[1].startswith("2 readings, numbers 2 to 4: moved by +0:16:40 "))
        self.assertEqual(self.query("select seq from reading where not clock order by 1"), [(7,), (8,), (9,)])

    def test_older_than_marks(self) -> None:
        """
        Rows before the first mark are left alone.
        """
        self.assertIn("the clock of gateway pi is unknown", self.correct()[0])
        self.readings(1, 2)
        self.mark(4, 1004, 4, True)
        self.assertIn("2 readings, before number 4: cannot be corrected", self.correct()[0])
        self.assertEqual(self.query("select extract(epoch from at)::int, clock from reading"), [(1, False), (2, False)])

    def test_no_database(self) -> None:
        """
        What is wrong with the database is one line.
        """
        for url in ("postgresql://127.0.0.1:1/none", "nonsense", "postgresql://[", self.url + "-not"):
            with self.assertRaises(DatabaseFailed) as caught:
                correct(url, Schema(), "pi", False, self.said.append)
            self.assertNotIn("\n", str(caught.exception))
        self.query("drop table clock_mark")
        with self.assertRaises(DatabaseFailed) as caught:
            self.correct()
        self.assertIn("has no clock marks", str(caught.exception))
        self.assertEqual(self.said, [])


class FindTests(SynchronousTestCase):
    """
    Where the database is.
    """

    def test_find(self) -> None:
        """
        It is where the configuration says; an embedded one that does not run is said, and so is none.
        """
        state = Path(tempfile.mkdtemp(prefix="usbgate-test-"))
        self.addCleanup(shutil.rmtree, state)
        for database, expected in (("embedded", "does not run"), ("none", "nothing is stored")):
            with self.assertRaises(DatabaseFailed) as caught:
                find_database(load(None, state=str(state), database=database))
            self.assertIn(expected, str(caught.exception))
        url = "postgresql://somewhere/else"
        self.assertEqual(find_database(load(None, state=str(state), database=url)), url)
