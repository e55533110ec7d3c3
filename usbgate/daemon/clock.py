"""
The system's wall clock, and whether it can be right (`IClock`).
"""

from __future__ import annotations

import ctypes
import time
from uuid import uuid4

from zope.interface import implementer

from usbgate.core.clock import IClock

# No clock that shows a time before this release is right: 2026-11-01, in milliseconds since 1970.
RELEASED = 1_793_491_200_000

TRUST_KEPT = 1.0  # seconds between two questions to the kernel, each of which costs more than reading a line

STEP = 0.5  # seconds by which the wall clock moves against the monotonic one if somebody has set it

# It also counts the time that a laptop sleeps.
_SINCE_BOOT = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
BOOT_ID = "/proc/sys/kernel/random/boot_id"

_TIME_ERROR = 5  # adjtimex(2): "the system clock is not synchronized"


class _Timex(ctypes.Structure):
    # struct timex of adjtimex(2) begins with `modes`, 0 for a query; the rest is room for the answer.
    _fields_ = (("modes", ctypes.c_uint), ("rest", ctypes.c_ubyte * 252))


# Loaded once: each `CDLL` is a class of its own, which only the garbage collector frees.
_LIBC = ctypes.CDLL(None)


def is_synchronised() -> bool:
    """
    Return whether the kernel calls the wall clock synchronized (adjtimex(2)); True if it cannot be asked.
    """
    adjtimex = getattr(_LIBC, "adjtimex", None)
    if adjtimex is None:
        return True
    return int(adjtimex(ctypes.byref(_Timex()))) not in (_TIME_ERROR, -1)


@implementer(IClock)
class SystemClock:
    """
    The clocks of Python, the boot id of Linux, and adjtimex(2).
    """

    def __init__(self) -> None:
        self._trusted = False
        self._asked = float("-inf")
        self._lead = 0.0
        self._boot = ""

    def wall(self) -> int:
        return time.time_ns() // 1_000_000

    def uptime(self) -> float:
        return time.clock_gettime(_SINCE_BOOT)

    def boot(self) -> str:
        # Without a boot id, each process counts as a boot of its own.
        if not self._boot:
            try:
                with open(BOOT_ID) as file:
                    self._boot = file.read().strip()
            except OSError:
                pass
            self._boot = self._boot or str(uuid4())
        return self._boot

    def trusted(self) -> bool:
        # The kernel is asked at most once a second, and whenever the wall clock has stepped.
        now, wall = time.monotonic(), self.wall()
        lead = wall / 1000 - now
        if now - self._asked >= TRUST_KEPT or abs(lead - self._lead) > STEP:
            self._asked, self._lead = now, lead
            self._trusted = wall >= RELEASED and is_synchronised()
        return self._trusted
