"""
Twisted's endpoint strings, as far as the configuration looks into them. Twisted's own parsers would load its reactor,
and pyOpenSSL, before it is known whether anybody speaks TLS.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping
from ipaddress import ip_address

from usbgate.core.endpointstring import quote, split_endpoint
from usbgate.core.hostname import is_host_name
from usbgate.core.unixsocket import split_group

# A unix socket whose path is relative.
_RELATIVE_SOCKET = re.compile(r"unix:(?:address=)?(?=[^/:=\\][^:=]*(?::|$))")

# The arguments of `ssl:` (TLS) that name files. `clientCA` is ours; Twisted's `sslmethod` and `dhParameters`, which can
# only make it less safe, are left out.
_TLS_FILES = ("privateKey", "certKey", "extraCertChain", "clientCA")


def parse_port(text: str) -> int:
    """
    Return the number of a TCP port.

    Raises:
        ValueError: It is none.
    """
    port = int(text)
    if not 0 <= port <= 65535:
        raise ValueError(f"not a port: {port}")
    return port


def parse_host(text: str) -> str:
    """
    Return the name or the address of a host as it is.

    Raises:
        ValueError: It can be neither.
    """
    if not is_host_name(text):
        raise ValueError(f"not a host: {text!r}")
    return text


def _backlog(text: str) -> int:
    backlog = int(text)
    if not 0 <= backlog < 1 << 31:  # listen(2) takes an int
        raise ValueError(f"not a backlog: {backlog}")
    return backlog


def _path(text: str) -> str:
    if not text:
        raise ValueError("no path")
    return text


# Check the arguments of an endpoint, by its kind.
_Check = Callable[..., object]
_SERVERS: Mapping[str, _Check] = {
    "tcp": lambda port, interface="", backlog="50": (parse_port(port), _backlog(backlog)),
    "tcp6": lambda port, backlog="50", interface="": (parse_port(port), _backlog(backlog)),
    "unix": lambda address, mode="666", backlog="50", lockfile=1: (
        _path(address),
        int(mode, 8),
        _backlog(backlog),
        int(lockfile),
    ),
    "ssl": lambda port, *, interface="", backlog="50", privateKey="", certKey="", extraCertChain="", clientCA="": (
        parse_port(port),
        _backlog(backlog),
    ),
}
_CLIENTS: Mapping[str, _Check] = {
    "tcp": lambda host, port, *, timeout=30, bindAddress="": (parse_host(host), parse_port(port), int(timeout)),
    "unix": lambda path, *, timeout=30, lockfile=0: (_path(path), int(timeout), int(lockfile)),
}
_CLIENTS = {**_CLIENTS, "rfc2217": _CLIENTS["tcp"]}

_KIND = re.compile("([A-Za-z][A-Za-z0-9]*):.", re.DOTALL)

# The kinds that never speak TLS. Others may, such as those of plug-ins.
_PLAIN = ("tcp", "tcp6", "unix", "systemd", "usb", "serial", "rfc2217")

# Where a client connects to reach a server that listens on all interfaces.
_LOOPBACK = {("tcp", ""): "127.0.0.1", ("tcp6", ""): "::1", ("ssl", ""): "127.0.0.1"}
_ANY = {"0.0.0.0": "127.0.0.1", "::": "::1"}


def parse_server(text: str) -> str:
    """
    Return a server endpoint string such as `tcp:50007:interface=127.0.0.1` as it is.

    Raises:
        ValueError: It is not a server endpoint string.
    """
    _check(split_group(text)[0], _SERVERS)
    return text


def parse_client(text: str) -> str:
    """
    Return a client endpoint string such as `tcp:host:port` as it is.

    Raises:
        ValueError: It is not a client endpoint string.
    """
    _check(text, _CLIENTS)
    return text


def _check(text: str, checks: Mapping[str, _Check]) -> None:
    if not _KIND.match(text) or "\0" in text:
        raise ValueError(f"not an endpoint string: {text!r}")
    (kind, *arguments), named = split_endpoint(text)
    if check := checks.get(kind):
        try:
            check(*arguments, **named)
        except TypeError:
            raise ValueError(f"missing or unknown arguments: {text!r}") from None


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
        quoted = (f"{key}={quote(value)}" for key, value in options.items())
        return ":".join([kind, port, *quoted])
    relative = _RELATIVE_SOCKET.match(text)
    if relative is None:
        return text
    return relative[0] + quote(folder + "/") + text[relative.end() :]


def is_exposed(text: str) -> bool | None:
    """
    Return whether other machines can reach a server; None if that shows only once it listens.

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


def may_encrypt(text: str) -> bool:
    """
    Return whether a server, or a connection to a device, may speak TLS.

    Args:
        text: An endpoint string, `none`, or whatever else says where a device is.
    """
    kind = _KIND.match(text)
    return kind is not None and kind[1] not in _PLAIN


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
