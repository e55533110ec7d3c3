"""
`twistd usbgate`: its options, and the tree of services, read from top to bottom.
"""

from __future__ import annotations

import os
import random
import resource
import time
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar

from twisted.application.service import IService, MultiService, Service
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.logger import Logger
from twisted.python import usage

from usbgate.clock import SystemClock
from usbgate.cluster import Cluster
from usbgate.config import ConfigError, load, only_device
from usbgate.delivery import Delivery
from usbgate.endpoint import open_device
from usbgate.fieldline import plain_text
from usbgate.gateway import Gateway, SensorRules
from usbgate.interfaces import IClock, IDialect, SinkUnavailable
from usbgate.journal import Journal
from usbgate.journalfile import JournalError
from usbgate.link import Link
from usbgate.pending import Rules
from usbgate.ports import ListenError, Ports
from usbgate.postmaster import BinariesMissing, ClusterError
from usbgate.server import ClientFactory
from usbgate.settings import Device, Settings
from usbgate.sinks.postgres import PostgresSink
from usbgate.statefolder import StateFolder, StateFolderError

log = Logger()


class Options(usage.Options):
    """
    What can be said on the command line; the file can say the same and more.
    """

    synopsis = "[options]"
    longdesc = "Owns a serial device, answers those who ask it, and stores every reading in PostgreSQL."
    optParameters: ClassVar[list[list[object]]] = [
        ["config", "c", None, "Configuration file (TOML)."],
        ["database", None, None, "postgresql://…, `embedded` (the default) or `none`."],
        ["state", None, None, "State folder."],
    ]

    def __init__(self) -> None:
        super().__init__()
        self.devices: list[str] = []
        self.listen: list[str] = []

    def opt_device(self, spec: str) -> None:
        """
        Device: a path or a client endpoint, then `,key=value`… (repeatable).
        """
        self.devices.append(spec)

    def opt_listen(self, endpoint: str) -> None:
        """
        Server endpoint to listen on (repeatable).
        """
        self.listen.append(endpoint)

    def parseOptions(self, options: object = None) -> None:
        """
        Read the options; what is wrong with them is one line, not the whole help.
        """
        try:
            super().parseOptions(options)
        except usage.UsageError as error:
            raise SystemExit(f"usbgate: {error}") from None

    def postOptions(self) -> None:
        """
        Read the configuration, still in the foreground, so that whoever typed it is told.
        """
        try:
            self.settings = load(
                Path(self["config"]) if self["config"] else None,
                devices=self.devices,
                listen=self.listen,
                database=self["database"],
                state=self["state"],
            )
            self.named_devices = self.settings.devices or dict([only_device()])
        except ConfigError as error:
            raise SystemExit(f"usbgate: {error}") from None


class Daemon(MultiService):
    """
    Services that are started in order, and stopped one after the other, last started first.
    """

    def __init__(self, status_pipe: Callable[[], int | None] = lambda: None) -> None:
        """
        Begin with no services.

        Args:
            status_pipe: Gives the pipe on which the process in the foreground waits to hear of the start.
        """
        super().__init__()
        self._status_pipe = status_pipe

    def privilegedStartService(self) -> None:
        """
        Take the lock and the ports; the end of the start, in one line, where they can't be had.
        """
        raise_file_limit()
        self._or_exit(super().privilegedStartService)

    def startService(self) -> None:
        """
        Start all parts; the end of the start, in one line, where one can't.
        """
        self._or_exit(super().startService)

    def _or_exit(self, step: Callable[[], object]) -> None:
        try:
            step()
        except (StateFolderError, ListenError, JournalError) as error:
            log.critical("usbgate: {error}", error=str(error))
            # twistd tells the foreground of an Exception, and logs it with its traceback; of a SystemExit it does
            # neither, and the foreground would wait for ever. It reads 100 bytes: `1 ` and the reason.
            if (pipe := self._status_pipe()) is not None:
                os.write(pipe, b"1 " + str(error).encode("ascii", "backslashreplace")[:98])
            raise SystemExit(1) from None

    def stopService(self) -> Deferred[None]:
        """
        Stop all parts.

        Returns:
            Fires when the last one has stopped.
        """
        Service.stopService(self)
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        # MultiService would stop them all at once, and the journal before the last reading is in it.
        for service in reversed(list(self)):
            try:
                await maybeDeferred(service.stopService)
            except Exception:
                log.failure("while stopping {service}", service=service)


