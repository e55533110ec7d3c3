"""
Whose question is written next over one link (protocol §4.2): people's before those of rules and polls, then whoever
asked first, but nobody waits long behind sensors that do not answer, and these get their turn, too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import inf
from typing import Generic, NamedTuple, TypeVar

from usbgate.core.boardbuffer import BoardBuffer
from usbgate.core.containers import BoundedDict, LazyHeap
from usbgate.core.exchanges import FREE, Lane, Turn
from usbgate.core.model import Priority, Report

W = TypeVar("W")

SENSORS_REMEMBERED = 10_000  # that have not answered; a sensor that is forgotten begins anew

DELAY = 30.0  # seconds that a sensor is behind after one unanswered message, protocol §4.2
DELAY_LIMIT = 600.0  # seconds, after five and more in a row


_PERSON = Priority.PERSON


class Missed(NamedTuple):
    """
    What a sensor has left unanswered: how many messages in a row, and until when it is behind for that.
    """

    in_a_row: int
    until: float


class Turns(Generic[W]):
    """
    The lanes whose first question waits to be written.

    Attributes:
        room_at: When the board's buffer has room for what waits for it, if nothing is answered before; inf if nothing
            does. Set by `take`.
        missed: The sensors that left their last message unanswered.
    """

    def __init__(self, window: int, buffer: BoardBuffer) -> None:
        """
        Args:
            window: The most exchanges that may be on the wire at a time.
            buffer: The messages that the board may not have read yet.
        """
        self.room_at = inf
        self.missed: BoundedDict[str, Missed] = BoundedDict(SENSORS_REMEMBERED)
        self._count = 0
        self._window = window
        self._all_but_one = max(1, window - 1)
        self._buffer = buffer
        # Lanes of sensors that answer, and of the others, which are unknown or have left their last message unanswered.
        # One that becomes known while it waits is among both, which changes nothing: its order is the same.
        self._ready: LazyHeap[Turn, Lane[W]] = LazyHeap(lambda order, lane: lane.order == order)
        self._behind: LazyHeap[Turn, Lane[W]] = LazyHeap(lambda order, lane: lane.order == order)
        self._on_wire = 0
        self._behind_on_wire = 0
        self._behind_last = False  # whether the last message was to one of the others

    def new(self, when: float, priority: int) -> Turn:
        """
        Return a turn for a question that was asked, or left unanswered, at that time.
        """
        self._count += 1
        return priority, when, self._count

    def number(self) -> int:
        """
        Return a number that tells when something was asked among the turns.
        """
        self._count += 1
        return self._count

    def wait(self, lane: Lane[W]) -> None:
        """
        Let the first question of a lane wait for its turn.
        """
        order = lane.queue[0].turn
        # Of a sensor that has just reported (-inf), it does not matter what it has left unanswered.
        missed = self.missed.get(lane.sensor) if self.missed and order[1] > -inf else None
        if missed is not None and missed.until > order[1]:
            order = order[0], missed.until, order[2]
        lane.silent = missed is not None
        behind = lane.silent or not lane.known
        if order != lane.order or behind != lane.behind:
            lane.order, lane.behind = order, behind
            (self._behind if behind else self._ready).add(order, lane)

    def take(self, tag: str | None, now: float) -> Lane[W] | None:
        """
        Return the lane whose first question is written now; None if there is no place for any.

        Args:
            tag: The tag with which it is written.
            now: Monotonic seconds.
        """
        if self._on_wire >= self._window:
            return None
        ready, behind = self._ready.first(), None
        room_at = self._buffer.free_at(now) if self._buffer.messages else None
        # One of several places is never given to a sensor that does not answer.
        if self._behind_on_wire < self._all_but_one:
            behind = self._behind.first()
            if behind is not None and room_at is not None and not self._leaves_place(behind[1], tag):
                self.room_at = room_at
                behind = None
        # Nor is the last one given to a rule or a poll.
        if self._on_wire >= self._all_but_one:
            if ready is not None and ready[0][0] > _PERSON:
                ready = None
            if behind is not None and behind[0][0] > _PERSON:
                behind = None
        # Nor are two messages in a row written to a sensor that does not answer.
        if behind is not None and (ready is None or (behind[0] < ready[0] and not self._behind_last)):
            ready = behind
        if ready is None:
            return None
        lane = ready[1]
        exchange = lane.queue[0]
        if room_at is not None:
            # A longer message is not overtaken by shorter ones for which there is room.
            times = 2 if ready[0][0] > _PERSON and self._window > 1 else 1
            if not self._buffer.fits(exchange.request, tag, times):
                self.room_at = room_at
                return None
        lane.order = None
        exchange.on_wire = True
        self._on_wire += 1
        self._behind_on_wire += lane.behind
        self._behind_last = lane.behind
        if self._buffer.limit:
            exchange.message = self._buffer.add(exchange.request, tag, lane.silent, now)
        return lane

    def answered(self, lane: Lane[W]) -> None:
        """
        Record that the first question of a lane was answered: its sensor is one like any other.
        """
        self._leave_wire(lane)
        if self.missed:
            self.missed.pop(lane.sensor, None)
        if self._buffer.messages:
            self._buffer.answered(lane.queue[0].message)

    def unanswered(self, lane: Lane[W]) -> None:
        """
        Record that the first question of a lane was not answered until its patience ended.
        """
        missed = self.missed.get(lane.sensor)
        in_a_row = 1 if missed is None else missed.in_a_row + 1
        delay = min(DELAY * 2.0 ** (min(in_a_row, 10) - 1), DELAY_LIMIT)
        self.missed.remember(lane.sensor, Missed(in_a_row, lane.until + delay))
        self._leave_wire(lane)

    def refused(self, lane: Lane[W]) -> None:
        """
        Record that the first question of a lane was not written.
        """
        self._leave_wire(lane)

    def reported(self, reports: Sequence[Report], lanes: Mapping[str, Lane[W]], now: float) -> None:
        """
        End the delays of sensors that report, though only an answer makes them equal to the others.

        Args:
            reports: What they report.
            lanes: The lanes of the link, by sensor.
            now: Monotonic seconds.
        """
        for report in reports:
            missed = self.missed.get(report.sensor)
            if missed is not None and missed.until > now:
                self.missed[report.sensor] = missed._replace(until=now)
                lane = lanes.get(report.sensor)
                if lane is not None and lane.order is not None:
                    self.wait(lane)

    def now_known(self, lane: Lane[W]) -> None:
        """
        Record that a sensor that was not known has reported.
        """
        lane.known = True
        if lane.order is not None:
            self.wait(lane)

    def clear(self) -> None:
        """
        Record that nothing waits, and nothing is on the wire.
        """
        self._on_wire = self._behind_on_wire = 0

    def _leave_wire(self, lane: Lane[W]) -> None:
        lane.queue[0].on_wire = False
        lane.until = FREE
        self._on_wire -= 1
        self._behind_on_wire -= lane.behind

    def _leaves_place(self, lane: Lane[W], tag: str | None) -> bool:
        return self._window == 1 or not lane.silent or self._buffer.leaves_place(lane.queue[0].request, tag)
