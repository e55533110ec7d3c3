"""
The Nth system call on the journal's files fails, for each N.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from tests.faults.ledger import FULL
from tests.faults.promises import missing_from_journal
from tests.support.processes import needs_strace
from tests.support.running import environment
from tests.support.waiting import LIMIT

ROWS = 45  # some of them let go, and the -wal file carried over several times

# By what SQLite and we change files; what is not called never fails, and costs one run.
WRITING = ("pwrite64", "write", "ftruncate", "fallocate")
CHANGING = (*WRITING, "fdatasync", "fsync", "unlink", "rename")
READING = ("pread64", "read")

SAMPLE = 2  # of the calls of each kind that has more


def trace_of(folder: Path) -> Path:
    """
    Return the path of the trace for a folder.
    """
    return folder.with_suffix(".trace")


def run_journal(folder: Path, *options: str, ending: str = "stop") -> subprocess.CompletedProcess[str]:
    """
    Run a journal in a folder under strace (see `trace_of`).

    Args:
        folder: The folder.
        options: For strace: what to trace and what to spoil, of what concerns the journal's files only; by default
            nothing.
        ending: See `tests.faults.journalling`.
    """
    path = folder / "journal.sqlite"
    watched = [folder, *[Path(f"{path}{suffix}") for suffix in ("", "-wal", "-shm", "-journal")]]
    return subprocess.run(
        [
            *("strace", "-f", "--seccomp-bpf", "-qq", "-o", str(trace_of(folder)), *options),
            *(part for each in watched for part in ("-P", str(each))),
            *(sys.executable, "-m", "tests.faults.journalling", str(path), str(ROWS), ending),
        ],
        capture_output=True,
        text=True,
        timeout=LIMIT,
        env=environment(),
        start_new_session=True,
    )


class NthCallTests(SynchronousTestCase):
    """
    A journal whose disk fails once.
    """

    timeout = 3600 if FULL else 120

    def setUp(self) -> None:
        """
        Create a folder.
        """
        if reason := needs_strace():
            raise SkipTest(reason)
        self.place = Path(tempfile.mkdtemp(prefix="usbgate-test-"))
        self.addCleanup(shutil.rmtree, self.place, ignore_errors=True)

    def folder(self, name: str) -> Path:
        """
        Create a new folder for a journal.
        """
        folder = self.place / name
        folder.mkdir()
        return folder

    def spoil(self, call: str, error: str, nth: int, older: bool) -> bool:
        """
        Run a journal whose Nth call fails, and check what it leaves; return whether there was such a call.

        Args:
            call: Which call.
            error: How it fails.
            nth: Which of them.
            older: Whether the journal is there already, as one that was killed has left it.
        """
        folder = self.folder(f"{call}-{nth}")
        said = run_journal(folder, ending="killed").stdout if older else ""
        run = run_journal(folder, "-e", f"trace={call}", "-e", f"inject={call}:error={error}:when={nth}")
        which = f"{call} {nth} {error}: {run.stdout[-500:]} {run.stderr[-2000:]}"
        self.assertEqual((run.returncode, run.stderr), (0, ""), which)
        # Either the journal was reported to be unusable, or all rows are on disk in the end, after whatever trouble.
        if not run.stdout.startswith("unusable"):
            last = ROWS * 2 if older else ROWS
            self.assertIn(f"committed {last} {last}\n", run.stdout, which)
            self.assertTrue(run.stdout.endswith("stopped\n"), which)
        try:
            self.assertEqual(missing_from_journal(folder / "journal.sqlite", said + run.stdout), [])
        except AssertionError as error_found:
            self.fail(f"{which}: {error_found}")
        shutil.rmtree(folder)
        return "(INJECTED)" in trace_of(folder).read_text()

    def check(self, calls: Sequence[str], error: str, older: bool = False, sample: int = SAMPLE) -> None:
        """
        Let calls fail with an error: each, or of each kind the last ones of the sample.
        """
        with ThreadPoolExecutor() as pool:
            if FULL:
                list(pool.map(lambda call: self.spoil_all(call, error, older), calls))
                return
            folder = self.folder("counted")
            run_journal(folder, "-e", f"trace={','.join(calls)}")
            trace = trace_of(folder).read_text()
            counts = {call: trace.count(f" {call}(") for call in calls}
            self.assertTrue(counts[calls[0]] > sample, counts)
            some = [
                (call, nth)
                for call, count in counts.items()
                for nth in sorted({1 + count * part // SAMPLE for part in range(SAMPLE)[-sample:]})
                if count
            ]
            spoiled = list(pool.map(lambda one: self.spoil(one[0], error, one[1], older), some))
        # One of a few that are the last can be missing: there was more to do in the other run.
        self.assertGreater(spoiled.count(True), len(spoiled) // 2, str(list(zip(some, spoiled, strict=True))))

    def spoil_all(self, call: str, error: str, older: bool) -> None:
        """
        Let the Nth call fail for each N, until there is no such call.
        """
        nth = 1
        while self.spoil(call, error, nth, older):
            nth += 1

    def test_input_output_error(self) -> None:
        """
        When the disk fails once, the trouble is reported, what is on disk stays, and the rest gets there, each row
        once.
        """
        self.check(CHANGING, "EIO")

    def test_no_space(self) -> None:
        """
        When the disk is full for one call, the same holds.
        """
        self.check(WRITING, "ENOSPC", sample=1)

    def test_read_error(self) -> None:
        """
        When the disk fails once to read, a whole journal is not given up.
        """
        if FULL:
            self.check(READING, "EIO", older=True)
        for nth in (1, 2):  # while it is opened
            self.assertTrue(self.spoil("pread64", "EIO", nth, older=True))
