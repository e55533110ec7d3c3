"""
A gateway in memory, whose askers are answered by hand, and a transport whose peer takes what it is sent or does not.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.testing import StringTransportWithDisconnection
from zope.interface import implementer

from usbgate.interfaces import DeviceSummary, IGateway, Lease, SensorSummary
from usbgate.model import Answer, Reading, Report, Request

AT = 1363035730123
AT_TEXT = "2013-03-11T21:02:10.123Z"

# What the original client sends, its echo, and the answer that `MemoryGateway.answer` gives.
ORIGINALS = b"MSG:J_ID:20_ORIGIN:TOTO"
ECHO = "MSG:J_ID:20_ORIGIN:TOTO"
ANSWER = f"ID:20_VALUE:456_MSG:J_AT:{AT_TEXT}"


@implementer(IGateway)
class MemoryGateway:
    """
    Remembers what it was asked; tells what a test put in.
    """

    def __init__(self) -> None:
        self.asked: list[tuple[Request, Deferred[Answer]]] = []
        self.readings: list[Reading] = []
        self.last_calls: list[tuple[str | None, str | None]] = []
        self.history_calls: list[tuple[str, str | None, int | None, int]] = []
        self.historic: Deferred[list[Reading]] | None = None
        self.known_sensors: list[SensorSummary] = []
        self.known_devices: list[DeviceSummary] = []
        self.refusals: list[tuple[str, bytes, str]] = []
        self.noises: list[Mapping[str, str]] = []
        self.watching: list[Callable[[str | None, str], None]] = []
        self.subscriptions = 0
        self.broken: Exception | None = None
        self.lendings: list[tuple[str, str, Deferred[Lease]]] = []

    @property
    def requests(self) -> list[Request]:
        """
        What was asked, oldest first.
        """
        return [request for request, _ in self.asked]

    def answer(self, index: int, *values: tuple[str, str]) -> None:
        """
        Answer one of the requests asked.
        """
        request, asker = self.asked[index]
        report = Report(request.question.sensor, None, None, values or (("VALUE", "456"),))
        asker.callback(Answer(report, request.question.command, AT, "leonardo"))

    def fail(self, index: int, error: Exception) -> None:
        """
        Let one of the requests asked fail.
        """
        self.asked[index][1].errback(error)

    def publish(self, sensor: str | None, line: str) -> None:
        """
        Tell everybody who subscribed.
        """
        for deliver in list(self.watching):
            deliver(sensor, line)

    def _break(self) -> None:
        if self.broken is not None:
            raise self.broken

    def ask(self, request: Request) -> Deferred[Answer]:
        """
        See `IGateway`.
        """
        self._break()
        asker: Deferred[Answer] = Deferred()
        self.asked.append((request, asker))
        return asker

    def when_told(self, call: Callable[[], None]) -> None:
        """
        See `IGateway`: nobody else is told.
        """
        call()

    def default_command(self, sensor: str) -> str:
        """
        See `IGateway`.
        """
        return "S" if sensor == "2" else "J"

    def last(self, sensor: str | None, field: str | None) -> list[Reading]:
        """
        See `IGateway`.
        """
        self._break()
        self.last_calls.append((sensor, field))
        return self.readings

    def history(self, sensor: str, field: str | None, since: int | None, limit: int) -> Deferred[list[Reading]]:
        """
        See `IGateway`.
        """
        self.history_calls.append((sensor, field, since, limit))
        self.historic = Deferred()
        return self.historic

    def sensors(self) -> list[SensorSummary]:
        """
        See `IGateway`.
        """
        return self.known_sensors

    def devices(self) -> list[DeviceSummary]:
        """
        See `IGateway`.
        """
        return self.known_devices

    def lend(self, device: str, client: str) -> Deferred[Lease]:
        """
        See `IGateway`.
        """
        lending: Deferred[Lease] = Deferred()
        self.lendings.append((device, client, lending))
        return lending

    def status(self) -> list[Mapping[str, str]]:
        """
        See `IGateway`.
        """
        return [{"VERSION": "1.2", "UPTIME": "7"}, {"STORE": "ok", "BACKLOG": "0"}]

    def noise(self) -> list[Mapping[str, str]]:
        """
        See `IGateway`.
        """
        return self.noises

    def refused(self, source: str, line: bytes, reason: str) -> None:
        """
        See `IGateway`.
        """
        self.refusals.append((source, line, reason))

    def subscribe(self, deliver: Callable[[str | None, str], None]) -> Callable[[], None]:
        """
        See `IGateway`.
        """
        self.subscriptions += 1
        self.watching.append(deliver)
        return lambda: self.watching.remove(deliver)


def reading(sensor: str = "20", field: str = "VALUE", value: float | None = 456.0, **others: Any) -> Reading:
    """
    Make a reading that was unasked, a number, from the leonardo.
    """
    columns: dict[str, Any] = {"text": None, "command": None, "device": "leonardo", "at": AT, "clock": True, **others}
    return Reading(sensor=sensor, field=field, value=value, **columns)


class PeerTransport(StringTransportWithDisconnection):
    """
    A transport whose peer takes all that it is sent in the next reactor turn, unless it is `stuck`.
    """

    def __init__(self, reactor: IReactorTime, **others: Any) -> None:
        super().__init__(lenient=True, **others)
        self.reactor = reactor
        self.stuck = False
        self.closing = False
        self.writes = 0

    def write(self, data: bytes) -> None:
        """
        Count it.
        """
        self.writes += 1
        super().write(data)

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """
        Pull, as a socket's transport does: once now, and then whenever nothing is left.
        """
        super().registerProducer(producer, streaming)
        producer.resumeProducing()
        self.reactor.callLater(0, self.take)

    def take(self) -> None:
        """
        Take what was sent, unless stuck.
        """
        if self.producer is not None and not self.stuck:
            self.producer.resumeProducing()
            if self.producer is not None:
                self.reactor.callLater(0, self.take)
            elif self.closing:
                self._close()

    def loseConnection(self) -> None:
        """
        Close when all is taken.
        """
        self.closing = True
        if self.producer is None:
            self._close()

    def _close(self) -> None:
        producer, self.producer = self.producer, None
        if producer is not None:
            producer.stopProducing()
        super().loseConnection()

    def abortConnection(self) -> None:
        """
        Close at once.
        """
        self._close()
