"""
A board that sends what another one has sent: a recording, or plain bytes. It ignores what it receives.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from usbgate.core.recording import UnreadableRecording, is_recording, parse_recording

BYTES_PER_SECOND = 960  # of plain bytes, as at 9600 baud
CHUNK = 32  # bytes that are sent at a time

REST = 1.0  # seconds from the last piece to the first one of the next round

# Pieces returned by one call: after a clock has jumped ahead, nobody wants them all.
_BURST = 10_000


class TimedBytes(NamedTuple):
    """
    Bytes that are sent together.

    Attributes:
        at: When, in seconds since the board was switched on.
        data: The bytes.
    """

    at: float
    data: bytes


def read_script(data: bytes) -> list[TimedBytes]:
    """
    Read a file: a recording, of which the device's bytes are sent at their times, or else the bytes themselves.

    Raises:
        UnreadableRecording: A line of a recording is wrong, or there is nothing to send.
    """
    if is_recording(data):
        pieces = parse_recording(data.decode("utf-8", "surrogateescape"))
        script = [TimedBytes(piece.at, piece.data) for piece in pieces if not piece.to_device and piece.data]
    else:
        script = [
            TimedBytes(start / BYTES_PER_SECOND, data[start : start + CHUNK]) for start in range(0, len(data), CHUNK)
        ]
    if not script:
        raise UnreadableRecording("there is nothing to send")
    return script


class Replay:
    """
    A board whose time the caller moves, as in `usbgate.simulator.home.Home`.
    """

    def __init__(self, script: Iterable[TimedBytes], *, speed: float = 1.0, loop: bool = False) -> None:
        """
        Args:
            script: What is sent, in order; at least one piece.
            speed: How many times faster than the script.
            loop: Whether to begin again, `REST` seconds after the end.
        """
        self._script: Sequence[TimedBytes] = list(script)
        self._speed = speed
        self._loop = loop
        self._next = 0
        self._began = math.inf

    @property
    def next_due(self) -> float:
        """
        When the next piece is due, in seconds; infinity if none is.
        """
        if self._next == len(self._script):
            return math.inf
        return self._began + self._script[self._next].at / self._speed

    def power_on(self, now: float) -> None:
        """
        Begin.

        Args:
            now: Seconds, on the same clock as in all other calls.
        """
        self._began = now

    def receive(self, line: bytes, now: float) -> None:
        """
        Ignore a line.
        """

    def due(self, now: float) -> list[bytes]:
        """
        Return the pieces that are due, in order, each once.

        Args:
            now: Seconds.
        """
        pieces: list[bytes] = []
        while self.next_due <= now and len(pieces) < _BURST:
            pieces.append(self._script[self._next].data)
            self._next += 1
            if self._next == len(self._script) and self._loop:
                self._next = 0
                self._began += (self._script[-1].at + REST) / self._speed
        return pieces
