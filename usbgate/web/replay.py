"""
The newest events, numbered and kept for clients that reconnect.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Sequence, Set
from secrets import token_hex
from typing import NamedTuple

_ID = re.compile(r"([0-9a-f]{1,32})-([0-9]{1,18})")


class MissedEvents(NamedTuple):
    """
    What a client missed.

    Attributes:
        complete: Whether `frames` is all of it.
        lost: How many events came before `frames` that are no longer kept; None if that is not known.
        frames: The events, oldest first.
    """

    complete: bool = True
    lost: int | None = 0
    frames: Sequence[str] = ()


class ReplayBuffer:
    """
    Numbers events, and keeps the newest.

    An event's id is `RUN-NUMBER`. The run changes when events were not kept for a while, so that ids from before that
    are recognized.
    """

    def __init__(self, limit: int, run: str | None = None) -> None:
        """
        Args:
            limit: Characters of events to keep.
            run: The first run, in hexadecimal; by default random.
        """
        self._limit = limit
        self._run = run or token_hex(4)
        self._newest = 0  # the number of the newest event
        self._kept: deque[tuple[int, str | None, str]] = deque()
        self._size = 0

    @property
    def newest_id(self) -> str:
        """
        The id of the newest event; with the number 0 if there was none.
        """
        return f"{self._run}-{self._newest}"

    def add(self, sensor: str | None, text: str) -> str:
        """
        Number an event and keep it.

        Args:
            sensor: The sensor that it is about; None for none.
            text: The event without its id.

        Returns:
            The event as it is sent.
        """
        self._newest += 1
        frame = f"id: {self.newest_id}\n{text}"
        self._kept.append((self._newest, sensor, frame))
        self._size += len(frame)
        while self._size > self._limit:
            self._size -= len(self._kept.popleft()[2])
        return frame

    def missed(self, last_id: str, sensors: Set[str]) -> MissedEvents:
        """
        Return the events after one.

        Args:
            last_id: The id of the last event that the client has received; ignored if it is not an id.
            sensors: Leave out what is about other sensors; all events, if empty.
        """
        seen = _ID.fullmatch(last_id)
        if seen is None:
            return MissedEvents()
        run, number = seen[1], int(seen[2])
        if run != self._run or number > self._newest:
            return MissedEvents(False, None)
        first = self._kept[0][0] if self._kept else self._newest + 1
        # Nobody knows how many of those that are gone were about these sensors.
        lost = None if sensors else max(0, first - 1 - number)
        frames = [
            frame
            for each, about, frame in self._kept
            if each > number and (not sensors or about is None or about in sensors)
        ]
        return MissedEvents(number >= first - 1, lost, frames)

    def restart(self) -> None:
        """
        Forget all events, and begin another run.
        """
        self._kept.clear()
        self._size = 0
        self._run = token_hex(4)
