"""
Checks of requests: pages of other sites cannot use the API, not even under a name of theirs that resolves to our
address (DNS rebinding).
"""

from __future__ import annotations

import re
import socket
from collections.abc import Collection, Mapping
from http import HTTPStatus
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

from usbgate.core.errors import Denied, LimitExceeded, Malformed
from usbgate.web.cors import CrossOrigin
from usbgate.web.problems import HttpProblem

BODY_LIMIT = 64 * 1024  # bytes; the largest question is a device's line of 1 kB

# Of every response. The page needs nothing from elsewhere, and no inline code. Its own origin may frame it, as Home
# Assistant does.
HEADERS: Mapping[str, str] = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; "
        "connect-src 'self'; manifest-src 'self'; worker-src 'self'; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'self'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}

_HOST = re.compile(r"(\[[0-9A-Fa-f:.%]+\]|[A-Za-z0-9_.-]+)(?::[0-9]{1,5})?")


class RequestGuard:
    """
    Checks a request by its head and the size of its body.
    """

    def __init__(
        self, hosts: Collection[str] = (), cross_origin: CrossOrigin | None = None, own_name: str | None = None
    ) -> None:
        """
        Args:
            hosts: Names by which browsers may call us, besides localhost and the machine's name.
            cross_origin: The pages of other sites that may send commands; None for none.
            own_name: The machine's name; by default the system's.
        """
        name = (own_name or socket.gethostname()).lower()
        short = name.partition(".")[0]
        ours = {"localhost", name, f"{short}.local", short}
        self._cross_origin = cross_origin or CrossOrigin()
        self._names = frozenset(ours | {host.lower().rstrip(".") for host in hosts})

    def check(self, request: Any, preflight: bool = False) -> None:
        """
        Check a request.

        Args:
            request: A complete `BoundedRequest`.
            preflight: Whether it only asks what the page of an `Origin` may do.

        Raises:
            HttpProblem: The request must be refused.
        """
        if not request.path.startswith(b"/"):
            raise HttpProblem(Malformed("not a path"))
        try:
            b" ".join([request.method, *request.postpath]).decode()
            for _, values in request.requestHeaders.getAllRawHeaders():
                b" ".join(values).decode()
        except UnicodeDecodeError:
            raise HttpProblem(Malformed("not UTF-8", "the head")) from None
        self._check_host(request)
        if request.body_size > BODY_LIMIT:
            raise HttpProblem(
                LimitExceeded(f"the body has more than {BODY_LIMIT} bytes"), HTTPStatus.REQUEST_ENTITY_TOO_LARGE
            )
        if request.method not in (b"GET", b"HEAD") and not preflight:
            self._check_origin(request)

    def is_ours(self, host: str) -> bool:
        """
        Return whether a `Host` (and port) is one by which we may be called: a known name, or any IP address.

        A page of another site can make its own name resolve to our address, but its `Host` is then that name.
        """
        match = _HOST.fullmatch(host)
        if match is None:
            return False
        name = match[1].lower().rstrip(".")
        if name in self._names:
            return True
        try:
            ip_address(name.strip("[]").partition("%")[0])
        except ValueError:
            return False
        return True

    def _check_host(self, request: Any) -> None:
        hosts = request.requestHeaders.getRawHeaders("Host", [])
        if not hosts and request.clientproto == b"HTTP/1.0":  # no browser of today
            return
        if len(hosts) != 1:
            raise HttpProblem(Malformed("no Host, or more than one"))
        if not self.is_ours(hosts[0]):
            raise HttpProblem(
                Denied("this host is not allowed: add it to hosts in [http]", "host not allowed"),
                HTTPStatus.MISDIRECTED_REQUEST,
            )

    def _check_origin(self, request: Any) -> None:
        # Some browsers say whether a page is from another origin; `same-site` is one on another port of our host.
        elsewhere = request.getHeader("Sec-Fetch-Site") in ("cross-site", "same-site")
        for origin in request.requestHeaders.getRawHeaders("Origin", []):
            if self._cross_origin.may_command(origin):
                continue
            if elsewhere or not self._is_our_page(origin, request.getHeader("Host")):
                text = "this origin is not allowed: add its host to hosts, or it to cors, in [http]"
                raise HttpProblem(Denied(text, "origin not allowed"))

    def _is_our_page(self, origin: str, host: str | None) -> bool:
        # A proxy may change the `Host`. But a page that is served under a public address can be anybody's.
        try:
            parts = urlsplit(origin)
        except ValueError:
            return False
        if parts.scheme not in ("http", "https") or not self.is_ours(parts.netloc):
            return False
        return parts.netloc == host or not _is_public(parts.hostname or "")


def _is_public(host: str) -> bool:
    try:
        return ip_address(host).is_global
    except ValueError:
        return False


def check_type(request: Any) -> None:
    """
    Check that a body is declared as JSON. Any page's form can send other types; for this one, a browser first asks us
    whether a page of another site may (see `CrossOrigin`).

    Raises:
        HttpProblem: The type is another one, or none.
    """
    kind = (request.getHeader("Content-Type") or "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise HttpProblem(Malformed("the type of the body must be application/json"), HTTPStatus.UNSUPPORTED_MEDIA_TYPE)
