"""
`usbgate install` and `usbgate uninstall`: the files that they write below another root, and the daemon that they name.
"""

from __future__ import annotations

import fcntl
import os
import shlex
import shutil
import socket
import subprocess
from pathlib import Path

from click.testing import CliRunner
from twisted.trial.unittest import SkipTest, SynchronousTestCase

from tests.support.daemon import RunningCase
from tests.support.folders import new_folder
from tests.support.running import PtyDevice, environment, free_port
from tests.support.usb import MadeUpUsb
from tests.support.waiting import LIMIT
from usbgate.cli import install, installation
from usbgate.cli.installation import UNIT, NotInstallable, check_reachable, plan_system, system_unit
from usbgate.cli.main import main
from usbgate.config.load import load
from usbgate.config.settings import DeviceSettings, Settings
from usbgate.device.usb import UsbTree

RULES = """\
# The USB devices of usbgate: each has a stable name in /dev/usbgate, and ModemManager leaves it alone.
# `usbgate install` writes this file.

# leonardo
SUBSYSTEM=="tty", ATTRS{idVendor}=="2341", ATTRS{idProduct}=="8036", ATTRS{serial}=="A 1", \
SYMLINK+="usbgate/leonardo", ENV{ID_MM_PORT_IGNORE}="1"
SUBSYSTEM=="usb", ENV{DEVTYPE}=="usb_device", ATTR{idVendor}=="2341", ATTR{idProduct}=="8036", ATTR{serial}=="A 1", \
ENV{ID_MM_DEVICE_IGNORE}="1"

# attic:2
SUBSYSTEM=="tty", KERNELS=="1-1.4", ENV{ID_USB_INTERFACE_NUM}=="02", SYMLINK+="usbgate/attic-2", \
ENV{ID_MM_PORT_IGNORE}="1"
SUBSYSTEM=="usb", ENV{DEVTYPE}=="usb_device", KERNEL=="1-1.4", ENV{ID_MM_DEVICE_IGNORE}="1"
"""


