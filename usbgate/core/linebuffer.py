"""
Cutting a stream of bytes into lines (protocol §1).
"""

from __future__ import annotations

from usbgate.core.fieldline import LINE_LIMIT


class LineBuffer:
    """
    Cuts a stream of bytes into lines; its memory is bounded, whatever is sent.

    Attributes:
        crlf: Whether the newest line ended in CRLF.
        rest: The unfinished line at the end of the input; empty while the rest of an over-long line is discarded.
    """

    def __init__(self, limit: int = LINE_LIMIT) -> None:
        """
        Args:
            limit: The most bytes that a line may have, its end not counted.
        """
        self.crlf = False
        self.rest = b""
        self._limit = limit
        self._discarding = False

    def take_rest(self) -> bytes:
        """
        Remove the unfinished line from the buffer and return it.
        """
        rest, self.rest = self.rest, b""
        return rest

    def feed(self, data: bytes) -> list[bytes]:
        """
        Add a chunk and return the lines that it completes.

        An over-long line is returned once, as soon as it is found, as its first `limit + 1` bytes; no other line is
        that long. The rest of it is discarded.

        Args:
            data: Any number of bytes, cut anywhere.

        Returns:
            Lines in order, without LF or CRLF.
        """
        *lines, last = data.split(b"\n")
        if lines:
            lines[0] = self.rest + lines[0]
            self.rest = b""
            if self._discarding:
                del lines[0]
                self._discarding = False
        if lines:
            self.crlf = lines[-1].endswith(b"\r")
            if b"\r" in data or lines[0].endswith(b"\r"):
                lines = [line[:-1] if line.endswith(b"\r") else line for line in lines]
            if max(map(len, lines)) > self._limit:
                lines = [line[: self._limit + 1] for line in lines]
        if not self._discarding:
            self.rest += last
            # One byte more than the limit may yet be the CR of a line end.
            if len(self.rest) > self._limit + self.rest.endswith(b"\r"):
                lines.append(self.rest[: self._limit + 1])
                self.rest = b""
                self._discarding = True
        return lines
