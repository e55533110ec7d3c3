"""
The checks of serial ports for `usbgate doctor`: rights, other programs, and what devices send. No port is opened, which
would reset some boards. Everything here blocks.
"""

from __future__ import annotations

import grp
import os
import pwd
import re
import stat
from collections.abc import Collection, Iterator
from contextlib import suppress

from usbgate.cli.findings import OK, PROBLEM, WARNING, Finding, FoundDaemon, Machine, split_remedy
from usbgate.cli.records import Record
from usbgate.config.devices import only_device
from usbgate.config.settings import DeviceSettings, Settings
from usbgate.config.types import ConfigError
from usbgate.device.portusers import find_users
from usbgate.device.usb import is_usb, parse_usb

GARBLED_SHARE = 0.1  # of the lines of a device; interference garbles fewer
GARBLED_LEAST = 20  # lines


class PortChecks:
    """
    The checks of all serial ports.
    """

    def __init__(self, settings: Settings, daemon: FoundDaemon, machine: Machine) -> None:
        self._settings = settings
        self._daemon = daemon
        self._machine = machine

    def findings(self) -> Iterator[Finding]:
        """
        Each serial port: whether it is there, may be opened, is used by somebody else, and what it sends.
        """
        devices = dict(self._settings.devices)
        paths = {each["name"]: each["path"] for each in self._daemon.devices if each["path"]}  # which not all may see
        devices = devices or {name: DeviceSettings(path=path) for name, path in paths.items()}
        try:
            if not devices and not self._daemon.devices:
                devices = dict([only_device(str(self._machine.dev))])
        except ConfigError as error:
            yield Finding("device", PROBLEM, *split_remedy(str(error)))
        for name, device in devices.items():
            yield from self._device(f"device {name}", device)
        for record in self._daemon.devices:
            yield from _speech(record)

    def _device(self, check: str, device: DeviceSettings) -> Iterator[Finding]:
        path = device.path
        if is_usb(path):
            found = self._machine.usb.find(parse_usb(path))
            if len(found) > 1:
                yield Finding(check, PROBLEM, f"{path}: {self._machine.usb.describe_ambiguity(found)}")
                return
            path = self._machine.usb.path(found[0]) if found else path
        elif not path.startswith("/"):
            yield Finding(check, OK, f"{path} is on the network")
            return
        try:
            status = os.stat(path)
        except OSError:
            plug = "plug it in; `ls /dev/serial/by-id` shows what is there"
            yield Finding(check, PROBLEM, f"{path}: there is no such device", plug)
            return
        users = [each for each in find_users(status, str(self._machine.proc)) if not self._is_daemon(each)]
        if users:
            stop = "stop it: two programs take each other's lines"
            yield Finding(check, PROBLEM, f"{path} is in use by {', '.join(users)}", stop)
        yield self._rights(check, path, status)
        yield from self._claimants(check, path, status)

    def _is_daemon(self, user: str) -> bool:
        if self._daemon.pid is None:  # it may be another user's, and reply all the same
            return self._daemon.status is not None and user.startswith("twistd ")
        return user.endswith(f"(process {self._daemon.pid})")

    def _rights(self, check: str, path: str, status: os.stat_result) -> Finding:
        uid, groups = self._account()
        who = _user_name(uid)
        if uid == 0:
            return Finding(check, OK, f"{path}: root may open it")
        shift = 6 if uid == status.st_uid else 3 if status.st_gid in groups else 0
        if status.st_mode >> shift & 6 == 6:
            return Finding(check, OK, f"{path}: {who} may open it")
        group = _group_name(status.st_gid)
        if status.st_mode & (stat.S_IRGRP | stat.S_IWGRP) != stat.S_IRGRP | stat.S_IWGRP:
            mode = f"{stat.S_IMODE(status.st_mode):04o}"
            return Finding(check, PROBLEM, f"{path}: its mode is {mode}", f"chmod 660 {path}, or add a rule for udev")
        remedy = f"sudo usermod -aG {group} {who}, then log in again, or restart the service"
        return Finding(check, PROBLEM, f"{path}: {who} is not in its group, {group}", remedy)

    def _account(self) -> tuple[int, Collection[int]]:
        # Of the daemon, or else of this process.
        with suppress(OSError, LookupError, ValueError):
            text = (self._machine.proc / str(self._daemon.pid) / "status").read_text("utf-8", "replace")
            fields = dict(line.split(":", 1) for line in text.splitlines())
            return int(fields["Uid"].split()[1]), {*map(int, (fields["Gid"] + fields["Groups"]).split())}
        return os.geteuid(), {os.getegid(), *os.getgroups()}

    def _claimants(self, check: str, path: str, status: os.stat_result) -> Iterator[Finding]:
        # Services that open any new serial port, for some seconds or for good.
        running = self._processes()
        number = f"c{os.major(status.st_rdev)}:{os.minor(status.st_rdev)}"
        if "ModemManager" in running and re.match(r"tty(ACM|USB)", os.path.basename(os.path.realpath(path))):
            known = ""
            with suppress(OSError):
                known = (self._machine.udev / number).read_text("utf-8", "replace")
            if not re.search(r"^E:ID_MM_(PORT|DEVICE)_IGNORE=1$", known, re.MULTILINE):
                remedy = "sudo usbgate install (a rule for udev), or sudo systemctl disable --now ModemManager"
                yield Finding(check, WARNING, f"ModemManager runs, and may take {path} for a modem", remedy)
        if "brltty" in running:
            yield Finding(check, WARNING, "brltty runs, and takes boards with a CH340", "sudo apt remove brltty")

    def _processes(self) -> set[str]:
        names = set()
        for path in self._machine.proc.glob("[0-9]*/comm"):
            with suppress(OSError):
                names.add(path.read_text("utf-8", "replace").strip())
        return names


def _speech(record: Record) -> Iterator[Finding]:
    # What a device has sent so far: at a wrong speed, hardly a line can be read.
    check, counts = f"device {record['name']}", record["counts"]
    malformed = counts["malformed"]
    if record["state"] != "online":
        yield Finding(check, WARNING, f"it is {record['state']}", record["warning"])
    elif counts["in"] == 0:
        yield Finding(check, WARNING, "it has sent no line yet", "check baud, and that the sketch says something")
    elif malformed >= GARBLED_LEAST and malformed > GARBLED_SHARE * counts["in"]:
        remedy = "check baud and dialect of the device; `usbgate malformed` shows the lines"
        yield Finding(check, PROBLEM, f"{malformed} of {counts['in']} lines could not be read", remedy)
    else:
        yield Finding(check, OK, f"{counts['in']} lines, {malformed} of them malformed")


def _user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _group_name(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)
