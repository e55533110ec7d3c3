"""
Cutting a stream of bytes into lines (protocol §1, §2).
"""

from __future__ import annotations

from usbgate.core.fieldline import LINE_LIMIT

_PRINTABLE = bytes(range(0x20, 0x7F))
_NOT_PRINTABLE = bytes(set(range(0x100)).difference(_PRINTABLE))
_PLAIN = _PRINTABLE + b"\r\n"  # a chunk of only these has nothing to cut off its lines


class LineBuffer:
    """
    Cuts a stream of bytes into lines; its memory is bounded, whatever is sent.

    Attributes:
        crlf: Whether the newest line ended in CRLF.
        rest: The unfinished line at the end of the input; empty while the rest of an over-long line is discarded.
        discarding: Whether the rest of an over-long line is discarded.
    """

    def __init__(self, limit: int = LINE_LIMIT) -> None:
        """
        Args:
            limit: The most bytes that a line may have, its end not counted.
        """
        self.crlf = False
        self.rest = b""
        self._limit = limit
        self.discarding = False

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
            if self.discarding:
                del lines[0]
                self.discarding = False
        if lines:
            self.crlf = lines[-1].endswith(b"\r")
            if b"\r" in data or lines[0].endswith(b"\r"):
                lines = [line[:-1] if line.endswith(b"\r") else line for line in lines]
            if len(lines[0]) + len(data) > self._limit and max(map(len, lines)) > self._limit:
                lines = [line[: self._limit + 1] for line in lines]
        if last and not self.discarding:
            self.rest += last
            # One byte more than the limit may yet be the CR of a line end.
            if len(self.rest) > self._limit + self.rest.endswith(b"\r"):
                lines.append(self.rest[: self._limit + 1])
                self.rest = b""
                self.discarding = True
        return lines


class DeviceLineBuffer(LineBuffer):
    """
    Cuts what a device sends into lines, and cuts off their edges (protocol §2).

    A line ends at CR, LF or CRLF; a CRLF cut in two ends an empty line as well. What stands before the first printable
    ASCII byte of a line is dropped, and so are NULs at its end; neither counts for its length.

    Attributes:
        noise: Bytes dropped since the last `take_noise`.
        noise_lines: How many lines were nothing but dropped bytes; they are returned as empty lines.
        unended_noise: Bytes dropped since the last line end.
    """

    def __init__(self, limit: int = LINE_LIMIT) -> None:
        super().__init__(limit)
        self.noise = 0
        self.noise_lines = 0
        self.unended_noise = 0
        self._nuls = 0  # at the end of `rest`, counted instead of kept

    def take_noise(self) -> tuple[int, int]:
        """
        Return `noise` and `noise_lines`, and begin to count again.
        """
        noise = self.noise, self.noise_lines
        self.noise = self.noise_lines = 0
        return noise

    def feed(self, data: bytes) -> list[bytes]:
        lines = data.splitlines()
        last = lines.pop() if data and data[-1] not in b"\r\n" else b""
        plain = not data.translate(None, _PLAIN)
        if lines and self.discarding:
            del lines[0]
            self.discarding = False
            self.unended_noise = 0
        if lines:
            lines[0] = self.rest + lines[0]
            if not plain or self.unended_noise or self._nuls or lines[0].endswith(b"\0"):
                lines = [self._cut_edges(line) for line in lines]
            if max(map(len, lines)) > self._limit:
                lines = [line[: self._limit + 1] for line in lines]
            self.rest = b""
        if last and not self.discarding:
            self.rest = self.rest + last if plain or self.rest else self._drop_noise(last)
            if len(self.rest) > self._limit:
                lines += self._shorten_rest()
        return lines

    def _drop_noise(self, line: bytes) -> bytes:
        # What stands before the first printable byte.
        kept = line.lstrip(_NOT_PRINTABLE)
        self.noise += len(line) - len(kept)
        self.unended_noise += len(line) - len(kept)
        return kept

    def _cut_edges(self, line: bytes) -> bytes:
        line = self._drop_noise(line)
        kept = line.rstrip(b"\0")
        if len(kept) <= self._limit:
            self.noise += len(line) - len(kept) + self._nuls
            line = kept
        if not line and self.unended_noise:
            self.noise_lines += 1
        self.unended_noise = self._nuls = 0
        return line

    def _shorten_rest(self) -> list[bytes]:
        end = self._limit + 1
        if len(self.rest.rstrip(b"\0")) <= self._limit:
            # The line end may follow these NULs. If text follows them, the line is too long, so one is kept.
            self._nuls += len(self.rest) - end
            self.rest = self.rest[:end]
            return []
        line = self.rest[:end]
        self.rest = b""
        self._nuls = 0
        self.discarding = True
        return [line]
