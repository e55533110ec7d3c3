"""
`twistd usbgate`: its options, and the tree of services, read from top to bottom.
"""

from __future__ import annotations

import gc
import os
import random
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from twisted.application.service import IService, MultiService
from twisted.logger import Logger
from twisted.python import usage

from usbgate import __version__
from usbgate.access.authority import Authority
from usbgate.access.localtoken import LocalToken
from usbgate.access.sessions import Sessions
from usbgate.access.tokens import TokenFile
from usbgate.config.devices import only_device, with_defaults
from usbgate.config.endpoints import certificate_files, is_exposed
from usbgate.config.exposure import check_exposure
from usbgate.config.load import load
from usbgate.config.moved import moved_database
from usbgate.config.settings import DEVICE_KEYS, DeviceSettings, Settings
from usbgate.config.types import ConfigError, ListenAddress
from usbgate.core.clock import IClock
from usbgate.core.connstring import NO_PASSWORD, has_password
from usbgate.core.model import DeviceWarning, Question
from usbgate.core.rules import Rules
from usbgate.core.settings import SensorSettings
from usbgate.core.status import JournalStatus, StoreStatus
from usbgate.daemon.clock import SystemClock
from usbgate.daemon.kept import KeptTable
from usbgate.daemon.links import foreign_link
from usbgate.daemon.logfile import LogWriter, log_file, log_opener
from usbgate.daemon.notify import SystemdNotifier
from usbgate.daemon.pidfile import remove_stale_pid_file
from usbgate.daemon.service import Daemon
from usbgate.daemon.signals import Signals
from usbgate.daemon.statedir import StateDirectory, gateway_name
from usbgate.device.endpoint import open_device
from usbgate.device.finddialect import make_dialect
from usbgate.device.link import Link
from usbgate.device.portusers import find_users_in_thread
from usbgate.device.serialport import PortSettings
from usbgate.device.usb import UsbTree
from usbgate.gateway.gateway import Gateway
from usbgate.net.listeners import Listeners
from usbgate.server.factory import ClientFactory, Clients
from usbgate.store.delivery import Delivery
from usbgate.store.embedded.cluster import Cluster
from usbgate.store.embedded.postmaster import BinariesMissing, ClusterError
from usbgate.store.interfaces import SinkUnavailable
from usbgate.store.journal.journal import Journal
from usbgate.store.postgres.session import with_password
from usbgate.store.postgres.sink import PostgresSink

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
        used = [self.settings.state, *map(Path, filter(None, (log_file(twistd), twistd.get("pidfile"))))]
        for path in used:
            if reason := foreign_link(Path(twistd.get("rundir") or "") / path):
                raise SystemExit(f"usbgate: {reason}")
        # twistd looks at its pid file next, and ends if any process has that number.
        if pid_file := twistd.get("pidfile"):
            remove_stale_pid_file(Path(pid_file), self.settings.state)

    def load_again(self) -> Settings:
        """
        Read the configuration anew.

        Raises:
            ConfigError: It is wrong now.
        """
        return self._load(self.settings.file)

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
    from twisted.internet import reactor

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


