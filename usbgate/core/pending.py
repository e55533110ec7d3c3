"""
Which answer belongs to which request, and what is asked next (protocol §4).

The rule of the whole project: an answer is never given to a request it does not belong to, and no reading is lost.
There is one `PendingRequests` for each link. It opens nothing and calls nobody: time comes in as `now`, and every call
returns the `Moves` that its caller has to carry out.

Words: a *question* is a sensor, a command and its arguments; an *asker* is one request waiting for its answer; an
*exchange* is one question with its askers, which is written to the wire once or, unanswered, again; a *lane* is the
queue of one sensor's exchanges with the time until which the sensor is reserved.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf
from typing import Generic, NamedTuple, TypeVar

from usbgate.core.boardbuffer import BUFFER, BoardBuffer
from usbgate.core.containers import BoundedDict, LazyHeap
from usbgate.core.errors import Busy, Offline, RequestError, Stopped, TimedOut
from usbgate.core.fieldline import fold
from usbgate.core.holders import Holder, newest_of_most
from usbgate.core.model import UNKNOWN_BOARD, Answer, BoardKind, Question, Report, Request, Send

W = TypeVar("W")

QUESTIONS_PER_SENSOR = 64  # waiting, protocol §3: more than people and scripts need for one sensor
QUESTIONS_PER_LINK = 4096  # waiting, protocol §3: some minutes of work at 9600 baud
SENSORS_REMEMBERED = 10_000  # protocol §3

PATIENCE = 5.0  # seconds, protocol §4.4
PATIENCE_UNSURE = 10.0  # seconds, for a sensor whose late answer could be mistaken

SETTLE = 2.0  # seconds, protocol §4.7: how long a bootloader waits for a new program

DELAY = 30.0  # seconds that a sensor is behind after one unanswered message, protocol §4.2
DELAY_LIMIT = 600.0  # seconds, after five and more in a row

_FREE = -inf  # `_Lane.until` of a lane that waits for no answer


@dataclass(frozen=True, slots=True)
class Rules:
    """
    The configuration of asking over one link.

    Attributes:
        window: The most exchanges that may be on the wire at a time.
        buffer: The most bytes that may be on the wire and unread; 0 for no limit, None to go by the board.
        tags: Whether the device echoes a `TAG`; then nothing else identifies the question that it answers.
        settle: Seconds after opening during which nothing is written; None to go by the board.
        patience: Seconds to wait for an answer; None for the protocol's defaults.
        sensor_patience: The same for single sensors; takes precedence.
        once: Commands that are written exactly as often as they are asked (`coalesce = false`), in any case.
        fields: By command, in any case, the fields of which an answer without `MSG` has at least one.
    """

    window: int = 4
    buffer: int | None = 0
    tags: bool = False
    settle: float | None = 0.0
    patience: float | None = None
    sensor_patience: Mapping[str, float] = field(default_factory=dict)
    once: frozenset[str] = frozenset()
    fields: Mapping[str, frozenset[str]] = field(default_factory=dict)


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
        exchange: Where it waits; None before and after.
        sent: Whether its question was on the wire while it waited.
    """

    request: Request
    started: float
    waiter: W
    holder: Holder
    known: bool = True
    device: str = ""
    exchange: _Exchange[W] | None = None
    sent: bool = False


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

    handed: list[tuple[Report, Question | None]] = field(default_factory=list)
    ended: list[Ended[W]] = field(default_factory=list)
    send: list[Send] = field(default_factory=list)
    unanswered: tuple[str, ...] = ()


@dataclass(eq=False, slots=True)
class _Exchange(Generic[W]):
    question: Question
    request: Request
    lane: _Lane[W]
    turn: tuple[float, int]  # when it was asked or took a new turn, and a number that tells equal times apart
    once: bool
    asked: int  # the number of its first turn
    on_wire: bool = False
    tag: str | None = None
    message: int = 0  # the number that its message on the wire has in the board's buffer
    askers: dict[Asker[W], None] = field(default_factory=dict)  # an ordered set


