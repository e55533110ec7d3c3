"""
How much is read of line clients, and whose lines are served in a reactor turn, so that nobody waits long for others
(protocol §3, limits).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import floor

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from usbgate.net.rates import Rates

BYTES_PER_TURN = 4 * 1024  # the default: about 100 requests
BYTES_PER_SECOND = 1024 * 1024  # the default: twice as much as the requests that a fast computer answers

# Seconds of a reactor turn for all that waits here. A question and its answer take two turns, so a client gets its
# answer within some 6 ms, however many others send as much as they can; with 2 ms, it took half as long again. If one
# client alone waits, it gets 2 ms: a script's 10,000 questions then take 0.36 s instead of 0.5.
TURN_TIME = 0.001
LONE_TURN_TIME = 0.002
CALLS_PER_TURN = 64

LINES_AT_ONCE = 64  # of all chunks of a reactor turn, beyond the first line of each: 2 ms


class Intake:
    """
    What all connections share: work that is put off to a later reactor turn, and the budgets that are used up.

    Attributes:
        bytes_per_turn: The most bytes that are read of a connection in a reactor turn.
        bytes_per_second: The most bytes that are read of a connection in a second, on average.
        bytes: The same for each address and each token.
    """

    log = Logger()

    def __init__(self, reactor: IReactorTime, bytes_per_turn: int, bytes_per_second: int) -> None:
        """
        Args:
            reactor: For later turns and the time.
            bytes_per_turn: See above, as for `bytes_per_second`.
            bytes_per_second: See above.
        """
        self.bytes_per_turn = bytes_per_turn
        self.bytes_per_second = bytes_per_second
        self.bytes = Rates(reactor, bytes_per_second, 1.0)
        self._reactor = reactor
        self._lines_left = LINES_AT_ONCE
        # Ordered sets.
        self._waiting: dict[Callable[[], None], None] = {}
        self._held: dict[Callable[[], None], None] = {}
        self._turn: IDelayedCall | None = None
        self._second: IDelayedCall | None = None

    def lines_at_once(self, lines: int) -> int:
        """
        Return how many lines of a chunk may be served at once: one, and more as long as this turn has time.
        """
        count = max(1, min(lines, self._lines_left))
        self._lines_left -= count
        return count

    def new_turn(self) -> None:
        """
        A reactor turn is over.
        """
        self._lines_left = LINES_AT_ONCE

    def later(self, call: Callable[[], None]) -> None:
        """
        Call in a later reactor turn, after those that wait already. Nothing happens if it waits itself.
        """
        self._waiting[call] = None
        if self._turn is None:
            self._turn = self._reactor.callLater(0, self._take_turn)

    def next_second(self, call: Callable[[], None]) -> None:
        """
        Call when the current second of the reactor's clock is over: one timer for all.
        """
        self._held[call] = None
        if self._second is None:
            now = self._reactor.seconds()
            self._second = self._reactor.callLater(floor(now) + 1 - now, self._release)

    def forget(self, call: Callable[[], None]) -> bool:
        """
        Don't call.

        Returns:
            Whether it waited.
        """
        waited = call in self._waiting or call in self._held
        self._waiting.pop(call, None)
        self._held.pop(call, None)
        if self._turn is not None and not self._waiting:
            self._turn.cancel()
            self._turn = None
        if self._second is not None and not self._held:
            self._second.cancel()
            self._second = None
        return waited

    def _take_turn(self) -> None:
        self._turn = None
        self.new_turn()
        until = self._reactor.seconds() + (TURN_TIME if len(self._waiting) > 1 else LONE_TURN_TIME)
        for _ in range(CALLS_PER_TURN):
            if not self._waiting or self._reactor.seconds() >= until:
                break
            call = next(iter(self._waiting))
            del self._waiting[call]
            self._call(call)
        if self._waiting and self._turn is None:
            self._turn = self._reactor.callLater(0, self._take_turn)

    def _release(self) -> None:
        self._second = None
        for call in list(self._held):
            if call in self._held:  # not forgotten meanwhile
                del self._held[call]
                self._call(call)

    def _call(self, call: Callable[[], None]) -> None:
        # What goes wrong with one client must not stop the others.
        try:
            call()
        except Exception:
            self.log.failure("unexpected error while serving a client")


class ByteBudget:
    """
    How much may be read of one connection in a second; or, once it is `shared`, of all with the same payers.

    Of a connection of its own, it looks at the time only when a second's bytes were read, so nothing is done for each
    second.

    Attributes:
        left: Bytes until the next `check`. The connection subtracts what it reads, and checks when none are left.
        is_spent: Whether nothing is to be read until the second is over.
    """

    def __init__(self, reactor: IReactorTime, intake: Intake, changed: Callable[[], None]) -> None:
        """
        Args:
            reactor: For the time.
            intake: For the bytes of a second, and its end.
            changed: Called whenever `is_spent` changes.
        """
        self.left = intake.bytes_per_second
        self.is_spent = False
        self._reactor = reactor
        self._intake = intake
        self._changed = changed
        self._payers: Sequence[str] = ()
        self._second = int(reactor.seconds())  # of the reactor's clock

    def share(self, payers: Sequence[str]) -> None:
        """
        Share the budget of an address or of a token from now on; with no payers, have one of its own.
        """
        self._payers = payers
        self.left = 0 if payers else self._intake.bytes_per_second

    def check(self) -> None:
        """
        Have nothing read until the second is over, if the bytes were sent within it.
        """
        if self._payers:
            self._take_share()
            return
        self.left = self._intake.bytes_per_second
        second = int(self._reactor.seconds())
        if second != self._second:
            self._second = second
        else:
            self.is_spent = True
            self._intake.next_second(self._second_over)
            self._changed()

    def _take_share(self) -> None:
        amount = self._intake.bytes_per_turn
        spent, self.is_spent = self.is_spent, False
        while self.left <= 0 and not self.is_spent:
            self.is_spent = self._intake.bytes.take(self._payers, amount) > 0
            if not self.is_spent:
                self.left += amount
        if self.is_spent:
            self._intake.next_second(self._second_over)
        if self.is_spent != spent:
            self._changed()

    def _second_over(self) -> None:
        if self._payers:
            self._take_share()
            return
        self.is_spent = False
        self._second = int(self._reactor.seconds())
        self._changed()

    def close(self) -> bool:
        """
        Forget the connection.

        Returns:
            Whether nothing was to be read from it.
        """
        return self._intake.forget(self._second_over)
