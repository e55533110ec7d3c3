"""
One known sensor, and the devices that report it, each with its newest readings.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from usbgate.core.model import Reading

FIELDS_OF_SENSOR = 64  # of one sensor; a line has room for more, but a device with more is broken


@dataclass(slots=True)
class Reporter:
    """
    A device that reports a sensor.

    Attributes:
        newest: Its newest reading of each field.
        restored: The fields whose newest reading comes from the database.
        reports: Its reports since usbgate started, while they count for owning the sensor.
        last_report: The number of the chunk with its last report; 0 if it is only known from the database.
    """

    newest: dict[str, Reading] = field(default_factory=dict)
    restored: frozenset[str] = frozenset()
    reports: int = 0
    last_report: int = 0

    def remember(self, reading: Reading) -> None:
        """
        Make a reading that was just received the newest of its field.
        """
        if reading.field in self.newest or len(self.newest) < FIELDS_OF_SENSOR:
            self.newest[reading.field] = reading
            if self.restored:
                self.restored -= {reading.field}

    def restore(self, reading: Reading) -> None:
        """
        Make a reading of the database the newest of its field, unless one was received since.
        """
        if reading.field in self.restored or reading.field not in self.newest:
            self.remember(reading)
            if reading.field in self.newest:
                self.restored |= {reading.field}


@dataclass(slots=True)
class KnownSensor:
    """
    One sensor.

    Attributes:
        device: The device that is asked: the owner, or until there is one, the first that reported it.
        asked: That device as a reporter.
        seen: When it was last reported: whole milliseconds since 1970, UTC.
        reports: Reports since usbgate started.
        reporters: The devices that report it, `device` among them.
        owned: Why `device` owns it: `configured`, `stored`, `claimed` or `passed`; empty if nobody does.
        failed: Whether `device` left a question unanswered and has not reported since.
        kept: Whether a question was sent or answered: it is not forgotten.
        first: When it was first reported, in milliseconds since 1970, UTC; None if only the database knows.
        before: The newest readings of its device before a successor took its place last.
    """

    device: str
    asked: Reporter
    seen: int
    reports: int = 0
    reporters: dict[str, Reporter] = field(default_factory=dict)
    owned: str = ""
    failed: bool = False
    kept: bool = False
    first: int | None = None
    before: Mapping[str, Reading] = field(default_factory=dict)

    @property
    def last_report(self) -> int:
        """
        The number of the chunk with its last report, as in `Reporter`.
        """
        return max(reporter.last_report for reporter in self.reporters.values())

    def reporter(self, device: str) -> Reporter:
        """
        Return a device as a reporter of this sensor, from now on if it was none.
        """
        reporter = self.reporters.get(device)
        if reporter is None:
            reporter = self.reporters[device] = Reporter()
        return reporter

    def readings(self) -> list[Reading]:
        """
        List the newest readings of each device, those of the one that is asked first.
        """
        others = [each for each in self.reporters.values() if each is not self.asked]
        return [reading for each in (self.asked, *others) for reading in each.newest.values()]
