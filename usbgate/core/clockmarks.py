"""
Clock marks: recorded whenever the wall clock stepped, and what can be derived from them afterwards (protocol §5).

The marks of a gateway are stored among its rows and numbered with them. They divide the rows into stretches in which
the wall clock ran evenly with the time since the machine started. So all rows of a stretch are wrong by the same
amount, and any moment of the same boot at which the clock was right shows by how much.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import zip_longest
from math import inf
from typing import NamedTuple

from usbgate.core.model import ClockMark

STEP = 500.0  # ms; smaller corrections are made by slewing the clock, without a step


class Stamp(NamedTuple):
    """
    One reading of the clocks: see `IClock`.
    """

    at: int
    uptime: float
    trusted: bool


def _lead(at: int, uptime: float) -> float:
    # By how many milliseconds the wall clock is ahead of the time since the machine started.
    return at - uptime * 1000


class ClockWatch:
    """
    Decides when a mark is due: for the first row, and when the wall clock stepped or became right or wrong.
    """

    def __init__(self, boot: Callable[[], str]) -> None:
        """
        Args:
            boot: See `IClock.boot`.
        """
        self._boot = boot
        self._marked = -inf
        self._trusted = False

    def due(self, stamp: Stamp) -> ClockMark | None:
        """
        Return the mark that is to be stored before rows with this stamp; None if the last one still applies.
        """
        at, uptime, trusted = stamp
        if abs(_lead(at, uptime) - self._marked) <= STEP and trusted == self._trusted:
            return None
        return ClockMark(at, uptime, self._boot(), trusted)

    def stored(self, mark: ClockMark) -> None:
        """
        Record that a mark was stored.
        """
        self._marked = _lead(mark.at, mark.uptime)
        self._trusted = mark.clock


class Stretch(NamedTuple):
    """
    Rows that were stamped while the clock was not known to be right.

    Attributes:
        first: The number of the mark before them.
        last: The last number before the next mark; None if there is none.
        shift: Milliseconds by which they are behind; None if that cannot be derived.
    """

    first: int
    last: int | None
    shift: int | None


def plan(marks: Sequence[tuple[int, ClockMark]]) -> list[Stretch]:
    """
    Find the stretches to correct, and their corrections.

    Of several moments of the same boot at which the clock was right, the nearest counts, since clocks drift.

    Args:
        marks: All marks of one gateway, with their numbers, in order.
    """
    right: dict[str, list[ClockMark]] = {}
    for _, mark in marks:
        if mark.clock:
            right.setdefault(mark.boot, []).append(mark)
    return [
        Stretch(seq, following and following[0] - 1, _shift(mark, right.get(mark.boot, ())))
        for (seq, mark), following in zip_longest(marks, marks[1:])
        if not mark.clock
    ]


def _shift(wrong: ClockMark, right: Sequence[ClockMark]) -> int | None:
    if not right:
        return None
    nearest = min(right, key=lambda mark: abs(mark.uptime - wrong.uptime))
    return round(_lead(nearest.at, nearest.uptime) - _lead(wrong.at, wrong.uptime))
