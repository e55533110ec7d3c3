"""
The known sensors: which device owns each (protocol §4.1), and which are forgotten.

Pure rules; times come in.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import NamedTuple

from usbgate.core.model import Reading
from usbgate.core.reporters import KnownSensor, Reporter

SENSORS_REMEMBERED = 10_000  # of one device, protocol §3; more are stored, not remembered
REPORTS_TO_OWN = 3  # a line that a collision or a reset made up comes once, perhaps twice
RESTORED_AT_ONCE = 1000  # readings: 2 ms
FORGOTTEN_AT_ONCE = 100  # chosen by one look at all sensors of a device, which takes milliseconds


class OwnerChange(NamedTuple):
    """
    A device became the owner of a sensor.

    Attributes:
        sensor: The sensor.
        device: The new owner.
        event: `claimed`: nobody owned it before; `passed`: another device did.
        before: The device that was asked before.
    """

    sensor: str
    device: str
    event: str
    before: str


class KnownSensors:
    """
    The sensors in the order of their first appearance. Of more than `SENSORS_REMEMBERED` of one device, those that
    reported longest ago are forgotten, but none that is configured, alarmed or was asked.

    Attributes:
        devices: The devices that there are.
        is_absent: Returns whether a device has been offline for so long that others may own its sensors.
        changes: Changes of owners, to be stored; whoever stores them clears the list. While there is one device, the
            readings say all, and none is made.
        chunks: Chunks of reports so far; whoever reports counts them. All sensors of a chunk share its number.
    """

    def __init__(
        self, configured: Mapping[str, str] | None = None, kept: Callable[[], Collection[str]] = frozenset
    ) -> None:
        """
        Args:
            configured: The devices of sensors that the configuration names.
            kept: Returns the sensors that are not to be forgotten.
        """
        self.devices: set[str] = set()
        self.is_absent: Callable[[str], bool] = lambda device: False
        self.changes: list[OwnerChange] = []
        self.chunks = 0
        self._configured = configured or {}
        self._kept = kept
        self._sensors: dict[str, KnownSensor] = {}
        self._counts: Counter[str] = Counter()  # sensors by the device that is asked
        self._stored: Mapping[str, str] = {}  # owners by sensor, also of sensors that are not known
        self._forgettable: dict[str, list[tuple[int, str]]] = {}  # by device, the oldest at the end
        self._look_again: dict[str, int] = {}

    def configure(self, configured: Mapping[str, str]) -> None:
        """
        Take over the devices of sensors that the configuration names now.
        """
        self._configured = configured
        for sensor, known in self._sensors.items():
            device = configured.get(sensor)
            if device is not None and device in self.devices:
                self._ask(known, device)
                known.owned = "configured"
            elif known.owned == "configured":
                known.owned = ""  # until a device claims it

    def __len__(self) -> int:
        return len(self._sensors)

    def get(self, sensor: str) -> KnownSensor | None:
        """
        Look a sensor up.
        """
        return self._sensors.get(sensor)

    def knows(self, sensor: str) -> bool:
        """
        Return whether a sensor was reported, or is stored.
        """
        return sensor in self._sensors or sensor in self._stored

    def ids(self) -> list[str]:
        """
        List the ids of all sensors.
        """
        return list(self._sensors)

    def reported(
        self, sensor: str, device: str, at: int, readings: Sequence[Reading], answers: bool = False
    ) -> str | None:
        """
        Record one report.

        Args:
            sensor: The sensor.
            device: The device that reported it.
            at: When: whole milliseconds since 1970, UTC.
            readings: Its readings.
            answers: Whether it answered a question.

        Returns:
            The device that is asked for this sensor, if it is another one.
        """
        known = self._sensors.get(sensor)
        if known is None:
            known = self._add(sensor, device, at)
            if known is None:
                return None
        known.seen = at
        known.reports += 1
        if answers:
            known.kept = True
        asked, reporter = known.device, known.asked
        if asked == device:
            known.failed = False
            if not known.owned:
                reporter.reports += 1
                if answers or reporter.reports >= REPORTS_TO_OWN:
                    self._own(sensor, known, device, "claimed")
        else:
            reporter = self._reported_by_another(sensor, known, device, answers)
        reporter.last_report = self.chunks
        for reading in readings:
            reporter.remember(reading)
        return None if asked == device else asked

    def join(self, sensor: str, successor: str, device: str) -> None:
        """
        Make what a device reported of a successor that of the sensor whose place it takes, and forget the successor.
        """
        new = self._sensors.pop(successor, None)
        if new is None:
            return
        self._counts[new.device] -= 1
        known = self._sensors.get(sensor) or self._add(sensor, device, new.seen)
        if known is None:
            return
        known.seen = max(known.seen, new.seen)
        known.reports += new.reports
        reporter, found = known.reporter(device), new.reporter(device)
        known.before = dict(reporter.newest)
        reporter.last_report = max(reporter.last_report, found.last_report)
        for reading in found.newest.values():
            reporter.remember(reading._replace(sensor=sensor))

    def part(self, sensor: str, successor: str, device: str, since: int, until: int) -> None:
        """
        Take `join` back: what a device sent after `since` and not after `until` is the successor's again.

        Args:
            sensor: The sensor.
            successor: The successor.
            device: The device.
            since: When the sensor reported last before: whole milliseconds since 1970, UTC; 0 if it never did.
            until: When they were joined.
        """
        known = self._sensors.get(sensor)
        if known is None:
            return
        reporter, before = known.reporter(device), known.before
        for reading in [each for each in reporter.newest.values() if since < each.at <= until]:
            del reporter.newest[reading.field]
            if reading.field in before:
                reporter.restore(before[reading.field])
            self._restore(reading._replace(sensor=successor), {})
        known.before = {}
        if known.seen <= until:
            known.seen = since
            if not since:
                del self._sensors[sensor]
                self._counts[known.device] -= 1

    def asked(self, sensor: str) -> str | None:
        """
        Return the device that is asked for a sensor, and do not forget the sensor from now on; None if it is not known.
        """
        known = self._sensors.get(sensor)
        if known is None:
            return self._stored.get(sensor)
        known.kept = True
        if len(known.reporters) > 1 and self.may_pass(known):
            self.pass_on(sensor, known)
        return known.device

    def left_unanswered(self, sensor: str, device: str) -> None:
        """
        Record that a device left a question for a sensor unanswered.
        """
        known = self._sensors.get(sensor)
        if known is not None and known.device == device:
            known.failed = True
            if self.may_pass(known):
                self.pass_on(sensor, known)

    def restore(self, owners: Mapping[str, str], readings: Sequence[Reading]) -> Iterator[None]:
        """
        Fill in readings of the database if none was received since; they replace those restored before. Yield after
        each `RESTORED_AT_ONCE` readings: others may be received meanwhile.

        A stored owner also replaces one that was found since usbgate started: a device that happens to report first
        after a restart must not take the sensors of another.

        Args:
            owners: By sensor.
            readings: The newest of each field, oldest first.
        """
        self._stored = owners
        derived: dict[str, KnownSensor] = {}
        for sensor, known in self._sensors.items():
            if sensor in owners and known.owned in ("", "claimed", "stored"):
                self._ask(known, owners[sensor])
                known.owned = "stored"
        for number, reading in enumerate(readings, 1):
            self._restore(reading, derived)
            if number % RESTORED_AT_ONCE == 0:
                yield
        if len(self.devices) > 1:
            self.changes += [
                OwnerChange(sensor, known.device, "claimed", known.device)
                for sensor, known in derived.items()
                if known.owned == "stored" and self._sensors.get(sensor) is known  # not passed on or forgotten since
            ]

    def _restore(self, reading: Reading, derived: dict[str, KnownSensor]) -> None:
        sensor, device = reading.sensor, reading.device
        known = self._sensors.get(sensor) or self._add(sensor, device, reading.at, restored=True)
        if known is None:
            return
        if not known.reports:  # oldest first, so the last one wins
            known.seen = reading.at
            if not known.owned or sensor in derived:
                self._ask(known, device)
                known.owned = ""
                derived.pop(sensor, None)
                if device in self.devices:
                    known.owned = "stored"
                    derived[sensor] = known
        # What a device reported that is no longer configured is the sensor's all the same.
        reporter = known.reporter(device) if device in self.devices else known.asked
        for each in known.reporters.values():
            if each is not reporter and reading.field in each.restored:  # another device's, which is older
                each.restored -= {reading.field}
                del each.newest[reading.field]
        reporter.restore(reading)

    def _add(self, sensor: str, device: str, at: int, restored: bool = False) -> KnownSensor | None:
        # The owner may be another device than the one that reports it.
        asked, owned = device, ""
        if self._configured.get(sensor) in self.devices:
            asked, owned = self._configured[sensor], "configured"
        elif sensor in self._stored:
            asked, owned = self._stored[sensor], "stored"
        if self._counts[asked] >= SENSORS_REMEMBERED and not self._forget_one(asked, device, restored):
            return None
        reporter = Reporter()
        known = self._sensors[sensor] = KnownSensor(asked, reporter, at, 0, {asked: reporter}, owned)
        if not restored:
            known.first = at
        self._counts[asked] += 1
        return known

    def _reported_by_another(self, sensor: str, known: KnownSensor, device: str, answers: bool) -> Reporter:
        reporter = known.reporter(device)
        reporter.reports += 1
        if not known.owned:
            if answers or reporter.reports >= REPORTS_TO_OWN:
                self._own(sensor, known, device, "claimed")
            elif self.may_pass(known):
                self._ask(known, device)
        elif self.may_pass(known):
            self._own(sensor, known, device, "passed")
        return reporter

    def may_pass(self, known: KnownSensor) -> bool:
        """
        Return whether a sensor passes to another device that reported since the one that is asked.
        """
        if known.owned == "configured":
            return False
        return known.failed or known.device not in self.devices or self.is_absent(known.device)

    def pass_on(self, sensor: str, known: KnownSensor) -> None:
        """
        Pass a sensor to the device that reported last, unless that is the one that is asked.
        """
        device, reporter = max(known.reporters.items(), key=lambda each: each[1].last_report)
        if reporter.last_report > known.asked.last_report:
            if known.owned:
                self._own(sensor, known, device, "passed")
            else:
                self._ask(known, device)

    def _own(self, sensor: str, known: KnownSensor, device: str, event: str) -> None:
        if event == "passed" or len(self.devices) > 1:
            self.changes.append(OwnerChange(sensor, device, event, known.device))
        self._ask(known, device)
        known.owned = event

    def _ask(self, known: KnownSensor, device: str) -> None:
        if device == known.device:
            return
        self._counts[known.device] -= 1
        self._counts[device] += 1
        before, known.asked = known.asked, known.reporter(device)
        if known.device not in self.devices:
            del known.reporters[known.device]
            for reading in before.newest.values():
                known.asked.restore(reading)
        known.device = device
        known.failed = False

    def _forget_one(self, asked: str, device: str, restored: bool) -> bool:
        """
        Forget the sensor of a device that was that reported longest ago.

        Args:
            asked: The device whose sensors are too many.
            device: The device that reports another one: only its own sensors make room.
            restored: Whether the other one is only restored: it makes no room among sensors that reported.
        """
        if asked != device:
            return False
        for _ in range(2):
            forgettable = self._forgettable.setdefault(asked, [])
            if forgettable:
                kept = self._kept()
                while forgettable:
                    last_report, sensor = forgettable.pop()
                    known = self._sensors.get(sensor)
                    if known is None or known.last_report != last_report or known.device != asked:
                        continue
                    if known.kept or sensor in kept:
                        continue
                    if restored and last_report:
                        forgettable.append((last_report, sensor))
                        return False
                    del self._sensors[sensor]
                    self._counts[asked] -= 1
                    return True
            if self.chunks < self._look_again.get(asked, 0):
                return False
            self._find_forgettable(asked)
        return False

    def _find_forgettable(self, asked: str) -> None:
        kept = self._kept()
        found = [
            (known.last_report, sensor)
            for sensor, known in self._sensors.items()
            if known.device == asked and not known.kept and sensor not in kept
        ]
        found.sort(key=lambda each: each[0])
        self._forgettable[asked] = found[:FORGOTTEN_AT_ONCE][::-1]
        if not found:  # not again for each report
            self._look_again[asked] = self.chunks + SENSORS_REMEMBERED
