"""
Protocol §4, sentence by sentence: plain calls, and numbers for clocks.
"""

from __future__ import annotations

import gc
import math
import sys
import weakref
from collections.abc import Collection, Mapping
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.support.worlds import message_size
from usbgate.core import matching, turns
from usbgate.core.errors import Malformed, NotHeard, RequestError, TimedOut
from usbgate.core.exchanges import Asker, Moves
from usbgate.core.fieldline import check_value
from usbgate.core.holders import Holder
from usbgate.core.model import Answer, BoardKind, Priority, Question, Request
from usbgate.core.pending import PendingRequests
from usbgate.core.rules import Rules
from usbgate.testing import acknowledgement, report, request

PERSON, RULE, POLL = Priority
LONG = 1000.0  # an asker's limit that no test reaches
AT = 1_362_999_999_123  # a wall clock


class Pending(PendingRequests[Any]):
    """
    The requests over one link, whose waiters are names.
    """

    def __init__(self, device: str, rules: Rules, first_tag: int = 0) -> None:
        """
        See `PendingRequests`.
        """
        self.unknown: set[str] = set()
        super().__init__(device, rules, message_size, first_tag)
        self._me = Holder("me")

    def put(self, request: Request, waiter: object, timeout: float, now: float) -> Moves[Any]:
        """
        Ask, always over the same connection.
        """
        known = request.question.sensor not in self.unknown
        return self.ask(Asker(request, now, waiter, self._me, known), timeout, now)


def link(device: str = "tty", first_tag: int = 0, **rules: Any) -> Pending:
    """
    Build a link that is up; patience is 5 s unless told otherwise.
    """
    pending = Pending(device, Rules(**{"patience": 5.0, **rules}), first_tag)
    pending.link_up(0.0)
    return pending


def asked(sensor: str) -> Request:
    """
    Build a request whose message has 27 bytes if the sensor's id has two.
    """
    return request(sensor, "J", origin="website")


def sent(moves: Moves[Any]) -> list[str]:
    """
    Tell what was written: `20 J`, with the arguments behind it.
    """
    return [
        " ".join(
            [
                send.request.question.sensor,
                send.request.question.command,
                *dict(send.request.question.arguments).values(),
            ]
        )
        for send in moves.send
    ]


def replies(moves: Moves[Any]) -> list[tuple[Any, Answer]]:
    """
    List the waiters that were answered, with their answers.
    """
    ended = [(asker.waiter, outcome) for outcome, askers in moves.ended for asker in askers]
    return [(waiter, outcome) for waiter, outcome in ended if isinstance(outcome, Answer)]


def failures(moves: Moves[Any]) -> list[tuple[Any, RequestError]]:
    """
    List the waiters that failed, with their errors.
    """
    ended = [(asker.waiter, outcome) for outcome, askers in moves.ended for asker in askers]
    return [(waiter, outcome) for waiter, outcome in ended if isinstance(outcome, RequestError)]


def answered(moves: Moves[Any]) -> list[Any]:
    """
    Tell who was answered, sorted.
    """
    return sorted(waiter for waiter, _ in replies(moves))


def failed(moves: Moves[Any]) -> dict[Any, str]:
    """
    Tell who failed, with which code.
    """
    return {waiter: error.code for waiter, error in failures(moves)}


def answers(moves: Moves[Any]) -> list[str | None]:
    """
    Tell of each report handed on the command that it answered.
    """
    return [question and question.command for _, question in moves.handed]


class TestOneMessagePerSensor(SynchronousTestCase):
    """
    §4.2: the order in which questions get to the wire.
    """

    def test_one_message_per_sensor(self) -> None:
        """
        A sensor's second question is written when the first is answered, not before.
        """
        pending = link()
        self.assertEqual(sent(pending.put(request("20", "J"), "a", LONG, 0.0)), ["20 J"])
        self.assertEqual(sent(pending.put(request("20", "K"), "b", LONG, 0.0)), [])
        moves = pending.received([report("20", "J")], 1.0, AT)
        self.assertEqual(answered(moves), ["a"])
        self.assertEqual(sent(moves), ["20 K"])

    def test_questions_of_a_sensor_wait_in_order(self) -> None:
        """
        Questions of one sensor are written in the order in which they were asked.
        """
        pending = link()
        order = []
        for command in "ABCDE":
            order += sent(pending.put(request("20", command), command, LONG, 0.0))
        for command in "ABCDE":
            order += sent(pending.received([report("20", command)], 1.0, AT))
        self.assertEqual(order, ["20 A", "20 B", "20 C", "20 D", "20 E"])

    def test_sensors_side_by_side(self) -> None:
        """
        Different sensors run side by side, up to 4 messages by default.
        """
        pending = link()
        written = [sent(pending.put(request(str(n)), n, LONG, 0.0)) for n in range(6)]
        self.assertEqual(written, [["0 J"], ["1 J"], ["2 J"], ["3 J"], [], []])

    def test_refused(self) -> None:
        """
        A question that can't be written ends with its error at once; its place is free for the next one, a report does
        not answer it, and its sensor is not behind for it.
        """
        pending = link(window=1)
        pending.put(request("20", "L", LEVEL="5"), "a", LONG, 0.0)
        for waiter, command in (("b", "J"), ("c", "K")):
            pending.put(request("20", command), waiter, LONG, 0.0)
        pending.refuse(request("20", "L", LEVEL="5").question, Malformed("the device only sends"))
        self.assertLessEqual(pending.bound, 0.0)
        self.assertLessEqual(pending.deadline, 0.0)
        moves = pending.expire(0.0)
        self.assertEqual((failed(moves), sent(moves), moves.unanswered), ({"a": "malformed"}, ["20 J"], ()))
        self.assertEqual(pending.deadline, 5.0)
        pending.refuse(request("21").question, Malformed("unknown"))
        pending.refuse(request("20", "K").question, Malformed("not on the wire"))
        moves = pending.received([report("20")], 1.0, AT)
        self.assertEqual((answered(moves), failed(moves), sent(moves)), (["b"], {}, ["20 K"]))

    def test_unwritten(self) -> None:
        """
        If nothing is written for a question, a damaged report of its sensor answers, too; that makes the sensor no
        unsure one. The next question, which is written, has the usual rules.
        """
        pending = link()
        damaged = report("20")._replace(left_out=("empty value",))
        pending.put(request("20"), "a", LONG, 0.0)
        pending.leave_unwritten(request("21").question)
        pending.leave_unwritten(request("20", "K").question)
        self.assertEqual(answered(pending.received([damaged], 1.0, AT)), [])
        pending.leave_unwritten(request("20").question)
        self.assertEqual(answered(pending.received([damaged], 1.0, AT)), ["a"])
        self.assertEqual(pending.unsure, [])
        pending.put(request("20"), "b", LONG, 2.0)
        self.assertEqual(answered(pending.received([damaged], 3.0, AT)), [])
        self.assertEqual(answered(pending.received([report("20")], 3.0, AT)), ["b"])
        self.assertEqual(pending.unsure, ["20"])
        # One that is known to answer with MSG is asked by other means, and later: a report without MSG is no answer.
        for n, answer in enumerate([report("20", "J"), report("20")]):
            pending.put(request("20"), n, LONG, 4.0)
            pending.leave_unwritten(request("20").question)
            self.assertEqual(answered(pending.received([answer], 5.0, AT)), [n] if n == 0 else [])

    def test_named(self) -> None:
        """
        Where each answer has its command, a report without one answers nothing, and the patience is the short one.
        """
        pending = link(named=True, patience=None)
        pending.put(request("20"), "a", LONG, 0.0)
        self.assertEqual(pending.deadline, 5.0)
        self.assertEqual(answered(pending.received([report("20")], 1.0, AT)), [])
        self.assertEqual(answered(pending.received([report("20", "J")], 1.0, AT)), ["a"])

    def test_window_of_one(self) -> None:
        """
        Firmware that cannot overlap is told one thing at a time.
        """
        pending = link(window=1)
        self.assertEqual(sent(pending.put(request("20"), "a", LONG, 0.0)), ["20 J"])
        self.assertEqual(sent(pending.put(request("21"), "b", LONG, 0.0)), [])
        self.assertEqual(sent(pending.received([report("20")], 1.0, AT)), ["21 J"])

    def test_free_place_by_first_question(self) -> None:
        """
        A free place goes to the sensor whose first waiting question was asked earliest, however many others it has.
        """
        pending = link(window=1)
        pending.put(request("1"), 0, LONG, 0.0)
        for n, sensor in enumerate(["3", "2", "3", "4"]):
            pending.put(request(sensor, f"C{n}"), n, LONG, 1.0 + n)
        order = []
        for sensor in ["1", "3", "2", "3", "4"]:
            order += sent(pending.received([report(sensor)], 6.0 if sensor == "x" else 4.5, AT))
        self.assertEqual(order, ["3 C0", "2 C1", "3 C2", "4 C3"])

    def test_new_turn_is_a_later_turn(self) -> None:
        """
        A question that takes a new turn comes after what was asked before that; both sensors were silent.
        """
        pending = link(window=1)
        pending.put(request("1"), "a", LONG, 0.0)
        pending.put(request("2"), "b", LONG, 1.0)
        self.assertEqual(sent(pending.expire(5.0)), ["2 J"])
        self.assertEqual(sent(pending.expire(10.0)), ["1 J"])
        self.assertEqual(sent(pending.expire(15.0)), ["2 J"])

    def miss(self, pending: Pending, sensor: str, times: int, now: float) -> float:
        """
        Let a sensor leave messages unanswered, one after the other.

        Returns:
            When the last one's patience, 5 s, ended.
        """
        for _ in range(times):
            self.assertEqual(sent(pending.put(request(sensor), "nobody", 1.0, now)), [f"{sensor} J"])
            pending.expire(now + 1.0)
            now += 5.0
            pending.expire(now)
        return now

    def test_behind(self) -> None:
        """
        A sensor that left a message unanswered comes after whoever was asked within 30 s, and before later ones.
        """
        pending = link(window=1, sensor_patience={"3": 2000.0})
        self.assertEqual(self.miss(pending, "1", 1, 0.0), 5.0)
        pending.put(request("3"), "b", LONG, 6.0)
        pending.put(request("1"), "c", LONG, 7.0)
        pending.put(request("2"), "d", LONG, 34.5)
        pending.put(request("4"), "e", LONG, 35.5)
        order = [sent(pending.received([report(sensor)], 36.0, AT)) for sensor in ("3", "2", "1")]
        self.assertEqual(order, [["2 J"], ["1 J"], ["4 J"]])

    def test_behind_twice_as_long(self) -> None:
        """
        The delay is 30, 60, 120, 240, 480 and then always 600 s, by the messages left unanswered in a row.
        """
        for times, delay in [(1, 30.0), (2, 60.0), (3, 120.0), (4, 240.0), (5, 480.0), (6, 600.0), (40, 600.0)]:
            for late, first in [(-0.5, "2 J"), (0.5, "1 J")]:
                with self.subTest(times=times, late=late):
                    pending = link(window=1, sensor_patience={"3": 2000.0})
                    now = self.miss(pending, "1", times, 0.0)
                    pending.put(request("3"), "a", LONG, now)
                    pending.put(request("1"), "b", LONG, now)
                    now += delay + late
                    pending.put(request("2"), "c", LONG, now)
                    self.assertEqual(sent(pending.received([report("3")], now, AT)), [first])

    def test_behind_anew_after_an_answer(self) -> None:
        """
        An answer ends the row: the next message left unanswered delays by 30 s again.
        """
        pending = link(window=1, sensor_patience={"3": 2000.0})
        now = self.miss(pending, "1", 3, 0.0)
        pending.put(request("1"), "a", LONG, now)
        self.assertEqual(answered(pending.received([report("1")], now, AT)), ["a"])
        now = self.miss(pending, "1", 1, now)
        pending.put(request("3"), "b", LONG, now)
        pending.put(request("1"), "c", LONG, now)
        pending.put(request("2"), "d", LONG, now + 29.5)
        pending.put(request("4"), "e", LONG, now + 30.5)
        order = [sent(pending.received([report(sensor)], now + 32.0, AT)) for sensor in ("3", "2", "1")]
        self.assertEqual(order, [["2 J"], ["1 J"], ["4 J"]])

    def test_nobody_else_waits(self) -> None:
        """
        A sensor that is behind is asked at once if nobody else waits.
        """
        pending = link(window=1)
        now = self.miss(pending, "1", 5, 0.0)
        self.assertEqual(sent(pending.put(request("1"), "a", LONG, now)), ["1 J"])

    def test_report_ends_the_delay(self) -> None:
        """
        A report that answers nothing ends the delay; the row goes on.
        """
        for asked_first in (True, False):
            pending = link(window=1, sensor_patience={"3": 2000.0})
            now = self.miss(pending, "1", 2, 0.0)
            pending.put(request("3"), "a", LONG, now)
            if asked_first:
                pending.put(request("1"), "b", LONG, now)
            pending.received([report("1", "X")], now + 2.0, AT)
            pending.put(request("1"), "b", LONG, now + 2.0)
            pending.put(request("2"), "c", LONG, now + 2.5)
            pending.put(request("4"), "c", LONG, now + 1000.0)
            order = sent(pending.received([report("3")], now + 3.0, AT))
            self.assertEqual(order, ["1 J"])
            # The third one in a row: 120 s.
            self.assertEqual(sent(pending.expire(now + 8.0)), ["2 J"])

    def test_report_with_nothing_asked_ends_the_delay(self) -> None:
        """
        So does one that comes while nothing at all waits.
        """
        pending = link(window=1)
        now = self.miss(pending, "1", 4, 0.0)
        pending.received([report("1"), report("7")], now, AT)
        pending.put(request("3"), "a", LONG, now + 1.0)
        pending.put(request("1"), "b", LONG, now + 2.0)
        pending.put(request("2"), "c", LONG, now + 3.0)
        self.assertEqual(sent(pending.received([report("3")], now + 3.0, AT)), ["1 J"])

    def test_kept_place(self) -> None:
        """
        Of several places one is not given to sensors that have not answered since, though nobody else waits.
        """
        for window in (2, 3, 4):
            pending = link(window=window)
            for n in range(4):
                self.miss(pending, str(n), 1, 10.0 * n)
            written = [line for n in range(4) for line in sent(pending.put(request(str(n)), n, LONG, 100.0))]
            self.assertEqual(written, ["0 J", "1 J", "2 J"][: window - 1])
            self.assertEqual(sent(pending.put(request("9"), "healthy", LONG, 100.5)), ["9 J"])
            moves = pending.received([report("9")], 100.75, AT)
            self.assertEqual((answered(moves), sent(moves)), (["healthy"], []))
            moves = pending.received([report("0")], 101.0, AT)
            self.assertEqual((answered(moves), sent(moves)), ([0], [f"{window - 1} J"]))

    def test_kept_place_after_a_report(self) -> None:
        """
        A report that answers nothing, and ends a delay, gives a sensor no right to the kept place, an answer does.
        """
        pending = link(window=2)
        for n in range(2):
            self.miss(pending, str(n), 1, 10.0 * n)
        pending.received([report("0", "X"), report("1", "X")], 20.0, AT)
        self.assertEqual(sent(pending.put(request("0"), "a", LONG, 20.0)), ["0 J"])
        self.assertEqual(sent(pending.put(request("1"), "b", LONG, 20.0)), [])
        self.assertEqual(sent(pending.received([report("0")], 21.0, AT)), ["1 J"])
        self.assertEqual(sent(pending.put(request("0"), "c", LONG, 21.0)), ["0 J"])

    def test_kept_place_after_a_flap(self) -> None:
        """
        A message that was lost with its link is not counted as unanswered, nor as one on the wire.
        """
        pending = link(window=2)
        self.miss(pending, "1", 1, 0.0)
        pending.put(request("1"), "a", LONG, 5.0)
        pending.put(request("2"), "b", LONG, 5.0)
        pending.link_down(6.0)
        pending.link_up(7.0)
        pending.expire(12.0)
        self.assertEqual(sent(pending.put(request("1"), "c", LONG, 12.0)), ["1 J"])
        self.assertEqual(sent(pending.put(request("2"), "d", LONG, 12.0)), ["2 J"])
        pending.received([report("1")], 13.0, AT)
        self.miss(pending, "3", 1, 13.0)

    def test_unknown(self) -> None:
        """
        Of several places one is kept from sensors that are not known, too; but no room in the board's buffer, and there
        is no delay: an asker with a short time limit is not busy because another waits.
        """
        pending = link(window=3, buffer=63)
        pending.unknown = set("01234")
        self.assertEqual(sent(pending.put(request("0"), 0, LONG, 0.0)), ["0 J"])
        self.assertEqual(sent(pending.put(request("1"), 1, LONG, 0.0)), ["1 J"])
        for n in range(2, 5):
            self.assertEqual(sent(pending.put(request(str(n)), n, LONG, 0.0)), [])
        pending.put(request("9"), "a", LONG, 1.0)
        self.assertEqual(sent(pending.expire(2.0)), ["9 J"])
        self.assertEqual(sent(pending.received([report("9")], 2.5, AT)), [])
        self.assertEqual(sent(pending.received([report("1")], 3.0, AT)), ["2 J"])

    def test_becomes_known(self) -> None:
        """
        A sensor that reports while its question waits is known.
        """
        pending = link(window=2)
        pending.unknown = set("01")
        for n in range(2):
            pending.put(request(str(n)), n, LONG, 0.0)
        self.assertEqual(sent(pending.received([report("1", "L")], 1.0, AT)), ["1 J"])

    def test_not_two_in_a_row(self) -> None:
        """
        Where a sensor that answers waits, two messages in a row go to no others; nor are these starved by it.
        """
        pending = link(window=1)
        pending.unknown = set("012")
        for n in range(3):
            pending.put(request(str(n)), n, LONG, 0.0)
        order: list[str] = []
        for k in range(4):
            pending.put(request("8", f"C{k}"), f"C{k}", LONG, 1.0)
        for now in (5.0, 6.0, 11.0, 12.0, 17.0, 18.0):
            order += sent(pending.received([report("8", f"C{len(order) // 2}")], now, AT))
        self.assertEqual(order, ["8 C0", "1 J", "8 C1", "2 J", "8 C2", "8 C3"])

    def test_healthy_beside_dead(self) -> None:
        """
        With four places, a healthy sensor beside four dead ones that are asked all the time is written at once.
        """
        pending = link(window=4)
        slowest, now = 0.0, 0.0
        asked: float | None = None
        written = False
        while now < 2000.0:
            moves = [pending.expire(now)]
            moves += [pending.put(request(dead), dead, 20.0, now) for dead in "1234"]
            if asked is None and now > 100.0:
                asked, written = now, False
                moves.append(pending.put(request("9"), "healthy", 12.0, now))
            written = written or any("9 J" in sent(each) for each in moves)
            if written and asked is not None:
                slowest = max(slowest, now - asked)
                self.assertEqual(answered(pending.received([report("9")], now + 0.125, AT)), ["healthy"])
                asked, written = None, False
            now += 0.25
        self.assertEqual(slowest, 0.0)

    def test_starved(self) -> None:
        """
        A sensor that lost one message is asked again although others keep every place busy, and answers.
        """
        for window in (1, 2, 4):
            pending = link(window=window)
            now = self.miss(pending, "1", 1, 0.0)
            served, asked = 0, 0
            on_wire: set[str] = set()
            while now < 1000.0:
                if now % 20 == 0:
                    asked += 1
                    moves = [pending.put(request("1"), "starved", 40.0, now)]
                else:
                    moves = []
                moves += [pending.put(request(str(n)), f"{n}", LONG, now) for n in range(2, 4 + 2 * window)]
                moves.append(pending.received([report(sensor) for sensor in sorted(on_wire)], now, AT))
                for each in moves:
                    served += answered(each).count("starved")
                on_wire = {line.split()[0] for each in moves for line in sent(each)}
                now += 1.0
            self.assertGreater(asked, 40)
            self.assertGreaterEqual(served, asked - 2, window)

    def test_silent_sensor_that_answers_is_as_others(self) -> None:
        """
        A sensor that has answered again takes its turn as every other.
        """
        pending = link(window=1)
        pending.put(request("1"), "a", LONG, 0.0)
        pending.expire(5.0)
        self.assertEqual(answered(pending.received([report("1")], 6.0, AT)), ["a"])
        pending.put(request("3"), "b", LONG, 7.0)
        pending.put(request("1"), "c", LONG, 7.5)
        pending.put(request("2"), "d", LONG, 8.0)
        self.assertEqual(sent(pending.received([report("3")], 9.0, AT)), ["1 J"])

    def test_dead_sensors_block_nobody(self) -> None:
        """
        With window 1 and four dead sensors that are asked all the time, a healthy one is answered every time.
        """
        pending = link(window=1)
        on_wire: str | None = None
        outcomes: list[str] = []
        waiting = False
        now = 0.0
        while now < 600.0:
            moves = [pending.expire(now)]
            for dead in "1234":
                moves.append(pending.put(request(dead), dead, 20.0, now))
            if not waiting:
                moves.append(pending.put(request("9"), "healthy", 12.0, now))
                waiting = True
            if on_wire == "9" or "9 J" in [line for each in moves for line in sent(each)]:
                moves.append(pending.received([report("9")], now + 0.25, AT))
            for each in moves:
                for send in each.send:
                    on_wire = send.request.question.sensor
                outcomes += ["answered" for waiter, _ in replies(each) if waiter == "healthy"]
                outcomes += [error.code for waiter, error in failures(each) if waiter == "healthy"]
                waiting = waiting and not {"healthy"} & {waiter for waiter, _ in [*replies(each), *failures(each)]}
            now += 0.5
        # Before each of the four is known to be dead the healthy one may have to wait for all of them.
        self.assertLessEqual(sum(outcome != "answered" for outcome in outcomes[:3]), 2)
        self.assertEqual(set(outcomes[3:]), {"answered"})
        self.assertGreater(len(outcomes), 80)

    def test_lost_message_starves_nobody(self) -> None:
        """
        A sensor whose one message was lost is asked again and answered, while others are busy but leave places free.
        """
        pending = link(window=2)
        pending.put(request("1"), "unlucky", 60.0, 0.0)
        on_wire: dict[str, float] = {"1": math.inf}  # when each answers; the first message is lost
        now, outcome = 0.0, ""
        while not outcome and now < 60.0:
            now += 0.5
            moves = [pending.expire(now)]
            if now % 4 == 0:
                moves += [pending.put(request(sensor), sensor, 10.0, now) for sensor in "23"]
            due = [sensor for sensor, when in on_wire.items() if when <= now]
            moves.append(pending.received([report(sensor) for sensor in due], now, AT))
            for sensor in due:
                del on_wire[sensor]
            for each in moves:
                on_wire.update({send.request.question.sensor: now + 1.0 for send in each.send})
                outcome = outcome or ("answered" if "unlucky" in answered(each) else failed(each).get("unlucky", ""))
        self.assertEqual(outcome, "answered")
        self.assertLess(now, 20.0)


