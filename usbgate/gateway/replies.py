"""
Telling those who asked what became of it: who is told now, and who in a turn of the reactor to come.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from usbgate.core.errors import RequestError
from usbgate.core.model import Answer
from usbgate.core.recorder import Asked

# Askers told before the reactor gets its turn: a millisecond's work, so that an answer for thousands delays no other.
TOLD_A_TURN = 100


@dataclass(eq=False, slots=True)
class Waiter(Asked):
    """
    An accepted request, and who waits for its end.
    """

    deferred: Deferred[Answer]


# What becomes of a request.
Ending = tuple[Waiter, Answer | RequestError]


@dataclass(eq=False, slots=True)
class _Untold:
    # Who is told in turns to come. Whatever else their clients are told waits behind it, so that its order holds.
    endings: deque[Ending]  # so that each is let go of in its turn, too
    clients: set[str]
    device: str | None
    decided: float


class Replies:
    """
    Tells endings, so many a turn.
    """

    def __init__(self, reactor: IReactorTime, note: Callable[[Sequence[Ending], str | None, float], None]) -> None:
        """
        Begin with nobody to tell.

        Args:
            reactor: For turns to come.
            note: Called with endings that were put off just before they are told, the device's name, and when they
                were decided.
        """
        self._reactor = reactor
        self._note = note
        self._untold: deque[_Untold] = deque()
        self._turn: IDelayedCall | None = None
        self._stopped = False

    def sift(self, endings: list[Ending], device: str | None, decided: float) -> list[Ending]:
        """
        Keep for turns to come an answer for a crowd, and what must not overtake what is kept for the same client.

        Args:
            endings: What became of requests.
            device: The name of the device; None where none could be told.
            decided: When that was decided, in monotonic seconds.

        Returns:
            What can be told now: as good as all that is for others than the crowd.
        """
        if not self._untold and (len(endings) <= TOLD_A_TURN or self._stopped):
            return endings
        crowds = Counter(id(outcome) for _, outcome in endings)
        free: list[Ending] = []
        kept: list[Ending] = []
        clients: set[str] = set()
        for ending in endings:
            client = ending[0].request.client
            if (
                len(free) >= TOLD_A_TURN
                or crowds[id(ending[1])] > TOLD_A_TURN
                or client in clients
                or any(client in untold.clients for untold in self._untold)
            ):
                kept.append(ending)
                clients.add(client)
            else:
                free.append(ending)
        if kept:
            self._untold.append(_Untold(deque(kept), clients, device, decided))
            self._go_on()
        return free

    def tell(self, endings: Sequence[Ending]) -> None:
        """
        Tell these now.
        """
        for waiter, outcome in endings:
            if isinstance(outcome, Answer):
                waiter.deferred.callback(outcome)
            else:
                waiter.deferred.errback(outcome)

    def stop(self) -> None:
        """
        Tell all that was put off, and put nothing off any more.
        """
        self._stopped = True
        if self._turn is not None:
            self._turn.cancel()
            self._turn = None
        while self._untold:
            self._tell_slice()

    def _go_on(self) -> None:
        if self._untold and self._turn is None and not self._stopped:
            self._turn = self._reactor.callLater(0, self._take_turn)

    def _take_turn(self) -> None:
        self._turn = None
        self._tell_slice()

    def _tell_slice(self) -> None:
        untold = self._untold[0]
        endings = [untold.endings.popleft() for _ in range(min(TOLD_A_TURN, len(untold.endings)))]
        if not untold.endings:
            self._untold.popleft()
        self._go_on()
        self._note(endings, untold.device, untold.decided)
        self.tell(endings)
