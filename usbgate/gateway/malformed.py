"""
Malformed lines: counted by reason, the last of them kept, and logged at a bounded rate.
"""

from __future__ import annotations

from collections import Counter, deque

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from usbgate.core.clock import IClock
from usbgate.core.loglimit import LogLimit
from usbgate.gateway.interfaces import MalformedLine

KEPT = 100  # protocol §1

# Reasons that are counted, protocol §1. usbgate's own are 60; a dialect can be anybody's, and put the line into them.
REASONS_LIMIT = 200
OTHERS = "other reasons"


class MalformedLines:
    """
    The malformed lines of all devices and clients.

    Attributes:
        reasons: How many there were, by reason.
        kept: The last of them, oldest first.
    """

    log = Logger()

    def __init__(self, reactor: IReactorTime, clock: IClock) -> None:
        self.reasons: Counter[str] = Counter()
        self.kept: deque[MalformedLine] = deque(maxlen=KEPT)
        self._reactor = reactor
        self._clock = clock
        self._log_limit = LogLimit()

    def add(self, source: str, line: bytes, reason: str) -> None:
        """
        Record a line.

        Args:
            source: The device's name, or the client's address.
            line: The line, at most a little longer than `LINE_LIMIT`.
            reason: A fixed phrase, by which it is counted; what follows a colon is left out.
        """
        reason = reason.partition(":")[0]
        self.reasons[reason if reason in self.reasons or len(self.reasons) < REASONS_LIMIT else OTHERS] += 1
        self.kept.append(MalformedLine(self._clock.wall(), source, reason, line))
        count = self._log_limit.add(self._reactor.seconds())
        if count:
            self.log.warn(
                "{count} malformed or damaged line(s), the last from {source}: {reason}",
                count=count,
                source=source,
                reason=reason,
            )
