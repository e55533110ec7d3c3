"""
`usbgate doctor`: each check on a made-up machine, and the command.
"""

from __future__ import annotations

import json
import os
import pty
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from click.testing import CliRunner
from msgspec.structs import replace
from twisted.trial.unittest import SynchronousTestCase

from tests.support import postgresql
from tests.support.folders import new_folder
from tests.support.rules import rule
from tests.support.running import free_port
from tests.support.usb import MadeUpUsb
from usbgate import __version__
from usbgate.access.certificates import make_authority, make_server, utc_now
from usbgate.cli import checks
from usbgate.cli.checks import Examination
from usbgate.cli.findings import OK, PROBLEM, WARNING, Finding, FoundDaemon, Machine
from usbgate.cli.main import main
from usbgate.config.settings import DeviceSettings, Settings
from usbgate.config.types import ListenAddress
from usbgate.core.settings import SensorSettings
from usbgate.device.usb import UsbTree

PID = 4711  # of the daemon


def device(**changes: Any) -> dict[str, Any]:
    """
    Return a device as the daemon shows it.
    """
    counts = {"in": 1000, "malformed": 3} | changes.pop("counts", {})
    return {"name": "uno", "path": "/dev/x", "state": "online", "warning": None, "counts": counts, **changes}


def open_unused_pty() -> tuple[int, int]:
    """
    Open a pty whose number no other test has used: a daemon may still wait for a device with that number.
    """
    low: list[int] = []
    while True:
        master, slave = pty.openpty()
        if int(Path(os.ttyname(slave)).name) >= 100:
            break
        low += [master, slave]
    for descriptor in low:
        os.close(descriptor)
    return master, slave


