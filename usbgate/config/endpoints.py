"""
Twisted's endpoint strings, as far as the configuration looks into them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from twisted.internet.endpoints import _parse, clientFromString, quoteStringArgument, serverFromString

# A unix socket whose path is relative.
_RELATIVE_SOCKET = re.compile(r"unix:(?:address=)?(?=[^/:=\\][^:=]*(?::|$))")

# Where a client connects to reach a server that listens on all interfaces.
_LOOPBACK = {("tcp", ""): "127.0.0.1", ("tcp6", ""): "::1"}
_ANY = {"0.0.0.0": "127.0.0.1", "::": "::1"}


def parse_server(text: str) -> str:
    """
    Return a server endpoint string such as `tcp:50007:interface=127.0.0.1` as it is.

    Raises:
        ValueError: It is not a server endpoint string.
    """
    return _checked(text, serverFromString)


def parse_client(text: str) -> str:
    """
    Return a client endpoint string such as `tcp:host:port` as it is.

    Raises:
        ValueError: It is not a client endpoint string.
    """
    return _checked(text, clientFromString)


def _checked(text: str, from_string: Any) -> str:
    kind, colon, rest = text.partition(":")
    if not colon or not rest or not re.fullmatch("[A-Za-z][A-Za-z0-9]*", kind):
        raise ValueError(f"not an endpoint string: {text!r}")
    if kind in ("tcp", "unix"):
        # Twisted parses these two without touching the reactor; other kinds may open files or load plug-ins.
        try:
            from_string(object(), text)
        except TypeError as error:
            raise ValueError(str(error)) from None
    return text


def absolute_socket(text: str, folder: str) -> str:
    """
    Return an endpoint string in which the path of a Unix socket, if it is relative, starts from a folder.
    """
    relative = _RELATIVE_SOCKET.match(text)
    if relative is None:
        return text
    quoted: str = quoteStringArgument(folder + "/")
    return relative[0] + quoted + text[relative.end() :]


def local_addresses(listen: Iterable[str]) -> list[tuple[str, int] | str]:
    """
    Return where a client on this machine can reach servers: (host, port), or the path of a socket.

    Left out are endpoints whose address only Twisted knows, such as `systemd:`, and ports that the system chooses.

    Args:
        listen: Server endpoint strings.
    """
    found: list[tuple[str, int] | str] = []
    for text in listen:
        (kind, *arguments), named = _parse(text)
        if kind == "unix":
            found.append(str(named.get("address") or arguments[0]))
        elif kind in ("tcp", "tcp6"):
            port = int(named.get("port") or arguments[0])
            interface = named.get("interface") or (arguments[1] if len(arguments) > 1 else "")
            if port:
                found.append((_LOOPBACK.get((kind, interface)) or _ANY.get(interface, interface), port))
    return found
