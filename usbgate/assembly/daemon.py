"""
The tree of services, read from top to bottom.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from twisted.application.service import IService, MultiService
from twisted.logger import Logger

from usbgate.access.authority import Authority
from usbgate.access.failures import Failures
from usbgate.access.localtoken import LocalToken
from usbgate.access.sessions import Sessions
from usbgate.access.tokenaudit import TokenAudit
from usbgate.access.tokens import TokenFile
from usbgate.assembly.devices import make_links, sensor_patience
from usbgate.assembly.reload import Reload
from usbgate.assembly.rules import make_rules
from usbgate.assembly.storage import make_store
from usbgate.config.endpoints import certificate_files, is_exposed
from usbgate.config.settings import DeviceSettings, Settings
from usbgate.config.types import ConfigError, ListenAddress
from usbgate.core.clock import IClock
from usbgate.core.extras import TLS, install_command
from usbgate.core.model import Question
from usbgate.daemon.logfile import LogWriter
from usbgate.daemon.notify import SystemdNotifier
from usbgate.daemon.replacementfile import ReplacementFile
from usbgate.daemon.service import Daemon
from usbgate.daemon.signals import Signals
from usbgate.daemon.statedir import StateDirectory, gateway_name
from usbgate.gateway.gateway import Gateway
from usbgate.net.listeners import Listeners
from usbgate.server.factory import ClientFactory, Clients

if TYPE_CHECKING:
    from usbgate.mqtt.client import MqttClient

log = Logger()


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
    tokens = TokenFile(settings.state)
    failures = Failures(reactor, gateway.record)
    authority = Authority(
        reactor,
        clock.wall,
        tokens,
        Sessions(settings.state, clock.wall),
        failures,
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
    patience = sensor_patience(settings.sensors)  # shared by all devices

    sensors_changed = [gateway.sensors_changed]

    def refresh_sensors() -> None:
        for changed in sensors_changed:
            changed()

    def take_over(loaded: Settings) -> None:
        settings.sensors.clear()  # all parts share it
        settings.sensors.update(loaded.sensors)
        patience.clear()
        patience.update(sensor_patience(loaded.sensors))
        refresh_sensors()
        authority.change_rules([client.rule for client in loaded.clients])
        rules.configure(loaded.rules, loaded.mail)

    daemon = Daemon(start_failed, log_writer)
    reload = None if load_again is None else Reload(load_again, take_over)
    Signals(reactor, daemon.reopen_log, reload.request if reload else lambda: None).setServiceParent(daemon)
    own_name = gateway_name(settings.state, settings.gateway)
    StateDirectory(settings.state, own_name).setServiceParent(daemon)
    # Clients, devices and the database are closed at the same time: each has a limit of its own, and everything must
    # stop within 5 s.
    neighbours = MultiService()
    if settings.database == "none":
        log.warn("nothing is stored: the setting `database` is none")
    else:
        keepers, delivery = make_store(reactor, settings, gateway, own_name)
        keepers.setServiceParent(daemon)
        delivery.setServiceParent(neighbours)
    Clients(factory).setServiceParent(neighbours)
    for link in make_links(reactor, settings, devices, gateway, patience, clock):
        link.setServiceParent(neighbours)
    replacements = ReplacementFile(reactor, settings.state)
    gateway.keep_replacements(replacements.load(), replacements.keep, refresh_sensors)
    listeners = [
        Listeners(reactor, [each.endpoint], factory.behind(each.door), local_only=_local_only(each))
        for each in settings.listen
    ]
    ports: list[IService] = [*listeners]
    if settings.http.listen.endpoint != "none":
        web, port = _web(reactor, clock, settings, gateway, factory)
        web.setServiceParent(neighbours)
        ports.append(port)
    mqtt: MqttClient | None = None
    if settings.mqtt is not None:
        # Imported only if needed, since it takes time and memory.
        from usbgate.assembly.broker import make_mqtt

        mqtt, refresh = make_mqtt(reactor, clock, settings, settings.mqtt, gateway, authority, own_name)
        mqtt.setServiceParent(neighbours)
        sensors_changed.append(refresh)
    rules = make_rules(reactor, clock, settings, gateway, own_name, mqtt)
    sensors_changed.append(rules.restored)
    neighbours.setServiceParent(daemon)
    gateway.setServiceParent(daemon)
    rules.setServiceParent(daemon)
    TokenAudit(reactor, tokens, gateway.record).setServiceParent(daemon)
    failures.setServiceParent(daemon)
    for each in (*ports, *_certificates(reactor, clock, settings)):
        each.setServiceParent(daemon)
    LocalToken(
        reactor, settings.state, authority, lambda: [port for each in listeners for port in each.ports]
    ).setServiceParent(daemon)
    if reload is not None:
        reload.setServiceParent(daemon)  # so late that it stops before what it changes
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
        raise ConfigError(f"ssl: TLS is not installed ({error}): {install_command(TLS)}") from None
    yield ExpiryWatch(reactor, clock.wall, files)


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
