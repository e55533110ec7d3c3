"""
Twisted's endpoint strings, as far as the configuration looks into them.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from ipaddress import ip_address
from typing import Any

from twisted.internet.endpoints import clientFromString, quoteStringArgument, serverFromString

from usbgate.core.endpointstring import split_endpoint
from usbgate.core.unixsocket import split_group

# A unix socket whose path is relative.
_RELATIVE_SOCKET = re.compile(r"unix:(?:address=)?(?=[^/:=\\][^:=]*(?::|$))")

# The parts of `ssl:` (TLS) besides the port: those that name files, and the others. Of Twisted's own, `sslmethod` and
# `dhParameters` are left out, which can only make it less safe; `clientCA` is ours.
_TLS_FILES = ("privateKey", "certKey", "extraCertChain", "clientCA")
_TLS_OTHERS = ("interface", "backlog")

# Where a client connects to reach a server that listens on all interfaces.
_LOOPBACK = {("tcp", ""): "127.0.0.1", ("tcp6", ""): "::1", ("ssl", ""): "127.0.0.1"}
_ANY = {"0.0.0.0": "127.0.0.1", "::": "::1"}


def parse_server(text: str) -> str:
    """
    Return a server endpoint string such as `tcp:50007:interface=127.0.0.1` as it is.

    Raises:
        ValueError: It is not a server endpoint string.
    """
    _checked(split_group(text)[0], serverFromString)
    return text


def parse_client(text: str) -> str:
    """
    Return a client endpoint string such as `tcp:host:port` as it is.

    Raises:
        ValueError: It is not a client endpoint string.
    """
    _checked(text, clientFromString)
    return text


def _checked(text: str, from_string: Any) -> str:
    kind, colon, rest = text.partition(":")
    if not colon or not rest or not re.fullmatch("[A-Za-z][A-Za-z0-9]*", kind):
        raise ValueError(f"not an endpoint string: {text!r}")
    (_, *ports), options = split_endpoint(text)
    if kind == "rfc2217" and from_string is clientFromString:  # ours; its arguments are those of `tcp`
        kind = "tcp"
        text = f"tcp:{rest}"
    if kind in ("tcp", "unix"):
        # Twisted parses these two without touching the reactor; other kinds may open files or load plug-ins.
        try:
            from_string(object(), text)
        except TypeError as error:
            raise ValueError(str(error)) from None
    elif kind == "ssl" and from_string is serverFromString:
        if len(ports) != 1 or not options.keys() <= {*_TLS_FILES, *_TLS_OTHERS}:
            raise ValueError(f"not a port and known options: {text!r}")
        int(ports[0]), int(options.get("backlog", 1))
    return text


def absolute_paths(text: str, folder: str, certificate: str) -> str:
    """
    Return a server endpoint string in which paths (of a Unix socket, of certificates) are absolute.

    Args:
        text: An endpoint string that `parse_server` has accepted.
        folder: Where relative paths start.
        certificate: The file of the private key and the certificate of `ssl:` without `privateKey`.
    """
    if text.startswith("ssl:"):
        (kind, port), options = split_endpoint(text)
        options.setdefault("privateKey", certificate)
        options.update({key: os.path.join(folder, options[key]) for key in _TLS_FILES if key in options})
        quoted = (f"{key}={quoteStringArgument(value).replace('=', chr(92) + '=')}" for key, value in options.items())
        return ":".join([kind, port, *quoted])
    relative = _RELATIVE_SOCKET.match(text)
    if relative is None:
        return text
    start: str = quoteStringArgument(folder + "/")
    return relative[0] + start + text[relative.end() :]


def is_exposed(text: str) -> bool | None:
    """
    Return whether other machines can reach a server; None if that can't be told before it listens.

    Args:
        text: A server endpoint string.
    """
    (kind, *arguments), named = split_endpoint(text)
    if kind == "unix":
        return False
    if kind not in ("tcp", "tcp6", "ssl"):
        return None
    interface = named.get("interface") or (arguments[1] if kind != "ssl" and len(arguments) > 1 else "")
    try:
        return not ip_address(interface).is_loopback
    except ValueError:  # all, or a name
        return interface != "localhost"


def is_encrypted(text: str) -> bool:
    """
    Return whether a server speaks TLS.
    """
    return text.startswith("ssl:")


def local_addresses(listen: Iterable[str]) -> list[tuple[str, int] | str]:
    """
    Return where a client on this machine can reach servers: (host, port), or the path of a socket.

    Left out are endpoints whose address only Twisted knows, such as `systemd:`, and ports that the system chooses.

    Args:
        listen: Server endpoint strings.
    """
    found: list[tuple[str, int] | str] = []
    for text in listen:
        (kind, *arguments), named = split_endpoint(text)
        if kind == "unix":
            found.append(str(named.get("address") or arguments[0]))
        elif kind in ("tcp", "tcp6", "ssl"):
            port = int(named.get("port") or arguments[0])
            interface = named.get("interface") or (arguments[1] if len(arguments) > 1 else "")
            if port:
                found.append((_LOOPBACK.get((kind, interface)) or _ANY.get(interface, interface), port))
    return found


def tls_addresses(listen: Iterable[str]) -> list[tuple[str, int] | str]:
    """
    Return those of `local_addresses` that speak TLS.
    """
    return local_addresses(text for text in listen if text.startswith("ssl:"))


def certificate_files(listen: Iterable[str]) -> list[str]:
    """
    Return the files of the certificates with which servers speak TLS, each once.

    Args:
        listen: Server endpoint strings of `absolute_paths`.
    """
    found = [split_endpoint(text)[1] for text in listen if text.startswith("ssl:")]
    return list(dict.fromkeys(options.get("certKey") or options["privateKey"] for options in found))
