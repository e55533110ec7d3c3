"""
The power is cut: what was synced is there, and that must be everything that was reported to be on disk.
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from tests.faults.ledger import FULL
from tests.faults.promises import missing_from_journal
from tests.support.running import environment
from tests.support.waiting import LIMIT, eventually

CUTS = 200 if FULL else 3

ROWS = 1_000_000  # more than there is time for

# After so many changes at most: some seconds.
MOST_CHANGES = 6000 if FULL else 3000


class PowerTests(SynchronousTestCase):
    """
    A journal on a file system whose power fails.
    """

    timeout = 3600 if FULL else 120

    def setUp(self) -> None:
        """
        Create a folder for the file system.
        """
        if not os.access("/dev/fuse", os.R_OK | os.W_OK):
            raise SkipTest("no /dev/fuse, or no right to use it")
        try:
            from tests.faults.powercut import NO_MOUNT
        except (ImportError, OSError) as error:  # the latter where it does not find libfuse
            raise SkipTest(f"no FUSE for Python: {error}") from None
        self.no_mount = NO_MOUNT
        self.place = Path(tempfile.mkdtemp(prefix="usbgate-test-"))
        self.addCleanup(shutil.rmtree, self.place, ignore_errors=True)

    def cut(self, seed: int, synchronous: str) -> list[int]:
        """
        Write a journal until the power fails; return the rows that were reported to be on disk and are lost.
        """
        changes = random.Random(seed).randrange(1, MOST_CHANGES)
        mountpoint, survived = self.place / "mounted", self.place / "survived"
        for folder in (mountpoint, survived):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
        system = self.start("powercut", str(mountpoint), str(survived), str(changes), str(seed))
        try:
            eventually(lambda: mountpoint.is_mount() or system.poll() is not None, "the file system is there")
            if system.poll() == self.no_mount:
                raise SkipTest(f"can't mount a FUSE file system: {system.communicate()[1].strip()}")
            settings = ("stop", f"synchronous={synchronous}", "wal_autocheckpoint=100")
            journal = self.start("journalling", str(mountpoint / "journal.sqlite"), str(ROWS), *settings)
            try:
                system.wait(LIMIT)
            finally:
                # What it says after the cut is of no use: it is not there any more.
                journal.kill()
                said, errors = journal.communicate(timeout=LIMIT)
        finally:
            system.kill()
            complaint = system.communicate(timeout=LIMIT)[1]
            unmount(mountpoint)
        self.assertEqual((system.returncode, complaint, errors), (0, "", ""), said[-300:])
        return missing_from_journal(survived / "journal.sqlite", said)

    def start(self, module: str, *arguments: str) -> subprocess.Popen[str]:
        """
        Start one of our programs.
        """
        return subprocess.Popen(
            [sys.executable, "-m", f"tests.faults.{module}", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(),
            start_new_session=True,
        )

    def test_nothing_is_lost(self) -> None:
        """
        No row that was reported to be on disk is lost, wherever the power is cut, and the journal is whole.
        """
        for cut in range(CUTS):
            seed = random.getrandbits(32) if FULL else cut
            self.assertEqual(self.cut(seed, "full"), [], f"with seed {seed}")

    def test_can_fail(self) -> None:
        """
        The same test finds lost rows where commits do not wait for the disk.
        """
        for seed in range(20):
            if self.cut(seed, "normal"):
                return
        self.fail("nothing was ever lost: this finds no fault")


def unmount(mountpoint: Path) -> None:
    """
    Unmount a file system, even if it is used; Python does not see one without a server as a mount point.
    """
    for command in (["umount", "-l"], ["fusermount3", "-uz"]):
        try:
            if subprocess.run([*command, str(mountpoint)], capture_output=True).returncode == 0:
                return
        except FileNotFoundError:
            continue