class TestBuffer(SynchronousTestCase):
    """
    §4.2: what may be on the wire before the board has read it.
    """

    def test_buffer(self) -> None:
        """
        Messages are written as long as they fit; 27 bytes with the line end, twice, are less than 63.
        """
        pending = link(buffer=63)
        written = [sent(pending.put(asked(sensor), sensor, LONG, 0.0)) for sensor in ("20", "21", "22", "23")]
        self.assertEqual(written, [["20 J"], ["21 J"], [], []])

    def test_exact(self) -> None:
        """
        Not a byte more than `buffer`, and not one less; a tag, here of 2 and 3 characters, counts.
        """
        for buffer, tags, count in [(53, False, 1), (54, False, 2), (68, True, 1), (69, True, 2)]:
            pending = link(buffer=buffer, tags=tags, first_tag=0xFF)
            written = [line for sensor in ("20", "21") for line in sent(pending.put(asked(sensor), "a", LONG, 0.0))]
            self.assertEqual(len(written), count, buffer)

    def test_one_message(self) -> None:
        """
        One message is written, however long.
        """
        pending = link(buffer=20)
        self.assertEqual(sent(pending.put(asked("20"), "a", LONG, 0.0)), ["20 J"])
        self.assertEqual(sent(pending.put(asked("21"), "b", LONG, 0.0)), [])
        self.assertEqual(sent(pending.received([report("20")], 0.5, AT)), ["21 J"])

    def test_no_bound(self) -> None:
        """
        With 0, nothing but `window` bounds what is on the wire.
        """
        pending = link(buffer=0, window=64)
        written = [line for n in range(70) for line in sent(pending.put(asked(str(n)), n, LONG, 0.0))]
        self.assertEqual(len(written), 64)

    def test_automatic(self) -> None:
        """
        By default a board is given 63 bytes, and one with native USB as much as `window` allows; at each opening anew.
        """
        pending = link(buffer=None, window=3)
        for opening, (board, count) in enumerate(
            [(BoardKind(), 2), (BoardKind(native=True), 3), (BoardKind(resets=True), 2)]
        ):
            now = 100.0 * opening
            pending.link_down(now)
            pending.link_up(now + 1.0, board)
            now += 50.0
            pending.expire(now)
            written = [line for n in range(4) for line in sent(pending.put(asked(str(20 + n)), n, LONG, now))]
            self.assertEqual(len(written), count, board)

    def test_answer_frees(self) -> None:
        """
        An answer shows that its message and all before it have been read, not those behind it.
        """
        for answering, written in [("20", ["23 J"]), ("21", ["23 J", "24 J"]), ("22", ["23 J", "24 J", "25 J"])]:
            pending = link(buffer=3 * 27, window=10)
            for sensor in range(20, 27):
                pending.put(asked(str(sensor)), sensor, LONG, 0.0)
            self.assertEqual(sent(pending.received([report(answering)], 0.5, AT)), written)

    def test_unasked_frees_nothing(self) -> None:
        """
        A report that answers nothing does not show that anything was read.
        """
        pending = link(buffer=63)
        for sensor in ("20", "21", "22"):
            pending.put(asked(sensor), sensor, LONG, 0.0)
        self.assertEqual(sent(pending.received([report("20", "X"), report("99")], 0.5, AT)), [])

    def test_time_frees(self) -> None:
        """
        2 s after it was written a message no longer counts, though it may still be answered; the timer is set for it.
        """
        pending = link(buffer=63)
        for n, sensor in enumerate(("20", "21", "22", "23")):
            pending.put(asked(sensor), sensor, LONG, 0.25 * n)
        self.assertEqual(pending.deadline, 2.0)
        self.assertEqual(sent(pending.expire(1.75)), [])
        self.assertEqual(sent(pending.expire(2.0)), ["22 J"])
        self.assertEqual(pending.deadline, 2.25)
        self.assertEqual(sent(pending.expire(2.25)), ["23 J"])
        self.assertEqual(answered(pending.received([report("20"), report("23")], 3.0, AT)), ["20", "23"])

    def test_nothing_waits(self) -> None:
        """
        Where nothing waits for room, no timer is set for it.
        """
        pending = link(buffer=63)
        for sensor in ("20", "21"):
            pending.put(asked(sensor), sensor, LONG, 0.0)
        self.assertEqual(pending.deadline, 5.0)
        pending.put(asked("22"), "c", 1.0, 0.0)
        pending.expire(1.0)
        self.assertEqual(pending.deadline, 5.0)

    def test_forgotten_messages_count(self) -> None:
        """
        A message whose patience is over counts until its 2 s are.
        """
        pending = link(buffer=63, patience=0.5)
        for sensor in ("20", "21", "22", "23"):
            pending.put(asked(sensor), sensor, 0.25, 0.0)
        pending.put(asked("24"), "e", LONG, 0.25)
        self.assertEqual(sent(pending.expire(1.0)), [])
        self.assertEqual(sent(pending.expire(2.0)), ["24 J"])

    def test_long_message_is_not_overtaken(self) -> None:
        """
        A message that must wait for room is not overtaken by a shorter one for which there is room.
        """
        pending = link(buffer=63, window=10)
        pending.put(asked("20"), "a", LONG, 0.0)
        self.assertEqual(sent(pending.put(asked("2" * 20), "b", LONG, 0.5)), [])
        self.assertEqual(sent(pending.put(asked("21"), "c", LONG, 0.5)), [])
        self.assertEqual(sent(pending.received([report("20")], 1.0, AT)), ["2" * 20 + " J"])

    def test_kept_place(self) -> None:
        """
        Of the places that the buffer has, one is never given to a sensor that does not answer.
        """
        pending = link(buffer=63, window=4)
        for n, sensor in enumerate(("20", "21", "22")):
            pending.put(asked(sensor), sensor, 1.0, 10.0 * n)
            pending.expire(10.0 * n + 1.0)
            pending.expire(10.0 * n + 5.0)
        written = [sent(pending.put(asked(sensor), sensor, LONG, 100.0)) for sensor in ("20", "21", "22", "30", "31")]
        self.assertEqual(written, [["20 J"], [], [], ["30 J"], []])
        # After 2 s the first one is read or lost, and the next of them takes its place.
        self.assertEqual(pending.deadline, 102.0)
        self.assertEqual(sent(pending.expire(102.0)), ["21 J", "31 J"])
        # An answer to a later message shows that theirs was read, too.
        self.assertEqual(sent(pending.received([report("31")], 102.5, AT)), ["22 J"])

    def test_behind_one_at_a_time(self) -> None:
        """
        A long message to a sensor that does not answer waits for another one's end, and delays nobody meanwhile.
        """
        pending = link(buffer=63, window=4)
        for n, sensor in enumerate(("2" * 10, "3" * 10)):  # 35 bytes
            pending.put(asked(sensor), sensor, 1.0, 10.0 * n)
            pending.expire(10.0 * n + 1.0)
            pending.expire(10.0 * n + 5.0)
        written = [sent(pending.put(asked(sensor), sensor, LONG, 100.0)) for sensor in ("2" * 10, "3" * 10, "20")]
        self.assertEqual(written, [["2" * 10 + " J"], [], ["20 J"]])
        self.assertEqual(sent(pending.expire(102.0)), ["3" * 10 + " J"])

    def test_only_place_is_not_kept(self) -> None:
        """
        If there is room for one message only, or `window` is 1, sensors that do not answer get their turn.
        """
        for pending in (link(buffer=40), link(buffer=63, window=1)):
            pending.put(asked("20"), "a", 1.0, 0.0)
            pending.expire(1.0)
            pending.expire(5.0)
            self.assertEqual(sent(pending.put(asked("20"), "a", LONG, 6.0)), ["20 J"])


