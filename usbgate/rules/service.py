"""
Rules in the daemon: what happens goes to the rules, and what they fire is carried out.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from datetime import datetime
from math import inf
from uuid import uuid4

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from usbgate.core.clock import IClock
from usbgate.core.model import DeviceEvent, Event, ReportEvent
from usbgate.core.settings import UNCONFIGURED
from usbgate.gateway.interfaces import IGateway, RuleSummary
from usbgate.rules.actions.interfaces import IAction
from usbgate.rules.conditions import KnownReading, Moment, SensorField
from usbgate.rules.contents import actions_of, alarm_reading, subject_of
from usbgate.rules.outbox import Outbox, WaitingAction
from usbgate.rules.queues import ActionQueues
from usbgate.rules.ruleset import ActiveRule, Firing, KeptState, RuleSet
from usbgate.rules.settings import MailSettings, RuleSettings

TURN_TIME = 0.005  # seconds for reports in a reactor turn; one takes 4 µs for each rule that names its sensor
EVENTS_LIMIT = 2_000  # that wait: a turn takes longer then; while rules cannot be looked at yet, the oldest are dropped
STOP_TIME = 3.0  # seconds that the disk has for the last writes
STATE_INTERVAL = 10.0  # seconds between writes of what only arms rules again: a trembling value costs an SD card little


class RuleService(Service):
    """
    The rules.

    Attributes:
        mail: The mail server, as it is configured now.
    """

    log = Logger()

    def __init__(
        self,
        reactor: IReactorTime,
        clock: IClock,
        gateway: IGateway,
        outbox: Outbox,
        find_action: Callable[[str], IAction | None],
        rules: Sequence[RuleSettings],
        mail: MailSettings | None,
        name: str,
        new_id: Callable[[], str] = lambda: uuid4().hex,
    ) -> None:
        """
        Args:
            reactor: The monotonic clock.
            clock: The wall clock.
            gateway: The gateway.
            outbox: What must survive a restart.
            find_action: See `ActionQueues`.
            rules: The rules.
            mail: The mail server.
            name: The name of this usbgate.
            new_id: Makes ids of actions, never the same twice.
        """
        self._reactor = reactor
        self._clock = clock
        self._gateway = gateway
        self._outbox = outbox
        self._configured = rules
        self.mail = mail
        self._name = name
        self._new_id = new_id
        self._queues = ActionQueues(reactor, find_action, outbox, self._find_rule, gateway.record)
        self._set: RuleSet | None = None  # until what was kept is read
        self._unwritten: dict[str, KeptState] = {}  # states that changed since they were written
        self._written = -inf  # when states were written last
        self._events: deque[ReportEvent | DeviceEvent] = deque()
        self._alarms: dict[str, bool] = {}  # whether the alarm of each rule was set active
        self._unsubscribe: Callable[[], None] = lambda: None
        self._call: IDelayedCall | None = None
        self._starting: Deferred[None] | None = None
        self._limited: set[str] = set()  # rules whose rate was logged
        self._stopping = False
        self._clock_set = False  # whether the wall clock has been right since the start

    def startService(self) -> None:
        """
        Begin, if there are rules: read what was kept, then follow what happens.
        """
        super().startService()
        if self._configured:
            self._begin()

    def stopService(self) -> Deferred[None]:
        """
        End: look at no rule any more, and keep what is not done.
        """
        super().stopService()
        self._unsubscribe()
        self._stopping = True
        if self._call is not None:
            self._call.cancel()
            self._call = None
        return Deferred.fromCoroutine(self._stop())

    def _begin(self) -> None:
        self._unsubscribe = self._gateway.subscribe(self._deliver)
        self._configure_alarms()
        self._starting = Deferred.fromCoroutine(self._start())
        self._starting.addErrback(lambda failure: self.log.failure("unexpected error while starting rules", failure))

    async def _start(self) -> None:
        kept, actions = await self._outbox.open()
        if self._stopping:
            return
        self._set = RuleSet(self._configured, kept, self._stale, self._moment())
        self._look_up()
        self._queues.add(actions, self._clock.wall())
        self._schedule(0.0)

    async def _stop(self) -> None:
        await self._queues.stop()
        try:
            await Deferred.fromCoroutine(self._finish()).addTimeout(STOP_TIME, self._reactor)
        except DeferredTimeout:
            self.log.error("the disk takes too long: what rules did last may be done again after the next start")

    async def _finish(self) -> None:
        if self._starting is not None:
            await self._starting
        if self._set is not None:
            self._unwritten.update(self._set.take_changed())
            self._write()
        await self._outbox.close()

    def configure(self, rules: Sequence[RuleSettings], mail: MailSettings | None) -> None:
        """
        Take over the rules and the mail server after they have changed. Rules with the same condition keep their state.
        """
        self._configured = rules
        self.mail = mail
        if self._starting is None:
            if rules and self.running:
                self._begin()
            return
        self._configure_alarms()
        if self._set is not None:
            self._set.configure(rules, self._moment())
            self._look_up()
            self._schedule(0.0)

    def restored(self) -> None:
        """
        Take over the newest readings, since some were loaded from the database, or belong to another sensor now.
        """
        if self._set is not None:
            self._look_up()
            self._schedule(0.0)

    def summaries(self) -> Sequence[RuleSummary]:
        """
        List the rules.
        """
        waiting, troubles = self._queues.waiting(), self._queues.troubles()
        known = [ActiveRule(rule) for rule in self._configured] if self._set is None else self._set.rules.values()
        return [
            RuleSummary(
                each.rule.name,
                each.rule.when.text,
                each.truth,
                each.last,
                each.firings,
                waiting[each.rule.name],
                self._queues.dropped[each.rule.name],
                troubles.get(each.rule.name),
            )
            for each in known
        ]

    # What happens.

    def _deliver(self, event: Event) -> None:
        # In a later turn: rules may cause events themselves, which others must not receive before this one.
        if not isinstance(event, ReportEvent | DeviceEvent):
            return
        known = self._set
        if known is None:
            if len(self._events) >= EVENTS_LIMIT:
                self._events.popleft()
            self._events.append(event)
        elif isinstance(event, DeviceEvent) or event.sensor in known.sensors:
            self._events.append(event)
            self._schedule(0.0)

    def _look_up(self) -> None:
        assert self._set is not None
        queries, wall = self._gateway.queries, self._clock.wall()
        for sensor in self._set.sensors:
            for reading in sorted(queries.last(sensor, None), key=lambda each: each.at):  # of several devices
                name = SensorField(reading.sensor, reading.field)
                age = (wall - reading.at) / 1000
                self._set.restore_reading(name, reading.value, reading.text, reading.device, age)
        for device in queries.devices():
            self._set.device_state(device.name, device.state)

    def _schedule(self, delay: float) -> None:
        if self._stopping:
            return
        if self._call is not None:
            if self._call.getTime() <= self._reactor.seconds() + delay:
                return
            self._call.cancel()
        self._call = self._reactor.callLater(delay, self._look)

    def _look(self) -> None:
        self._call = None
        rules = self._set
        assert rules is not None
        moment = self._moment()
        firings = rules.advance(moment)
        end = moment.now + TURN_TIME
        while self._events and (self._reactor.seconds() < end or len(self._events) > EVENTS_LIMIT):
            event = self._events.popleft()
            if isinstance(event, ReportEvent):
                firings += rules.report(event.device, event.sensor, event.values, moment)
            else:
                rules.device_state(event.device, event.state)
                firings += rules.advance(moment)
        for firing in firings:
            self._set_alarm(firing.rule, True, firing.readings.get(subject_of(firing.rule)))
        self._settle_alarms(rules)
        self._log_limited(rules)
        self._unwritten.update(rules.take_changed())
        if firings:
            self._fire(firings)
        elif self._unwritten and moment.now >= self._written + STATE_INTERVAL:
            self._write()
        due = moment.now if self._events else rules.due
        if self._unwritten:
            due = min(due, self._written + STATE_INTERVAL)
        if due < inf:
            self._schedule(max(0.0, due - moment.now))

    # What is done.

    def _fire(self, firings: Sequence[Firing]) -> None:
        sensors = self._gateway.queries.sensor_settings()
        actions: list[WaitingAction] = []
        for firing in firings:
            self.log.info("rule {rule} fires: {when}", rule=firing.rule.name, when=firing.rule.when.text)
            actions += actions_of(firing, self._name, sensors, self._new_id)
        admitted = self._queues.admit(actions)
        self._write(admitted).addCallback(lambda _: self._carry_out(admitted))

    def _carry_out(self, actions: Sequence[WaitingAction]) -> None:
        if not self._stopping:
            self._queues.add(actions, self._clock.wall())

    def _write(self, actions: Sequence[WaitingAction] = ()) -> Deferred[None]:
        self._written = self._reactor.seconds()
        states, self._unwritten = self._unwritten, {}
        return self._outbox.write(states, actions)

    def _configure_alarms(self) -> None:
        names = [rule.name for rule in self._configured if rule.alarm]
        self._alarms = {name: active for name, active in self._alarms.items() if name in names}
        self._gateway.configure_rule_alarms(names)

    def _settle_alarms(self, rules: RuleSet) -> None:
        for active in rules.rules.values():
            # An alarm stays as it is while the condition is not known, or has not held long enough.
            if active.truth is False or (active.truth and active.fired):
                self._set_alarm(active.rule, active.fired, rules.reading(subject_of(active.rule)))

    def _set_alarm(self, rule: RuleSettings, active: bool, reading: KnownReading | None) -> None:
        if rule.alarm and self._alarms.get(rule.name) != active:
            self._alarms[rule.name] = active
            device = self._device_of(subject_of(rule).sensor)
            about = alarm_reading(rule, reading, device, self._clock.wall(), self._clock.trusted())
            self._gateway.set_rule_alarm(rule.name, active, about)

    def _device_of(self, subject: str) -> str:
        # Of what an alarm is about: a sensor, a device, or only the time.
        queries = self._gateway.queries
        configured = queries.sensor_settings().get(subject, UNCONFIGURED).device
        if configured is not None:
            return configured
        known = queries.sensor(subject)
        if known is not None:
            return known.device
        devices = [each.name for each in queries.devices()]
        return subject if subject in devices else next(iter(devices), self._name)

    def _log_limited(self, rules: RuleSet) -> None:
        for name, active in rules.rules.items():
            if active.limited and name not in self._limited:
                self._limited.add(name)
                self.log.warn("rule {rule} fires too often, and waits: do rules trigger each other?", rule=name)

    # Settings and clocks.

    def _find_rule(self, name: str) -> RuleSettings | None:
        return next((rule for rule in self._configured if rule.name == name), None)

    def _stale(self, sensor: str) -> float:
        return self._gateway.queries.sensor_settings().get(sensor, UNCONFIGURED).stale

    def _moment(self) -> Moment:
        # A clock that was right stays so to the minute for months, though the kernel calls it unsynchronized after nine
        # hours without a time server.
        self._clock_set = self._clock_set or self._clock.trusted()
        wall = self._clock.wall()
        return Moment(self._reactor.seconds(), wall, datetime.fromtimestamp(wall / 1000) if self._clock_set else None)
