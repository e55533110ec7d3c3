"""
`kill -9` of the daemon under load: at any moment, and at moments when something is half done.
"""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import cycle, islice
from pathlib import Path

import psycopg2
from twisted.trial.unittest import SkipTest

from tests.faults.doomed import POINTS
from tests.faults.ledger import FULL
from tests.faults.promises import Life, NumberingDevice, missing_from
from tests.support.daemon import RunningCase, StoreCase, value_of
from tests.support.processes import needs_strace
from tests.support.running import LineClient, TwistdDaemon
from tests.support.waiting import LIMIT, eventually
from usbgate.core.fieldline import parse
from usbgate.store.embedded.postmaster import PidFile, is_server_of

KILLS = 100 if FULL else 2 + len(POINTS)

Killing = Callable[[TwistdDaemon, Life], None]


def at_any_moment(daemon: TwistdDaemon, life: Life) -> None:
    """
    Kill the daemon some time later, while numbers are recorded.
    """
    then = time.monotonic() + random.uniform(0, 0.3)
    while time.monotonic() < then:
        life.record()
    daemon.kill()


def at_its_point(daemon: TwistdDaemon, life: Life) -> None:
    """
    Let the daemon end at its point (see `tests.faults.doomed`).
    """
    daemon.process.send_signal(signal.SIGUSR1)
    eventually(lambda: not life.record(), "the daemon comes to its point")
    daemon.process.wait(LIMIT)


