"""
The unit of systemd, etc/systemd/usbgate.service.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from tests.support.processes import needs_strace
from tests.support.running import ROOT, environment

UNIT = ROOT / "etc" / "systemd" / "usbgate.service"

EXPOSURE = 20  # tenths, of 100: what systemd calls OK


class UnitTests(SynchronousTestCase):
    """
    The file as it is.
    """

    def test_exposure(self) -> None:
        """
        `systemd-analyze security` finds little that the service could do to the machine.
        """
        if shutil.which("systemd-analyze") is None:
            raise SkipTest("systemd-analyze is not installed")
        analyze = ["systemd-analyze", "security", "--offline=true", f"--threshold={EXPOSURE}", str(UNIT)]
        done = subprocess.run(analyze, capture_output=True, text=True, timeout=60)
        if "unrecognized option" in done.stderr:
            raise SkipTest("this systemd-analyze cannot judge a file (--offline, since systemd 250)")
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)

    def test_needs(self) -> None:
        """
        The service keeps what usbgate needs: serial ports, the clock's state, the boot id, and time to stop PostgreSQL.
        """
        lines = UNIT.read_text().splitlines()
        for line in (
            *("Type=notify", "KillMode=mixed", "StateDirectory=usbgate", "DevicePolicy=closed"),
            *("DeviceAllow=char-ttyACM rw", "DeviceAllow=char-ttyUSB rw"),
            *("SystemCallErrorNumber=EPERM", "ExecReload=/bin/kill -HUP $MAINPID"),
        ):
            self.assertIn(line, lines)
        keys = {line.partition("=")[0] for line in lines}
        self.assertEqual(
            keys & {"ProtectClock", "ProcSubset", "PrivateDevices", "PrivateNetwork", "PrivateUsers"}, set()
        )

    def test_clock(self) -> None:
        """
        The system call by which the C library asks for the state of the clock is allowed.
        """
        if reason := needs_strace():
            raise SkipTest(reason)
        ask = "from usbgate.daemon.clock import is_synchronised; is_synchronised()"
        trace = ["strace", "-qq", "-e", "trace=/adj", sys.executable, "-c", ask]
        done = subprocess.run(trace, capture_output=True, text=True, timeout=60, env=environment())
        called = set(re.findall(r"^(\w+)\(", done.stderr, re.MULTILINE))
        self.assertTrue(called, done.stderr)
        allowed = re.findall(r"^SystemCallFilter=(.*)$", UNIT.read_text(), re.MULTILINE)
        self.assertLessEqual(called, {*" ".join(allowed).split()})