class CheckTests(SynchronousTestCase):
    """
    A machine of files.
    """

    def setUp(self) -> None:
        """
        Let the daemon run as user 1000 of group 1000, with a device that user and group 20 may open.
        """
        self.folder = new_folder()
        self.addCleanup(shutil.rmtree, self.folder)
        usb = MadeUpUsb(self.folder)
        usb.plug("1-1.3", "1a86:7523", None, ttyUSB0="1.0")
        self.usb = usb
        self.proc = self.folder / "proc"
        self.udev = self.folder / "udev"
        self.udev.mkdir()
        self.process(PID, "twistd", status="Uid:\t1000\t1000\nGid:\t1000\t1000\nGroups:\t20 1000\n")
        self.machine = Machine(self.proc, usb.sysfs, usb.dev, self.udev, UsbTree(str(usb.sysfs), str(usb.dev)))
        self.path = usb.dev / "ttyUSB0"
        self.path.touch(0o660)
        self.path.chmod(0o660)
        os.chown(self.path, -1, 20) if os.geteuid() == 0 else None
        self.settings = Settings(state=self.folder / "state", devices={"uno": DeviceSettings(path=str(self.path))})

    def process(self, pid: int, name: str, **files: str) -> None:
        """
        Let a process run.
        """
        folder = self.proc / str(pid)
        folder.mkdir(parents=True)
        for each, text in {"comm": name + "\n", **files}.items():
            (folder / each).write_text(text)

    def examine(self, daemon: FoundDaemon | None = None, **settings: Any) -> Examination:
        """
        Examine the machine.
        """
        changed = replace(self.settings, **settings)
        return Examination(changed, daemon or FoundDaemon(PID), self.machine)

    def assert_found(self, found: Iterable[Finding], *expected: tuple[str, str, str]) -> None:
        """
        Check the state of each finding, and a part of its text and its remedy.
        """
        found = list(found)
        self.assertEqual([each.state for each in found], [state for state, _, _ in expected], found)
        for each, (_, text, remedy) in zip(found, expected, strict=True):
            self.assertIn(text, each.text)
            self.assertIn(remedy, each.remedy or "")

    def test_rights(self) -> None:
        """
        The daemon's user, not that of this process, must be able to open the port.
        """
        if os.geteuid() != 0:
            return  # needs chown
        self.assert_found(self.examine().ports.findings(), (OK, "may open it", ""))
        os.chown(self.path, -1, 7)
        self.assert_found(self.examine().ports.findings(), (PROBLEM, "is not in its group", "sudo usermod -aG"))
        self.path.chmod(0o600)
        self.assert_found(self.examine().ports.findings(), (PROBLEM, "its mode is 0600", "chmod 660"))

    def test_polls(self) -> None:
        """
        A sensor that is polled and has never reported is a warning; not if no daemon runs.
        """
        sensors: dict[str, dict[str, Any]] = {
            "1": {"seen": "2026-01-01T00:00:00Z", "device": "uno"},
            "2": {"seen": None, "device": "uno"},
            "3": {"seen": None, "device": None},
        }
        polled = {sensor: SensorSettings(poll=60.0) for sensor in sensors} | {"4": SensorSettings()}
        both = {name: DeviceSettings(path=f"/dev/{name}") for name in ("uno", "mega")}
        self.assert_found(
            self.examine(FoundDaemon(PID, {}, (), sensors), sensors=polled, devices=both).polls(),
            (WARNING, "sensor 2 has never reported", "check its id"),
            (WARNING, "sensor 3 has never reported", "set `device` in [sensor.3]"),
        )
        self.assert_found(self.examine(FoundDaemon(PID), sensors=polled).polls())

    def test_rules(self) -> None:
        """
        A sensor or a field that a rule names and that has never reported is a warning; not if no daemon runs.
        """
        sensors: dict[str, dict[str, Any]] = {
            "20": {"seen": "2026-01-01T00:00:00Z", "fields": ["HUM", "TEMP"]},
            "3": {"seen": None, "fields": []},
        }
        daemon = FoundDaemon(PID, {}, (), sensors)
        good = rule("sensor 20 TEMP > 1 or sensor 20 stale")
        wrong = rule("sensor 20 TMP > 1 or sensor 20 X == 1 or sensor 3 A == 1 or sensor 200 stale", "x")
        self.assert_found(self.examine(daemon, rules=(good,)).rules())
        self.assert_found(
            self.examine(daemon, rules=(wrong,)).rules(),
            (WARNING, "rule x: sensor 3 has never reported", "`usbgate sensors` lists"),
            (WARNING, "rule x: sensor 200 has never reported", "did you mean 20?"),
            (WARNING, "rule x: sensor 20 has never reported TMP", "did you mean TEMP?"),
            (WARNING, "rule x: sensor 20 has never reported X", "its fields are HUM, TEMP"),
        )
        self.assert_found(self.examine(FoundDaemon(PID), rules=(wrong,)).rules())

    def test_missing(self) -> None:
        """
        A device that is not there, or of which there are two, is a problem; one on the network is not looked at.
        """
        none = {"uno": DeviceSettings(path="usb:1234:5678")}
        self.assert_found(self.examine(devices=none).ports.findings(), (PROBLEM, "no such device", "plug it in"))
        self.usb.plug("1-1.4", "1a86:7523", None, ttyUSB1="1.0")
        (self.usb.dev / "ttyUSB1").touch()
        twins = {"uno": DeviceSettings(path="usb:1a86:7523")}
        self.assert_found(self.examine(devices=twins).ports.findings(), (PROBLEM, "2 devices match", ""))
        self.assert_found(self.examine(devices={}).ports.findings(), (PROBLEM, "several serial devices", "choose"))
        network = {"uno": DeviceSettings(path="tcp:host:4000")}
        self.assert_found(self.examine(devices=network).ports.findings(), (OK, "on the network", ""))

    def test_users(self) -> None:
        """
        Another program that has the port open is named.
        """
        master, slave = open_unused_pty()
        self.addCleanup(os.close, master)
        path = os.ttyname(slave)
        other = subprocess.Popen(["sleep", "60"], stdin=slave, start_new_session=True)
        self.addCleanup(other.wait)
        self.addCleanup(other.kill)
        os.close(slave)
        machine = Machine(usb=self.machine.usb)
        settings = Settings(state=self.folder, devices={"uno": DeviceSettings(path=path)})
        found = next(Examination(settings, FoundDaemon(), machine).ports.findings())
        self.assertEqual((found.state, found.text), (PROBLEM, f"{path} is in use by sleep (process {other.pid})"))
        found = next(Examination(settings, FoundDaemon(other.pid), machine).ports.findings())
        self.assertNotIn("in use", found.text)

    def test_claimants(self) -> None:
        """
        ModemManager is a warning unless udev keeps it off this port; brltty always is.
        """
        self.process(1, "ModemManager")
        self.process(2, "brltty")
        self.assert_found(
            list(self.examine().ports.findings())[1:],
            (WARNING, "ModemManager runs", "usbgate install"),
            (WARNING, "brltty", "apt remove"),
        )
        (self.udev / "c0:0").write_text("E:ID_BUS=usb\nE:ID_MM_PORT_IGNORE=1\n")
        self.assert_found(list(self.examine().ports.findings())[1:], (WARNING, "brltty", "apt remove"))

    def test_speech(self) -> None:
        """
        What a device sends tells whether its speed is right.
        """
        hidden = FoundDaemon(PID, {}, [device(path=None)])  # as by a daemon that does not trust everybody
        self.assert_found(self.examine(hidden, devices={}).ports.findings(), (OK, "1000 lines", ""))
        for record, expected in (
            (device(), (OK, "1000 lines, 3 of them malformed", "")),
            (device(counts={"malformed": 500}), (PROBLEM, "500 of 1000 lines could not be read", "check baud")),
            (device(counts={"in": 0}), (WARNING, "no line yet", "check baud")),
            (device(state="offline", warning="no such device"), (WARNING, "it is offline", "no such device")),
        ):
            found = list(self.examine(FoundDaemon(PID, {}, [record])).ports.findings())
            self.assert_found(found[-1:], expected)

    def test_database(self) -> None:
        """
        The database must answer; what the daemon says of it counts.
        """
        url = postgresql.server().create_database()
        self.assert_found(self.examine(database=url).database(), (OK, "PostgreSQL ", ""))
        refused = FoundDaemon(PID, {"store": {"state": "connected", "rejected": 3}})
        self.assert_found(
            self.examine(refused, database=url).database(), (OK, "answers", ""), (WARNING, "refused 3 rows", "rejected")
        )
        away = "postgresql://nobody@127.0.0.1:1/x"
        self.assert_found(self.examine(database=away).database(), (PROBLEM, "cannot be used", ""))
        self.assert_found(self.examine(database="none").database(), (WARNING, "nothing is stored", "remove"))
        lost = FoundDaemon(PID, {"store": {"state": "away", "text": "no route"}})
        self.assert_found(self.examine(lost).database(), (PROBLEM, "no route", "log"))
        self.assert_found(self.examine(FoundDaemon()).database(), (OK, "the daemon starts", ""))
        self.assert_found(self.examine(FoundDaemon(PID)).database(), (PROBLEM, "does not run", "start the daemon"))

    def test_broker(self) -> None:
        """
        What the daemon says of the MQTT broker counts; without one, there is nothing to look at.
        """
        self.assert_found(self.examine().broker())
        for mqtt, found in (
            ({"state": "connected", "refused": 0}, (OK, "connected", "")),
            ({"state": "connected", "refused": 3}, (WARNING, "3 messages", "usbgate/#")),
            ({"state": "refused", "text": "check mqtt.user"}, (PROBLEM, "refused: check mqtt.user", "[mqtt]")),
            ({"state": "connecting"}, (PROBLEM, "no answer yet", "[mqtt]")),
        ):
            self.assert_found(self.examine(FoundDaemon(PID, {"mqtt": mqtt})).broker(), found)

    def test_clock(self) -> None:
        """
        A clock before the release is wrong; one that nobody has set may be.
        """
        self.patch(checks, "is_synchronised", lambda: True)
        self.patch(checks, "time", SimpleNamespace(time=lambda: 2e9))
        self.assert_found(self.examine().clock(), (OK, "synchronized", ""))
        self.patch(checks, "is_synchronised", lambda: False)
        self.assert_found(self.examine().clock(), (WARNING, "no time server", "timedatectl"))
        night = self.examine(rules=(rule("sensor 20 TEMP > 1 and not time 23:00-6:00"),))
        self.assert_found(night.clock(), (WARNING, "do not know `time`", "timedatectl"))
        self.patch(checks, "time", SimpleNamespace(time=lambda: 1e9))
        self.assert_found(self.examine().clock(), (PROBLEM, "before the release", "timedatectl"))

    def test_certificates(self) -> None:
        """
        A certificate that ends within a month needs renewal; without TLS, nothing is looked at.
        """
        self.assert_found(self.examine().certificates())
        file = self.folder / "server.pem"
        listen = (ListenAddress("tcp:1"), ListenAddress(f"ssl:2:privateKey={file}"))
        self.assert_found(self.examine(listen=listen).certificates(), (PROBLEM, "No such file", "tls init"))
        now = utc_now(1.8e9)
        make_server(self.folder, make_authority(self.folder, [], now), ["pi.local"], now)
        for days, state in ((0, OK), (825 - 29, WARNING), (826, PROBLEM)):
            self.patch(checks, "time", SimpleNamespace(time=lambda days=days: 1.8e9 + days * 86_400))
            remedy = "" if state == OK else "tls init renews"
            self.assert_found(self.examine(listen=listen).certificates(), (state, "2029-04-19", remedy))

    def test_disk(self) -> None:
        """
        The room is that of the state folder, or of where it will be; a journal in trouble is one, too.
        """
        for free, state in ((1e9, OK), (4e8, WARNING), (1e6, PROBLEM)):
            usage = SimpleNamespace(free=free)
            self.patch(checks, "shutil", SimpleNamespace(disk_usage=lambda folder, usage=usage: usage))
            (found,) = self.examine().disk()
            self.assertEqual((found.state, str(self.folder) in found.text), (state, True))
        stat = os.stat

        def closed(path: Any, **options: Any) -> os.stat_result:  # a folder in one of another user
            if Path(path) == self.folder:
                raise PermissionError
            return stat(path, **options)

        patched = self.patch(os, "stat", closed)
        (found,) = self.examine().disk()
        patched.restore()
        self.assertTrue(found.text.endswith(f"free in {self.folder.parent}"), found.text)
        full = FoundDaemon(PID, {"journal": {"text": "disk full"}})
        self.assert_found(self.examine(full).disk(), (PROBLEM, "free in", "sort"), (PROBLEM, "disk full", ""))

    def test_wear(self) -> None:
        """
        Of a card, what is written per day and its age count; other disks are not looked at.
        """
        self.assert_found(self.examine().wear())
        number = os.stat(self.folder).st_dev
        link = self.usb.sysfs / "dev" / "block" / f"{os.major(number)}:{os.minor(number)}"
        link.parent.mkdir(parents=True)
        card = self.usb.sysfs / "block" / "mmcblk0"
        (card / "mmcblk0p2").mkdir(parents=True)
        (card / "device").mkdir()
        link.symlink_to(card / "mmcblk0p2")
        self.assert_found(self.examine().wear(), (OK, "mmcblk0", ""))
        much = FoundDaemon(PID, {"journal": {"daily": 5e9}})
        self.assert_found(self.examine(much).wear(), (WARNING, "5 GB written per day", "durability"))
        (card / "device" / "life_time").write_text("0x02 0x09\n")
        self.assert_found(self.examine(much).wear(), (PROBLEM, "worn out", "backup"))

    def test_files_and_versions(self) -> None:
        """
        The daemon's limit of open files must be enough for all clients; its version is that of the command.
        """
        (self.proc / str(PID) / "limits").write_text("Max open files            256                  256       files\n")
        self.assert_found(self.examine().files(), (WARNING, "256 are allowed, 1100", "LimitNOFILE=1100"))
        self.assert_found(self.examine(max_connections=100).files(), (OK, "100 clients", ""))
        self.assert_found(self.examine().versions(), (OK, f"usbgate {__version__}, Python 3", ""))
        old = FoundDaemon(PID, {"version": "0.0"})
        self.assert_found(
            self.examine(old).versions(), (OK, "psycopg2-binary 2", ""), (WARNING, "still usbgate 0.0", "restart")
        )


