"""
Refuse to let other machines command by accident.
"""

from __future__ import annotations

from collections.abc import Callable

from usbgate.access.tokens import TokenFile, TokensUnreadable
from usbgate.config.endpoints import is_encrypted, is_exposed
from usbgate.config.settings import Settings
from usbgate.config.types import ConfigError, ListenAddress


def check_exposure(settings: Settings, warn: Callable[[str], None]) -> None:
    """
    Check that what other machines can reach is encrypted and requires a token, or an address of a `[[client]]`.

    Args:
        settings: The configuration.
        warn: Called with a line about each address where that is not so, as the configuration wants it.

    Raises:
        ConfigError: Other machines can reach an address where that is not so.
    """
    for key, address in (*(("listen", each) for each in settings.listen), ("http.listen", settings.http.listen)):
        if address.endpoint == "none" or not is_exposed(address.endpoint):
            continue
        if address.door.insecure:
            everybody = "everybody there can command" if address.door.is_open else "everybody there can read tokens"
            warn(f"{address.endpoint} is insecure: other machines can reach it, and {everybody}")
        elif not (is_encrypted(address.endpoint) and (_has_tokens(settings) or _has_rules(settings))):
            raise ConfigError(f"{key}: other machines can reach {address.endpoint}. {_ways_out(address)}")


def _has_tokens(settings: Settings) -> bool:
    try:
        return bool(TokenFile(settings.state).tokens)
    except TokensUnreadable as error:
        raise ConfigError(str(error)) from None


def _has_rules(settings: Settings) -> bool:
    return any(client.addresses for client in settings.clients)


def _ways_out(address: ListenAddress) -> str:
    return (
        "Listen on 127.0.0.1 or a Unix socket, behind a reverse proxy, with proxied = true; or use TLS (ssl:…) and"
        f' `usbgate token add`; or, to accept the risk, set {{ endpoint = "{address.endpoint}", insecure = true }}'
    )
