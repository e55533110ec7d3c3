"""
The client of the MQTT broker, and what uses it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from twisted.internet.endpoints import clientFromString
from twisted.internet.interfaces import IStreamClientEndpoint

from usbgate.access.authority import Authority
from usbgate.access.roles import Role
from usbgate.config.settings import MqttSettings, Settings
from usbgate.config.types import ConfigError
from usbgate.core.clock import IClock
from usbgate.core.endpointstring import split_endpoint
from usbgate.core.extras import TLS, install_command
from usbgate.gateway.gateway import Gateway
from usbgate.mqtt.announcer import Announcer
from usbgate.mqtt.asking import Asking
from usbgate.mqtt.client import MqttClient
from usbgate.mqtt.connection import Login
from usbgate.mqtt.discovery import Discovery
from usbgate.mqtt.events import EventTopics
from usbgate.mqtt.interfaces import IMqttPart
from usbgate.mqtt.topics import PREFIX, Topics, escape
from usbgate.mqtt.values import Values

PASSWORD = "USBGATE_MQTT_PASSWORD"


def make_mqtt(
    reactor: Any,
    clock: IClock,
    settings: Settings,
    mqtt: MqttSettings,
    gateway: Gateway,
    authority: Authority,
    name: str,
) -> tuple[MqttClient, Callable[[], None]]:
    """
    Make the client of the broker and what uses it; the gateway then shows its status.

    Args:
        reactor: The reactor.
        clock: The wall clock.
        settings: The configuration.
        mqtt: Its table `[mqtt]`.
        gateway: The gateway.
        authority: Decides which questions only read.
        name: Its name.

    Returns:
        The client, and what to call when the settings of sensors have changed.

    Raises:
        ConfigError: See `make_client`.
    """
    topics = Topics(name)
    values = Values(reactor, clock.wall, gateway, topics)
    announcer = Announcer(reactor, gateway, _discovery(mqtt, name), extent=mqtt.discovery, changed=values.again)
    events = EventTopics(gateway, topics, clock.wall)
    asking = Asking(
        reactor,
        gateway,
        authority,
        mqtt.role,
        topics,
        (PREFIX, mqtt.discovery_prefix),
        events.failed,
        settings.client_requests_per_second,
    )
    client = make_client(reactor, mqtt, name, [values, announcer, events, asking])
    gateway.queries.broker_status = lambda: replace(client.status(), unasked=asking.refused)

    def refresh() -> None:
        values.refresh()
        announcer.refresh()

    gateway.restored.append(refresh)
    return client, refresh


def _discovery(mqtt: MqttSettings, name: str) -> Discovery:
    may_command = mqtt.role >= Role.COMMAND
    return Discovery(name, prefix=mqtt.discovery_prefix, language=mqtt.language, commands=may_command)


def make_client(
    reactor: Any,
    mqtt: MqttSettings,
    name: str,
    parts: Sequence[IMqttPart],
    environ: Mapping[str, str] = os.environ,
) -> MqttClient:
    """
    Make the client of the broker.

    Args:
        reactor: The reactor.
        mqtt: The table `[mqtt]`.
        name: The gateway's name.
        parts: What uses it, in this order.
        environ: The environment, for the password.

    Raises:
        ConfigError: The broker needs TLS, which is not installed, or a file that can't be used.
    """
    endpoint, verify = _endpoint(reactor, mqtt)
    who = Login(
        client=f"usbgate-{escape(name)}",
        v5=mqtt.version == "5",
        will=Topics(name).availability,
        user=mqtt.user,
        keepalive=round(mqtt.keepalive),
        verify=verify,
    )
    # The password is read at each connection: one that is changed needs no restart.
    return MqttClient(reactor, endpoint, lambda: replace(who, password=_password(mqtt, environ)), mqtt.broker, parts)


def _endpoint(reactor: Any, mqtt: MqttSettings) -> tuple[IStreamClientEndpoint, Callable[[object], str | None] | None]:
    if not mqtt.broker.startswith("tls:"):
        return clientFromString(reactor, mqtt.broker), None
    (_, host, port), _ = split_endpoint(mqtt.broker)
    try:
        from usbgate.net.tlsclient import tls_client_endpoint, wrong_host
    except ImportError as error:
        raise ConfigError(f"mqtt.broker: TLS is not installed ({error}): {install_command(TLS)}") from None
    try:
        return tls_client_endpoint(reactor, host, int(port), mqtt.ca), partial(wrong_host, host=host)
    except ValueError as error:
        raise ConfigError(f"mqtt.ca: {error}") from None


def _password(mqtt: MqttSettings, environ: Mapping[str, str]) -> str | None:
    if mqtt.password_file is None:
        return environ.get(PASSWORD) or None
    try:
        return mqtt.password_file.read_text().rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise OSError(f"mqtt.password_file: {mqtt.password_file} cannot be read: {error}") from None
