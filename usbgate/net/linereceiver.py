"""
Twisted's LineReceiver on a `LineBuffer`: what the device's and the clients' protocol have in common.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Sequence

from twisted.protocols.basic import LineReceiver

from usbgate.core.fieldline import LINE_LIMIT
from usbgate.core.linebuffer import LineBuffer


class BoundedLineReceiver(LineReceiver):
    """
    A LineReceiver that reads LF and CRLF alike, takes whole chunks, and survives an over-long line.

    The stock one calls Python once a line, and with `lineLengthExceeded` overridden it loses the good lines
    behind an over-long one in the same chunk and can deliver its tail as a line. Its face is kept: `delimiter`
    (for sending), `MAX_LENGTH`, `sendLine`, `lineReceived`, `lineLengthExceeded`, pausing. Raw mode is not.

    Attributes:
        lines_at_once: How many lines are handed on in one call of `linesReceived`; more wait for the next.
    """

    delimiter = b"\n"
    MAX_LENGTH = LINE_LIMIT
    lines_at_once = sys.maxsize

    def __init__(self) -> None:
        self.buffer = LineBuffer(self.MAX_LENGTH)
        self._waiting: deque[bytes] = deque()
        self._delivering = False

    def dataReceived(self, data: bytes) -> None:
        """
        Cut a chunk into lines; also called by `resumeProducing`, with nothing.
        """
        self.linesReceived(self.buffer.feed(data))

    def linesReceived(self, lines: Sequence[bytes]) -> None:
        """
        Hand lines on one by one while not paused, and keep the others until called again; none once we hang up.

        Override it to take all lines of a chunk in one call; over-long ones are longer than `MAX_LENGTH`.

        Args:
            lines: Lines in order without their ends, perhaps none.
        """
        self._waiting.extend(lines)
        if self._delivering:  # a line paused and resumed us while it was handed on
            return
        self._delivering = True
        try:
            for _ in range(self.lines_at_once):
                if not self._waiting or self.paused:
                    return
                if getattr(self.transport, "disconnecting", False):
                    self._waiting.clear()
                    return
                line = self._waiting.popleft()
                if len(line) > self.MAX_LENGTH:
                    self.lineLengthExceeded(line)
                else:
                    self.lineReceived(line)
        finally:
            self._delivering = False
