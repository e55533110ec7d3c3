"""
A client that sends any bytes in any chunks, and what it must receive (protocol §3) whatever else happens meanwhile.
"""

from __future__ import annotations

from codecs import BOM_UTF8
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from twisted.internet.address import IPv4Address
from twisted.internet.task import Clock
from twisted.logger import ILogObserver, LogEvent, globalLogPublisher
from zope.interface import implementer

from tests.support.access import OPEN, authority
from tests.support.marked_gateway import MarkedGateway
from tests.support.memory_gateway import PeerTransport
from tests.support.reference import (
    ANY_LENGTH,
    SURE_WORDS,
    Expected,
    fields_of,
    is_refused,
    lines_of,
    without_telnet,
)
from usbgate.access.doors import Door
from usbgate.access.roles import Role
from usbgate.core.fieldline import LINE_LIMIT, parse
from usbgate.core.model import ReportEvent
from usbgate.server import console
from usbgate.server import protocol as server
from usbgate.server import requests as server_requests
from usbgate.server.factory import ClientFactory
from usbgate.server.opening import FIRST_DATA_PATIENCE
from usbgate.testing import AT

# A chunk that the client sends, or the name of another event, one of `DEEDS`.
Step = bytes | str

# Limits by module, so small that a client reaches them with some hundred bytes.
SMALL_LIMITS = [
    ("usbgate.server.requests", "IN_FLIGHT_LIMIT", 4),
    ("usbgate.server.protocol", "WORDS_LIMIT", 4),
    ("usbgate.server.protocol", "UNSENT_LIMIT", 300),
    ("usbgate.server.console", "SUBSCRIBER_LIMIT", 900),
    ("usbgate.net.sendqueue", "PIECE", 200),
]

_LONGEST_REPLY = 8192  # bytes of the longest reply to a word


