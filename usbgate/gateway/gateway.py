"""
Where decisions become actions: reports go to the journal, to askers and to subscribers; requests go to devices.

The only module that knows both the core and the parts. `PendingRequests` decides, the gateway acts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from random import random
from uuid import uuid4

from twisted.application.service import Service
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from zope.interface import implementer

from usbgate.core.alarms import Change
from usbgate.core.clock import IClock
from usbgate.core.clockmarks import Stamp
from usbgate.core.errors import Busy, Malformed, RequestError, Stopped
from usbgate.core.exchanges import Asker, Moves
from usbgate.core.holders import Holder, Holders
from usbgate.core.messages import time_limit
from usbgate.core.model import (
    Action,
    Alarm,
    Answer,
    DeviceEvent,
    DeviceWarning,
    Event,
    Reading,
    Request,
    Row,
    StoreEvent,
)
from usbgate.core.recorder import Recorder
from usbgate.core.replacements import Replacement
from usbgate.core.rules import Rules
from usbgate.core.settings import UNCONFIGURED, FieldSettings, SensorSettings
from usbgate.core.status import JournalStatus, StoreStatus
from usbgate.device.interfaces import IDeviceLink
from usbgate.gateway.events import Events
from usbgate.gateway.held import HeldRequests
from usbgate.gateway.interfaces import IGateway, Lease
from usbgate.gateway.lending import Lending
from usbgate.gateway.linklistener import LinkListener
from usbgate.gateway.malformed import MalformedLines
from usbgate.gateway.notices import NoticeLog
from usbgate.gateway.polls import Polls
from usbgate.gateway.queries import Queries
from usbgate.gateway.replacing import Keep, Replacing
from usbgate.gateway.replies import Ended, Replies
from usbgate.gateway.restoration import restore_sensors
from usbgate.gateway.routing import Route, Routing
from usbgate.gateway.states import StateEvents
from usbgate.store.interfaces import IJournal, IStore


@implementer(IGateway)
class Gateway(Service):
    """
    Connects devices, clients and the store.

    Attributes:
        restored: What to call when what the database has was loaded.
    """

    log = Logger()

    def __init__(
        self,
        reactor: IReactorTime,
        clock: IClock,
        default_command: str,
        sensor_settings: Mapping[str, SensorSettings],
        first_tag: int = 0,
        new_alarm_id: Callable[[], str] = lambda: uuid4().hex[:16],
        chance: Callable[[], float] = random,
    ) -> None:
        """
        Args:
            reactor: The monotonic clock, for timers and later turns.
            clock: The wall clock.
            default_command: The command of `ask` if neither the asker nor the sensor has one.
            sensor_settings: The configured sensors, by id.
            first_tag: See `PendingRequests`.
            new_alarm_id: See `Alarms`.
            chance: See `Polls`.
        """
        self.seconds = reactor.seconds
        self._clock = clock
        self._sensor_settings = sensor_settings
        self._recorder = Recorder(sensor_settings, clock.boot, new_alarm_id)
        self._routing = Routing(reactor, sensor_settings, self._recorder.sensors, self._expire, first_tag)
        self._malformed = MalformedLines(reactor, clock)
        self._held = HeldRequests()
        self._replacing = Replacing(self._recorder, self._routing, sensor_settings, self.stamp, self._append)
        self.queries = Queries(
            reactor,
            clock,
            self._recorder,
            self._routing,
            self._malformed,
            self._held,
            default_command,
            sensor_settings,
            self._replacing,
        )
        self._events = Events(self._recorder.calibrations)
        self._states = StateEvents(reactor, self._events.publish)
        self._holders = Holders()
        self._replies = Replies(reactor, self._record_late)
        self._reactor = reactor
        self._journal: IJournal | None = None
        self._store: IStore | None = None
        self._stopping = False
        self._notices = NoticeLog()
        self._polls = Polls(reactor, self.ask, self._routing.may_ask, chance)
        self._lending = Lending(self._routing.routes, self.update_state)
        self.restored: list[Callable[[], None]] = []

    def add_link(
        self,
        link: IDeviceLink,
        rules: Rules,
        warnings: Callable[[], Sequence[DeviceWarning]] = tuple,
        store: float = 0.0,
        fields: Mapping[str, FieldSettings] = {},
    ) -> None:
        """
        Add a device, before its link is started.

        Args:
            link: The link.
            rules: The configuration of asking over it.
            warnings: Returns `DeviceSummary.warnings`.
            store: See `Recorder.add_device`.
            fields: What the device's dialect knows of fields, by name in upper case.
        """
        self._recorder.add_device(link.name, store)
        route = self._routing.add(link, rules, warnings, self._clock.wall(), fields)
        self._holders.links.append(route.pending.queues)
        link.listener = LinkListener(self, route)

    def keep_replacements(
        self, found: Sequence[Replacement] | None, keep: Keep, changed: Callable[[], None] = lambda: None
    ) -> None:
        """
        Keep the replacements of sensors from now on, after the links were added (see `Replacing.begin`).
        """
        self._replacing.begin(found, keep, changed)

    def store_in(
        self, journal: IJournal, store: IStore, status: Callable[[], tuple[StoreStatus, JournalStatus]]
    ) -> None:
        """
        Store from now on.

        Args:
            journal: Takes the rows.
            store: To read what was stored.
            status: Returns the status of both.
        """
        self._journal = journal
        self._store = store
        self.queries.set_store(store, status)

    def startService(self) -> None:
        """
        Poll from now on.
        """
        super().startService()
        self._polls.configure(self._sensor_settings, self.queries.default_command)

    def stopService(self) -> None:
        """
        Fail all who wait with `Stopped`, and all requests from now on.
        """
        super().stopService()
        self._stopping = True
        self._polls.stop()
        self._lending.stop()
        self._append([self._recorder.end_on_change()])
        self._replies.stop()
        self._routing.stop()
        self._states.stop()
        now = self.seconds()
        for route in self._routing.routes.values():
            self.act(route, route.pending.stop(now), now)

    def hold_devices(self, hold: bool) -> None:
        """
        Read nothing from any device while the journal can't keep up (`hold`), and again afterwards.
        """
        for route in self._routing.routes.values():
            if hold:
                route.link.pause()
            else:
                route.link.resume()

    def sensors_changed(self) -> None:
        """
        Take over the settings of sensors after they have changed.
        """
        self._polls.configure(self._sensor_settings, self.queries.default_command)
        entry = self._recorder.configure(self.stamp())
        self._append(entry.runs)
        self._events.publish_changes(entry.changes)

    async def restore(self) -> None:
        """
        Load the newest readings from the database, for `last` and for routing, and the alarms that are open.

        Raises:
            SinkUnavailable: The connection to the database was lost again.
        """
        if self._store is not None:
            await restore_sensors(self._recorder, self._store, self.queries, self._reactor)
            await self._replacing.restore(self._store.replacements)
            stored = await self._store.alarms()
            stamp = self.stamp()
            self._take_changes(self._recorder.alarms.restore(stored, stamp.at, stamp.trusted), stamp)
            for restored in self.restored:
                restored()

    def store_changed(self, state: str, backlog: int) -> None:
        """
        Publish that the store's state changed.
        """
        self._events.publish(StoreEvent(state, backlog))

    # IGateway

    def ask(self, request: Request, holder: Holder) -> Deferred[Answer]:
        now = self.seconds()
        asker: Asker[Deferred[Answer]] = Asker(request, now, Deferred(), holder)
        route: Route | None = None
        full = self._holders.full
        try:
            if self._stopping:
                raise Stopped
            route, asker.known = self._routing.find(request)
            if self._recorder.sensors.changes:
                self._take_changes((), self.stamp())
            sent = route.swapped.request(request) if route.swapped.swaps else request
            if len(sent.line) > route.room:
                raise Malformed("line too long", "with the fields that usbgate adds for the device")
            if full and holder.askers:
                raise Busy
            settings = self._sensor_settings.get(request.question.sensor, UNCONFIGURED)
            timeout = time_limit(request, settings.timeout)
            if request.when_heard:
                self._held.add(asker, now + timeout)
        except RequestError as error:
            device = None if route is None else route.link.name
            ended = self._replies.admit([(error, (asker,))], device, now)
            self._record_late(ended, device, now)
            self._replies.deliver(ended)
            return asker.waiter
        self.act(route, route.pending.ask(asker, timeout, now), now)
        if full:
            self._withdraw(self._holders.surplus())
        return asker.waiter

    def refuse(self, request: Request, error: RequestError) -> None:
        now = self.seconds()
        asker: Asker[Deferred[Answer]] = Asker(request, now, Deferred(), Holder(request.origin))
        self._record_late([(error, (asker,))], None, now)

    def record(self, action: Action) -> None:
        self._append(self._recorder.record_action(action, self.stamp()))

    def disconnected(self, holder: Holder) -> None:
        self._withdraw(self._holders.disconnected(holder))

    def _withdraw(self, askers: Iterable[Asker[Deferred[Answer]]]) -> None:
        by_device: dict[str, list[Asker[Deferred[Answer]]]] = {}
        for asker in askers:
            by_device.setdefault(asker.device, []).append(asker)
        now = self.seconds()
        for device, withdrawn in by_device.items():
            route = self._routing.routes[device]
            self.act(route, route.pending.withdraw(withdrawn, now), now)

    def cancel(self, number: int) -> None:
        asker, now = self._held.get(number), self.seconds()
        route = self._routing.routes[asker.device]
        self.act(route, route.pending.cancel(asker, now), now)

    def acknowledge(self, alarm: str, by: str) -> Deferred[Alarm]:
        if self._stopping:
            return fail(Stopped())
        stamp = self.stamp()
        try:
            found, changes = self._recorder.alarms.acknowledge(alarm, by, stamp.at, stamp.trusted)
        except RequestError as error:
            return fail(error)
        self._take_changes(changes, stamp)
        return succeed(found)

    def configure_rule_alarms(self, rules: Iterable[str]) -> None:
        stamp = self.stamp()
        self._take_changes(self._recorder.alarms.configure_rules(rules, stamp.at, stamp.trusted), stamp)

    def set_rule_alarm(self, rule: str, active: bool, about: Reading) -> None:
        self._take_changes(self._recorder.alarms.set_rule(rule, active, about), self.stamp())

    def replace(self, sensor: str, successor: str, who: str) -> Deferred[Replacement]:
        if self._stopping:
            return fail(Stopped())
        return Deferred.fromCoroutine(self._replacing.replace(sensor, successor, who))

    def undo_replacement(self, sensor: str, who: str) -> Deferred[Replacement]:
        if self._stopping:
            return fail(Stopped())
        return Deferred.fromCoroutine(self._replacing.undo(sensor, who))

    def lend(self, device: str, client: str) -> Deferred[Lease]:
        if self._stopping:
            return fail(Stopped())
        return self._lending.lend(device, client)

    def add_malformed(self, source: str, line: bytes, reason: str) -> None:
        self._malformed.add(source, line, reason)

    def subscribe(self, deliver: Callable[[Event], None]) -> Callable[[], None]:
        return self._events.subscribe(deliver)

    # The actions.

    def stamp(self) -> Stamp:
        """
        Read the clocks.
        """
        # Trust first: a clock that is set right in between then counts as wrong for a moment, not the other way round.
        trusted = self._clock.trusted()
        return Stamp(self._clock.wall(), self._clock.uptime(), trusted)

    def act(self, route: Route, moves: Moves[Deferred[Answer]], now: float, stamp: Stamp | None = None) -> None:
        """
        Carry out what was decided for one device.

        The device gets its next message first, then the askers their replies, so that it and they can work on them
        while rows are made. These wait in memory for the journal's next commit in any case. Subscribers come last.

        Args:
            route: The device.
            moves: The decisions.
            now: This moment, in monotonic seconds.
            stamp: This moment; None to read the clocks if they are needed.
        """
        device = route.link.name
        changes: Sequence[Change] = ()
        ended: Sequence[Ended] = moves.ended
        if ended:
            if self._recorder.calibrations.by_sensor:
                ended = self._recorder.calibrations.ended(ended)
            ended = self._replies.admit(ended, device, now)
        for sensor in moves.unanswered:
            self._recorder.sensors.left_unanswered(sensor, device)
        if moves.send and not (route.swapped if route.swapped.swaps else route.link).send(moves.send):
            route.pending.blocked = True
        if ended:
            self._replies.deliver(ended)
        if moves.handed or ended or self._recorder.sensors.changes:
            stamp = stamp or self.stamp()
            entry = self._recorder.record(device, moves.handed, ended, stamp, now, now)
            changes = entry.changes
            if self._journal is not None and any(entry.runs):
                self._journal.append(*entry.runs)
            if entry.notices:
                self._notices.add(entry.notices)
            if self._polls.sensors:
                self._polls.received(moves.handed, now)
        self._routing.set_timer(now)
        if moves.handed and stamp is not None and self._events.subscribers:
            self._events.publish_reports(device, moves.handed, stamp.at)
        if changes:
            self._events.publish_changes(changes)
        if route.pending.state != route.link_state:
            self.update_state(route)

    def update_state(self, route: Route) -> None:
        """
        Derive a device's state, and publish it if it changed.
        """
        name, before = route.link.name, route.state
        if route.update_state(self._clock.wall(), self.seconds()):
            self._states.changed(name, before, lambda: DeviceEvent(name, route.state, route.since))
            if route.state == "online" and self._polls.sensors:
                self._polls.resume()

    def _record_late(self, ended: Sequence[Ended], device: str | None, decided: float) -> None:
        # What was not decided in `act`, or some turns ago.
        now = self.seconds()
        self._append(self._recorder.record(device, (), ended, self.stamp(), now, decided).runs)

    def _take_changes(self, changes: Sequence[Change], stamp: Stamp) -> None:
        entry = self._recorder.record_changes(changes, stamp)
        self._append(entry.runs)
        self._notices.add(entry.notices)
        self._events.publish_changes(changes)

    def _append(self, runs: Sequence[Sequence[Row]]) -> None:
        if self._journal is not None and any(runs):
            self._journal.append(*runs)

    def _expire(self) -> None:
        now = self.seconds()
        for route in self._routing.routes.values():
            self.act(route, route.pending.expire(now), now)
