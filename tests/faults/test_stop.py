"""
SIGTERM at the worst moment: the daemon ends soon, waiting clients get a reply, and nothing is lost.
"""

from __future__ import annotations

import contextlib  # `suppress` by its bare name means something else to trial
import os
import select
import signal
import socket
import sqlite3
import time
from pathlib import Path
from threading import Thread
from unittest import SkipTest

from twisted.logger import Logger

from tests.faults.ledger import FULL, LedgerCase
from tests.support.daemon import value_of
from tests.support.postgresql import OwnServer
from tests.support.running import Answer, LineClient, PtyDevice, TwistdDaemon
from tests.support.waiting import eventually
from usbgate.core.fieldline import parse

STOP = 8.0  # seconds; it is to be 5, and this machine may have other things to do


class StopCase(LedgerCase):
    """
    A daemon with everything against it.
    """

    log = Logger()

    def setUp(self) -> None:
        """
        Start with nothing frozen.
        """
        super().setUp()
        self.stopped: list[int] = []
        self.addCleanup(self.go_on)

    def plug(self, answer: Answer = value_of, name: str = "ttyACM0") -> PtyDevice:
        """
        Plug in a device that answers for all sensors but one.
        """
        return super().plug(lambda fields: [] if fields["ID"] == "9" else answer(fields), name)

    def freeze(self, pids: list[int]) -> None:
        """
        Stop processes with SIGSTOP.
        """
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        self.stopped += pids

    def go_on(self) -> None:
        """
        Continue these processes, unless they have ended.
        """
        pids, self.stopped = self.stopped, []
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

    def deaf_server(self) -> socket.socket:
        """
        Run a serial server on the network that accepts connections and reads nothing.
        """
        server = socket.socket()
        self.addCleanup(server.close)
        server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        server.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 536)  # or the other end's buffer holds MB
        server.bind(("127.0.0.1", 0))
        server.listen()
        taken: list[socket.socket] = []

        def accept() -> None:
            with contextlib.suppress(OSError):
                taken.append(server.accept()[0])

        def close() -> None:
            for one in taken:
                one.close()

        Thread(target=accept, daemon=True).start()
        self.addCleanup(close)
        return server

    def deaf_client(self, daemon: TwistdDaemon) -> socket.socket:
        """
        Connect a client that has much to read and reads nothing.
        """
        client = socket.socket()
        self.addCleanup(client.close)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        client.connect(("127.0.0.1", daemon.port))
        client.setblocking(False)
        while select.select([], [client], [], 0.2)[1]:
            client.send(b"help\nMSG:J_ID:9_DEV:ttyACM0_ORIGIN:deaf\n" * 100)
        return client

    def end(self, daemon: TwistdDaemon, waiting: LineClient, words: LineClient) -> None:
        """
        Send SIGTERM: waiting clients get a reply, and the daemon ends in time with everything in its journal.
        """
        began = time.monotonic()
        daemon.process.send_signal(signal.SIGTERM)
        lines = list(iter(waiting.receive, ""))
        self.assertEqual([line for line in lines if not line.startswith("ERROR:stopped_MSG:J_ID:9_")], [])
        self.assertEqual(len(lines), 100)
        self.assertTrue(words.receive().startswith("ERROR:stopped"))
        self.assertEqual(words.receive(), "")
        self.assertLess(time.monotonic() - began, STOP)
        daemon.process.wait(STOP)
        took = time.monotonic() - began
        self.log.info("{test}: ended within {took:.2f} s", test=self.id(), took=took)
        self.assertLess(took, STOP)
        self.assertEqual(daemon.process.returncode, -signal.SIGTERM)
        self.assertNotIn("Traceback", daemon.log)
        for beside in self.state.glob("journal.sqlite-*"):
            self.assertEqual(beside.stat().st_size, 0, beside)
        with contextlib.closing(sqlite3.connect(f"file:{self.state}/journal.sqlite?immutable=1", uri=True)) as journal:
            self.assertEqual(journal.execute("pragma integrity_check").fetchall(), [("ok",)])

    def all_against(self, daemon: TwistdDaemon) -> tuple[LineClient, LineClient]:
        """
        Set up requests in flight, a client that reads nothing, and a serial server that reads nothing.

        Returns:
            Who waits for answers to 100 request lines, and who waits for a word's.
        """
        full = self.connect(daemon)
        full.say(*[f"MSG:J_ID:{n}_DEV:deaf_ORIGIN:x_NOTE:{'x' * 900}" for n in range(200)])
        eventually(self.holds, "the serial server takes no more")
        self.deaf_client(daemon)
        waiting, words = self.connect(daemon), self.connect(daemon)
        waiting.say(*[f"MSG:J_ID:9_DEV:ttyACM0_ORIGIN:waiting_TAG:{n}_TIMEOUT:100" for n in range(100)])
        for n in range(100):
            self.assertIn(f"_TAG:{n}_", waiting.receive())
        words.say("ask 9 dev=ttyACM0 timeout=100 origin=word")
        return waiting, words

    def holds(self) -> bool:
        """
        Return whether nothing more is written to the serial server, for three times the patience of a message.
        """
        written = self.written()
        time.sleep(0.3)
        return written > 0 and self.written() == written

    def written(self) -> int:
        """
        Return how many lines were written to the serial server.
        """
        [line] = [line for line in self.client.word("devices") if line.startswith("DEV:deaf_")]
        return int(parse(line.encode())["OUT"])

    def start_with_deaf_server(self, database: str) -> TwistdDaemon:
        """
        Start a daemon with two devices.
        """
        self.deaf = self.deaf_server()
        port = self.deaf.getsockname()[1]
        return self.start(
            "--device", f"tcp:127.0.0.1:{port},name=deaf,window=64,buffer=0,patience=0.1", database=database
        )

    def sent_after_next_start(self, database: str) -> None:
        """
        Check that the next daemon stores what was not sent: each number once and in order, and a row for each request.
        """
        daemon = self.start(database=database)
        eventually(lambda: self.store()["BACKLOG"] == "0", "all is sent")
        self.numbers_stored()
        self.assertEqual(
            self.rows(
                "select origin, outcome, count(*) from request where origin in ('waiting', 'word')"
                " group by origin, outcome order by origin"
            ),
            [("waiting", "stopped", 100), ("word", "stopped", 1)],
        )
        self.assertNotIn("Traceback", daemon.log)


