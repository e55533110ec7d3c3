"""
Twisted's LineReceiver on a `LineBuffer`: the base of the device's and the clients' protocol.
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
    A LineReceiver that accepts both LF and CRLF, delivers whole chunks, and survives an over-long line.

    Twisted's own runs Python code for each line, and with `lineLengthExceeded` overridden it loses the good lines
    behind an over-long one in the same chunk and can deliver its tail as a line. The interface is the same: `delimiter`
    (for sending), `MAX_LENGTH`, `sendLine`, `lineReceived`, `lineLengthExceeded`, pausing. There is no raw mode.

    Attributes:
        lines_at_once: The most lines that one call of `linesReceived` delivers; the others wait for the next call.
        buffer: Holds the unfinished line.
        waiting: Complete lines that were not delivered yet.
    """

    delimiter = b"\n"
    MAX_LENGTH = LINE_LIMIT
    lines_at_once = sys.maxsize

    def __init__(self) -> None:
        self.buffer = LineBuffer(self.MAX_LENGTH)
        self.waiting: deque[bytes] = deque()
        self._delivering = False

    def dataReceived(self, data: bytes) -> None:
        """
        Cut a chunk into lines. `resumeProducing` calls this, too, with no data.
        """
        self.linesReceived(self.buffer.feed(data))

    def linesReceived(self, lines: Sequence[bytes]) -> None:
        """
        Deliver lines one by one, until paused or after `loseConnection`. While paused, the others wait for the next
        call; after `loseConnection` they are discarded.

        Override this to get all lines of a chunk in one call. It is called once for each chunk, even if the chunk
        completes no line; an over-long line is longer than `MAX_LENGTH`.

        Args:
            lines: Lines in order without their ends, perhaps none.
        """
        self.waiting.extend(lines)
        if self._delivering:  # `lineReceived` paused and resumed us
            return
        self._delivering = True
        try:
            for _ in range(self.lines_at_once):
                if not self.waiting or self.paused:
                    return
                if getattr(self.transport, "disconnecting", False):
                    self.waiting.clear()
                    return
                line = self.waiting.popleft()
                if len(line) > self.MAX_LENGTH:
                    self.lineLengthExceeded(line)
                else:
                    self.lineReceived(line)
        finally:
            self._delivering = False