class TestPeopleFirst(SynchronousTestCase):
    """
    §4.2: a person, then a rule, then a poll; and one place is kept for people.
    """

    def test_order(self) -> None:
        """
        What a person asks is written first, then what a rule asks, then a poll, however early each was asked.
        """
        pending = link(window=1)
        pending.put(request("1"), 0, LONG, 0.0)
        for n, (sensor, priority) in enumerate([("2", POLL), ("3", RULE), ("4", PERSON), ("5", RULE), ("6", PERSON)]):
            self.assertEqual(sent(pending.put(request(sensor, priority=priority), n, LONG, 1.0 + n / 10)), [])
        order = [sent(pending.received([report(sensor)], 2.0, AT)) for sensor in ("1", "4", "6", "3", "5")]
        self.assertEqual(order, [["4 J"], ["6 J"], ["3 J"], ["5 J"], ["2 J"]])

    def test_kept_place(self) -> None:
        """
        The last free place is for a person's question, whoever has the others.
        """
        for priority in (RULE, POLL):
            for first in (PERSON, priority):
                pending = link(window=3)
                written = [
                    sent(pending.put(request("1", priority=first), 1, LONG, 0.0)),
                    sent(pending.put(request("2", priority=priority), 2, LONG, 0.0)),
                    sent(pending.put(request("3", priority=priority), 3, LONG, 0.0)),
                    sent(pending.put(request("4"), 4, LONG, 1.0)),
                ]
                self.assertEqual(written, [["1 J"], ["2 J"], [], ["4 J"]])
                self.assertEqual(sent(pending.received([report("1")], 2.0, AT)), [])
                self.assertEqual(sent(pending.received([report("4")], 2.0, AT)), ["3 J"])

    def test_kept_place_in_the_buffer(self) -> None:
        """
        A rule's message leaves room in the board's buffer for one more of its length; with a window of 1 it need not.
        """
        for window, written in [(3, []), (1, ["21 J"])]:
            pending = link(buffer=63, window=window, patience=1.0)
            pending.put(asked("20"), "a", 0.5, 0.0)
            pending.expire(1.0)
            rule = asked("21")._replace(priority=RULE)
            self.assertEqual(sent(pending.put(rule, "b", LONG, 1.5)), written)
            if not written:
                self.assertEqual(sent(pending.put(asked("22"), "c", LONG, 1.5)), ["22 J"])
                self.assertEqual(sent(pending.received([report("22")], 1.7, AT)), ["21 J"])

    def test_dead_sensor_that_a_person_asks(self) -> None:
        """
        A sensor that does not answer keeps no poll from being asked: no two of its messages are written in a row.
        """
        pending = link(window=1)
        pending.put(request("1"), "a", LONG, 0.0)
        for sensor in ("2", "3"):
            pending.put(request(sensor, priority=POLL), sensor, LONG, 1.0)
        self.assertEqual(sent(pending.expire(5.0)), ["1 J"])
        self.assertEqual(sent(pending.expire(10.0)), ["2 J"])
        self.assertEqual(sent(pending.received([report("2")], 11.0, AT)), ["1 J"])
        self.assertEqual(sent(pending.expire(16.0)), ["3 J"])

    def test_person_joins(self) -> None:
        """
        A poll or a rule's question that a person joins is a person's, asked at that moment.
        """
        pending = link(window=1)
        pending.put(request("1"), 0, LONG, 0.0)
        pending.put(request("2", priority=POLL), "poll", LONG, 1.0)
        pending.put(request("3", priority=RULE), "rule", LONG, 1.0)
        pending.put(request("4"), "person", LONG, 2.0)
        pending.put(request("2"), "joins", LONG, 3.0)
        self.assertEqual(sent(pending.received([report("1")], 4.0, AT)), ["4 J"])
        self.assertEqual(sent(pending.received([report("4")], 4.0, AT)), ["2 J"])
        moves = pending.received([report("2")], 5.0, AT)
        self.assertEqual((answered(moves), sent(moves)), (["joins", "poll"], ["3 J"]))

    def test_rule_keeps_its_order(self) -> None:
        """
        A rule's ON is written before a person's later OFF to the same sensor, which waits no longer for it.
        """
        pending = link(window=1)
        pending.put(request("1"), 0, LONG, 0.0)
        pending.put(request("9", "ON", priority=RULE), "rule", LONG, 1.0)
        pending.put(request("2", priority=RULE), "other rule", LONG, 0.5)
        pending.put(request("9", "OFF"), "person", LONG, 2.0)
        pending.put(request("3"), "later", LONG, 3.0)
        written = sent(pending.received([report("1")], 4.0, AT))
        for sensor, command in [("9", "ON"), ("9", "OFF"), ("3", "J")]:
            written += sent(pending.received([report(sensor, command)], 4.0, AT))
        self.assertEqual(written, ["9 ON", "9 OFF", "3 J", "2 J"])

    def test_poll_is_overtaken(self) -> None:
        """
        A poll that waits is written after all other questions of its sensor, also those of rules and those that join
        another poll.
        """
        pending = link()
        pending.put(request("20", "A"), 0, LONG, 0.0)
        for n, (command, priority) in enumerate([("P", POLL), ("Q", POLL), ("R", RULE), ("B", PERSON), ("Q", PERSON)]):
            pending.put(request("20", command, priority=priority), n, LONG, 1.0)
        written = []
        for command in "ARBQP":
            written += sent(pending.received([report("20", command)], 2.0, AT))
        self.assertEqual(written, ["20 R", "20 B", "20 Q", "20 P"])

    def test_joins_the_last_but_for_polls(self) -> None:
        """
        A person joins a person's question behind which only a poll waits.
        """
        pending = link()
        for n, (command, priority) in enumerate([("A", PERSON), ("B", PERSON), ("P", POLL), ("B", PERSON)]):
            pending.put(request("20", command, priority=priority), n, LONG, 0.0)
        pending.received([report("20", "A")], 1.0, AT)
        self.assertEqual(answered(pending.received([report("20", "B")], 1.0, AT)), [1, 3])

    def test_poll_is_asked_once(self) -> None:
        """
        A poll that is not answered fails when patience ends; with a person who joined it takes a new turn.
        """
        pending = link()
        pending.put(request("20", priority=POLL), "poll", LONG, 0.0)
        moves = pending.expire(5.0)
        self.assertEqual((failed(moves), sent(moves)), ({"poll": "timeout"}, []))
        pending.put(request("20", priority=POLL), "poll", LONG, 10.0)
        pending.put(request("20"), "person", LONG, 11.0)
        moves = pending.expire(15.0)
        self.assertEqual((failed(moves), sent(moves)), ({}, ["20 J"]))

    def test_poll_displaces_nothing(self) -> None:
        """
        A poll for which there is no room is busy, though nothing of its holder waits.
        """
        pending = link(window=1)
        pending.queues.link_limit = 1
        pending.put(request("1"), "a", LONG, 0.0)
        pending.put(request("2"), "b", LONG, 0.0)
        poll = Asker(request("3", priority=POLL), 1.0, "poll", Holder("poll"))
        self.assertEqual(failed(pending.ask(poll, LONG, 1.0)), {"poll": "busy"})


