"""
A gateway between neighbours in memory.
"""

from __future__ import annotations

from collections.abc import Sequence

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from usbgate.core.clock import IClock
from usbgate.core.fieldline import parse
from usbgate.core.messages import parse_request
from usbgate.core.model import Alarm, Answer, Reading, Report, RequestRecord, Row, Send
from usbgate.core.pending import Rules
from usbgate.device.interfaces import IDeviceLink
from usbgate.gateway.gateway import Gateway
from usbgate.gateway.routing import SensorRules
from usbgate.store.interfaces import IHistory, IJournal, SinkUnavailable

WALL = 1363035730000  # ms: where the wall clock of these tests begins


@implementer(IClock)
class TwoClocks:
    """
    A monotonic clock that the test moves, and a wall clock that the test can also step.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.stepped = 0
        self.slept = 0
        self.trust = True

    def wall(self) -> int:
        """
        See `IClock.wall`.
        """
        return WALL + round(self._clock.seconds() * 1000) + self.stepped

    def monotonic(self) -> float:
        """
        See `IClock.monotonic`.
        """
        return self._clock.seconds()

    def uptime(self) -> float:
        """
        See `IClock.uptime`.
        """
        return 1000.0 + self._clock.seconds() + self.slept

    def boot(self) -> str:
        """
        See `IClock.boot`.
        """
        return "the first"

    def trusted(self) -> bool:
        """
        See `IClock.trusted`.
        """
        return self.trust


@implementer(IDeviceLink)
class MemoryLink:
    """
    A link that notes what it is told.
    """

    lines_in = lines_out = malformed = echoes = repeats = partial = left_out = 0

    def __init__(self, name: str, events: list[object]) -> None:
        self.name = name
        self.path = f"/dev/{name}"
        self._events = events

    def send(self, messages: Sequence[Send]) -> None:
        """
        See `IDeviceLink.send`.
        """
        for request, _, _ in messages:
            self._events.append(("send", self.name, request.question.command, request.question.sensor))

    def pause(self) -> None:
        """
        See `IDeviceLink.pause`.
        """
        self._events.append(("pause", self.name))

    def resume(self) -> None:
        """
        See `IDeviceLink.resume`.
        """
        self._events.append(("resume", self.name))

    def release(self) -> Deferred[str]:
        """
        See `IDeviceLink.release`.
        """
        self._events.append(("release", self.name))
        self.released: Deferred[str] = Deferred()
        return self.released

    def take_back(self) -> None:
        """
        See `IDeviceLink.take_back`.
        """
        self._events.append(("take back", self.name))


@implementer(IJournal, IHistory)
class MemoryJournal:
    """
    A journal that keeps its rows, and a history that the test has written.
    """

    backlog = 0

    def __init__(self, events: list[object]) -> None:
        self.readings: list[Reading] = []
        self.requests: list[RequestRecord] = []
        self.rows: list[Row] = []
        self.stored: list[Reading] = []
        self.open_alarms: list[Alarm] = []
        self.away = False
        self._events = events

    def append(self, *runs: Sequence[Row]) -> None:
        """
        See `IJournal.append`.
        """
        rows = [row for run in runs for row in run]
        self.rows += rows
        readings = [row for row in rows if isinstance(row, Reading)]
        requests = [row for row in rows if isinstance(row, RequestRecord)]
        self._events.append(("journal", len(readings), [request.outcome for request in requests]))
        self.readings += readings
        self.requests += requests

    def alarms(self) -> Deferred[list[Alarm]]:
        """
        See `IHistory.alarms`.
        """
        return succeed(list(self.open_alarms))

    def latest(self) -> Deferred[list[Reading]]:
        """
        See `IHistory.latest`.
        """
        return succeed(list(self.stored))

    def history(self, sensor: str, field: str | None, since: int | None, limit: int) -> Deferred[list[Reading]]:
        """
        See `IHistory.history`.
        """
        if self.away:
            return fail(SinkUnavailable("connection refused"))
        return succeed([reading for reading in self.stored if reading.sensor == sensor][-limit:])


class GatewayCase(SynchronousTestCase):
    """
    A gateway, its neighbours, and one list of events, so that order counts.
    """

    names: Sequence[str] = ("leonardo",)
    rules = Rules()
    sensor_rules: dict[str, SensorRules] = {}  # noqa: RUF012  # only read
    new_clock = Clock

    def setUp(self) -> None:
        """
        Put it together.
        """
        self.clock = self.new_clock()
        self.time = TwoClocks(self.clock)
        self.events: list[object] = []
        self.gateway = Gateway(self.clock, self.time, "J", self.sensor_rules)
        self.links = {name: MemoryLink(name, self.events) for name in self.names}
        for link in self.links.values():
            self.gateway.add_link(link, self.rules)
        self.journal = MemoryJournal(self.events)
        self.gateway.store_in(self.journal, self.journal, lambda: [{"STORE": "memory"}])
        self.gateway.startService()
        self.link = self.links[self.names[0]]

    def ask(self, line: str) -> Deferred[Answer]:
        """
        Ask, and note how it ends.
        """
        request = parse_request(parse(line.encode()), "me", "me:1")
        asked = self.gateway.ask(request)

        def answered(answer: Answer) -> Answer:
            self.events.append(("answer", dict(answer.report.values), answer.command))
            return answer

        asked.addCallback(answered)
        return asked

    def hear(self, *lines: tuple[str, str], link: MemoryLink | None = None) -> None:
        """
        Let a device report (sensor, value) pairs in one chunk.
        """
        reports = [Report(sensor, None, None, (("VALUE", value),)) for sensor, value in lines]
        self.gateway.reports_received(link or self.link, reports)