def build(
    reactor: Any,
    clock: IClock,
    settings: Settings,
    devices: Mapping[str, DeviceSettings],
    start_failed: Callable[[str], None] = lambda reason: None,
    log_writer: Callable[[], LogWriter] | None = None,
    load_again: Callable[[], Settings] | None = None,
) -> Daemon:
    """
    Put all parts together, in the order in which they start; they stop in the opposite order.

    Nothing is opened yet.

    Args:
        reactor: The reactor.
        clock: The wall clock.
        settings: The configuration.
        devices: The devices to serve, by name; at least one.
        start_failed: See `Daemon`.
        log_writer: See `open_log` of `Daemon`.
        load_again: Reads the configuration anew; None to keep what there is.

    Raises:
        ConfigError: A device or its dialect cannot be made as configured.
        BinariesMissing: PostgreSQL is not installed.
    """
    gateway = Gateway(
        reactor,
        clock,
        settings.default_command,
        settings.sensors,
        first_tag=random.getrandbits(32),
    )
    authority = Authority(
        reactor,
        clock.wall,
        TokenFile(settings.state),
        Sessions(settings.state, clock.wall),
        partial(_reads, settings, gateway),
        gateway.refuse,
        [client.rule for client in settings.clients],
        settings.max_connections_per_address,
    )
    factory = ClientFactory(
        reactor,
        gateway,
        authority,
        settings.max_connections,
        clock.wall,
        settings.max_connections_per_address,
        bytes_per_turn=settings.client_bytes_per_turn,
        bytes_per_second=settings.client_bytes_per_second,
        requests_per_second=settings.client_requests_per_second,
    )
    patience = _sensor_patience(settings.sensors)  # shared by all devices

    def take_over(loaded: Settings) -> None:
        settings.sensors.clear()  # all parts share it
        settings.sensors.update(loaded.sensors)
        patience.clear()
        patience.update(_sensor_patience(loaded.sensors))
        gateway.sensors_changed()
        authority.rules = [client.rule for client in loaded.clients]

    daemon = Daemon(start_failed, log_writer)
    Signals(reactor, daemon.reopen_log, partial(reload, load_again, take_over)).setServiceParent(daemon)
    own_name = gateway_name(settings.state, settings.gateway)
    StateDirectory(settings.state, own_name).setServiceParent(daemon)
    # Clients, devices and the database are closed at the same time: each has a limit of its own, and everything must
    # stop within 5 s.
    neighbours = MultiService()
    if settings.database == "none":
        log.warn("nothing is stored: the setting `database` is none")
    else:
        keepers, delivery = _store(reactor, settings, gateway, own_name)
        keepers.setServiceParent(daemon)
        delivery.setServiceParent(neighbours)
    Clients(factory).setServiceParent(neighbours)
    usb = UsbTree()
    for name, configured in devices.items():
        link, device = _link(reactor, name, configured, usb, settings.state)
        rules = _rules(settings, device, patience)
        gateway.add_link(link, rules, partial(_warnings, link, usb, device.path), device.store)
        link.setServiceParent(neighbours)
    listeners = [
        Listeners(reactor, [each.endpoint], factory.behind(each.door), local_only=_local_only(each))
        for each in settings.listen
    ]
    ports: list[IService] = [*listeners]
    if settings.http.listen.endpoint != "none":
        web, port = _web(reactor, clock, settings, gateway, factory)
        web.setServiceParent(neighbours)
        ports.append(port)
    neighbours.setServiceParent(daemon)
    gateway.setServiceParent(daemon)
    for each in (*ports, *_certificates(reactor, clock, settings)):
        each.setServiceParent(daemon)
    LocalToken(settings.state, authority, lambda: [port for each in listeners for port in each.ports]).setServiceParent(
        daemon
    )
    SystemdNotifier(reactor, os.environ).setServiceParent(daemon)
    return daemon


def _reads(settings: Settings, gateway: Gateway, question: Question) -> bool:
    # A sensor's default command reads, as does what the configuration lists. As it is spelled: to a board, `l` may be
    # another command than `L`.
    sensor, command, arguments = question
    about = settings.commands.get(command)
    if about is not None and about.reads:
        return True
    return not arguments and command == gateway.queries.default_command(sensor)


def _certificates(reactor: Any, clock: IClock, settings: Settings) -> Iterator[IService]:
    files = certificate_files([*settings.endpoints, settings.http.listen.endpoint])
    if not files:
        return
    try:
        from usbgate.net.tls import ExpiryWatch
    except ImportError as error:
        raise ConfigError(f"ssl: TLS is not installed ({error}): pip install 'usbgate[tls]'") from None
    yield ExpiryWatch(reactor, clock.wall, files)


def reload(load_again: Callable[[], Settings] | None, take_over: Callable[[Settings], None]) -> None:
    """
    Read the configuration anew; if anything is wrong with it now, only log that.

    Args:
        load_again: See `build`.
        take_over: Called with what it is now.
    """
    if load_again is None:
        return
    try:
        loaded = load_again()
    except ConfigError as error:
        log.warn("the configuration is not read anew, all stays as it was: {error}", error=str(error))
        return
    take_over(loaded)
    log.info("[sensor] and [[client]] were read anew")


def _web(
    reactor: Any, clock: IClock, settings: Settings, gateway: Gateway, factory: ClientFactory
) -> tuple[IService, IService]:
    # Imported only if needed, since it takes time and memory.
    from usbgate.web.site import Web, WebListener

    http = settings.http
    web = Web(
        reactor,
        gateway,
        factory.authority,
        clock.wall,
        door=http.listen.door,
        hosts=http.hosts,
        cors=http.cors,
        base_path=http.base_path,
        max_connections=settings.max_connections,
        max_of_address=settings.max_connections_per_address,
        requests_per_second=http.requests_per_second,
        metrics_limit=http.metrics_limit,
        others=factory.counts,
    )
    endpoint, local_only = http.listen.endpoint, _local_only(http.listen)
    return web, WebListener(reactor, endpoint, web, http.base_path, http.required, local_only)


