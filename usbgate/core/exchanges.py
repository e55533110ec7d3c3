"""
What waits for answers over one link, and what is to be done about it (protocol §4).

A *question* is a sensor, a command and its arguments; an *asker* is one request that waits for its answer; an
*exchange* is one question with its askers, which is written to the wire once or, unanswered, again; a *lane* is the
queue of one sensor's exchanges with the time until which the sensor is reserved.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import inf
from typing import Generic, TypeVar

from usbgate.core.errors import RequestError
from usbgate.core.holders import Holder
from usbgate.core.model import Answer, Priority, Question, Report, Request, Send

W = TypeVar("W")

FREE = -inf  # `Lane.until` of a lane that waits for no answer

# A question's priority, when it was asked or took a new turn, in monotonic seconds, and a number that tells equal times
# apart.
Turn = tuple[int, float, int]


@dataclass(eq=False, slots=True)
class Hold:
    """
    The holding of an asker until its sensor reports (protocol §4.12).

    Attributes:
        asked: A number that tells when it asked, as that of an exchange.
        waits: Whether it waits for a report now.
        unanswered: How often its question was written and not answered before it was held again.
    """

    asked: int
    waits: bool = True
    unanswered: int = 0


@dataclass(eq=False, slots=True)
class Asker(Generic[W]):
    """
    A request that has not ended.

    Attributes:
        request: The request.
        started: When it was accepted, in monotonic seconds.
        waiter: Whatever the caller needs to end it; nobody here looks at it.
        holder: Whose it is: its connection, or, if that is gone, those of its address that are gone.
        known: Whether its sensor is known: configured, reported or stored.
        device: The name of the link over which it asks; empty before it waits.
        exchange: Where it waits; None before and after, and while it is held.
        hold: What is known of it if it is held, or was; else None.
        sent: Whether its question was on the wire while it waited.
    """

    request: Request
    started: float
    waiter: W
    holder: Holder
    known: bool = True
    device: str = field(default="", init=False)
    exchange: Exchange[W] | None = field(default=None, init=False)
    hold: Hold | None = field(default=None, init=False)
    sent: bool = field(default=False, init=False)

    @property
    def held(self) -> bool:
        """
        Whether it waits until its sensor reports.
        """
        return self.hold is not None and self.hold.waits


@dataclass(eq=False, slots=True)
class Exchange(Generic[W]):
    """
    A question and its askers.

    Attributes:
        question: The question.
        request: The request that is written.
        lane: Where it waits.
        turn: When it was asked or took a new turn, and its priority, the highest of those for whom it was asked.
        once: Whether it is written exactly once (`coalesce = false`).
        asked: The number of its first turn.
        on_wire: Whether it was written and may still be answered.
        tag: The tag with which it was written.
        message: The number that its message has in the board's buffer.
        unanswered: How often it was written and not answered until patience ended.
        unwritten: Whether nothing is written for it, since its device only sends: a damaged report answers, too.
        askers: Those who wait for its answer: an ordered set.
    """

    question: Question
    request: Request
    lane: Lane[W]
    turn: Turn
    once: bool
    asked: int
    on_wire: bool = field(default=False, init=False)
    tag: str | None = field(default=None, init=False)
    message: int = field(default=0, init=False)
    unanswered: int = field(default=0, init=False)
    unwritten: bool = field(default=False, init=False)
    askers: dict[Asker[W], None] = field(default_factory=dict, init=False)

    def join(self, asker: Asker[W]) -> None:
        """
        Let an asker wait for the answer.
        """
        self.askers[asker] = None
        asker.holder.askers[asker] = None
        asker.exchange = self
        if self.on_wire:
            asker.sent = True

    def leave(self, asker: Asker[W]) -> None:
        """
        Let an asker wait no longer.
        """
        del self.askers[asker], asker.holder.askers[asker]
        asker.exchange = None

    def end(self) -> list[Asker[W]]:
        """
        Let nobody wait any longer; return those who did.
        """
        askers = list(self.askers)
        self.askers.clear()
        for asker in askers:
            del asker.holder.askers[asker]
            asker.exchange = None
        return askers


@dataclass(eq=False, slots=True)
class Lane(Generic[W]):
    """
    The queue of one sensor.

    A lane can be reserved with nothing on the wire: after a link dropped, an answer to what was asked before may still
    come.

    Attributes:
        sensor: The sensor.
        known: Whether the sensor was known when the lane was opened, or has reported since.
        until: Until when the sensor is reserved; inf while the link is down.
        queue: Its exchanges; only the first one can be on the wire.
        order: While the first one waits to be written, when it counts as asked: the least is written first. Else None.
        silent: Whether the sensor had left its last message unanswered when `order` was set.
        behind: Whether it was silent then, or not known.
    """

    sensor: str
    known: bool
    until: float = field(default=FREE, init=False)
    queue: list[Exchange[W]] = field(default_factory=list, init=False)
    order: Turn | None = field(default=None, init=False)
    silent: bool = field(default=False, init=False)
    behind: bool = field(default=False, init=False)

    @property
    def waiting(self) -> int:
        """
        How many exchanges are not on the wire.
        """
        return len(self.queue) - self.queue[0].on_wire if self.queue else 0

    def place(self, priority: int) -> int:
        """
        Return where in the queue a question goes: at the end, but before polls that wait.
        """
        queue = self.queue
        place = len(queue)
        if priority < Priority.POLL:
            while place and queue[place - 1].turn[0] == Priority.POLL and not queue[place - 1].on_wire:
                place -= 1
        return place

    def joined(self, question: Question, priority: int) -> Exchange[W] | None:
        """
        Return the exchange that an asker joins: the last one, or one behind its place, if that is this question.
        """
        if not self.queue or self.queue[-1].question == question:
            return self.queue[-1] if self.queue else None
        last = max(0, self.place(priority) - 1)
        return next((exchange for exchange in self.queue[last:] if exchange.question == question), None)


# How requests ended: an outcome, and all askers that receive it.
Ended = tuple[Answer | RequestError, Sequence[Asker[W]]]


@dataclass(slots=True)
class Moves(Generic[W]):
    """
    What is to be done: kind by kind, in this order; within a kind, in order.

    Attributes:
        handed: Each report that was given in, with the question that it answered, if any.
        ended: The requests that ended: first those answered, then those failed.
        send: Messages to write.
        unanswered: The sensors that left a question unanswered until its patience ended.
    """

    # Two are made for each request: attributes that are no arguments take half of the time.
    handed: list[tuple[Report, Question | None]] = field(default_factory=list, init=False)
    ended: list[Ended[W]] = field(default_factory=list, init=False)
    send: list[Send] = field(default_factory=list, init=False)
    unanswered: tuple[str, ...] = field(default=(), init=False)
