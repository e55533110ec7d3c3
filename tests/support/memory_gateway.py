"""
A gateway in memory that a test controls, and a transport whose peer may stop reading.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any
from weakref import ref

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.internet.testing import StringTransportWithDisconnection
from zope.interface import implementer

from usbgate.core.errors import RequestError, Unknown
from usbgate.core.holders import Holder
from usbgate.core.model import (
    Action,
    Alarm,
    Answer,
    Bucket,
    Event,
    Reading,
    ReportEvent,
    Request,
    Selection,
    StoredAlarm,
    StoredReading,
    StoredRequest,
    StoredState,
)
from usbgate.core.replacements import Offer, Replacement
from usbgate.core.settings import FieldSettings, SensorSettings
from usbgate.core.status import JournalStatus, Status, StoreStatus, Totals
from usbgate.gateway.interfaces import (
    DeviceSummary,
    HeldRequest,
    IGateway,
    IQueries,
    Lease,
    MalformedLine,
    RuleSummary,
    SensorSummary,
)
from usbgate.testing import AT, report

AT_TEXT = "2013-03-11T21:02:10.123Z"

# What the original client sends, its echo, and the answer that `MemoryGateway.answer` gives.
ORIGINALS = b"MSG:J_ID:20_ORIGIN:TOTO"
ECHO = "MSG:J_ID:20_ORIGIN:TOTO"
ANSWER = f"ID:20_VALUE:456_MSG:J_AT:{AT_TEXT}"


class _Page(list[StoredReading]):
    """
    A list to which there can be weak references.
    """


@implementer(IGateway, IQueries)
class MemoryGateway:
    """
    Records its calls; returns what the test has set.
    """

    def __init__(self) -> None:
        self.asked: list[tuple[Request, Deferred[Answer]]] = []
        self.actions: list[Action] = []
        self.refused: list[tuple[Request, str]] = []
        self.holders: list[Holder] = []  # of the requests
        self.asking: Callable[[], None] = lambda: None  # called with each request
        self.gone: list[tuple[Holder, int]] = []  # each with the number of requests before
        self.readings: list[Reading] = []
        self.replaced: list[Replacement] = []
        self.offered: list[Offer] = []
        self.replacings: list[tuple[str, str | None, str]] = []
        self.last_calls: list[tuple[str | None, ...]] = []
        self.history_calls: list[tuple[str | int | None, ...]] = []
        self.historic: Deferred[list[Reading]] | None = None
        self.known_sensors: list[SensorSummary] = []
        self.known_devices: list[DeviceSummary] = []
        self.refusals: list[tuple[str, bytes, str]] = []
        self.kept_malformed: list[MalformedLine] = []
        self.subscribers: list[Callable[[Event], None]] = []
        self.subscriptions = 0
        self.broken: Exception | None = None
        self.lendings: list[tuple[str, str, Deferred[Lease]]] = []
        self.current_status = Status(
            version="1.2",
            uptime=7.0,
            clock_trusted=True,
            sensors=0,
            in_flight=0,
            store=StoreStatus("connected", "pi"),
            journal=JournalStatus(),
            unsure={},
            uncompared=[],
        )
        self.current_totals = Totals(
            readings=12,
            outcomes={"answered": 3, "timeout": 1},
            malformed={"no key": 2},
            latencies=[(0.5, 2), (float("inf"), 3)],
            latency_sum=1.25,
        )
        self.queries = self
        self.presented: dict[str, SensorSettings] = {}
        self.known_fields: dict[str, FieldSettings] = {}  # by the dialect of `leonardo`
        self.stored: list[StoredReading] = []
        self.pages: list[tuple[Selection, int, int, int]] = []
        self._page_references: list[ref[_Page]] = []
        self.page_fails: Exception | None = None
        self.stored_buckets: list[Bucket] = []
        self.bucket_calls: list[tuple[Selection, int, int]] = []
        self.stored_requests: list[StoredRequest] = []
        self.request_calls: list[tuple[str | None, int]] = []
        self.stored_states: list[StoredState] = []
        self.state_calls: list[tuple[Selection, int]] = []
        self.stored_alarms: list[StoredAlarm] = []
        self.alarm_calls: list[tuple[str | None, int | None, int | None, int]] = []
        self.raised: list[Alarm] = []
        self.known_rules: list[RuleSummary] = []
        self.rule_alarms: dict[str, Reading | None] = {}  # what the active ones are about
        self.rule_alarm_calls: list[tuple[str, bool]] = []
        self.held_requests: list[HeldRequest] = []
        self.acknowledged: list[tuple[str, str]] = []

    @property
    def requested(self) -> list[Request]:
        """
        The requests, oldest first.
        """
        return [request for request, _ in self.asked]

    def answer(self, index: int, *values: tuple[str, str]) -> None:
        """
        Answer a request.
        """
        request, asker = self.asked[index]
        answer = report(request.question.sensor, **dict(values))
        asker.callback(Answer(answer, request.question.command, AT, "leonardo"))

    def fail(self, index: int, error: Exception) -> None:
        """
        Fail a request.
        """
        self.asked[index][1].errback(error)

    def publish(self, *events: Event) -> None:
        """
        Deliver events to all subscribers.
        """
        for event in events:
            for deliver in list(self.subscribers):
                deliver(event)

    def _break(self) -> None:
        if self.broken is not None:
            raise self.broken

    def ask(self, request: Request, holder: Holder) -> Deferred[Answer]:
        self._break()
        self.holders.append(holder)
        self.asking()
        asker: Deferred[Answer] = Deferred()
        self.asked.append((request, asker))
        return asker

    def refuse(self, request: Request, error: RequestError) -> None:
        self.refused.append((request, error.code))

    def record(self, action: Action) -> None:
        self.actions.append(action)

    def disconnected(self, holder: Holder) -> None:
        self.gone.append((holder, len(self.asked)))

    def replacements(self) -> list[Replacement]:
        return list(self.replaced)

    def offers(self) -> Deferred[list[Offer]]:
        return succeed(list(self.offered))

    def replace(self, sensor: str, successor: str, who: str) -> Deferred[Replacement]:
        self.replacings.append((sensor, successor, who))
        made = Replacement(sensor=sensor, successor=successor, device="leonardo", since=AT - 1000, at=AT, who=who)
        self.replaced.append(made)
        return succeed(made)

    def undo_replacement(self, sensor: str, who: str) -> Deferred[Replacement]:
        self.replacings.append((sensor, None, who))
        return succeed(self.replaced.pop()) if self.replaced else fail(Unknown(f"sensor {sensor} is not replaced"))

    def default_command(self, sensor: str) -> str:
        return "S" if sensor == "2" else "J"

    def last(self, sensor: str | None, field: str | None, raw: bool = False) -> Iterator[Reading]:
        self._break()
        self.last_calls.append((sensor, field, "raw") if raw else (sensor, field))
        return iter([each for each in self.readings if sensor in (None, each.sensor)])

    def history(
        self, sensor: str, field: str | None, since: int | None, limit: int, raw: bool = False
    ) -> Deferred[list[Reading]]:
        self.history_calls.append((sensor, field, since, limit, *(["raw"] if raw else [])))
        self.historic = Deferred()
        return self.historic

    def sensors(self) -> Iterator[SensorSummary]:
        return iter(self.known_sensors)

    def sensor(self, sensor: str) -> SensorSummary | None:
        return next((each for each in self.known_sensors if each.sensor == sensor), None)

    def devices(self) -> list[DeviceSummary]:
        return self.known_devices

    def lend(self, device: str, client: str) -> Deferred[Lease]:
        lending: Deferred[Lease] = Deferred()
        self.lendings.append((device, client, lending))
        return lending

    def status(self) -> Status:
        return self.current_status

    def held(self) -> list[HeldRequest]:
        return self.held_requests

    def cancel(self, number: int) -> None:
        self.held_requests = [each for each in self.held_requests if each.number != number]

    def malformed_lines(self) -> list[MalformedLine]:
        return self.kept_malformed

    def add_malformed(self, source: str, line: bytes, reason: str) -> None:
        self.refusals.append((source, line, reason))

    def subscribe(self, deliver: Callable[[Event], None]) -> Callable[[], None]:
        self.subscriptions += 1
        self.subscribers.append(deliver)
        return lambda: self.subscribers.remove(deliver)

    def sensor_settings(self) -> Mapping[str, SensorSettings]:
        return self.presented

    def field_settings(self, reading: Reading) -> FieldSettings:
        fields = self.presented.get(reading.sensor, SensorSettings()).fields
        configured = fields.get(reading.field, FieldSettings())
        known = self.known_fields.get(reading.field) if reading.device == "leonardo" else None
        return configured if known is None else configured.completed(known, reading.text)

    def totals(self) -> Totals:
        return self.current_totals

    def _selected(self, selection: Selection) -> list[StoredReading]:
        return [
            each
            for each in self.stored
            if each.reading.sensor == selection.sensor
            and selection.field in (None, each.reading.field)
            and (selection.since is None or each.reading.at >= selection.since)
            and (selection.until is None or each.reading.at < selection.until)
        ]

    def extent(self, selection: Selection, limit: int | None) -> Deferred[tuple[int, int] | None]:
        if self.broken is not None:
            return fail(self.broken)
        selected = self._selected(selection)[-(limit or 0) :]
        return succeed((selected[0].seq, selected[-1].seq) if selected else None)

    def page(self, selection: Selection, first: int, last: int, limit: int) -> Deferred[list[StoredReading]]:
        self.pages.append((selection, first, last, limit))
        if self.page_fails is not None and len(self.pages) > 1:
            return fail(self.page_fails)
        found = _Page([each for each in self._selected(selection) if first <= each.seq <= last][:limit])
        self._page_references.append(ref(found))
        return succeed(found)

    @property
    def pages_kept(self) -> int:
        """
        How many pages of readings somebody still has.
        """
        return sum(reference() is not None for reference in self._page_references)

    def buckets(self, selection: Selection, width: int, limit: int) -> Deferred[list[Bucket]]:
        self.bucket_calls.append((selection, width, limit))
        return succeed(self.stored_buckets)

    def states(self, selection: Selection, limit: int) -> Deferred[list[StoredState]]:
        self.state_calls.append((selection, limit))
        return succeed(self.stored_states)

    def past_alarms(
        self, sensors: Sequence[str] | None, since: int | None, until: int | None, limit: int
    ) -> Deferred[list[StoredAlarm]]:
        self.alarm_calls.append((None if sensors is None else ",".join(sensors), since, until, limit))
        return succeed(self.stored_alarms)

    def requests(self, sensors: Sequence[str] | None, limit: int) -> Deferred[list[StoredRequest]]:
        self.request_calls.append((None if sensors is None else ",".join(sensors), limit))
        return succeed(self.stored_requests)

    def alarms(self) -> list[Alarm]:
        return self.raised

    def rules(self) -> Sequence[RuleSummary]:
        return self.known_rules

    def configure_rule_alarms(self, rules: Iterable[str]) -> None:
        self.rule_alarms = {rule: self.rule_alarms.get(rule) for rule in rules}

    def set_rule_alarm(self, rule: str, active: bool, about: Reading) -> None:
        self.rule_alarms[rule] = about if active else None
        self.rule_alarm_calls.append((rule, active))

    def acknowledge(self, alarm: str, by: str) -> Deferred[Alarm]:
        for each in self.raised:
            if each.alarm == alarm:
                self.acknowledged.append((alarm, by))
                return succeed(each._replace(acknowledged=AT, by=by))
        return fail(Unknown(f"no such alarm: {alarm}"))


def report_event(sensor: str = "20", **values: str) -> ReportEvent:
    """
    Make the event of a report from the leonardo; its values are `A:1` if none are given.
    """
    return ReportEvent(sensor, "leonardo", None, AT, tuple((values or {"A": "1"}).items()))


class PeerTransport(StringTransportWithDisconnection):
    """
    A transport whose peer reads everything in the next reactor turn, unless it is `stuck`.
    """

    def __init__(self, reactor: IReactorTime, **others: Any) -> None:
        super().__init__(lenient=True, **others)
        self.reactor = reactor
        self.stuck = False
        self.closing = False
        self.writes = 0

    def write(self, data: bytes) -> None:
        """
        Count the call, and write.
        """
        self.writes += 1
        super().write(data)

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """
        Pull as a socket's transport does: once now, and then whenever everything was sent.
        """
        super().registerProducer(producer, streaming)
        producer.resumeProducing()
        self.reactor.callLater(0, self.take)

    def take(self) -> None:
        """
        Read everything that was sent, unless stuck.
        """
        if self.producer is not None and not self.stuck:
            self.producer.resumeProducing()
            if self.producer is not None:
                self.reactor.callLater(0, self.take)
            elif self.closing:
                self._close()

    def loseConnection(self) -> None:
        """
        Close when everything was read.
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