def _local_only(address: ListenAddress) -> bool:
    # What `check_exposure` can't know before it listens.
    return is_exposed(address.endpoint) is None and not address.door.insecure


def _link(
    reactor: Any, name: str, configured: DeviceSettings, usb: UsbTree, state: Path
) -> tuple[Link, DeviceSettings]:
    # The link, and what is configured of the device, completed by its dialect.
    try:
        dialect = make_dialect(configured.dialect, configured.options, DEVICE_KEYS)
        device = with_defaults(configured, dialect.defaults)
    except (ValueError, ConfigError) as error:
        raise ConfigError(f"device.{name}.{error}") from None
    settings = PortSettings(device.baud, device.line, device.flow, keep_dtr=device.reset == "never")
    try:
        endpoint = open_device(reactor, device.path, settings, usb)
    except (ValueError, TypeError) as error:
        raise ConfigError(f"device.{name}.path: {device.path}: {error}") from None
    dialect.device = name
    dialect.tags = device.tags
    dialect.kept = KeptTable(state / "kept" / f"{name}.json")
    link = Link(
        reactor,
        endpoint,
        name,
        device.path,
        dialect,
        silence=device.silence,
        reset_silent=device.reset == "silent",
        repeats=device.repeats,
        gap=device.gap,
        describe=partial(usb.describe_board, keep_dtr=device.reset == "never"),
        find_users=find_users_in_thread,
    )
    return link, device


def _warnings(link: Link, usb: UsbTree, path: str) -> list[DeviceWarning]:
    return [each for each in (link.warning, usb.ambiguity(path)) if each is not None]


def _store(reactor: Any, settings: Settings, gateway: Gateway, name: str) -> tuple[MultiService, Delivery]:
    keepers = MultiService()  # they do not depend on each other
    journal = Journal(
        reactor,
        settings.state / "journal.sqlite",
        gateway.hold_devices,
        durability=settings.durability,
        limit=settings.journal_limit,
    )
    journal.setServiceParent(keepers)
    where: Callable[[], Awaitable[str]] = partial(_configured, settings.database, settings.password_file)
    cluster: Cluster | None = None
    if settings.database == "embedded":
        cluster = Cluster(reactor, settings.state / "postgres")
        cluster.setServiceParent(keepers)
        where = partial(_embedded, cluster, settings.state)
    sink = PostgresSink(
        reactor,
        partial(_once_open, journal, where),
        name,
        journal,
        schema=settings.schema,
        measures=settings.measures,
        explain=str if cluster is None else cluster.explain,
    )
    delivery = Delivery(reactor, journal, sink, gateway.restore)
    if cluster is not None:
        cluster.came_up = delivery.try_now

    def status() -> tuple[StoreStatus, JournalStatus]:
        return replace(delivery.status(), gateway=name), journal.status()

    gateway.store_in(journal, sink, status)
    delivery.state_changed = lambda: gateway.store_changed(delivery.state, journal.backlog)
    return keepers, delivery


async def _once_open(journal: Journal, where: Callable[[], Awaitable[str]]) -> str:
    # The journal's id is part of the key of all rows.
    if not journal.next_number:
        raise SinkUnavailable("the journal cannot be opened yet")
    return await where()


async def _configured(url: str, password_file: Path | None) -> str:
    # Read at each connection: a password that is changed needs no restart.
    return with_password(url, password_file)


async def _embedded(cluster: Cluster, state: Path) -> str:
    # `usbgate database move` may have moved it while this daemon runs.
    if (moved := moved_database(state)) is not None:
        return moved
    try:
        return await cluster.ready()
    except ClusterError as error:
        raise SinkUnavailable(str(error)) from None


def _sensor_patience(sensors: Mapping[str, SensorSettings]) -> dict[str, float]:
    return {sensor: about.patience for sensor, about in sensors.items() if about.patience is not None}


def _rules(settings: Settings, device: DeviceSettings, sensor_patience: Mapping[str, float]) -> Rules:
    return Rules(
        window=device.window,
        buffer=device.buffer,
        tags=device.tags,
        settle=device.settle,
        patience=device.patience,
        sensor_patience=sensor_patience,
        once=frozenset(name for name, about in settings.commands.items() if not about.coalesce),
        fields={name: about.fields for name, about in settings.commands.items() if about.fields},
    )
