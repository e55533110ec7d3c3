"""
What becomes of a line whose end does not come: it ends after a gap, or is logged (protocol §2).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from twisted.internet.interfaces import IDelayedCall, IReactorTime

# Seconds that a line may wait for its end before it is logged.
UNENDED_LIMIT = 5.0

# The same for a line of so many bytes, more than nearly any line has. At 9600 baud the longest line takes 1.1 s.
LONG = 200
LONG_LIMIT = 2.0


class Input(Protocol):
    """
    What is read of the device.

    Attributes:
        paused: Whether reading is paused.
    """

    paused: bool


class UnendedLine:
    """
    Watches the line that one opening of a device has begun and not ended.

    Data does not move the timer: when it is due, it checks when the last data came.

    Attributes:
        waiting: Whether a line waits for its end. Set it to False when none does; `line_unended` sets it to True.
    """

    def __init__(
        self,
        reactor: IReactorTime,
        input: Input,
        gap: float | None,
        *,
        size: Callable[[], int],
        end: Callable[[], None],
        warn: Callable[[], None],
    ) -> None:
        """
        Args:
            reactor: For time.
            input: Where the data comes from.
            gap: Seconds of quiet that end a line; None if only a line end does.
            size: Returns how many bytes of the line have come.
            end: Called where the gap ends the line.
            warn: Called once, if there is no gap, when a line has waited too long for its end: `UNENDED_LIMIT` seconds,
                or `LONG_LIMIT` with `LONG` bytes.
        """
        self._reactor = reactor
        self._input = input
        self._gap = gap
        self._size = size
        self._end = end
        self._warn = warn
        self._wait = LONG_LIMIT if gap is None else gap  # seconds before the first look
        self.waiting = False
        self._since = 0.0  # since when it waits: from its beginning, or where there is a gap, from its last data
        self._looked = False  # whether the device was read once more after the gap
        self._warned = False
        self._timer: IDelayedCall | None = None

    def line_unended(self, ended: bool) -> None:
        """
        Record a chunk behind which a line has begun and not ended.

        Args:
            ended: Whether the chunk ended another line.
        """
        if ended or not self.waiting or self._gap is not None:
            self._since = self._reactor.seconds()
        self.waiting = True
        self._looked = False
        if self._timer is None and not self._warned:
            self._timer = self._reactor.callLater(self._wait, self._check)

    def stop(self) -> None:
        """
        Stop watching; the device is closed.
        """
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _check(self) -> None:
        self._timer = None
        if not self.waiting:
            return
        now = self._reactor.seconds()
        if self._input.paused:
            self._since = now  # its end may wait to be read
        wait = UNENDED_LIMIT if self._gap is None and self._size() < LONG else self._wait
        left = self._since + wait - now
        if left > 0:
            self._timer = self._reactor.callLater(left, self._check)
        elif self._gap is None:
            self._warned = True
            self._warn()
        elif not self._looked:
            # The reactor may have been busy, with the rest of the line waiting: it reads before it calls this again.
            self._looked = True
            self._timer = self._reactor.callLater(0, self._check)
        else:
            self._end()