class CommandTests(SynchronousTestCase):
    """
    The command, without a daemon.
    """

    def test_status(self) -> None:
        """
        A problem is exit status 1; a warning is not. The JSON has every finding.
        """
        folder = new_folder()
        self.addCleanup(shutil.rmtree, folder)
        config = folder / "usbgate.toml"
        master, slave = open_unused_pty()
        self.addCleanup(os.close, master)
        self.addCleanup(os.close, slave)
        for path, status in ((os.ttyname(slave), 0), (str(folder / "none"), 1)):
            config.write_text(
                f'state = "state"\ndatabase = "none"\nlisten = ["tcp:{free_port()}:interface=127.0.0.1"]\n'
                f'[device.uno]\npath = "{path}"\n'
            )
            shown = CliRunner().invoke(main, ["--config", str(config), "doctor"])
            self.assertEqual(shown.exit_code, status, shown.output)
            self.assertIn("→ remove `database` from the configuration", shown.output)
            found = json.loads(CliRunner().invoke(main, ["--config", str(config), "doctor", "--json"]).stdout)
            states = {each["check"]: each["state"] for each in found}
            self.assertEqual(states["daemon"], "warning")
            self.assertEqual(states["device uno"], "problem" if status else "ok")
            self.assertLessEqual({"database", "clock", "disk", "open files", "versions"}, set(states))
        self.assertFalse(Path(folder, "state").exists())
