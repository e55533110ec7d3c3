"""
What a row of the bench is measured with: a folder, a PostgreSQL, a device, the daemon, clients.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from itertools import count
from pathlib import Path
from typing import Any

import psycopg2

from tests import postgresql
from tests.bench import child
from tests.bench.device import Device
from tests.running import LineClient, TwistdDaemon

GATEWAY = "bench"  # the name under which daemons here store

os.environ.setdefault("USBGATE_TEST_FSYNC", "on")  # for the server here: what is stored must be on the disk


class Rig:
    """
    What rows are measured with. What it gives out as a context is gone when that ends; the server when `close` comes.
    """

    def __init__(self, quick: bool = False, tell: Callable[[str], None] = lambda text: None) -> None:
        """
        Make a folder.

        Args:
            quick: Measure with little of everything: whether it works, not how fast.
            tell: Told what is going on.
        """
        self.quick = quick
        self.tell = tell
        self.folder = Path(tempfile.mkdtemp(prefix="usbgate-bench-"))
        self.folder.chmod(0o711)  # the embedded server's user goes through it
        self._numbers = count(1)

    def close(self) -> None:
        """
        Remove the folder.
        """
        shutil.rmtree(self.folder, ignore_errors=True)

    def size(self, full: int, quick: int) -> int:
        """
        Choose how much of something there is.
        """
        return quick if self.quick else full

    @cached_property
    def server(self) -> postgresql.OwnServer:
        """
        A PostgreSQL of the bench's own, which ends with this process.
        """
        self.tell("starting PostgreSQL")
        return postgresql.own_server()

    @cached_property
    def server_pid(self) -> int:
        """
        The server's first process.
        """
        ((folder,),) = self.server.query(self.server.url, "show data_directory")
        return int(Path(folder, "postmaster.pid").read_text().split()[0])

    def new_path(self, name: str) -> Path:
        """
        Give a path in the folder that nothing has.
        """
        return self.folder / f"{name}{next(self._numbers)}"

    @contextmanager
    def database(self) -> Iterator[Database]:
        """
        An empty database, all written to disk that came before.
        """
        url = self.server.create_database()
        opened = Database(self, url)
        try:
            yield opened
        finally:
            opened.close()
            self.server.query(self.server.url, f"drop database {url.rpartition('/')[2]} with (force)")

    @contextmanager
    def device(self) -> Iterator[Device]:
        """
        A device that says nothing yet.
        """
        device = Device(self.new_path("tty"))
        try:
            yield device
        finally:
            device.unplug()

    @contextmanager
    def daemon(self, device: Device, database: str = "none", wait: bool = True, **keys: object) -> Iterator[Daemon]:
        """
        A daemon for a device.

        Args:
            device: The device.
            database: The URL of a database, `embedded` or `none`.
            wait: Whether to wait until the device is open and the database is connected.
            keys: More keys of its configuration.
        """
        state = self.new_path("state")
        config = state.with_suffix(".toml")
        told = {"gateway": GATEWAY, "database": database, **keys}
        table = {"path": str(device.path), "window": 64}
        # A JSON text is a TOML text, too.
        config.write_text(
            "".join(f"{key} = {json.dumps(value)}\n" for key, value in told.items())
            + "[device.bench]\n"
            + "".join(f"{key} = {json.dumps(value)}\n" for key, value in table.items())
        )
        daemon = Daemon(state, "--config", str(config))
        try:
            if wait:
                daemon.ready()
                daemon.wait_until("devices", "STATE:online")
                if database != "none":
                    daemon.wait_until("status", "STORE:connected")
            yield daemon
        finally:
            daemon.close()

    def load(self, does: str, limit: float = 600.0, **arguments: object) -> dict[str, Any]:
        """
        Run clients to their end (see tests/bench/load.py), and give what they tell.
        """
        return child.run("tests.bench.load", json.dumps({"does": does, **arguments}), limit=limit)

    def start_load(self, does: str, **arguments: object) -> Load:
        """
        Start clients that tell when they are ready.
        """
        return Load(json.dumps({"does": does, **arguments}))


class Load:
    """
    Clients that run beside what else is done.
    """

    def __init__(self, plan: str) -> None:
        self._process = child.start("tests.bench.load", plan, stdin=subprocess.PIPE)

    def ready(self) -> None:
        """
        Wait until they are, where they tell that.
        """
        self._hear()

    def result(self) -> dict[str, Any]:
        """
        End their standard input, wait for their end, and give what they tell.
        """
        assert self._process.stdin is not None
        self._process.stdin.close()
        told = self._hear()
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()
        return told

    def _hear(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise AssertionError("the bench's clients ended by themselves")
        told: dict[str, Any] = json.loads(line)
        return told


class Daemon(TwistdDaemon):
    """
    The daemon, with what it costs and what it says of itself.
    """

    @property
    def pid(self) -> int:
        """
        Its process.
        """
        return self.process.pid

    @property
    def cpu(self) -> float:
        """
        The CPU seconds that it has used.
        """
        return child.cpu(self.pid)

    @property
    def rss(self) -> int:
        """
        The bytes of memory that it has now.
        """
        return child.memory(self.pid)

    @property
    def peak(self) -> int:
        """
        The most bytes of memory that it had.
        """
        return child.memory(self.pid, "VmHWM")

    def wait_until(self, word: str, text: str, limit: float = 60.0) -> None:
        """
        Ask it by a word until the answer has a text in it.
        """
        client = LineClient(self.port)
        deadline = time.monotonic() + limit
        try:
            while not any(text in line for line in client.word(word)):
                if time.monotonic() > deadline:
                    raise AssertionError(f"{word} does not tell {text}: {self.log}")
                time.sleep(0.01)
        finally:
            client.close()

    def status(self, key: str) -> str:
        """
        Tell one field of its `status`.
        """
        client = LineClient(self.port)
        try:
            for line in client.word("status"):
                for field in line.split("_"):
                    name, _, value = field.partition(":")
                    if name == key:
                        return value
        finally:
            client.close()
        raise AssertionError(f"status has no {key}")

    def close(self) -> None:
        """
        Stop it, whatever it takes.
        """
        try:
            self.stop()
        except AssertionError:  # it was killed
            pass


class Database:
    """
    A database on the bench's server, with one connection.
    """

    def __init__(self, rig: Rig, url: str) -> None:
        self.url = url
        self._rig = rig
        self._connection = psycopg2.connect(url)
        self._connection.autocommit = True

    def close(self) -> None:
        """
        Hang up.
        """
        self._connection.close()

    def query(self, sql: str, parameters: Mapping[str, object] | tuple[object, ...] = ()) -> list[tuple[Any, ...]]:
        """
        Run a statement, and give its rows, if it has any.
        """
        with self._connection.cursor() as cursor:
            cursor.execute(sql, parameters or None)
            return cursor.fetchall() if cursor.description else []

    def copy(self, sql: str, file: Any) -> None:
        """
        Run a `copy` from or to a file.
        """
        with self._connection.cursor() as cursor:
            cursor.copy_expert(sql, file, 1 << 18)

    @property
    def newest(self) -> int:
        """
        The number of the newest row of readings; 0 for none. By an index, so that it costs nothing to look often.
        """
        rows = self.query("select seq from reading where gateway = %s order by seq desc limit 1", (GATEWAY,))
        return int(rows[0][0]) if rows else 0

    def wait_for(self, number: int, limit: float = 300.0, patience: float = 30.0) -> float:
        """
        Wait until the row with a number is stored, and tell when it was.

        Args:
            number: Its number.
            limit: Seconds to wait.
            patience: Seconds to wait with nothing new.
        """
        begun = seen_at = time.monotonic()
        seen = -1
        while (newest := self.newest) < number:
            now = time.monotonic()
            if newest != seen:
                seen, seen_at = newest, now
            if now > begun + limit or now > seen_at + patience:
                raise AssertionError(f"of {number} rows {newest} were stored in {now - begun:.0f} s")
            time.sleep(0.02)
        return time.monotonic()

    @property
    def server_cpu(self) -> float:
        """
        The CPU seconds that the server has used, all of it.
        """
        return child.cpu(self._rig.server_pid)
