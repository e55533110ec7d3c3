"""
Telnet commands, removed from what a client sends (protocol §3).
"""

from __future__ import annotations

import re

# IAC with 240-249; IAC with 251-254 and one more byte; or what may become one of these with the next chunk. Any other
# IAC stays: UTF-8 never contains it, so its line is malformed.
_COMMAND = re.compile(rb"\xff(?:[\xf0-\xf9]|[\xfb-\xfe].|[\xfb-\xfe]?\Z)", re.DOTALL)


class TelnetFilter:
    """
    Removes Telnet commands from a stream, wherever the chunks are cut.

    There are no replies: usbgate agrees to no option, so there are no subnegotiations to remove.

    Attributes:
        unfinished: The beginning of a command, at most two bytes, kept for the next chunk.
    """

    def __init__(self) -> None:
        self.unfinished = b""

    def feed(self, data: bytes) -> bytes:
        """
        Return a chunk without Telnet commands.
        """
        data = self.unfinished + data
        self.unfinished = b""
        return _COMMAND.sub(self._remove, data) if b"\xff" in data else data

    def _remove(self, command: re.Match[bytes]) -> bytes:
        if len(command[0]) == 1 or (len(command[0]) == 2 and command[0][1] >= 0xFB):
            self.unfinished = command[0]
        return b""
