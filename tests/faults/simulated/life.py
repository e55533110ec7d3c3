"""
One run of the daemon in memory: its time, its connections, and its end.

A crash is a moment after which nothing that the daemon does has any effect: everything that has one asks its `Life`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.task import Clock
from zope.interface import implementer

from tests.support.memory_gateway import PeerTransport
from usbgate.core.clock import IClock


class Violated(AssertionError):
    """
    The daemon broke a promise.

    Attributes:
        first: The first one, since Twisted catches what is raised in a callback; None while all is well.
    """

    first: ClassVar[Violated | None] = None

    def __init__(self, text: str) -> None:
        super().__init__(text)
        Violated.first = Violated.first or self


def demand(truth: bool, rule: str, *details: object) -> None:
    """
    Fail the world unless this is true.
    """
    if not truth:
        raise Violated(" | ".join([rule, *map(str, details)]))


@implementer(IReactorTime)
class Life:
    """
    One run of the daemon, from its start to its end or its crash; its reactor, whose calls die with it.

    Attributes:
        alive: Whether what the daemon does still has an effect.
        fuse: How many more deeds until it crashes; None for never.
        deeds: How many deeds were done.
    """

    def __init__(self, number: int, clock: Clock) -> None:
        self.number = number
        self.alive = True
        self.fuse: int | None = None
        self.deeds = 0
        self._clock = clock
        self._calls: list[IDelayedCall] = []

    def deed(self) -> bool:
        """
        Return whether something with an effect may happen; a crash may come just before it.
        """
        self.deeds += 1
        if self.fuse is not None:
            self.fuse -= 1
            if self.fuse < 0:
                self.alive = False
        return self.alive

    def seconds(self) -> float:
        return float(self._clock.seconds())

    def callLater(self, delay: float, callable: Callable[..., object], *args: object, **kw: object) -> IDelayedCall:
        if len(self._calls) > 100:
            self.getDelayedCalls()
        call = self._clock.callLater(delay, callable, *args, **kw)
        self._calls.append(call)
        return call

    def getDelayedCalls(self) -> Sequence[IDelayedCall]:
        self._calls = [call for call in self._calls if call.active()]
        return self._calls

    def end(self) -> None:
        """
        Let nothing have an effect any more.
        """
        self.alive = False
        for call in self.getDelayedCalls():
            call.cancel()


@implementer(IClock)
class SteppingClock:
    """
    A clock whose monotonic time is the simulation's, and whose wall clock has an error that the world sets.
    """

    def __init__(self, clock: Clock) -> None:
        self.offset = 1_800_000_000_000
        self.right = True
        self._clock = clock

    def wall(self) -> int:
        return max(0, self.offset + int(self._clock.seconds() * 1000))

    def monotonic(self) -> float:
        return float(self._clock.seconds())

    def uptime(self) -> float:
        return self.monotonic()

    def boot(self) -> str:
        return "the only one"

    def trusted(self) -> bool:
        return self.right


class MemoryTransport(PeerTransport):
    """
    A transport whose other end is a function; it closes in a later reactor turn, as a socket does.
    """

    def __init__(
        self, life: Life, received: Callable[[bytes], None], resumed: Callable[[], None], linger: float | None = None
    ) -> None:
        """
        Connect.

        Args:
            life: The run of the daemon that it belongs to.
            heard: Told what is sent.
            resumed: Called when it is read from again.
            linger: Seconds after which it closes, taken or not; None for never, as a socket.
        """
        super().__init__(life)
        self.life = life
        self._heard = received
        self._resumed = resumed
        self.pace = 0.0  # seconds in which its other end takes a piece
        self._linger = linger
        self._lingering: IDelayedCall | None = None
        self._taking: IDelayedCall | None = None
        self._closed = False
        self.aborted: float | None = None  # when the daemon dropped it

    @property
    def open(self) -> bool:
        """
        Whether it is open, as seen by its other end.
        """
        return self.connected and self.life.alive and not self._closed

    @property
    def read(self) -> bool:
        """
        Whether the daemon reads from it.
        """
        return self.open and self.producerState == "producing" and not self.closing

    def write(self, data: bytes) -> None:
        """
        Send data to the other end.
        """
        if self.open and self.life.deed():
            self._heard(data)

    def resumeProducing(self) -> None:
        """
        Read again.
        """
        super().resumeProducing()
        self.life.callLater(0, self._resumed)

    def loseConnection(self) -> None:
        """
        Close when everything was read.
        """
        self.closing = self.disconnecting = True
        if self.producer is None or self._linger is not None:
            self._lingering = self.life.callLater(self._linger or 0, self._close)

    def abortConnection(self) -> None:
        """
        Close in the next turn, whatever is unsent.
        """
        self.closing = self.disconnecting = True
        self.aborted = self.life.seconds()
        self.life.callLater(0, self._close)

    def cut(self) -> None:
        """
        Report that the other end is gone.
        """
        if self.open:
            self._close()

    def take(self) -> None:
        """
        Read a piece of what was sent, unless stuck or closed, and the next one a while later.
        """
        if self._closed or self.producer is None or self.stuck:
            return
        self.producer.resumeProducing()
        if self.producer is not None:
            self._taking = self.life.callLater(self.pace, self.take)
        elif self.closing:
            self._close()

    def _close(self) -> None:
        if not self._closed:
            self._closed = True
            for call in (self._lingering, self._taking):
                if call is not None and call.active():
                    call.cancel()
            super()._close()
