"""
Which answer belongs to which request, and what is asked next (protocol §4).

The rule of the whole project: an answer is never given to a request it does not belong to, and no reading is lost.
There is one `PendingRequests` for each link. It opens nothing and calls nobody: time comes in as `now`, and every call
returns the `Moves` that its caller has to carry out. `core.exchanges` has the words.

What waits is in `core.queues` and `core.held`. `core.matching` decides which report answers which question,
`core.turns` whose turn it is, and `core.boardbuffer` whether the board has room.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from math import inf
from typing import Any, Generic, TypeVar

from usbgate.core.boardbuffer import BUFFER, BoardBuffer
from usbgate.core.containers import LazyHeap
from usbgate.core.errors import Busy, Cancelled, Offline, RequestError, Stopped, TimedOut
from usbgate.core.exchanges import FREE, Asker, Lane, Moves
from usbgate.core.held import HeldAskers
from usbgate.core.matching import Matching
from usbgate.core.model import UNKNOWN_BOARD, Answer, BoardKind, Question, Report, Request, Send
from usbgate.core.queues import Queues
from usbgate.core.rules import Rules
from usbgate.core.turns import Turns

W = TypeVar("W")

SETTLE = 2.0  # seconds, protocol §4.7: how long a bootloader waits for a new program


class PendingRequests(Generic[W]):
    """
    The requests over one link that have not ended.

    In every call, `now` is monotonic seconds, never less than in the call before.

    Attributes:
        state: The link's state: `starting`, `settling`, `online` or `offline`.
        bound: When `expire` is to be called next, if nothing else happens before; inf for never. It may be too early,
            never too late; each `expire` makes it exact.
        blocked: While true, nothing is written: the device has not accepted what was written before. Set by the caller,
            cleared by `release`. Requests that wait meanwhile count as not asked.
        queues: What waits.
        held: Who waits until a sensor reports.
    """

    def __init__(
        self, device: str, rules: Rules, size: Callable[[Request, str | None], int], first_tag: int = 0
    ) -> None:
        """
        Args:
            device: The link's name, for the answers.
            rules: The link's configuration.
            size: Returns the bytes that a request with that tag has on the wire.
            first_tag: Where to begin counting tags; best a random number, so that an answer to a question of an
                earlier process is not mistaken.
        """
        self._device = device
        self._rules = rules
        self._tags = first_tag
        self.state = "starting"
        self.bound = inf
        self.blocked = False
        self._settled_at = inf
        self._refused: list[tuple[Question, RequestError]] = []
        self._limits: LazyHeap[float, Asker[W]] = LazyHeap(_has_not_ended)
        self._reserved: LazyHeap[float, Lane[W]] = LazyHeap(lambda until, lane: lane.until == until)
        self._matching = Matching(rules)
        self._buffer = BoardBuffer(size)
        self._turns: Turns[W] = Turns(rules.window, self._buffer)
        self.queues = Queues(device, self._turns)
        self.held = HeldAskers(device, self.queues, self._turns.number)

    @property
    def deadline(self) -> float:
        """
        When `expire` is to be called next, unless something else happens before; inf for never.
        """
        limit, reserved = self._limits.first(), self._reserved.first()
        if self._refused:
            return -inf
        return min(
            limit[0] if limit else inf,
            reserved[0] if reserved else inf,
            self._settled_at if self.state == "settling" else inf,
            self._turns.room_at if self.queues.waiting else inf,
        )

    @property
    def idle(self) -> bool:
        """
        Whether nothing waits, and nothing is on the wire.
        """
        return not self.queues.lanes

    @property
    def unsure(self) -> list[str]:
        """
        The sensors that have answered with neither `MSG` nor `TAG`, to which §4.6 applies.
        """
        return self._matching.unsure

    def ask(self, asker: Asker[W], timeout: float, now: float) -> Moves[W]:
        """
        Accept a request; it ends exactly once, in these `Moves` or in those of a later call.

        Args:
            asker: The request.
            timeout: Seconds until this asker gives up.
            now: See the class.
        """
        moves = self._begin(now)
        request = asker.request
        if request.max_age is not None and (recent := self._matching.recent(request, now)):
            moves.ended.append((recent, (asker,)))
            return self._fill(moves, now)
        limit = now + timeout
        if request.when_heard:
            self.held.add(asker)
        elif self.state == "offline":
            moves.ended.append((Offline(), (asker,)))
            return moves
        elif not self.queues.add(asker, self._matching.asked(request.question), now, moves.ended):
            moves.ended.append((Busy(), (asker,)))
            return self._fill(moves, now)
        self._limits.add(limit, asker)
        if limit < self.bound:
            self.bound = limit
        return self._fill(moves, now)

    def received(self, reports: Sequence[Report], now: float, at: int) -> Moves[W]:
        """
        Match the reports of one chunk; each is delivered exactly once.

        Args:
            reports: In the order in which they came.
            now: See the class.
            at: The wall clock at that moment, whole milliseconds since 1970, for the answers.
        """
        moves = self._begin(now)
        lanes = self.queues.lanes
        if self._turns.missed:
            self._turns.reported(reports, lanes, now)
        if not lanes:  # nothing was asked: most lines of most devices
            moves.handed = [(report, None) for report in reports]
        for report in reports if lanes else ():
            lane = lanes.get(report.sensor)
            if lane is not None and not lane.known:
                self._turns.now_known(lane)
            if lane is None or not lane.queue or not self._matching.answers(report, lane.queue[0]):
                moves.handed.append((report, None))
                continue
            exchange = lane.queue[0]
            question = exchange.question
            moves.handed.append((report, question))
            answer = Answer(report, question.command, at, self._device)
            self._turns.answered(lane)
            self.queues.end_first(lane, answer, moves.ended)
            self._matching.answered(exchange, answer, now)
        if self.held.by_sensor:
            for report in reports:
                self.held.release(report.sensor, self._matching.asked)
        return self._fill(moves, now) if self.queues.waiting else moves

    def expire(self, now: float) -> Moves[W]:
        """
        End what has waited too long (protocol §4.4), and write what may be written now.
        """
        return self._fill(self._begin(now), now)

    def refuse(self, question: Question, error: RequestError) -> None:
        """
        Record that a question on the wire was not written, since the device can't be sent it. It ends with this error
        at the next `expire`, which is due at once.
        """
        self._refused.append((question, error))
        self.bound = -inf

    def leave_unwritten(self, question: Question) -> None:
        """
        Record that nothing is written for a question on the wire, since the device only sends: the sensor's next report
        answers it.
        """
        lane = self.queues.lanes.get(question.sensor)
        if lane is not None and lane.queue and lane.queue[0].question == question:
            lane.queue[0].unwritten = True

    def link_up(self, now: float, board: BoardKind = UNKNOWN_BOARD) -> Moves[W]:
        """
        Record that the device was opened (protocol §4.7).

        Args:
            now: See the class.
            board: What is known of the board.
        """
        moves = self._begin(now)
        self.state = "settling"
        self.blocked = False
        settle = self._rules.settle
        if settle is None:
            settle = SETTLE if board.resets else 0.0
        self._settled_at = now + settle
        buffer = self._rules.buffer
        self._buffer.opened((0 if board.native else BUFFER) if buffer is None else buffer)
        for lane in self.queues.lanes.values():
            if lane.until == inf:
                self._reserve(lane, now + self._matching.patience(lane.sensor))
        self.bound = min(self.bound, self._settled_at)
        self._settle(now)
        return self._fill(moves, now)

    def board_started(self, now: float) -> Moves[W]:
        """
        Record that a board that was reset has sent a line (protocol §4.7).
        """
        if self.state == "settling" and self._rules.settle is None:
            self._settled_at = self.bound = now
        return self.expire(now)

    def link_down(self, now: float) -> Moves[W]:
        """
        Record that the device was disconnected, or that the first attempt to open it failed (protocol §4.7).
        """
        moves = self._begin(now)
        self.state = "offline"
        for lane in list(self.queues.lanes.values()):
            self.held.add_waiting(lane)
        self.queues.clear(Offline, moves.ended)
        for lane in self.queues.lanes.values():
            lane.until = inf
        return moves

    def release(self, now: float) -> Moves[W]:
        """
        Write again after `blocked`.
        """
        self.blocked = False
        return self.expire(now)

    def withdraw(self, askers: Iterable[Asker[W]], now: float) -> Moves[W]:
        """
        End some askers of this link, as far as they have not ended, as if their time limit had.
        """
        moves = self._begin(now)
        for asker in askers:
            self._withdraw(asker, moves)
        return self._fill(moves, now)

    def cancel(self, asker: Asker[W], now: float) -> Moves[W]:
        """
        End an asker who is held.
        """
        moves = self._begin(now)
        if asker.held:
            moves.ended.append(self.held.end(asker, Cancelled()))
        return self._fill(moves, now)

    def stop(self, now: float) -> Moves[W]:
        """
        Fail all waiting requests with `Stopped`.
        """
        moves = self._begin(now)
        self.queues.clear(Stopped, moves.ended)
        moves.ended += self.held.end_all(Stopped)
        for lane in self.queues.lanes.values():
            lane.until = FREE
        self.queues.lanes.clear()
        return moves

    def _begin(self, now: float) -> Moves[W]:
        # Rule 9: first end what has expired, limits before patience.
        moves: Moves[W] = Moves()
        if self.bound > now:
            return moves
        self._settle(now)
        if self._refused:
            self._end_refused(moves)
        if self._turns.room_at <= now:
            self._turns.room_at = inf
        while (limit := self._limits.first()) and limit[0] <= now:
            self._withdraw(limit[1], moves)
        while (reserved := self._reserved.first()) and reserved[0] <= now:
            self._give_up(reserved[1], moves)
        self.bound = self.deadline
        return moves

    def _withdraw(self, asker: Asker[W], moves: Moves[W]) -> None:
        if asker.exchange is not None:
            self.queues.withdraw(asker, asker.exchange, moves.ended)
        elif asker.held:
            moves.ended.append(self.held.end(asker))

    def _settle(self, now: float) -> None:
        if self.state == "settling" and self._settled_at <= now:
            self.state = "online"

    def _end_refused(self, moves: Moves[W]) -> None:
        refused, self._refused = self._refused, []
        for question, error in refused:
            lane = self.queues.lanes.get(question.sensor)
            if lane is not None and lane.queue and lane.queue[0].on_wire and lane.queue[0].question == question:
                self._turns.refused(lane)
                self.queues.end_first(lane, error, moves.ended)

    def _give_up(self, lane: Lane[W], moves: Moves[W]) -> None:
        # Patience has expired. No asker's limit has, or it would have ended before.
        if not lane.queue or not lane.queue[0].on_wire:
            lane.until = FREE
            self.queues.changed(lane)
            return
        exchange = lane.queue[0]
        ended = lane.until
        if len(lane.queue) > 1:
            self.held.add_waiting(lane)
        self._turns.unanswered(lane)
        moves.unanswered = (*moves.unanswered, lane.sensor)
        exchange.unanswered += 1
        if self._matching.asked_again(exchange):
            self.held.add_again(exchange)
        if self._matching.asked_again(exchange):
            exchange.turn = self._turns.new(ended, exchange.turn[0])
            self.queues.waiting += 1
            self.queues.changed(lane)
        else:
            self.queues.end_first(lane, TimedOut(), moves.ended)

    def _fill(self, moves: Moves[W], now: float) -> Moves[W]:
        # Rule 2. Only after all of a chunk was matched: a second line of it can't answer what is written now.
        turns = self._turns
        turns.room_at = inf
        if self.state != "online" or self.blocked:
            return moves
        tag = None
        while self.queues.waiting:
            if self._rules.tags:
                tag = f"{self._tags & 0xFFFFFFFF:x}"  # 8 characters at most, protocol §2
            lane = turns.take(tag, now)
            if lane is None:
                break
            exchange = lane.queue[0]
            exchange.tag = tag
            self._tags += 1
            self.queues.waiting -= 1
            for asker in exchange.askers:
                asker.sent = True
            patience = self._matching.patience(lane.sensor)
            self._reserve(lane, now + patience)
            moves.send.append(Send(exchange.request, tag, patience))
        if turns.room_at < self.bound:
            self.bound = turns.room_at
        return moves

    def _reserve(self, lane: Lane[W], until: float) -> None:
        lane.until = until
        self._reserved.add(until, lane)
        if until < self.bound:
            self.bound = until


def _has_not_ended(_: float, asker: Asker[Any]) -> bool:
    # Whether it waits for an answer, or is held; `asker.held` would cost a call more for each request.
    return asker.exchange is not None or (asker.hold is not None and asker.hold.waits)
