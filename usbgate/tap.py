"""
`twistd usbgate`: its options, and how it starts.
"""

from __future__ import annotations

import gc
import os
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from twisted.application.service import IService
from twisted.logger import Logger
from twisted.python import usage

from usbgate import __version__
from usbgate.config.devices import only_device
from usbgate.config.exposure import check_exposure
from usbgate.config.load import load
from usbgate.config.settings import Settings
from usbgate.config.types import ConfigError
from usbgate.core.connstring import NO_PASSWORD, has_password
from usbgate.daemon.clock import SystemClock
from usbgate.daemon.links import foreign_link
from usbgate.daemon.logfile import log_file, log_opener
from usbgate.daemon.pidfile import remove_stale_pid_file, why_unusable
from usbgate.store.embedded.postmaster import BinariesMissing

log = Logger()

COLLECT_AFTER = (10_000, 20, 50)  # Python's own are (700, 10, 10); 10,000 objects are a MB or two


class Options(usage.Options):
    """
    The command-line options; the configuration file has the same and more.
    """

    synopsis = "[options]"
    longdesc = "Owns serial devices, answers clients' requests, and stores every reading in PostgreSQL."
    optParameters: ClassVar[list[list[object]]] = [
        ["config", "c", None, "Configuration file (TOML)."],
        ["database", None, None, "Database: postgresql://…, `embedded` (the default) or `none`."],
        ["state", None, None, "State folder."],
        ["http", None, None, "Server endpoint for the page and the HTTP API, or `none`."],
    ]

    def __init__(self) -> None:
        super().__init__()
        self.devices: list[str] = []
        self.listen: list[str] = []

    def opt_device(self, spec: str) -> None:
        """
        Device: a path, a USB device or a client endpoint, then `,key=value`… (repeatable).
        """
        self.devices.append(spec)

    def opt_listen(self, endpoint: str) -> None:
        """
        Server endpoint for line clients (repeatable).
        """
        self.listen.append(endpoint)

    def opt_version(self) -> None:
        """
        Show the version of usbgate and exit.
        """
        print(f"usbgate {__version__}")
        raise SystemExit(0)

    def parseOptions(self, options: object = None) -> None:
        """
        Read the options; report an error in one line, without the whole help.
        """
        try:
            super().parseOptions(options)
        except usage.UsageError as error:
            raise SystemExit(f"usbgate: {error}") from None

    def parseArgs(self, *arguments: str) -> None:
        """
        Refuse arguments.
        """
        if arguments:
            raise usage.UsageError(f"expected no argument, got {arguments[0]}")

    def postOptions(self) -> None:
        """
        Read the configuration while still in the foreground, so that errors reach the terminal.
        """
        try:
            self.settings = self._load(Path(self["config"]) if self["config"] else None)
            if has_password(self["database"] or ""):
                raise ConfigError(f"--database {NO_PASSWORD}, or the configuration ([database])")
            check_exposure(self.settings, log.warn)
            self.named_devices = self.settings.devices or dict([only_device()])
        except ConfigError as error:
            raise SystemExit(f"usbgate: {error}") from None
        twistd: Mapping[str, Any] = self.parent or {}
        pid_file = Path(twistd.get("rundir") or "", twistd["pidfile"]) if twistd.get("pidfile") else None
        for path in (self.settings.state, log_file(twistd), pid_file):
            if path is not None and (reason := foreign_link(Path(path))):
                raise SystemExit(f"usbgate: {reason}")
        if pid_file is not None:
            # twistd looks at its pid file next, where it is run, and ends if any process has that number.
            remove_stale_pid_file(Path(twistd["pidfile"]), self.settings.state)
            if not twistd.get("chroot") and (reason := why_unusable(pid_file)):
                raise SystemExit(
                    f"usbgate: the pid file {pid_file.absolute()} cannot be used: {reason};"
                    " run this in another folder, or use twistd --pidfile=FILE"
                )

    def load_again(self) -> Settings:
        """
        Read the configuration anew.

        Raises:
            ConfigError: It is wrong now, or needs what is loaded only at a start.
        """
        loaded = self._load(self.settings.file)
        if loaded.may_encrypt and not self.settings.may_encrypt:
            raise ConfigError(f"{loaded.file}: restart usbgate, which loads TLS only at a start, if it is needed")
        return loaded

    def _load(self, file: Path | None) -> Settings:
        return load(
            file,
            devices=self.devices,
            listen=self.listen,
            database=self["database"],
            state=self["state"],
            http=self["http"],
        )


def makeService(options: Options) -> IService:
    """
    Put the daemon together; nothing is opened or started before twistd has forked.
    """
    if not options.settings.may_encrypt:
        # Twisted's networking, which all that follows loads, loads pyOpenSSL wherever it is installed: 12 MiB. So that
        # it does not, let an import of it fail.
        sys.modules.setdefault("OpenSSL", None)  # type: ignore[arg-type]  # that is how
    from twisted.internet import reactor

    from usbgate.assembly.daemon import build
    from usbgate.assembly.devices import WrongDevice

    # Twisted's timers run on the wall clock: ten years forward and every one fires, an hour back and a second
    # takes an hour. Set before anything is scheduled.
    reactor.seconds = time.monotonic  # type: ignore[method-assign]  # that is the point
    twistd: Mapping[str, Any] = options.parent or {}
    try:
        daemon = build(
            reactor,
            SystemClock(),
            options.settings,
            options.named_devices,
            partial(_report_to_twistd, twistd),
            log_opener(twistd, reactor),
            options.load_again,
        )
    except BinariesMissing as error:
        raise SystemExit(f"usbgate: {error}; or set `database` in the configuration") from None
    except WrongDevice as error:
        where = "--device" if options.devices else options.settings.file or "--device"
        raise SystemExit(f"usbgate: {where}: {error}") from None
    except ConfigError as error:
        raise SystemExit(f"usbgate: {error}") from None
    # What is loaded stays, and requests leave no cycles behind. Scanning all of it again and again was a tenth of the
    # cost of a request, and delayed every client while many requests were in flight.
    gc.collect()  # garbage of loading must not be frozen with the rest
    gc.freeze()
    gc.set_threshold(*COLLECT_AFTER)
    return daemon


def _report_to_twistd(twistd: Mapping[str, Any], reason: str) -> None:
    # twistd cleans up after an Exception, whose traceback it logs; after a SystemExit it does neither. Then the
    # foreground, which reads 100 bytes, would wait for ever, and the next start would find our pid file.
    if (pipe := twistd.get("statusPipe")) is not None:
        os.write(pipe, b"1 " + reason.encode("ascii", "backslashreplace")[:98])
    if twistd.get("pidfile"):
        with suppress(OSError):
            os.unlink(twistd["pidfile"])
