"""
The benchmark's clients that ask, and a program that asks the device directly; run by tests/bench/load.py.
"""

from __future__ import annotations

import json
import os
import re
import select
import socket
import time
import tty
from abc import ABC, abstractmethod
from array import array
from collections.abc import Iterable, Sequence
from typing import Any

WARM_UP = 0.5  # seconds that are not counted
PATIENCE = 10.0  # seconds to wait for the last answers

_LENGTH = re.compile(rb"\r\nContent-Length: (\d+)")


def quantile(values: Sequence[float], share: float) -> float:
    """
    Return the value below which a share of all values lies.
    """
    ordered = sorted(values)
    return ordered[min(int(len(ordered) * share), len(ordered) - 1)]


class Timing:
    """
    The questions, the answers, and how long they took.
    """

    def __init__(self, seconds: float, warm_up: float = WARM_UP) -> None:
        self._started = time.monotonic()  # when all were connected, which can take longer than asking
        self.begin = self._started + (warm_up if seconds > 2 * warm_up else 0.0)
        self.end = self.begin + seconds
        self._all = 0
        self._times = array("d")
        self._errors = 0
        self._wrong: list[str] = []

    def answered(self, sent: float, now: float) -> None:
        """
        Record a right answer.
        """
        self._all += 1
        if self.begin <= now < self.end:
            self._times.append(now - sent)

    def refused(self, line: bytes) -> None:
        """
        Record an error, or a wrong answer.
        """
        if line.startswith(b"ERROR:"):
            self._errors += 1
        else:
            self._wrong.append(line.decode(errors="replace"))

    def results(self, unanswered: int) -> dict[str, Any]:
        """
        Tell all that, in milliseconds.
        """
        if not self._times:
            raise AssertionError(f"nothing was answered: {self._errors} errors, wrong: {self._wrong[:3]}")
        return {
            "lasted": time.monotonic() - self._started,
            "answers": len(self._times),
            "all_answers": self._all,  # those of the warm-up and late ones included
            "per_second": len(self._times) / (self.end - self.begin),
            "p50": quantile(self._times, 0.5) * 1000,
            "p99": quantile(self._times, 0.99) * 1000,
            "most": max(self._times) * 1000,
            "errors": self._errors,
            "wrong": len(self._wrong),
            "examples": self._wrong[:3],
            "unanswered": unanswered,
        }


class Asker(ABC):
    """
    One connection that asks one question after the other; each has a number that the answer must repeat.

    Attributes:
        asked: Whether a question waits for its answer.
        sent: When it was sent.
    """

    def __init__(self, connected: socket.socket, sensor: str) -> None:
        self.socket = connected
        self.asked = False
        self.sent = 0.0
        self._sensor = sensor.encode()
        self._number = 0
        self._rest = b""

    def ask(self) -> None:
        """
        Ask the next question.
        """
        self._number += 1
        self.asked = True
        self.sent = time.monotonic()
        self.socket.send(self._next_question())

    def receive(self, timing: Timing) -> bool:
        """
        Read what has arrived; return whether the question is answered.
        """
        data = self.socket.recv(65536)
        if not data:
            raise AssertionError("a connection was closed")
        self._rest = self._read(self._rest + data, timing)
        return not self.asked

    @abstractmethod
    def _next_question(self) -> bytes:
        """
        Return the question with the present number.
        """

    @abstractmethod
    def _read(self, data: bytes, timing: Timing) -> bytes:
        """
        Read what is whole of some data; return the rest.
        """

    def _answered(self, timing: Timing) -> None:
        self.asked = False
        timing.answered(self.sent, time.monotonic())


class LineAsker(Asker):
    """
    Asks by lines.
    """

    def __init__(self, connected: socket.socket, sensor: str, echo: bool = True) -> None:
        super().__init__(connected, sensor)
        self._echo = echo

    def _next_question(self) -> bytes:
        self._question = b"MSG:J_ID:%s_ORIGIN:b_N:%d" % (self._sensor, self._number)
        self._answer = b"ID:%s_VALUE:%d_MSG:J" % (self._sensor, self._number)
        self._echoed = not self._echo
        return self._question + b"\n"

    def _read(self, data: bytes, timing: Timing) -> bytes:
        *lines, rest = data.split(b"\n")
        for line in lines:
            if not self._echoed and line == self._question:
                self._echoed = True
            elif self.asked and self._echoed and line.partition(b"_AT:")[0] == self._answer:
                self._answered(timing)
            else:
                timing.refused(line)
                if line.startswith(b"ERROR:"):
                    self.asked = False
        return rest


class HttpAsker(Asker):
    """
    Asks over HTTP.
    """

    def _next_question(self) -> bytes:
        body = b'{"arguments":{"N":%d},"origin":"b"}' % self._number
        return (
            b"POST /api/v1/sensors/%s/ask HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            b"Content-Length: %d\r\n\r\n%s" % (self._sensor, len(body), body)
        )

    def _read(self, data: bytes, timing: Timing) -> bytes:
        head, end, body = data.partition(b"\r\n\r\n")
        length = _LENGTH.search(head)
        if not end or length is None or len(body) < int(length[1]):
            return data
        answer = json.loads(body)
        if self.asked and (answer.get("sensor"), answer.get("values")) == (
            self._sensor.decode(),
            {"VALUE": self._number},
        ):
            self._answered(timing)
        else:
            timing.refused((b"ERROR:" if "code" in answer else b"") + body)
            self.asked = False
        return b""


