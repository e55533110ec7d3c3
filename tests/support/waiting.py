"""
Wait until something is true.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater

LIMIT = 60.0  # seconds for anything to become true, even while a measurement has the whole machine


def eventually(true: Callable[[], object], what: str, limit: float = LIMIT) -> None:
    """
    Wait until something is true, blocking.

    Raises:
        AssertionError: It was not, within `limit` seconds.
    """
    deadline = time.monotonic() + limit
    while not true():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {limit:g} s: {what}")
        time.sleep(0.01)


async def until(true: Callable[[], object], what: str = "what the test waits for", limit: float = LIMIT) -> None:
    """
    Wait until something is true, while the reactor runs.

    Raises:
        AssertionError: It was not, within `limit` seconds.
    """
    from twisted.internet import reactor

    clock = IReactorTime(reactor)
    deadline = clock.seconds() + limit
    while not true():
        if clock.seconds() > deadline:
            raise AssertionError(f"not within {limit:g} s: {what}")
        await deferLater(clock, 0.002)
