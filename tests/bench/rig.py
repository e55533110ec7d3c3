"""
What a row of the benchmark needs: a folder, a PostgreSQL, a device, the daemon, clients.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import cached_property
from itertools import count
from pathlib import Path
from typing import Any, TypeVar, cast

from tests.bench import child
from tests.bench.database import GATEWAY, Database
from tests.bench.device import Device
from tests.bench.running import Daemon, Load
from tests.support import postgresql
from tests.support.running import RUN

T = TypeVar("T")


class Rig:
    """
    What the rows need. Whatever a context manager here provides is gone when it exits.
    """

    def __init__(self, quick: bool = False, progress: Callable[[str], None] = lambda text: None) -> None:
        """
        Create a folder.

        Args:
            quick: Use small sizes, to test that it works.
            progress: Called with each step, for the progress bar.
        """
        self.quick = quick
        self.progress = progress
        self.folder = Path(tempfile.mkdtemp(prefix="usbgate-bench-"))
        self.folder.chmod(0o711)  # the embedded server's user must be able to traverse it
        self._numbers = count(1)
        self._kept: dict[object, object] = {}

    def close(self) -> None:
        """
        Remove the folder.
        """
        shutil.rmtree(self.folder, ignore_errors=True)

    def size(self, full: int, quick: int) -> int:
        """
        Return the full size of something, or the quick one.
        """
        return quick if self.quick else full

    def once(self, make: Callable[[Rig], T]) -> T:
        """
        Create something in the first round; return the same in all others.
        """
        if make not in self._kept:
            self._kept[make] = make(self)
        return cast(T, self._kept[make])

    @cached_property
    def server(self) -> postgresql.OwnServer:
        """
        The benchmark's PostgreSQL, which ends with this process.
        """
        self.progress("starting PostgreSQL")
        # The benchmark's database must be on the disk, unlike that of the tests.
        os.environ.setdefault("USBGATE_TEST_FSYNC", "on")
        return postgresql.own_server()

    @cached_property
    def server_pid(self) -> int:
        """
        The server's first process.
        """
        ((folder,),) = self.server.query(self.server.url, "show data_directory")
        return int(Path(folder, "postmaster.pid").read_text().split()[0])

    @contextmanager
    def server_away(self) -> Iterator[None]:
        """
        Stop the server for a while; all connections end.
        """
        self.server.stop()
        try:
            yield
        finally:
            self.server.start()
            self.__dict__.pop("server_pid", None)

    def new_path(self, name: str) -> Path:
        """
        Return a new path in the folder.
        """
        return self.folder / f"{name}{next(self._numbers)}"

    def opened(self, url: str) -> Database:
        """
        Connect to a database of the server.
        """
        return Database(url, lambda: self.server_pid)

    @contextmanager
    def database(self) -> Iterator[Database]:
        """
        Create an empty database.
        """
        url = self.server.create_database()
        try:
            with closing(self.opened(url)) as opened:
                yield opened
        finally:
            self.server.query(self.server.url, f"drop database {url.rpartition('/')[2]} with (force)")

    @contextmanager
    def device(self) -> Iterator[Device]:
        """
        Plug in a device that sends nothing yet.
        """
        device = Device(self.new_path("tty"))
        try:
            yield device
        finally:
            device.unplug()

    @contextmanager
    def daemon(
        self,
        device: Device,
        database: str = "none",
        wait: bool = True,
        state: Path | None = None,
        http: str = "none",
        trace: Path | None = None,
        broker: str | None = None,
        **keys: object,
    ) -> Iterator[Daemon]:
        """
        Run a daemon for a device.

        Args:
            device: The device.
            database: The URL of a database, `embedded` or `none`.
            wait: Whether to wait until the device is open and the database is connected.
            state: Its state folder; None for a new one.
            http: Where its page is.
            trace: Where it writes what held its reactor, when it has stopped; None for no trace.
            broker: The endpoint of an MQTT broker, whose clients may command; None for none.
            keys: More keys of the configuration.
        """
        state = state or self.new_path("state")
        config = state.with_suffix(".toml")
        configuration = {"gateway": GATEWAY, "database": database, **keys}
        tables: dict[str, dict[str, object]] = {
            "": configuration,
            "[device.bench]": {"path": str(device.path), "window": 64, "buffer": 0},
        }
        if broker is not None:
            tables["[mqtt]"] = {"broker": broker, "role": "command"}
        # A JSON text is a TOML text, too.
        config.write_text(
            "".join(
                f"{head}\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in table.items())
                for head, table in tables.items()
            )
        )
        code = RUN if trace is None else f"from tests.bench.traced import run; run({str(trace)!r})"
        # A quick one is forked, which saves the time of its imports.
        program = code if self.quick else (sys.executable, "-c", code)
        daemon = Daemon(state, "--config", str(config), http=http, program=program)
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
        Run clients to their end (see tests/bench/load.py); return their results.
        """
        return child.run("tests.bench.load", json.dumps({"does": does, **arguments}), limit=limit)

    @contextmanager
    def start_load(self, does: str, **arguments: object) -> Iterator[Load]:
        """
        Start clients that run in the background.
        """
        load = Load(json.dumps({"does": does, **arguments}))
        try:
            yield load
        finally:
            load.close()