class StopTests(StopCase):
    """
    With a database elsewhere.
    """

    def test_database_down(self) -> None:
        """
        With a long backlog and the database down, the stop is in time.
        """
        if not FULL:
            raise SkipTest("with a short backlog, the other tests show it: USBGATE_FAULTS=full")
        away = self.database.rpartition("/")[0] + "/not_there"
        daemon = self.start_with_deaf_server(away)
        self.say(500_000)
        waiting, words = self.all_against(daemon)
        self.end(daemon, waiting, words)
        self.sent_after_next_start(self.database)

    def test_database_hangs(self) -> None:
        """
        With a database that hangs and a statement in flight, the stop is in time.
        """
        if not isinstance(self.server, OwnServer):
            raise SkipTest("the server that USBGATE_TEST_DATABASE names is not ours to disturb")
        daemon = self.start_with_deaf_server(self.database)
        self.say(100)
        eventually(lambda: self.store()["BACKLOG"] == "0", "all is stored")
        with self.server.frozen():
            self.say(2000)
            waiting, words = self.all_against(daemon)
            self.end(daemon, waiting, words)
        self.sent_after_next_start(self.database)


class EmbeddedStopTests(StopCase):
    """
    With an embedded server.
    """

    def test_database_hangs(self) -> None:
        """
        An embedded server that hangs is ended by force, and is whole at the next start.
        """
        daemon = self.start_with_deaf_server("embedded")
        self.say(100)
        eventually(lambda: self.store()["BACKLOG"] == "0", "all is stored")
        pids = self.embedded()
        self.freeze(pids)
        self.say(2000)
        waiting, words = self.all_against(daemon)
        self.end(daemon, waiting, words)
        self.assertIn("killing the embedded database", daemon.log)
        eventually(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids), "nothing of it is left")
        self.sent_after_next_start("embedded")

    def embedded(self) -> list[int]:
        """
        Return the processes of the embedded server, its parent first, and remember where it is.
        """
        lines = (self.state / "postgres" / "data" / "postmaster.pid").read_text().splitlines()
        pid, port, host = int(lines[0]), lines[3], lines[4]
        self.database = f"postgresql://usbgate@/usbgate?host={host}&port={port}"
        return [pid, *map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())]
