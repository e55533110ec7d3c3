"""
`usbgate rules` and `usbgate rules test`.
"""

from __future__ import annotations

import json
import shutil

from click.testing import CliRunner, Result
from twisted.trial.unittest import SynchronousTestCase

from tests.support import postgresql
from tests.support.folders import new_folder
from tests.support.standin import replying
from usbgate.cli.main import main
from usbgate.store.postgres import migrations

RULES = [
    "RULE:smoke_STATE:true_LAST:2013-03-11T21:02:10.123Z_FIRED:1_WAITING:2_TEXT:sensor 2 SMOKE == 1",
    "RULE:night_STATE:unknown_FIRED:0_WAITING:0_DROPPED:3_TROUBLE:no route_TEXT:time 22:00-06:00",
]

CONFIGURATION = """
gateway = "pi"

[sensor.2.field.TEMP]
offset = -10
max = 100

[[rule]]
name = "smoke"
when = "sensor 2 SMOKE == 1"
alarm = true

[[rule]]
name = "hot"
when = "sensor 2 TEMP > 50"
alarm = true
"""

READINGS = """
    insert into usbgate.reading (at, gateway, seq, device, sensor, field, value, text, clock) values
    (now() - interval '8d', 'pi', 1, 'uno', '2', 'SMOKE', 1, null, true),
    (now() - interval '3h', 'pi', 2, 'uno', '2', 'SMOKE', 0, null, true),
    (now() - interval '2h', 'pi', 3, 'uno', '2', 'SMOKE', 1, null, true),
    (now() - interval '2h', 'pi', 4, 'uno', '2', 'TEMP', 59, null, true),
    (now() - interval '1h', 'pi', 5, 'uno', '2', 'TEMP', 61, '61°C', true),
    (now() - interval '1h', 'pi', 6, 'uno', '3', 'SMOKE', 0, null, true),
    (now() - interval '55m', 'pi', 9, 'uno', '77', 'SMOKE', 0, null, true),
    (now() - interval '54m', 'pi', 10, 'uno', '77', 'SMOKE', 1, null, true),
    (now() - interval '1h', 'other', 6, 'uno', '2', 'SMOKE', 0, null, true),
    (now() - interval '50m', 'pi', 12, 'uno', '2', 'TEMP', 20, null, true),
    (now() - interval '40m', 'pi', 13, 'uno', '2', 'TEMP', 200, null, true);
    insert into usbgate.replacement_event (at, gateway, seq, sensor, successor, device, event, since, who, clock) values
    (now(), 'pi', 11, '2', '77', 'uno', 'replaced', now() - interval '56m', 'x', true)
"""


class ListTests(SynchronousTestCase):
    """
    Of the daemon, which is a stand-in.
    """

    def run_command(self, *arguments: str, rules: list[str] = RULES) -> Result:
        """
        Run the command.
        """
        with replying({"sensors": [], "rules": rules}) as (port, _):
            return CliRunner().invoke(main, ["rules", *arguments, "--host", "127.0.0.1", "-p", str(port)])

    def test_table(self) -> None:
        """
        Each rule is a row.
        """
        result = self.run_command()
        self.assertRegex(
            result.stdout,
            r"RULE +HOLDS +FIRED +LAST +WAITING +WHEN\n"
            r"smoke +yes +1 +.* ago +2 +sensor 2 SMOKE == 1\n"
            r"night +unknown +0 +never +time 22:00-06:00\n"
            r"night: no route\nnight: 3 actions dropped, since too many waited\n",
        )
        self.assertEqual(result.exit_code, 0)

    def test_json(self) -> None:
        """
        The same for programs.
        """
        first, second = json.loads(self.run_command("--json").stdout)
        self.assertEqual(
            (first["name"], first["holds"], first["last"], first["waiting"]),
            ("smoke", True, "2013-03-11T21:02:10.123Z", 2),
        )
        self.assertEqual((second["holds"], second["last"], second["fired"]), (None, None, 0))

    def test_none(self) -> None:
        """
        That there is none is said.
        """
        self.assertIn("no rule is configured", self.run_command(rules=[]).stderr)


class TestTests(SynchronousTestCase):
    """
    Of stored readings, in a real PostgreSQL.
    """

    def setUp(self) -> None:
        server = postgresql.server()
        self.url = server.create_database()
        server.query(self.url, "create schema usbgate")
        for sql in migrations.steps_by_version().values():
            server.query(self.url, sql)
        server.query(self.url, READINGS)
        self.folder = new_folder()
        self.addCleanup(shutil.rmtree, self.folder)
        self.file = self.folder / "usbgate.toml"
        self.file.write_text(CONFIGURATION)

    def run_command(self, *arguments: str) -> Result:
        """
        Run the command.
        """
        state = str(self.folder / "state")
        options = ["--config", str(self.file), "rules", "test", "--database", self.url, "--state", state]
        return CliRunner().invoke(main, [*options, *arguments])

    def test_fired(self) -> None:
        """
        What would have fired is printed with its readings as they are shown, those of a successor included;
        implausible ones and those of others do not count.
        """
        result = self.run_command()
        lines = [line[line.index("  ") + 2 :] for line in result.stdout.splitlines()]
        self.assertEqual(lines, ["smoke: 2 SMOKE 1", "hot: 2 TEMP 51°C", "smoke: 2 SMOKE 1"])
        self.assertIn("2 rules, 3 firings since ", result.stderr)
        self.assertEqual(len(self.run_command("--since", "9d").stdout.splitlines()), 4)

    def test_one(self) -> None:
        """
        A single rule can be tested; an unknown one is an error that suggests another.
        """
        ((firing),) = json.loads(self.run_command("hot", "--json").stdout)
        self.assertEqual(firing["readings"], [{"sensor": "2", "field": "TEMP", "value": 51.0, "text": "51°C"}])
        result = self.run_command("smok")
        self.assertEqual((result.exit_code, result.stdout), (1, ""))
        self.assertIn("no rule is called smok; did you mean smoke?", result.stderr)

    def test_nothing(self) -> None:
        """
        No rule, a wrong one, and no tables are one line each.
        """
        self.file.write_text("")
        self.assertIn("has no tables [[rule]]", self.run_command().stderr)
        self.file.write_text(CONFIGURATION.replace("SMOKE ==", "SMOKE ="))
        self.assertIn("rule smoke: when, column 16: expected a comparison", self.run_command().stderr)
        self.file.write_text('schema = "elsewhere"\n' + CONFIGURATION)
        self.assertIn("usbgate has stored nothing in the schema elsewhere", self.run_command().stderr)
