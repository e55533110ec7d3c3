"""
How what a device sends is cut into frames: at line ends, or at silence (protocol §2).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from zope.interface import implementer

from usbgate.core.fieldline import LINE_LIMIT
from usbgate.core.linebuffer import DeviceLineBuffer
from usbgate.device.interfaces import IFraming

# Translates a byte to its lower 7 bits. A 7-bit device's 8th bit is the parity, which a tty removes. A pty ignores the
# setting, and a serial server on the network may send it.
SEVEN_BITS = bytes(byte & 0x7F for byte in range(256))


@implementer(IFraming)
class LineFraming(DeviceLineBuffer):
    """
    Frames are lines, which end at CR, LF or both; what stands before their first printable byte is dropped.
    """

    gap: float | None = None
    ends = b"\r\n"

    def __init__(self, starts: Sequence[bytes] = (), limit: int = LINE_LIMIT) -> None:
        """
        Args:
            starts: The possible beginnings of a line, by which the first one after an opening is known to be whole. If
                none is certain, the first line never counts; with `(b"",)` it always does.
            limit: The most bytes of a line.
        """
        super().__init__(limit)
        self.limit = limit
        self._starts = tuple(starts)

    def end(self) -> Sequence[bytes]:
        return self.feed(b"\n")

    def is_partial(self, frame: bytes) -> bool:
        return not frame.startswith(self._starts)


@implementer(IFraming)
class FramingBase(ABC):
    """
    The base of framings that are no lines: all but `feed`. Every frame counts, silence ends none.
    """

    gap: float | None = None
    ends = b""

    def __init__(self, limit: int) -> None:
        """
        Args:
            limit: The most bytes of a frame.
        """
        self.limit = limit
        self.rest = b""
        self.discarding = False
        self.noise = 0
        self.noise_frames = 0

    @abstractmethod
    def feed(self, data: bytes) -> Sequence[bytes]: ...

    def end(self) -> Sequence[bytes]:
        return ()

    def is_partial(self, frame: bytes) -> bool:
        return False

    def take_noise(self) -> tuple[int, int]:
        noise = self.noise, self.noise_frames
        self.noise = self.noise_frames = 0
        return noise


class SilenceFraming(FramingBase):
    """
    Frames are what comes between two silences, whatever it is. All of them count, for their dialect has a checksum.
    """

    def __init__(self, gap: float, limit: int) -> None:
        """
        Args:
            gap: Seconds of silence that end a frame.
            limit: The most bytes of a frame.
        """
        super().__init__(limit)
        self.gap = gap

    def feed(self, data: bytes) -> Sequence[bytes]:
        if self.discarding:
            return ()
        self.rest += data
        if len(self.rest) <= self.limit:
            return ()
        frame, self.rest = self.rest[: self.limit + 1], b""
        self.discarding = True
        return (frame,)

    def end(self) -> Sequence[bytes]:
        frame, self.rest = self.rest, b""
        self.discarding = False
        return (frame,)