class TestHeld(SynchronousTestCase):
    """
    §4.12: what is held until its sensor reports.
    """

    def hold(self, pending: Pending, waiter: str, command: str = "J", limit: float = LONG, now: float = 0.0) -> None:
        """
        Hold a question for the sensor 7.
        """
        moves = pending.put(request("7", command, when_heard=True), waiter, limit, now)
        self.assertEqual((sent(moves), failed(moves)), ([], {}))

    def test_sent_when_heard(self) -> None:
        """
        It is written when its sensor reports, whatever that is, and answered as any other question; until then it is
        not in flight.
        """
        for heard in (report("7"), report("7", "K"), acknowledgement("7", "K")):
            pending = link()
            self.hold(pending, "a")
            self.assertEqual(pending.queues.in_flight, 0)
            self.assertEqual(sent(pending.received([report("8", "J")], 1.0, AT)), [])
            moves = pending.received([heard], 2.0, AT)
            self.assertEqual((sent(moves), answered(moves), answers(moves)), (["7 J"], [], [None]))
            self.assertEqual(pending.queues.in_flight, 1)
            self.assertEqual(answered(pending.received([report("7", "J")], 3.0, AT)), ["a"])
            self.assertTrue(pending.idle)

    def test_ahead_of_others(self) -> None:
        """
        It takes the next free place, before all that waits, also for its own sensor, and though this left messages
        unanswered.
        """
        pending = link(window=2)
        pending.put(request("7", "X"), "x", 1.0, 0.0)
        pending.expire(1.0)
        pending.expire(5.0)
        for sensor in ("1", "2", "3"):
            pending.put(request(sensor), sensor, LONG, 6.0)
        pending.put(request("7", "Y"), "y", LONG, 6.0)
        self.hold(pending, "a", "A", now=7.0)
        self.hold(pending, "b", "B", now=7.0)
        self.assertEqual(sent(pending.received([report("7", "K")], 8.0, AT)), [])
        self.assertEqual(sent(pending.received([report("1")], 9.0, AT)), ["7 A"])
        self.assertEqual(sent(pending.received([report("7", "A")], 9.0, AT)), ["7 B"])
        self.assertEqual(sent(pending.received([report("7", "B")], 9.0, AT)), ["3 J"])

    def test_joined_behind_a_rule(self) -> None:
        """
        A rule's question before one that a person has joined counts as the person's, though that one was held.
        """
        pending = link(window=1)
        self.assertEqual(sent(pending.put(request("7", "X", priority=RULE), "rule", LONG, 0.0)), ["7 X"])
        self.hold(pending, "a")
        pending.received([report("7", "K")], 1.0, AT)
        pending.put(request("7", "J"), "person", LONG, 2.0)
        pending.put(request("8", "Y", priority=RULE), "other", LONG, 2.0)
        self.assertEqual(sent(pending.expire(5.0)), ["7 X"])

    def test_equal_ones_join(self) -> None:
        """
        Equal questions that are held one after the other are written once, except toggles.
        """
        for once, written in [([], [["7 J"], []]), (["J"], [["7 J"], ["7 J"]])]:
            pending = link(once=frozenset(once))
            self.hold(pending, "a")
            self.hold(pending, "b")
            moves = [pending.received([report("7", "K")], 1.0, AT), pending.received([report("7", "J")], 2.0, AT)]
            self.assertEqual([sent(each) for each in moves], written)
            self.assertEqual(answered(moves[1]), ["a"] if once else ["a", "b"])

    def test_order(self) -> None:
        """
        ON, OFF, ON are written in this order.
        """
        pending = link()
        for n, command in enumerate(["ON", "OFF", "ON"]):
            self.hold(pending, str(n), command)
        written = sent(pending.received([report("7")], 1.0, AT))
        for command in ("ON", "OFF", "ON"):
            written += sent(pending.received([acknowledgement("7", command)], 2.0, AT))
        self.assertEqual(written, ["7 ON", "7 OFF", "7 ON"])

    def test_held_again(self) -> None:
        """
        If it is not answered until patience ends, it is held again, except for a person who joined without `when`.
        """
        pending = link()
        self.hold(pending, "a")
        self.assertEqual(sent(pending.received([report("7")], 1.0, AT)), ["7 J"])
        moves = pending.expire(6.0)
        self.assertEqual((sent(moves), failed(moves), pending.queues.in_flight), ([], {}, 0))
        self.assertEqual(sent(pending.received([report("7")], 60.0, AT)), ["7 J"])
        pending.put(request("7"), "joins", LONG, 61.0)
        self.assertEqual(sent(pending.expire(65.0)), ["7 J"])
        self.assertEqual(answered(pending.received([report("7", "J")], 66.0, AT)), ["joins"])

    def test_held_again_in_order(self) -> None:
        """
        So are those behind it, which the sensor no longer listens to; what was asked first stays first, and a toggle
        that was not written is not lost.
        """
        for once, left in [([], ["7 ON", "7 OFF"]), (["ON"], ["7 OFF"])]:
            pending = link(once=frozenset(once))
            self.hold(pending, "a", "ON")
            self.hold(pending, "b", "OFF")
            self.assertEqual(sent(pending.received([report("7")], 1.0, AT)), ["7 ON"])
            self.hold(pending, "c", "J", now=2.0)
            moves = pending.expire(6.0)
            self.assertEqual((sent(moves), failed(moves)), ([], {"a": "timeout"} if once else {}))
            self.assertEqual((pending.queues.waiting, pending.queues.in_flight, pending.idle), (0, 0, True))
            written = sent(pending.received([report("7", "K")], 60.0, AT))
            for command in ("ON", "OFF") if not once else ("OFF",):
                written += sent(pending.received([acknowledgement("7", command)], 61.0, AT))
            self.assertEqual(written, [*left, "7 J"])

    def test_behind_another(self) -> None:
        """
        Behind any question that is not answered, it is held again, too.
        """
        pending = link()
        pending.put(request("7", "K"), "a", LONG, 0.0)
        self.hold(pending, "b")
        pending.received([report("7", "X")], 1.0, AT)
        self.assertEqual((sent(pending.expire(5.0)), list(pending.held.by_sensor)), (["7 K"], ["7"]))
        self.assertEqual(sent(pending.received([report("7", "K")], 6.0, AT)), ["7 J"])

    def test_written_so_often(self) -> None:
        """
        A command that must not be repeated is written once, and one with retries so often, over all reports.
        """
        cases: list[tuple[dict[str, Any], int]] = [({"once": frozenset(["J"])}, 1), ({"retries": {"J": 2}}, 3)]
        for rules, times in cases:
            pending = link(**rules)
            self.hold(pending, "a")
            for n in range(times):
                self.assertEqual(sent(pending.received([report("7")], 10.0 * n, AT)), ["7 J"])
                moves = pending.expire(10.0 * n + 5.0)
            self.assertEqual(failed(moves), {"a": "timeout"})

    def test_limit(self) -> None:
        """
        When its time limit ends it fails with `timeout`, and says whether it was sent.
        """
        pending = link()
        self.hold(pending, "a", limit=100.0)
        self.hold(pending, "b", "L", limit=200.0)
        self.assertEqual(pending.deadline, 100.0)
        ((_, error),) = failures(pending.expire(100.0))
        self.assertIsInstance(error, NotHeard)
        self.assertEqual(sent(pending.received([report("7")], 101.0, AT)), ["7 L"])
        self.assertEqual(failures(pending.expire(106.0)), [])
        ((_, error),) = failures(pending.expire(200.0))
        self.assertIs(type(error), TimedOut)
        self.assertEqual((pending.deadline, pending.held.by_sensor), (math.inf, {}))

    def test_recent(self) -> None:
        """
        An answer from memory that is recent enough is given at once.
        """
        pending = link()
        pending.put(request("7"), "a", LONG, 0.0)
        pending.received([report("7")], 1.0, AT)
        self.assertEqual(answered(pending.put(request("7", max_age=5.0, when_heard=True), "b", LONG, 2.0)), ["b"])

    def test_link(self) -> None:
        """
        It is held while the device is offline, too, over every reconnection.
        """
        pending = Pending("tty", Rules(patience=5.0))
        pending.link_down(0.0)
        self.hold(pending, "a", now=1.0)
        for now in (2.0, 4.0):
            pending.link_up(now)
            self.assertEqual(failed(pending.link_down(now + 1.0)), {})
        pending.link_up(6.0)
        self.assertEqual(sent(pending.received([report("7")], 7.0, AT)), ["7 J"])

    def test_link_lost(self) -> None:
        """
        What was not written yet when the link is lost is held again, and what is on the wire fails.
        """
        pending = Pending("tty", Rules(patience=5.0, settle=2.0))
        pending.link_up(0.0)
        self.hold(pending, "a", "ON")
        self.hold(pending, "b", "OFF")
        pending.received([report("7", "K")], 1.0, AT)
        self.assertEqual(failed(pending.link_down(1.5)), {})
        pending.link_up(3.0)
        self.assertEqual(sent(pending.expire(5.0)), [])
        self.assertEqual(sent(pending.received([report("7", "K")], 6.0, AT)), ["7 ON"])
        self.assertEqual(failed(pending.link_down(7.0)), {"a": "offline"})
        pending.link_up(8.0)
        pending.expire(15.0)
        self.assertEqual(sent(pending.received([report("7", "K")], 16.0, AT)), ["7 OFF"])

    def test_settling(self) -> None:
        """
        What is heard while the link is not ready is followed as soon as it is.
        """
        pending = Pending("tty", Rules(settle=2.0))
        pending.link_up(0.0)
        self.hold(pending, "a")
        pending.put(request("1"), "b", LONG, 0.5)
        pending.received([report("7")], 1.0, AT)
        self.assertEqual(sent(pending.expire(2.0)), ["7 J", "1 J"])

    def test_ends(self) -> None:
        """
        It ends when it is cancelled, when its connection may have no more, and when usbgate stops; then nothing is
        written.
        """
        for end, code in [
            (lambda pending, asker: pending.cancel(asker, 1.0), "cancelled"),
            (lambda pending, asker: pending.withdraw([asker], 1.0), "timeout"),
            (lambda pending, asker: pending.stop(1.0), "stopped"),
        ]:
            pending, holder = link(), Holder("me")
            asker = Asker(request("7", when_heard=True), 0.0, "a", holder)
            pending.ask(asker, LONG, 0.0)
            self.assertEqual(failed(end(pending, asker)), {"a": code})
            self.assertEqual((dict(holder.askers), pending.held.by_sensor), ({}, {}))
            self.assertEqual(sent(pending.received([report("7")], 2.0, AT)), [])

    def test_cancelled_too_late(self) -> None:
        """
        What is on the wire is not cancelled.
        """
        pending = link()
        asker = Asker(request("7", when_heard=True), 0.0, "a", Holder("me"))
        pending.ask(asker, LONG, 0.0)
        pending.received([report("7")], 1.0, AT)
        self.assertEqual(failed(pending.cancel(asker, 2.0)), {})
        self.assertEqual(answered(pending.received([report("7", "J")], 3.0, AT)), ["a"])


class TestRetries(SynchronousTestCase):
    """
    §4.4: `retries`.
    """

    def test_so_many(self) -> None:
        """
        A command is written again so many times, whether it may be joined or not, and fails when patience ends then.
        """
        for once in ([], ["l"]):
            pending = link(retries={"l": 2}, once=frozenset(once))
            written = [sent(pending.put(request("9", "L"), "a", LONG, 0.0))]
            written += [sent(pending.expire(5.0)), sent(pending.expire(10.0))]
            self.assertEqual(written, [["9 L"]] * 3)
            moves = pending.expire(15.0)
            self.assertEqual((failed(moves), sent(moves)), ({"a": "timeout"}, []))

    def test_none(self) -> None:
        """
        With 0 it is written once.
        """
        pending = link(retries={"J": 0})
        pending.put(request(), "a", LONG, 0.0)
        self.assertEqual(failed(pending.expire(5.0)), {"a": "timeout"})

    def test_within_the_limit(self) -> None:
        """
        Nothing is written again after the asker's limit.
        """
        pending = link(retries={"L": 9})
        pending.put(request("9", "L"), "a", 7.0, 0.0)
        self.assertEqual(sent(pending.expire(5.0)), ["9 L"])
        self.assertEqual(failed(pending.expire(7.0)), {"a": "timeout"})
        self.assertEqual(sent(pending.expire(10.0)), [])

    def test_answered(self) -> None:
        """
        An answer to any of the messages ends it; the next question has all retries again.
        """
        pending = link(retries={"L": 1})
        for now in (0.0, 20.0):
            pending.put(request("9", "L"), "a", LONG, now)
            self.assertEqual(sent(pending.expire(now + 5.0)), ["9 L"])
            self.assertEqual(answered(pending.received([acknowledgement("9", "L")], now + 6.0, AT)), ["a"])

    def test_poll(self) -> None:
        """
        A poll is retried like any other question.
        """
        pending = link(retries={"J": 1})
        pending.put(request(priority=POLL), "a", LONG, 0.0)
        self.assertEqual(sent(pending.expire(5.0)), ["20 J"])
        self.assertEqual(failed(pending.expire(10.0)), {"a": "timeout"})


class TestJoining(SynchronousTestCase):
    """
    §4.3: who asks the same.
    """

    def test_joins_on_the_wire(self) -> None:
        """
        Who asks what is on the wire gets the answer, and nothing is written again.
        """
        pending = link()
        pending.put(request(), "a", LONG, 0.0)
        self.assertEqual(sent(pending.put(request(), "b", LONG, 1.0)), [])
        moves = pending.received([report()], 2.0, AT)
        self.assertEqual(answered(moves), ["a", "b"])
        self.assertEqual(sent(moves), [])
        self.assertTrue(pending.idle)

    def test_joins_waiting(self) -> None:
        """
        Who asks what waits as the last of its sensor's line joins it.
        """
        pending = link()
        pending.put(request("20", "J"), "a", LONG, 0.0)
        pending.put(request("20", "K"), "b", LONG, 0.0)
        pending.put(request("20", "K"), "c", LONG, 0.0)
        self.assertEqual(sent(pending.received([report("20", "J")], 1.0, AT)), ["20 K"])
        self.assertEqual(answered(pending.received([report("20", "K")], 2.0, AT)), ["b", "c"])

    def test_joins_only_the_last(self) -> None:
        """
        ON, OFF, ON on one sensor ends ON: the third does not join the first.
        """
        pending = link()
        written = []
        for n, command in enumerate(["ON", "OFF", "ON"]):
            written += sent(pending.put(request("9", command), n, LONG, 0.0))
        for n, command in enumerate(["ON", "OFF", "ON"]):
            moves = pending.received([acknowledgement("9", command)], 1.0 + n, AT)
            self.assertEqual(answered(moves), [n])
            written += sent(moves)
        self.assertEqual(written, ["9 ON", "9 OFF", "9 ON"])

    def test_other_arguments_do_not_join(self) -> None:
        """
        The same command with other arguments is another question.
        """
        pending = link()
        pending.put(request("9", "L", LEVEL="50"), "a", LONG, 0.0)
        pending.put(request("9", "L", LEVEL="60"), "b", LONG, 0.0)
        moves = pending.received([acknowledgement("9", "L")], 1.0, AT)
        self.assertEqual(answered(moves), ["a"])
        self.assertEqual(sent(moves), ["9 L 60"])

    def test_other_spelling_does_not_join(self) -> None:
        """
        Command and sensor are compared exactly.
        """
        pending = link()
        pending.put(request("20", "J"), "a", LONG, 0.0)
        pending.put(request("20", "j"), "b", LONG, 0.0)
        self.assertEqual(sent(pending.put(request("020", "J"), "c", LONG, 0.0)), ["020 J"])
        self.assertEqual(answered(pending.received([report("20", "J")], 1.0, AT)), ["a"])

    def test_arguments_are_a_set(self) -> None:
        """
        The same arguments in another order are the same question; who asks and how long makes no difference.
        """
        pending = link()
        pending.put(request("9", "L", LEVEL="50", SPEED="2"), "a", LONG, 0.0)
        other = Request(
            Question("9", "L", frozenset([("SPEED", "2"), ("LEVEL", "50")])),
            {"ID": "9", "SPEED": "2", "MSG": "L", "LEVEL": "50", "ORIGIN": "another"},
            b"",
            "another",
            "elsewhere",
            3.0,
        )
        self.assertEqual(sent(pending.put(other, "b", 3.0, 0.0)), [])
        self.assertEqual(answered(pending.received([report("9", "L")], 1.0, AT)), ["a", "b"])

    def test_joins_whom_nobody_waits_for_any_more(self) -> None:
        """
        A message on the wire whose askers gave up can still be joined.
        """
        pending = link()
        pending.put(request(), "a", 1.0, 0.0)
        self.assertEqual(failed(pending.expire(1.0)), {"a": "timeout"})
        self.assertEqual(sent(pending.put(request(), "b", LONG, 2.0)), [])
        self.assertEqual(answered(pending.received([report()], 3.0, AT)), ["b"])

    def test_toggle_never_joins(self) -> None:
        """
        A command with `coalesce = false` is written exactly as often as it is asked.
        """
        pending = link(once=frozenset(["T"]))
        written = []
        for n in range(3):
            written += sent(pending.put(request("9", "T"), n, LONG, 0.0))
        for n in range(3):
            moves = pending.received([acknowledgement("9", "T")], 1.0, AT)
            self.assertEqual(answered(moves), [n])
            written += sent(moves)
        self.assertEqual(written, ["9 T"] * 3)

    def test_toggle_is_not_repeated(self) -> None:
        """
        A toggle whose answer was lost fails when its patience ends, and is not written again.
        """
        pending = link(once=frozenset(["T"]))
        written = [
            *sent(pending.put(request("9", "T"), "a", LONG, 0.0)),
            *sent(pending.put(request("9", "T"), "b", LONG, 0.0)),
        ]
        moves = pending.expire(5.0)
        self.assertEqual(failed(moves), {"a": "timeout"})
        written += sent(moves)
        moves = pending.expire(10.0)
        self.assertEqual(failed(moves), {"b": "timeout"})
        written += sent(moves)
        self.assertEqual(written, ["9 T", "9 T"])
        self.assertTrue(pending.idle)

    def test_toggles_as_often_as_asked(self) -> None:
        """
        Whichever of many answers are lost, each toggle is written once.
        """
        pending = link(once=frozenset(["T"]))
        written, ended = [], []
        for n in range(10):
            written += sent(pending.put(request("9", "T"), n, LONG, 0.0))
        now = 0.0
        while pending.queues.in_flight:
            now += 1.0
            answer = int(now) % 3 == 0
            moves = pending.received([acknowledgement("9", "T")], now, AT) if answer else pending.expire(now)
            written += sent(moves)
            ended += [*answered(moves), *failed(moves)]
            now = now if answer else pending.deadline - 1.0 if int(now) % 2 else now
        self.assertEqual(written, ["9 T"] * 10)
        self.assertEqual(sorted(ended), list(range(10)))

    def test_toggle_with_the_same_question_between(self) -> None:
        """
        A command that may be joined is not joined across a toggle.
        """
        pending = link(once=frozenset(["T"]))
        for n, command in enumerate(["J", "T", "J"]):
            pending.put(request("9", command), n, LONG, 0.0)
        self.assertEqual(answered(pending.received([report("9", "J")], 1.0, AT)), [0])


