"""
Test cases that run the daemon, without and with a database.
"""

from __future__ import annotations

import shutil
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.support import forkserver, postgresql
from tests.support.folders import new_folder
from tests.support.running import RUN, Answer, LineClient, PtyDevice, TwistdDaemon, environment
from tests.support.waiting import LIMIT, eventually


def value_of(fields: dict[str, str]) -> list[bytes]:
    """
    Answer as the original firmware does: the id and a value.
    """
    return [f"ID:{fields['ID']}_VALUE:456".encode()]


class RunningCase(SynchronousTestCase):
    """
    A folder for each test. Whatever is started by these methods ends with the test.
    """

    def setUp(self) -> None:
        """
        Create the folder; the user of the embedded server must be able to enter it.
        """
        self.folder = new_folder()
        self.folder.chmod(0o755)
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)
        self.state = self.folder / "state"

    def plug(self, answer: Answer = value_of, name: str = "ttyACM0") -> PtyDevice:
        """
        Plug a device in until the end of the test.
        """
        device = PtyDevice(self.folder / name, answer)
        self.addCleanup(device.unplug)
        return device

    def run_daemon(self, *options: str, port: int | None = None) -> TwistdDaemon:
        """
        Run a forked daemon until the end of the test.
        """
        daemon = TwistdDaemon(self.state, *options, port=port, program=RUN)
        self.addCleanup(daemon.stop)
        return daemon.ready()

    def run_forked(self, code: str, *arguments: str) -> tuple[int, str]:
        """
        Run code in a forked process, which has imported the daemon's modules; return its exit status and its output.
        """
        with (self.folder / "forked.log").open("w+b") as output:
            process = forkserver.fork(code, arguments, environment(), output.fileno())
            self.addCleanup(process.kill)
            status = process.wait(LIMIT)
            output.seek(0)
            return status, output.read().decode()

    def connect(self, daemon: TwistdDaemon) -> LineClient:
        """
        Connect to it until the end of the test.
        """
        client = LineClient(daemon.port)
        self.addCleanup(client.close)
        return client

    def administer(self, daemon: TwistdDaemon) -> LineClient:
        """
        Connect to it until the end of the test, and authenticate with the local token.
        """
        client = self.connect(daemon)
        self.assertEqual(client.word(f"auth {daemon.local_token()}")[-1], "OK:auth")
        return client

    def online(self, daemon: TwistdDaemon) -> LineClient:
        """
        Connect, and wait until all devices of the daemon are online.
        """
        client = self.connect(daemon)
        devices: list[str] = []

        def are_online() -> bool:
            devices[:] = client.word("devices")[:-1]
            return all("_STATE:online_" in line for line in devices)

        try:
            eventually(are_online, "the devices are online")
        except AssertionError as error:
            raise AssertionError(f"{error}: {devices}, {daemon.log}") from None
        return client


class StoreCase(RunningCase):
    """
    A running case with an empty database on a real server.
    """

    def setUp(self) -> None:
        """
        Make the database.
        """
        super().setUp()
        self.server = postgresql.server()
        self.database = self.server.create_database()

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        """
        Query the database; a table that does not exist yet has no rows.
        """
        import psycopg2

        try:
            return self.server.query(self.database, sql)
        except psycopg2.errors.UndefinedTable:
            return []
