"""
The whole daemon in thousands of random worlds: whatever fails in whatever order, what is promised is kept.

A failure names its world: `USBGATE_FIRST_SEED=SEED USBGATE_SIMULATIONS=1` runs it again.
"""

from __future__ import annotations

import gc
import os
from collections import Counter

from twisted.trial.unittest import SynchronousTestCase

from tests.faults.simulation import World
from usbgate import pending, sendqueue, server

SIMULATIONS = int(os.environ.get("USBGATE_SIMULATIONS", "300"))
FIRST_SEED = int(os.environ.get("USBGATE_FIRST_SEED", "0"))
EVENTS = 80  # in one world


class TestSimulation(SynchronousTestCase):
    """
    Nothing is lost, nothing hangs.
    """

    def test_random_worlds(self) -> None:
        """
        In every world each promise is kept, and nothing unexpected is logged.
        """
        # So small that a world of some hundred lines reaches them.
        self.patch(server, "IN_FLIGHT_LIMIT", 8)
        self.patch(server, "WORDS_LIMIT", 6)
        self.patch(server, "UNSENT_LIMIT", 300)
        self.patch(server, "WATCHER_LIMIT", 900)
        self.patch(sendqueue, "PIECE", 200)
        self.patch(pending, "QUESTIONS_PER_SENSOR", 4)
        seen: Counter[str] = Counter()
        for seed in range(FIRST_SEED, FIRST_SEED + SIMULATIONS):
            world = World(seed, seen)
            trace = world.trace
            try:
                world.live(EVENTS)
            except Exception as error:
                raise self.failureException(
                    f"in the world of seed {seed}: {type(error).__name__}: {error}\n" + "\n".join([*trace][-60:])
                ) from error
            del world
            if seed % 50 == 49:
                gc.collect()
            if errors := self.flushLoggedErrors():
                self.fail(f"in the world of seed {seed} was logged: {errors[0].getTraceback()}\n" + "\n".join(trace))
        if os.environ.get("USBGATE_SEEN"):
            print(sorted(seen.items()))