class TestTime(SynchronousTestCase):
    """
    §4.4: limits, patience and new turns.
    """

    def test_each_at_its_own_limit(self) -> None:
        """
        Each asker fails at its own limit and touches nobody else.
        """
        pending = link()
        pending.put(request(), "a", 3.0, 0.0)
        pending.put(request(), "b", 1.0, 1.0)
        pending.put(request(), "c", LONG, 1.0)
        self.assertEqual(failed(pending.expire(1.75)), {})
        self.assertEqual(failed(pending.expire(2.0)), {"b": "timeout"})
        self.assertEqual(failed(pending.expire(3.0)), {"a": "timeout"})
        self.assertEqual(answered(pending.received([report()], 4.0, AT)), ["c"])

    def test_busy_if_never_written(self) -> None:
        """
        Whose question never got to the wire fails with `busy`, and it is not written afterwards.
        """
        pending = link()
        pending.put(request("20", "J"), "a", LONG, 0.0)
        pending.put(request("20", "K"), "b", 2.0, 0.0)
        self.assertEqual(failed(pending.expire(2.0)), {"b": "busy"})
        moves = pending.received([report("20", "J")], 3.0, AT)
        self.assertEqual(sent(moves), [])
        self.assertTrue(pending.idle)

    def test_others_keep_a_question_alive(self) -> None:
        """
        A waiting question is written as long as one of its askers is left, and it keeps its place.
        """
        pending = link()
        pending.put(request("20", "J"), "a", LONG, 0.0)
        pending.put(request("20", "K"), "b", 2.0, 0.0)
        pending.put(request("20", "K"), "c", LONG, 0.0)
        pending.put(request("20", "M"), "d", LONG, 0.0)
        self.assertEqual(failed(pending.expire(2.0)), {"b": "busy"})
        self.assertEqual(sent(pending.received([report("20", "J")], 3.0, AT)), ["20 K"])
        self.assertEqual(answered(pending.received([report("20", "K")], 4.0, AT)), ["c"])

    def test_timeout_if_ever_written(self) -> None:
        """
        Whose question was on the wire while it waited fails with `timeout`, though it waits again by now.
        """
        pending = link(window=1)
        pending.put(request("1"), "a", 7.0, 0.0)
        pending.put(request("2"), "b", LONG, 1.0)
        self.assertEqual(sent(pending.expire(5.0)), ["2 J"])
        self.assertEqual(failed(pending.expire(7.0)), {"a": "timeout"})

    def test_busy_if_joined_between_two_turns(self) -> None:
        """
        Who joined a question that waits for its next turn, and saw no message of it, fails with `busy`.
        """
        pending = link(window=1)
        pending.put(request("1"), "a", LONG, 0.0)
        pending.put(request("2"), "b", LONG, 1.0)
        pending.expire(5.0)
        pending.put(request("1"), "c", 2.0, 6.0)
        self.assertEqual(failed(pending.expire(8.0)), {"c": "busy"})

    def test_timeout_after_joining_on_the_wire(self) -> None:
        """
        Who joined a message on the wire fails with `timeout`.
        """
        pending = link()
        pending.put(request(), "a", LONG, 0.0)
        pending.put(request(), "b", 1.0, 2.0)
        self.assertEqual(failed(pending.expire(3.0)), {"b": "timeout"})

    def test_patience_holds_the_sensor(self) -> None:
        """
        While a message has patience left nothing else is written to that sensor, whoever still listens.
        """
        pending = link()
        pending.put(request("20", "J"), "a", 1.0, 0.0)
        pending.put(request("20", "K"), "b", LONG, 0.0)
        moves = pending.expire(1.0)
        self.assertEqual((sent(moves), failed(moves)), ([], {"a": "timeout"}))
        self.assertEqual(sent(pending.expire(4.75)), [])
        self.assertEqual(sent(pending.expire(5.0)), ["20 K"])

    def test_answer_nobody_waits_for(self) -> None:
        """
        An answer within patience belongs to its question though its asker gave up, and frees the sensor.
        """
        pending = link()
        pending.put(request("20", "J"), "a", 1.0, 0.0)
        pending.put(request("20", "K"), "b", LONG, 0.0)
        pending.expire(1.0)
        moves = pending.received([report()], 2.0, AT)
        self.assertEqual((answered(moves), answers(moves), sent(moves)), ([], ["J"], ["20 K"]))

    def test_limits_do_not_change_patience(self) -> None:
        """
        No asker's limit changes for how long a message is waited for.
        """
        pending = link()
        pending.put(request("20", "J"), "a", 3600.0, 0.0)
        pending.put(request("20", "J"), "b", 0.5, 0.0)
        self.assertEqual(sent(pending.expire(4.75)), [])
        self.assertEqual(sent(pending.expire(5.0)), ["20 J"])

    def test_patience_runs_from_writing(self) -> None:
        """
        Patience runs from when a message was written, not from when it was asked.
        """
        pending = link()
        pending.put(request("20", "J"), "a", LONG, 0.0)
        pending.put(request("20", "K"), "b", LONG, 0.0)
        pending.received([report("20", "J")], 4.0, AT)
        self.assertEqual(sent(pending.expire(8.75)), [])
        self.assertEqual(sent(pending.expire(9.0)), ["20 K"])

    def test_new_turn_is_first_of_its_sensor(self) -> None:
        """
        A question with askers left takes a new turn before the other questions of its sensor.
        """
        pending = link()
        pending.put(request("20", "J"), "a", LONG, 0.0)
        pending.put(request("20", "K"), "b", LONG, 0.0)
        moves = pending.expire(5.0)
        self.assertEqual((sent(moves), failed(moves)), (["20 J"], {}))
        moves = pending.received([report("20", "J")], 6.0, AT)
        self.assertEqual((answered(moves), sent(moves)), (["a"], ["20 K"]))

    def test_no_new_turn_for_nobody(self) -> None:
        """
        A message whose askers all gave up is not written again.
        """
        pending = link()
        pending.put(request(), "a", 2.0, 0.0)
        pending.expire(2.0)
        self.assertFalse(pending.idle)
        self.assertEqual(sent(pending.expire(5.0)), [])
        self.assertTrue(pending.idle)
        self.assertEqual(pending.deadline, math.inf)

    def test_late_answer_with_nothing_on_the_wire(self) -> None:
        """
        An answer later than patience goes to nobody while nothing is on the wire.
        """
        for spelled in (report("20", "J"), report("20")):
            pending = link()
            pending.put(request(), "a", 2.0, 0.0)
            pending.expire(2.0)
            pending.expire(5.0)
            moves = pending.received([spelled], 5.25, AT)
            self.assertEqual(answered(moves), [])
            self.assertEqual(moves.handed, [(spelled, None)])

    def test_late_answer_of_another_command(self) -> None:
        """
        A late answer with `MSG` is given to no request of another command.
        """
        pending = link()
        pending.put(request("20", "J"), "a", 2.0, 0.0)
        pending.expire(5.0)
        pending.put(request("20", "K"), "b", LONG, 6.0)
        moves = pending.received([report("20", "J")], 7.0, AT)
        self.assertEqual((answered(moves), answers(moves)), ([], [None]))

    def test_default_patience(self) -> None:
        """
        By default it is 10 s for a sensor that has shown neither `TAG` nor `MSG`, and 5 s for one that has.
        """
        pending = link(patience=None)
        self.assertEqual(pending.put(request("20"), "a", LONG, 0.0).send[0].patience, 10.0)
        pending.received([report("20")], 1.0, AT)
        self.assertEqual(pending.put(request("20"), "b", LONG, 2.0).send[0].patience, 10.0)
        self.assertEqual(sent(pending.expire(11.75)), [])
        pending.received([report("20", "J")], 11.75, AT)
        self.assertEqual(pending.put(request("20"), "c", LONG, 12.0).send[0].patience, 5.0)
        self.assertEqual(sent(pending.expire(17.0)), ["20 J"])
        self.assertEqual(pending.put(request("21"), "d", LONG, 17.0).send[0].patience, 10.0)

    def test_default_patience_with_tags(self) -> None:
        """
        By default it is 5 s for a sensor that has answered with its `TAG`.
        """
        pending = link(patience=None, tags=True)
        tag = pending.put(request(), "a", LONG, 0.0).send[0].tag
        pending.received([report(tag=tag)], 1.0, AT)
        self.assertEqual(pending.put(request(), "b", LONG, 2.0).send[0].patience, 5.0)

    def test_patience_settings(self) -> None:
        """
        A sensor's own patience wins over its device's, and the device's over the default, whatever was shown.
        """
        pending = link(patience=7.0, sensor_patience={"21": 20.0})
        self.assertEqual(pending.put(request("20"), "a", LONG, 0.0).send[0].patience, 7.0)
        self.assertEqual(pending.put(request("21"), "b", LONG, 0.0).send[0].patience, 20.0)
        pending.received([report("20", "J"), report("21", "J")], 1.0, AT)
        self.assertEqual(pending.put(request("20"), "c", LONG, 1.0).send[0].patience, 7.0)
        pending.put(request("21"), "d", LONG, 1.0)
        self.assertEqual(sent(pending.expire(8.0)), ["20 J"])
        self.assertEqual(sent(pending.expire(20.75)), ["20 J"])
        self.assertEqual(sent(pending.expire(21.0)), ["21 J"])

    def test_deadline(self) -> None:
        """
        `deadline` is the next limit or end of patience, and infinite where nothing is armed.
        """
        pending = link()
        self.assertEqual(pending.deadline, math.inf)
        pending.put(request(), "a", LONG, 0.0)
        self.assertEqual(pending.deadline, 5.0)
        pending.put(request(), "b", 2.0, 1.0)
        self.assertEqual(pending.deadline, 3.0)
        pending.expire(3.0)
        self.assertEqual(pending.deadline, 5.0)
        pending.received([report()], 4.0, AT)
        self.assertEqual(pending.deadline, math.inf)

    def test_counting_askers(self) -> None:
        """
        Everybody who waits is in flight, joined or not, and nobody who has ended.
        """
        pending = link()
        pending.put(request("20"), "a", LONG, 0.0)
        pending.put(request("20"), "b", 1.0, 0.0)
        pending.put(request("20", "K"), "c", LONG, 0.0)
        self.assertEqual(pending.queues.in_flight, 3)
        pending.expire(1.0)
        self.assertEqual(pending.queues.in_flight, 2)
        pending.received([report("20", "J")], 2.0, AT)
        self.assertEqual(pending.queues.in_flight, 1)
        pending.stop(3.0)
        self.assertEqual(pending.queues.in_flight, 0)

    def test_stop(self) -> None:
        """
        When usbgate ends, everybody who waits fails with `stopped`, once, and nothing is written or armed.
        """
        pending = link(window=1)
        pending.put(request("20"), "a", LONG, 0.0)
        pending.put(request("20", "K"), "b", LONG, 0.0)
        pending.put(request("21"), "c", LONG, 0.0)
        moves = pending.stop(1.0)
        self.assertEqual(failed(moves), {"a": "stopped", "b": "stopped", "c": "stopped"})
        self.assertEqual(sent(moves), [])
        self.assertEqual(failed(pending.stop(2.0)), {})
        self.assertEqual(pending.deadline, math.inf)


