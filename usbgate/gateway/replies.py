"""
Deliver replies: some now, the rest in later reactor turns.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from usbgate.core import exchanges
from usbgate.core.errors import RequestError
from usbgate.core.model import Answer

# Replies delivered per reactor turn: a millisecond's work, so that an answer for thousands delays no other.
REPLIES_PER_TURN = 100

# A request whose Deferred fires with the reply, and replies as they are decided.
_Asker = exchanges.Asker[Deferred[Answer]]
Ended = exchanges.Ended[Deferred[Answer]]


@dataclass(eq=False, slots=True)
class _Postponed:
    # Replies for later turns. Whatever else their clients get waits behind them, so that the order holds.
    replies: deque[tuple[Answer | RequestError, _Asker]]  # a deque, so that each is released in its turn
    clients: set[str]
    device: str | None
    decided: float


class Replies:
    """
    Delivers a limited number of replies per reactor turn.
    """

    def __init__(self, reactor: IReactorTime, record: Callable[[Sequence[Ended], str | None, float], None]) -> None:
        """
        Args:
            reactor: For later turns.
            record: Called with postponed replies just before they are delivered, the device's name, and when they
                were decided.
        """
        self._reactor = reactor
        self._record = record
        self._postponed: deque[_Postponed] = deque()
        self._turn: IDelayedCall | None = None
        self._stopped = False

    def admit(self, ended: Sequence[Ended], device: str | None, decided: float) -> Sequence[Ended]:
        """
        Postpone an answer with very many askers, and replies that must not overtake postponed ones.

        Args:
            ended: Outcomes, each with its askers.
            device: The name of the device; None if the request could not be routed to one.
            decided: When that was decided, in monotonic seconds.

        Returns:
            What to deliver now: nearly all that is not for the crowd.
        """
        if not self._postponed:
            count = 0
            for _, askers in ended:
                count += len(askers)
            if count <= REPLIES_PER_TURN or self._stopped:
                return ended
        now: list[Ended] = []
        later = _Postponed(deque(), set(), device, decided)
        for outcome, askers in ended:
            crowd = len(askers) > REPLIES_PER_TURN
            for asker in askers:
                client = asker.request.client
                if (
                    crowd
                    or len(now) >= REPLIES_PER_TURN
                    or client in later.clients
                    or any(client in postponed.clients for postponed in self._postponed)
                ):
                    later.replies.append((outcome, asker))
                    later.clients.add(client)
                else:
                    now.append((outcome, (asker,)))
        if later.replies:
            self._postponed.append(later)
            self._schedule()
        return now

    def deliver(self, ended: Sequence[Ended]) -> None:
        """
        Deliver these now.
        """
        for outcome, askers in ended:
            for asker in askers:
                if isinstance(outcome, Answer):
                    asker.waiter.callback(outcome)
                else:
                    asker.waiter.errback(outcome)

    def stop(self) -> None:
        """
        Deliver all that was postponed, and postpone nothing from now on.
        """
        self._stopped = True
        if self._turn is not None:
            self._turn.cancel()
            self._turn = None
        while self._postponed:
            self._deliver_some()

    def _schedule(self) -> None:
        if self._postponed and self._turn is None and not self._stopped:
            self._turn = self._reactor.callLater(0, self._take_turn)

    def _take_turn(self) -> None:
        self._turn = None
        self._deliver_some()

    def _deliver_some(self) -> None:
        postponed = self._postponed[0]
        replies = [postponed.replies.popleft() for _ in range(min(REPLIES_PER_TURN, len(postponed.replies)))]
        if not postponed.replies:
            self._postponed.popleft()
        self._schedule()
        ended = [(outcome, (asker,)) for outcome, asker in replies]
        self._record(ended, postponed.device, postponed.decided)
        self.deliver(ended)
