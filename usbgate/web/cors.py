"""
Pages of other sites that may use the API: Cross-Origin Resource Sharing, as the Fetch standard has it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

_READING = (b"GET", b"HEAD")

_MAX_AGE = "600"  # seconds for which a browser remembers the answer to a preflight


class CrossOrigin:
    """
    Which pages may do what. Browsers keep everything from a page that is not allowed, and send no command for it.
    """

    def __init__(self, origins: Collection[str] = ()) -> None:
        """
        Args:
            origins: The origins of pages, such as `https://house.example`, which may read and send commands; with `*`,
                all others may read.
        """
        # Bytes: at this point, a head may be anything.
        self._origins = frozenset(origin.encode() for origin in origins if origin != "*")
        self._all_read = "*" in origins

    def may_command(self, origin: str) -> bool:
        """
        Return whether a page of this origin may send commands.
        """
        return origin.encode() in self._origins

    def prepare(self, request: Any) -> None:
        """
        Set the headers that let a page see a response, if it may.
        """
        if not self._origins and not self._all_read:
            return
        request.responseHeaders.addRawHeader("Vary", "Origin")
        origin = request.getHeader(b"Origin")
        if origin in self._origins:
            request.setHeader("Access-Control-Allow-Origin", origin)
        elif self._all_read and request.method in (*_READING, b"OPTIONS"):
            request.setHeader("Access-Control-Allow-Origin", "*")

    def preflight(self, request: Any) -> Mapping[str, str] | None:
        """
        Return the headers of the response to a browser that asks what a page may do; None if the request is another
        one, or the page may do nothing.
        """
        origin = request.getHeader(b"Origin")
        if request.method != b"OPTIONS" or not origin or request.getHeader(b"Access-Control-Request-Method") is None:
            return None
        if origin in self._origins:
            methods = "GET, HEAD, POST"
        elif self._all_read:
            methods = "GET, HEAD"
        else:
            return None
        return {
            "Access-Control-Allow-Methods": methods,
            "Access-Control-Allow-Headers": "Authorization, Content-Type",
            "Access-Control-Max-Age": _MAX_AGE,
        }
