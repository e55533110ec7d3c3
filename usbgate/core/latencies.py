"""
How long devices take to answer.
"""

from __future__ import annotations

from bisect import bisect_left
from itertools import accumulate
from math import inf

# Seconds: a device on the same desk answers in a few ms, a radio or a motor in seconds, and `timeout` is 10 s.
BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class LatencyHistogram:
    """
    Counts answers by how long they took.

    Attributes:
        sum: The total, in seconds.
    """

    def __init__(self) -> None:
        self.sum = 0.0
        self._counts = [0] * (len(BOUNDS) + 1)

    def add(self, seconds: float) -> None:
        """
        Count one.
        """
        self.sum += seconds
        self._counts[bisect_left(BOUNDS, seconds)] += 1

    def cumulated(self) -> list[tuple[float, int]]:
        """
        Return (seconds, how many answers took at most that long), ascending; the last bound is infinity.
        """
        return list(zip((*BOUNDS, inf), accumulate(self._counts), strict=True))
