"""
Logging a device's own text, and warning of a wrong baud rate.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.logger import Logger

from usbgate.core.fieldline import count_unreadable

# The firmware's own text: the maximum number of lines logged in a number of seconds (the others are counted), and of
# characters of each. A board that never stops then writes about 8 MB of log a day, which wears no flash out.
TEXT_LINES = 20
TEXT_SPAN = 60.0
TEXT_LENGTH = 200

# Lines that are judged together: if most of them are malformed, the baud rate is wrong. Interference never garbles
# that many.
GARBLED_SPAN = 20
GARBLED_INTERVAL = 60.0  # seconds between two warnings, if the trouble comes and goes

# At the usual wrong baud rates hardly a CRLF is received, and at most of them no LF. So this many bytes without a line
# end are judged, too: more than nearly any line has, and few enough, since at 9,600 baud only 2 bytes are received of
# a line sent at 115,200.
GARBLED_BYTES = 256


class Diagnostics:
    """
    The log lines about what one device sends, limited in number.
    """

    log = Logger()

    def __init__(self, device: str, seconds: Callable[[], float]) -> None:
        """
        Args:
            device: The device's name.
            seconds: Returns the monotonic time.
        """
        self._device = device
        self._seconds = seconds
        self._text_since = float("-inf")
        self._text_lines = 0
        self._judged = (0, 0)  # lines and malformed ones, at the last judgement
        self._garbled = False
        self._warned_at = float("-inf")

    def log_text(self, text: str) -> None:
        """
        Log a line of the firmware's own text.
        """
        now = self._seconds()
        if now - self._text_since >= TEXT_SPAN:
            if self._text_lines > TEXT_LINES:
                count = self._text_lines - TEXT_LINES
                self.log.info("{count} more lines of text from {device} not logged", device=self._device, count=count)
            self._text_since, self._text_lines = now, 0
        self._text_lines += 1
        if self._text_lines <= TEXT_LINES:
            # Quoted, so that a device can't send control sequences to the terminal that shows the log.
            shown = text if len(text) <= TEXT_LENGTH else text[: TEXT_LENGTH - 1] + "…"
            self.log.info("text from {device}: {text!r}", device=self._device, text=shown)

    def check_lines(self, lines_in: int, malformed: int) -> None:
        """
        Warn if most lines since the last check are malformed; does nothing before there are `GARBLED_SPAN` of them.

        Args:
            lines_in: All lines read so far.
            malformed: The malformed ones of them.
        """
        new, new_malformed = lines_in - self._judged[0], malformed - self._judged[1]
        if new < GARBLED_SPAN:
            return
        self._judged = (lines_in, malformed)
        # Once, and again only after good lines in between and some time.
        now = self._seconds()
        if new_malformed > new // 2 and not self._garbled and now - self._warned_at >= GARBLED_INTERVAL:
            self._garbled, self._warned_at = True, now
            self.log.warn(
                "{device}: {malformed} of {lines} lines malformed: check the baud rate",
                device=self._device,
                malformed=new_malformed,
                lines=new,
            )
        elif new_malformed <= new // 10:
            self._garbled = False

    def check_unended(self, line: bytes) -> None:
        """
        Warn if a long line without an end contains many bytes that are not text.

        Args:
            line: The beginning of the line, `GARBLED_BYTES` or more.
        """
        # At a wrong baud rate a quarter or more is unreadable. In text it may be the CR of a device that ends its lines
        # in that.
        unreadable = 0 if self._garbled else count_unreadable(line)
        if unreadable > len(line) // 8:
            self._garbled = True
            self.log.warn(
                "{device}: {count} bytes without a line end, {unreadable} of them not text: check the baud rate",
                device=self._device,
                count=len(line),
                unreadable=unreadable,
            )
