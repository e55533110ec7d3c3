"""
Alarms: raised by readings that meet a configured condition, closed when they have ended and were acknowledged.

Pure; ids and times come in. A field of a sensor has at most one open alarm for each device that reports it. It is
raised when its condition first holds, ends when the condition no longer holds, and is closed when it has ended and was
acknowledged. Until then it is the same alarm, however often the condition comes and goes. A reading that cannot be
compared with the condition changes nothing. A rule (docs/rules.md) raises alarms in the same way, at most one active
one; `rule NAME` is their condition.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from usbgate.core.condition import Condition
from usbgate.core.containers import BoundedDict
from usbgate.core.errors import Unknown
from usbgate.core.fieldline import check_value
from usbgate.core.model import Alarm, AlarmRecord, Reading
from usbgate.core.uncompared import UncomparedFields

CLOSED_REMEMBERED = 1_024  # ids of closed alarms: far more than can close until the rows that close them are stored

# A device, a sensor and a field. Of the alarm of a rule, its condition is in place of the device.
Key = tuple[str, str, str]

RULE = "rule "  # how the conditions of rules' alarms begin


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
        devices: The configured devices; the alarms of any other end when they are acknowledged.
        rules: The rules that raise alarms, by condition: whether their alarms are active; None if it is not known.
        uncompared: The conditions with which readings could not be compared.
    """

    def __init__(self, conditions: Mapping[tuple[str, str], Condition], new_id: Callable[[], str]) -> None:
        """
        Args:
            conditions: By sensor and field (upper case).
            new_id: Makes ids for alarms: ASCII letters and digits, never the same twice.
        """
        self.conditions = conditions
        self.devices: set[str] = set()
        self.rules: dict[str, bool | None] = {}
        self.uncompared = UncomparedFields()
        self._new_id = new_id
        self._open: dict[Key, Alarm] = {}
        self._restored: set[str] = set()  # ids
        self._closed: BoundedDict[str, None] = BoundedDict(CLOSED_REMEMBERED)  # ids; may still be open in the database

    def open(self) -> list[Alarm]:
        """
        List the open alarms, newest first.
        """
        return sorted(self._open.values(), key=lambda alarm: alarm.since, reverse=True)

    def sensors(self) -> set[str]:
        """
        Return the sensors of open alarms.
        """
        return {alarm.sensor for alarm in self._open.values()}

    def evaluate(self, readings: Sequence[Reading]) -> list[Change]:
        """
        Compare readings with the conditions, in the order in which they were read.

        Returns:
            The changes, to be stored and published.
        """
        changes: list[Change] = []
        for reading in readings:
            condition = self.conditions.get((reading.sensor, reading.field))
            if condition is None:
                continue
            key = (reading.device, reading.sensor, reading.field)
            holds = condition.holds(reading)
            if holds is None:
                self.uncompared.count(condition, reading)
                continue
            if self.uncompared.counted:
                self.uncompared.forget(key)
            alarm = self._open.get(key)
            if holds != (alarm is not None and alarm.ended is None):
                changes.append(self._toggle(alarm, str(condition), reading))
        return changes

    def set_rule(self, rule: str, active: bool, about: Reading) -> list[Change]:
        """
        Raise the alarm of a rule, or end it, unless it is so already.

        Args:
            rule: The name of one of the `rules`.
            active: Whether it is to be active.
            about: What it is about.

        Returns:
            The changes, to be stored and published.
        """
        condition = RULE + rule
        self.rules[condition] = active
        key = (condition, about.sensor, about.field)
        # What it was about may have been something else, before the rule was changed.
        changes = [
            self._toggle(alarm, condition, about)
            for alarm in list(self._open.values())
            if alarm.condition == condition and alarm.ended is None and not (active and _key(alarm) == key)
        ]
        alarm = self._open.get(key)
        if active and (alarm is None or alarm.ended is not None):
            changes.append(self._toggle(alarm, condition, about))
        return changes

    def configure_rules(self, rules: Iterable[str], at: int, clock: bool) -> list[Change]:
        """
        Set which rules raise alarms. Active alarms of others end.

        Args:
            rules: Their names.
            at: When: whole milliseconds since 1970, UTC.
            clock: Whether the clock is known to be right.

        Returns:
            The changes, to be stored and published.
        """
        self.rules = {RULE + rule: self.rules.get(RULE + rule) for rule in rules}
        return self._end_abandoned(at, clock)

    def _toggle(self, alarm: Alarm | None, condition: str, reading: Reading) -> Change:
        active = alarm is not None and alarm.ended is None
        if alarm is None:
            at, device, sensor, field, value, text, *_ = reading
            alarm = Alarm(self._new_id(), device, sensor, field, condition, value, text, at)
        else:
            alarm = alarm._replace(ended=reading.at if active else None)
        self._keep(alarm)
        return _change(alarm, reading.at, reading.clock, "ended" if active else "raised", reading)

    def configure(self, conditions: Mapping[tuple[str, str], Condition], at: int, clock: bool) -> list[Change]:
        """
        Compare with other conditions from the next reading on. Active alarms that have no condition any more end.

        Args:
            conditions: By sensor and field (upper case).
            at: When: whole milliseconds since 1970, UTC.
            clock: Whether the clock is known to be right.

        Returns:
            The changes, to be stored and published.
        """
        before, self.conditions = self.conditions, conditions
        self.uncompared.restart({key for key in before if before[key] != conditions.get(key)})
        return self._end_abandoned(at, clock)

    def _end_abandoned(self, at: int, clock: bool) -> list[Change]:
        changes: list[Change] = []
        for alarm in list(self._open.values()):
            if alarm.ended is None and not self._has_condition(alarm):
                changes += self._go_on(alarm, alarm._replace(ended=at), at, clock)
        return changes

    def _has_condition(self, alarm: Alarm) -> bool:
        if alarm.condition.startswith(RULE):
            return alarm.condition in self.rules
        return (alarm.sensor, alarm.field) in self.conditions

    def acknowledge(self, alarm: str, by: str, at: int, clock: bool) -> tuple[Alarm, list[Change]]:
        """
        Record that somebody has seen an alarm; the first one counts. It ends, too, if its device is not configured.

        Args:
            alarm: Its id.
            by: Who that was; whitespace at its ends is removed.
            at: When: whole milliseconds since 1970, UTC.
            clock: Whether the clock is known to be right.

        Returns:
            The alarm as it is now, and the changes.

        Raises:
            Malformed: `by` is nothing that a line could have.
            Unknown: No open alarm has this id.
        """
        by = by.strip()
        check_value("by", by)
        found = next((each for each in self._open.values() if each.alarm == alarm), None)
        if found is None:
            raise Unknown(f"no open alarm has the id {alarm}", "no such alarm")
        changes = []
        if found.acknowledged is None:
            found = found._replace(acknowledged=at, by=by)
            changes.append(_change(found, at, clock, "acknowledged"))
        if found.ended is None and found.device not in self.devices:
            found = found._replace(ended=at)
            changes.append(_change(found, at, clock, "ended"))
        self._keep(found)
        return found, changes

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
            here = self._open.get(_key(alarm))
            if alarm.alarm in self._closed or (here is not None and here.alarm == alarm.alarm):
                continue  # what is known here is newer
            if here is not None and here.alarm in self._restored:
                changes.append(_joined(alarm, at, clock))
                continue
            self._restored.add(alarm.alarm)
            if here is not None:
                changes.append(_joined(here, at, clock))
                changes += self._go_on(alarm, here, at, clock)
            elif alarm.ended is None and self._is_abandoned(alarm):
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

    def _is_abandoned(self, alarm: Alarm) -> bool:
        # Whether no reading and no acknowledgement would ever end a stored alarm that is not here. If it is known
        # whether a rule has an active alarm, that one is here.
        if not self._has_condition(alarm) or self.rules.get(alarm.condition) is not None:
            return True
        return alarm.device not in self.devices and alarm.acknowledged is not None

    def _keep(self, alarm: Alarm) -> None:
        if alarm.ended is None or alarm.acknowledged is None:
            self._open[_key(alarm)] = alarm
        else:
            self._open.pop(_key(alarm), None)
            self._restored.discard(alarm.alarm)
            self._closed.remember(alarm.alarm, None)


def _key(alarm: Alarm) -> Key:
    if alarm.condition.startswith(RULE):
        return alarm.condition, alarm.sensor, alarm.field
    return alarm.device, alarm.sensor, alarm.field


def _change(alarm: Alarm, at: int, clock: bool, event: str, reading: Reading | None = None) -> Change:
    value, text = (alarm.value, alarm.text) if reading is None else (reading.value, reading.text)
    record = AlarmRecord(
        at, alarm.alarm, alarm.device, alarm.sensor, alarm.field, event, alarm.condition, value, text, alarm.by, clock
    )
    return Change(alarm, record)


def _joined(alarm: Alarm, at: int, clock: bool) -> Change:
    # For subscribers this one is closed; the other one continues.
    over = alarm._replace(ended=alarm.ended or at, acknowledged=alarm.acknowledged or at)
    return Change(over, _change(alarm, at, clock, "joined").record)
