"""
The live way: what is read goes to the journal, to who asked, and to who watches; what is asked goes to a device.

The only one who knows both the core and the parts. `PendingRequests` decides, the gateway acts.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import inf
from typing import TypeVar

from twisted.application.service import Service
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from zope.interface import implementer

from usbgate import __version__
from usbgate.agenda import Newest
from usbgate.alarms import Alarms, Change
from usbgate.clientline import reading_event_line
from usbgate.clockmarks import ClockWatch, Stamp
from usbgate.fieldline import EXACT_DIGITS, LINE_LIMIT, format_line, parse_number
from usbgate.hub import Hub
from usbgate.interfaces import (
    DeviceSummary,
    IArchive,
    IClock,
    IDeviceLink,
    IGateway,
    IHistory,
    IJournal,
    ILinkListener,
    Lease,
    Presentation,
    SensorSummary,
    SinkUnavailable,
    Totals,
)
from usbgate.latencies import Latencies
from usbgate.model import (
    Alarm,
    AlarmEvent,
    Answer,
    Bucket,
    Busy,
    ClockMark,
    DeviceEvent,
    Event,
    Failed,
    Malformed,
    Question,
    Reading,
    ReadingEvent,
    Report,
    Request,
    RequestError,
    RequestRecord,
    Selection,
    Stopped,
    StoredReading,
    StoredRequest,
    StoreEvent,
    Unknown,
    make,
)
from usbgate.noise import Noise
from usbgate.pending import Moves, PendingRequests, Rules
from usbgate.sensors import KnownSensors
from usbgate.thinning import Thinning

TIMEOUT = 10.0  # seconds, as in the original

UNSURE_SHOWN = 50  # sensors named in one line of `status`

# Bytes that the longest tag of usbgate's own adds to a request: `_TAG:` and 8 characters (protocol §2).
TAG_ROOM = 13

# Askers told before the reactor gets its turn: a millisecond's work, so that an answer for thousands delays no other.
TOLD_A_TURN = 100

_UNSAID = 1000  # sensors of which it is remembered that two links speaking for them was said

_T = TypeVar("_T")
_Store = TypeVar("_Store", IHistory, IArchive)


@dataclass(frozen=True, slots=True)
class SensorRules:
    """
    What the configuration says about asking one sensor; None where it says nothing.
    """

    name: str | None = None
    device: str | None = None
    default_command: str | None = None
    timeout: float | None = None
    store_every: float | None = None  # see `Thinning`; None stores every reading


@dataclass(eq=False, slots=True)
class _Waiter:
    request: Request
    deferred: Deferred[Answer]
    started: float  # monotonic


# What becomes of a request.
_Ending = tuple[_Waiter, Answer | RequestError]


@dataclass(eq=False, slots=True)
class _Untold:
    # Who is told in turns to come. Whatever else their clients are told waits behind it, so that its order holds.
    endings: deque[_Ending]  # so that each is let go of in its turn, too
    clients: set[str]
    device: str | None
    now: float  # monotonic: when it was decided


@dataclass(eq=False, slots=True)
class _Line:
    # One link with what is asked over it.
    link: IDeviceLink
    pending: PendingRequests[_Waiter]
    room: int  # bytes that a request may have
    state: str
    since: int
    warn: Callable[[], str | None]
    silent: bool = False
    lent: object | None = None  # what tells one lease from the next


@implementer(IGateway, ILinkListener)
class Gateway(Service):
    """
    What devices and clients have in common.
    """

    log = Logger()

    def __init__(
        self,
        reactor: IReactorTime,
        clock: IClock,
        default_command: str,
        sensor_rules: Mapping[str, SensorRules],
        first_tag: int = 0,
        presentations: Mapping[str, Presentation] | None = None,
        alarms: Alarms | None = None,
    ) -> None:
        """
        Begin with no links, and nothing to store in.

        Args:
            reactor: For the one timer.
            clock: For everything else.
            default_command: What `ask` means where neither the asker nor the sensor says otherwise.
            sensor_rules: The configured sensors, by id.
            first_tag: See `PendingRequests`.
            presentations: See `IGateway.presentations`; by default the names of the configured sensors.
            alarms: Minds what is an alarm; by default nothing is.
        """
        self.hub: Hub[[str | None, str]] = Hub()
        self.events: Hub[[Event]] = Hub()
        self._reactor = reactor
        self._clock = clock
        self._default_command = default_command
        self._sensor_rules = sensor_rules
        self._first_tag = first_tag
        self._lines: dict[str, _Line] = {}
        self._journal: IJournal | None = None
        self._history: IHistory | None = None
        self._archive: IArchive | None = None
        self._store_status: Callable[[], list[Mapping[str, str]]] = lambda: [{"STORE": "none"}]
        self._presentations = presentations or {
            sensor: Presentation(name=rules.name, device=rules.device) for sensor, rules in sensor_rules.items()
        }
        self._sensors = KnownSensors()
        thinned = {sensor: each.store_every for sensor, each in sensor_rules.items() if each.store_every is not None}
        self._thinning = Thinning(thinned) if thinned else None
        self._alarms = Alarms({}, str) if alarms is None else alarms
        self._changes: list[Change] = []  # of alarms, not yet journalled
        self._clock_watch = ClockWatch(clock.boot)
        self._noise = Noise(clock)
        self._outcomes: Counter[str] = Counter()
        self._latencies = Latencies()
        self._readings = 0
        self._contested: Newest[str, None] = Newest(_UNSAID)
        self._untold: deque[_Untold] = deque()
        self._telling: IDelayedCall | None = None
        self._tells = 0  # one within the other: who is told may ask again, and be told at once
        self._when_told: dict[Callable[[], None], None] = {}  # an ordered set
        self._timer: IDelayedCall | None = None
        self._armed_for = inf
        self._started = clock.monotonic()
        self._stopping = False

    def add_link(self, link: IDeviceLink, rules: Rules, warn: Callable[[], str | None] = lambda: None) -> None:
        """
        Take on a link, before it is started; its listener is this gateway.

        Args:
            link: The link.
            rules: How it is asked.
            warn: Tells what a person should know of its device (see `DeviceSummary.warning`).
        """
        pending: PendingRequests[_Waiter] = PendingRequests(link.name, rules, self._first_tag)
        room = LINE_LIMIT - TAG_ROOM if rules.tags else LINE_LIMIT
        self._lines[link.name] = _Line(link, pending, room, pending.state, self._clock.wall(), warn)

    def store_in(
        self,
        journal: IJournal,
        history: IHistory,
        status: Callable[[], list[Mapping[str, str]]],
        archive: IArchive | None = None,
    ) -> None:
        """
        Store from now on.

        Args:
            journal: Takes readings and requests.
            history: Gives them back.
            status: Tells the state of both, each mapping as one line of `status`.
            archive: Gives them back page by page; None where it can't.
        """
        self._journal = journal
        self._history = history
        self._archive = archive
        self._store_status = status

    def stopService(self) -> None:
        """
        Fail who waits with `Stopped`, and everybody who asks from now on.
        """
        super().stopService()
        self._stopping = True
        self._end_runs()
        self._thinning = None  # what still comes is stored as it is
        if self._telling is not None:
            self._telling.cancel()
        while self._untold:
            self._tell_more()
        for line in self._lines.values():
            self._act(line, line.pending.stop(self._clock.monotonic()))
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def hold_devices(self, hold: bool) -> None:
        """
        Read nothing from any device while the journal can't keep up (`hold`), and again afterwards.
        """
        for line in self._lines.values():
            if hold:
                line.link.pause()
            else:
                line.link.resume()

    async def recall(self) -> None:
        """
        Load the newest readings from the database, for `last` and for routing, and the alarms that are open.

        Raises:
            SinkUnavailable: The database went away again.
        """
        if self._history is not None:
            self._sensors.recall(await self._history.latest())
            stored = await self._history.alarms()
            stamp = self._stamp()
            self._take_changes(self._alarms.recall(stored, stamp.at, stamp.trusted), stamp)

    # What faces ask (IGateway).

    def ask(self, request: Request) -> Deferred[Answer]:
        """
        Ask a device (see `IGateway.ask`).
        """
        now = self._clock.monotonic()
        waiter = _Waiter(request, Deferred(), now)
        line: _Line | None = None
        try:
            line = self._route(request)
            if request.size > line.room:
                raise Malformed("line too long", "with what usbgate adds for the device")
        except RequestError as error:
            device = None if line is None else line.link.name
            self._end(self._put_off([(waiter, error)], device, now), device, now)
            return waiter.deferred
        timeout = request.timeout
        if timeout is None:
            rules = self._sensor_rules.get(request.question.sensor)
            timeout = TIMEOUT if rules is None or rules.timeout is None else rules.timeout
        moves = line.pending.ask(request, waiter, timeout, now)
        if moves:
            self._act(line, moves)
        else:  # as mostly where many ask: it waits for its turn, or for an answer that is on its way
            self._arm(now)
        return waiter.deferred

    def when_told(self, call: Callable[[], None]) -> None:
        """
        Wait until others are told, too (see `IGateway.when_told`).
        """
        if self._tells:
            self._when_told[call] = None
        else:
            call()

    def default_command(self, sensor: str) -> str:
        """
        Tell what `ask` means for a sensor (see `IGateway.default_command`).
        """
        rules = self._sensor_rules.get(sensor)
        return (rules and rules.default_command) or self._default_command

    def last(self, sensor: str | None, field: str | None) -> list[Reading]:
        """
        Tell the newest readings (see `IGateway.last`).
        """
        if sensor is None:
            sensors = [known for _, known in self._sensors.items()]
        else:
            known = self._sensors.get(sensor)
            sensors = [] if known is None else [known]
        return [
            reading for known in sensors for name, reading in known.newest.items() if field is None or name == field
        ]

    def history(self, sensor: str, field: str | None, since: int | None, limit: int) -> Deferred[list[Reading]]:
        """
        Fetch stored readings (see `IGateway.history`).
        """
        return Deferred.fromCoroutine(
            _ask_store(self._history, lambda stored: stored.history(sensor, field, since, limit))
        )

    def extent(self, selection: Selection, limit: int | None) -> Deferred[tuple[int, int] | None]:
        """
        Find stored readings (see `IGateway.extent`).
        """
        return self._read(lambda stored: stored.extent(selection, limit))

    def page(self, selection: Selection, first: int, last: int, limit: int) -> Deferred[list[StoredReading]]:
        """
        Fetch stored readings (see `IGateway.page`).
        """
        return self._read(lambda stored: stored.page(selection, first, last, limit))

    def buckets(self, selection: Selection, width: int, limit: int) -> Deferred[list[Bucket]]:
        """
        Sum up stored readings (see `IGateway.buckets`).
        """
        return self._read(lambda stored: stored.buckets(selection, width, limit))

    def requests(self, sensor: str | None, limit: int) -> Deferred[list[StoredRequest]]:
        """
        Fetch requests that ended (see `IGateway.requests`).
        """
        return self._read(lambda stored: stored.requests(sensor, limit))

    def _read(self, question: Callable[[IArchive], Deferred[_T]]) -> Deferred[_T]:
        return Deferred.fromCoroutine(_ask_store(self._archive, question))

    def presentations(self) -> Mapping[str, Presentation]:
        """
        Tell how people want to see sensors (see `IGateway.presentations`).
        """
        return self._presentations

    def totals(self) -> Totals:
        """
        Tell what was counted (see `IGateway.totals`).
        """
        return Totals(
            readings=self._readings,
            outcomes=dict(self._outcomes),
            malformed=dict(self._noise.reasons),
            latencies=self._latencies.cumulated(),
            latency_sum=self._latencies.sum,
        )

    def alarms(self) -> list[Alarm]:
        """
        List the alarms (see `IGateway.alarms`).
        """
        return self._alarms.open()

    def acknowledge(self, alarm: str, by: str) -> Deferred[Alarm]:
        """
        Take note that somebody has seen an alarm (see `IGateway.acknowledge`).
        """
        if self._stopping:
            return fail(Stopped())
        stamp = self._stamp()
        try:
            found, changes = self._alarms.acknowledge(alarm, by, stamp.at, stamp.trusted)
        except Unknown as error:
            return fail(error)
        self._take_changes(changes, stamp)
        return succeed(found)

    def sensors(self) -> list[SensorSummary]:
        """
        List the known sensors (see `IGateway.sensors`).
        """
        return [
            SensorSummary(
                sensor=sensor,
                device=known.device,
                fields=sorted(known.newest),
                seen=known.seen,
                reports=known.reports,
                name=self._sensor_rules[sensor].name if sensor in self._sensor_rules else None,
            )
            for sensor, known in self._sensors.items()
        ]

    def devices(self) -> list[DeviceSummary]:
        """
        List the links (see `IGateway.devices`).
        """
        return [
            DeviceSummary(
                name=line.link.name,
                path=line.link.path,
                state=line.state,
                since=line.since,
                counts={
                    "IN": line.link.lines_in,
                    "OUT": line.link.lines_out,
                    "MALFORMED": line.link.malformed,
                    "PARTIAL": line.link.partial,
                    "ECHOES": line.link.echoes,
                    "REPEATS": line.link.repeats,
                    "LEFTOUT": line.link.left_out,
                },
                warning=line.warn(),
            )
            for line in self._lines.values()
        ]

    def lend(self, device: str, client: str) -> Deferred[Lease]:
        """
        Let go of a device (see `IGateway.lend`).
        """
        line = self._lines.get(device)
        if self._stopping:
            return fail(Stopped())
        if line is None:
            return fail(Unknown(f"no such device: {device}"))
        if line.lent is not None:
            return fail(Busy(f"{device} is lent already"))
        line.lent = mark = object()
        self.log.info("{device} is lent to {client}", device=device, client=client)
        released = line.link.release()
        self._act(line, line.pending.link_down(self._clock.monotonic()))
        return released.addCallback(lambda port: Lease(device, port, partial(self._end_lease, line, mark)))

    def _end_lease(self, line: _Line, mark: object) -> None:
        if line.lent is mark and not self._stopping:
            line.lent = None
            self.log.info("{device} is taken back", device=line.link.name)
            self._tell_state(line)
            line.link.take_back()

    def status(self) -> list[Mapping[str, str]]:
        """
        Tell how usbgate is (see `IGateway.status`).
        """
        told: list[Mapping[str, str]] = [
            {
                "VERSION": __version__,
                "UPTIME": f"{self._clock.monotonic() - self._started:.0f}",
                "CLOCK": "trusted" if self._clock.trusted() else "untrusted",
                "SENSORS": str(len(self._sensors)),
                "INFLIGHT": str(sum(line.pending.in_flight for line in self._lines.values())),
            },
            *self._store_status(),
        ]
        told.extend({"REQUESTS": str(count), "OUTCOME": name} for name, count in self._outcomes.items())
        told.extend({"MALFORMED": str(count), "REASON": name} for name, count in self._noise.reasons.items())
        for line in self._lines.values():
            unsure = line.pending.unsure
            for start in range(0, len(unsure), UNSURE_SHOWN):
                shown = unsure[start : start + UNSURE_SHOWN]
                told.append(
                    {
                        "DEV": line.link.name,
                        "UNSURE": str(len(shown)),
                        "SENSORS": ",".join(shown),
                        "TEXT": "they answer with neither MSG nor TAG: an unasked reading can pass for an answer",
                    }
                )
        return told

    def noise(self) -> list[Mapping[str, str]]:
        """
        Tell the last malformed lines (see `IGateway.noise`).
        """
        return self._noise.lines()

    def refused(self, source: str, line: bytes, reason: str) -> None:
        """
        Take note of a malformed line (see `IGateway.refused`).
        """
        self._noise.add(source, line, reason)

    def subscribe(self, deliver: Callable[[str | None, str], None]) -> Callable[[], None]:
        """
        Hear every event as a line (see `IGateway.subscribe`).
        """
        return self.hub.subscribe(deliver)

    def subscribe_events(self, deliver: Callable[[Event], None]) -> Callable[[], None]:
        """
        Hear every event as a value (see `IGateway.subscribe_events`).
        """
        return self.events.subscribe(deliver)

    def store_changed(self, state: str, backlog: int) -> None:
        """
        Tell who watches that the store's state is another one.
        """
        self.events.publish(StoreEvent(state, backlog))

    # What links tell (ILinkListener).

    def link_up(self, link: IDeviceLink) -> None:
        """
        The device was opened (see `ILinkListener.link_up`).
        """
        line = self._lines[link.name]
        line.silent = False
        self._act(line, line.pending.link_up(self._clock.monotonic()))

    def link_down(self, link: IDeviceLink, reason: str) -> None:
        """
        The device went away (see `ILinkListener.link_down`).
        """
        line = self._lines[link.name]
        self._act(line, line.pending.link_down(self._clock.monotonic()))

    def link_full(self, link: IDeviceLink) -> None:
        """
        The device takes nothing for now (see `ILinkListener.link_full`).
        """
        self._lines[link.name].pending.hold()

    def link_drained(self, link: IDeviceLink) -> None:
        """
        The device takes what is written again (see `ILinkListener.link_drained`).
        """
        line = self._lines[link.name]
        self._act(line, line.pending.release(self._clock.monotonic()))

    def link_silent(self, link: IDeviceLink) -> None:
        """
        The device says nothing (see `ILinkListener.link_silent`).
        """
        line = self._lines[link.name]
        line.silent = True
        self._tell_state(line)

    def link_heard(self, link: IDeviceLink) -> None:
        """
        The device speaks again (see `ILinkListener.link_heard`).
        """
        line = self._lines[link.name]
        line.silent = False
        self._tell_state(line)

    def line_refused(self, link: IDeviceLink, line: bytes, reason: str) -> None:
        """
        A line of a device was malformed (see `ILinkListener.line_refused`).
        """
        self._noise.add(link.name, line, reason)

    def reports_received(self, link: IDeviceLink, reports: Sequence[Report]) -> None:
        """
        A chunk was read (see `ILinkListener.reports_received`).
        """
        line = self._lines[link.name]
        stamp = self._stamp()
        self._act(line, line.pending.received(reports, self._clock.monotonic(), stamp.at), stamp)

    # How it is done.

    def _route(self, request: Request) -> _Line:
        # Protocol §4.1.
        if self._stopping:
            raise Stopped
        sensor = request.question.sensor
        name = request.device
        if name is not None:
            if name not in self._lines:
                raise Unknown(f"no such device: {name}")
            return self._lines[name]
        rules = self._sensor_rules.get(sensor)
        if rules is not None and rules.device in self._lines:
            return self._lines[rules.device]
        known = self._sensors.get(sensor)
        if known is not None and known.device in self._lines:
            return self._lines[known.device]
        if len(self._lines) == 1:
            return next(iter(self._lines.values()))
        raise Unknown(f"no device can be told for sensor {sensor}: name one with DEV")

    def _stamp(self) -> Stamp:
        # Trust first: a clock that is put right in between then counts as wrong for a moment, not the other way round.
        trusted = self._clock.trusted()
        return Stamp(self._clock.wall(), self._clock.uptime(), trusted)

    def _act(self, line: _Line, moves: Moves[_Waiter], stamp: Stamp | None = None) -> None:
        # The one place where decisions become deeds. Everything is journalled before anybody is told, and the device
        # has its next message before that, which it can work on meanwhile.
        now = self._clock.monotonic()
        device = line.link.name
        changes: Sequence[Change] = ()
        endings: list[_Ending] = [*moves.answered, *moves.failed]
        if (self._untold or len(endings) > TOLD_A_TURN) and not self._stopping:
            endings = self._put_off(endings, device, now)
        if moves.handed or endings:
            stamp = stamp or self._stamp()
            marks = self._marks_before(stamp)
            readings = self._note(device, moves.handed, stamp)
            changes, self._changes = self._changes, []
            self._record(marks, self._records(endings, device, stamp, now), readings, changes)
        if moves.send:
            line.link.send(moves.send)
        self._tell(endings)
        self._arm(now)
        if self.hub.wanted and stamp is not None:
            for report, question in moves.handed:
                if report.values:
                    command = question.command if question is not None else None
                    self.hub.publish(report.sensor, reading_event_line(report, command, stamp.at))
        if self.events.wanted and stamp is not None:
            for report, question in moves.handed:
                if report.values:
                    command = question.command if question is not None else report.command
                    self.events.publish(ReadingEvent(report.sensor, device, command, stamp.at, report.values))
        for change in changes:
            self.events.publish(AlarmEvent(change.alarm))
        self._tell_state(line)

    def _take_changes(self, changes: Sequence[Change], stamp: Stamp) -> None:
        self._record(self._marks_before(stamp), (), (), changes)
        for change in changes:
            self.events.publish(AlarmEvent(change.alarm))

    def _end(self, endings: Sequence[_Ending], device: str | None, now: float) -> None:
        stamp = self._stamp()
        self._record(self._marks_before(stamp), self._records(endings, device, stamp, now))
        self._tell(endings)

    def _tell(self, endings: Sequence[_Ending]) -> None:
        if not endings:
            return
        self._tells += 1
        for waiter, outcome in endings:
            if isinstance(outcome, Answer):
                waiter.deferred.callback(outcome)
            else:
                waiter.deferred.errback(outcome)
        self._tells -= 1
        if not self._tells:
            calls, self._when_told = self._when_told, {}
            for call in calls:
                call()

    def _put_off(self, endings: list[_Ending], device: str | None, now: float) -> list[_Ending]:
        """
        Keep for turns to come an answer for a crowd, and what must not overtake what is kept for the same client.

        Returns:
            What can be told now: as good as all that is for others than the crowd.
        """
        crowds = Counter(id(outcome) for _, outcome in endings)
        free: list[_Ending] = []
        kept: list[_Ending] = []
        clients: set[str] = set()
        for ending in endings:
            client = ending[0].request.client
            if (
                len(free) >= TOLD_A_TURN
                or crowds[id(ending[1])] > TOLD_A_TURN
                or client in clients
                or any(client in untold.clients for untold in self._untold)
            ):
                kept.append(ending)
                clients.add(client)
            else:
                free.append(ending)
        if kept:
            self._untold.append(_Untold(deque(kept), clients, device, now))
            if self._telling is None:
                self._telling = self._reactor.callLater(0, self._tell_more)
        return free

    def _tell_more(self) -> None:
        self._telling = None
        untold = self._untold[0]
        endings = [untold.endings.popleft() for _ in range(min(TOLD_A_TURN, len(untold.endings)))]
        if not untold.endings:
            self._untold.popleft()
        if self._untold and not self._stopping:
            self._telling = self._reactor.callLater(0, self._tell_more)
        self._end(endings, untold.device, untold.now)

    def _tell_state(self, line: _Line) -> None:
        state = line.pending.state
        if line.lent is not None:
            state = "lent"
        elif line.silent and state == "online":
            state = "silent"
        if state != line.state:
            line.state = state
            line.since = self._clock.wall()
            self.hub.publish(None, format_line({"EVENT": "device", "DEV": line.link.name, "STATE": state}))
            self.events.publish(DeviceEvent(line.link.name, state, line.since))

    def _note(self, device: str, handed: Sequence[tuple[Report, Question | None]], stamp: Stamp) -> list[Reading]:
        at, _, trusted = stamp
        thinning, now = self._thinning, self._clock.monotonic()
        noted: list[Reading] = []
        for report, question in handed:
            sensor, _, _, values = report
            command = question.command if question is not None else None
            readings = []
            for field, text in values:
                number = parse_number(text)
                kept = text if number is None or len(text) > EXACT_DIGITS else None
                readings.append(make(Reading, (at, device, sensor, field, number, kept, command, trusted)))
            before = self._sensors.heard(sensor, device, at, readings)
            if before is not None and sensor not in self._contested:
                self._contested.remember(sensor, None)
                self.log.warn(
                    "sensor {sensor} is heard by {device} and by {before}: readings are stored under each",
                    sensor=sensor,
                    device=device,
                    before=before,
                )
            self._readings += len(readings)
            if self._alarms.minding:
                self._changes += self._alarms.noted(readings)
            noted += readings if thinning is None else thinning.keep(readings, now)
        return noted

    def _records(
        self, endings: Sequence[_Ending], device: str | None, stamp: Stamp, now: float
    ) -> Sequence[RequestRecord]:
        # `stamp` is of this moment; `now` was when it was decided, which can be some turns of the reactor ago.
        here = self._clock.monotonic() if endings else now
        return [self._ended(waiter, outcome, device, stamp, now, here) for waiter, outcome in endings]

    def _ended(
        self,
        waiter: _Waiter,
        outcome: Answer | RequestError,
        device: str | None,
        stamp: Stamp,
        now: float,
        here: float,
    ) -> RequestRecord:
        name = outcome.code if isinstance(outcome, RequestError) else "recent" if outcome.recent else "answered"
        self._outcomes[name] += 1
        if name == "answered":
            self._latencies.add(now - waiter.started)
        request = waiter.request
        sensor, command, arguments = request.question
        told = {k: v for k, v in request.fields.items() if (k, v) in arguments} if arguments else None
        return RequestRecord(
            # When it was accepted, by the clock as it is now: the mark before this row tells of no other.
            stamp.at - round((here - waiter.started) * 1000),
            request.origin,
            request.client,
            device,
            sensor,
            command,
            format_line(told) if told else None,
            name,
            round((now - waiter.started) * 1000, 3),
            stamp.trusted,
        )

    def _marks_before(self, stamp: Stamp) -> Sequence[ClockMark]:
        # The mark that rows with this stamp need before them, if any.
        mark = None if self._journal is None else self._clock_watch.due(stamp)
        if mark is None:
            return ()
        self._end_runs()  # what was held back was stamped before
        return (mark,)

    def _end_runs(self) -> None:
        if self._thinning is not None:
            self._record((), (), self._thinning.end())

    def _record(
        self,
        marks: Sequence[ClockMark],
        requests: Sequence[RequestRecord],
        readings: Sequence[Reading] = (),
        changes: Sequence[Change] = (),
    ) -> None:
        # No mark alone: a gap in the numbers where one was lost is then longer than where one row was set aside.
        if self._journal is not None and (readings or requests or changes):
            self._journal.append(marks, readings, requests, [change.record for change in changes])
            for mark in marks:
                self._clock_watch.noted(mark)

    def _arm(self, now: float) -> None:
        # One timer for all links. One that would fire too early is left alone: it arms the next.
        lines = self._lines.values()
        if self._timer is not None and all(line.pending.bound >= self._armed_for for line in lines):
            return
        deadline = min(line.pending.deadline for line in lines)
        if self._timer is not None:
            if deadline >= self._armed_for:
                return
            self._timer.cancel()
            self._timer = None
        if deadline < inf and not self._stopping:
            self._armed_for = deadline
            self._timer = self._reactor.callLater(max(0.0, deadline - now), self._expire)

    def _expire(self) -> None:
        self._timer = None
        for line in self._lines.values():
            self._act(line, line.pending.expire(self._clock.monotonic()))


async def _ask_store(store: _Store | None, question: Callable[[_Store], Deferred[_T]]) -> _T:
    if store is None:
        raise Failed("nothing is stored: the database is none")
    try:
        return await question(store)
    except SinkUnavailable as error:
        raise Failed(f"the database can't be asked: {error}") from None
