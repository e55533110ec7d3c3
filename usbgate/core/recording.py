"""
Recordings of a device: the bytes of both directions with their times, as text that a person can read and edit.

    # usbgate recording
    0.000 < "ID:20_TEMP:21.5\\r\\n"
    1.204 > "MSG:J_ID:20\\n"
    1.251 < "ID:20_TEMP:21.6\\r\\n"
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import NamedTuple

HEADER = "# usbgate recording"

# A line of the file ends at a line feed, or at a pause, so that it is one line of the device in most cases.
PAUSE = 0.1  # seconds
LONGEST = 512  # bytes

_LINE = re.compile(r'(\+?)([0-9]{1,9}(?:\.[0-9]{1,9})?)\s+([<>])\s+"((?:[^"\\]|\\.)*)"\s*(?:#.*)?')
_ESCAPE = re.compile(rb"\\(?:x([0-9A-Fa-f]{2})|(.))", re.DOTALL)
_ESCAPED = {b"r": b"\r", b"n": b"\n", b"t": b"\t", b"0": b"\0", b'"': b'"', b"\\": b"\\"}
_SPELLED = {byte[0]: "\\" + letter.decode() for letter, byte in _ESCAPED.items() if byte != b"\0"}


class UnreadableRecording(Exception):
    """
    A line of a recording is wrong; the text begins with its number.
    """


class Piece(NamedTuple):
    """
    Some bytes of a recording.

    Attributes:
        at: When the first of them came, in seconds since the recording began.
        to_device: Whether they were written to the device; otherwise it sent them.
        data: The bytes.
    """

    at: float
    to_device: bool
    data: bytes


class RecordingWriter:
    """
    Spells what comes as lines of a recording.
    """

    def __init__(self, write: Callable[[str], object], now: float) -> None:
        """
        Args:
            write: Receives each line, with its end.
            now: When the recording begins, in seconds.
        """
        self._write = write
        self._began = now
        self._last = now
        self._to_device = False
        self._begun = b""  # of a line that has not ended
        self._at = now
        write(f"{HEADER}\n")

    def comment(self, text: str) -> None:
        """
        Write a comment.
        """
        self._write(f"# {' '.join(text.split())}\n")

    def feed(self, to_device: bool, data: bytes, now: float) -> None:
        """
        Take what came.

        Args:
            to_device: See `Piece`.
            data: The bytes.
            now: Seconds.
        """
        self.expire(now)
        if to_device != self._to_device:
            self.flush()
            self._to_device = to_device
        self._last = now
        while data:
            if not self._begun:
                self._at = now
            end = min(data.find(b"\n") + 1 or len(data), LONGEST - len(self._begun))
            self._begun += data[:end]
            data = data[end:]
            if self._begun.endswith(b"\n") or len(self._begun) >= LONGEST:
                self.flush()

    def expire(self, now: float) -> None:
        """
        Write what has waited for `PAUSE` seconds.
        """
        if now - self._last >= PAUSE:
            self.flush()

    def flush(self) -> None:
        """
        Write what waits.
        """
        if self._begun:
            self._write(spell_piece(Piece(self._at - self._began, self._to_device, self._begun)) + "\n")
            self._begun = b""


def spell_piece(piece: Piece) -> str:
    """
    Return a piece as a line of a recording.
    """
    text = "".join(
        _SPELLED.get(byte) or (chr(byte) if 0x20 <= byte < 0x7F else f"\\x{byte:02x}") for byte in piece.data
    )
    return f'{piece.at:.3f} {">" if piece.to_device else "<"} "{text}"'


def is_recording(data: bytes) -> bool:
    """
    Return whether a file is a recording, by its beginning. Any other one has the bytes as the device sent them.
    """
    return data.startswith(HEADER.encode())


def parse_recording(text: str) -> Iterator[Piece]:
    """
    Read a recording. A time with a `+` counts from the line before; empty lines and comments (`#`) are skipped.

    Raises:
        UnreadableRecording: A line is wrong.
    """
    at = 0.0
    for number, line in enumerate(text.split("\n"), 1):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        match = _LINE.fullmatch(line)
        if match is None:
            raise UnreadableRecording(f'line {number}: expected such as 1.250 < "ID:20_TEMP:21.5\\r\\n"')
        added, seconds, direction, spelled = match.groups()
        when = float(seconds) + (at if added else 0)
        if when < at:
            raise UnreadableRecording(f"line {number}: {seconds} is before the time above; use +{seconds}?")
        at = when
        yield Piece(at, direction == ">", _unescape(spelled, number))


def _unescape(spelled: str, number: int) -> bytes:
    def replace(match: re.Match[bytes]) -> bytes:
        if match[1] is not None:
            return bytes.fromhex(match[1].decode())
        if match[2] not in _ESCAPED:
            raise UnreadableRecording(
                f"line {number}: \\{match[2].decode('utf-8', 'replace')} is none of \\r \\n \\t \\0 \\xHH"
            )
        return _ESCAPED[match[2]]

    return _ESCAPE.sub(replace, spelled.encode("utf-8", "surrogateescape"))


def sent_by_device(data: bytes) -> bytes:
    """
    Return what the device sent: that of a recording, or all of a file that is none.

    Raises:
        UnreadableRecording: See `parse_recording`.
    """
    if not is_recording(data):
        return data
    pieces = parse_recording(data.decode("utf-8", "surrogateescape"))
    return b"".join(piece.data for piece in pieces if not piece.to_device)
