"""
The questions over one link that have not ended, and who waits for them.

Protocol §4.2 and §4.3 say where a question queues or joins, and §4.10 what happens where there is no room.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import inf
from typing import Generic, TypeVar

from usbgate.core.displacement import displaced, is_newcomer, waiting_in
from usbgate.core.errors import Busy, RequestError, TimedOut
from usbgate.core.exchanges import FREE, Asker, Ended, Exchange, Hold, Lane, Turn
from usbgate.core.model import Answer, Priority
from usbgate.core.turns import Turns

W = TypeVar("W")

QUESTIONS_PER_SENSOR = 64  # waiting, protocol §3: more than people and scripts need for one sensor
QUESTIONS_PER_LINK = 4096  # waiting, protocol §3: some minutes of work at 9600 baud


class Queues(Generic[W]):
    """
    The lanes of one link.

    What is given as `ended` receives the requests that end.

    Attributes:
        lanes: By sensor, those that have a question or are reserved.
        waiting: How many exchanges are not on the wire.
        in_flight: How many askers wait.
        sensor_limit: The most questions that may wait for a sensor.
        link_limit: The most questions that may wait.
    """

    def __init__(self, device: str, turns: Turns[W]) -> None:
        """
        Args:
            device: The link's name.
            turns: Receives the lanes whose first question waits.
        """
        self.lanes: dict[str, Lane[W]] = {}
        self.waiting = 0
        self.in_flight = 0
        self.sensor_limit = QUESTIONS_PER_SENSOR
        self.link_limit = QUESTIONS_PER_LINK
        self._device = device
        self._turns = turns

    @property
    def askers(self) -> Iterator[Asker[W]]:
        """
        Those that wait.
        """
        return (asker for lane in self.lanes.values() for exchange in lane.queue for asker in exchange.askers)

    def add(self, asker: Asker[W], once: bool, now: float, ended: list[Ended[W]]) -> bool:
        """
        Let an asker wait for its question; return False if there is no room for it.

        Args:
            asker: The request.
            once: Whether its question joins no other (`coalesce = false`).
            now: Monotonic seconds.
            ended: See the class.
        """
        question, priority = asker.request.question, asker.request.priority
        lane = self.lanes.get(question.sensor)
        exchange = None if once or lane is None else lane.joined(question, priority)
        if exchange is not None:
            self._raise(exchange, priority, now)
        else:
            turn = self._turns.new(now, priority)
            number = turn[2]
            full = lane if lane is not None and lane.waiting >= self.sensor_limit else None
            if full is not None or self.waiting >= self.link_limit:
                if priority == Priority.POLL or not is_newcomer(asker.holder, self._device, full):
                    return False
                turn = self._make_room(full, ended, turn)
                # What was displaced may have been the last question of this sensor.
                lane = self.lanes.get(question.sensor)
                exchange = None if once or lane is None else lane.joined(question, priority)
            if exchange is None:
                if lane is None:
                    lane = self.lanes[question.sensor] = Lane(question.sensor, asker.known)
                exchange = Exchange(question, asker.request, lane, turn, once, number)
                self.waiting += 1
                if lane.queue:
                    lane.queue.insert(lane.place(priority), exchange)
                    self._raise(exchange, priority, now)
                else:
                    lane.queue.append(exchange)
                    if lane.until == FREE:
                        self._turns.wait(lane)
            else:
                self._raise(exchange, priority, now)
        asker.device = self._device
        exchange.join(asker)
        self.in_flight += 1
        return True

    def add_first(self, asker: Asker[W], hold: Hold, once: bool) -> None:
        """
        Let an asker whose sensor has just reported wait for its question, ahead of all others: it may sleep soon.

        There is room for it: those who are held have bounds of their own.

        Args:
            asker: The request.
            hold: What is known of it.
            once: See `add`.
        """
        question = asker.request.question
        lane = self.lanes.get(question.sensor)
        if lane is None:
            lane = self.lanes[question.sensor] = Lane(question.sensor, known=True)
        ahead = [exchange for exchange in lane.queue if exchange.on_wire or exchange.turn[1] == -inf]
        if ahead and ahead[-1].question == question and not once:
            exchange = ahead[-1]
        else:
            turn = self._turns.new(-inf, Priority.PERSON)
            exchange = Exchange(question, asker.request, lane, turn, once, hold.asked)
            exchange.unanswered = hold.unanswered
            lane.queue.insert(len(ahead), exchange)
            self.waiting += 1
            if lane.until == FREE:
                self._turns.wait(lane)
        exchange.join(asker)
        self.in_flight += 1

    def take_back(self, asker: Asker[W], exchange: Exchange[W]) -> None:
        """
        Let an asker wait for its question no longer, which does not end it.
        """
        del exchange.askers[asker]
        asker.exchange = None
        self.in_flight -= 1

    def withdraw(self, asker: Asker[W], exchange: Exchange[W], ended: list[Ended[W]]) -> None:
        """
        Let one asker give up; a question for which nobody waits any more leaves the queue.
        """
        exchange.leave(asker)
        self.in_flight -= 1
        ended.append((TimedOut() if asker.sent else Busy(), (asker,)))
        if not exchange.askers and not exchange.on_wire:
            self.remove(exchange)

    def remove(self, exchange: Exchange[W]) -> None:
        """
        Remove a question that is not on the wire, and for which nobody waits any more.
        """
        lane = exchange.lane
        headed = lane.queue[0] is exchange
        lane.queue.remove(exchange)
        self.waiting -= 1
        if headed:
            self.changed(lane)

    def end_first(self, lane: Lane[W], outcome: Answer | RequestError, ended: list[Ended[W]]) -> None:
        """
        End the first question of a lane, which has left the wire.
        """
        self._end(lane.queue.pop(0), outcome, ended)
        self.changed(lane)

    def changed(self, lane: Lane[W]) -> None:
        """
        Let the first question of a lane wait for its turn, after anything that may have changed which one is first.
        """
        if lane.until != FREE:
            return
        if lane.queue:
            self._turns.wait(lane)
        else:
            lane.order = None
            del self.lanes[lane.sensor]

    def clear(self, error: type[RequestError], ended: list[Ended[W]]) -> None:
        """
        End all questions; the lanes that are reserved are left.
        """
        for lane in list(self.lanes.values()):
            for exchange in lane.queue:
                self._end(exchange, error(), ended)
            lane.queue.clear()
            lane.order = None
            if lane.until == FREE:
                del self.lanes[lane.sensor]
        self.waiting = 0
        self._turns.clear()

    def _raise(self, exchange: Exchange[W], priority: int, now: float) -> None:
        # Give a question, and those of its sensor that are written before it, at least this priority.
        lane = exchange.lane
        if exchange.turn[0] > priority and not exchange.on_wire:
            lane.queue.remove(exchange)
            lane.queue.insert(lane.place(priority), exchange)
        for raised in lane.queue[: lane.queue.index(exchange) + 1]:
            if raised.turn[0] > priority:
                raised.turn = self._turns.new(now, priority)
        if lane.until == FREE:
            self._turns.wait(lane)

    def _make_room(self, full: Lane[W] | None, ended: list[Ended[W]], turn: Turn) -> Turn:
        # Displace a question in a lane, or on the link; return the turn of the newcomer's, which may be an older one.
        lanes = self.lanes.values()
        newest = displaced(lanes if full is None else (full,))
        for asker in list(newest.askers):
            self.withdraw(asker, newest, ended)
        if full is not None:
            return turn
        asked = (exchange.turn[1:] for exchange in waiting_in(lanes) if exchange.turn[1] > -inf)
        return turn[0], *min(asked, default=turn[1:])

    def _end(self, exchange: Exchange[W], outcome: Answer | RequestError, ended: list[Ended[W]]) -> None:
        if exchange.askers:
            askers = exchange.end()
            self.in_flight -= len(askers)
            ended.append((outcome, askers))