def raise_file_limit() -> None:
    """
    Let as many files be open as we may have: each client is one.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


class Clients(Service):
    """
    The connections of clients, which outlive the listening for new ones.
    """

    def __init__(self, factory: ClientFactory) -> None:
        self._factory = factory

    def stopService(self) -> Deferred[None]:
        """
        Close them.

        Returns:
            Fires when all are closed.
        """
        super().stopService()
        return self._factory.stop()


def makeService(options: Options) -> IService:
    """
    Put the daemon together; nothing is opened or started before twistd has forked.
    """
    from twisted.internet import reactor

    # Twisted's timers run on the wall clock: ten years forward and every one fires, an hour back and a second
    # takes an hour. Set before anything is scheduled.
    reactor.seconds = time.monotonic  # type: ignore[method-assign]  # that is the point
    twistd: Mapping[str, Any] = options.parent or {}
    try:
        return build(reactor, SystemClock(), options.settings, options.named_devices, lambda: twistd.get("statusPipe"))
    except BinariesMissing as error:
        raise SystemExit(f"usbgate: {error}") from None


def build(
    reactor: Any,
    clock: IClock,
    settings: Settings,
    devices: Mapping[str, Device],
    status_pipe: Callable[[], int | None] = lambda: None,
) -> Daemon:
    """
    Put all parts together, in the order in which they start; they stop in the opposite order.

    Args:
        reactor: The reactor.
        clock: Tells the time.
        settings: What the configuration says.
        devices: The devices to serve, by name; at least one.
        status_pipe: See `Daemon`.
    """
    gateway = Gateway(
        reactor,
        clock,
        settings.default_command,
        {
            sensor: SensorRules(about.name, about.device, about.default_command, about.timeout)
            for sensor, about in settings.sensors.items()
        },
        first_tag=random.getrandbits(32),
    )
    factory = ClientFactory(reactor, gateway, settings.max_connections, clock.wall)
    parts: list[Service] = [StateFolder(settings.state)]
    if settings.database == "none":
        log.warn("nothing is stored: the database is none")
    else:
        parts += _store(reactor, settings, gateway)
    parts.append(Clients(factory))
    for name, device in devices.items():
        endpoint = open_device(reactor, device.path, device.baud)
        link = Link(reactor, endpoint, name, device.path, load_dialect(device.dialect), gateway)
        gateway.add_link(link, _rules(settings, device))
        parts.append(link)
    parts.append(gateway)
    parts.append(Ports(reactor, settings.listen, factory))
    daemon = Daemon(status_pipe)
    for part in parts:
        part.setServiceParent(daemon)
    return daemon


def _store(reactor: Any, settings: Settings, gateway: Gateway) -> list[Service]:
    journal = Journal(reactor, settings.state / "journal.sqlite", gateway.hold_devices)
    parts: list[Service] = [journal]
    database: str | Callable[[], Awaitable[str]] = settings.database
    if database == "embedded":
        cluster = Cluster(reactor, settings.state / "postgres")
        parts.append(cluster)
        database = partial(_embedded, cluster)
    sink = PostgresSink(reactor, database, settings.gateway, lambda: journal.uuid)
    delivery = Delivery(reactor, journal, sink, gateway.recall)
    parts.append(delivery)

    def status() -> list[Mapping[str, str]]:
        up = delivery.state in ("connected", "connecting")
        return [
            {
                "STORE": delivery.state if up else "away",
                "GW": settings.gateway,
                "BACKLOG": str(journal.backlog),
                "REJECTED": str(journal.rejected),
                **({} if up else {"TEXT": plain_text(delivery.state)}),
            },
            {
                "JOURNAL": "trouble" if journal.trouble else "ok",
                "COMMITS": str(journal.commits),
                "SLOWEST": f"{journal.slowest_commit:.4f}",
                **({"TEXT": plain_text(journal.trouble)} if journal.trouble else {}),
            },
        ]

    gateway.store_in(journal, sink, status)
    return parts


async def _embedded(cluster: Cluster) -> str:
    try:
        return await cluster.ready()
    except ClusterError as error:
        raise SinkUnavailable(str(error)) from None


def _rules(settings: Settings, device: Device) -> Rules:
    return Rules(
        window=device.window,
        tags=device.tags,
        settle=device.settle,
        patience=device.patience,
        sensor_patience={
            sensor: about.patience for sensor, about in settings.sensors.items() if about.patience is not None
        },
        once=frozenset(name for name, about in settings.commands.items() if not about.coalesce),
        fields={name: frozenset(about.fields) for name, about in settings.commands.items() if about.fields},
    )


def load_dialect(name: str) -> IDialect:
    """
    Make a dialect by its module's name: one of ours, or a dotted name of another package.

    By name, since `getPlugins` would import every file and write a cache beside the code.
    """
    module = import_module(name if "." in name else f"usbgate.dialects.{name}")
    dialect: IDialect = module.Dialect()
    return dialect