class PlanTests(SynchronousTestCase):
    """
    What is written, with made-up USB devices.
    """

    def setUp(self) -> None:
        """
        Plug in a board with a serial number, and two of one kind without, each with two ttys.
        """
        self.root = new_folder()
        self.addCleanup(shutil.rmtree, self.root)
        usb = MadeUpUsb(self.root)
        usb.plug("1-2", "2341:8036", "A 1", ttyACM0="1.0")
        usb.plug("1-1.3", "1a86:55d2", None, ttyACM1="1.0", ttyACM2="1.2")
        usb.plug("1-1.4", "1a86:55d2", None, ttyACM3="1.0", ttyACM4="1.2")
        (usb.device("1-2") / "product").write_text("Arduino Leonardo\n")
        self.tree = UsbTree(str(usb.sysfs), str(usb.dev))
        self.config = self.root / "etc" / "usbgate" / "usbgate.toml"
        self.rules = self.root / "etc" / "udev" / "rules.d" / "70-usbgate.rules"

    def test_configured(self) -> None:
        """
        Each configured device gets a rule that matches it alone: by ids and serial number if they do, or else by its
        port, and by its interface if it has several ttys. The configuration is kept.
        """
        self.config.parent.mkdir(parents=True)
        self.config.write_text(
            '[device.leonardo]\npath = "usb:2341:8036"\n[device."attic:2"]\npath = "usb-port:1-1.4:1.2"\n'
            '[device.away]\npath = "usb:1234:5678"\n'
        )
        plan = plan_system(None, self.root, self.tree)
        self.assertEqual(plan.files[self.rules], RULES)
        self.assertNotIn(self.config, plan.files)
        self.assertEqual(len([note for note in plan.notes if "away" in note]), 1)

    def test_first(self) -> None:
        """
        Without a configuration, one is written that has all devices that are plugged in, by their stable names.
        """
        files = plan_system(None, self.root, self.tree).files
        config = files[self.config]
        assert config is not None
        self.config.parent.mkdir(parents=True)
        self.config.write_text(config)
        paths = {name: device.path for name, device in load(self.config).devices.items()}
        names = {name: f"/dev/usbgate/{name}" for name in ("arduino-leonardo", "board", "board-2")}
        self.assertEqual(paths, names)
        for path in paths.values():
            self.assertIn(f'SYMLINK+="{path.removeprefix("/dev/")}"', files[self.rules] or "")

    def test_udev(self) -> None:
        """
        udev is told to reload its rules if it runs and there is a rule for it.
        """
        self.config.parent.mkdir(parents=True)
        for devices, runs, expected in [
            ('[device.leonardo]\npath = "usb:2341:8036"\n', True, 3),
            ('[device.leonardo]\npath = "usb:2341:8036"\n', False, 0),
            ('[device.pty]\npath = "/dev/pts/1"\n', True, 0),
        ]:
            self.config.write_text(devices)
            self.patch(installation, "UDEV_CONTROL", self.root if runs else self.root / "none")
            plan = plan_system(self.config, Path("/"), self.tree)
            self.assertEqual(len([command for command in plan.after if command[0] == "udevadm"]), expected)
            self.assertEqual(len([note for note in plan.notes if "container" in note]), expected == 0 and not runs)

    def test_no_board(self) -> None:
        """
        While no board is plugged in, systemd starts the daemon again and again: nobody waits for it.
        """
        plan = plan_system(None, self.root, UsbTree(self.mktemp(), self.mktemp()))
        self.assertIn(["systemctl", "--no-block", "restart", UNIT], plan.after)
        self.assertIn(["systemctl", "restart", UNIT], plan_system(None, self.root, self.tree).after)

    def test_root(self) -> None:
        """
        Users, groups and paths are those of the machine whose root it is, not of this one.
        """
        config = self.root / "srv" / "home.toml"
        config.parent.mkdir()
        config.touch()
        (self.root / "etc").mkdir(exist_ok=True)
        for groups, users, expected in [
            (None, None, ["SupplementaryGroups=dialout"]),
            ("root:x:0:\nuucp:x:14:\n", "root:x:0:0::/root:/bin/sh\n", ["SupplementaryGroups=uucp"]),
            ("root:x:0:\n", "usbgate:x:999:999::/:/bin/sh\n", []),
        ]:
            for name, text in (("group", groups), ("passwd", users)):
                if text is not None:
                    (self.root / "etc" / name).write_text(text)
            plan = plan_system(config, self.root, self.tree)
            unit = plan.files[self.root / "etc/systemd/system" / UNIT]
            assert unit is not None
            lines = unit.splitlines()
            self.assertEqual([line for line in lines if line.startswith("SupplementaryGroups")], expected)
            self.assertTrue([line for line in lines if line.endswith(" usbgate --config /srv/home.toml")])
            created = [command for command in plan.before if command[0] == "useradd"]
            self.assertEqual(bool(created), users is None or "usbgate" not in users)
        self.assertTrue([note for note in plan.notes if "install usbgate there" in note])

    def test_sandbox(self) -> None:
        """
        The sandbox lets the daemon use what it is configured with: a port that is not on USB, another state folder.
        """
        settings = Settings(state=Path("/srv/home"), devices={"pins": DeviceSettings(path="/dev/ttyAMA0")})
        lines = system_unit("/x/twistd", settings, None).splitlines()
        self.assertIn("DeviceAllow=char-ttyAMA rw", lines)
        self.assertIn("ReadWritePaths=/srv/home", lines)
        self.assertIn("ExecStart=/x/twistd", lines)
        self.assertNotIn("SupplementaryGroups", "".join(line.partition("=")[0] for line in lines))

    def test_hidden(self) -> None:
        """
        What lies in somebody's home is refused, since the service could not read it.
        """
        check_reachable([Path("/opt/usbgate"), Path("/homestead")])
        with self.assertRaisesRegex(NotInstallable, "could not read /home/pi/venv: .*/opt/usbgate"):
            check_reachable([Path("/opt/usbgate"), Path("/home/pi/venv")])


