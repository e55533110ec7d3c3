"""
Conditions of rules, as trees of terms, and whether they hold (docs/rules.md, "Conditions").

Pure: what is known comes in as `Facts`. True and false are bools, unknown is None.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from math import inf
from typing import NamedTuple

from msgspec import Struct

from usbgate.core.condition import Condition

Truth = bool | None

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
MINUTES_A_DAY = 24 * 60


class SensorField(NamedTuple):
    """
    A field of a sensor; the field in upper case.
    """

    sensor: str
    field: str


class Moment(NamedTuple):
    """
    A moment by all clocks.

    Attributes:
        now: Monotonic seconds.
        wall: Whole milliseconds since 1970, UTC.
        local: The local time; None while the wall clock cannot be trusted.
    """

    now: float
    wall: int
    local: datetime | None

    @property
    def next_minute(self) -> float:
        """
        When the local time reaches the next minute, in monotonic seconds; a minute from now while it is not known.
        """
        if self.local is None:
            return self.now + 60
        return self.now + 60 - self.local.second - self.local.microsecond / 1e6


class KnownReading(NamedTuple):
    """
    The newest reading of a field.

    Attributes:
        value: The number, if it is one.
        text: Its spelling, unless that is a plain decimal.
        device: The device that sent it.
        seen: When it was received, in monotonic seconds.
    """

    value: float | None
    text: str | None
    device: str
    seen: float


@dataclass(slots=True)
class Facts:
    """
    What is known at a moment.

    Attributes:
        moment: The moment.
        started: Since when reports are known, in monotonic seconds.
        stale: Returns after how many seconds a sensor is out of date.
        readings: The newest readings.
        seen: When each sensor reported last, in monotonic seconds.
        states: The states of devices; those that are not known yet are missing.
    """

    moment: Moment
    started: float
    stale: Callable[[str], float]
    readings: dict[SensorField, KnownReading] = field(default_factory=dict)
    seen: dict[str, float] = field(default_factory=dict)
    states: dict[str, str] = field(default_factory=dict)


class _Timeless(Struct, frozen=True):
    # What changes only by reports.

    def due(self, facts: Facts) -> float:
        return inf


class Comparison(_Timeless, frozen=True):
    """
    `sensor 20 TEMP > 30 hysteresis 2`.

    Attributes:
        left: The field.
        compare: As in `Condition`.
        right: A number, a text, or another field.
        margin: The hysteresis.
        number: Which comparison of the condition it is, from 1.
    """

    left: SensorField
    compare: str
    right: float | str | SensorField
    margin: float
    number: int

    def holds(self, facts: Facts, held: set[int]) -> Truth:
        reading = facts.readings.get(self.left)
        operand = self._operand(facts.readings)
        if reading is None or operand is None:
            return None
        if self.margin and isinstance(operand, float) and self.number in held:
            operand += -self.margin if self.compare.startswith(">") else self.margin
        truth = Condition(self.compare, operand).meets(reading.value, reading.text)
        if self.margin and truth is not None:
            (held.add if truth else held.discard)(self.number)
        return truth

    def _operand(self, readings: Mapping[SensorField, KnownReading]) -> float | str | None:
        if not isinstance(self.right, SensorField):
            return self.right
        reading = readings.get(self.right)
        if reading is None:
            return None
        if reading.text is None or self.compare not in ("==", "!="):
            return reading.value
        return reading.text


class Staleness(Struct, frozen=True):
    """
    `sensor 20 TEMP stale 10m`.

    Attributes:
        sensor: The sensor.
        field: The field; None for any of the sensor's.
        limit: Seconds; None for those of the sensor.
    """

    sensor: str
    field: str | None
    limit: float | None

    def holds(self, facts: Facts, held: set[int]) -> Truth:
        if facts.moment.now >= self.due(facts):
            return True
        # What never reported may have been out of date before the start, too, as the database may still say.
        return None if self._seen(facts) is None else False

    def due(self, facts: Facts) -> float:
        seen = self._seen(facts)
        limit = facts.stale(self.sensor) if self.limit is None else self.limit
        return (facts.started if seen is None else seen) + limit

    def _seen(self, facts: Facts) -> float | None:
        if self.field is None:
            return facts.seen.get(self.sensor)
        reading = facts.readings.get(SensorField(self.sensor, self.field))
        return None if reading is None else reading.seen


class DeviceState(_Timeless, frozen=True):
    """
    `device leonardo offline`.
    """

    device: str
    state: str

    def holds(self, facts: Facts, held: set[int]) -> Truth:
        state = facts.states.get(self.device)
        return None if state is None else state == self.state


class TimeOfDay(Struct, frozen=True):
    """
    `time 22:00-06:00`, in minutes since midnight.
    """

    start: int
    end: int

    def holds(self, facts: Facts, held: set[int]) -> Truth:
        local = facts.moment.local
        if local is None:
            return None
        minute = local.hour * 60 + local.minute
        if self.start < self.end:
            return self.start <= minute < self.end
        return minute >= self.start or minute < self.end

    def due(self, facts: Facts) -> float:
        return facts.moment.next_minute


class DayOfWeek(Struct, frozen=True):
    """
    `day mon-fri, sun`; Monday is 0.
    """

    days: frozenset[int]

    def holds(self, facts: Facts, held: set[int]) -> Truth:
        local = facts.moment.local
        return None if local is None else local.weekday() in self.days

    def due(self, facts: Facts) -> float:
        return facts.moment.next_minute


class Not(Struct, frozen=True):
    """
    `not …`.
    """

    part: Term

    def holds(self, facts: Facts, held: set[int]) -> Truth:
        truth = self.part.holds(facts, held)
        return None if truth is None else not truth


class Joined(Struct, frozen=True):
    """
    `… and …` or `… or …`.

    Attributes:
        parts: At least two.
        decisive: What decides the whole if one part is it: False for `and`, True for `or`.
    """

    parts: Sequence[Term]
    decisive: bool

    def holds(self, facts: Facts, held: set[int]) -> Truth:
        # All parts are looked at, since each must see all readings for its hysteresis.
        found = [part.holds(facts, held) for part in self.parts]
        if self.decisive in found:
            return self.decisive
        return None if None in found else not self.decisive


# A term that has no parts; `due` says when it may change although nothing is reported, in monotonic seconds.
Leaf = Comparison | Staleness | DeviceState | TimeOfDay | DayOfWeek

# A condition, or a part of one. `holds` says whether it does, by what is known, and by the numbers of the comparisons
# with a hysteresis that held when they were looked at last, which it changes.
Term = Leaf | Not | Joined


def leaves(term: Term) -> Iterator[Leaf]:
    """
    Yield the terms of a condition that have no parts, in the order of its text.
    """
    if isinstance(term, Not):
        yield from leaves(term.part)
    elif isinstance(term, Joined):
        for part in term.parts:
            yield from leaves(part)
    else:
        yield term


def fields_of(condition: Term) -> Iterator[SensorField]:
    """
    Yield the fields of which a condition needs the readings, in the order of its text; some perhaps twice.
    """
    for term in leaves(condition):
        if isinstance(term, Comparison):
            yield term.left
            if isinstance(term.right, SensorField):
                yield term.right
        elif isinstance(term, Staleness) and term.field is not None:
            yield SensorField(term.sensor, term.field)


def sensors_of(condition: Term) -> Iterator[str]:
    """
    Yield the sensors in a condition, in the order of its text; some perhaps twice.
    """
    for term in leaves(condition):
        if isinstance(term, Comparison):
            yield term.left.sensor
            if isinstance(term.right, SensorField):
                yield term.right.sensor
        elif isinstance(term, Staleness):
            yield term.sensor


def devices_of(condition: Term) -> Iterator[str]:
    """
    Yield the devices in a condition, in the order of its text; some perhaps twice.
    """
    return (term.device for term in leaves(condition) if isinstance(term, DeviceState))
