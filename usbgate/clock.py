"""
The one source of time (`IClock`): the system's clocks, and whether the wall clock can be right.
"""

from __future__ import annotations

import ctypes
import time

from zope.interface import implementer

from usbgate.interfaces import IClock

# Before this release was made no clock can be right: 2026-11-01, whole milliseconds since 1970.
RELEASED = 1_793_491_200_000

TRUST_KEPT = 1.0  # seconds: asking the kernel costs more than reading a line, and NTP takes longer to change its mind

_TIME_ERROR = 5  # adjtimex(2): "the system clock is not synchronized"


class _Timex(ctypes.Structure):
    # struct timex of adjtimex(2) begins with `modes`, of which 0 only reads; the rest is room for the answer.
    _fields_ = (("modes", ctypes.c_uint), ("rest", ctypes.c_ubyte * 252))


def _synchronised() -> bool:
    adjtimex = getattr(ctypes.CDLL(None), "adjtimex", None)
    if adjtimex is None:  # not Linux: nobody to ask
        return True
    return int(adjtimex(ctypes.byref(_Timex()))) not in (_TIME_ERROR, -1)


@implementer(IClock)
class SystemClock:
    """
    `time.time`, `time.monotonic`, and adjtimex(2).
    """

    def __init__(self) -> None:
        self._trusted = False
        self._asked = float("-inf")

    def wall(self) -> int:
        """
        Tell the wall clock (see `IClock.wall`).
        """
        return time.time_ns() // 1_000_000

    def monotonic(self) -> float:
        """
        Tell seconds that never step (see `IClock.monotonic`).
        """
        return time.monotonic()

    def trusted(self) -> bool:
        """
        Tell whether the wall clock can be right (see `IClock.trusted`); the kernel is asked once a second at most.
        """
        now = time.monotonic()
        if now - self._asked >= TRUST_KEPT:
            self._asked = now
            self._trusted = self.wall() >= RELEASED and _synchronised()
        return self._trusted
