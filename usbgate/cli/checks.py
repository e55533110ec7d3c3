"""
The checks of `usbgate doctor`: what keeps usbgate from running, or will, each with its remedy. Everything here blocks.
"""

from __future__ import annotations

import grp
import os
import platform
import pwd
import re
import resource
import shutil
import stat
import sys
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

from usbgate import __version__
from usbgate.cli.database import DatabaseFailed, connected, find_database
from usbgate.cli.records import Record
from usbgate.cli.tables import spell_size
from usbgate.config.devices import only_device
from usbgate.config.settings import DeviceSettings, Settings
from usbgate.config.types import ConfigError
from usbgate.daemon.clock import RELEASED, is_synchronised
from usbgate.device.portusers import find_users
from usbgate.device.usb import UsbTree, is_usb, parse_usb
from usbgate.store.embedded.postmaster import BinariesMissing, find_binaries

GARBLED_SHARE = 0.1  # of the lines of a device; interference garbles fewer
GARBLED_LEAST = 20  # lines

DISK_LEAST, DISK_LOW = 50e6, 500e6  # bytes free: below, the journal stops soon; a month of readings fits
WEAR_DAILY = 1e9  # bytes a day that a card of 16 GB stands for more than five years, small writes included
WEAR_OLD = 9  # of 11 steps of JEDEC's life time of an eMMC: more than 80 % used

SPARE_FILES = 100  # open files besides those of clients
POSTGRES_LEAST = 130_000  # version 13

OK, WARNING, PROBLEM = "ok", "warning", "problem"


class Finding(NamedTuple):
    """
    What one check has found.

    Attributes:
        check: What was looked at.
        state: `OK`, `WARNING` or `PROBLEM`.
        text: What was found, in one line.
        remedy: What to do about it; None if nothing is to be done.
    """

    check: str
    state: str
    text: str
    remedy: str | None = None


@dataclass(frozen=True)
class Daemon:
    """
    The daemon, if it runs.

    Attributes:
        pid: Its process id; None if it does not run, or cannot be seen.
        status: Its status; None if it cannot be asked.
        devices: Its devices.
        trouble: Why it cannot be asked.
    """

    pid: int | None = None
    status: Record | None = None
    devices: Sequence[Record] = ()
    trouble: str | None = None


@dataclass(frozen=True)
class Machine:
    """
    Where the kernel and udev show the machine.
    """

    proc: Path = Path("/proc")
    sys: Path = Path("/sys")
    dev: Path = Path("/dev")
    udev: Path = Path("/run/udev/data")
    usb: UsbTree = field(default_factory=UsbTree)


