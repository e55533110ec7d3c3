"""
Which answer belongs to which request, and what is asked next (protocol §4).

The rule of the whole project: an answer is never given to a request it does not belong to, and no reading is lost.
One `PendingRequests` a link. It opens nothing and calls nobody: time comes in as `now`, and every call returns the
`Moves` that its caller has to make.

Words: a *question* is a sensor, a command and its arguments; an *asker* is one request waiting for its answer; an
*errand* is a question with its askers, in the line of its sensor; a *message* is an errand that was written to the
wire, and a *lane* is a sensor's line with the time until which it is taken.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import inf
from typing import Generic, TypeVar

from usbgate.core.containers import BoundedDict, LazyHeap
from usbgate.core.errors import Busy, Offline, RequestError, Stopped, TimedOut
from usbgate.core.model import Answer, Question, Report, Request, Send

W = TypeVar("W")

QUESTIONS_PER_SENSOR = 64  # waiting, protocol §3: more than people and scripts have for one sensor
QUESTIONS_PER_LINK = 4096  # waiting, protocol §3: at 9600 baud some minutes of work
SENSORS_REMEMBERED = 10_000  # protocol §3

PATIENCE = 5.0  # seconds, protocol §4.4
PATIENCE_UNSURE = 10.0  # seconds, for a sensor whose late answer could be mistaken

_QUIET = -inf  # a lane that waits for nothing


@dataclass(frozen=True, slots=True)
class Rules:
    """
    What the configuration says about asking over one link.

    Attributes:
        window: How many messages may be on the wire at a time.
        tags: Whether the device echoes a `TAG`; then nothing else tells what it answers.
        settle: Seconds after opening during which nothing is written.
        patience: Seconds for which a message is waited for; None for the protocol's defaults.
        sensor_patience: The same for single sensors; wins.
        once: Commands that are written exactly as often as they are asked (`coalesce = false`).
        fields: For a command, the fields of which an answer without `MSG` carries at least one.
    """

    window: int = 4
    tags: bool = False
    settle: float = 0.0
    patience: float | None = None
    sensor_patience: Mapping[str, float] = field(default_factory=dict)
    once: frozenset[str] = frozenset()
    fields: Mapping[str, frozenset[str]] = field(default_factory=dict)


@dataclass(slots=True)
class Moves(Generic[W]):
    """
    What is to be done, in this order of kinds; within one, in order.

    Attributes:
        handed: Each report that was given in, with the question that it answered, if any.
        answered: Waiters and their answers.
        failed: Waiters and what became of their requests.
        send: Messages to write.
    """

    handed: list[tuple[Report, Question | None]] = field(default_factory=list)
    answered: list[tuple[W, Answer]] = field(default_factory=list)
    failed: list[tuple[W, RequestError]] = field(default_factory=list)
    send: list[Send] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.send or self.answered or self.failed or self.handed)


@dataclass(eq=False, slots=True)
class _Asker(Generic[W]):
    waiter: W
    errand: _Errand[W]
    sent: bool  # whether a message of its question was on the wire while it waited


@dataclass(eq=False, slots=True)
class _Errand(Generic[W]):
    question: Question
    request: Request
    lane: _Lane[W]
    turn: int
    once: bool
    on_wire: bool = False
    tag: str | None = None
    askers: dict[_Asker[W], None] = field(default_factory=dict)  # an ordered set


@dataclass(eq=False, slots=True)
class _Lane(Generic[W]):
    # Only line[0] can be on the wire. A lane can be taken with nothing on the wire: after a link dropped, an answer
    # to what was asked before may still come.
    sensor: str
    until: float = _QUIET  # taken until then; inf while the link is down
    line: deque[_Errand[W]] = field(default_factory=deque)


class PendingRequests(Generic[W]):
    """
    All that was asked over one link and is not answered yet.

    In every call, `now` is monotonic seconds, never less than in the call before.

    Attributes:
        bound: A moment that `deadline` is not before; other than that, it need not be looked for.
    """

    def __init__(self, device: str, rules: Rules, first_tag: int = 0) -> None:
        """
        Begin with a link that is `starting`.

        Args:
            device: The link's name, for the answers.
            rules: What the configuration says.
            first_tag: Where to begin counting tags; best a random number, so that an answer to what another
                process asked before is not mistaken.
        """
        self._device = device
        self._rules = rules
        self._tags = first_tag
        self._turns = 0
        self._state = "starting"
        self._settled_at = inf
        self.bound = inf
        self._held = False
        self._lanes: dict[str, _Lane[W]] = {}
        self._waiting = 0  # errands in line that are not on the wire
        self._on_wire = 0
        self._in_flight = 0
        self._limits: LazyHeap[float, _Asker[W]] = LazyHeap(lambda _, asker: asker in asker.errand.askers)
        self._taken: LazyHeap[float, _Lane[W]] = LazyHeap(lambda until, lane: lane.until == until)
        # Sensors that left their last message unanswered come after all others, then it goes by turn.
        self._ready: LazyHeap[tuple[bool, int], _Lane[W]] = LazyHeap(
            lambda key, lane: lane.until == _QUIET and bool(lane.line) and lane.line[0].turn == key[1]
        )
        self._shown: BoundedDict[str, None] = BoundedDict(SENSORS_REMEMBERED)  # answered with MSG or TAG
        self._unsure: BoundedDict[str, None] = BoundedDict(SENSORS_REMEMBERED)  # answered with neither
        self._unanswered: BoundedDict[str, None] = BoundedDict(SENSORS_REMEMBERED)
        self._recent: BoundedDict[tuple[str, str], tuple[float, Answer]] = BoundedDict(SENSORS_REMEMBERED)

    @property
    def state(self) -> str:
        """
        The link's state: `starting`, `settling`, `online` or `offline`.
        """
        return self._state

    @property
    def deadline(self) -> float:
        """
        When `expire` is to be called next, if nothing else happens before; inf for never.
        """
        limit, taken = self._limits.first(), self._taken.first()
        return min(
            limit[0] if limit else inf,
            taken[0] if taken else inf,
            self._settled_at if self._state == "settling" else inf,
        )

    @property
    def in_flight(self) -> int:
        """
        How many askers wait.
        """
        return self._in_flight

    @property
    def idle(self) -> bool:
        """
        Whether no sensor has anything in line or on the wire.
        """
        return not self._lanes

    @property
    def unsure(self) -> list[str]:
        """
        The sensors that have answered with neither `MSG` nor `TAG`, where §4.6 applies.
        """
        return list(self._unsure)

    def ask(self, request: Request, waiter: W, timeout: float, now: float) -> Moves[W]:
        """
        Take in a request; its waiter is answered or failed exactly once, now or by a later call.

        Args:
            request: What is asked.
            waiter: Whatever the caller wants to find in the `Moves` again.
            timeout: Seconds until this asker gives up.
            now: See the class.
        """
        moves = self._begin(now)
        question = request.question
        once = question.command in self._rules.once
        if request.max_age is not None and not once and not question.arguments:
            recent = self._recent.get((question.sensor, question.command))
            if recent is not None and now - recent[0] <= request.max_age:
                moves.answered.append((waiter, recent[1]._replace(recent=True)))
                return self._fill(moves, now)
        if self._state == "offline":
            moves.failed.append((waiter, Offline()))
            return moves
        lane = self._lanes.get(question.sensor)
        if lane is not None and not once and lane.line and lane.line[-1].question == question:
            errand = lane.line[-1]
        else:
            waiting = len(lane.line) - lane.line[0].on_wire if lane is not None and lane.line else 0
            if waiting >= QUESTIONS_PER_SENSOR or self._waiting >= QUESTIONS_PER_LINK:
                moves.failed.append((waiter, Busy()))
                return self._fill(moves, now)
            if lane is None:
                lane = self._lanes[question.sensor] = _Lane(question.sensor)
            self._turns += 1
            errand = _Errand(question, request, lane, self._turns, once)
            lane.line.append(errand)
            self._waiting += 1
            if len(lane.line) == 1:
                self._free(lane)
        asker = _Asker(waiter, errand, errand.on_wire)
        errand.askers[asker] = None
        self._in_flight += 1
        self._limits.add(now + timeout, asker)
        self.bound = min(self.bound, now + timeout)
        return self._fill(moves, now)

    def received(self, reports: Sequence[Report], now: float, at: int) -> Moves[W]:
        """
        Take in the reports of one chunk; each is handed on exactly once.

        Args:
            reports: In the order in which they came.
            now: See the class.
            at: The wall clock at that moment, whole milliseconds since 1970, for the answers.
        """
        moves = self._begin(now)
        if not self._lanes:  # nothing was asked: most lines of most devices
            moves.handed = [(report, None) for report in reports]
            return moves
        for report in reports:
            lane = self._lanes.get(report.sensor)
            if lane is None or not lane.line or not self._answers(report, lane.line[0]):
                moves.handed.append((report, None))
                continue
            errand = lane.line[0]
            question = errand.question
            moves.handed.append((report, question))
            answer = Answer(report, question.command, at, self._device)
            moves.answered += [(asker.waiter, answer) for asker in errand.askers]
            self._in_flight -= len(errand.askers)
            errand.askers.clear()
            if not errand.once and not question.arguments:
                self._recent.remember((question.sensor, question.command), (now, answer))
            self._unanswered.pop(report.sensor, None)
            if errand.tag is not None or report.command is not None:
                self._shown.remember(report.sensor, None)
                self._unsure.pop(report.sensor, None)
            else:
                self._unsure.remember(report.sensor, None)
            self._leave_wire(lane)
            lane.line.popleft()
            self._free(lane)
        return self._fill(moves, now)

    def expire(self, now: float) -> Moves[W]:
        """
        Give up on what has waited too long (protocol §4.4), and write what may be written now.
        """
        return self._fill(self._begin(now), now)

    def link_up(self, now: float) -> Moves[W]:
        """
        Record that the device was opened (protocol §4.7).
        """
        moves = self._begin(now)
        self._state = "settling"
        self._held = False
        self._settled_at = now + self._rules.settle
        for lane in self._lanes.values():
            if lane.until == inf:
                self._take(lane, now + self._patience(lane.sensor))
        self.bound = min(self.bound, self._settled_at)
        self._settle(now)
        return self._fill(moves, now)

    def link_down(self, now: float) -> Moves[W]:
        """
        Record that the device went away, or that the first attempt to open it failed (protocol §4.7).
        """
        moves = self._begin(now)
        self._state = "offline"
        self._clear(moves, Offline)
        for lane in list(self._lanes.values()):
            if lane.until == _QUIET:
                del self._lanes[lane.sensor]
            else:
                lane.until = inf
        return moves

    def hold(self) -> None:
        """
        Write nothing more until `release`: the device does not take what was written. Who waits meanwhile waits for
        a place on the wire, and was not asked if its limit ends before.
        """
        self._held = True

    def release(self, now: float) -> Moves[W]:
        """
        Write again.
        """
        self._held = False
        return self.expire(now)

    def stop(self, now: float) -> Moves[W]:
        """
        Fail everybody who waits with `Stopped`.
        """
        moves = self._begin(now)
        self._clear(moves, Stopped)
        for lane in self._lanes.values():
            lane.until = _QUIET
        self._lanes.clear()
        return moves

    def _begin(self, now: float) -> Moves[W]:
        # Rule 9: first end what is over, limits before patience.
        moves: Moves[W] = Moves()
        if self.bound > now:
            return moves
        self._settle(now)
        while (limit := self._limits.first()) and limit[0] <= now:
            asker = limit[1]
            errand = asker.errand
            del errand.askers[asker]
            self._in_flight -= 1
            moves.failed.append((asker.waiter, TimedOut() if asker.sent else Busy()))
            if not errand.askers and not errand.on_wire:
                lane = errand.lane
                headed = lane.line[0] is errand
                lane.line.remove(errand)
                self._waiting -= 1
                if headed:
                    self._free(lane)
        while (taken := self._taken.first()) and taken[0] <= now:
            self._forget(taken[1], moves)
        self.bound = self.deadline
        return moves

    def _settle(self, now: float) -> None:
        if self._state == "settling" and self._settled_at <= now:
            self._state = "online"

    def _forget(self, lane: _Lane[W], moves: Moves[W]) -> None:
        # Patience is over. Nobody's limit is up, or they would be gone by now.
        if not lane.line or not lane.line[0].on_wire:
            lane.until = _QUIET
        else:
            errand = lane.line[0]
            self._leave_wire(lane)
            self._unanswered.remember(lane.sensor, None)
            if errand.askers and not errand.once:
                self._turns += 1
                errand.turn = self._turns
                self._waiting += 1
            else:
                lane.line.popleft()
                moves.failed.extend((asker.waiter, TimedOut()) for asker in errand.askers)
                self._in_flight -= len(errand.askers)
                errand.askers.clear()
        self._free(lane)

    def _fill(self, moves: Moves[W], now: float) -> Moves[W]:
        # Rule 2. Only after a whole chunk was looked at: a second line of it can't answer what is written now.
        if self._state != "online" or self._held:
            return moves
        while self._on_wire < self._rules.window and (ready := self._ready.first()):
            lane = ready[1]
            errand = lane.line[0]
            if self._rules.tags:
                errand.tag = f"{self._tags & 0xFFFFFFFF:x}"  # 8 characters at most, protocol §2
                self._tags += 1
            errand.on_wire = True
            self._on_wire += 1
            self._waiting -= 1
            for asker in errand.askers:
                asker.sent = True
            patience = self._patience(lane.sensor)
            self._take(lane, now + patience)
            moves.send.append(Send(errand.request, errand.tag, patience))
        return moves

    def _answers(self, report: Report, errand: _Errand[W]) -> bool:
        # Rule 5.
        if not errand.on_wire:
            return False
        if errand.tag is not None:
            return report.tag == errand.tag
        command = errand.question.command
        if report.command is not None:
            return report.command == command
        if report.sensor in self._shown:
            return False
        fields = self._rules.fields.get(command)
        return fields is None or any(name in fields for name, _ in report.values)

    def _patience(self, sensor: str) -> float:
        patience = self._rules.sensor_patience.get(sensor, self._rules.patience)
        if patience is None:
            return PATIENCE if sensor in self._shown else PATIENCE_UNSURE
        return patience

    def _take(self, lane: _Lane[W], until: float) -> None:
        lane.until = until
        self._taken.add(until, lane)
        self.bound = min(self.bound, until)

    def _leave_wire(self, lane: _Lane[W]) -> None:
        lane.line[0].on_wire = False
        lane.until = _QUIET
        self._on_wire -= 1

    def _free(self, lane: _Lane[W]) -> None:
        # After anything that may have changed who is first in a line.
        if lane.until != _QUIET:
            return
        if lane.line:
            self._ready.add((lane.sensor in self._unanswered, lane.line[0].turn), lane)
        else:
            del self._lanes[lane.sensor]

    def _clear(self, moves: Moves[W], error: type[RequestError]) -> None:
        for lane in self._lanes.values():
            for errand in lane.line:
                moves.failed.extend((asker.waiter, error()) for asker in errand.askers)
                errand.askers.clear()
            lane.line.clear()
        self._waiting = self._on_wire = self._in_flight = 0