class CommandTests(RunningCase):
    """
    The commands, below another root.
    """

    def run_command(self, *arguments: str, answer: str | None = None) -> tuple[int, str]:
        """
        Run `usbgate`; return its exit status and its output.
        """
        result = CliRunner().invoke(main, [*arguments, "--root", str(self.folder)], input=answer)
        return result.exit_code, result.output

    def written(self) -> dict[str, str]:
        """
        Return the text of each file.
        """
        return {
            str(path.relative_to(self.folder)): path.read_text() for path in self.folder.rglob("*") if path.is_file()
        }

    def test_asks(self) -> None:
        """
        It shows each file and command, and does nothing without a yes.
        """
        for answer in ("n\n", ""):
            status, shown = self.run_command("install", answer=answer)
            self.assertEqual((status, self.written()), (1, {}), shown)
        for part in (
            "write    ",
            "  Type=notify\n",
            "later    systemctl enable usbgate.service\n",
            "nothing was changed",
        ):
            self.assertIn(part, shown)

    def test_install_and_uninstall(self) -> None:
        """
        A second run keeps what is right, shows what it changes, and removing leaves the configuration.
        """
        unit = self.folder / "etc" / "systemd" / "system" / "usbgate.service"
        status, shown = self.run_command("install", answer="y\n")
        self.assertEqual((status, unit.stat().st_mode & 0o777), (0, 0o644), shown)
        files = self.written()
        self.assertIn(f"keep     {unit}", self.run_command("install", "--yes")[1])
        unit.write_text(unit.read_text().replace("WatchdogSec=60", "WatchdogSec=5"))
        status, shown = self.run_command("install", "--yes")
        self.assertIn("         -WatchdogSec=5\n         +WatchdogSec=60\n", shown)
        self.assertNotIn("KillMode", shown)
        self.assertEqual(self.written(), files)

        config = self.folder / "etc" / "usbgate" / "usbgate.toml"
        config.parent.mkdir(exist_ok=True)
        config.write_text("")
        self.assertEqual(self.run_command("uninstall", answer="n\n")[0], 1)
        self.assertTrue(unit.exists())
        self.assertEqual(self.run_command("uninstall", "--yes")[0], 0)
        self.assertEqual(list(self.written()), ["etc/usbgate/usbgate.toml"])
        self.assertEqual(self.run_command("uninstall", "--yes")[0], 1)

    def test_service(self) -> None:
        """
        The command in the unit runs the daemon, which tells systemd that it is ready once clients can connect, that it
        is alive, and that it stops.
        """
        device = PtyDevice(self.folder / "tty")
        self.addCleanup(device.unplug)
        port = free_port()
        config = self.folder / 'a 100 % $HOME "config".toml'
        config.write_text(
            'database = "none"\nhttp = "none"\n'
            f'listen = ["tcp:{port}:interface=127.0.0.1"]\n[device.uno]\npath = "./tty"\n'
        )
        install = ("install", "--user", "--yes", "--config", str(config))
        status, shown = self.run_command(*install)
        self.assertEqual(status, 0, shown)
        unit = self.folder / ".config" / "systemd" / "user" / "usbgate.service"
        (line,) = [line for line in unit.read_text().splitlines() if line.startswith("ExecStart=")]
        self.assertIn("ExecReload=/bin/kill -HUP $MAINPID\n", unit.read_text())
        command = shlex.split(line.partition("=")[2].replace("%%", "%").replace("$$", "$"))
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
            systemd.bind(str(self.folder / "notify"))
            systemd.settimeout(LIMIT)
            process = subprocess.Popen(
                command,
                env={
                    **environment(),
                    "STATE_DIRECTORY": str(self.state),
                    "NOTIFY_SOCKET": str(self.folder / "notify"),
                    "WATCHDOG_USEC": "60000",
                },
                stdout=subprocess.DEVNULL,
                start_new_session=True,
            )
            self.addCleanup(process.wait)
            self.addCleanup(process.kill)
            self.assertEqual(systemd.recv(100), b"READY=1")
            socket.create_connection(("127.0.0.1", port), LIMIT).close()
            for _ in range(3):
                self.assertEqual(systemd.recv(100), b"WATCHDOG=1")
            process.terminate()
            while (state := systemd.recv(100)) == b"WATCHDOG=1":
                pass
            self.assertEqual(state, b"STOPPING=1")
        self.assertTrue((self.state / "lock").exists())
        config.write_text("nonsense")
        self.assertEqual(self.run_command(*install)[0], 1)

    def test_runs(self) -> None:
        """
        Where systemd runs, it is told; what it says if that fails is shown. A daemon that runs already is left alone.
        """
        for program in ("systemctl", "loginctl"):
            path = self.folder / program
            path.write_text(
                f'#!/bin/sh\necho "{program} $*" >> {self.folder}/ran\n[ "$2" != restart ] || echo no >&2\n'
            )
            path.write_text(path.read_text() + '[ "$2" != restart ]\n')
            path.chmod(0o755)
        self.patch(install, "SYSTEMD", self.folder)
        config = self.folder / "usbgate.toml"
        config.write_text(f'state = "{self.state}"\n')
        command = ["--config", str(config), "install", "--user", "--yes"]
        environ = {"PATH": f"{self.folder}:/bin:/usr/bin", "XDG_CONFIG_HOME": str(self.folder)}
        self.state.mkdir()
        with (self.state / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            lock.write(str(os.getpid()))
            lock.flush()
            refused = CliRunner().invoke(main, command, env=environ)
        self.assertIn(f"process {os.getpid()}: end it first with usbgate stop", refused.output)
        self.assertFalse((self.folder / "ran").exists())
        failed = CliRunner().invoke(main, command, env=environ)
        self.assertEqual((failed.exit_code, failed.stderr), (1, f"usbgate: systemctl --user restart {UNIT}: no\n"))
        self.assertTrue((self.folder / "systemd" / "user" / UNIT).exists())
        ran = ["daemon-reload", f"enable {UNIT}", f"restart {UNIT}"]
        self.assertEqual((self.folder / "ran").read_text().splitlines(), [f"systemctl --user {each}" for each in ran])

    def test_verified(self) -> None:
        """
        systemd finds no mistake in the units.
        """
        if shutil.which("systemd-analyze") is None:
            raise SkipTest("systemd-analyze is not installed")
        for scope in ((), ("--user",)):
            self.run_command("install", "--yes", *scope)
            (unit,) = self.folder.rglob("usbgate.service")
            done = subprocess.run(
                ["systemd-analyze", "verify", "--man=no", str(unit)], capture_output=True, text=True, timeout=60
            )
            self.assertEqual((done.returncode, done.stderr), (0, ""))
            unit.unlink()
