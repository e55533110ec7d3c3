"""
Killing the test runner leaves no process behind.
"""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from importlib.util import find_spec
from shutil import which

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from tests.faults import orphans
from tests.faults.everything import READY
from tests.support.folders import new_folder
from tests.support.running import ROOT, environment
from tests.support.waiting import LIMIT


class RunnerKilledTests(SynchronousTestCase):
    """
    The runner is killed with SIGKILL, while all kinds of processes run.
    """

    def test_nothing_is_left(self) -> None:
        """
        Nothing is left: no daemon, in the background or not, no database, no browser, no worker of the runner.
        """
        if not sys.platform.startswith("linux"):
            raise SkipTest("no /proc")
        folder = new_folder()
        ready = folder / "ready"
        trial = [sys.executable, "-m", "twisted.trial", "--temp-directory", str(folder / "trial"), "-j", "1"]
        ran = subprocess.run(
            [sys.executable, orphans.__file__, str(ready), str(LIMIT), *trial, "tests.faults.everything"],
            capture_output=True,
            text=True,
            cwd=ROOT,
            env=environment() | {READY: str(ready)},
            timeout=6 * LIMIT,
        )
        self.assertEqual(ran.returncode, 0, ran.stdout + ran.stderr)
        started, _, left = ran.stdout.partition("left\n")
        self.assertEqual(left, "", started)
        names = Counter(started.split("\n"))
        pythons = sum(count for name, count in names.items() if name.startswith("python"))
        self.assertGreaterEqual(pythons, 8, started)  # with two watchdogs
        self.assertGreater(names["postgres"], 10, started)  # of two servers
        if find_spec("playwright") and which("chromium"):
            self.assertGreater(names["chromium"], 1, started)
        if which("nginx"):
            self.assertEqual(names["nginx"], 1, started)
