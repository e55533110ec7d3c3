"""
How much of what was written a board may not have read yet (protocol §4.2, a board's buffer).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from usbgate.core.model import Request

BUFFER = 63  # bytes by default: of the ring of 64 into which an Arduino receives, one stays free
READ_WITHIN = 2.0  # seconds: after them a board has read a message, or lost it


@dataclass(eq=False, slots=True)
class _Message:
    number: int
    until: float
    request: Request
    tag: str | None
    behind: bool
    size: int = 0  # 0 until it is needed


class BoardBuffer:
    """
    The messages to one board that still count.

    Attributes:
        limit: Bytes that they may have together; 0 for no limit, set by `opened`.
        messages: Those written within `READ_WITHIN` that nothing shows to have been read.
    """

    def __init__(self, size: Callable[[Request, str | None], int]) -> None:
        """
        Args:
            size: Returns the bytes of a message, with its line end. It is called only when more than one is to count.
        """
        self.limit = 0
        self._size = size
        self.messages: deque[_Message] = deque()
        self._written = 0

    def opened(self, limit: int) -> None:
        """
        Set the limit of the board that was opened.
        """
        self.limit = limit
        if not limit:
            self.messages.clear()

    def free_at(self, now: float) -> float | None:
        """
        Return when the oldest message stops counting, if nothing is answered before; None if none counts.
        """
        messages = self.messages
        while messages and messages[0].until <= now:
            messages.popleft()
        return messages[0].until if messages else None

    def add(self, request: Request, tag: str | None, behind: bool, now: float) -> int:
        """
        Count a message from now on.

        Args:
            request: What is written.
            tag: Its tag.
            behind: Whether its sensor does not answer.
            now: Monotonic seconds.

        Returns:
            A number for `answered`.
        """
        self._written += 1
        self.messages.append(_Message(self._written, now + READ_WITHIN, request, tag, behind))
        return self._written

    def answered(self, number: int) -> None:
        """
        Stop counting a message that was answered, and all earlier ones: a board reads in order.
        """
        while self.messages and self.messages[0].number <= number:
            self.messages.popleft()

    def fits(self, request: Request, tag: str | None, times: int = 1) -> bool:
        """
        Return whether there is room for another message so many times; if none counts, any may be written.
        """
        return self._bytes(False) + times * self._size(request, tag) <= self.limit

    def leaves_place(self, request: Request, tag: str | None) -> bool:
        """
        Return whether a message to a sensor that does not answer would leave a place for one to another sensor.

        A place is room for a message of the same size. If there is only one, it is not kept; but then no other message
        to a sensor that does not answer may count.
        """
        taken = self._bytes(True)
        return not taken or taken + 2 * self._size(request, tag) <= self.limit

    def _bytes(self, behind: bool) -> int:
        # All bytes that count, or those to sensors that do not answer.
        total = 0
        for message in self.messages:
            if message.behind or not behind:
                message.size = message.size or self._size(message.request, message.tag)
                total += message.size
        return total