def connect(port: int) -> socket.socket:
    """
    Connect to a port of this machine.
    """
    made = socket.create_connection(("127.0.0.1", port), 30)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return made


def connect_all(port: int, count: int) -> list[socket.socket]:
    """
    Open many connections, but no faster than the daemon accepts them: Linux queues 50, and retries all others a second
    later.
    """
    made = []
    for number in range(1, count + 1):
        made.append(connect(port))
        if number % 40 == 0:
            made[-1].send(b"ping\n")
            if made[-1].recv(100) != b"OK:ping\n":
                raise AssertionError("no answer to a ping")
    return made


class Crowd:
    """
    Several connections, each of which asks for a sensor of its own, and again as soon as it is answered.
    """

    def __init__(self, askers: Iterable[Asker]) -> None:
        self._askers = {each.socket.fileno(): each for each in askers}
        self._poll = select.epoll()
        for fd in self._askers:
            self._poll.register(fd, select.EPOLLIN)

    def ask(self, timing: Timing, rate: float = 0.0, patience: float = PATIENCE) -> dict[str, Any]:
        """
        Ask for a while; return the results.

        Args:
            timing: For how long.
            rate: The most questions per second, of all connections together; 0 for no limit.
            patience: Seconds to wait for the last answers.
        """
        started = time.monotonic()
        idle = list(self._askers.values())
        asked = 0
        while (now := time.monotonic()) < timing.end:
            while idle and (not rate or asked < (now - started) * rate):
                idle.pop().ask()
                asked += 1
            due = started + (asked + 1) / rate if rate and idle else timing.end
            for fd, _ in self._poll.poll(max(0.0, due - now)):
                asker = self._askers[fd]
                if asker.receive(timing):
                    if rate:
                        idle.insert(0, asker)
                    else:
                        asker.ask()
        return timing.results(self._let_end(timing, patience))

    def _let_end(self, timing: Timing, patience: float) -> int:
        # Late answers are right or wrong, too.
        deadline = time.monotonic() + patience
        while waiting := sum(asker.asked for asker in self._askers.values()):
            if time.monotonic() > deadline:
                return waiting
            for fd, _ in self._poll.poll(0.1):
                self._askers[fd].receive(timing)
        return 0


def ask(port: int, clients: int, seconds: float, rate: float = 0.0, patience: float = PATIENCE) -> dict[str, Any]:
    """
    Ask usbgate over several connections once.

    Args:
        port: The port.
        clients: The number of connections.
        seconds: How long to ask.
        rate: See `Crowd.ask`, as for `patience`.
        patience: See above.
    """
    askers = [LineAsker(each, str(n)) for n, each in enumerate(connect_all(port, clients), 1)]
    return Crowd(askers).ask(Timing(seconds), rate, patience)


def direct(path: str, clients: int, seconds: float, window: int = 64) -> dict[str, Any]:
    """
    Ask a tty directly, from one program, with a number of questions in flight.
    """
    fd = os.open(path, os.O_RDWR | os.O_NOCTTY)
    tty.setraw(fd)
    timing = Timing(seconds)
    numbers = [0] * (clients + 1)
    sent = [0.0] * (clients + 1)
    rest = b""
    turn = list(range(1, clients + 1))
    on_the_wire = 0
    while on_the_wire or time.monotonic() < timing.end:
        questions = []
        now = time.monotonic()
        while turn and on_the_wire < window and now < timing.end:
            sensor = turn.pop(0)
            numbers[sensor] += 1
            sent[sensor] = now
            questions.append(b"MSG:J_ID:%d_ORIGIN:b_N:%d\n" % (sensor, numbers[sensor]))
            on_the_wire += 1
        if questions:
            os.write(fd, b"".join(questions))
        *lines, rest = (rest + os.read(fd, 65536)).split(b"\n")
        now = time.monotonic()
        for line in lines:
            sensor = int(line[3 : line.index(b"_")])
            if line != b"ID:%d_VALUE:%d_MSG:J" % (sensor, numbers[sensor]):
                timing.refused(line)
            else:
                timing.answered(sent[sensor], now)
            on_the_wire -= 1
            turn.append(sensor)
    return timing.results(0)


def together(port: int, clients: int, limit: float = 30.0) -> dict[str, Any]:
    """
    Ask one sensor the same question over all connections at once; return the answers and how often each came.
    """
    sockets = connect_all(port, clients)
    for each in sockets:
        each.send(b"MSG:J_ID:1_ORIGIN:b\n")
    counts: dict[str, int] = {}
    deadline = time.monotonic() + limit
    for each in sockets:
        each.settimeout(max(0.1, deadline - time.monotonic()))
        with each.makefile("rb") as lines:
            if lines.readline() != b"MSG:J_ID:1_ORIGIN:b\n":
                raise AssertionError("no echo")
            answer = lines.readline().decode().partition("_AT:")[0]
        counts[answer] = counts.get(answer, 0) + 1
    return {"answers": counts}
