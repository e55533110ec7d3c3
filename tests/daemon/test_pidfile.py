"""
Which pid files are removed before twistd looks at them, and which are refused.
"""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import time
from pathlib import Path

from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from tests.support.waiting import LIMIT
from usbgate.daemon.pidfile import START_SPAN, remove_stale_pid_file, why_unusable


class PidFileTests(SynchronousTestCase):
    """
    Pid files that name real processes.
    """

    def setUp(self) -> None:
        """
        Make the folder.
        """
        self.state = Path(self.mktemp())
        self.state.mkdir()
        self.path = self.state / "twistd.pid"

    def run_process(self, *arguments: str) -> subprocess.Popen[bytes]:
        """
        Run a process with these arguments until the end of the test.
        """
        code = "import sys; print(flush=True); sys.stdin.read()"
        process = subprocess.Popen(
            [sys.executable, "-c", code, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        self.addCleanup(process.communicate, timeout=LIMIT)
        assert process.stdout is not None
        process.stdout.readline()  # its command line is its own now
        return process

    def is_removed(self, text: str, age: float = 0.0) -> bool:
        """
        Write a pid file, as if so many seconds ago; return whether it is removed, which is logged.
        """
        self.path.write_text(text)
        then = time.time() - age
        os.utime(self.path, (then, then))
        with capturedLogs() as logs:
            remove_stale_pid_file(self.path, self.state)
        removed = not self.path.exists()
        self.assertEqual(
            [formatEvent(event).partition(": ")[0] for event in logs], [f"removed the pid file {self.path}"] * removed
        )
        return removed

    def test_no_number(self) -> None:
        """
        What is no process id, as an empty file after a power cut, is removed.
        """
        for text in ("", "\n", "\0\0\0\0", "x", "0", "-1", "1.5", "99999999999", "9" * 10_000):
            self.assertTrue(self.is_removed(text), text)

    def test_strangers(self) -> None:
        """
        A process that is no daemon is a stranger, however its start and the file lie in time; so is this process, which
        has not written the file, and one that is over but not waited for.
        """
        for arguments in ([], ["x"], ["usbgate.toml"], ["/etc/twistd.pid"], ["twistdx"], ["--usbgate"]):
            process = self.run_process(*arguments)
            for age in (0.0, 3600.0, -3600.0):
                self.assertTrue(self.is_removed(f"{process.pid}\n", age), arguments)
        self.assertTrue(self.is_removed(str(os.getpid())))
        self.assertTrue(self.is_removed("1"), "init")
        zombie = subprocess.Popen(["true"])
        self.addCleanup(zombie.wait)
        os.waitid(os.P_PID, zombie.pid, os.WEXITED | os.WNOWAIT)
        self.assertTrue(self.is_removed(str(zombie.pid)))

    def test_daemons(self) -> None:
        """
        A daemon keeps the file that was written when it started, and no other: that number was another daemon's.
        """
        for arguments in (["usbgate"], ["/usr/bin/twistd", "-n"], ["twistd3"], ["-m", "usbgate.cli.twistd"]):
            process = self.run_process(*arguments)
            self.assertFalse(self.is_removed(str(process.pid)), arguments)
            self.assertFalse(self.is_removed(f" {process.pid}\n"), arguments)
            self.assertTrue(self.is_removed(str(process.pid), 60.0), "it was written before the process started")
            self.assertTrue(self.is_removed(str(process.pid), -START_SPAN[1] - 60.0), "and much later")

    def test_clock_set(self) -> None:
        """
        If the clock was set since a daemon of this folder started, its lock tells.
        """
        process = self.run_process("usbgate")
        with (self.state / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            self.assertFalse(self.is_removed(str(process.pid), 86_400.0))
            self.assertTrue(self.is_removed(str(self.run_process("x").pid), 0.0), "a stranger holds no lock")
        self.assertTrue(self.is_removed(str(process.pid), 86_400.0))

    def test_nothing_to_do(self) -> None:
        """
        No file, a process that has ended, and what can't be removed are left to twistd.
        """
        remove_stale_pid_file(self.path, self.state)
        ended = subprocess.Popen(["true"])
        ended.wait()
        self.assertFalse(self.is_removed(str(ended.pid)))
        folder = self.state / "folder"
        folder.mkdir()
        remove_stale_pid_file(folder, self.state)
        self.assertTrue(folder.exists())

    def test_unusable(self) -> None:
        """
        What twistd could not read or write is said; one that it can is not, whether it is there or not.
        """
        folder = self.state / "folder"
        folder.mkdir()
        self.assertIsNone(why_unusable(self.path))
        self.path.touch()
        self.assertIsNone(why_unusable(self.path))
        self.assertEqual(why_unusable(folder), "Is a directory")
        self.assertEqual(why_unusable(folder / "none" / "x.pid"), "there is no such folder")
        self.patch(os, "access", lambda path, mode: False)  # of root's, everything is permitted
        self.assertEqual(why_unusable(folder / "x.pid"), "its folder cannot be written to")
