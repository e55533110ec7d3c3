"""
Telnet's commands, taken out of what a client sends (protocol §3).
"""

from __future__ import annotations

import re

# IAC with 240-249; IAC with 251-254 and one more byte; or what may become one with the next chunk. Any other IAC
# stays: no UTF-8 has it, so its line is malformed.
_COMMAND = re.compile(rb"\xff(?:[\xf0-\xf9]|[\xfb-\xfe].|[\xfb-\xfe]?\Z)", re.DOTALL)


class TelnetFilter:
    """
    Takes telnet's commands out of a stream, wherever the chunks are cut.

    Nothing is answered: usbgate agrees to no option, so that no subnegotiation can come.
    """

    def __init__(self) -> None:
        self._held = b""

    def feed(self, data: bytes) -> bytes:
        """
        Take in a chunk and give out what is not telnet's.
        """
        data = self._held + data
        self._held = b""
        return _COMMAND.sub(self._take, data) if b"\xff" in data else data

    def _take(self, command: re.Match[bytes]) -> bytes:
        if len(command[0]) == 1 or (len(command[0]) == 2 and command[0][1] >= 0xFB):
            self._held = command[0]
        return b""
