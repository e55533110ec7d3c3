"""
What the log says of a device's lines: its firmware's own text, and that its baud rate seems to be wrong.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.logger import Logger

from usbgate.core.fieldline import count_unreadable

# The firmware's own text: so many lines of it are logged in so many seconds, the others counted, and of each so many
# characters. A board that never stops then fills some 8 MB of log a day, and no flash for a year.
TEXT_LINES = 20
TEXT_SPAN = 60.0
TEXT_LENGTH = 200

# So many lines are looked at together: if most of them are malformed, the speed is wrong; noise alone is never that
# much.
GARBLED_SPAN = 20
GARBLED_INTERVAL = 60.0  # seconds between two times that it is said, if it comes and goes

# But at the usual wrong speeds hardly a CRLF comes through, and at most of them no LF. So this many bytes without a
# line end are looked at, too: more than nearly any line has, and few, for of a line at 115,200 baud 9,600 hear only 2.
GARBLED_BYTES = 256


class Diagnostics:
    """
    Says so much of one device, and no more.
    """

    log = Logger()

    def __init__(self, device: str, seconds: Callable[[], float]) -> None:
        """
        Begin with nothing said.

        Args:
            device: Its name.
            seconds: Tells the monotonic time.
        """
        self._device = device
        self._seconds = seconds
        self._text_since = float("-inf")
        self._text_lines = 0
        self._looked_at = (0, 0)  # lines and malformed ones, when it was last looked at
        self._garbled = False
        self._garbled_told_at = float("-inf")

    def text(self, text: str) -> None:
        """
        Say what the firmware says.
        """
        now = self._seconds()
        if now - self._text_since >= TEXT_SPAN:
            if self._text_lines > TEXT_LINES:
                unsaid = self._text_lines - TEXT_LINES
                self.log.info("{device} said {count} lines more", device=self._device, count=unsaid)
            self._text_since, self._text_lines = now, 0
        self._text_lines += 1
        if self._text_lines <= TEXT_LINES:
            # Quoted: a device must not colour the terminal that shows the log.
            shown = text if len(text) <= TEXT_LENGTH else text[: TEXT_LENGTH - 1] + "…"
            self.log.info("{device} says {text!r}", device=self._device, text=shown)

    def look(self, lines_in: int, malformed_in: int) -> None:
        """
        Look how many lines are malformed, if enough came since the last time.

        Args:
            lines_in: Lines read until now.
            malformed_in: Those that could not be read.
        """
        lines, malformed = lines_in - self._looked_at[0], malformed_in - self._looked_at[1]
        if lines < GARBLED_SPAN:
            return
        self._looked_at = (lines_in, malformed_in)
        # Said once, and again only when it had become better in between, and then some time later.
        now = self._seconds()
        if malformed > lines // 2 and not self._garbled and now - self._garbled_told_at >= GARBLED_INTERVAL:
            self._garbled, self._garbled_told_at = True, now
            self.log.warn(
                "{device}: {malformed} of {lines} lines malformed: check the baud rate",
                device=self._device,
                malformed=malformed,
                lines=lines,
            )
        elif malformed <= lines // 10:
            self._garbled = False

    def unended(self, line: bytes) -> None:
        """
        Look at the beginning of a line that is long already, and not ended.
        """
        # At a wrong speed it is a quarter and more; of text it may be the CR of a device that ends its lines in that.
        unreadable = 0 if self._garbled else count_unreadable(line)
        if unreadable > len(line) // 8:
            self._garbled = True
            self.log.warn(
                "{device}: {count} bytes without a line end, {unreadable} of them no text: check the baud rate",
                device=self._device,
                count=len(line),
                unreadable=unreadable,
            )
