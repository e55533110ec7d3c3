"""
The one source of time (`IClock`): the system's clocks, and whether the wall clock can be right.
"""

from __future__ import annotations

import ctypes
import time
from uuid import uuid4

from zope.interface import implementer

from usbgate.core.clock import IClock

# Before this release was made no clock can be right: 2026-11-01, whole milliseconds since 1970.
RELEASED = 1_793_491_200_000

TRUST_KEPT = 1.0  # seconds: asking the kernel costs more than reading a line, and NTP takes longer to change its mind

STEP = 0.5  # seconds: a wall clock that moved so far beside the other one was set, so that the kernel is asked anew

# Asleep or awake, so that what a laptop slept through is no step.
_SINCE_START = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
BOOT_ID = "/proc/sys/kernel/random/boot_id"

_TIME_ERROR = 5  # adjtimex(2): "the system clock is not synchronized"


class _Timex(ctypes.Structure):
    # struct timex of adjtimex(2) begins with `modes`, of which 0 only reads; the rest is room for the answer.
    _fields_ = (("modes", ctypes.c_uint), ("rest", ctypes.c_ubyte * 252))


def is_synchronised() -> bool:
    """
    Return whether the kernel calls the wall clock synchronized (adjtimex(2)); True where it cannot be asked.
    """
    adjtimex = getattr(ctypes.CDLL(None), "adjtimex", None)
    if adjtimex is None:
        return True
    return int(adjtimex(ctypes.byref(_Timex()))) not in (_TIME_ERROR, -1)


@implementer(IClock)
class SystemClock:
    """
    `time.time`, `time.monotonic`, the kernel's own clock and name of its start, and adjtimex(2).
    """

    def __init__(self) -> None:
        self._trusted = False
        self._asked = float("-inf")
        self._lead = 0.0
        self._boot = ""

    def wall(self) -> int:
        """
        Return the wall clock (see `IClock.wall`).
        """
        return time.time_ns() // 1_000_000

    def uptime(self) -> float:
        """
        Tell seconds since the machine started (see `IClock.uptime`).
        """
        return time.clock_gettime(_SINCE_START)

    def boot(self) -> str:
        """
        Return which start of the machine that was (see `IClock.boot`); where nobody tells, each process is one.
        """
        if not self._boot:
            try:
                with open(BOOT_ID) as told:
                    self._boot = told.read().strip()
            except OSError:
                pass
            self._boot = self._boot or str(uuid4())
        return self._boot

    def trusted(self) -> bool:
        """
        Return whether the wall clock can be right; the kernel is asked at most once a second, and
        when the wall clock has stepped.
        """
        now, wall = time.monotonic(), self.wall()
        lead = wall / 1000 - now
        if now - self._asked >= TRUST_KEPT or abs(lead - self._lead) > STEP:
            self._asked, self._lead = now, lead
            self._trusted = wall >= RELEASED and is_synchronised()
        return self._trusted
