"""
The disk that holds the state folder is full: a small one, really full.
"""

from __future__ import annotations

import signal
import subprocess

from twisted.trial.unittest import SkipTest

from tests.faults.ledger import FULL
from tests.faults.promises import Life, NumberingDevice, check_whole, missing_from
from tests.running import TwistdDaemon, eventually
from tests.test_end_to_end import StoreCase, value_of

SIZE = 2 << 20  # bytes; a folder of the journal's needs 0.3 MB

TIMES = 10 if FULL else 1


class FullDiskTests(StoreCase):
    """
    Journal and log on a disk that gets full, and has room again.
    """

    timeout = 600

    def setUp(self) -> None:
        """
        Mount the disk at the state folder, and plug the device in.
        """
        super().setUp()
        self.state.mkdir()
        try:
            mounted = subprocess.run(
                ["mount", "-t", "tmpfs", "-o", f"size={SIZE},mode=755", "usbgate-test", str(self.state)],
                capture_output=True,
                text=True,
            )
        except FileNotFoundError:
            raise SkipTest("there is no mount here") from None
        if mounted.returncode:
            raise SkipTest(f"can't mount a small disk: {mounted.stderr.strip()}")
        self.addCleanup(subprocess.run, ["umount", "-l", str(self.state)], check=True)
        self.device = NumberingDevice(self.folder / "ttyACM0", value_of)
        self.addCleanup(self.device.unplug)

    def fill(self) -> None:
        """
        Leave no room at all.
        """
        with (self.state / "filler").open("ab", buffering=0) as filler:
            for size in (1 << 16, 1):
                try:
                    while True:
                        filler.write(bytes(size))
                except OSError:
                    continue

    def test_full_and_with_room_again(self) -> None:
        """
        With no room usbgate lives, answers, publishes and says so; with room it writes again, all that was read since
        too, and nothing is corrupt.
        """
        log = self.state / "usbgate.log"
        daemon = TwistdDaemon(
            self.state,
            *("--device", str(self.device.path), "--database", self.database),
            twistd=("-n", "--pidfile=", "--logfile", str(log)),
        )
        self.addCleanup(daemon.stop)
        daemon.ready()
        watcher = self.connect(daemon)
        life = Life(daemon, self.device)
        self.addCleanup(life.client.close)
        for _ in range(TIMES):
            life.under_load()
            self.fill()
            eventually(lambda: life.note() and life.journal["JOURNAL"] == "trouble", "status says it")
            self.assertIn("full", life.journal["TEXT"])
            # All goes on that needs no disk.
            watcher.word("watch 1")
            self.assertRegex(watcher.hear(), "^EVENT:reading_ID:1_N:")
            watcher.word("unwatch")
            self.assertRegex(life.client.word("ask 20")[0], "^ID:20_VALUE:456_")
            written = life.journal["COMMITS"]
            life.note()
            self.assertEqual((life.journal["JOURNAL"], life.journal["COMMITS"]), ("trouble", written))
            (self.state / "filler").unlink()
            life.under_load(self.device.next - life.first)
            self.assertEqual(life.journal["JOURNAL"], "ok")
        eventually(lambda: not missing_from([life.promised], self.found()), f"all is stored: {life.promised}")
        self.assertEqual(daemon.stop(), -signal.SIGTERM)
        check_whole(self.state / "journal.sqlite")
        self.assertNotIn("Traceback", daemon.log + log.read_text())

    def found(self) -> list[int]:
        """
        List the numbers in the table.
        """
        rows = self.rows("select value from reading where sensor = '1' and field = 'N' order by seq")
        return [int(value) for (value,) in rows]
