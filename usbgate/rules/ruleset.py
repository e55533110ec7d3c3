"""
When rules fire (docs/rules.md, "When a rule fires").

Pure: reports, states of devices and moments come in, firings come out. The daemon feeds it with what happens, `usbgate
rules test` with what was stored.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf
from typing import NamedTuple

from usbgate.core.fieldline import parse_value
from usbgate.rules.conditions import (
    Facts,
    KnownReading,
    Moment,
    SensorField,
    Truth,
    devices_of,
    leaves,
    sensors_of,
)
from usbgate.rules.settings import RuleSettings

RATE = 10  # firings of a rule within `RATE_TIME`: two rules whose commands trigger each other can go on forever
RATE_TIME = 60.0  # seconds


class KeptState(NamedTuple):
    """
    What must be known of a rule after a restart.

    Attributes:
        when: The condition that this is about.
        fired: Whether the rule has fired for the condition that holds now.
        last: When it fired last: whole milliseconds since 1970, UTC; None if it never did.
        held: See `Term` of `rules.conditions`.
    """

    when: str
    fired: bool = False
    last: int | None = None
    held: frozenset[int] = frozenset()


class Firing(NamedTuple):
    """
    A rule fires.

    Attributes:
        rule: The rule.
        moment: When.
        readings: The newest readings of all fields that it names.
    """

    rule: RuleSettings
    moment: Moment
    readings: Mapping[SensorField, KnownReading]


@dataclass(eq=False, slots=True)
class ActiveRule:
    """
    A rule, and what is known of it.

    Attributes:
        rule: The rule.
        truth: Whether its condition holds.
        since: Since when it holds, in monotonic seconds; None while it does not.
        fired: Whether it has fired since it holds.
        last: See `KeptState`.
        firings: How often it fired since usbgate started.
        limited: Whether `RATE` kept it from firing when it was looked at last.
        due: When it must be looked at again although nothing is reported, in monotonic seconds.
        changed: Whether `kept` may have changed since `RuleSet.take_changed`.
    """

    rule: RuleSettings
    truth: Truth = None
    since: float | None = None
    fired: bool = False
    last: int | None = None
    firings: int = 0
    limited: bool = False
    due: float = 0.0
    changed: bool = False
    _held: set[int] = field(default_factory=set)
    _fired_at: float = -inf  # when it fired last, in monotonic seconds
    _recent: deque[float] = field(default_factory=lambda: deque(maxlen=RATE))

    @property
    def kept(self) -> KeptState:
        """
        What must be known of it after a restart.
        """
        return KeptState(self.rule.when.text, self.fired, self.last, frozenset(self._held))

    def restore(self, kept: KeptState, moment: Moment) -> None:
        """
        Continue as before a restart.
        """
        self.last = kept.last
        if kept.last is not None:
            self._fired_at = moment.now - max(0, moment.wall - kept.last) / 1000  # the wall clock may have been set
        if kept.when == self.rule.when.text:
            self.fired = kept.fired
            self._held.update(kept.held)
        else:
            self.changed = True

    def look(self, facts: Facts) -> bool:
        """
        Look at its condition, and return whether it fires now.
        """
        moment, held = facts.moment, self._held.copy()
        self.truth = self.rule.when.term.holds(facts, self._held)
        self.changed = self.changed or held != self._held
        self.due = min(
            (due for term in leaves(self.rule.when.term) if (due := term.due(facts)) > moment.now), default=inf
        )
        if not self.truth:
            self.since = None
            if self.fired and self.truth is False:
                self.fired, self.changed = False, True
            return False
        if self.since is None:
            self.since = moment.now
        if self.fired:
            return False
        limited_until = self._recent[0] + RATE_TIME if len(self._recent) == RATE else -inf
        ready = max(self.since + self.rule.for_, self._fired_at + self.rule.quiet, limited_until)
        if moment.now < ready:
            self.limited = ready == limited_until
            self.due = min(self.due, ready)
            return False
        self.fired, self.changed, self.limited, self.last = True, True, False, moment.wall
        self.firings += 1
        self._fired_at = moment.now
        self._recent.append(moment.now)
        return True


class RuleSet:
    """
    All rules, and what is known for them.

    Attributes:
        rules: The rules, by name, in the order of the configuration.
        sensors: The sensors of which it needs the reports.
        devices: The devices of which it needs the states.
        fields: The fields of which it needs the readings.
    """

    def __init__(
        self,
        rules: Iterable[RuleSettings],
        kept: Mapping[str, KeptState],
        stale: Callable[[str], float],
        moment: Moment,
    ) -> None:
        """
        Args:
            rules: The rules.
            kept: What is known of them from an earlier run, by name.
            stale: See `Facts`.
            moment: Now.
        """
        self._facts = Facts(moment, moment.now, stale)
        self.rules: Mapping[str, ActiveRule] = {}
        self.configure(rules, moment, kept)

    def configure(self, rules: Iterable[RuleSettings], moment: Moment, kept: Mapping[str, KeptState] = {}) -> None:
        """
        Take over the rules after they have changed. Those with the same condition keep their state.

        Args:
            rules: All rules.
            moment: Now.
            kept: What is known of rules that were not here before.
        """
        before, self.rules = self.rules, {}
        found: dict[str, ActiveRule] = {}
        for rule in rules:
            old = before.get(rule.name)
            if old is not None and old.rule.when == rule.when:
                found[rule.name] = old
                old.rule, old.due = rule, moment.now
                continue
            found[rule.name] = active = ActiveRule(rule, due=moment.now)
            state = kept.get(rule.name) if old is None else old.kept
            if state is not None:
                active.restore(state, moment)
        self.rules = found
        self.fields = {name for active in found.values() for name in active.rule.fields()}
        self.devices = {name for active in found.values() for name in devices_of(active.rule.when.term)}
        self._by_sensor: dict[str, list[ActiveRule]] = {}
        for active in found.values():
            for sensor in set(sensors_of(active.rule.when.term)):
                self._by_sensor.setdefault(sensor, []).append(active)
        self.sensors = {*self._by_sensor, *(name.sensor for name in self.fields)}
        facts = self._facts
        facts.readings = {name: facts.readings[name] for name in self.fields & facts.readings.keys()}
        facts.seen = {sensor: facts.seen[sensor] for sensor in self.sensors & facts.seen.keys()}
        facts.states = {device: facts.states[device] for device in self.devices & facts.states.keys()}

    @property
    def due(self) -> float:
        """
        When to call `advance` at the latest, in monotonic seconds.
        """
        return min((active.due for active in self.rules.values()), default=inf)

    def restore_reading(
        self, name: SensorField, value: float | None, text: str | None, device: str, age: float
    ) -> None:
        """
        Take over what is shown now as the newest reading of a field. It counts from the next `advance` on.

        Args:
            name: The field.
            value: See `KnownReading`, as for the others.
            text: The same.
            device: The same.
            age: How long ago it was received, in seconds; too long if the clock was set since.
        """
        seen = self._facts.moment.now - max(0.0, age)
        known = self._facts.readings.get(name)
        if name in self.fields:
            seen = seen if known is None else max(seen, known.seen)
            self._facts.readings[name] = KnownReading(value, text, device, seen)
        if name.sensor in self.sensors:
            self._facts.seen[name.sensor] = max(seen, self._facts.seen.get(name.sensor, -inf))
        for active in self._by_sensor.get(name.sensor, ()):
            active.due = self._facts.moment.now

    def device_state(self, device: str, state: str) -> None:
        """
        Take over the state of a device. It counts from the next `advance` on. While a device is `settling`, it is not
        known yet what it will be: the state before that counts.
        """
        if device not in self.devices or state == "settling":
            return
        if state == "starting":
            self._facts.states.pop(device, None)
        else:
            self._facts.states[device] = state
        for active in self.rules.values():
            active.due = self._facts.moment.now

    def report(self, device: str, sensor: str, values: Iterable[tuple[str, str]], moment: Moment) -> list[Firing]:
        """
        Take a report over, and look at the rules that depend on its sensor.

        Args:
            device: Who sent it.
            sensor: The sensor.
            values: The fields, with the values as they are spelled.
            moment: Now.

        Returns:
            The rules that fire.
        """
        if sensor not in self.sensors:
            return []
        facts = self._facts
        facts.moment = moment
        facts.seen[sensor] = moment.now
        for field_name, spelled in values:
            name = SensorField(sensor, field_name)
            if name in self.fields:
                facts.readings[name] = KnownReading(*parse_value(spelled), device, moment.now)
        return self._look(self._by_sensor.get(sensor, ()))

    def advance(self, moment: Moment) -> list[Firing]:
        """
        Look at the rules that are due, since time has passed.

        Returns:
            The rules that fire.
        """
        self._facts.moment = moment
        return self._look([active for active in self.rules.values() if active.due <= moment.now])

    def reading(self, name: SensorField) -> KnownReading | None:
        """
        Return the newest reading of a field.
        """
        return self._facts.readings.get(name)

    def take_changed(self) -> Mapping[str, KeptState]:
        """
        Return what must be kept of the rules for which that has changed since the last call, by name.
        """
        changed = {name: active.kept for name, active in self.rules.items() if active.changed}
        for name in changed:
            self.rules[name].changed = False
        return changed

    def _look(self, rules: Sequence[ActiveRule]) -> list[Firing]:
        facts = self._facts
        return [
            Firing(
                active.rule,
                facts.moment,
                {name: facts.readings[name] for name in active.rule.fields() if name in facts.readings},
            )
            for active in rules
            if active.look(facts)
        ]