def at_a_write(nth: int, daemon: TwistdDaemon, life: Life) -> None:
    """
    Kill the daemon before its Nth write from now on to the journal's main file.

    It does so in a checkpoint only, where the -wal file is carried over.
    """
    strace = subprocess.Popen(
        [
            *("strace", "-f", "-qq", "-o", "/dev/null", "-p", str(daemon.process.pid)),
            *("-P", str(daemon.state / "journal.sqlite"), "-e", "trace=pwrite64"),
            *("-e", f"inject=pwrite64:signal=KILL:when={nth}"),
        ],
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        eventually(lambda: not life.record() or strace.poll() is not None, "the daemon comes to a checkpoint")
        if life.record():
            assert strace.stderr is not None
            raise SkipTest(f"strace can't trace a running process: {strace.stderr.read().strip()[-200:]}")
        daemon.process.wait(LIMIT)
    finally:
        strace.kill()
        strace.communicate(timeout=LIMIT)


class KillCase(RunningCase):
    """
    A daemon that is killed, and a device that numbers its lines.
    """

    timeout = 3600 if FULL else 120

    pause = 0.004  # seconds between two times ten numbers

    def setUp(self) -> None:
        """
        Plug the device in.
        """
        super().setUp()
        self.device = NumberingDevice(self.folder / "ttyACM0", value_of, self.pause)
        self.addCleanup(self.device.unplug)
        self.notes = self.folder / "committed"
        self.promised: dict[str, range] = {}

    def live(self, *options: str, point: str = "", twistd: Sequence[str] = ("-n", "--pidfile=")) -> TwistdDaemon:
        """
        Start a daemon with a point at which it can be killed.
        """
        daemon = TwistdDaemon(
            self.state,
            *("--device", str(self.device.path), *options),
            twistd=tuple(twistd),
            program=f"from tests.faults import doomed; doomed.main({point!r}, {str(self.notes)!r})",
        )
        self.addCleanup(daemon.stop)
        return daemon.ready()

    def kill(self, daemon: TwistdDaemon, killing: Killing, which: str) -> None:
        """
        Kill a daemon under load, and record what was in the journal by then.

        What was read `WAIT` seconds and a commit before is known from outside, and must be part of it.
        """
        life = Life(daemon, self.device)
        self.addCleanup(life.client.close)
        life.under_load()
        killing(daemon, life)
        self.assertEqual(daemon.process.returncode, -signal.SIGKILL, f"{which}: {daemon.log[-2000:]}")
        committed = int(self.notes.read_text())
        self.assertGreaterEqual(committed, life.mark, which)
        self.promised[which] = range(life.first, committed + 1)

    def found(self) -> list[int]:
        """
        Return the stored numbers, in order.
        """
        raise NotImplementedError

    def all_is_stored(self, daemon: TwistdDaemon) -> None:
        """
        Check that the last daemon works, and that everything that was promised gets stored.
        """
        life = Life(daemon, self.device)
        self.addCleanup(life.client.close)
        life.under_load()
        self.promised["at the end"] = life.promised
        eventually(
            lambda: not missing_from(self.promised.values(), self.found()),
            f"all of these is stored: {self.promised}",
        )
        self.assertTrue(life.client.word("ask 20")[0].startswith("ID:20_VALUE:456_"))
        self.assertNotIn("Traceback", daemon.log)


class LedgerTests(KillCase, StoreCase):
    """
    What was in the journal is in the table, once and in order.
    """

    def found(self) -> list[int]:
        """
        Return the numbers in the table.
        """
        rows = self.rows("select value from reading where sensor = '1' and field = 'N' order by seq")
        return [int(value) for (value,) in rows]

    def test_any_moment_and_each_point(self) -> None:
        """
        A daemon that is killed again and again starts each time, and no reading that was in the journal is lost or
        doubled.
        """
        moments: list[tuple[str, Killing]] = [
            ("any", at_any_moment),
            ("behind", partial(self.while_the_store_hangs, at_any_moment)),
            *[(point, at_its_point) for point in POINTS],
        ]
        for n, (moment, killing) in enumerate(islice(cycle(moments), KILLS)):
            self.kill(self.live("--database", self.database, point=moment), killing, f"{moment} {n}")
        self.all_is_stored(self.live("--database", self.database))

    def test_in_a_checkpoint(self) -> None:
        """
        The same holds when the journal's main file is half written and holds rows that are nowhere else.
        """
        if reason := needs_strace():
            raise SkipTest(reason)
        for nth in range(1, 20 if FULL else 3):
            killing = partial(self.while_the_store_hangs, partial(at_a_write, nth % 5 + 1))
            self.kill(self.live("--database", self.database), killing, f"write {nth}")
        self.all_is_stored(self.live("--database", self.database))

    def while_the_store_hangs(self, killing: Killing, daemon: TwistdDaemon, life: Life) -> None:
        """
        Kill the daemon while it has a backlog.
        """
        with self.hanging_store():
            life.under_load(life.mark - life.first + 500)
            killing(daemon, life)

    @contextmanager
    def hanging_store(self) -> Iterator[None]:
        """
        Make an insert hang and fail in the end, so that the journal holds all the rest.
        """
        eventually(self.found, "something is stored")
        waiting = "from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'"
        holder = psycopg2.connect(self.database)
        try:
            holder.cursor().execute("lock table usbgate.reading in exclusive mode")
            yield
            self.rows(f"select pg_terminate_backend(pid) {waiting}")
            eventually(lambda: not self.rows(f"select 1 {waiting}"), "the insert is given up")
        finally:
            holder.close()


class LeftoverTests(KillCase):
    """
    What a killed daemon leaves behind.
    """

    pause = 0.04  # `history` tells no more than 10,000 numbers

    def found(self) -> list[int]:
        """
        Return the numbers in the embedded database, as its own daemon returns them.
        """
        client = LineClient(self.daemon.port)
        try:
            lines = client.word("history 1 N limit=10000")
        finally:
            client.close()
        return [int(parse(line.encode())["N"]) for line in lines[:-1]]

    def test_embedded_server_lock_socket_and_pid_file(self) -> None:
        """
        The embedded server continues and is found again; a lock, a socket and a pid file that are left do no harm.
        """
        data = self.state / "postgres" / "data"
        self.addCleanup(end_server, data)
        way_in, pid_file = self.folder / "way in", self.folder / "twistd.pid"
        options = ("--database", "embedded", "--listen", f"unix:{way_in}")
        twistd = ("-n", "--pidfile", str(pid_file))
        self.daemon = self.live(*options, twistd=twistd)
        eventually(lambda: self.found(), "something is stored")
        self.kill(self.daemon, at_any_moment, "at any moment")
        server = PidFile.read(data)
        assert server is not None
        self.assertTrue(is_server_of(server.pid, data), "it goes on")
        self.assertTrue(pid_file.exists() and way_in.exists() and (self.state / "lock").exists())
        self.daemon = self.live(*options, twistd=twistd)
        self.all_is_stored(self.daemon)
        found = PidFile.read(data)
        assert found is not None
        self.assertEqual(found.pid, server.pid)
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(LIMIT)
            client.connect(str(way_in))
            client.sendall(b"ping\n")
            self.assertEqual(client.recv(100), b"OK:ping\n")
        self.assertEqual(self.daemon.stop(), -signal.SIGTERM)
        self.assertFalse(is_server_of(server.pid, data), "it is ended, although it was only found")


def end_server(data: Path) -> None:
    """
    End an embedded server that is left.
    """
    pid_file = PidFile.read(data)
    if pid_file is not None and is_server_of(pid_file.pid, data):
        os.kill(pid_file.pid, signal.SIGQUIT)