class Examination:
    """
    All checks of one machine.
    """

    def __init__(self, settings: Settings, daemon: Daemon, machine: Machine | None = None) -> None:
        self._settings = settings
        self._daemon = daemon
        self._machine = machine or Machine()

    def findings(self) -> Iterator[Finding]:
        """
        Run the checks, one after the other.
        """
        yield from self.daemon()
        yield from self.devices()
        yield from self.database()
        yield from self.clock()
        yield from self.disk()
        yield from self.wear()
        yield from self.files()
        yield from self.versions()

    def daemon(self) -> Iterator[Finding]:
        """
        Whether it runs and replies.
        """
        if self._daemon.status is not None:
            yield Finding("daemon", OK, f"runs and replies{self._as_process()}")
        elif self._daemon.pid is None:
            start = "start it: systemctl start usbgate; `usbgate install` makes it a service"
            yield Finding("daemon", WARNING, self._daemon.trouble or "does not run", start)
        else:
            remedy = "look into its log: journalctl -u usbgate"
            yield Finding("daemon", PROBLEM, f"{self._daemon.trouble}{self._as_process()}", remedy)

    def _as_process(self) -> str:
        return "" if self._daemon.pid is None else f" (process {self._daemon.pid})"

    def devices(self) -> Iterator[Finding]:
        """
        Each serial port: whether it is there, may be opened, is used by somebody else, and what it sends.
        """
        devices = dict(self._settings.devices)
        devices = devices or {each["name"]: DeviceSettings(path=each["path"]) for each in self._daemon.devices}
        try:
            devices = devices or dict([only_device(str(self._machine.dev))])
        except ConfigError as error:
            yield Finding("device", PROBLEM, *_split(str(error)))
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

    def database(self) -> Iterator[Finding]:
        """
        Whether the database is there, answers, and is new enough.
        """
        if self._settings.database == "none":
            yield Finding("database", WARNING, "none: nothing is stored", "remove `database` from the configuration")
            return
        store = (self._daemon.status or {}).get("store", {})
        if "text" in store:
            yield Finding("database", PROBLEM, store["text"], "its log, and that of usbgate, say more")
            return
        if self._settings.database == "embedded" and not store:
            try:
                find_binaries()
            except BinariesMissing as error:
                yield Finding("database", PROBLEM, *_split(str(error)))
                return
            if self._daemon.pid is None:
                yield Finding("database", OK, "usbgate's own, which the daemon starts")
                return
        try:
            with connected(find_database(self._settings)) as connection:
                number = connection.server_version
        except DatabaseFailed as error:
            if store.get("state") != "connected":
                yield Finding("database", PROBLEM, *_split(str(error)))
                return
            yield Finding("database", OK, "the daemon is connected to it")
        else:
            shown = f"PostgreSQL {number // 10_000}.{number % 10_000} answers"
            if number < POSTGRES_LEAST:
                yield Finding("database", PROBLEM, shown, "upgrade it to PostgreSQL 13 or later")
                return
            yield Finding("database", OK, shown)
        if store.get("rejected"):
            remedy = "usbgate rejected shows them and why"
            yield Finding("database", WARNING, f"it has refused {store['rejected']} rows", remedy)

    def clock(self) -> Iterator[Finding]:
        """
        Whether the wall clock can be right.
        """
        if time.time() * 1000 < RELEASED:
            yield Finding("clock", PROBLEM, "it shows a time before the release of usbgate", _SET_CLOCK)
        elif not is_synchronised():
            yield Finding("clock", WARNING, "no time server has set it: new rows have `clock` false", _SET_CLOCK)
        else:
            yield Finding("clock", OK, "it is synchronized")

    def disk(self) -> Iterator[Finding]:
        """
        Whether the state folder has room.
        """
        folder = _existing(self._settings.state)
        usage = shutil.disk_usage(folder)
        shown = f"{spell_size(usage.free)} free in {folder}"
        if os.statvfs(folder).f_flag & os.ST_RDONLY:
            yield Finding(
                "disk", PROBLEM, f"{folder} can only be read", "look at `dmesg`: a failing card is mounted so"
            )
        elif usage.free < DISK_LOW:
            state = PROBLEM if usage.free < DISK_LEAST else WARNING
            yield Finding("disk", state, shown, "free some: `sudo du -xh / | sort -h | tail` shows what is large")
        else:
            yield Finding("disk", OK, shown)
        journal = (self._daemon.status or {}).get("journal", {})
        if "text" in journal:
            yield Finding("disk", PROBLEM, f"the journal: {journal['text']}", "until then, rows wait in memory")

    def wear(self) -> Iterator[Finding]:
        """
        Whether the state folder is on an SD card or an eMMC, how old that is, and how much is written to it.
        """
        status = os.stat(_existing(self._settings.state))
        block = f"{os.major(status.st_dev)}:{os.minor(status.st_dev)}"
        found = re.search(r"/(mmcblk\d+)", os.path.realpath(self._machine.sys / "dev" / "block" / block))
        if found is None:
            return
        spare = 'durability = "5s", and store = "on change" for sensors, spare it'
        with suppress(OSError, ValueError):
            text = (self._machine.sys / "block" / found[1] / "device" / "life_time").read_text()
            if max(int(each, 16) for each in text.split()) >= WEAR_OLD:
                yield Finding("SD card", PROBLEM, f"{found[1]} is nearly worn out", "make a backup, and replace it")
                return
        daily = (self._daemon.status or {}).get("journal", {}).get("daily")
        shown = found[1] if daily is None else f"{found[1]}: {spell_size(daily)} written per day"
        if daily is not None and daily > WEAR_DAILY:
            yield Finding("SD card", WARNING, shown, spare)
        else:
            yield Finding("SD card", OK, shown)

    def files(self) -> Iterator[Finding]:
        """
        Whether enough files may be open for all clients.
        """
        needed = self._settings.max_connections + SPARE_FILES
        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        with suppress(OSError, IndexError, ValueError):
            text = (self._machine.proc / str(self._daemon.pid) / "limits").read_text()
            (limit,) = re.findall(r"^Max open files +(\d+)", text, re.MULTILINE)
            most = int(limit)
        if most != resource.RLIM_INFINITY and most < needed:
            remedy = f"LimitNOFILE={needed} in the unit (`systemctl edit usbgate`), or a smaller max_connections"
            yield Finding("open files", WARNING, f"{most} are allowed, {needed} may be needed", remedy)
        else:
            yield Finding("open files", OK, f"enough for {self._settings.max_connections} clients")

    def versions(self) -> Iterator[Finding]:
        """
        What is installed, and whether the daemon is of the same version.
        """
        python = ".".join(map(str, sys.version_info[:3]))
        system = f"{platform.system()} {platform.release()}"
        libraries = ", ".join(f"{name} {version(name)}" for name in ("Twisted", "pyserial", "psycopg2-binary"))
        yield Finding("versions", OK, f"usbgate {__version__}, Python {python}, {libraries}, {system}")
        running = (self._daemon.status or {}).get("version", __version__)
        if running != __version__:
            yield Finding("versions", WARNING, f"the daemon is still usbgate {running}", "restart it")


_SET_CLOCK = "sudo timedatectl set-ntp true; readings from before can be corrected: usbgate correct-clock"


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


def _split(text: str) -> tuple[str, str | None]:
    # Errors of ours name the remedy behind a semicolon.
    what, _, remedy = text.partition("; ")
    return what, remedy or None


def _existing(folder: Path) -> Path:
    return next(each for each in (folder, *folder.parents) if each.exists())


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
