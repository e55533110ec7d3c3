"""
Two small containers of the core: what is due next, and what is remembered of the newest.
"""

from __future__ import annotations

from collections.abc import Callable
from heapq import heapify, heappop, heappush
from itertools import count
from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")

_LEAST_SWEEP = 64  # entries; below this, dead ones are not worth looking for


class LazyHeap(Generic[K, V]):
    """
    What comes next, by key; entries that no longer matter are passed over, and swept out before they pile up.
    """

    def __init__(self, alive: Callable[[K, V], bool]) -> None:
        """
        Begin with nothing.

        Args:
            alive: Whether an entry still matters. One that is dead stays dead.
        """
        self._alive = alive
        self._heap: list[tuple[K, int, V]] = []
        self._order = count()
        self._sweep_at = _LEAST_SWEEP

    def add(self, key: K, item: V) -> None:
        """
        Enter an item under its key; equal keys come in the order in which they were entered.
        """
        heappush(self._heap, (key, next(self._order), item))
        if len(self._heap) >= self._sweep_at:
            self._sweep()

    def first(self) -> tuple[K, V] | None:
        """
        Look at the first entry that matters.
        """
        passed = 0
        while self._heap:
            key, _, item = self._heap[0]
            if self._alive(key, item):
                return key, item
            heappop(self._heap)
            passed += 1
            # Where so many are dead the others may well be: thousands are swept in a tenth of the time.
            if passed > _LEAST_SWEEP and passed * 16 > len(self._heap):
                self._sweep()
        return None

    def _sweep(self) -> None:
        # Doubling what is left makes the sweeps cost a constant for each entry.
        self._heap = [entry for entry in self._heap if self._alive(entry[0], entry[2])]
        heapify(self._heap)
        self._sweep_at = max(_LEAST_SWEEP, 2 * len(self._heap))


class BoundedDict(dict[K, V]):
    """
    A dict that keeps the newest so many keys, by their last `remember`.
    """

    def __init__(self, limit: int) -> None:
        super().__init__()
        self._limit = limit

    def remember(self, key: K, value: V) -> None:
        """
        Set a value, make its key the newest, and forget the oldest key beyond the limit.
        """
        self.pop(key, None)
        self[key] = value
        if len(self) > self._limit:
            del self[next(iter(self))]
