"""
The checks of `usbgate doctor`: what keeps usbgate from running, or will, each with its remedy. Everything here blocks.
"""

from __future__ import annotations

import os
import platform
import re
import resource
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from difflib import get_close_matches
from importlib.metadata import version
from pathlib import Path

from usbgate import __version__
from usbgate.cli.database import DatabaseFailed, connected, find_database
from usbgate.cli.findings import OK, PROBLEM, WARNING, Finding, FoundDaemon, Machine, split_remedy
from usbgate.cli.portchecks import PortChecks
from usbgate.cli.tables import spell_size
from usbgate.config.endpoints import certificate_files
from usbgate.config.settings import Settings
from usbgate.core.extras import TLS, install_command
from usbgate.daemon.clock import RELEASED, is_synchronised
from usbgate.rules.conditions import DayOfWeek, TimeOfDay, leaves, sensors_of
from usbgate.store.embedded.postmaster import BinariesMissing, find_binaries

DISK_LEAST, DISK_LOW = 50e6, 500e6  # bytes free: below, the journal stops soon; a month of readings fits
WEAR_DAILY = 1e9  # bytes a day that a card of 16 GB stands for more than five years, small writes included
WEAR_OLD = 9  # of 11 steps of JEDEC's life time of an eMMC: more than 80 % used

SPARE_FILES = 100  # open files besides those of clients
EXPIRES_SOON = 30 * 86_400  # seconds in which somebody must renew a certificate
POSTGRES_LEAST = 130_000  # version 13


class Examination:
    """
    All checks of one machine.

    Attributes:
        ports: Those of serial ports.
    """

    def __init__(self, settings: Settings, daemon: FoundDaemon, machine: Machine | None = None) -> None:
        self._settings = settings
        self._daemon = daemon
        self._machine = machine or Machine()
        self.ports = PortChecks(settings, daemon, self._machine)

    def findings(self) -> Iterator[Finding]:
        """
        Run the checks, one after the other.
        """
        yield from self.daemon()
        yield from self.ports.findings()
        yield from self.database()
        yield from self.broker()
        yield from self.polls()
        yield from self.rules()
        yield from self.clock()
        yield from self.certificates()
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
                yield Finding("database", PROBLEM, *split_remedy(str(error)))
                return
            if self._daemon.pid is None:
                yield Finding("database", OK, "usbgate's own, which the daemon starts")
                return
        try:
            with connected(find_database(self._settings)) as connection:
                number = connection.server_version
        except DatabaseFailed as error:
            if store.get("state") != "connected":
                yield Finding("database", PROBLEM, *split_remedy(str(error)))
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

    def broker(self) -> Iterator[Finding]:
        """
        Whether the MQTT broker is connected, and permits what usbgate does there.
        """
        mqtt = (self._daemon.status or {}).get("mqtt")
        if mqtt is None:
            return
        if mqtt["state"] != "connected":
            yield Finding("MQTT", PROBLEM, f"{mqtt['state']}: {mqtt.get('text', 'no answer yet')}", "see [mqtt]")
        elif mqtt["refused"]:
            remedy = "the log names topics; let usbgate's user write usbgate/# and the prefix of the discovery"
            yield Finding("MQTT", WARNING, f"the broker did not permit {mqtt['refused']} messages", remedy)
        else:
            yield Finding("MQTT", OK, "the broker is connected")

    def polls(self) -> Iterator[Finding]:
        """
        Whether the sensors that are polled have ever reported.
        """
        if self._daemon.status is None:
            return
        for sensor, about in self._settings.sensors.items():
            known = self._daemon.sensors.get(sensor, {})
            if about.poll is not None and not known.get("seen"):
                remedy = "check its id, and that it answers `usbgate ask`"
                if known.get("device") is None and len(self._settings.devices) > 1:
                    remedy = f"set `device` in [sensor.{sensor}]: until it reports, usbgate does not know which to ask"
                yield Finding("polls", WARNING, f"sensor {sensor} has never reported", remedy)

    def rules(self) -> Iterator[Finding]:
        """
        Whether the sensors and the fields that rules name have ever reported.
        """
        known = {sensor: each for sensor, each in self._daemon.sensors.items() if each["seen"]}
        if self._daemon.status is None:
            return
        for rule in self._settings.rules:
            named = dict.fromkeys((*sensors_of(rule.when.term), *(sensor for sensor, _ in rule.fields())))
            unseen = [sensor for sensor in named if sensor not in known]
            for sensor in unseen:
                near = get_close_matches(sensor, known, 1)
                remedy = f"did you mean {near[0]}?" if near else "`usbgate sensors` lists those that have"
                yield Finding("rules", WARNING, f"rule {rule.name}: sensor {sensor} has never reported", remedy)
            for sensor, field in dict.fromkeys(rule.fields()):
                fields = known[sensor]["fields"] if sensor in known else [field]
                if field not in fields:
                    near = get_close_matches(field, fields, 1)
                    remedy = f"did you mean {near[0]}?" if near else f"its fields are {', '.join(fields)}"
                    text = f"rule {rule.name}: sensor {sensor} has never reported {field}"
                    yield Finding("rules", WARNING, text, remedy)

    def clock(self) -> Iterator[Finding]:
        """
        Whether the wall clock can be right.
        """
        if time.time() * 1000 < RELEASED:
            yield Finding("clock", PROBLEM, "it shows a time before the release of usbgate", _SET_CLOCK)
        elif not is_synchronised():
            text = "no time server has set it: new rows have `clock` false"
            terms = (term for rule in self._settings.rules for term in leaves(rule.when.term))
            if any(isinstance(term, TimeOfDay | DayOfWeek) for term in terms):
                text += ", and after a start, rules do not know `time` and `day`"
            yield Finding("clock", WARNING, text, _SET_CLOCK)
        else:
            yield Finding("clock", OK, "it is synchronized")

    def certificates(self) -> Iterator[Finding]:
        """
        How long the certificates for TLS are valid.
        """
        files = certificate_files([*self._settings.endpoints, self._settings.http.listen.endpoint])
        if not files:
            return
        try:
            from usbgate.access.certificates import CertificateError, end_of
        except ImportError:
            yield Finding("TLS", PROBLEM, "TLS is not installed", install_command(TLS))
            return
        for file in files:
            try:
                end = end_of(Path(file))
            except CertificateError as error:
                yield Finding("TLS", PROBLEM, str(error), "usbgate tls init makes one; root can read it")
                continue
            left = end.timestamp() - time.time()
            state = PROBLEM if left < 0 else WARNING if left < EXPIRES_SOON else OK
            remedy = None if state == OK else "usbgate tls init renews its own; the daemon needs no restart"
            yield Finding("TLS", state, f"{file} {'expired' if left < 0 else 'is valid until'} {end:%Y-%m-%d}", remedy)

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


def _existing(folder: Path) -> Path:
    return next(each for each in (folder, *folder.parents) if os.path.exists(each))  # or closed to this user
