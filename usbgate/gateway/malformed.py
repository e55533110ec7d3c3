"""
What could not be read: counted by reason, the last of it kept, and said in the log at a bounded rate.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping

from twisted.logger import Logger

from usbgate.core.clock import IClock
from usbgate.core.fieldline import format_time, plain_text

KEPT = 100  # protocol §1
SAY_EVERY = 60.0  # seconds: enough to see that it goes on, too little to fill a disk


class MalformedLines:
    """
    The malformed lines of all devices and clients.
    """

    log = Logger()

    def __init__(self, clock: IClock) -> None:
        self.reasons: Counter[str] = Counter()
        self._clock = clock
        self._kept: deque[tuple[int, str, str, bytes]] = deque(maxlen=KEPT)
        self._said = float("-inf")
        self._since_said = 0

    def add(self, source: str, line: bytes, reason: str) -> None:
        """
        Record a line.

        Args:
            source: The device's name, or who the client is.
            line: The line, at most a little longer than `LINE_LIMIT`.
            reason: A fixed phrase, by which it is counted; what follows a colon is left out.
        """
        reason = reason.partition(":")[0]
        self.reasons[reason] += 1
        self._kept.append((self._clock.wall(), source, reason, line))
        self._since_said += 1
        now = self._clock.monotonic()
        if now - self._said >= SAY_EVERY:
            self.log.warn(
                "{count} malformed line(s), the last from {source}: {reason}",
                count=self._since_said,
                source=source,
                reason=reason,
            )
            self._said = now
            self._since_said = 0

    def lines(self) -> list[Mapping[str, str]]:
        """
        Return what is kept, oldest first, each as the fields of one line.
        """
        return [
            {
                "AT": format_time(at),
                "FROM": source,
                "REASON": reason,
                "TEXT": plain_text(line.decode("utf-8", "backslashreplace")),
            }
            for at, source, reason, line in self._kept
        ]