@dataclass(eq=False, slots=True)
class _Lane(Generic[W]):
    # Only queue[0] can be on the wire. A lane can be reserved with nothing on the wire: after a link dropped, an
    # answer to what was asked before may still come.
    sensor: str
    known: bool  # whether the sensor was known when the lane was opened, or has reported since
    until: float = _FREE  # reserved until then; inf while the link is down
    queue: deque[_Exchange[W]] = field(default_factory=deque)
    order: tuple[float, int] | None = None  # while queue[0] waits to be written: the least is written first
    silent: bool = False  # whether the sensor had left its last message unanswered when `order` was set
    behind: bool = False  # whether it was `silent` then, or not known


class _Missed(NamedTuple):
    # What a sensor has left unanswered: how many messages in a row, and until when it is behind for that.
    in_a_row: int
    until: float


class PendingRequests(Generic[W]):
    """
    The requests over one link that have not ended.

    In every call, `now` is monotonic seconds, never less than in the call before.

    Attributes:
        state: The link's state: `starting`, `settling`, `online` or `offline`.
        bound: When `expire` is to be called next, if nothing else happens before; inf for never. It may be too early,
            never too late; each `expire` makes it exact.
        in_flight: How many askers wait.
        held: While true, nothing is written: the device has not accepted what was written before. Set by the caller,
            cleared by `release`. Requests that wait meanwhile count as not asked.
        sensor_limit: The most questions that may wait for a sensor.
        link_limit: The most questions that may wait.
    """

    sensor_limit = QUESTIONS_PER_SENSOR
    link_limit = QUESTIONS_PER_LINK

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
        self._once = frozenset(map(fold, rules.once))
        self._fields = {fold(command): names for command, names in rules.fields.items()}
        self._tags = first_tag
        self._turns = 0
        self.state = "starting"
        self.bound = inf
        self.in_flight = 0
        self.held = False
        self._settled_at = inf
        self._lanes: dict[str, _Lane[W]] = {}
        self._waiting = 0  # exchanges that are not on the wire
        self._on_wire = 0
        self._limits: LazyHeap[float, Asker[W]] = LazyHeap(lambda _, asker: asker.exchange is not None)
        self._reserved: LazyHeap[float, _Lane[W]] = LazyHeap(lambda until, lane: lane.until == until)
        # The lanes whose first exchange may be written: those of sensors that answer, and those of the others, which
        # are unknown or have left their last message unanswered.
        # One that becomes known while it waits is among both, which changes nothing: its order is the same.
        self._ready: LazyHeap[tuple[float, int], _Lane[W]] = LazyHeap(lambda order, lane: lane.order == order)
        self._behind: LazyHeap[tuple[float, int], _Lane[W]] = LazyHeap(lambda order, lane: lane.order == order)
        self._buffer = BoardBuffer(size)
        self._room_at = inf  # when the board's buffer has more room for what waits
        self._behind_on_wire = 0
        self._behind_last = False  # whether the last message written was to one of the others
        self._most_behind = max(1, rules.window - 1)
        self._shown: BoundedDict[str, None] = BoundedDict(SENSORS_REMEMBERED)  # answered with MSG or TAG
        self._unsure: BoundedDict[str, None] = BoundedDict(SENSORS_REMEMBERED)  # answered with neither
        self._missed: BoundedDict[str, _Missed] = BoundedDict(SENSORS_REMEMBERED)
        # How each command was spelled, by sensor and folded command; None if in two ways.
        self._spelled: BoundedDict[tuple[str, str], str | None] = BoundedDict(SENSORS_REMEMBERED)
        self._recent: BoundedDict[tuple[str, str], tuple[float, Answer]] = BoundedDict(SENSORS_REMEMBERED)

    @property
    def deadline(self) -> float:
        """
        When `expire` is to be called next, unless something else happens before; inf for never.
        """
        limit, reserved = self._limits.first(), self._reserved.first()
        return min(
            limit[0] if limit else inf,
            reserved[0] if reserved else inf,
            self._settled_at if self.state == "settling" else inf,
            self._room_at if self._waiting else inf,
        )

    @property
    def idle(self) -> bool:
        """
        Whether nothing waits, and nothing is on the wire.
        """
        return not (self._lanes or self._waiting or self._on_wire)

    @property
    def unsure(self) -> list[str]:
        """
        The sensors that have answered with neither `MSG` nor `TAG`, to which §4.6 applies.
        """
        return list(self._unsure)

    @property
    def askers(self) -> Iterator[Asker[W]]:
        """
        Those that wait.
        """
        return (asker for lane in self._lanes.values() for exchange in lane.queue for asker in exchange.askers)

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
        question = request.question
        folded = fold(question.command)
        once = folded in self._once
        if request.max_age is not None and not once and not question.arguments:
            recent = self._recent.get((question.sensor, question.command))
            if recent is not None and now - recent[0] <= request.max_age:
                moves.ended.append((recent[1]._replace(recent=True), (asker,)))
                return self._fill(moves, now)
        if self.state == "offline":
            moves.ended.append((Offline(), (asker,)))
            return moves
        lane = self._lanes.get(question.sensor)
        exchange = None if once or lane is None else self._last(lane, question)
        first: tuple[float, int] | None = None
        if exchange is None and (self._waiting >= self.link_limit or self._is_full(lane)):
            full = lane if self._is_full(lane) else None
            if not self._displace(full, asker.holder, moves):
                moves.ended.append((Busy(), (asker,)))
                return self._fill(moves, now)
            if full is None:
                first = min((each.turn for each in self._waiting_in(self._lanes.values())), default=None)
            lane = self._lanes.get(question.sensor)
            exchange = None if once or lane is None else self._last(lane, question)
        if exchange is None:
            if lane is None:
                lane = self._lanes[question.sensor] = _Lane(question.sensor, asker.known)
            turn = self._new_turn(now)
            exchange = _Exchange(question, request, lane, first or turn, once, turn[1])
            lane.queue.append(exchange)
            self._waiting += 1
            if len(lane.queue) == 1:
                self._queue_changed(lane)
        asker.device = self._device
        asker.holder.askers[asker] = None
        asker.exchange = exchange
        asker.sent = exchange.on_wire
        exchange.askers[asker] = None
        self.in_flight += 1
        spelled = self._spelled.get((question.sensor, folded), question.command)
        self._spelled.remember((question.sensor, folded), spelled if spelled == question.command else None)
        self._limits.add(now + timeout, asker)
        self.bound = min(self.bound, now + timeout)
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
        if self._missed:
            self._end_delays(reports, now)
        if not self._lanes:  # nothing was asked: most lines of most devices
            moves.handed = [(report, None) for report in reports]
            return moves
        for report in reports:
            lane = self._lanes.get(report.sensor)
            if lane is not None and not lane.known:
                lane.known = True
                self._queue_changed(lane)
            if lane is None or not lane.queue or not self._answers(report, lane.queue[0]):
                moves.handed.append((report, None))
                continue
            exchange = lane.queue[0]
            question = exchange.question
            moves.handed.append((report, question))
            answer = Answer(report, question.command, at, self._device)
            self._missed.pop(report.sensor, None)
            if self._buffer.messages:
                self._buffer.answered(exchange.message)
            self._leave_wire(lane)
            lane.queue.popleft()
            self._end(exchange, answer, moves)
            self._queue_changed(lane)
            if not exchange.once and not question.arguments:
                self._recent.remember((question.sensor, question.command), (now, answer))
            if exchange.tag is not None or report.command is not None:
                self._shown.remember(report.sensor, None)
                self._unsure.pop(report.sensor, None)
            else:
                self._unsure.remember(report.sensor, None)
        return self._fill(moves, now) if self._waiting else moves

    def expire(self, now: float) -> Moves[W]:
        """
        End what has waited too long (protocol §4.4), and write what may be written now.
        """
        return self._fill(self._begin(now), now)

    def link_up(self, now: float, board: BoardKind = UNKNOWN_BOARD) -> Moves[W]:
        """
        Record that the device was opened (protocol §4.7).

        Args:
            now: See the class.
            board: What is known of the board.
        """
        moves = self._begin(now)
        self.state = "settling"
        self.held = False
        settle = self._rules.settle
        if settle is None:
            settle = SETTLE if board.resets else 0.0
        self._settled_at = now + settle
        buffer = self._rules.buffer
        self._buffer.opened((0 if board.native else BUFFER) if buffer is None else buffer)
        for lane in self._lanes.values():
            if lane.until == inf:
                self._reserve(lane, now + self._patience(lane.sensor))
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
        self._clear(moves, Offline)
        for lane in list(self._lanes.values()):
            if lane.until == _FREE:
                del self._lanes[lane.sensor]
            else:
                lane.until = inf
        return moves

    def release(self, now: float) -> Moves[W]:
        """
        Write again after `held`.
        """
        self.held = False
        return self.expire(now)

    def withdraw(self, askers: Iterable[Asker[W]], now: float) -> Moves[W]:
        """
        End some askers of this link, as far as they have not ended, as if their time limit had.
        """
        moves = self._begin(now)
        for asker in askers:
            if asker.exchange is not None:
                self._withdraw(asker, asker.exchange, moves)
        return self._fill(moves, now)

    def stop(self, now: float) -> Moves[W]:
        """
        Fail all waiting requests with `Stopped`.
        """
        moves = self._begin(now)
        self._clear(moves, Stopped)
        for lane in self._lanes.values():
            lane.until = _FREE
        self._lanes.clear()
        return moves

    def _begin(self, now: float) -> Moves[W]:
        # Rule 9: first end what has expired, limits before patience.
        moves: Moves[W] = Moves()
        if self.bound > now:
            return moves
        self._settle(now)
        if self._room_at <= now:
            self._room_at = inf
        while (limit := self._limits.first()) and limit[0] <= now:
            asker = limit[1]
            exchange = asker.exchange
            assert exchange is not None  # or it would be no entry of `_limits`
            self._withdraw(asker, exchange, moves)
        while (reserved := self._reserved.first()) and reserved[0] <= now:
            self._give_up(reserved[1], moves)
        self.bound = self.deadline
        return moves

    def _withdraw(self, asker: Asker[W], exchange: _Exchange[W], moves: Moves[W]) -> None:
        # Let one asker give up; a question for which nobody waits any more leaves the queue.
        del exchange.askers[asker], asker.holder.askers[asker]
        asker.exchange = None
        self.in_flight -= 1
        moves.ended.append((TimedOut() if asker.sent else Busy(), (asker,)))
        if not exchange.askers and not exchange.on_wire:
            lane = exchange.lane
            headed = lane.queue[0] is exchange
            lane.queue.remove(exchange)
            self._waiting -= 1
            if headed:
                self._queue_changed(lane)

    def _last(self, lane: _Lane[W], question: Question) -> _Exchange[W] | None:
        # The last exchange of a lane, if it is this question: then another asker joins it.
        return lane.queue[-1] if lane.queue and lane.queue[-1].question == question else None

    def _is_full(self, lane: _Lane[W] | None) -> bool:
        return lane is not None and bool(lane.queue) and len(lane.queue) - lane.queue[0].on_wire >= self.sensor_limit

    def _waiting_in(self, lanes: Iterable[_Lane[W]]) -> Iterator[_Exchange[W]]:
        return (exchange for lane in lanes for exchange in lane.queue if not exchange.on_wire)

    def _displace(self, lane: _Lane[W] | None, newcomer: Holder, moves: Moves[W]) -> bool:
        # Rule 10. End the newest question of whoever holds most in a lane, or on the link; return False, and end none,
        # if the newcomer is none.
        for asker in newcomer.askers:
            exchange = asker.exchange
            if exchange is None or exchange.on_wire or asker.device != self._device:
                continue
            if lane is None or exchange.lane is lane:
                return False
        there = self._waiting_in(self._lanes.values() if lane is None else (lane,))
        newest = newest_of_most((*_holding(exchange), exchange) for exchange in there)
        for asker in list(newest.askers):
            self._withdraw(asker, newest, moves)
        return True

    def _settle(self, now: float) -> None:
        if self.state == "settling" and self._settled_at <= now:
            self.state = "online"

    def _give_up(self, lane: _Lane[W], moves: Moves[W]) -> None:
        # Patience has expired. No asker's limit has, or it would have ended before.
        if not lane.queue or not lane.queue[0].on_wire:
            lane.until = _FREE
        else:
            exchange = lane.queue[0]
            ended = lane.until
            self._leave_wire(lane)
            missed = self._missed.get(lane.sensor)
            count = 1 if missed is None else missed.in_a_row + 1
            delay = min(DELAY * 2.0 ** (min(count, 10) - 1), DELAY_LIMIT)
            self._missed.remember(lane.sensor, _Missed(count, ended + delay))
            moves.unanswered = (*moves.unanswered, lane.sensor)
            if exchange.askers and not exchange.once:
                exchange.turn = self._new_turn(ended)
                self._waiting += 1
            else:
                lane.queue.popleft()
                self._end(exchange, TimedOut(), moves)
        self._queue_changed(lane)

    def _new_turn(self, now: float) -> tuple[float, int]:
        self._turns += 1
        return now, self._turns

    def _end_delays(self, reports: Sequence[Report], now: float) -> None:
        # Sensors that report are no longer behind, though only an answer makes them equal to the others.
        for report in reports:
            missed = self._missed.get(report.sensor)
            if missed is not None and missed.until > now:
                self._missed[report.sensor] = missed._replace(until=now)
                lane = self._lanes.get(report.sensor)
                if lane is not None:
                    self._queue_changed(lane)

    def _end(self, exchange: _Exchange[W], outcome: Answer | RequestError, moves: Moves[W]) -> None:
        # End all who wait for an exchange.
        if exchange.askers:
            askers = list(exchange.askers)
            moves.ended.append((outcome, askers))
            self.in_flight -= len(askers)
            for asker in askers:
                del asker.holder.askers[asker]
                asker.exchange = None
            exchange.askers.clear()

    def _fill(self, moves: Moves[W], now: float) -> Moves[W]:
        # Rule 2. Only after all of a chunk was matched: a second line of it can't answer what is written now.
        self._room_at = inf
        if self.state != "online" or self.held:
            return moves
        while self._waiting and self._on_wire < self._rules.window and (lane := self._next(now)):
            lane.order = None
            exchange = lane.queue[0]
            exchange.tag = self._next_tag()
            self._tags += 1
            exchange.on_wire = True
            self._on_wire += 1
            self._behind_on_wire += lane.behind
            self._behind_last = lane.behind
            self._waiting -= 1
            for asker in exchange.askers:
                asker.sent = True
            patience = self._patience(lane.sensor)
            self._reserve(lane, now + patience)
            if self._buffer.limit:
                exchange.message = self._buffer.add(exchange.request, exchange.tag, lane.silent, now)
            moves.send.append(Send(exchange.request, exchange.tag, patience))
        self.bound = min(self.bound, self._room_at)
        return moves

    def _next(self, now: float) -> _Lane[W] | None:
        # Return whose message is written next; None if there is no place for it.
        ready, behind = self._ready.first(), None
        room_at = self._buffer.free_at(now) if self._buffer.messages else None
        # One of several places is never given to a sensor that does not answer.
        if self._behind_on_wire < self._most_behind:
            behind = self._behind.first()
            if behind is not None and room_at is not None and not self._leaves_place(behind[1]):
                self._room_at = room_at
                behind = None
        # Nor are two messages in a row written to such a sensor.
        if behind is not None and (ready is None or (behind[0] < ready[0] and not self._behind_last)):
            ready = behind
        if ready is None:
            return None
        lane = ready[1]
        # A longer message is not overtaken by shorter ones for which there is room.
        if room_at is not None and not self._buffer.fits(lane.queue[0].request, self._next_tag()):
            self._room_at = room_at
            return None
        return lane

    def _next_tag(self) -> str | None:
        return f"{self._tags & 0xFFFFFFFF:x}" if self._rules.tags else None  # 8 characters at most, protocol §2

    def _leaves_place(self, lane: _Lane[W]) -> bool:
        if self._rules.window == 1 or not lane.silent:
            return True
        return self._buffer.leaves_place(lane.queue[0].request, self._next_tag())

    def _answers(self, report: Report, exchange: _Exchange[W]) -> bool:
        # Rule 5.
        if not exchange.on_wire:
            return False
        if exchange.tag is not None:
            return report.tag == exchange.tag
        command = exchange.question.command
        if report.command is not None:
            if report.command == command:
                return True
            folded = fold(command)
            return fold(report.command) == folded and self._spelled.get((report.sensor, folded)) is not None
        if report.left_out or report.sensor in self._shown:
            return False
        fields = self._fields.get(fold(command)) if self._fields else None
        return fields is None or any(name in fields for name, _ in report.values)

    def _patience(self, sensor: str) -> float:
        patience = self._rules.sensor_patience.get(sensor, self._rules.patience)
        if patience is None:
            return PATIENCE if sensor in self._shown else PATIENCE_UNSURE
        return patience

    def _reserve(self, lane: _Lane[W], until: float) -> None:
        lane.until = until
        self._reserved.add(until, lane)
        self.bound = min(self.bound, until)

    def _leave_wire(self, lane: _Lane[W]) -> None:
        lane.queue[0].on_wire = False
        lane.until = _FREE
        self._on_wire -= 1
        self._behind_on_wire -= lane.behind

    def _queue_changed(self, lane: _Lane[W]) -> None:
        # To be called after anything that may have changed which exchange is first.
        if lane.until != _FREE:
            return
        if not lane.queue:
            lane.order = None
            del self._lanes[lane.sensor]
            return
        order = lane.queue[0].turn
        missed = self._missed.get(lane.sensor)
        lane.silent = missed is not None
        behind = lane.silent or not lane.known
        if missed is not None and missed.until > order[0]:
            order = missed.until, order[1]
        if order != lane.order or behind != lane.behind:
            lane.order, lane.behind = order, behind
            (self._behind if behind else self._ready).add(order, lane)

    def _clear(self, moves: Moves[W], error: type[RequestError]) -> None:
        for lane in self._lanes.values():
            for exchange in lane.queue:
                self._end(exchange, error(), moves)
            lane.queue.clear()
            lane.order = None
        self._waiting = self._on_wire = self._behind_on_wire = 0


def _holding(exchange: _Exchange[W]) -> tuple[Holder, tuple[float, ...]]:
    # For whom a waiting question counts, and its age for `newest_of_most`: one that others have joined seems older.
    if len(exchange.askers) == 1:
        [asker] = exchange.askers
        return asker.holder, (True, exchange.asked)
    holders = [asker.holder for asker in exchange.askers]
    first = next((holder for holder in holders if not holder.gone), holders[0])
    return first, (all(holder is first or holder.gone for holder in holders), exchange.asked)
