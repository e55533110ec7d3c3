"""
Another program uses the port of a device.
"""

from __future__ import annotations

import os
import subprocess
import sys
import termios

from tests.support.daemon import RunningCase
from tests.support.waiting import eventually

READ = (
    "import os, sys; fd = os.open(sys.argv[1], os.O_RDONLY | os.O_NOCTTY); print('open', flush=True); sys.stdin.read()"
)


class SharedPortTests(RunningCase):
    """
    A daemon with a device that is there alone at first.
    """

    timeout = 120

    def test_somebody_reads_along(self) -> None:
        """
        A program that opens the port, without asking for its lock, is named in `devices`, over HTTP and in the log
        within seconds, also if it takes all lines; and no more once it has ended.
        """
        device = self.plug()
        daemon = self.run_daemon("--device", str(device.path), "--database", "none")
        client = self.online(daemon)
        self.assertNotIn("_TEXT:", client.word("devices")[0])
        with subprocess.Popen(
            [sys.executable, "-c", READ, os.path.realpath(device.path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        ) as program:
            assert program.stdout is not None
            self.assertEqual(program.stdout.readline(), b"open\n")
            eventually(lambda: f"(process {program.pid})" in client.word("devices")[0], "it is named")
            self.assertIn("another program has the port open and may take lines away, stop it: ", daemon.log)
            program.communicate()
        eventually(lambda: "_TEXT:" not in client.word("devices")[0], "it is not named any more")
        self.assertEqual(daemon.log.count("another program has the port open"), 1)

    def test_speed(self) -> None:
        """
        A speed that another program has set is set back within seconds, and logged.
        """
        device = self.plug()
        daemon = self.run_daemon("--device", f"{device.path},baud=9600", "--database", "none")
        self.online(daemon)
        tty = os.open(device.path, os.O_RDONLY | os.O_NOCTTY)
        try:
            attributes = termios.tcgetattr(tty)
            self.assertEqual(attributes[5], termios.B9600)
            attributes[4] = attributes[5] = termios.B115200
            termios.tcsetattr(tty, termios.TCSANOW, attributes)
        finally:
            os.close(tty)
        eventually(lambda: f"changed {device.path} to 115200 baud" in daemon.log, "it is logged")
        tty = os.open(device.path, os.O_RDONLY | os.O_NOCTTY)
        self.addCleanup(os.close, tty)
        self.assertEqual(termios.tcgetattr(tty)[5], termios.B9600)

    def test_second_name(self) -> None:
        """
        A port that is configured twice, by two names, is open once; `devices` says why the other is offline.
        """
        device = self.plug()
        second = self.folder / "second"
        second.symlink_to(os.path.realpath(device.path))
        daemon = self.run_daemon("--device", str(device.path), "--device", str(second), "--database", "none")
        client = self.connect(daemon)
        eventually(
            lambda: (
                sum("_TEXT:" in line and "usbgate itself has it open" in line for line in client.word("devices")) == 1
            ),
            "one of them is refused",
        )
        eventually(lambda: "usbgate itself has it open" in daemon.log, "it is logged")
        self.assertEqual(daemon.log.count("usbgate itself has it open"), 1)
