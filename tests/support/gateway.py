"""
The gateway between doubles in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from tests.support.worlds import message_size
from usbgate.core.clock import IClock
from usbgate.core.counts import LinkCounts
from usbgate.core.fieldline import parse
from usbgate.core.holders import Holder
from usbgate.core.messages import event_line, parse_request
from usbgate.core.model import Answer, Event, Reading, Request, RequestRecord, Row, Send
from usbgate.core.rules import Rules
from usbgate.core.settings import SensorSettings
from usbgate.core.status import JournalStatus, StoreStatus
from usbgate.device.interfaces import IDeviceLink, ILinkListener
from usbgate.gateway.gateway import Gateway
from usbgate.testing import MemoryJournal, MemorySink, report

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
        return WALL + round(self._clock.seconds() * 1000) + self.stepped

    def uptime(self) -> float:
        return 1000.0 + self._clock.seconds() + self.slept

    def boot(self) -> str:
        return "the first"

    def trusted(self) -> bool:
        return self.trust


@implementer(IDeviceLink)
class MemoryLink:
    """
    A link that lists its calls among the events.

    Attributes:
        full: Whether the device takes nothing of what is written.
    """

    listener: ILinkListener

    def __init__(self, name: str, events: list[object]) -> None:
        self.name = name
        self.path = f"/dev/{name}"
        self.counts = LinkCounts()
        self.full = False
        self._events = events

    def send(self, messages: Sequence[Send]) -> bool:
        for request, _, _ in messages:
            self._events.append(("send", self.name, request.question.command, request.question.sensor))
        return not self.full

    def size(self, request: Request, tag: str | None) -> int:
        return message_size(request, tag)

    def pause(self) -> None:
        self._events.append(("pause", self.name))

    def resume(self) -> None:
        self._events.append(("resume", self.name))

    def release(self) -> Deferred[str]:
        self._events.append(("release", self.name))
        self.released: Deferred[str] = Deferred()
        return self.released

    def take_back(self) -> None:
        self._events.append(("take back", self.name))


class ListedJournal(MemoryJournal):
    """
    A journal that lists its calls among the events.
    """

    def __init__(self, events: list[object]) -> None:
        super().__init__()
        self._events = events

    def append(self, *runs: Sequence[Row]) -> None:
        super().append(*runs)
        rows = [row for run in runs for row in run]
        outcomes = [row.outcome for row in rows if isinstance(row, RequestRecord)]
        self._events.append(("journal", sum(isinstance(row, Reading) for row in rows), outcomes))


class GatewayCase(SynchronousTestCase):
    """
    A gateway and its doubles, which list their calls in one list of events, so that their order can be tested.
    """

    names: Sequence[str] = ("leonardo",)
    rules = Rules()
    sensor_settings: dict[str, SensorSettings] = {}  # noqa: RUF012  # only read
    new_clock = Clock

    def setUp(self) -> None:
        """
        Create the gateway, its links, its journal and its store.
        """
        self.clock = self.new_clock()
        self.time = TwoClocks(self.clock)
        self.events: list[object] = []
        self.gateway = Gateway(self.clock, self.time, "J", self.sensor_settings, chance=self.chance)
        self.links = {name: MemoryLink(name, self.events) for name in self.names}
        for link in self.links.values():
            self.gateway.add_link(link, self.rules)
        self.journal = ListedJournal(self.events)
        self.store = MemorySink()
        self.gateway.store_in(self.journal, self.store, lambda: (StoreStatus("connected", "pi"), JournalStatus()))
        self.gateway.startService()
        self.link = self.links[self.names[0]]

    def chance(self) -> float:
        """
        Return what stands for a random number of the gateway's polls.
        """
        return 0.0

    def watch(self, lines: list[Any]) -> Callable[[], None]:
        """
        Append to `lines` the line of every event that `watch` sends, from now on.

        Returns:
            A function that ends the subscription.
        """

        def spell(event: Event) -> None:
            if (spelled := event_line(event)) is not None:
                lines.append(spelled[1])

        return self.gateway.subscribe(spell)

    def ask(self, line: str, holder: Holder | None = None) -> Deferred[Answer]:
        """
        Ask as the client of a connection, by default one of its own, and list the answer among the events.
        """
        request = parse_request(parse(line.encode()), "me", "me:1")
        asked = self.gateway.ask(request, holder or Holder("me"))

        def answered(answer: Answer) -> Answer:
            self.events.append(("answer", dict(answer.report.values), answer.command))
            return answer

        asked.addCallback(answered)
        return asked

    def receive(self, *lines: tuple[str, str], link: MemoryLink | None = None) -> None:
        """
        Let a device report (sensor, value) pairs in one chunk.
        """
        reports = [report(sensor, VALUE=value) for sensor, value in lines]
        (link or self.link).listener.reports_received(reports)
