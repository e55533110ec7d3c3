"""
Who may say what over HTTP: a browser's pages from elsewhere may not, whatever name they gave our address.
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
from usbgate.web.problems import HttpProblem

BODY_LIMIT = 64 * 1024  # bytes; the largest question is a device's line of 1 kB

# Everything the page needs comes from here, as files. It may be framed by its own origin: so does Home Assistant.
HEADERS: Mapping[str, str] = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; "
        "connect-src 'self'; manifest-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'self'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}

_HOST = re.compile(r"(\[[0-9A-Fa-f:.%]+\]|[A-Za-z0-9_.-]+)(?::[0-9]{1,5})?")


class RequestGuard:
    """
    Judges a request by its head.
    """

    def __init__(self, hosts: Collection[str] = (), own_name: str | None = None) -> None:
        """
        Know the names by which we may be called.

        Args:
            hosts: Those of the configuration.
            own_name: The machine's name; by default what the system says.
        """
        name = (own_name or socket.gethostname()).lower()
        short = name.partition(".")[0]
        ours = {"localhost", name, f"{short}.local", short}
        self._names = frozenset(ours | {host.lower().rstrip(".") for host in hosts})

    def check(self, request: Any) -> None:
        """
        Refuse a request that is not ours to answer.

        Args:
            request: A `BoundedRequest` that was received whole.

        Raises:
            HttpProblem: It is refused.
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
        if request.method not in (b"GET", b"HEAD"):
            self._check_origin(request)

    def is_ours(self, host: str) -> bool:
        """
        Whether a host (and port) is one by which we may be called.

        A page from elsewhere can have its own name lead to our address, but not an address that is ours already.
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
            raise HttpProblem(Malformed("not one Host"))
        if not self.is_ours(hosts[0]):
            raise HttpProblem(
                Denied("this host is not allowed: name it in hosts of [http]"), HTTPStatus.MISDIRECTED_REQUEST
            )

    def _check_origin(self, request: Any) -> None:
        for origin in request.requestHeaders.getRawHeaders("Origin", []):
            try:
                parts = urlsplit(origin)
            except ValueError:
                parts = urlsplit("")
            if parts.scheme not in ("http", "https") or not self.is_ours(parts.netloc):
                raise HttpProblem(Denied("this origin is not allowed: name its host in hosts of [http]"))


def check_type(request: Any) -> None:
    """
    Refuse a body that any page's form could have sent: only with this type does a browser ask us first whether a page
    from elsewhere may.

    Raises:
        HttpProblem: It says that it is something else, or nothing.
    """
    kind = (request.getHeader("Content-Type") or "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise HttpProblem(Malformed("the body must be application/json"), HTTPStatus.UNSUPPORTED_MEDIA_TYPE)
