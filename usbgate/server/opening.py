"""
The beginning of a client's connection (protocol §3), where other programs than line clients are recognized.
"""

from __future__ import annotations

import re
from codecs import BOM_UTF8

from usbgate.core.errors import Malformed
from usbgate.core.fieldline import LINE_LIMIT
from usbgate.server.requests import is_original_request

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
        is_original: Whether the first chunk, without a line end, can be a request of the original client.
    """

    def __init__(self) -> None:
        self.is_over = False
        self.is_original = False
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
        self.is_original = self._is_first and b"\n" not in chunk and is_original_request(chunk.removeprefix(BOM_UTF8))
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
