"""
The disk that holds the state folder is full: a small disk, really full.
"""

from __future__ import annotations

import re
import signal
import subprocess
from functools import partial
from pathlib import Path

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from tests.faults.ledger import FULL, LedgerCase, resident
from tests.faults.promises import Life, NumberingDevice, check_whole, missing_from
from tests.support.daemon import StoreCase, value_of
from tests.support.running import RUN, TwistdDaemon
from tests.support.waiting import eventually
from usbgate.core.fieldline import parse

SIZE = 2 << 20  # bytes; a folder of the journal's needs 0.3 MB

TIMES = 10 if FULL else 1


class SmallDisk:
    """
    A disk at a folder, until the end of the test.
    """

    def __init__(self, case: SynchronousTestCase, folder: Path) -> None:
        """
        Mount the disk; skip the test if that is not possible.
        """
        folder.mkdir()
        try:
            mounted = subprocess.run(
                ["mount", "-t", "tmpfs", "-o", f"size={SIZE},mode=755", "usbgate-test", str(folder)],
                capture_output=True,
                text=True,
            )
        except FileNotFoundError:
            raise SkipTest("there is no mount here") from None
        if mounted.returncode:
            raise SkipTest(f"can't mount a small disk: {mounted.stderr.strip()}")
        case.addCleanup(subprocess.run, ["umount", "-l", str(folder)], check=True)
        self._filler = folder / "filler"

    def fill(self) -> None:
        """
        Fill the disk completely.
        """
        with self._filler.open("ab", buffering=0) as filler:
            for size in (1 << 16, 1):
                try:
                    while True:
                        filler.write(bytes(size))
                except OSError:
                    continue

    def make_room(self) -> None:
        """
        Remove what filled the disk.
        """
        self._filler.unlink()


class FullDiskTests(StoreCase):
    """
    Journal and log on a disk that fills up and gets room again.
    """

    timeout = 600

    def setUp(self) -> None:
        """
        Mount the disk at the state folder, and plug the device in.
        """
        super().setUp()
        self.disk = SmallDisk(self, self.state)
        self.device = NumberingDevice(self.folder / "ttyACM0", value_of)
        self.addCleanup(self.device.unplug)

    def test_full_and_with_room_again(self) -> None:
        """
        On a full disk usbgate continues, answers, publishes and reports the trouble; with room it writes again,
        including everything read since, and nothing is corrupt.
        """
        log = self.state / "usbgate.log"
        daemon = TwistdDaemon(
            self.state,
            *("--device", str(self.device.path), "--database", self.database),
            twistd=("-n", "--pidfile=", "--logfile", str(log)),
            program=RUN,
        )
        self.addCleanup(daemon.stop)
        daemon.ready()
        watcher = self.connect(daemon)
        life = Life(daemon, self.device)
        self.addCleanup(life.client.close)
        for _ in range(TIMES):
            life.under_load()
            self.disk.fill()
            eventually(lambda: life.record() and life.journal["JOURNAL"] == "trouble", "status says it")
            self.assertIn("full", life.journal["TEXT"])
            # All goes on that needs no disk.
            watcher.word("watch 1")
            self.assertRegex(watcher.receive(), "^EVENT:reading_ID:1_N:")
            watcher.word("unwatch")
            self.assertRegex(life.client.word("ask 20")[0], "^ID:20_VALUE:456_")
            written = life.journal["COMMITS"]
            life.record()
            self.assertEqual((life.journal["JOURNAL"], life.journal["COMMITS"]), ("trouble", written))
            self.disk.make_room()
            life.under_load(self.device.next - life.first)
            self.assertEqual(life.journal["JOURNAL"], "ok")
        eventually(lambda: not missing_from([life.promised], self.found()), f"all is stored: {life.promised}")
        self.assertEqual(daemon.stop(), -signal.SIGTERM)
        check_whole(self.state / "journal.sqlite")
        self.assertNotIn("Traceback", daemon.log + log.read_text())
        self.assertIn("Server Shut Down", log.read_text())  # the log goes on, too

    def found(self) -> list[int]:
        """
        Return the numbers in the table.
        """
        rows = self.rows("select value from reading where sensor = '1' and field = 'N' order by seq")
        return [int(value) for (value,) in rows]


