"""
Find the daemon that a command is for: the one of the configuration, another one here, or one on another machine.
"""

from __future__ import annotations

from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING

import click

from usbgate.cli.autostart import DaemonStarter
from usbgate.cli.connection import Address, Connection, NoDaemon, connect, spell
from usbgate.cli.credentials import authenticate
from usbgate.cli.encryption import encrypt
from usbgate.core.connstring import NO_PASSWORD, has_password

if TYPE_CHECKING:
    from usbgate.config.settings import Settings

PORT = 50007  # the original's

port_option = click.option(
    "-p",
    "port",
    type=click.IntRange(1, 65535),
    metavar="PORT",
    help="The daemon's port.  [default: the one in the configuration, or 50007]",
)


def load_settings(config: Path | None, database: str | None = None, state: str | None = None) -> Settings:
    """
    Load the configuration; see `usbgate.config.load.load`.

    Raises:
        ClickException: It is wrong, or `database`, an option of the command line, has a password.
    """
    if has_password(database or ""):
        raise click.ClickException(f"--database {NO_PASSWORD}, or the configuration ([database])")
    # Only here: the configuration needs Twisted, and a request to another machine does not.
    from usbgate.config.load import load
    from usbgate.config.types import ConfigError

    try:
        return load(config, database=database, state=state)
    except ConfigError as error:
        raise click.ClickException(str(error)) from None


def is_this_machine(host: str) -> bool:
    """
    Return whether a host is `localhost` or a loopback address.
    """
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def reach_or_start(settings: Settings, daemon: DaemonStarter, host: str | None, port: int | None) -> Connection:
    """
    Connect to a daemon on this machine, and start it if it is the configured one and does not run.

    Args:
        settings: The configuration.
        daemon: Starts the configured daemon.
        host: This machine's name or address; None for any.
        port: The daemon's port; None for the configured one.

    Raises:
        NoDaemon: It does not run, and could not be started.
    """
    from usbgate.config.endpoints import local_addresses

    listens = local_addresses(settings.endpoints)
    address = _choose(listens, host, port)
    if any(_same(address, other) for other in listens):
        return authenticate(_encrypt(daemon.reach(address), address, settings), settings.state)
    connection = connect(address)
    if connection is None:
        raise NoDaemon(
            f"no daemon listens on {spell(address)}, and none is started there,"
            f" since it listens on {' and '.join(map(spell, listens)) or 'nothing that is known'},"
            f" {f'according to {settings.file}' if settings.file else 'by default'}"
        )
    return authenticate(_encrypt(connection, address, settings), settings.state)


def reach_running(config: Path | None, host: str | None, port: int | None) -> Connection:
    """
    Connect to a daemon that runs, on this machine or another one.

    Args:
        config: The configuration file; None for the one found.
        host: Its host; None for this machine.
        port: Its port; None for the one in the configuration, or on another machine 50007.

    Raises:
        NoDaemon: None runs there.
    """
    if host is not None and not is_this_machine(host):
        return reach_remote(host, port, config)

    from usbgate.config.endpoints import local_addresses

    settings = load_settings(config)
    address = _choose(local_addresses(settings.endpoints), host, port)
    connection = connect(address)
    if connection is None:
        raise NoDaemon(f"no daemon listens on {spell(address)}; `usbgate ask` and `twistd usbgate` start one")
    return authenticate(_encrypt(connection, address, settings), settings.state)


def reach_remote(host: str, port: int | None, config: Path | None) -> Connection:
    """
    Connect to a daemon on another machine.

    Args:
        host: Its host.
        port: Its port; None for 50007.
        config: The configuration file of this machine, whose state folder may have a CA; None for the one found.

    Raises:
        NoDaemon: None runs there.
    """
    address = (host, port or PORT)
    connection = connect(address)
    if connection is None:
        raise NoDaemon(f"no daemon listens on {spell(address)}, and none is started on another machine")
    return authenticate(encrypt(connection, host, False, lambda: load_settings(config).state), None)


def _encrypt(connection: Connection, address: Address, settings: Settings) -> Connection:
    # The configuration says which ports of this machine speak TLS.
    from usbgate.config.endpoints import tls_addresses

    if isinstance(address, str):
        return connection
    wanted = any(_same(address, other) for other in tls_addresses(settings.endpoints))
    return encrypt(connection, address[0], wanted, lambda: settings.state)


def _choose(listens: list[Address], host: str | None, port: int | None) -> Address:
    if host is None and port is None and listens:
        return listens[0]
    if host is None:
        for address in listens:
            if not isinstance(address, str) and address[1] == port:
                return address
    return host or "127.0.0.1", port or PORT


def _same(address: Address, other: Address) -> bool:
    # All names of this machine count as one: to which of them a port is bound is not known before the daemon runs.
    if isinstance(address, str) or isinstance(other, str):
        return address == other
    return address[1] == other[1]
