"""
Requests that are held until their sensors report (protocol §4.12): their numbers, and how many there may be.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count

from twisted.internet.defer import Deferred

from usbgate.core.errors import LimitExceeded, NotHeld
from usbgate.core.exchanges import Asker
from usbgate.core.holders import network_of
from usbgate.core.model import Answer
from usbgate.gateway.interfaces import HeldRequest

# Protocol §3. For an address: more than a home has nodes that sleep, and a quarter of what a connection may have in
# flight. In all: 5 MB, if each line is as long as it can be.
HELD_PER_ADDRESS = 64
HELD_IN_ALL = 1024


@dataclass(eq=False, slots=True)
class _Held:
    asker: Asker[Deferred[Answer]]
    address: str
    until: float  # monotonic seconds

    @property
    def has_ended(self) -> bool:
        return not self.asker.held and self.asker.exchange is None


class HeldRequests:
    """
    The requests that wait for their sensors to report, or that were sent when these did, until they end.
    """

    def __init__(self) -> None:
        self._held: dict[int, _Held] = {}
        self._numbers = count(1)

    def add(self, asker: Asker[Deferred[Answer]], until: float) -> None:
        """
        Number a request.

        Args:
            asker: The request.
            until: When it ends at the latest, in monotonic seconds.

        Raises:
            LimitExceeded: There are too many, of its address or in all.
        """
        self._held = {number: held for number, held in self._held.items() if not held.has_ended}
        address = network_of(asker.holder.host)
        if sum(held.address == address for held in self._held.values()) >= HELD_PER_ADDRESS:
            raise LimitExceeded(f"more than {HELD_PER_ADDRESS} requests of this address are held; see `held`, `cancel`")
        if len(self._held) >= HELD_IN_ALL:
            raise LimitExceeded(f"more than {HELD_IN_ALL} requests are held; see `held`, `cancel`")
        self._held[next(self._numbers)] = _Held(asker, address, until)

    def get(self, number: int) -> Asker[Deferred[Answer]]:
        """
        Return the request of a number.

        Raises:
            NotHeld: None with that number is held.
        """
        held = self._held.get(number)
        if held is None or not held.asker.held:
            raise NotHeld(number)
        return held.asker

    def summaries(self, wall: Callable[[float], int]) -> Iterator[HeldRequest]:
        """
        Yield what is held, oldest first.

        Args:
            wall: Returns the wall clock at some monotonic seconds: whole milliseconds since 1970, UTC.
        """
        for number, held in self._held.items():
            asker = held.asker
            if asker.held:
                yield HeldRequest(number, asker.request, asker.device, wall(asker.started), wall(held.until))
