"""
What rules would have done in the past.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import partial

from twisted.trial.unittest import SynchronousTestCase

from tests.support.rules import rule
from usbgate.core.model import Reading
from usbgate.rules.replay import replay
from usbgate.rules.settings import RuleSettings

START = datetime(2026, 11, 27, 12, tzinfo=UTC)


def at(hours: float) -> int:
    """
    Return a time so many hours after the start: whole milliseconds since 1970, UTC.
    """
    return round((START + timedelta(hours=hours)).timestamp() * 1000)


def reading(hours: float, field: str, value: float | None, text: str | None = None, sensor: str = "1") -> Reading:
    """
    Return a reading.
    """
    return Reading(at(hours), "uno", sensor, field, value, text, None, True)


class ReplayTests(SynchronousTestCase):
    """
    Stored readings.
    """

    def fired(self, when: RuleSettings, *readings: Reading, hours: float = 48) -> list[float]:
        """
        Return when a rule would have fired, in hours after the start.
        """
        clock = partial(datetime.fromtimestamp, tz=UTC)
        firings = replay([when], readings, at(0), at(hours), lambda _: 3600.0, clock)
        return [round((firing.moment.wall - at(0)) / 3_600_000, 4) for firing in firings]

    def test_readings(self) -> None:
        """
        Readings of one report belong together, and time passes between reports.
        """
        both = rule("sensor 1 A > 1 and sensor 1 B == ok", for_=1800.0)
        readings = [
            *(reading(1, "A", 2.0), reading(1, "B", None, "no")),
            *(reading(2, "A", 0.0), reading(2, "B", None, "ok")),
            *(reading(3, "A", 2.5, "2.5kW"), reading(3, "B", None, "ok")),
            reading(4, "A", 0.0),
        ]
        self.assertEqual(self.fired(both, *readings), [3.5])

    def test_one_chunk(self) -> None:
        """
        Reports that came at the same moment are taken one after the other, as when they came.
        """
        smoke = rule("sensor 1 A == 1")
        self.assertEqual(self.fired(smoke, reading(1, "A", 1.0), reading(2, "A", 0.0), reading(2, "A", 1.0)), [1, 2])

    def test_time_passes(self) -> None:
        """
        Sensors become stale, and nights come, also after the last reading.
        """
        self.assertEqual(self.fired(rule("sensor 1 stale"), reading(0.5, "A", 1.0), reading(2, "A", 1.0)), [1.5, 3])
        self.assertEqual(self.fired(rule("time 22:00-06:00")), [10, 34])
        self.assertEqual(self.fired(rule("day sat")), [12])

    def test_unknown(self) -> None:
        """
        States of devices are unknown; readings whose clock was set back are taken in their order.
        """
        self.assertEqual(self.fired(rule("not device uno offline"), reading(1, "A", 1.0)), [])
        self.assertEqual(self.fired(rule("sensor 1 A == 1"), reading(2, "A", 0.0), reading(1, "A", 1.0)), [2])