class TestWhichReportAnswers(SynchronousTestCase):
    """
    §4.5: and what is unasked.
    """

    def test_answer(self) -> None:
        """
        An answer is the report as it came, with the question's command, the time and the link.
        """
        pending = link("arduino")
        pending.put(request(), "a", LONG, 0.0)
        spelled = report("20", None, None, TEMP="21.5", HUM="48")
        moves = pending.received([spelled], 1.0, AT)
        self.assertEqual(replies(moves), [("a", Answer(spelled, "J", AT, "arduino", recent=False))])
        self.assertEqual(moves.handed, [(spelled, Question("20", "J"))])
        self.assertTrue(pending.idle)

    def test_another_sensor(self) -> None:
        """
        A report answers only its own sensor's message.
        """
        pending = link()
        pending.put(request("20"), "a", LONG, 0.0)
        moves = pending.received([report("21", "J"), report("020", "J")], 1.0, AT)
        self.assertEqual((answered(moves), answers(moves)), ([], [None, None]))

    def test_waiting_question_is_not_answered(self) -> None:
        """
        Only what is on the wire can be answered: a waiting question, even of the right command, cannot.
        """
        pending = link()
        pending.put(request("20", "J"), "a", LONG, 0.0)
        pending.put(request("20", "K"), "b", LONG, 0.0)
        moves = pending.received([report("20", "K")], 1.0, AT)
        self.assertEqual((answered(moves), answers(moves), sent(moves)), ([], [None], []))

    def test_wrong_command(self) -> None:
        """
        A report with `MSG` answers if that is the command.
        """
        pending = link()
        pending.put(request("20", "J"), "a", LONG, 0.0)
        moves = pending.received([report("20", "K"), report("20", "JJ")], 1.0, AT)
        self.assertEqual((answered(moves), answers(moves)), ([], [None, None]))
        self.assertEqual(answered(pending.received([report("20", "J")], 2.0, AT)), ["a"])

    def test_command_without_case(self) -> None:
        """
        `MSG` is compared without case; the question keeps its spelling.
        """
        for asked, said in [("on", "ON"), ("ON", "on"), ("Get.Temp", "gET.tEMP"), ("é1x", "é1X")]:
            pending = link()
            pending.put(request("20", asked), "a", LONG, 0.0)
            moves = pending.received([report("20", said)], 1.0, AT)
            self.assertEqual((answered(moves), answers(moves)), (["a"], [asked]))
            self.assertEqual(replies(moves)[0][1].command, asked)

    def test_only_ascii_without_case(self) -> None:
        """
        Letters that are not ASCII are compared as they are.
        """
        for asked, said in [("é", "É"), ("k", "\u212a"), ("ß", "SS"), ("i", "İ")]:
            pending = link()
            pending.put(request("20", asked), "a", LONG, 0.0)
            self.assertEqual(answered(pending.received([report("20", said)], 1.0, AT)), [])

    def test_two_spellings(self) -> None:
        """
        Two spellings of a command that were asked of a sensor are two commands from then on.
        """
        pending = link()
        for waiter, command in [("a", "on"), ("b", "ON"), ("c", "on")]:
            pending.put(request("20", command), waiter, LONG, 0.0)
        moves = pending.received([report("20", "ON"), report("20", "On"), report("20", "on")], 1.0, AT)
        self.assertEqual((answered(moves), answers(moves), sent(moves)), (["a"], [None, None, "on"], ["20 ON"]))
        self.assertEqual(answered(pending.received([report("20", "on"), report("20", "ON")], 2.0, AT)), ["b"])
        self.assertEqual(answered(pending.received([report("20", "ON"), report("20", "on")], 3.0, AT)), ["c"])

    def test_two_spellings_are_a_matter_of_the_sensor(self) -> None:
        """
        What was asked of one sensor, or of one link, says nothing of another; nor do other commands.
        """
        pending = link()
        for sensor, command in [("20", "on"), ("20", "off"), ("21", "ON"), ("21", "on")]:
            pending.put(request(sensor, command), (sensor, command), LONG, 0.0)
        self.assertEqual(answered(pending.received([report("20", "ON")], 1.0, AT)), [("20", "on")])
        self.assertEqual(answered(pending.received([report("20", "OFF")], 2.0, AT)), [("20", "off")])

    def test_fields_and_toggles_without_case(self) -> None:
        """
        The settings of a command apply to each of its spellings, which do not join.
        """
        pending = link(once=frozenset(["T"]), fields={"Hum": frozenset(["HUM"])})
        pending.put(request("20", "hUM"), "a", LONG, 0.0)
        self.assertEqual(answered(pending.received([report("20")], 1.0, AT)), [])
        self.assertEqual(answered(pending.received([report("20", HUM="48")], 2.0, AT)), ["a"])
        self.assertEqual(sent(pending.put(request("9", "t"), "a", LONG, 0.0)), ["9 t"])
        pending.put(request("9", "t"), "b", LONG, 0.0)
        self.assertEqual(sent(pending.received([acknowledgement("9", "T")], 1.0, AT)), ["9 t"])

    def test_without_msg(self) -> None:
        """
        A report without `MSG` answers as long as the sensor has never answered with one.
        """
        pending = link()
        for now in (0.0, 2.0, 4.0):
            pending.put(request(), "a", LONG, now)
            self.assertEqual(answered(pending.received([report()], now + 1.0, AT)), ["a"])

    def test_without_msg_from_a_sensor_that_tells_it(self) -> None:
        """
        Once a sensor has answered with a matching `MSG`, its reports without one are unasked, for ever.
        """
        pending = link()
        pending.put(request(), "a", LONG, 0.0)
        pending.received([report("20", "J")], 1.0, AT)
        pending.link_down(2.0)
        pending.link_up(3.0)
        pending.put(request("20", "K"), "b", LONG, 10.0)
        moves = pending.received([report()], 11.0, AT)
        self.assertEqual((answered(moves), answers(moves)), ([], [None]))
        self.assertEqual(answered(pending.received([report("20", "K")], 12.0, AT)), ["b"])

    def test_telling_msg_is_a_matter_of_the_sensor(self) -> None:
        """
        What one sensor shows says nothing of another on the same link.
        """
        pending = link()
        pending.put(request("20"), "a", LONG, 0.0)
        pending.put(request("21"), "b", LONG, 0.0)
        pending.received([report("20", "J")], 1.0, AT)
        self.assertEqual(answered(pending.received([report("21")], 2.0, AT)), ["b"])

    def test_telling_msg_is_a_matter_of_the_link(self) -> None:
        """
        What a sensor shows on one link says nothing of another link.
        """
        one, other = link("one"), link("other")
        one.put(request(), "a", LONG, 0.0)
        other.put(request(), "b", LONG, 0.0)
        one.received([report("20", "J")], 1.0, AT)
        self.assertEqual(answered(other.received([report()], 2.0, AT)), ["b"])

    def test_unmatched_msg_shows_nothing(self) -> None:
        """
        A report whose `MSG` matched nothing does not make its sensor one that tells it.
        """
        pending = link()
        pending.received([report("20", "J")], 0.0, AT)
        pending.put(request("20", "J"), "a", LONG, 1.0)
        pending.received([report("20", "K")], 2.0, AT)
        self.assertEqual(answered(pending.received([report()], 3.0, AT)), ["a"])

    def test_fields(self) -> None:
        """
        Where a command's fields are set, a report without `MSG` answers only if it carries one of them.
        """
        pending = link(fields={"J": frozenset(["TEMP", "VALUE"])})
        pending.put(request(), "a", LONG, 0.0)
        moves = pending.received([report(HUM="48", BAT="OK")], 1.0, AT)
        self.assertEqual((answered(moves), answers(moves)), ([], [None]))
        self.assertEqual(answered(pending.received([report(HUM="48", TEMP="21")], 2.0, AT)), ["a"])

    def test_fields_of_another_command(self) -> None:
        """
        A command with no fields set takes any report without `MSG`.
        """
        pending = link(fields={"K": frozenset(["TEMP"])})
        pending.put(request(), "a", LONG, 0.0)
        self.assertEqual(answered(pending.received([report(HUM="48")], 1.0, AT)), ["a"])

    def test_fields_with_msg(self) -> None:
        """
        A report that tells the command answers whatever it carries.
        """
        pending = link(fields={"J": frozenset(["TEMP"])})
        pending.put(request(), "a", LONG, 0.0)
        self.assertEqual(answered(pending.received([acknowledgement("20", "J")], 1.0, AT)), ["a"])

    def test_humidity_overtakes_temperature(self) -> None:
        """
        The bug that started it all: a humidity answer overtakes a temperature answer while many people ask both,
        and nobody ever gets the other's answer.
        """
        commands = {"T": "TEMP", "H": "HUM"}
        by_fields = {command: frozenset([field]) for command, field in commands.items()}
        settings: list[tuple[dict[str, frozenset[str]], bool]] = [({}, True), (by_fields, False)]
        for fields, told in settings:
            pending = link(fields=fields)
            on_wire: list[str] = []
            got: list[tuple[str, Answer]] = []
            for n in range(200):
                now = n * 0.25
                moves = [pending.put(request("20", "TH"[n % 2]), "TH"[n % 2], LONG, now) for n in range(n, n + 3)]
                on_wire += [send.request.question.command for each in moves for send in each.send]
                # The humidity always comes first, asked or not; the temperature only when it was asked.
                chunk = [report("20", "H" if told else None, HUM="48")]
                if "T" in on_wire:
                    chunk.append(report("20", "T" if told else None, TEMP="21"))
                moves = [pending.received(chunk, now, AT)]
                on_wire = [send.request.question.command for send in moves[0].send]
                got += [pair for each in moves for pair in replies(each)]
            self.assertGreater(len(got), 300)
            self.assertEqual({command for command, _ in got}, {"T", "H"})
            for command, answer in got:
                self.assertEqual(answer.command, command)
                self.assertEqual(answer.report.values[0][0], commands[command])

    def test_acknowledgement(self) -> None:
        """
        A report without measurements answers its request.
        """
        pending = link()
        pending.put(request("9", "ON"), "a", LONG, 0.0)
        spelled = acknowledgement("9", "ON")
        moves = pending.received([spelled], 1.0, AT)
        self.assertEqual(replies(moves), [("a", Answer(spelled, "ON", AT, "tty"))])

    def test_handed_on_once_and_in_order(self) -> None:
        """
        Every report of a chunk is handed on once, in order, with the question that it answered or none.
        """
        pending = link()
        pending.put(request("20"), "a", LONG, 0.0)
        pending.put(request("21"), "b", LONG, 0.0)
        chunk = [report("2", SMOKE="1"), report("21"), report("21"), report("20", "J"), report("20", "J")]
        moves = pending.received(chunk, 1.0, AT)
        self.assertEqual([handed[0] for handed in moves.handed], chunk)
        self.assertEqual(answers(moves), [None, "J", None, "J", None])
        self.assertEqual(answered(moves), ["a", "b"])

    def test_nothing_is_written_within_a_chunk(self) -> None:
        """
        The second report of a chunk cannot answer a message that is written since the first one answered.
        """
        pending = link(window=1)
        pending.put(request("20", "L", LEVEL="1"), "a", LONG, 0.0)
        pending.put(request("20", "L", LEVEL="2"), "b", LONG, 0.0)
        pending.put(request("21"), "c", LONG, 0.0)
        moves = pending.received([report("20", "L"), report("20", "L"), report("21")], 1.0, AT)
        self.assertEqual(answered(moves), ["a"])
        self.assertEqual(answers(moves), ["L", None, None])
        self.assertEqual(sent(moves), ["20 L 2"])

    def test_empty_chunk(self) -> None:
        """
        A chunk with no report only lets time pass.
        """
        pending = link()
        pending.put(request(), "a", 1.0, 0.0)
        moves = pending.received([], 1.0, AT)
        self.assertEqual((failed(moves), moves.handed), ({"a": "timeout"}, []))

    def test_no_tag_goes_out_where_tags_are_off(self) -> None:
        """
        Where tags are off none goes out, and one that comes in is ignored.
        """
        pending = link()
        self.assertIsNone(pending.put(request(), "a", LONG, 0.0).send[0].tag)
        self.assertEqual(answered(pending.received([report(tag="x")], 1.0, AT)), ["a"])

    def test_tag_answers(self) -> None:
        """
        With tags on, a report answers by its `TAG`, whatever `MSG` it has.
        """
        pending = link(tags=True)
        tag = pending.put(request("20", "J"), "a", LONG, 0.0).send[0].tag
        self.assertIsNotNone(tag)
        self.assertEqual(answered(pending.received([report("20", "K", tag)], 1.0, AT)), ["a"])

    def test_damaged(self) -> None:
        """
        A report of which a damaged field was left out answers by a matching `MSG` or `TAG` only.
        """
        for command, answers_it in ((None, []), ("K", []), ("J", ["a"])):
            pending = link()
            pending.put(request("20", "J"), "a", LONG, 0.0)
            damaged = report("20", command)._replace(left_out=("empty value",))
            self.assertEqual(answered(pending.received([damaged], 1.0, AT)), answers_it)
        pending = link(tags=True)
        tag = pending.put(request("20", "J"), "a", LONG, 0.0).send[0].tag
        damaged = report("20", "J")._replace(left_out=("not UTF-8",))
        self.assertEqual(answered(pending.received([damaged], 1.0, AT)), [])
        self.assertEqual(answered(pending.received([damaged._replace(tag=tag)], 1.0, AT)), ["a"])

    def test_nothing_but_the_tag_answers(self) -> None:
        """
        With tags on, neither the command nor another sensor's tag makes an answer.
        """
        pending = link(tags=True)
        pending.put(request("20"), "a", LONG, 0.0)
        tag = pending.put(request("21"), "b", LONG, 0.0).send[0].tag
        moves = pending.received([report("20", "J"), report("20"), report("20", "J", tag)], 1.0, AT)
        self.assertEqual((answered(moves), answers(moves)), ([], [None, None, None]))

    def test_late_tag(self) -> None:
        """
        With tags on, a late answer does not even answer the same question's new turn.
        """
        pending = link(tags=True)
        old = pending.put(request(), "a", LONG, 0.0).send[0].tag
        new = pending.expire(5.0).send[0].tag
        self.assertNotEqual(old, new)
        self.assertEqual(answered(pending.received([report("20", "J", old)], 6.0, AT)), [])
        self.assertEqual(answered(pending.received([report("20", "J", new)], 7.0, AT)), ["a"])

    def test_tags_fit(self) -> None:
        """
        A tag has at most 8 characters, reads back, and differs from the others, wherever they start.
        """
        for first in (0, 7, 10**8 - 2, 16**8 - 2, 36**8 - 2, 2**63):
            pending = link(tags=True, window=8, first_tag=first)
            tags = [pending.put(request(str(n)), n, LONG, 0.0).send[0].tag or "" for n in range(8)]
            self.assertEqual(len(set(tags)), 8)
            for tag in tags:
                self.assertLessEqual(len(tag), 8)
                check_value("TAG", tag)
                self.assertNotIn("_", tag)

    def test_tags_start_anywhere(self) -> None:
        """
        The first tag is up to who makes the link, so that two runs of usbgate do not use the same ones.
        """
        tags = {link(tags=True, first_tag=n).put(request(), "a", LONG, 0.0).send[0].tag for n in (1, 1000, 50_000)}
        self.assertEqual(len(tags), 3)

    def test_unsure(self) -> None:
        """
        A sensor is named as one that cannot be told apart while it has answered, but never with `MSG`.
        """
        pending = link()
        pending.received([report("2")], 0.0, AT)
        pending.put(request("20"), "a", LONG, 0.0)
        self.assertEqual(list(pending.unsure), [])
        pending.received([report("20")], 1.0, AT)
        self.assertEqual(list(pending.unsure), ["20"])
        pending.put(request("20"), "b", LONG, 2.0)
        pending.received([report("20", "J")], 3.0, AT)
        self.assertEqual(list(pending.unsure), [])

    def test_unsure_with_tags(self) -> None:
        """
        With tags nothing slips, so nobody is named.
        """
        pending = link(tags=True)
        tag = pending.put(request(), "a", LONG, 0.0).send[0].tag
        pending.received([report(tag=tag)], 1.0, AT)
        self.assertEqual(list(pending.unsure), [])