class FuzzedClient:
    """
    One client, and everything that it must receive.
    """

    def __init__(self, door: Door = OPEN) -> None:
        self.clock = Clock()
        self.gateway = MarkedGateway()
        self.factory = ClientFactory(self.clock, self.gateway, authority(self.clock), wall=lambda: AT, door=door)
        self.protocol = self.factory.buildProtocol(IPv4Address("TCP", "10.0.0.7", 4711))
        self.transport = PeerTransport(self.clock)
        self.transport.protocol = self.protocol
        self.protocol.makeConnection(self.transport)
        self.lines: list[bytes] = []  # the lines as the server sees them, without the rest in `stream`
        self.stream = b""
        self._arriving: deque[bytes | None] = deque()  # None is the half-close
        self._arrived = False
        self._unended_since: float | None = None  # since when the first data may be the line of the original client
        self._said_all = False
        self._refused = False
        self._hung_up = False
        self._events = 0
        self._largest = 0

    # What happens.

    def step(self, step: Step) -> None:
        """
        Let one thing happen.
        """
        if isinstance(step, str):
            DEEDS[step](self)
        elif step and not self._said_all:
            self._arriving.append(step)
        self._arrive()
        self._check_bounds()

    def _arrive(self) -> None:
        # A transport that is paused reads nothing, its end neither.
        if not self.transport.connected:
            self._arriving.clear()
        while self._arriving and self.transport.connected and self.transport.producerState == "producing":
            data = self._arriving.popleft()
            if data is None:
                if self._unended_since is not None:
                    self._take_unended()
                self.protocol.readConnectionLost()
                self.transport.producerState = "paused"  # nothing more comes
                return
            first, self._arrived = not self._arrived, True
            fields = fields_of(data.removeprefix(BOM_UTF8)) if first else None
            whole = fields is not None and {"MSG", "ID", "ORIGIN"} <= fields.keys()
            self._unended_since = self.clock.seconds() if whole else None
            self.stream += data
            self._largest = max(self._largest, len(data))
            self.protocol.dataReceived(data)
            if not self.lines and is_refused(self._text()):
                self._refused = True
                assert not self.transport.connected

    def _text(self) -> bytes:
        # The stream as lines are cut from it; a byte order mark can be before the first line only.
        text = without_telnet(self.stream)
        return text if self.lines else text.removeprefix(BOM_UTF8)

    def _take_unended(self) -> None:
        self.lines.append(self._text())
        self.stream = b""
        self._unended_since = None

    def wait(self, seconds: float = 0.2) -> None:
        """
        Let time pass.
        """
        self.clock.advance(seconds)
        since = self._unended_since
        if since is not None and self.clock.seconds() >= since + FIRST_DATA_PATIENCE:
            self._take_unended()

    def half_close(self) -> None:
        """
        Half-close the connection.
        """
        if not self._said_all:
            self._said_all = True
            self._arriving.append(None)

    def hang_up(self) -> None:
        """
        Reset the connection.
        """
        self._hung_up = True
        self.transport.abortConnection()

    def publish(self) -> None:
        """
        Publish a report.
        """
        self._events += 1
        self.gateway.publish(ReportEvent("20", "leonardo", None, AT, (("EVENTS", str(self._events)),)))

    def stick(self) -> None:
        """
        Stop reading, or read again.
        """
        self.transport.stuck = not self.transport.stuck
        if not self.transport.stuck:
            self.transport.take()

    # What must hold.

    def _check_bounds(self) -> None:
        protocol = self.protocol
        assert len(protocol.buffer.rest) <= LINE_LIMIT + 1
        if not self.transport.connected:
            return
        assert len(protocol.console.words) <= server.WORDS_LIMIT + 1  # one of them is being answered
        assert protocol.requests.in_flight <= server_requests.IN_FLIGHT_LIMIT
        # Nothing is read while lines wait.
        assert sum(map(len, protocol.waiting)) <= self._largest + LINE_LIMIT + 1
        answers = (server_requests.IN_FLIGHT_LIMIT + 2) * 3 * LINE_LIMIT
        assert protocol.unsent <= console.SUBSCRIBER_LIMIT + answers + _LONGEST_REPLY, protocol.unsent

    def settle(self) -> None:
        """
        Let the client read, and answer everything that it waits for.
        """
        if self.transport.stuck:
            self.stick()
        for _ in range(3 * len(self.stream) + sum(len(data or b"") for data in self._arriving) + 20):
            before = len(self.transport.value()), len(self._arriving)
            self.gateway.end_one(newest=False, fails=False)
            self.gateway.give_one()
            self.wait()
            self._arrive()
            self._check_bounds()
            awaited = self.gateway.open or self.gateway.histories or self.gateway.lendings or self._arriving
            held = self.protocol.paused and self.transport.connected
            if not (awaited or held) and before == (len(self.transport.value()), len(self._arriving)):
                break
        else:
            raise AssertionError("it does not come to rest")

    def finish(self) -> None:
        """
        Check that the client received what it must, and that nothing is left of it.
        """
        self.settle()
        expected = Expected([*self.lines, *lines_of(self._text())[0]])
        if self._refused:
            assert not self.transport.value()
        ended = self._hung_up or self._refused or expected.quits
        whole = not (ended or self.transport.producerState == "stopped")
        self._check_heard(expected, whole)
        if self.transport.connected:
            assert not self.protocol.half_closed or self.protocol.console in self.factory.subscribers
            assert self.protocol.requests.in_flight == 0
            self.transport.abortConnection()
        else:
            assert not whole or self.protocol.half_closed
        assert self.gateway.subscribers == []
        assert self.gateway.lent == 0
        assert self.factory.counts()["CLIENTS"] == 0
        self.factory.authority.failures.stopService()
        assert self.clock.getDelayedCalls() == [], self.clock.getDelayedCalls()

    def _check_heard(self, expected: Expected, whole: bool) -> None:
        received = [line.removesuffix(b"\r").decode() for line in self.transport.value().split(b"\n")]
        unended = received.pop()
        if unended:
            received.append(unended)
        fields = [parse(line.encode(), ANY_LENGTH) for line in received if line or whole]
        echoes: list[str] = []
        ends = 0
        words: list[str] = []
        marks: Counter[str] = Counter()
        events = 0
        for line, line_fields in zip(received, fields, strict=True):
            kind = next(iter(line_fields))
            if kind in ("OK", "ERROR"):
                ends += 1
                marks[line_fields.get("TEXT", "")] += kind == "ERROR"
                words += [line_fields["OK"]] if kind == "OK" else []
            elif kind == "EVENT":
                count = line_fields.get("COUNT")
                events += int(count) if line_fields["EVENT"] == "dropped" and count else 1
            elif "MARK" in line_fields:
                marks[line_fields["MARK"]] += "AT" in line_fields
                echoes += [] if "AT" in line_fields else [line]
            elif {"MSG", "ID"} <= line_fields.keys() and "AT" not in line_fields:
                echoes.append(line)
        assert not unended or unended == echoes[-1], unended
        ended = [*self.gateway.answered, *self.gateway.failed]
        sure = [word for word in words if word in SURE_WORDS]
        if not whole:
            assert echoes == expected.echoes[: len(echoes)], (echoes, expected.echoes)
            assert sure == expected.sure[: len(sure)], (sure, expected.sure)
            assert all(marks[mark] <= 1 for mark in ended), marks
            return
        assert echoes == expected.echoes, (echoes, expected.echoes)
        assert sure == expected.sure, (sure, expected.sure)
        assert all(marks[mark] == 1 for mark in ended), (marks, ended)
        # A word that asked and was answered sends a data line before its last.
        requests_answered = len(self.gateway.answered) - words.count("ask")
        assert ends == expected.words + expected.refused + len(echoes) - requests_answered, (received, expected.lines)
        assert events <= self._events


