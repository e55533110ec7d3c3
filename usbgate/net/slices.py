"""
Long work for many peers, in slices: a few ms of each reactor turn, whoever and however many want them.
"""

from __future__ import annotations

from collections import deque

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime

TURN = 0.01  # seconds of a reactor turn for all slices; one slice takes a millisecond or two more


class Slices:
    """
    Hands out slices in the order in which they are asked for.
    """

    def __init__(self, reactor: IReactorTime) -> None:
        """
        Args:
            reactor: For later turns, and for the time that slices take.
        """
        self._reactor = reactor
        self._waiting: deque[Deferred[None]] = deque()
        self._call: IDelayedCall | None = None
        self._until = 0.0  # the end of what this turn has for slices, while there is a call

    @property
    def has_time(self) -> bool:
        """
        Whether a slice may begin at once: nobody waits, and this reactor turn has time left.
        """
        if self._waiting:
            return False
        if self._call is None:
            self._until = self._reactor.seconds() + TURN
            self._call = self._reactor.callLater(0, self._turn)
            return True
        return self._reactor.seconds() < self._until

    def next(self) -> Deferred[None]:
        """
        Return a Deferred that fires in a later reactor turn, when it is this caller's: what its callbacks do at once is
        the slice. It can be cancelled.
        """
        waiting: Deferred[None] = Deferred(self._waiting.remove)
        self._waiting.append(waiting)
        if self._call is None:
            self._call = self._reactor.callLater(0, self._turn)
        return waiting

    def _turn(self) -> None:
        self._call = None
        until = self._reactor.seconds() + TURN
        for _ in range(len(self._waiting)):  # none that is asked for meanwhile
            if not self._waiting or self._reactor.seconds() >= until:
                break
            self._waiting.popleft().callback(None)
        if self._waiting and self._call is None:
            self._call = self._reactor.callLater(0, self._turn)
