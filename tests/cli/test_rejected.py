"""
`usbgate rejected`: a real journal file, and a real database in which some rows have been refused.
"""

from __future__ import annotations

import csv
import json
import shutil
import tempfile
import uuid
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result
from twisted.trial.unittest import SynchronousTestCase

from tests.support import postgresql
from usbgate.cli.main import main
from usbgate.core import batch
from usbgate.store.interfaces import Refusal
from usbgate.store.journal import rejected
from usbgate.store.journal.file import JournalFile
from usbgate.store.postgres import migrations
from usbgate.store.postgres.names import Schema
from usbgate.testing import AT, readings, request_record

BASE = 100  # what is added to the journal's numbers


class RejectedTests(SynchronousTestCase):
    """
    A gateway named `pi`, whose daemon does not run, in a schema with an odd name.
    """

    schema = "Home 'x'"

    def setUp(self) -> None:
        """
        Create the tables, and a journal of which three rows were refused: two readings and a request.
        """
        self.server = postgresql.server()
        self.url = self.server.create_database()
        self.query("create schema usbgate")
        for sql in migrations.steps_by_version().values():
            self.query(sql)
        self.query(f"alter schema usbgate rename to {Schema(self.schema).quoted}")
        # The bodies of functions name the schema.
        self.query(f"drop function {Schema(self.schema).quoted}.advance")
        self.state = Path(tempfile.mkdtemp(prefix="usbgate-test-"))
        self.addCleanup(shutil.rmtree, self.state)
        (self.state / "gateway").write_text("pi\n")
        config = self.state / "usbgate.toml"
        config.write_text(f'schema = "{self.schema}"\n')
        self.options = ["--config", str(config), "rejected", "--state", str(self.state), "--database", self.url]
        self.file = JournalFile(self.state / "journal.sqlite")
        self.file.open()
        self.addCleanup(self.file.close)
        self.journal = str(uuid.uuid4())
        self.file.begin(self.journal, BASE, batch.START)
        bad = [readings(5, 1)[0]._replace(text="high"), readings(6, 1)[0]._replace(device="a b\x00")]
        self.refuse(batch.encode(5, bad), "value too high")
        self.refuse(batch.encode(7, [request_record(origin="TOTO", device=None)]), 'violates "x"')
        self.file.write([], batch.Mark(8, "c"))

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        """
        Ask the database; the tables are found without their schema.
        """
        return self.server.query(self.url, f"set search_path = {Schema(self.schema).quoted}; {sql}")

    def refuse(self, rows: batch.Batch, reason: str) -> None:
        """
        Set rows aside, as the daemon does.
        """
        while rows.rows > 1:
            first, rows = batch.halve(rows)
            self.refuse(first, reason)
        self.file.reject([Refusal(rows, reason)])

    def run_command(self, *options: str) -> Result:
        """
        Run the command.
        """
        return CliRunner().invoke(main, [*self.options, *options])

    def left(self) -> list[int]:
        """
        Return the numbers of the rows that are still in the journal, as the daemon counts them.
        """
        exported = self.run_command("--export", "json").stdout
        numbers = [json.loads(line)["seq"] for line in exported.splitlines()]
        self.file.refresh()
        self.assertEqual(self.file.rejected, len(numbers))
        return numbers

    def test_list(self) -> None:
        """
        Each row is one line with its number, its table, what is in it, and when and why it was refused.
        """
        result = self.run_command()
        first, second, third = result.stdout.splitlines()
        at = AT + 5
        self.assertTrue(first.startswith(f"105 reading at={at} device="), first)
        self.assertRegex(first, r" value=5.0 text=high .*; refused at 20\d\d-\d\d-\d\dT[0-9:.]+Z: value too high$")
        self.assertIn(r'device="a b\u0000"', second)
        self.assertRegex(third, r'^107 request .* origin=TOTO .*: violates "x"$')
        self.assertNotIn("device=", third)
        self.assertEqual(result.exit_code, 0)

    def test_export(self) -> None:
        """
        JSON and CSV have all columns; a null is distinct from an empty text only in JSON; every line is one row.
        """
        self.file.reject([Refusal(batch.encode(8, [readings(8, 1)[0]._replace(text="", device='\ud800,"x')]), "a\nb")])
        exported = [json.loads(line) for line in self.run_command("--export", "json").stdout.splitlines()]
        self.assertEqual([row["seq"] for row in exported], [105, 106, 107, 108])
        self.assertEqual((exported[0]["table"], exported[0]["row"]["text"]), ("reading", "high"))
        self.assertEqual((exported[0]["row"]["at"], exported[0]["row"]["command"]), (str(AT + 5), None))
        self.assertEqual((exported[2]["row"]["device"], exported[2]["row"]["origin"]), (None, "TOTO"))
        self.assertEqual((exported[3]["row"]["device"], exported[3]["row"]["text"]), ('\ud800,"x', ""))
        rows = list(csv.DictReader(self.run_command("--export", "csv").stdout.splitlines(keepends=True)))
        self.assertEqual([row["seq"] for row in rows], ["105", "106", "107", "108"])
        self.assertEqual((rows[0]["value"], rows[0]["command"], rows[2]["origin"]), ("5.0", "", "TOTO"))
        self.assertEqual((rows[3]["device"], rows[3]["reason"]), ('\\ud800,"x', "a\nb"))

    def test_retry(self) -> None:
        """
        What the database accepts now is stored under its old number and leaves the list; what it refuses again stays,
        with the new reason. A second attempt stores nothing twice.
        """
        self.query("insert into gateway values ('pi', gen_random_uuid(), 0, 0, '')")  # of another journal
        for _ in range(2):
            result = self.run_command("--retry")
            self.assertEqual(result.exit_code, 1)
            refused, counts = result.stdout.splitlines()
            self.assertIn("106 reading ", refused)
            self.assertIn("refused again: A string literal cannot contain NUL", refused)
            self.assertIn("1 refused again", counts)
            self.assertEqual(self.left(), [106])
        self.assertIn("NUL", self.run_command().stdout)
        self.assertEqual(self.query("select gateway, seq, value, text from reading"), [("pi", 105, 5.0, "high")])
        self.assertEqual(self.query("select gateway, seq, origin, device from request"), [("pi", 107, "TOTO", None)])

    def test_constraint(self) -> None:
        """
        A constraint that still holds, even one that is checked at the commit, refuses its rows only.
        """
        self.query(
            "create table site (id text primary key); alter table reading add constraint known "
            "foreign key (text) references site deferrable initially deferred"
        )
        result = self.run_command("--retry")
        self.assertIn("known", result.stdout)
        self.assertEqual(self.left(), [105, 106])
        self.query("insert into site values ('high')")
        self.run_command("--retry")
        self.assertEqual(self.left(), [106])

    def test_interrupted(self) -> None:
        """
        A row that an earlier attempt stored, without removing it from the journal, is recognized, even if its time was
        corrected since.
        """
        (row,) = readings(5, 1)
        self.run_command("--retry")
        self.query("update reading set at = at + interval '1 day', clock = not clock")
        self.refuse(batch.encode(5, [row._replace(text="high")]), "value too high")
        result = self.run_command("--retry")
        self.assertIn("1 stored before", result.stdout)
        self.assertEqual(self.left(), [106])
        self.assertEqual(self.query("select count(*) from reading"), [(1,)])

    def test_number_of_another_row(self) -> None:
        """
        A row whose number another row has, in any table, is not stored, and stays.
        """
        (row,) = readings(5, 1)
        self.run_command("--retry")
        self.refuse(batch.encode(5, [row._replace(text="another")]), "value too high")
        self.refuse(batch.encode(7, [row]), "value too high")
        result = self.run_command("--retry")
        self.assertEqual(result.exit_code, 1)
        self.assertIn("105 reading ", result.stdout)
        self.assertIn("another row of gateway pi has this number", result.stdout)
        self.assertEqual(self.left(), [105, 106, 107])
        self.assertEqual(self.query("select text from reading"), [("high",)])

    def test_batch_that_is_not_stored(self) -> None:
        """
        While the daemon may still send a row's batch, the row is left to it: the database knows how far this journal
        is stored, or else the file does.
        """
        self.refuse(batch.encode(9, readings(9, 1)), "too many")
        self.assertIn("of a batch that the daemon has not stored yet", self.run_command("--retry").stdout)
        self.assertEqual(self.left(), [106, 109])
        self.refuse(batch.encode(7, [request_record(origin="TOTO", device=None)]), "once more")
        self.query(f"insert into gateway values ('pi', '{self.journal}', {BASE}, 6, '')")
        result = self.run_command("--retry")
        self.assertIn("2 of a batch that the daemon has not stored yet", result.stdout)
        self.assertEqual((result.exit_code, self.left()), (1, [106, 107, 109]))
        self.query("update gateway set n = 9")
        self.run_command("--retry")
        self.assertEqual(self.left(), [106])

    def test_many(self) -> None:
        """
        However many there are, they are read and stored in pages.
        """
        self.patch(rejected, "PAGE", 3)
        for number in range(8, 28):
            self.refuse(batch.encode(number, readings(number, 1)), "too many")
        self.file.write([], batch.Mark(28, "c"))
        self.assertEqual(len(self.run_command().stdout.splitlines()), 23)
        self.assertIn("22 stored, 1 refused again", self.run_command("--retry").stdout)
        self.assertEqual(self.left(), [106])

    def test_no_trouble_for_the_daemon(self) -> None:
        """
        To a daemon that has the journal open, nothing happened to its file.
        """
        self.run_command("--retry")
        self.assertIs(self.file.problem(), None)
        self.file.write([batch.encode(9, readings(9, 1))], batch.START)
        self.assertEqual(self.left(), [106])

    def test_nothing(self) -> None:
        """
        An empty list is said to be empty, and is no error.
        """
        with_rows = rejected.RejectedRows(self.state / "journal.sqlite")
        self.addCleanup(with_rows.close)
        for page in with_rows.pages():
            with_rows.settle(page, [])
        for options in ([], ["--retry"]):
            result = self.run_command(*options)
            self.assertEqual((result.exit_code, result.stdout), (0, "the database has refused nothing\n"))

    def test_wrong(self) -> None:
        """
        Whatever keeps the command from its work is one line; it creates nothing, and loses nothing.
        """
        nowhere = self.state / "nowhere"
        for options, part, status in (
            (["--retry", "--export", "csv"], "exclude each other", 64),
            (["--export", "xml"], "'xml' is not one of", 64),
            (["--state", str(nowhere)], f"there is no journal {nowhere}", 1),
            (["--retry", "--database", "postgresql://127.0.0.1:1/x"], "the database cannot be used: ", 1),
            (["--retry", "--database", "embedded"], "does not run", 1),
            (["--retry", "--database", self.server.create_database()], "is not complete", 1),
        ):
            result = self.run_command(*options)
            self.assertEqual((result.exit_code, result.output.count("\n")), (status, 1), result.output)
            self.assertIn(part, result.output)
        self.assertFalse(nowhere.exists())
        self.assertEqual(self.left(), [105, 106, 107])
        (self.state / "broken").mkdir()
        (self.state / "broken" / "journal.sqlite").write_bytes(b"no database" * 500)
        self.assertIn("cannot be used: ", self.run_command("--state", str(self.state / "broken")).output)