class TestQueueLimits(SynchronousTestCase):
    """
    §3, limits: 64 questions waiting a sensor, 4,096 a link.
    """

    def test_sensor(self) -> None:
        """
        The 65th waiting question of a sensor is told `busy`; another sensor, and who only joins, are not.
        """
        pending = Pending("tty", Rules(patience=5.0))
        for n in range(64):
            self.assertEqual(failed(pending.put(request("20", f"C{n}"), n, LONG, 0.0)), {})
        self.assertEqual(failed(pending.put(request("20", "C64"), 64, LONG, 0.0)), {64: "busy"})
        self.assertEqual(failed(pending.put(request("20", "C63"), 65, LONG, 0.0)), {})
        self.assertEqual(failed(pending.put(request("21", "C64"), 66, LONG, 0.0)), {})
        self.assertEqual(pending.queues.in_flight, 66)

    def test_link(self) -> None:
        """
        The 4,097th waiting question of a link is told `busy`.
        """
        pending = Pending("tty", Rules(patience=5.0))
        for n in range(4096):
            self.assertEqual(failed(pending.put(request(str(n % 100), f"C{n}"), n, LONG, 0.0)), {})
        self.assertEqual(failed(pending.put(request("new"), "a", LONG, 0.0)), {"a": "busy"})
        self.assertEqual(pending.queues.in_flight, 4096)

    def test_place_is_free_again(self) -> None:
        """
        What ended, in whatever way, waits no more.
        """
        pending = Pending("tty", Rules(patience=5.0))
        for n in range(64):
            pending.put(request("20", f"C{n}"), n, 1.0, 0.0)
        pending.expire(1.0)
        for n in range(64):
            self.assertEqual(failed(pending.put(request("20", f"C{n}"), n, LONG, 2.0)), {})
        pending.link_down(3.0)
        pending.link_up(4.0)
        for n in range(64):
            self.assertEqual(failed(pending.put(request("20", f"C{n}"), n, LONG, 5.0)), {})
        for n in range(64):
            self.assertEqual(answered(pending.received([report("20", f"C{n}")], 6.0, AT)), [n])
        self.assertTrue(pending.idle)

    def test_places_are_counted_right(self) -> None:
        """
        After thousands of requests that ended in every way a link has all of its places again, and no more.
        """
        pending = link(window=2, once=frozenset(["T"]))
        now = 0.0
        for n in range(300):
            for sensor in "123":
                for command, limit in (("J", 30.0), ("J", 1.0), ("K", 2.0), ("T", 8.0), ("M", 0.5), ("N", 20.0)):
                    pending.put(request(sensor, command), n, limit, now)
            while not pending.idle:
                now = min(pending.deadline, now + 1.0)
                spoken = [report("1", command) for command in "JKTMN"] + [report("2", "T")] * (n % 2)
                pending.received(spoken if int(now) % 3 else [], now, AT)
            now += 1.0
        places = 0
        while not failed(pending.put(request(str(places % 100), f"C{places}"), places, LONG, now)):
            places += 1
        self.assertIn(places - 2, (4094, 4095, 4096))  # the two on the wire may count or not


class TestLinks(SynchronousTestCase):
    """
    §4.7: a link that starts, settles, drops and comes back.
    """

    def test_starting(self) -> None:
        """
        Until the first attempt has ended requests wait; then they are written, as many as the window takes.
        """
        pending = Pending("tty", Rules(window=2))
        self.assertEqual(pending.state, "starting")
        for n in range(3):
            moves = pending.put(request(str(n)), n, LONG, 0.0)
            self.assertEqual((sent(moves), failed(moves)), ([], {}))
        moves = pending.link_up(1.0)
        self.assertEqual(pending.state, "online")
        self.assertEqual(sent(moves), ["0 J", "1 J"])

    def test_limits_run_while_starting(self) -> None:
        """
        Who gives up before the device was opened is told `busy`: the device never saw it.
        """
        pending = Pending("tty", Rules())
        pending.put(request(), "a", 1.0, 0.0)
        self.assertEqual(pending.deadline, 1.0)
        self.assertEqual(failed(pending.expire(1.0)), {"a": "busy"})
        self.assertEqual(sent(pending.link_up(2.0)), [])

    def test_first_attempt_fails(self) -> None:
        """
        When the first attempt fails, all that wait fail with `offline`, and so do new ones, at once.
        """
        pending = Pending("tty", Rules())
        pending.put(request(), "a", LONG, 0.0)
        self.assertEqual(failed(pending.link_down(1.0)), {"a": "offline"})
        self.assertEqual(pending.state, "offline")
        self.assertEqual(failed(pending.put(request(), "b", LONG, 2.0)), {"b": "offline"})
        self.assertEqual(pending.deadline, math.inf)
        self.assertTrue(pending.idle)

    def test_settling(self) -> None:
        """
        For `settle` seconds after opening requests wait and nothing is written; then they are.
        """
        pending = Pending("tty", Rules(settle=2.0))
        pending.put(request("20"), "a", LONG, 0.0)
        self.assertEqual(sent(pending.link_up(1.0)), [])
        self.assertEqual(pending.state, "settling")
        self.assertEqual(sent(pending.put(request("21"), "b", LONG, 2.0)), [])
        self.assertEqual(pending.deadline, 3.0)
        self.assertEqual(sent(pending.expire(2.75)), [])
        self.assertEqual(sent(pending.expire(3.0)), ["20 J", "21 J"])
        self.assertEqual(pending.state, "online")

    def test_settles_without_a_timer(self) -> None:
        """
        Settling ends at its time, whatever call comes first.
        """
        pending = Pending("tty", Rules(settle=2.0))
        pending.link_up(0.0)
        self.assertEqual(sent(pending.put(request(), "a", LONG, 2.0)), ["20 J"])

    def test_reports_while_settling(self) -> None:
        """
        What a device says while it settles is handed on, and answers nothing.
        """
        pending = Pending("tty", Rules(settle=2.0))
        pending.put(request(), "a", LONG, 0.0)
        pending.link_up(0.0)
        moves = pending.received([report("20", "J")], 1.0, AT)
        self.assertEqual((answered(moves), answers(moves)), ([], [None]))

    def test_settles_automatically(self) -> None:
        """
        By default a board that was reset settles for 2 s, and any other not at all.
        """
        for board, end in [(BoardKind(resets=True), 3.0), (BoardKind(), 1.0), (BoardKind(native=True), 1.0)]:
            pending = Pending("tty", Rules(settle=None))
            pending.put(request("20"), "a", LONG, 0.0)
            moves = pending.link_up(1.0, board)
            if end > 1.0:
                self.assertEqual((sent(moves), pending.state, pending.deadline), ([], "settling", end))
                moves = pending.expire(end)
            self.assertEqual((sent(moves), pending.state), (["20 J"], "online"))

    def test_first_line_ends_settling(self) -> None:
        """
        The first line of a board that was reset ends that; it answers nothing.
        """
        pending = Pending("tty", Rules(settle=None))
        pending.put(request("20"), "a", LONG, 0.0)
        pending.link_up(0.0, BoardKind(resets=True))
        moves = pending.received([report("20")], 0.5, AT)
        self.assertEqual((answered(moves), sent(moves), pending.state), ([], [], "settling"))
        self.assertEqual(sent(pending.board_started(0.5)), ["20 J"])
        self.assertEqual(pending.state, "online")
        self.assertEqual(answered(pending.received([report("20")], 0.75, AT)), ["a"])
        # The next opening resets it again.
        pending.link_down(1.0)
        pending.link_up(2.0, BoardKind(resets=True))
        self.assertEqual(pending.state, "settling")

    def test_configured_settling_is_not_ended(self) -> None:
        """
        A time that was configured lasts, whatever the board sends.
        """
        pending = Pending("tty", Rules(settle=3.0))
        pending.link_up(0.0, BoardKind(resets=True))
        pending.put(request("20"), "a", LONG, 0.0)
        self.assertEqual(sent(pending.board_started(1.0)), [])
        self.assertEqual(pending.state, "settling")
        self.assertEqual(sent(pending.expire(3.0)), ["20 J"])

    def test_board_started_elsewhere(self) -> None:
        """
        A first line changes nothing if the link is not settling.
        """
        pending = Pending("tty", Rules(settle=None))
        pending.link_up(0.0)
        pending.board_started(0.5)
        self.assertEqual(pending.state, "online")
        pending.link_down(1.0)
        pending.board_started(1.5)
        self.assertEqual(pending.state, "offline")

    def test_settles_again(self) -> None:
        """
        A link that dropped while settling settles anew, from when it is back.
        """
        pending = Pending("tty", Rules(settle=2.0))
        pending.link_up(0.0)
        pending.put(request(), "a", LONG, 0.0)
        self.assertEqual(failed(pending.link_down(1.0)), {"a": "offline"})
        pending.link_up(1.5)
        pending.put(request(), "b", LONG, 1.5)
        self.assertEqual(sent(pending.expire(3.25)), [])
        self.assertEqual(sent(pending.expire(3.5)), ["20 J"])

    def test_link_drops(self) -> None:
        """
        When a link drops, all that wait or are on the wire fail with `offline`, and so do new ones, at once.
        """
        pending = link(window=1)
        pending.put(request("20"), "a", LONG, 0.0)
        pending.put(request("20", "K"), "b", LONG, 0.0)
        pending.put(request("21"), "c", LONG, 0.0)
        self.assertEqual(failed(pending.link_down(1.0)), {"a": "offline", "b": "offline", "c": "offline"})
        self.assertEqual(failed(pending.put(request(), "d", LONG, 1.0)), {"d": "offline"})
        self.assertEqual(pending.queues.in_flight, 0)
        self.assertEqual(pending.deadline, math.inf)

    def test_taken_after_a_flap(self) -> None:
        """
        A sensor whose message was on the wire stays taken until `patience` after the link is back.
        """
        pending = link()
        pending.put(request("20"), "a", LONG, 0.0)
        pending.link_down(4.0)
        pending.link_up(100.0)
        self.assertEqual(sent(pending.put(request("20", "K"), "b", LONG, 101.0)), [])
        self.assertEqual(sent(pending.put(request("21"), "c", LONG, 101.0)), ["21 J"])
        self.assertEqual(sent(pending.expire(104.75)), [])
        self.assertEqual(sent(pending.expire(105.0)), ["20 K"])

    def test_late_answer_after_a_flap(self) -> None:
        """
        An answer that comes after a flap goes to nobody, not even to who asks the same by now.
        """
        pending = link()
        pending.put(request(), "a", LONG, 0.0)
        pending.link_down(1.0)
        pending.link_up(2.0)
        pending.put(request(), "b", LONG, 2.0)
        moves = pending.received([report()], 3.0, AT)
        self.assertEqual((answered(moves), answers(moves), sent(moves)), ([], [None], []))

    def test_flaps_again(self) -> None:
        """
        A second flap makes it stay taken from the second return on, and it is freed in the end.
        """
        pending = link()
        pending.put(request(), "a", LONG, 0.0)
        pending.link_down(1.0)
        pending.link_up(2.0)
        pending.link_down(3.0)
        pending.link_up(50.0)
        self.assertFalse(pending.idle)
        self.assertEqual(sent(pending.put(request(), "b", LONG, 51.0)), [])
        self.assertEqual(sent(pending.expire(55.0)), ["20 J"])
        pending.received([report()], 56.0, AT)
        self.assertTrue(pending.idle)

    def test_lane_is_freed_after_a_flap(self) -> None:
        """
        A sensor that stayed taken after a flap is freed though nobody asks it again.
        """
        pending = link()
        pending.put(request(), "a", LONG, 0.0)
        pending.link_down(1.0)
        pending.link_up(2.0)
        self.assertEqual(pending.deadline, 7.0)
        pending.expire(7.0)
        self.assertTrue(pending.idle)
        self.assertEqual(pending.deadline, math.inf)

    def test_what_only_waited_is_not_taken(self) -> None:
        """
        A sensor whose question had not been written yet is free as soon as the link is back.
        """
        pending = link(window=1)
        pending.put(request("20"), "a", LONG, 0.0)
        pending.put(request("21"), "b", LONG, 0.0)
        pending.link_down(1.0)
        pending.link_up(2.0)
        pending.expire(7.0)
        self.assertEqual(sent(pending.put(request("21"), "c", LONG, 7.0)), ["21 J"])

    def test_taken_while_settling(self) -> None:
        """
        Patience after a flap runs from when the link is back, beside the settling.
        """
        pending = link(settle=2.0)
        pending.expire(2.0)
        pending.put(request(), "a", LONG, 2.0)
        pending.link_down(3.0)
        pending.link_up(4.0)
        pending.put(request(), "b", LONG, 4.0)
        self.assertEqual(sent(pending.expire(6.0)), [])
        self.assertEqual(sent(pending.expire(8.75)), [])
        self.assertEqual(sent(pending.expire(9.0)), ["20 J"])