DEEDS: dict[str, Callable[[FuzzedClient], None]] = {
    "answer": lambda client: client.gateway.end_one(newest=False, fails=False),
    "answer the newest": lambda client: client.gateway.end_one(newest=True, fails=False),
    "fail": lambda client: client.gateway.end_one(newest=False, fails=True),
    "give": lambda client: client.gateway.give_one(),
    "publish": FuzzedClient.publish,
    "stick": FuzzedClient.stick,
    "turn": lambda client: client.wait(0.0),
    "wait": FuzzedClient.wait,
    "half-close": FuzzedClient.half_close,
    "hang up": FuzzedClient.hang_up,
}


def check_client(steps: Sequence[Step]) -> None:
    """
    Whatever a client sends, it receives what it must; nothing is raised, and no failure is logged.
    """
    with nothing_fails(steps):
        client = FuzzedClient()
        for step in steps:
            client.step(step)
        client.finish()


def check_stranger(steps: Sequence[Step]) -> None:
    """
    Whatever a client without any role sends, it gets nothing and does nothing, and at most its wrong tokens are
    recorded; nothing is raised, and no failure is logged.
    """
    with nothing_fails(steps):
        client = FuzzedClient(Door(Role.NONE))
        for step in steps:
            client.step(step)
        client.settle()
        gateway = client.gateway
        actions = [action for action in gateway.actions if action.command != "auth"]
        done = gateway.asked, gateway.lendings, gateway.acknowledged, actions, gateway.refused
        assert not any((*done, gateway.subscriptions)), done
        shown = gateway.last_calls, gateway.history_calls, gateway.pages, gateway.alarm_calls, gateway.request_calls
        assert not any(shown), shown
        client.transport.abortConnection()


@contextmanager
def nothing_fails(steps: Sequence[object]) -> Iterator[None]:
    """
    Check that nothing is raised, and no failure is logged.

    Args:
        steps: What happens, for the error.
    """
    failures: list[str] = []

    @implementer(ILogObserver)
    def record(event: LogEvent) -> None:
        if "log_failure" in event:
            failures.append(event["log_failure"].getTraceback())

    globalLogPublisher.addObserver(record)
    try:
        yield
    except Exception as error:
        raise AssertionError(f"{error!r}, when this happens: {steps!r}") from error
    finally:
        globalLogPublisher.removeObserver(record)
    assert not failures, (failures, steps)


def steps_of(data: bytes) -> list[Step]:
    """
    Derive steps from bytes: the last byte is the number of bytes before it that choose events; the rest is sent.
    """
    if not data:
        return []
    script_begins = max(0, len(data) - 1 - data[-1])
    sent, script = data[:script_begins], data[script_begins:-1]
    deeds = list(DEEDS)
    steps: list[Step] = []
    for byte in script:
        if byte < 0xC0:
            steps.append(sent[: byte + 1])
            sent = sent[byte + 1 :]
        else:
            steps.append(deeds[byte % len(deeds)])
    return [*steps, sent]
