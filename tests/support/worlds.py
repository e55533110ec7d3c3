"""
Simulated worlds for `usbgate.core.pending`: a device that knows which message each of its lines truly answers, and a
model of `PendingRequests` that follows protocol §4 alone and is compared with every move.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from tests.support.connections import NETWORKS, Connection, of_most
from usbgate.core import exchanges
from usbgate.core.errors import Busy, NotHeard, Offline, RequestError, TimedOut
from usbgate.core.exchanges import Moves
from usbgate.core.fieldline import join_fields
from usbgate.core.holders import Holder, Holders
from usbgate.core.model import Answer, BoardKind, Priority, Question, Report, Request, Send
from usbgate.core.pending import PendingRequests
from usbgate.core.rules import Rules

# All times of a world are multiples of this, so that sums and differences of them are exact.
TICK = 0.25

TOGGLE = "T"  # never joined in any world
HUMIDITY = "K"  # has `fields` in some worlds


class Violated(AssertionError):
    """
    A move broke a rule of protocol §4.
    """


def demand(truth: bool, rule: str, *details: object) -> None:
    """
    Fail the world unless it is so.
    """
    if not truth:
        raise Violated(" | ".join([rule, *map(str, details)]))


@dataclass(eq=False, slots=True)
class Asker:
    """
    One request on its way, as the world knows it; also the waiter that `PendingRequests` is given.
    """

    request: Request
    asked: float
    deadline: float
    connection: Connection
    number: int  # in the order of asking
    written: bool = False  # whether its own errand was on the wire while it waited
    unanswered: int = 0  # messages, before it was held again
    ended: bool = False


# The priority of a question, when it was asked or took a new turn, and how many turns there were before.
Turn = tuple[int, float, int]


@dataclass(eq=False, slots=True)
class Errand:
    """
    A question in a sensor's line, with all that joined it.
    """

    question: Question
    request: Request
    once: bool
    askers: list[Asker]
    turn: Turn
    number: int  # of who asked it first
    unanswered: int = 0

    @property
    def holder(self) -> Connection | None:
        """
        The connection for which it counts: of those that are left the first that asked; None if all are gone.
        """
        return next((asker.connection for asker in self.askers if not asker.connection.gone), None)

    @property
    def joined(self) -> bool:
        """
        Whether connections wait for it besides its holder.
        """
        return len({asker.connection for asker in self.askers if not asker.connection.gone}) > 1


@dataclass(eq=False, slots=True)
class Message:
    """
    A question written to the wire: the label of the device's lines.
    """

    question: Question
    tag: str | None
    written: float
    patience: float
    until: float
    answered: bool = False
    forgotten: bool = False
    flapped: bool = False
    size: int = 0
    missed: bool = False  # whether its sensor had left its last message unanswered when it was written
    behind: bool = False  # whether it had, or was unknown


def may_slip(rules: Rules, shown_msg: bool, report: Report, label: Message | None, message: Message) -> str:
    """
    Return which of the ambiguous cases of protocol §4.6 this is; empty if it is none.

    Args:
        rules: The settings of the link.
        shown_msg: Whether this sensor has answered this link with a matching `MSG` before.
        report: The line that was accepted as the answer to `message`.
        label: The message to which it truly belongs; None for an unasked one.
        message: The message on the wire, another one.
    """
    if label is message:
        raise ValueError("that is no slip")
    if rules.tags or report.sensor != message.question.sensor:
        return ""  # "With tags nothing slips", and nothing ever slips to another sensor.
    if report.command is not None:
        if report.command.lower() != message.question.command.lower():
            return ""  # "with MSG, the same only if it carries the same command"
    else:
        if shown_msg:
            return ""  # "until a sensor has answered with MSG once, it counts as one without"
        wanted = rules.fields.get(message.question.command)
        if wanted is not None and wanted.isdisjoint(key for key, _ in report.values):
            return ""
    if label is None:
        return "unasked"
    if label.answered:
        return "second"  # "a second line of one answer, a repeated answer"
    if label.forgotten:
        return "late"  # "one later than patience"
    return ""


def message_size(request: Request, tag: str | None) -> int:
    """
    Return the bytes of a message in the dialect `fields`, with its line end.
    """
    return len(request.line) + (0 if tag is None else len(f"_TAG:{tag}")) + 1


def replies(moves: Moves[Asker]) -> list[tuple[Asker, Answer]]:
    """
    Return the askers that were answered, each with its answer.
    """
    ended = [(asker.waiter, outcome) for outcome, askers in moves.ended for asker in askers]
    return [(waiter, outcome) for waiter, outcome in ended if isinstance(outcome, Answer)]


def failures_of(moves: Moves[Asker]) -> list[tuple[Asker, RequestError]]:
    """
    Return the askers that failed, each with its error.
    """
    ended = [(asker.waiter, outcome) for outcome, askers in moves.ended for asker in askers]
    return [(waiter, outcome) for waiter, outcome in ended if isinstance(outcome, RequestError)]


class LinkBook:
    """
    One link: the real `PendingRequests`, and a model of it.

    Every call is made through here and checked against the model: which askers must have ended and how, which message a
    report may answer, and what may be written.
    """

    def __init__(
        self, name: str, rules: Rules, seen: Counter[str], first_tag: int = 0, unknown: set[str] | None = None
    ) -> None:
        self.name = name
        self.rules = rules
        self._unknown = set() if unknown is None else unknown  # sensors that no link has reported yet
        self._asked_unknown: set[str] = set()  # those that were not known when they were asked, until they report
        self.pending: PendingRequests[Asker] = PendingRequests(name, rules, message_size, first_tag)
        self.seen = seen  # how often each interesting thing happened, over many worlds
        self.messages: list[Message] = []
        self.state = "starting"
        self._settled_at = math.inf
        self._lines: dict[str, list[Errand]] = {}
        self._kept: dict[str, list[Asker]] = {}  # who waits until a sensor reports
        self._wire: dict[str, Message] = {}
        self._held: dict[str, Message] = {}  # on the wire when the link dropped, not yet forgotten
        self._shown_msg: set[str] = set()
        self._missed: dict[str, tuple[int, float]] = {}  # messages left unanswered in a row, the end of the delay
        self._spelled: dict[tuple[str, str], set[str]] = {}  # by sensor and command in lower case
        self._first_tag = first_tag
        self._turns = 0
        self._buffered: list[Message] = []  # may be unread, in the order in which they were written
        self._newest: dict[Question, tuple[float, int, Report]] = {}
        self._check(0.0)

    @property
    def askers(self) -> list[Asker]:
        """
        All askers that wait, by the model.
        """
        return [asker for line in self._lines.values() for errand in line for asker in errand.askers]

    @property
    def kept(self) -> list[Asker]:
        """
        All askers that wait until their sensors report.
        """
        return [asker for kept in self._kept.values() for asker in kept]

    def ask(self, asker: Asker, now: float) -> None:
        """
        Ask, as the gateway does.
        """
        request = asker.request
        failures = self._end_what_is_over(now)
        limit = asker.deadline - now
        question = request.question
        known = question.sensor not in self._unknown
        moves = self.pending.ask(exchanges.Asker(request, now, asker, asker.connection.holder, known), limit, now)
        once = question.command in self.rules.once
        recent = self._newest.get(question)
        if (
            request.max_age is not None
            and recent is not None
            and not question.arguments
            and not once
            and now - recent[0] <= request.max_age
            # §4.7 and §4.8 leave open whether a recent answer is used while the link is offline.
            and (self.state != "offline" or replies(moves))
        ):
            self.seen["recent"] += 1
            demand(len(replies(moves)) == 1, "§4.8 an answer that is recent enough is given at once", moves)
            waiter, answer = replies(moves)[0]
            demand(waiter is asker, "§4.8 the answer goes to who asked")
            self._compare_answer(answer, recent[2], question, recent[1], recent=True)
            asker.ended = True
        else:
            demand(not replies(moves), "§4.8 nothing is answered from memory here", moves)
            if request.when_heard:
                self._kept.setdefault(question.sensor, []).append(asker)
            elif self.state == "offline":
                failures[asker] = {Offline}
            elif (turn := self._make_room(asker, failures, now)) is None:
                failures[asker] = {Busy}
            else:
                if question.sensor not in self._lines.keys() | self._held.keys():
                    self._asked_unknown -= {question.sensor}
                    self._asked_unknown |= {question.sensor} & self._unknown
                line = self._lines.setdefault(question.sensor, [])
                if (joined := self._joined(request)) is not None:
                    self.seen["join"] += 1
                    joined.askers.append(asker)
                    asker.written = joined is line[0] and question.sensor in self._wire
                else:
                    joined = Errand(question, request, once, [asker], turn, asker.number)
                    line.insert(self._place(request), joined)
                self._raise(joined, request.priority, now)
            if self.state != "offline" and not request.when_heard:
                self._spelled.setdefault((question.sensor, question.command.lower()), set()).add(question.command)
        demand(not moves.handed, "nothing was received", moves.handed)
        self._compare_failures(moves, failures)
        self._write(moves, now)
        self._check(now)

    def _place(self, request: Request) -> int:
        """
        Return where a new question goes in the line of its sensor: before the polls that wait at the end, unless it is
        a poll itself.
        """
        sensor = request.question.sensor
        line = self._lines.get(sensor, [])
        waiting = range(sensor in self._wire, len(line))
        polls = [n for n in waiting if all(line[m].turn[0] == Priority.POLL for m in range(n, len(line)))]
        return min(polls, default=len(line)) if request.priority < Priority.POLL else len(line)

    def _joined(self, request: Request) -> Errand | None:
        """
        Return the equal question that a request joins, the last one or one that would be written behind it.
        """
        question = request.question
        near = self._lines.get(question.sensor, [])[max(0, self._place(request) - 1) :]
        found = [errand for errand in near if errand.question == question and question.command not in self.rules.once]
        if not found:
            return None
        return near[-1] if near[-1] in found else found[0]

    def _raise(self, errand: Errand, priority: int, now: float) -> None:
        """
        Give a question, and those that are written before it, at least a priority.
        """
        line = self._lines[errand.question.sensor]
        if errand.turn[0] > priority and not (errand is line[0] and errand.question.sensor in self._wire):
            self.seen["poll or rule joined"] += 1
            line.remove(errand)
            line.insert(self._place(errand.request._replace(priority=Priority(priority))), errand)
        for each in line[: line.index(errand) + 1]:
            if each.turn[0] > priority:
                self.seen["raised before a person's"] += each is not errand
                each.turn = self._turn(now, priority)

    def _make_room(self, asker: Asker, failures: dict[Asker, set[type[RequestError]]], now: float) -> Turn | None:
        """
        Rule 10: let a newcomer displace a question where the queue is full. Return the turn of its own question; None
        if there is no room for it.
        """
        priority = asker.request.priority
        turn = self._turn(now, priority)
        if self._joined(asker.request) is not None:
            return turn
        sensor = asker.request.question.sensor
        waiting = {each: line[each in self._wire :] for each, line in self._lines.items()}
        in_all = [errand for line in waiting.values() for errand in line]
        if len(waiting.get(sensor, ())) >= self.pending.queues.sensor_limit:
            there, which = waiting[sensor], "sensor"
        elif len(in_all) >= self.pending.queues.link_limit:
            there, which = in_all, "link"
        else:
            return turn
        if any(other.connection is asker.connection for errand in there for other in errand.askers):
            self.seen[f"{which} full"] += 1
            return None
        if priority == Priority.POLL:
            self.seen["displaced by no poll"] += 1
            return None
        held = of_most(there, lambda errand: errand.holder)
        alone = [errand for errand in held if not errand.joined] or held
        newest = max(alone, key=lambda errand: errand.number)
        self.seen[f"{which} full: one displaced"] += 1
        self.seen["displaced: of the gone"] += newest.holder is None
        self.seen["displaced: not the newest"] += newest.number < max(errand.number for errand in there)
        self.seen["displaced: joined by others"] += newest.joined
        self.seen["joined by others, not displaced"] += any(errand.number > newest.number for errand in held)
        failures.update({other: self._codes(other) for other in newest.askers})
        self._lines[newest.question.sensor].remove(newest)
        self._close(newest.question.sensor)
        left = [errand.turn[1:] for errand in in_all if errand is not newest and errand.turn[1] > -math.inf]
        return (priority, *min(left, default=turn[1:])) if which == "link" else turn

    def withdraw(self, askers: Sequence[exchanges.Asker[Asker]], now: float) -> None:
        """
        End some askers early.
        """
        failures = self._end_what_is_over(now)
        for sensor, line in list(self._lines.items()):
            for errand in list(line):
                for asker in [asker.waiter for asker in askers if asker.waiter in errand.askers]:
                    errand.askers.remove(asker)
                    failures[asker] = self._codes(asker)
                if not errand.askers and not (errand is line[0] and sensor in self._wire):
                    line.remove(errand)
            self._close(sensor)
        for asker in [asker.waiter for asker in askers if asker.waiter in self.kept]:
            self._keep_no_longer(asker)
            failures[asker] = {TimedOut if asker.written else NotHeard}
        self._compare(self.pending.withdraw(askers, now), failures, now)

    def receive(self, lines: Sequence[tuple[Report, Message | None]], now: float, at: int) -> None:
        """
        Receive one chunk.

        Args:
            lines: Reports, each a new object, with the message that it truly answers, None if unasked.
            now: The time.
            at: The wall clock.
        """
        failures = self._end_what_is_over(now)
        moves = self.pending.received([report for report, _ in lines], now, at)
        demand(
            len(moves.handed) == len(lines)
            and all(handed[0] is line[0] for handed, line in zip(moves.handed, lines, strict=True)),
            "§4.5 every report is handed on once, in order",
            moves.handed,
        )
        for report, _ in lines:
            self._unknown.discard(report.sensor)
            if report.sensor in self._asked_unknown:
                self._asked_unknown.remove(report.sensor)
                self.seen["known by a report while it waits"] += self._lines.get(report.sensor, []) != []
            if report.sensor in self._missed:
                count, until = self._missed[report.sensor]
                self._missed[report.sensor] = count, min(until, now)
                self.seen["delay ended by a report"] += until > now
        expected: dict[Asker, Report] = {}
        for (report, question), (_, label) in zip(moves.handed, lines, strict=True):
            message = self._wire.get(report.sensor)
            if question is None:
                demand(
                    message is None or not self._answers(report, message),
                    "§4.5 a report that answers by the rules was taken as unasked",
                    report,
                    message,
                )
                if label is not None and label.flapped and not label.forgotten:
                    self.seen["held back after a flap"] += 1
                continue
            if message is None:
                raise Violated(f"§4.5 only the message on the wire to that sensor can be answered | {report}")
            if label is not message:
                case = may_slip(self.rules, report.sensor in self._shown_msg, report, label, message)
                demand(bool(case), "an answer reached another's asker", report, "of", label, "taken for", message)
                self.seen["slip: " + case] += 1
            demand(self._answers(report, message), "§4.5 this report answers nothing", report, message)
            demand(question == message.question, "§4.5 handed on with the question it answered", question, message)
            errand = self._lines[report.sensor].pop(0)
            self._close(report.sensor)
            del self._wire[report.sensor]
            message.answered = True
            if message in self._buffered:
                del self._buffered[: self._buffered.index(message) + 1]
            self.seen["answered"] += 1
            self._missed.pop(report.sensor, None)
            if report.command is not None and not self.rules.tags:
                self._shown_msg.add(report.sensor)
            self._newest[question] = (now, at, report)
            for asker in errand.askers:
                expected[asker] = report
        for waiter, answer in replies(moves):
            demand(waiter in expected, "an answer reached another's asker, or one that had ended", waiter, answer)
            self._compare_answer(answer, expected.pop(waiter), waiter.request.question, at, recent=False)
            demand(not waiter.ended, "every asker ends once", waiter)
            waiter.ended = True
        demand(not expected, "§4.3 one answer goes to all that asked", expected)
        for report, _ in lines:
            self._release(report.sensor)
        self._compare_failures(moves, failures)
        self._write(moves, now)
        self._check(now)

    def expire(self, now: float) -> None:
        """
        Call `expire`.
        """
        failures = self._end_what_is_over(now)
        self._compare(self.pending.expire(now), failures, now)

    def link_up(self, now: float) -> None:
        """
        Open the device.
        """
        failures = self._end_what_is_over(now)
        moves = self.pending.link_up(now, BoardKind(resets=True))
        settle = 2.0 if self.rules.settle is None else self.rules.settle
        self.state, self._settled_at = "settling", now + settle
        if self._settled_at <= now:
            self.state = "online"
        for message in self._held.values():
            message.until = now + message.patience
        self._compare(moves, failures, now)

    def start_board(self, now: float) -> None:
        """
        Report that the board has sent a line since it was opened.
        """
        failures = self._end_what_is_over(now)
        moves = self.pending.board_started(now)
        if self.state == "settling" and self.rules.settle is None:
            self.seen["settled by a line"] += 1
            self.state = "online"
        self._compare(moves, failures, now)

    def link_down(self, now: float) -> None:
        """
        Report that the device was lost, or could not be opened.
        """
        failures = self._end_what_is_over(now)
        moves = self.pending.link_down(now)
        self.state = "offline"
        for sensor in self._lines:
            self._keep_behind(sensor)
        failures.update({asker: {Offline} for asker in self.askers})
        self._lines.clear()
        for sensor, message in self._wire.items():
            message.flapped = True
            self._held[sensor] = message
        self._wire.clear()
        for message in self._held.values():
            message.until = math.inf
        self._compare(moves, failures, now)

    def finished(self) -> None:
        """
        Check that nothing is left.
        """
        demand(not self.askers and not self.kept, "every asker ends", self.askers, self.kept)
        demand(self.pending.queues.in_flight == 0, "nobody is counted any more", self.pending.queues.in_flight)
        demand(self.pending.idle, "every lane is freed")
        demand(self.pending.deadline == math.inf, "nothing stays armed", self.pending.deadline)

    def _compare(self, moves: Moves[Asker], failures: dict[Asker, set[type[RequestError]]], now: float) -> None:
        demand(not replies(moves) and not moves.handed, "nothing was received", moves)
        self._compare_failures(moves, failures)
        self._write(moves, now)
        self._check(now)

    def _end_what_is_over(self, now: float) -> dict[Asker, set[type[RequestError]]]:
        """
        Rule 9: time limits come before patience. Return the askers that must fail in this call, and how.
        """
        failures: dict[Asker, set[type[RequestError]]] = {}
        self._buffered = [message for message in self._buffered if now < message.written + 2.0]
        if self.state == "settling" and self._settled_at <= now:
            self.state = "online"
        for sensor, line in list(self._lines.items()):
            for errand in list(line):
                for asker in [asker for asker in errand.askers if asker.deadline <= now]:
                    errand.askers.remove(asker)
                    failures[asker] = self._codes(asker)
                if not errand.askers and not (errand is line[0] and sensor in self._wire):
                    line.remove(errand)
            self._close(sensor)
        for asker in [asker for asker in self.kept if asker.deadline <= now]:
            self._keep_no_longer(asker)
            self.seen["held to its end"] += 1
            failures[asker] = {TimedOut if asker.written else NotHeard}
        at_once: dict[tuple[int, float], Turn] = {}
        for sensor, message in sorted(self._wire.items(), key=lambda wired: wired[1].until):
            if message.until <= now:
                message.forgotten = True
                self._keep_behind(sensor)
                del self._wire[sensor]
                count = self._missed.get(sensor, (0, 0.0))[0] + 1
                self._missed[sensor] = count, message.until + min(30.0 * 2.0 ** (count - 1), 600.0)
                errand = self._lines[sensor][0]
                errand.unanswered += 1
                only_polls = all(asker.request.priority == Priority.POLL for asker in errand.askers)
                retries = self.rules.retries.get(errand.question.command)
                again = errand.unanswered <= retries if retries is not None else not errand.once and not only_polls
                if again:
                    self._keep_again(errand, "held again")
                    only_polls = all(asker.request.priority == Priority.POLL for asker in errand.askers)
                    again = retries is not None or not only_polls
                if not errand.askers or not again:
                    self.seen["poll not asked again"] += bool(errand.askers) and only_polls and not errand.once
                    self.seen["no more retries"] += bool(errand.askers) and retries is not None
                    failures.update({asker: {TimedOut} for asker in errand.askers})
                    self._lines[sensor].pop(0)
                    self._close(sensor)
                else:
                    self.seen["new turn"] += 1
                    self.seen["toggle asked again"] += errand.once
                    errand.turn = self._turn(message.until, errand.turn[0])
                    errand.turn = at_once.setdefault(errand.turn[:2], errand.turn)  # which comes first is left open
        for sensor, message in list(self._held.items()):
            if message.until <= now:
                message.forgotten = True
                del self._held[sensor]
        return failures

    def _keep_behind(self, sensor: str) -> None:
        """
        Rule 12: what was released and not written is held again; its sensor no longer listens.
        """
        line = self._lines[sensor]
        for errand in line[sensor in self._wire :]:
            if errand.turn[1] == -math.inf:
                self._keep_again(errand, "held again, not written")
                if not errand.askers:
                    line.remove(errand)

    def _keep_again(self, errand: Errand, what: str) -> None:
        for asker in [asker for asker in errand.askers if asker.request.when_heard]:
            self.seen[what] += 1
            errand.askers.remove(asker)
            asker.unanswered = errand.unanswered
            kept = self._kept.setdefault(errand.question.sensor, [])
            self.seen["held again before later ones"] += any(other.number > asker.number for other in kept)
            kept.append(asker)
            kept.sort(key=lambda asker: asker.number)

    def _keep_no_longer(self, asker: Asker) -> None:
        sensor = asker.request.question.sensor
        self._kept[sensor].remove(asker)
        if not self._kept[sensor]:
            del self._kept[sensor]

    def _release(self, sensor: str) -> None:
        """
        Rule 12: what is held for a sensor that has reported is written before all others.
        """
        for asker in self._kept.pop(sensor, []):
            question = asker.request.question
            once = question.command in self.rules.once
            line = self._lines.setdefault(sensor, [])
            first = [errand for errand in line if errand.turn[1] == -math.inf]
            if sensor in self._wire and line[0] not in first:
                first.insert(0, line[0])
            self._spelled.setdefault((sensor, question.command.lower()), set()).add(question.command)
            if first and first[-1].question == question and not once:
                first[-1].askers.append(asker)
                asker.written |= sensor in self._wire and first[-1] is line[0]
                self.seen["heard: joins"] += 1
            else:
                turn = self._turn(-math.inf, Priority.PERSON)
                errand = Errand(question, asker.request, once, [asker], turn, asker.number, asker.unanswered)
                line.insert(len(first), errand)
                self.seen["heard"] += 1
                self.seen["heard: before others of its sensor"] += line[-1].turn[1] > -math.inf

    def _codes(self, asker: Asker) -> set[type[RequestError]]:
        if asker.written:
            return {TimedOut}
        others = [
            message
            for message in self.messages
            if message.question == asker.request.question and message.until > asker.asked
        ]
        # A message of the same question from elsewhere in the queue: §4.4 allows both.
        return {TimedOut, Busy} if others else {Busy}

    def _close(self, sensor: str) -> None:
        if not self._lines[sensor]:
            del self._lines[sensor]

    def _answers(self, report: Report, message: Message) -> bool:
        """
        Rule 5 for the message on the wire to that sensor.
        """
        if self.rules.tags:
            return report.tag == message.tag
        if report.command is not None:
            command = message.question.command
            same = report.command.lower() == command.lower()
            if same and report.command != command:
                self.seen["another spelling"] += 1
            two = len(self._spelled[report.sensor, command.lower()]) > 1
            return report.command == command if two else same
        if report.sensor in self._shown_msg:
            return False
        wanted = self.rules.fields.get(message.question.command)
        return wanted is None or not wanted.isdisjoint(key for key, _ in report.values)

    def _compare_answer(self, answer: Answer, report: Report, question: Question, at: int, recent: bool) -> None:
        demand(answer.report is report, "the answer is the report that answered", answer, report)
        demand(
            (answer.command, answer.at, answer.device, answer.recent) == (question.command, at, self.name, recent),
            "an answer says what it answers, when, by which link, and whether from memory",
            answer,
        )

    def _compare_failures(self, moves: Moves[Asker], failures: dict[Asker, set[type[RequestError]]]) -> None:
        for waiter, error in failures_of(moves):
            demand(waiter in failures, "nobody fails before it is time, nor twice", error.code, waiter)
            codes = failures.pop(waiter)
            demand(type(error) in codes, "it fails with the right code", error.code, codes, waiter)
            demand(not waiter.ended, "every asker ends once", waiter)
            waiter.ended = True
            self.seen[error.code] += 1
        demand(not failures, "who is over fails at once", failures)

    def _write(self, moves: Moves[Asker], now: float) -> None:
        for send in moves.send:
            self._write_one(send, now)

    def _write_one(self, send: Send, now: float) -> None:
        question = send.request.question
        sensor = question.sensor
        demand(self.state == "online", "§4.7 nothing is written while the link is not ready", self.state, send)
        demand(sensor not in self._wire, "§4.2 one message per sensor is on the wire at a time", send)
        demand(sensor not in self._held, "§4.7 a sensor stays taken after a flap", send)
        demand(len(self._wire) < self.rules.window, "§4.2 at most `window` messages are on the wire", send)
        demand(sensor in self._lines, "nobody asked for that", send)
        errand = self._lines[sensor][0]
        demand(errand.question == question, "§4.2 questions of a sensor wait in order", send, errand)
        if errand.once and not errand.unanswered:
            demand(not errand.askers[0].written, "§4.3 a toggle is written as often as it is asked", send)
            demand(send.request is errand.askers[0].request, "§4.3 each toggle is its own request", send)
        demand(self._fits(sensor), "§4.2 more than the board's buffer holds", send, self._buffered)
        first = [self._candidates(of_equals)[:1] for of_equals in (all, any)]
        demand(
            any(self._order(sensor) == self._order(other) for others in first for other in others),
            "§4.2 the place goes to who was asked first, but one is kept from sensors that do not answer",
            send,
            first,
        )
        if self.rules.buffer and self.rules.window > 1:
            demand(self._leaves_place(sensor), "§4.2 a place in the buffer is kept, too", send)
        for other in self._candidates(any):
            # As it would be without the delay, or without the row in which it grows.
            if self._lines[other][0].turn < errand.turn:
                missed = self._missed.get(other, (0, 0.0))[0]
                self.seen["overtakes one that is behind"] += missed > 0
                self.seen["behind for longer"] += missed > 1
        self._check_patience(send)
        demand((send.tag is not None) == self.rules.tags, "a tag goes out where tags are on", send)
        if send.tag is not None:
            demand(all(send.tag != message.tag for message in self.messages), "no tag is used again", send)
        message = Message(question, send.tag, now, send.patience, now + send.patience)
        message.size = message_size(send.request, send.tag)
        message.missed, message.behind = self._is_silent(sensor), self._is_behind(sensor)
        self._buffered.append(message)
        self.messages.append(message)
        self._wire[sensor] = message
        for asker in errand.askers:
            asker.written = True

    def _turn(self, when: float, priority: int) -> Turn:
        self._turns += 1
        return priority, when, self._turns

    def _order(self, sensor: str) -> Turn:
        """
        Return whose the first question of a sensor is, and when it counts as asked.
        """
        priority, when, number = self._lines[sensor][0].turn
        until = self._missed.get(sensor, (0, 0.0))[1]
        return priority, max(when, until) if when > -math.inf else when, number

    def _candidates(self, of_equals: Callable[[Iterable[bool]], bool] = all) -> list[str]:
        """
        Return the sensors that may get the next place, in their order.

        Args:
            of_equals: Of equals any may come first: whether `all` must leave a place to others, or `any`.
        """
        waiting = sorted(self._lines.keys() - self._wire.keys() - self._held.keys(), key=self._order)
        if len(self._wire) >= max(1, self.rules.window - 1):
            self.seen["place kept for people"] += any(map(self._is_automatic, waiting))
            waiting = [sensor for sensor in waiting if not self._is_automatic(sensor)]
        behind = [sensor for sensor in waiting if self._is_behind(sensor)]
        others = [sensor for sensor in waiting if sensor not in behind]
        if self.rules.window > 1 and behind:
            first = [sensor for sensor in behind if self._order(sensor) == self._order(behind[0])]
            if not self._few_behind or (self.rules.buffer and not of_equals(map(self._leaves_place, first))):
                return others
        if others and self.messages and self.messages[-1].behind:
            self.seen["not two in a row"] += others != waiting and others[0] != waiting[0]
            return others
        return waiting

    def _is_automatic(self, sensor: str) -> bool:
        """
        Return whether the first question of a sensor is one of a rule or a poll.
        """
        return self._lines[sensor][0].turn[0] > Priority.PERSON

    def _is_behind(self, sensor: str) -> bool:
        return self._is_silent(sensor) or sensor in self._asked_unknown

    def _is_silent(self, sensor: str) -> bool:
        """
        Return whether a sensor left its last message unanswered, and has not reported just now.
        """
        return sensor in self._missed and self._lines[sensor][0].turn[1] > -math.inf

    @property
    def _few_behind(self) -> bool:
        return sum(message.behind for message in self._wire.values()) < self.rules.window - 1

    def _size(self, sensor: str) -> int:
        """
        Return the size of the next message to a sensor, if it is the next on the wire.
        """
        tag = f"{self._first_tag + len(self.messages):x}" if self.rules.tags else None
        return message_size(self._lines[sensor][0].request, tag)

    def _fits(self, sensor: str) -> bool:
        """
        Return whether the board's buffer has room for the next message to a sensor.
        """
        room = (self.rules.buffer or math.inf) - sum(message.size for message in self._buffered)
        kept = self.rules.window > 1 and self._is_automatic(sensor)
        return not self._buffered or self._size(sensor) * (1 + kept) <= room

    def _leaves_place(self, sensor: str) -> bool:
        """
        Return whether the next message to a sensor that does not answer leaves room for one like it to another sensor.
        """
        taken = sum(message.size for message in self._buffered if message.missed)
        return not self._is_silent(sensor) or not taken or ((self.rules.buffer or 0) - taken) // self._size(sensor) >= 2

    def _check_patience(self, send: Send) -> None:
        sensor = send.request.question.sensor
        set_for_it = self.rules.sensor_patience.get(sensor, self.rules.patience)
        if set_for_it is not None:
            demand(send.patience == set_for_it, "§4.4 patience is the setting", send)
        elif not self.rules.tags:
            expected = 5 if sensor in self._shown_msg else 10
            demand(send.patience == expected, "§4.4 patience is 5, or 10 without MSG and TAG", send)

    def _check(self, now: float) -> None:
        """
        Check what must hold after every call.
        """
        pending = self.pending
        demand(pending.state == self.state, "the state of the link", pending.state, self.state)
        demand(
            pending.queues.in_flight == len(self.askers), "who waits is counted", pending.queues.in_flight, self.askers
        )
        demand(
            pending.idle == (not self._lines and not self._wire and not self._held),
            "a lane is kept exactly as long as it has to be",
            pending.idle,
            self._lines,
            self._wire,
            self._held,
        )
        demand(pending.deadline > now, "a timer never spins", pending.deadline, now)
        due = [asker.deadline for asker in (*self.askers, *self.kept)]
        due += [message.until for message in [*self._wire.values(), *self._held.values()]]
        if self.state == "settling" and self._lines:
            due.append(self._settled_at)
        demand(pending.deadline <= min(due, default=math.inf), "the timer is armed for what comes next", due)
        if self.state == "online" and len(self._wire) < self.rules.window:
            candidates = self._candidates()
            first = [sensor for sensor in candidates if self._order(sensor) == self._order(candidates[0])]
            full = not all(map(self._fits, first))
            others = self._candidates(any)
            demand(
                full or not candidates or (others != candidates and not self._fits(others[0])),
                "§4.2 nothing waits while there is a free place",
                candidates,
            )
            self.seen["buffer full"] += full
            waiting = self._lines.keys() - self._wire.keys() - self._held.keys()
            if len(self._wire) >= max(1, self.rules.window - 1):
                waiting = {sensor for sensor in waiting if not self._is_automatic(sensor)}
            if len(candidates) < len(waiting):
                few = self._few_behind
                self.seen["place kept in the buffer" if few else "place kept"] += 1
                full |= few
            if full:
                until = self._buffered[0].written + 2.0
                demand(pending.deadline <= until, "the timer is armed for room in the buffer", until)


@dataclass(frozen=True, slots=True)
class Firmware:
    """
    How one sensor answers.

    Attributes:
        msg: How often its answers have `MSG`, 0 to 1.
        tag: Whether it echoes `TAG`.
        bare: Whether it may answer with an acknowledgement.
        shouts: Whether its `MSG` is in capitals.
    """

    msg: float = 1.0
    tag: bool = True
    bare: bool = False
    shouts: bool = False

    def spelled(self, command: str) -> str:
        """
        Spell a command as its `MSG`.
        """
        return command.upper() if self.shouts else command


@dataclass(slots=True)
class World:
    """
    Some links, their devices, and one clock.
    """

    links: list[LinkBook]
    firmware: Mapping[str, Firmware]
    connections: list[Connection]  # that are open
    limit: int = 20_000  # askers in all
    gone_limit: int = 1024  # askers of one address whose connections are gone
    now: float = 0.0
    received: list[Report] = field(default_factory=list)  # keeps reports alive: their identity distinguishes them
    asked: int = 0
    holders: Holders = field(init=False)

    def __post_init__(self) -> None:
        self.holders = Holders(self.limit, self.gone_limit)
        self.holders.links += [book.pending.queues for book in self.links]

    @property
    def askers(self) -> list[Asker]:
        """
        All askers that wait, in the order in which they asked.
        """
        return sorted((asker for book in self.links for asker in book.askers), key=lambda asker: asker.number)

    @property
    def kept(self) -> list[Asker]:
        """
        All askers that wait until their sensors report.
        """
        return [asker for book in self.links for asker in book.kept]

    def ask(
        self,
        link: int,
        question: Question,
        limit: float,
        max_age: float | None = None,
        connection: int = 0,
        priority: Priority = Priority.PERSON,
        when_heard: bool = False,
    ) -> None:
        """
        Ask a device over one of the connections, as the gateway does.
        """
        asking = self.connections[connection % len(self.connections)]
        seen = self.links[0].seen
        full = len(self.askers) >= self.limit
        demand(self.holders.full == full, "§4.10 whether there are too many askers", self.askers)
        if full and asking.holder.askers:
            seen["askers: too many"] += 1
            waiting = [asker for book in self.links for asker in (*book.askers, *book.kept)]
            demand(any(asker.connection is asking for asker in waiting), "§4.10 a newcomer is refused", asking)
            return
        fields = {
            "MSG": question.command,
            "ID": question.sensor,
            "ORIGIN": f"at {self.now}",
            **dict(question.arguments),
        }
        line = join_fields(fields).encode()
        request = Request(question, fields, line, "origin", "client", limit, max_age, None, priority, when_heard)
        self.asked += 1
        self.links[link].ask(Asker(request, self.now, self.now + limit, asking, self.asked), self.now)
        surplus = self.holders.surplus()
        # Those who were held had no place before, so there may be more than one too many.
        demand(len(surplus) == (len(self.askers) > self.limit), "§4.10 one too many is withdrawn", surplus)
        if surplus:
            held = of_most(self.askers, lambda asker: None if asker.connection.gone else asker.connection)
            newest = max(asker.asked for asker in held)
            victim = surplus[0].waiter
            demand(victim in held and victim.asked == newest, "§4.10 the newest of whoever holds most", victim, held)
            seen["askers: one displaced"] += 1
            self._withdraw(surplus)

    def hang_up(self, connection: int, host: str) -> None:
        """
        Let one of the connections go, and another one come, from that host.
        """
        connection %= len(self.connections)
        gone = self.connections[connection]
        waiting = sorted((*self.askers, *self.kept), key=lambda asker: asker.number)
        mine = [asker for asker in waiting if asker.connection is gone]
        others = [each for each in waiting if each.connection.gone and each.connection.network == gone.network]
        room = max(0, self.gone_limit - len(others))
        surplus = self.holders.disconnected(gone.holder)
        demand([each.waiter for each in surplus] == mine[room:], "§4.10 so many go on", surplus, mine, others)
        gone.gone = True
        self.links[0].seen["gone: one goes on"] += bool(mine[:room])
        self.links[0].seen["gone: one too many"] += bool(surplus)
        self._withdraw(surplus)
        self.connections[connection] = Connection(Holder(host))

    def _withdraw(self, askers: Sequence[exchanges.Asker[Asker]]) -> None:
        for book in self.links:
            if mine := [asker for asker in askers if asker.device == book.name]:
                book.withdraw(mine, self.now)

    def report(self, sensor: str, command: str | None, tag: str | None, key: str = "VALUE") -> Report:
        """
        Make a report, which only its identity distinguishes from others.
        """
        self.received.append(Report(sensor, command, tag, ((key, "1"),) if key else ()))
        return self.received[-1]

    def spell(self, message: Message, says_msg: bool, command: str | None = None) -> Report:
        """
        Answer a message as its sensor's firmware does.

        Args:
            message: What is answered.
            says_msg: Whether this line has a `MSG`.
            command: A wrong command to send instead.
        """
        firmware = self.firmware[message.question.sensor]
        key = "HUM" if message.question.command == HUMIDITY else "VALUE"
        return self.report(
            message.question.sensor,
            firmware.spelled(command or message.question.command) if says_msg else None,
            message.tag if firmware.tag else None,
            "" if firmware.bare and says_msg else key,
        )

    def receive(self, link: int, lines: Sequence[tuple[Report, Message | None]]) -> None:
        """
        Receive one chunk.
        """
        if lines:
            self.links[link].receive(lines, self.now, int(self.now * 1000))
            self.links[link].start_board(self.now)

    def wait(self, seconds: float, timer: bool = True) -> None:
        """
        Let time pass.

        Args:
            seconds: A multiple of `TICK`.
            timer: Whether timers fire on time; else they are late, and the next call comes first.
        """
        end = self.now + seconds
        while timer:
            book = min(self.links, key=lambda book: book.pending.deadline)
            if book.pending.deadline > end:
                break
            self.now = max(self.now, book.pending.deadline)
            book.expire(self.now)
        self.now = end

    def finish(self) -> None:
        """
        Open all links, let everything end, and check that nothing is left.
        """
        for link in self.links:
            if link.state in ("starting", "offline"):
                link.link_up(self.now)
        for _ in range(100_000):
            book = min(self.links, key=lambda book: book.pending.deadline)
            if book.pending.deadline == math.inf:
                break
            self.now = max(self.now, book.pending.deadline)
            book.expire(self.now)
        for link in self.links:
            link.finished()
        for connection in self.connections:
            demand(not connection.holder.askers, "no asker is kept", connection.holder.askers)


def questions(sensor: str) -> list[Question]:
    """
    Return the questions for a sensor: mostly one command with different arguments.
    """
    levels = [Question(sensor, "L", frozenset([("LEVEL", level)])) for level in ("1", "2", "3")]
    plain = [Question(sensor, command) for command in ("L", "J", "j", HUMIDITY, TOGGLE)]
    return [*levels, *plain]


def random_world(seed: int, seen: Counter[str], steps: int = 60) -> None:
    """
    Run one world to its end.

    Args:
        seed: The seed, which determines the world.
        seen: Counts what happened.
        steps: The number of events, besides the lines of the devices.

    Raises:
        Violated: A rule was broken.
    """
    RandomWorld(random.Random(seed), seen).run(steps)


class RandomWorld:
    """
    A world of random events.
    """

    def __init__(self, chance: random.Random, seen: Counter[str]) -> None:
        self.chance = chance
        sensors = [str(20 + n) for n in range(chance.choice([1, 2, 2, 3, 5]))]
        self.questions = [question for sensor in sensors for question in questions(sensor)]
        self.weights = [chance.choice([1, 3]) for _ in self.questions]
        limits: list[list[float]] = [[1, 2, 4], [3, 8, 30], [12, 30, 60], [0.5, 5, 10, 20]]
        self.limits = chance.choice(limits)
        self.lost, self.late, self.again = chance.choice([0, 0.2, 0.5]), chance.choice([0, 0.2, 0.5]), 0.15
        self.flappy = chance.choice([0, 0, 0.03, 0.08])
        unknown = {sensor for sensor in sensors if chance.random() < 0.3}
        books = [
            LinkBook(f"tty{n}", self._rules(sensors), seen, chance.randrange(100), unknown)
            for n in range(chance.choice([1, 1, 2]))
        ]
        firmware = {
            sensor: Firmware(
                chance.choice([0, 0, 0.5, 1, 1]), chance.random() < 0.8, chance.random() < 0.2, chance.random() < 0.3
            )
            for sensor in sensors
        }
        for book in books:
            book.pending.queues.sensor_limit = chance.choice([64, 64, 1, 2, 3, 5])
            book.pending.queues.link_limit = chance.choice([4096, 4096, 2, 4, 6])
        self.hosts = chance.sample(list(NETWORKS), chance.choice([1, 3]))
        self.rude = chance.choice([0, 0, 0.05, 0.2])
        self.priorities = chance.choice([[Priority.PERSON], list(Priority), [Priority.PERSON, Priority.POLL]])
        self.sleepers = chance.choice([0, 0, 0.2])
        self.eager = chance.choice([0.4, 0.4, 0.7])
        connections = [Connection(Holder(chance.choice(self.hosts))) for _ in range(chance.choice([1, 2, 3, 4, 8]))]
        self.world = World(
            books,
            firmware,
            connections,
            chance.choice([20_000, 20_000, 3, 6, 10]),
            chance.choice([1024, 1024, 1, 3]),
        )
        self.known = [0] * len(books)  # the messages of each link whose answers have been drawn
        self.due: list[list[tuple[float, Message]]] = [[] for _ in books]

    def _rules(self, sensors: Sequence[str]) -> Rules:
        chance = self.chance
        return Rules(
            window=chance.randint(1, 4),
            buffer=chance.choice([0, 0, 40, 63, 63, 90, 140]),
            tags=chance.random() < 0.25,
            settle=chance.choice([0, 0, 2, None]),
            patience=chance.choice([None, 1, 3, 5, 5]),
            sensor_patience={sensors[0]: 8.0} if chance.random() < 0.5 else {},
            once=frozenset([TOGGLE]),
            retries=chance.choice([{}, {"L": 1, TOGGLE: 2}]),
            fields={HUMIDITY: frozenset(["HUM"])} if chance.random() < 0.5 else {},
        )

    def run(self, steps: int) -> None:
        """
        Run a number of random events, then let everything end.
        """
        for _ in range(steps):
            self._step()
            self._deliver()
        self.world.finish()

    def _step(self) -> None:
        chance, world = self.chance, self.world
        link = chance.randrange(len(world.links))
        book = world.links[link]
        if book.state in ("starting", "offline"):
            if chance.random() < 0.2:
                book.link_up(world.now)
            elif book.state == "starting" and chance.random() < 0.1:
                book.link_down(world.now)
        elif chance.random() < self.flappy:
            book.link_down(world.now)
        if chance.random() < self.rude:
            world.hang_up(chance.randrange(8), chance.choice(self.hosts))
        what = chance.random()
        if what < self.eager:
            question = chance.choices(self.questions, self.weights)[0]
            max_age = chance.choice([0.0, 4.0]) if chance.random() < 0.3 else None
            priority = chance.choice(self.priorities)
            limit, who, when_heard = chance.choice(self.limits), chance.randrange(8), chance.random() < self.sleepers
            world.ask(link, question, limit, max_age, who, priority, when_heard)
        elif what < self.eager + 0.1:
            if book.state in ("settling", "online"):
                question = chance.choice(self.questions)
                command = question.command if chance.random() < 0.5 else None
                tag = "1" if chance.random() < 0.2 and not book.rules.tags else None
                world.receive(
                    link, [(world.report(question.sensor, command, tag, chance.choice(["VALUE", "HUM"])), None)]
                )
        else:
            world.wait(TICK * chance.choice([0, 1, 2, 4, 8, 20]), timer=chance.random() < 0.8)

    def _deliver(self) -> None:
        """
        Let the device send the lines that are due; the answers to a message are drawn when it is first seen.
        """
        chance, now = self.chance, self.world.now
        for link, book in enumerate(self.world.links):
            for message in book.messages[self.known[link] :]:
                if chance.random() >= self.lost:
                    longest = int(message.patience / TICK)
                    low, high = (longest, 3 * longest) if chance.random() < self.late else (0, longest - 1)
                    self.due[link].append((message.written + TICK * chance.randint(low, high), message))
            self.known[link] = len(book.messages)
            if book.state not in ("settling", "online"):
                continue
            chunk: list[tuple[Report, Message | None]] = []
            for when, message in [due for due in self.due[link] if due[0] <= now]:
                self.due[link].remove((when, message))
                says_msg = chance.random() < self.world.firmware[message.question.sensor].msg
                wrong = chance.choice(["J", "L"]) if chance.random() < 0.05 else None
                chunk.append((self.world.spell(message, says_msg, wrong), message))
                if chance.random() < self.again:
                    chunk.append((self.world.spell(message, says_msg), message))
                elif chance.random() < self.again:
                    self.due[link].append((now + TICK * chance.randint(1, 12), message))
            chance.shuffle(chunk)
            if chance.random() < 0.5:
                self.world.receive(link, chunk)
            else:
                for line in chunk:
                    self.world.receive(link, [line])
