"""
The ledger: the device numbers its lines, and each number must be in the database exactly once, in order.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from threading import Event, Thread

from tests.support.daemon import StoreCase
from tests.support.running import LineClient, PtyDevice, TwistdDaemon
from tests.support.waiting import eventually
from usbgate.core.batch import KINDS
from usbgate.core.fieldline import parse

FULL = os.environ.get("USBGATE_FAULTS") == "full"  # the long versions, for a night

# Seconds for an answer while something else is wrong. It takes a millisecond; a busy machine may need seconds, and a
# reactor that waits for a database, a disk or a client waits for ever, or for one of the limits of 10 s and more.
AT_ONCE = 8.0


class LedgerCase(StoreCase):
    """
    A device that sends numbers (sensor 1), answers requests (sensor 20), and is watched.

    Attributes:
        said: How many numbers were sent, which is the next number.
        asked: How many requests were sent.
        slowest: Seconds that the slowest answer took.
    """

    device: PtyDevice
    watcher: LineClient
    client: LineClient

    def setUp(self) -> None:
        """
        Plug the device in.
        """
        super().setUp()
        self.said = 0
        self.asked = 0
        self.slowest = 0.0
        self.device = self.plug()

    def start(self, *options: str, database: str = "") -> TwistdDaemon:
        """
        Start a daemon, connect, and watch sensor 1.
        """
        daemon = self.run_daemon("--device", str(self.device.path), "--database", database or self.database, *options)
        self.client = self.online(daemon)
        self.watcher = self.connect(daemon)
        self.watcher.word("watch 1")
        return daemon

    def say(self, count: int) -> None:
        """
        Send some numbers; the subscriber must receive each of them.
        """
        while count:
            some = min(count, 1000)
            numbers = range(self.said, self.said + some)
            self.device.say(*[b"ID:1_N:%d" % n for n in numbers])
            received = [parse(self.watcher.receive().encode())["N"] for _ in numbers]
            self.assertEqual(received, list(map(str, numbers)))
            self.said += some
            count -= some

    def ask(self, count: int = 1) -> None:
        """
        Ask some times; each answer must come at once.
        """
        for _ in range(count):
            began = time.monotonic()
            answer, _ = self.client.word("ask 20")
            self.slowest = max(self.slowest, time.monotonic() - began)
            self.assertTrue(answer.startswith("ID:20_VALUE:456_"), answer)
            self.asked += 1
        self.assertLess(self.slowest, AT_ONCE)

    def store(self) -> dict[str, str]:
        """
        Return the line of `status` about the store.
        """
        lines = [parse(line.encode()) for line in self.client.word("status")[:-1]]
        [store] = [line for line in lines if "STORE" in line]
        return store

    def lives_on(self, trouble: str = "", history: str = "ERROR:failed_", count: int = 300) -> None:
        """
        Send numbers and ask; all must be published and answered, and no row rejected.

        Args:
            trouble: What `status` must say, with the state `away`; empty if it need not.
            history: The beginning of the reply to `history`; empty not to ask.
            count: How many numbers to send.
        """
        self.say(count // 2)
        self.ask(10)
        self.say(count - count // 2)
        self.ask(10)
        newest = self.client.word("last 1")[0]
        self.assertTrue(newest.startswith(f"ID:1_N:{self.said - 1}_"), newest)
        if trouble:
            eventually(lambda: trouble in self.store().get("TEXT", ""), f"status says {trouble}: {self.store()}")
            self.assertEqual(self.store()["STORE"], "away")
            self.assertGreaterEqual(int(self.store()["BACKLOG"]), count)
        self.assertEqual(self.store()["REJECTED"], "0")
        if history:
            said = self.client.word("history 1")
            self.assertTrue(said[0].startswith(history), said[0])

    def all_stored(self) -> None:
        """
        Check that everything is stored once and in order, under numbers without a gap, and nothing was rejected.
        """
        eventually(lambda: self.store()["BACKLOG"] == "0", "all is stored")
        self.assertEqual((self.store()["STORE"], self.store()["REJECTED"]), ("connected", "0"))
        self.numbers_stored()
        self.assertEqual(self.rows("select count(*) from reading where sensor = '20'"), [(self.asked,)])
        self.assertEqual(self.rows("select count(*) from request where outcome = 'answered'"), [(self.asked,)])

    def numbers_stored(self) -> None:
        """
        Check that all numbers are stored once and in order, under journal numbers without a gap.
        """
        numbers = [int(value) for (value,) in self.rows("select value from reading where sensor = '1' order by seq")]
        self.assertEqual(len(numbers), self.said)
        self.assertEqual(numbers, list(range(self.said)))
        tables = " union all ".join(f"select seq from {kind.table}" for kind in KINDS)
        [(total, distinct, first, last)] = self.rows(
            f"select count(*), count(distinct seq), min(seq), max(seq) from ({tables}) as rows"
        )
        self.assertEqual((distinct, first, last), (total, 1, total))


class Neighbour:
    """
    A client that asks all the time, while something else fails; a context manager.

    Attributes:
        latencies: Seconds that each answer took.
    """

    def __init__(self, port: int, word: str = "ask 20") -> None:
        """
        Connect before the fault.
        """
        self.latencies: list[float] = []
        self._client = LineClient(port)
        self._client.socket.settimeout(None)
        self._word = word
        self._wrong: list[str] = []
        self._ending = Event()
        self._thread = Thread(target=self._ask, daemon=True)

    def _ask(self) -> None:
        while not self._ending.wait(0.005):
            began = time.monotonic()
            reply = self._client.word(self._word)
            if not reply[-1].startswith("OK:"):
                self._wrong += reply
                return
            self.latencies.append(time.monotonic() - began)

    def __enter__(self) -> Neighbour:
        """
        Start to ask; at least one answer comes before the fault, and one after it (see `__exit__`).
        """
        self._thread.start()
        self.more_answers()
        return self

    def more_answers(self) -> None:
        """
        Wait for an answer to a question that has not been asked yet.
        """
        enough = len(self.latencies) + 2
        eventually(lambda: len(self.latencies) >= enough or self._wrong, "a neighbour is answered")
        if self._wrong:
            raise AssertionError(f"a neighbour got {self._wrong}")

    def __exit__(self, *why: object) -> None:
        """
        Stop asking.
        """
        try:
            if why[0] is None:
                self.more_answers()
        finally:
            self._ending.set()
            self._thread.join(AT_ONCE)
            self._client.close()

    @property
    def summary(self) -> str:
        """
        A summary of the latencies.
        """
        ordered = sorted(self.latencies)
        p99 = ordered[int(len(ordered) * 0.99)]
        return f"{len(ordered)} answers, p99 {p99 * 1000:.1f} ms, slowest {ordered[-1] * 1000:.1f} ms"


def resident(pid: int) -> float:
    """
    Return the resident memory of a process in MB.
    """
    with open(f"/proc/{pid}/statm") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def processor_time(pid: int) -> float:
    """
    Return the CPU seconds that a process has used.
    """
    with open(f"/proc/{pid}/stat") as stat:
        fields = stat.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measured(what: Callable[[], float], seconds: float) -> float:
    """
    Return by how much a value grows in some seconds.
    """
    before = what()
    time.sleep(seconds)
    return what() - before
