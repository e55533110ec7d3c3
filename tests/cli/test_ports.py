"""
`usbgate devices --all`: the serial ports of a machine that a test has made up.
"""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Sequence
from pathlib import Path

from click.testing import CliRunner, Result
from twisted.trial.unittest import SynchronousTestCase

from tests.support.usb import MadeUpUsb
from usbgate.cli import findings
from usbgate.cli.findings import Machine
from usbgate.cli.main import main
from usbgate.cli.ports import SerialPort, best_place, find_ports
from usbgate.config.settings import DeviceSettings
from usbgate.device.usb import UsbIds, UsbTree


class PortCase(SynchronousTestCase):
    """
    A machine with a port of its own.
    """

    def setUp(self) -> None:
        """
        Make it.
        """
        self.folder = Path(os.path.abspath(self.mktemp()))
        self.usb = MadeUpUsb(self.folder)
        self.dev = self.usb.dev
        tree = UsbTree(str(self.usb.sysfs), str(self.dev))
        self.machine = Machine(self.folder / "proc", self.usb.sysfs, self.dev, self.folder / "udev", tree)

    def plug(self, port: str, ids: str, serial: str | None, product: str | None, **ttys: str) -> None:
        """
        Plug a device in that has a name.
        """
        self.usb.plug(port, ids, serial, **ttys)
        if product is not None:
            (self.usb.device(port) / "product").write_text(product + "\n")


class FindingTests(PortCase):
    """
    What is found.
    """

    def find(self, **devices: str) -> list[SerialPort]:
        """
        Find the ports, with these paths configured.
        """
        return find_ports(self.machine, {name: DeviceSettings(path=path) for name, path in devices.items()})

    def test_what(self) -> None:
        """
        A USB device has its name and ids; the port of the machine has none. A chip that is not there has no port.
        """
        self.plug("1-1.3", "2341:8036", "A1", "Arduino Leonardo", ttyACM0="1.0")
        link = self.usb.name_by_id("usb-Arduino_Leonardo_A1-if00", "ttyACM0")
        missing = self.usb.sysfs / "devices" / "platform" / "serial8250" / "tty" / "ttyS1"
        missing.mkdir(parents=True)
        (missing / "type").write_text("0\n")
        (self.usb.sysfs / "class" / "tty" / "ttyS1").symlink_to("../../devices/platform/serial8250/tty/ttyS1")
        board, own = self.find()
        self.assertEqual(
            board,
            SerialPort(
                f"{self.dev}/ttyACM0",
                "Arduino Leonardo",
                UsbIds("2341", "8036", "A1"),
                str(link),
                "arduino-leonardo",
                False,
                (),
            ),
        )
        self.assertEqual(own[:4], (f"{self.dev}/ttyS0", "serial port", None, f"{self.dev}/ttyS0"))

    def test_places(self) -> None:
        """
        The path is one that does not change, and that no other device has: of udev, by ids, or by the USB port.
        """
        self.plug("1-1.1", "1a86:7523", None, None, ttyUSB0="1.0")
        self.assertEqual(self.find()[0].place, "usb:1a86:7523")
        link = self.usb.name_by_id("usb-1a86-if00-port0", "ttyUSB0")
        self.assertEqual(self.find()[0].place, str(link))
        self.plug("1-1.2", "1a86:7523", None, None, ttyUSB1="1.0")
        self.plug("1-1.3", "0403:6010", "F", "Dual", ttyUSB2="1.0", ttyUSB3="1.1")
        (self.dev / "serial0").symlink_to("ttyS0")
        found = self.find()
        self.assertEqual(
            [port.place for port in found],
            ["usb-port:1-1.1", "usb-port:1-1.2", "usb:0403:6010:F", "usb-port:1-1.3:1.1", f"{self.dev}/serial0"],
        )
        self.assertEqual([port.name for port in found], ["usb-device", "usb-device-2", "dual", "dual-2", "ttyS0"])

    def test_configured(self) -> None:
        """
        A configured port has its name in the configuration, which no other one gets.
        """
        self.plug("1-1.1", "2341:8036", "A", "Leonardo", ttyACM0="1.0")
        self.plug("1-1.2", "2341:8036", "B", "Leonardo", ttyACM1="1.0")
        for spelled in ("usb:2341:8036:B", "usb-port:1-1.2", f"{self.dev}/ttyACM1"):
            found = self.find(leonardo=spelled)
            self.assertEqual(
                [(port.name, port.configured) for port in found],
                [("leonardo-2", False), ("leonardo", True), ("ttyS0", False)],
            )

    def test_users(self) -> None:
        """
        The programs that have a port open are found by its tty.
        """
        master, slave = os.openpty()
        self.addCleanup(os.close, master)
        self.addCleanup(os.close, slave)
        (self.dev / "ttyS0").symlink_to(os.ttyname(slave))

        def users(tty: os.stat_result, proc: str) -> Sequence[str]:
            return [f"cat of {proc}"] if tty.st_rdev == os.fstat(slave).st_rdev else []

        self.assertEqual(find_ports(self.machine, {}, users)[0].users, [f"cat of {self.machine.proc}"])

    def test_best_place(self) -> None:
        """
        Of any path of a port, the best one; a path that is no port's stays.
        """
        self.plug("1-1.1", "2341:8036", "A", "Leonardo", ttyACM0="1.0")
        self.assertEqual(best_place(self.machine, f"{self.dev}/ttyACM0"), ("usb:2341:8036:A", "leonardo"))
        self.assertEqual(best_place(self.machine, "/tmp/my home"), ("/tmp/my home", "my-home"))


class CommandTests(PortCase):
    """
    What is printed.
    """

    def show(self, *arguments: str) -> Result:
        """
        Run the command.
        """
        self.patch(findings, "Machine", lambda: self.machine)
        return CliRunner(env={"XDG_CONFIG_HOME": str(self.folder)}).invoke(main, ["devices", "--all", *arguments])

    def test_table(self) -> None:
        """
        Below the table stand the lines for those that are not configured.
        """
        self.plug("1-1.1", "2341:8036", 'A"', "Leonardo", ttyACM0="1.0")
        config = self.folder / "usbgate.toml"
        config.write_text(f'[device.own]\npath = "{self.dev}/ttyS0"\n')
        found = self.show("--config", str(config))
        self.assertEqual(found.exit_code, 0, found.output)
        titles, board, own, _, rule, _, *lines = found.output.splitlines()
        self.assertEqual(titles.split("  ")[0], "PORT")
        self.assertRegex(board, r"/ttyACM0  Leonardo +2341:8036$")
        self.assertRegex(own, r"/ttyS0 +serial port +own$")
        self.assertEqual(rule, f"To use one, add its lines to {config}:")
        self.assertEqual(tomllib.loads("\n".join(lines)), {"device": {"leonardo": {"path": 'usb:2341:8036:A"'}}})

    def test_json(self) -> None:
        """
        Programs get all of it.
        """
        self.plug("1-1.1", "2341:8036", "A", "Leonardo", ttyACM0="1.0")
        board, own = json.loads(self.show("--json").output)
        self.assertEqual((board["product"], board["path"], board["configured"]), ("8036", "usb:2341:8036:A", False))
        self.assertEqual((own["port"], own["serial"]), (f"{self.dev}/ttyS0", None))

    def test_nothing(self) -> None:
        """
        No port, or another machine.
        """
        (self.usb.sysfs / "class" / "tty" / "ttyS0").unlink()
        found = self.show()
        self.assertEqual((found.stdout, found.stderr.count("\n")), ("", 1))
        self.assertEqual(self.show("--host", "pi").exit_code, 64)
