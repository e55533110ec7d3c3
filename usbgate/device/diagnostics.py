"""
Logging a device's own text, and warning of a wrong baud rate or dialect, and of lines without an end.
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

# At the usual wrong baud rates hardly a line end is received, and at most of them none. So this many bytes since the
# last report are judged, too: more than nearly any line has, and few enough, since at 9,600 baud only 2 bytes are
# received of a line sent at 115,200.
GARBLED_BYTES = 256


class Diagnostics:
    """
    The log lines about what one device sends, limited in number.

    Attributes:
        garbage: Bytes of malformed lines, and dropped ones, since the last report.
    """

    log = Logger()

    def __init__(self, device: str, seconds: Callable[[], float], gap: float | None = None) -> None:
        """
        Args:
            device: The device's name.
            seconds: Returns the monotonic time.
            gap: Seconds of quiet that end a line; None if only a line end does.
        """
        self._device = device
        self._seconds = seconds
        self._text_since = float("-inf")
        self._text_lines = 0
        self._judged = (0, 0)  # lines and malformed ones, at the last judgement
        self._span = (0, 0)  # bytes of malformed lines, and dropped ones, since then; how many of these are no text
        self.garbage = 0
        self._unreadable = 0  # how many of these are no text
        self._garbled = False
        self._warned_at = float("-inf")
        self._gap_recommended = gap is not None
        self._failed: set[str] = set()  # what the dialect does that has failed

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

    def dialect_failed(self, doing: str, about: bytes | str) -> None:
        """
        Log the exception that a dialect has just raised; of each thing that it does only the first one, for it may
        fail each second.

        Args:
            doing: What it does: `decode`, `encode` or `greet`.
            about: A frame, a request, or the path of the device.
        """
        if doing not in self._failed:
            self._failed.add(doing)
            self.log.failure(
                "{device}: the dialect cannot {doing} {about!r}", device=self._device, doing=doing, about=about
            )

    def log_notices(self, notices: list[str]) -> None:
        """
        Log what the dialect noticed, and clear the list.
        """
        for notice in notices:
            self.log.warn("{device}: {notice}", device=self._device, notice=notice)
        notices.clear()

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
        size, unreadable = self._span
        self._span = (0, 0)
        # Once, and again only after good lines in between and some time.
        now = self._seconds()
        if new_malformed > new // 2 and not self._garbled and now - self._warned_at >= GARBLED_INTERVAL:
            self._garbled, self._warned_at = True, now
            self.log.warn(
                "{device}: {malformed} of {lines} lines malformed: {remedy}",
                remedy="check the baud rate" if _is_garbled(unreadable, size) else "they are text; another dialect?",
                device=self._device,
                malformed=new_malformed,
                lines=new,
            )
        elif new_malformed <= new // 10:
            self._garbled = False

    def garbage_received(self, line: bytes, dropped: int = 0) -> None:
        """
        Record a malformed line, or dropped bytes; none of these is text.
        """
        self.garbage += len(line) + dropped
        if not self._garbled:
            unreadable = _count_unreadable(line) + dropped
            self._unreadable += unreadable
            self._span = (self._span[0] + len(line) + dropped, self._span[1] + unreadable)

    def report_received(self) -> None:
        """
        Record that a line was read: the speed is right.
        """
        self.garbage = self._unreadable = 0

    def check_garbage(self, rest: bytes, lines_in: int, malformed: int) -> None:
        """
        Warn if many bytes since the last report are no text; does nothing before there are `GARBLED_BYTES`.

        Args:
            rest: The beginning of a line that has not ended.
            lines_in: All lines read so far.
            malformed: The malformed ones of them.
        """
        count = self.garbage + len(rest)
        if count < GARBLED_BYTES:
            return
        unreadable = 0 if self._garbled else self._unreadable + _count_unreadable(rest)
        if _is_garbled(unreadable, count):
            self._garbled = True
            self._judged = (lines_in, malformed)  # the good lines before do not end it
            self.log.warn(
                "{device}: {count} bytes without a line that can be read, {unreadable} of them not text:"
                " check the baud rate",
                device=self._device,
                count=count,
                unreadable=unreadable,
            )
        if self.garbage >= GARBLED_BYTES:  # judged: begin anew
            self.garbage = self._unreadable = 0

    def recommend_gap(self, line: bytes) -> None:
        """
        Log how to read a board whose line ends do not come, once.

        Args:
            line: A line that has waited too long for its end, or is too long; nothing is logged if it is no text.
        """
        if not self._gap_recommended and not self._garbled and not _is_garbled(_count_unreadable(line), len(line)):
            self._gap_recommended = True
            self.log.warn(
                "{device}: {count} bytes without a line end: if the board sends the line end before each line, or"
                ' never, set gap = "250ms" in its table',
                device=self._device,
                count=len(line),
            )


def _count_unreadable(line: bytes) -> int:
    # A tab between columns is text, though not in a field line.
    return count_unreadable(line.replace(b"\t", b" "))


def _is_garbled(unreadable: int, count: int) -> bool:
    # At a wrong baud rate a quarter or more is unreadable; in text it may be a degree sign in another encoding.
    return unreadable > count // 8
