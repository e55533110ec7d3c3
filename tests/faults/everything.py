"""
A test that starts every kind of process and never ends, for `tests.faults.test_runner_killed`.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

from twisted.trial.unittest import SkipTest

from tests.support.daemon import StoreCase
from tests.support.running import TWISTD, environment, free_port, is_answered
from tests.support.waiting import eventually

READY = "EVERYTHING_READY"  # names the file that is created when everything runs


# Not `suppress` by itself: to trial that name says which warnings to leave out.
class EverythingTests(StoreCase):
    """
    Processes of every kind, each in a session of its own.
    """

    def test_forever(self) -> None:
        """
        Run forever.
        """
        self.start("-m", "usbgate.cli", "simulate", str(self.folder / "simulated"))
        eventually((self.folder / "simulated").is_symlink, "the simulated device is there")
        daemon = self.run_daemon("--device", str(self.folder / "simulated"), "--database", self.database)
        self.online(daemon)
        http = free_port()
        background = self.folder / "background"  # with a PostgreSQL of its own, which outlives even a `kill -9`
        self.start(
            *(*TWISTD[1:], f"--pidfile={self.folder}/pid", f"--logfile={self.folder}/log", "usbgate"),
            *("--state", str(background), "--device", str(self.plug().path)),
            *("--listen", f"tcp:{free_port()}:interface=127.0.0.1", "--http", f"tcp:{http}:interface=127.0.0.1"),
        )
        eventually(lambda: is_answered(f"http://127.0.0.1:{http}/healthz") == "ok", "the embedded PostgreSQL runs")
        with contextlib.suppress(SkipTest, ImportError):
            from tests.support.browser import Proxy, browser, find_browser

            if find_browser() is not None:
                browser().new_page()
            Proxy(f"http://127.0.0.1:{http}/")
        self.start("-c", "import os, time; os.kill(os.getpid(), 19); time.sleep(3600)")  # it is stopped
        Path(os.environ[READY]).touch()
        signal.pause()

    def start(self, *arguments: str) -> None:
        """
        Start a Python process.
        """
        subprocess.Popen(
            [sys.executable, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            cwd="/",
            env=environment(),
            start_new_session=True,
        )