class RingTests(LedgerCase):
    """
    A disk that stays full for longer than the memory lasts.
    """

    timeout = 600

    def setUp(self) -> None:
        """
        Mount the disk at the state folder.
        """
        super().setUp()
        self.disk = SmallDisk(self, self.state)
        self.log = self.state / "usbgate.log"
        self.starts = 0

    def start_with_small_ring(self) -> TwistdDaemon:
        """
        Start a daemon that keeps little in memory, and watch it.
        """
        daemon = TwistdDaemon(
            self.state,
            *("--device", str(self.device.path), "--database", self.database),
            twistd=("-n", "--pidfile=", "--logfile", str(self.log)),
            program=SMALL_RING,
        )
        self.addCleanup(daemon.stop)
        self.starts += 1
        daemon.ready()
        self.client = self.online(daemon)
        self.watcher = self.connect(daemon)
        self.watcher.word("watch 1")
        return daemon

    def journal(self) -> dict[str, str]:
        """
        Return the line of `status` about the journal.
        """
        lines = [parse(line.encode()) for line in self.client.word("status")[:-1]]
        [journal] = [line for line in lines if "JOURNAL" in line]
        return journal

    def lost(self) -> int:
        """
        Return how many rows `status` counts as lost.
        """
        return int(self.journal().get("LOST", 0))

    def goes_on_losing(self, enough: int) -> bool:
        """
        Send and ask; return whether so many rows are lost by now.
        """
        self.lives_on(history="", count=3_000)
        return self.lost() >= enough

    def test_oldest_are_lost(self) -> None:
        """
        On a full disk every reading is published and every request answered, for however long, in bounded memory. The
        oldest waiting rows are lost, exactly as many as `status` counts, also after a restart.
        """
        daemon = self.start_with_small_ring()
        lost = 0
        for _ in range(TIMES):
            self.lives_on(history="")
            safe = set(self.all_there(lost))
            self.disk.fill()
            self.lives_on(history="")
            eventually(lambda: self.journal()["JOURNAL"] == "trouble", "status says it")
            memory = resident(daemon.process.pid)
            eventually(partial(self.goes_on_losing, lost + 20_000), "rows are lost", 120)
            self.assertLess(resident(daemon.process.pid) - memory, 15)
            self.assertEqual(self.journal()["JOURNAL"], "trouble")
            self.disk.make_room()
            self.lives_on(history="")
            eventually(lambda: self.journal()["JOURNAL"] == "ok", "it writes again")
            lost = self.lost()
            found = self.all_there(lost)
            self.assertTrue(safe <= set(found), "what was on disk is there")
            self.assertEqual(found[-300:], list(range(self.said - 300, self.said)))
        self.assertEqual(daemon.stop(), -signal.SIGTERM)
        check_whole(self.state / "journal.sqlite")
        log = self.log.read_text()
        self.assertNotIn("Traceback", daemon.log + log)
        self.assertIn("the journal can be used again", log)
        logged = [int(rows) for rows in re.findall(r"the (\d+) oldest rows were dropped", log)]
        self.assertLessEqual(sum(logged), lost)  # nothing could be logged while the log's disk was full, too
        # It starts on a full disk, too.
        self.disk.fill()
        self.start_with_small_ring()
        self.assertEqual(self.journal()["JOURNAL"], "trouble")
        self.lives_on(history="")
        self.disk.make_room()
        eventually(lambda: self.journal()["JOURNAL"] == "ok", "it writes again")
        self.assertEqual(self.lost(), lost)
        found = self.all_there(lost)
        self.assertEqual(found[-300:], list(range(self.said - 300, self.said)))
        self.assertNotIn("Traceback", daemon.log + self.log.read_text())

    def all_there(self, lost: int) -> list[int]:
        """
        Check that everything but the lost rows is stored once and in order; return the numbers.
        """
        eventually(lambda: self.store()["BACKLOG"] == "0", "all is stored that was not lost")
        numbers = [int(value) for (value,) in self.rows("select value from reading where sensor = '1' order by seq")]
        self.assertEqual(numbers, sorted(set(numbers)))
        [(total, distinct, last)] = self.rows(
            "select count(*), count(distinct seq), max(seq)"
            " from (select seq from reading union all select seq from request union all select seq from clock_mark)"
            " as rows"
        )
        # A question makes two rows: its own, and the reading that is its answer. A start makes one, the clock's mark.
        expected = self.said + 2 * self.asked + self.starts
        self.assertEqual((distinct, last, total + lost), (total, expected, expected))
        return numbers


# The whole daemon, but with less room in memory for what waits for the disk.
SMALL_RING = """
from functools import partial
from twisted.scripts.twistd import run
from usbgate.assembly import storage
storage.Journal = partial(storage.Journal, unsynced_limit=200_000)
run()
"""
