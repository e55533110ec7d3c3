"""
The database's password, wherever it comes from: it is shown nowhere.
"""

from __future__ import annotations

import os
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

from click.testing import CliRunner
from psycopg2.extensions import parse_dsn

from tests.support import postgresql
from tests.support.daemon import RunningCase
from tests.support.running import RUN, TwistdDaemon, free_port
from tests.support.waiting import LIMIT, eventually
from usbgate.cli.main import main

SECRET = "m0ffne"  # in each of the passwords, which the server refuses

WORDS = ("status", "devices", "sensors", "history 1", "requests", "malformed", "alarms since=1d")
PATHS = ("healthz", "metrics", "api/v1/status", "api/v1/devices", "api/v1/readings?sensor=1", "api/v1/alarms/history")


class SecretTests(RunningCase):
    """
    Daemons that cannot log in to the database, each with a password from another source.
    """

    def start(self, name: str, config: str) -> tuple[TwistdDaemon, int]:
        """
        Start a daemon; return it with the port of its page.
        """
        file, port, http = self.folder / f"{name}.toml", free_port(), free_port()
        own = f'listen = ["tcp:{port}:interface=127.0.0.1"]\nhttp = "tcp:{http}:interface=127.0.0.1"\n'
        file.write_text(f'{own}{config}\n[device.uno]\npath = "/nonexistent"\n')
        daemon = TwistdDaemon(self.folder / name, "--config", str(file), port=port, http=None, program=RUN)
        self.addCleanup(daemon.stop)
        return daemon, http

    def shown(self, daemon: TwistdDaemon, port: int) -> dict[str, str]:
        """
        Return all that a daemon shows, as soon as it has tried to connect.
        """
        client = self.administer(daemon.ready())
        eventually(lambda: "_TEXT:" in client.word("status")[1], "the database cannot be used")
        shown = {word: "\n".join(client.word(word)) for word in WORDS}
        for path in PATHS:
            try:
                with urlopen(f"http://127.0.0.1:{port}/{path}", timeout=LIMIT) as response:
                    shown[path] = response.read().decode()
            except HTTPError as error:
                with error:
                    shown[path] = error.read().decode()
        shown["ps"] = Path(f"/proc/{daemon.process.pid}/cmdline").read_text()
        for file in daemon.state.rglob("*"):
            if file.is_file():
                shown[file.name] = file.read_bytes().decode("latin-1")
        doctor = ["--config", str(daemon.state.with_suffix(".toml")), "doctor", "--state", str(daemon.state)]
        for name in ("doctor", "doctor alone"):
            shown[name] = CliRunner().invoke(main, doctor, env={"XDG_CONFIG_HOME": "/nonexistent"}).output
            self.assertIn("problem  database", shown[name])
            daemon.stop()
        shown["log"] = daemon.log
        return shown

    def test_nowhere(self) -> None:
        """
        No reply, log, file, error or command line has it: from a URL, from words, from a file, from a password file of
        libpq, or from the environment, whether the server refuses it or is not there.
        """
        server = parse_dsn(postgresql.server().url)
        host, port = server["host"], server["port"]
        password, passwords = self.folder / "password", self.folder / ".pgpass"
        password.write_text("Sesam0ffne\n")
        passwords.write_text(f"{host}:{port}:x:me:Sesam0ffne\n")
        passwords.chmod(0o600)
        url = f"postgresql://me@{host}:{port}/x"
        self.patch(os, "environ", {**os.environ, "PGPASSFILE": str(passwords)})
        os.environ.pop("PGPASSWORD", None)
        started = [
            self.start("url", f'database = "postgresql://me:Ses%40m0ffne@{host}:{port}/x"'),
            self.start("words", "database = \"host=127.0.0.1 port=1 dbname=x user=me password='Ses m0ffne'\""),
            self.start("file", f'[database]\nurl = "{url}"\npassword_file = "password"'),
            self.start("pgpass", f'database = "{url}"'),
        ]
        os.environ["PGPASSWORD"] = "Sesam0ffne"
        started.append(self.start("environment", f'database = "{url}"'))
        for daemon, page in started:
            shown = self.shown(daemon, page)
            self.assertIn("journal.sqlite", shown)
            self.assertEqual([name for name, text in shown.items() if SECRET in text], [], daemon.state.name)

    def test_malformed(self) -> None:
        """
        A malformed URL ends the start with one line, without it.
        """
        for number, url in enumerate(("postgresql://me:Ses%m0ffne@h/x", "postgresql://me:Ses/m0ffne@h:1/x")):
            daemon, _ = self.start(f"malformed{number}", f'database = "{url}"')
            self.assertEqual(daemon.process.wait(LIMIT), 1)
            self.assertRegex(daemon.log, r"\Ausbgate: [^\n]*: database: expected [^\n]*\n\Z")
            self.assertNotIn(SECRET, daemon.log)
