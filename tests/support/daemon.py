"""
A daemon to be run by a test, and a database for it.
"""

from __future__ import annotations

import shutil
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.support import postgresql
from tests.support.folders import new_folder
from tests.support.running import Answer, LineClient, PtyDevice, TwistdDaemon
from tests.support.waiting import eventually


def value_of(fields: dict[str, str]) -> list[bytes]:
    """
    Answer as the original firmware did: the id, and a value.
    """
    return [f"ID:{fields['ID']}_VALUE:456".encode()]


class RunningCase(SynchronousTestCase):
    """
    A folder, and all that is started in it ends with the test.
    """

    def setUp(self) -> None:
        """
        Make the folder; the embedded server's user must be able to enter it.
        """
        self.folder = new_folder()
        self.folder.chmod(0o755)
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)
        self.state = self.folder / "state"

    def plug(self, answer: Answer = value_of, name: str = "ttyACM0") -> PtyDevice:
        """
        Plug a device in.
        """
        device = PtyDevice(self.folder / name, answer)
        self.addCleanup(device.unplug)
        return device

    def run_daemon(self, *options: str, port: int | None = None) -> TwistdDaemon:
        """
        Run a daemon until the end of the test.
        """
        daemon = TwistdDaemon(self.state, *options, port=port)
        self.addCleanup(daemon.stop)
        return daemon.ready()

    def connect(self, daemon: TwistdDaemon) -> LineClient:
        """
        Connect to it until the end of the test.
        """
        client = LineClient(daemon.port)
        self.addCleanup(client.close)
        return client

    def online(self, daemon: TwistdDaemon) -> LineClient:
        """
        Connect, and wait until all its devices are open.
        """
        client = self.connect(daemon)
        told: list[str] = []

        def are_online() -> bool:
            told[:] = client.word("devices")[:-1]
            return all("_STATE:online_" in line for line in told)

        try:
            eventually(are_online, "the devices are online")
        except AssertionError as error:
            raise AssertionError(f"{error}: {told}, {daemon.log}") from None
        return client


class StoreCase(RunningCase):
    """
    With a database of its own on a real server.
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
        Query it; what is not there yet has no rows.
        """
        import psycopg2

        try:
            return self.server.query(self.database, sql)
        except psycopg2.errors.UndefinedTable:
            return []
