"""
Alarms: raised by readings that meet a configured condition, closed when they have ended and were acknowledged.

Pure rules; ids and times come in. A field of a sensor has at most one open alarm. It is raised when its condition first
holds, ends when the condition no longer holds, and is closed when it has ended and was acknowledged. Until then it is
the same alarm, however often the condition comes and goes.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from usbgate.core.errors import Unknown
from usbgate.core.fieldline import parse_number
from usbgate.core.model import Alarm, AlarmRecord, Reading

_COMPARE: Mapping[str, Callable[[float, float], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "==": operator.eq,
    "!=": operator.ne,
}

_CONDITION = re.compile(r"(<=|>=|==|!=|<|>)\s*(\S.*)")


class Condition(NamedTuple):
    """
    A condition on a reading: compared with a number, or equal or unequal to a text.
    """

    compare: str
    operand: float | str

    @classmethod
    def parse(cls, text: str) -> Condition:
        """
        Read a condition such as `> 60`, `== 1` or `!= OK`.

        Raises:
            ValueError: Not a condition; only `==` and `!=` compare with a text.
        """
        spelled = _CONDITION.fullmatch(text.strip())
        if spelled is None:
            raise ValueError(text)
        number = parse_number(spelled[2])
        if number is None and spelled[1] not in ("==", "!="):
            raise ValueError(text)
        return cls(spelled[1], spelled[2] if number is None else number)

    def __str__(self) -> str:
        operand = self.operand if isinstance(self.operand, str) else repr(self.operand).removesuffix(".0")
        return f"{self.compare} {operand}"

    def holds(self, reading: Reading) -> bool:
        """
        Return whether a reading meets it; a text never meets a comparison with a number, nor a number one with a text.
        """
        if isinstance(self.operand, str):
            return reading.value is None and (reading.text == self.operand) == (self.compare == "==")
        return reading.value is not None and _COMPARE[self.compare](reading.value, self.operand)


Series = tuple[str, str]  # a sensor and a field


class Change(NamedTuple):
    """
    A change of an alarm.

    Attributes:
        alarm: As it is now; a closed one has ended and was acknowledged.
        record: The change, to be stored.
    """

    alarm: Alarm
    record: AlarmRecord


class Alarms:
    """
    The alarms that are open: active, or not yet acknowledged.

    Attributes:
        conditions: By sensor and field; if there are none, no reading needs to be evaluated.
    """

    def __init__(self, conditions: Mapping[Series, Condition], new_id: Callable[[], str]) -> None:
        """
        Args:
            conditions: By sensor and field (upper case).
            new_id: Makes ids for alarms: ASCII letters and digits, never the same twice.
        """
        self.conditions = conditions
        self._new_id = new_id
        self._open: dict[Series, Alarm] = {}
        self._restored: set[str] = set()  # ids

    def open(self) -> list[Alarm]:
        """
        List the open alarms, newest first.
        """
        return sorted(self._open.values(), key=lambda alarm: alarm.since, reverse=True)

    def evaluate(self, readings: Sequence[Reading]) -> list[Change]:
        """
        Compare readings with the conditions, in the order in which they were read.

        Returns:
            The changes, to be stored and published.
        """
        changes: list[Change] = []
        for reading in readings:
            series = (reading.sensor, reading.field)
            condition = self.conditions.get(series)
            if condition is None:
                continue
            alarm = self._open.get(series)
            active = alarm is not None and alarm.ended is None
            if condition.holds(reading) == active:
                continue
            if alarm is None:
                alarm = Alarm(self._new_id(), *series, str(condition), reading.value, reading.text, reading.at)
            elif active:
                alarm = alarm._replace(ended=reading.at)
            else:
                alarm = alarm._replace(ended=None)
            self._keep(alarm)
            event = "ended" if active else "raised"
            changes.append(_change(alarm, reading.at, reading.clock, event, reading))
        return changes

    def acknowledge(self, alarm: str, by: str, at: int, clock: bool) -> tuple[Alarm, list[Change]]:
        """
        Record that somebody has seen an alarm; the first one counts.

        Args:
            alarm: Its id.
            by: Who that was.
            at: When: whole milliseconds since 1970, UTC.
            clock: Whether the clock is known to be right.

        Returns:
            The alarm as it is now, and the changes.

        Raises:
            Unknown: No open alarm has this id.
        """
        found = next((each for each in self._open.values() if each.alarm == alarm), None)
        if found is None:
            raise Unknown(f"no open alarm has the id {alarm}")
        if found.acknowledged is not None:
            return found, []
        found = found._replace(acknowledged=at, by=by)
        self._keep(found)
        return found, [_change(found, at, clock, "acknowledged")]

    def restore(self, stored: Sequence[Alarm], at: int, clock: bool) -> list[Change]:
        """
        Restore the alarms that were open when usbgate stopped.

        One that was raised again meanwhile continues the stored one: a restart repeats none. Calling this again, with
        more alarms, does no harm.

        Args:
            stored: Open alarms, oldest first.
            at: Now: whole milliseconds since 1970, UTC.
            clock: Whether the clock is known to be right.

        Returns:
            The changes.
        """
        changes: list[Change] = []
        for alarm in stored:
            series = (alarm.sensor, alarm.field)
            here = self._open.get(series)
            if here is not None and here.alarm == alarm.alarm:
                continue  # what is known here is newer
            if here is not None and here.alarm in self._restored:
                changes.append(_joined(alarm, at, clock))
                continue
            self._restored.add(alarm.alarm)
            if here is not None:
                changes.append(_joined(here, at, clock))
                changes += self._go_on(alarm, here, at, clock)
            elif series not in self.conditions and alarm.ended is None:
                changes += self._go_on(alarm, alarm._replace(ended=at), at, clock)  # nothing else would ever end it
            else:
                self._keep(alarm)
        return changes

    def _go_on(self, alarm: Alarm, now: Alarm, at: int, clock: bool) -> list[Change]:
        """
        Bring a stored alarm to the state in which it is now.
        """
        changes = []
        if (now.ended is None) != (alarm.ended is None):
            alarm = alarm._replace(ended=now.ended)
            changes.append(_change(alarm, at, clock, "raised" if now.ended is None else "ended"))
        if now.acknowledged is not None and alarm.acknowledged is None:
            alarm = alarm._replace(acknowledged=now.acknowledged, by=now.by)
            changes.append(_change(alarm, at, clock, "acknowledged"))
        self._keep(alarm)
        return changes

    def _keep(self, alarm: Alarm) -> None:
        series = (alarm.sensor, alarm.field)
        if alarm.ended is None or alarm.acknowledged is None:
            self._open[series] = alarm
        else:
            self._open.pop(series, None)
            self._restored.discard(alarm.alarm)


def _change(alarm: Alarm, at: int, clock: bool, event: str, reading: Reading | None = None) -> Change:
    value, text = (alarm.value, alarm.text) if reading is None else (reading.value, reading.text)
    record = AlarmRecord(
        at, alarm.alarm, alarm.sensor, alarm.field, event, alarm.condition, value, text, alarm.by, clock
    )
    return Change(alarm, record)


def _joined(alarm: Alarm, at: int, clock: bool) -> Change:
    # For subscribers this one is closed; the other one continues.
    over = alarm._replace(ended=alarm.ended or at, acknowledged=alarm.acknowledged or at)
    return Change(over, _change(alarm, at, clock, "joined").record)
