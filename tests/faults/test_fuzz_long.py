"""
Any bytes from devices and clients, as a coverage-guided fuzzer finds them (atheris).

Only in the long version, and if atheris is installed (`pip install '.[fuzz]'`). `tests.faults.test_fuzz` makes
the same checks without it.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from tests.faults.ledger import FULL
from tests.support.running import environment

SECONDS = int(os.environ.get("USBGATE_FUZZ_SECONDS", "300"))  # for each target


class LongFuzzTests(SynchronousTestCase):
    """
    One target each.
    """

    timeout = 2 * SECONDS + 120

    def setUp(self) -> None:
        """
        Create a folder for the inputs.
        """
        if not FULL:
            raise SkipTest("a fuzzer runs for minutes: only with USBGATE_FAULTS=full")
        if find_spec("atheris") is None:
            raise SkipTest("atheris is not installed: pip install '.[fuzz]'")
        self.place = Path(tempfile.mkdtemp(prefix="usbgate-test-"))

    def fuzz(self, target: str) -> None:
        """
        Fuzz a target; a failure names the input.
        """
        fuzzer = subprocess.run(
            [
                *(sys.executable, "-m", "tests.faults.fuzzed", target, str(self.place / target)),
                f"-max_total_time={SECONDS}",
            ],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=2 * SECONDS + 60,
            env=environment(),
            start_new_session=True,
        )
        self.assertEqual(fuzzer.returncode, 0, f"see {self.place}: {fuzzer.stdout[-3000:]} {fuzzer.stderr[-3000:]}")
        [runs] = re.findall(r"^Done (\d+) runs", fuzzer.stderr, re.MULTILINE)
        self.assertGreater(int(runs), 100)
        shutil.rmtree(self.place)

    def test_streams(self) -> None:
        """
        However a stream is cut, it has the same lines, without the same Telnet commands, in bounded memory.
        """
        self.fuzz("streams")

    def test_lines(self) -> None:
        """
        Any line is parsed as the protocol says, or refused as malformed.
        """
        self.fuzz("lines")

    def test_clients(self) -> None:
        """
        Whatever a client sends, each request has one echo and one end, each word one last line, and nothing is raised.
        """
        self.fuzz("clients")
