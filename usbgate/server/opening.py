"""
The beginning of a client's connection (protocol §3), where the original client is recognized, and other programs than
line clients.
"""

from __future__ import annotations

import re
from codecs import BOM_UTF8
from collections.abc import Callable

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from usbgate.core.errors import Malformed
from usbgate.core.fieldline import LINE_LIMIT
from usbgate.server.requests import is_original_request

FIRST_DATA_PATIENCE = 0.25  # seconds in which nothing may follow the original client's line, protocol §3

_EMPTY_LINES = re.compile(rb"(?:\r?\n)*")

# How other programs begin. A browser begins so whatever page it shows, and all that follows is the page's choice. So is
# the method, to a host that is the page's own (DNS rebinding): `ask / HTTP/1.1`.
_OTHERS = {
    "HTTP": re.compile(rb"[A-Z]+ (?:/|\*|https?:)|[!-~]+ (?:/|\*|https?:)\S* HTTP/[0-9]"),
    "TLS": re.compile(rb"\x16"),
    "SSH": re.compile(rb"SSH-"),
}

# Control bytes with no meaning for a terminal (RFC 854): there, NUL follows CR, and 7 to 13 are BEL, BS, HT, LF, VT, FF
# and CR.
_CONTROL = re.compile(rb"(?<!\r)\x00|[\x01-\x06\x0e-\x1f\x7f]")


class Opening:
    """
    The beginning of one connection, up to the end of its first line that is not empty.

    Attributes:
        is_over: Whether that line has ended, so that nothing more is to be judged.
    """

    def __init__(self, reactor: IReactorTime, original_received: Callable[[], None]) -> None:
        """
        Args:
            reactor: For the patience.
            original_received: Called if the first chunk is a request of the original client, which has no line end,
                and nothing follows.
        """
        self.is_over = False
        self._reactor = reactor
        self._original_received = original_received
        self._patience: IDelayedCall | None = None  # while nothing has followed
        self._line = b""  # the first line so far, or the beginning of a byte order mark
        self._is_first = True
        self._has_begun = False  # what may be a byte order mark is behind us

    def feed(self, chunk: bytes, data: bytes) -> bytes:
        """
        Judge a chunk, however the stream is cut.

        Args:
            chunk: The chunk.
            data: The same without Telnet commands.

        Returns:
            The chunk without a byte order mark. The beginning of one is kept for the next chunk.

        Raises:
            Malformed: This is no line client; the reason says what it is.
        """
        self.close()
        if self._is_first and b"\n" not in chunk and is_original_request(chunk.removeprefix(BOM_UTF8)):
            self._patience = self._reactor.callLater(FIRST_DATA_PATIENCE, self.end)
        self._is_first = False
        if not self._has_begun:
            data, self._line = self._line + data, b""
            if len(data) < len(BOM_UTF8) and BOM_UTF8.startswith(data):
                self._line = data
                return b""
            self._has_begun = True
            data = data.removeprefix(BOM_UTF8)
        line = self._line + data
        line, end, _ = line[_EMPTY_LINES.match(line).end() :].partition(b"\n")  # type: ignore[union-attr]  # it matches
        for name, begins in _OTHERS.items():
            if begins.match(line.lstrip(b"\r")):
                raise Malformed(name)
        if _CONTROL.search(line):
            raise Malformed("control character")
        if len(line.removesuffix(b"\r")) > LINE_LIMIT:
            raise Malformed("line too long")
        self._line = line
        self.is_over = bool(end)
        return data

    def end(self) -> None:
        """
        Nothing follows what was received.
        """
        if self._patience is not None:
            self.close()
            self._original_received()

    def close(self) -> None:
        """
        Wait for nothing more.
        """
        if self._patience is not None:
            if self._patience.active():
                self._patience.cancel()
            self._patience = None