class TestMaxAge(SynchronousTestCase):
    """
    §4.8: an answer may be recent enough.
    """

    def answered_once(self, question: Request, **rules: Any) -> Pending:
        """
        Build a link on which this was asked at 0 and answered at 1.
        """
        pending = link(**rules)
        pending.put(question, "first", LONG, 0.0)
        moves = pending.received([report(question.question.sensor, VALUE="first")], 1.0, AT)
        self.assertEqual(answered(moves), ["first"])
        return pending

    def test_recent_enough(self) -> None:
        """
        The newest answer is given at once if it is no older, and nothing goes to the device.
        """
        pending = self.answered_once(request())
        moves = pending.put(request(max_age=30.0), "a", LONG, 31.0)
        self.assertEqual(replies(moves), [("a", Answer(report(VALUE="first"), "J", AT, "tty", recent=True))])
        self.assertEqual((sent(moves), moves.handed), ([], []))
        self.assertEqual(pending.queues.in_flight, 0)
        self.assertTrue(pending.idle)

    def test_too_old(self) -> None:
        """
        An older answer is asked for anew.
        """
        pending = self.answered_once(request())
        moves = pending.put(request(max_age=30.0), "a", LONG, 31.25)
        self.assertEqual((answered(moves), sent(moves)), ([], ["20 J"]))

    def test_without_max_age(self) -> None:
        """
        Who does not say `max_age` is answered by the device.
        """
        pending = self.answered_once(request())
        moves = pending.put(request(), "a", LONG, 1.0)
        self.assertEqual((answered(moves), sent(moves)), ([], ["20 J"]))

    def test_newest(self) -> None:
        """
        It is the newest answer that is given.
        """
        pending = self.answered_once(request())
        pending.put(request(), "a", LONG, 2.0)
        pending.received([report(VALUE="second")], 3.0, AT + 2000)
        ((_, answer),) = replies(pending.put(request(max_age=30.0), "b", LONG, 4.0))
        self.assertEqual((answer.report.values, answer.at), ((("VALUE", "second"),), AT + 2000))

    def test_other_question(self) -> None:
        """
        Neither another command, nor another sensor, nor a case of arguments is that very question.
        """
        pending = self.answered_once(request())
        for n, other in enumerate(
            [
                request("20", "K", max_age=30.0),
                request("21", "J", max_age=30.0),
                request("20", "J", max_age=30.0, LEVEL="1"),
            ]
        ):
            self.assertEqual(answered(pending.put(other, n, LONG, 2.0)), [])

    def test_with_arguments(self) -> None:
        """
        A question with arguments is never answered from memory.
        """
        pending = self.answered_once(request("9", "L", LEVEL="50"))
        moves = pending.put(request("9", "L", max_age=30.0, LEVEL="50"), "a", LONG, 2.0)
        self.assertEqual((answered(moves), sent(moves)), ([], ["9 L 50"]))

    def test_toggle(self) -> None:
        """
        A command with `coalesce = false` is never answered from memory.
        """
        pending = self.answered_once(request("9", "T"), once=frozenset(["T"]))
        moves = pending.put(request("9", "T", max_age=30.0), "a", LONG, 2.0)
        self.assertEqual((answered(moves), sent(moves)), ([], ["9 T"]))

    def test_unasked_reading(self) -> None:
        """
        An unasked reading is not an answer to anything.
        """
        pending = link()
        pending.received([report("20", "J")], 1.0, AT)
        self.assertEqual(answered(pending.put(request(max_age=30.0), "a", LONG, 2.0)), [])

    def test_answer_nobody_waited_for(self) -> None:
        """
        The answer to a question whose asker gave up is an answer to it.
        """
        pending = link()
        pending.put(request(), "a", 1.0, 0.0)
        pending.expire(1.0)
        pending.received([report()], 2.0, AT)
        self.assertEqual(answered(pending.put(request(max_age=30.0), "b", LONG, 3.0)), ["b"])

    def test_another_link(self) -> None:
        """
        What was answered on one link is not known to another.
        """
        self.answered_once(request())
        self.assertEqual(answered(link("other").put(request(max_age=30.0), "a", LONG, 2.0)), [])


class TestEveryCallEndsWhatIsOver(SynchronousTestCase):
    """
    §4.9: first what is over at `now`, limits before patience, and only then what was given.
    """

    def test_answer_at_the_limit(self) -> None:
        """
        An answer that comes at an asker's limit is too late for it, and still belongs to its question.
        """
        pending = link()
        pending.put(request(), "a", 2.0, 0.0)
        moves = pending.received([report()], 2.0, AT)
        self.assertEqual((answered(moves), failed(moves), answers(moves)), ([], {"a": "timeout"}, ["J"]))

    def test_answer_at_the_end_of_patience(self) -> None:
        """
        An answer that comes when patience is over is late, and does not answer the turn that begins with it.
        """
        pending = link()
        pending.put(request(), "a", LONG, 0.0)
        moves = pending.received([report()], 5.0, AT)
        self.assertEqual((answered(moves), answers(moves), sent(moves)), ([], [None], ["20 J"]))

    def test_late_answer_meets_the_next_question(self) -> None:
        """
        An answer that comes with the timer still to fire does not answer the question that waits behind.
        """
        pending = link()
        pending.put(request("20", "J"), "a", 1.0, 0.0)
        pending.put(request("20", "K"), "b", LONG, 0.0)
        moves = pending.received([report()], 6.0, AT)
        self.assertEqual((answered(moves), failed(moves), answers(moves)), ([], {"a": "timeout"}, [None]))
        self.assertEqual(sent(moves), ["20 K"])

    def test_limits_before_patience(self) -> None:
        """
        Where limit and patience end together, the asker has gone before the question could take a new turn.
        """
        pending = link()
        pending.put(request(), "a", 5.0, 0.0)
        moves = pending.expire(5.0)
        self.assertEqual((failed(moves), sent(moves)), ({"a": "timeout"}, []))
        self.assertTrue(pending.idle)

    def test_limits_before_patience_when_late(self) -> None:
        """
        So it is when the timer is late and both are over, whichever was over first.
        """
        pending = link()
        pending.put(request(), "a", 6.0, 0.0)
        moves = pending.expire(7.0)
        self.assertEqual((failed(moves), sent(moves)), ({"a": "timeout"}, []))

    def test_ask_ends_first(self) -> None:
        """
        Who asks when patience is over does not join the message that is forgotten, and gets one of its own.
        """
        pending = link()
        pending.put(request(), "a", 2.0, 0.0)
        moves = pending.put(request(), "b", LONG, 5.0)
        self.assertEqual((failed(moves), sent(moves)), ({"a": "timeout"}, ["20 J"]))

    def test_ask_ends_first_with_a_toggle(self) -> None:
        """
        A toggle that is over fails before the next one is written.
        """
        pending = link(once=frozenset(["T"]))
        pending.put(request("9", "T"), "a", LONG, 0.0)
        moves = pending.put(request("9", "T"), "b", LONG, 5.0)
        self.assertEqual((failed(moves), sent(moves)), ({"a": "timeout"}, ["9 T"]))

    def test_link_down_ends_first(self) -> None:
        """
        Who is over when the link drops fails with its own code, the others with `offline`.
        """
        pending = link()
        pending.put(request("20", "J"), "a", 2.0, 0.0)
        pending.put(request("20", "K"), "b", 2.0, 0.0)
        pending.put(request("20", "K"), "c", LONG, 0.0)
        self.assertEqual(failed(pending.link_down(2.0)), {"a": "timeout", "b": "busy", "c": "offline"})

    def test_forgotten_before_the_flap(self) -> None:
        """
        A message whose patience was over when the link dropped leaves its sensor free.
        """
        pending = link()
        pending.put(request(), "a", 2.0, 0.0)
        pending.link_down(5.0)
        pending.link_up(6.0)
        self.assertEqual(sent(pending.put(request(), "b", LONG, 6.0)), ["20 J"])

    def test_link_up_ends_first(self) -> None:
        """
        Who is over when the device is opened is not asked for.
        """
        pending = Pending("tty", Rules())
        pending.put(request(), "a", 2.0, 0.0)
        moves = pending.link_up(2.0)
        self.assertEqual((failed(moves), sent(moves)), ({"a": "busy"}, []))

    def test_stop_ends_first(self) -> None:
        """
        Who is over when usbgate ends fails with its own code.
        """
        pending = link()
        pending.put(request(), "a", 2.0, 0.0)
        pending.put(request(), "b", LONG, 0.0)
        self.assertEqual(failed(pending.stop(2.0)), {"a": "timeout", "b": "stopped"})


def size(thing: object, known: set[int] | None = None) -> int:
    """
    Count the objects that are reached from a thing: containers, their items, attributes and slots.
    """
    known = set() if known is None else known
    if id(thing) in known or isinstance(thing, (type, str, bytes, int, float)) or callable(thing):
        return 0
    known.add(id(thing))
    parts: list[object] = [getattr(thing, "__dict__", None)]
    slots = {name for kind in type(thing).__mro__ for name in getattr(kind, "__slots__", ())}
    parts += [
        getattr(thing, name, None) for name in slots - {"__weakref__"}
    ]  # with which Python 3.11.2 has its trouble
    if isinstance(thing, Mapping):
        parts += [*thing.keys(), *thing.values()]
    elif isinstance(thing, Collection):
        parts += list(thing)
    # What a container has allocated tells of strings and numbers in it, too.
    return 1 + sys.getsizeof(thing) // 64 + sum(size(part, known) for part in parts)


class Waiter:
    """
    Somebody who may be seen to be let go.
    """


class TestMemory(SynchronousTestCase):
    """
    Nothing piles up.
    """

    def rounds(self, pending: Pending, first: int, last: int) -> None:
        """
        Ask so many times, answered, joined, lost and given up.
        """
        for n in range(first, last):
            now = float(n)
            sensor = str(n % 10)
            pending.put(request(sensor), n, 3.0 if n % 3 == 0 else 90_000.0, now)
            pending.put(request(sensor), -n, 0.25, now)
            if n % 3:
                pending.received([report(sensor, "J" if n % 2 else None)], now + 0.5, AT)

    def test_long_life(self) -> None:
        """
        After 20,000 asks and answers a link keeps no more than after 1,000, though most could have waited for a day.
        """
        pending = link()
        pending.put(request("dead"), "patient", 80_000.0, 0.0)  # whose limit stays the next one
        self.rounds(pending, 0, 1000)
        before = size(pending)
        self.rounds(pending, 1000, 10_000)
        self.assertLess(size(pending), before + 1000)  # a leak would be 6,000 askers
        pending.expire(200_000.0)
        pending.expire(200_010.0)
        self.assertTrue(pending.idle)
        self.assertEqual(pending.queues.in_flight, 0)
        self.assertEqual(pending.deadline, math.inf)

    def test_ever_new_questions(self) -> None:
        """
        However many sensors and commands there are, what is remembered of them is bounded.
        """
        for module in (matching, turns):
            self.patch(module, "SENSORS_REMEMBERED", 500)
        pending = link()
        sizes = []
        for n in range(10_000):
            now = n * 10.0
            # By turns answered with MSG, without, and not at all; few sensors with many commands, and many sensors.
            sensor = f"s{n}" if n % 2 else "20"
            pending.put(request(sensor, f"C{n}"), n, 1.0, now)
            if n % 5:
                pending.received([report(sensor, f"C{n}" if n % 4 < 2 else None)], now + 0.5, AT)
            if n in (5_000, 9_999):
                sizes.append(size(pending))
        self.assertLess(sizes[1], 1.1 * sizes[0])

    def test_long_life_offline(self) -> None:
        """
        A link that flaps for ever keeps nothing of it.
        """
        pending = link()
        sizes = []
        for n in range(5000):
            now = n * 10.0
            pending.put(request(str(n % 100)), n, 1.0, now)
            pending.link_down(now + 0.5)
            pending.put(request(str(n % 100)), n, 1.0, now + 0.6)
            pending.link_up(now + 1.0)
            if n in (200, 4999):
                pending.expire(now + 6.0)
                self.assertTrue(pending.idle)
                sizes.append(size(pending))
        self.assertLessEqual(sizes[1], sizes[0] + 50)

    def test_held_for_long(self) -> None:
        """
        A question that is held again and again, since its sensor reports and does not answer, is kept once.
        """
        pending = link()
        pending.put(request("dead", when_heard=True), "asleep", 80_000.0, 0.0)  # whose limits stay the next ones
        pending.put(request("dead"), "patient", 80_000.0, 0.0)
        pending.put(request("7", when_heard=True), "a", 90_000.0, 0.0)
        sizes = []
        for n in range(5000):
            pending.received([report("7", "K")], n * 10.0, AT)
            pending.expire(n * 10.0 + 5.0)
            if n in (200, 4999):
                sizes.append(size(pending))
        self.assertLessEqual(sizes[1], sizes[0] + 50)

    def test_waiters_are_let_go(self) -> None:
        """
        Whoever was answered or failed is not kept alive.
        """
        pending = link()
        gone = []
        for n, end in enumerate(["answer", "limit", "drop", "offline", "up", "recent"]):
            waiter = Waiter()
            gone.append(weakref.ref(waiter))
            now = 100.0 * n
            pending.put(request(max_age=1000.0 if end == "recent" else None), waiter, 2.0, now)
            if end == "answer":
                pending.received([report()], now + 1.0, AT)
            elif end == "drop":
                pending.link_down(now + 1.0)
            elif end == "offline":
                pending.link_up(now + 1.0)
            pending.expire(now + 3.0)
            pending.expire(now + 20.0)
            del waiter
        gc.collect()
        self.assertEqual([reference() for reference in gone], [None] * 6)
