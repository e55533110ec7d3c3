"""
Two small containers of the core: a heap with lazy deletion, and a dict of bounded size.
"""

from __future__ import annotations

from collections.abc import Callable
from heapq import heapify, heappop, heappush
from itertools import count
from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")

_LEAST_SWEEP = 64  # entries; below this, sweeping is not worth it


class LazyHeap(Generic[K, V]):
    """
    A heap whose dead entries are skipped, and swept out before they pile up.
    """

    def __init__(self, alive: Callable[[K, V], bool]) -> None:
        """
        Args:
            alive: Returns whether an entry still counts. A dead entry stays dead.
        """
        self._alive = alive
        self._heap: list[tuple[K, int, V]] = []
        self._order = count()
        self._sweep_at = _LEAST_SWEEP

    def add(self, key: K, item: V) -> None:
        """
        Add an item under its key; items with equal keys stay in the order in which they were added.
        """
        heappush(self._heap, (key, next(self._order), item))
        if len(self._heap) >= self._sweep_at:
            self._sweep()

    def first(self) -> tuple[K, V] | None:
        """
        Return the live entry with the least key, without removing it; None if there is none.
        """
        passed = 0
        while self._heap:
            key, _, item = self._heap[0]
            if self._alive(key, item):
                return key, item
            heappop(self._heap)
            passed += 1
            # Where so many are dead others are likely dead, too: a sweep of thousands takes a tenth of the time.
            if passed > _LEAST_SWEEP and passed * 16 > len(self._heap):
                self._sweep()
        return None

    def _sweep(self) -> None:
        # Sweeping again at twice the remaining size makes the cost constant per entry.
        self._heap = [entry for entry in self._heap if self._alive(entry[0], entry[2])]
        heapify(self._heap)
        self._sweep_at = max(_LEAST_SWEEP, 2 * len(self._heap))


class BoundedDict(dict[K, V]):
    """
    A dict that keeps the most recently remembered keys, up to a limit.
    """

    def __init__(self, limit: int) -> None:
        super().__init__()
        self._limit = limit

    def remember(self, key: K, value: V) -> None:
        """
        Set a value, make its key the newest, and drop the oldest key beyond the limit.
        """
        self.pop(key, None)
        self[key] = value
        if len(self) > self._limit:
            del self[next(iter(self))]
