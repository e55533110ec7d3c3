"""
The unit of systemd, etc/systemd/usbgate.service.
"""

from __future__ import annotations

import shutil
import subprocess

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from tests.support.running import ROOT

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
            *("SystemCallFilter=@system-service adjtimex", "SystemCallErrorNumber=EPERM"),
        ):
            self.assertIn(line, lines)
        keys = {line.partition("=")[0] for line in lines}
        self.assertEqual(
            keys & {"ProtectClock", "ProcSubset", "PrivateDevices", "PrivateNetwork", "PrivateUsers"}, set()
        )
