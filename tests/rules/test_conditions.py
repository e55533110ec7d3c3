"""
Whether conditions hold.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import product
from zoneinfo import ZoneInfo

from twisted.trial.unittest import SynchronousTestCase

from usbgate.core.fieldline import parse_value
from usbgate.rules.conditions import Facts, KnownReading, Leaf, Moment, SensorField, Truth, leaves
from usbgate.rules.language import parse_condition

PARIS = ZoneInfo("Europe/Paris")


def facts(now: float = 0.0, local: datetime | None = None, **values: str) -> Facts:
    """
    Return what is known: fields of sensor 1, received at 0.
    """
    found = Facts(Moment(now, 0, local), 0.0, lambda sensor: 3600.0)
    for field, value in values.items():
        found.readings[SensorField("1", field)] = KnownReading(*parse_value(value), "uno", 0.0)
    return found


def holds(text: str, known: Facts, held: set[int] | None = None) -> Truth:
    """
    Return whether a condition holds.
    """
    return parse_condition(text).holds(known, set() if held is None else held)


def leaf(text: str) -> Leaf:
    """
    Return the only term of a condition.
    """
    (term,) = leaves(parse_condition(text))
    return term


class TermTests(SynchronousTestCase):
    """
    Single terms.
    """

    def test_comparisons(self) -> None:
        """
        Numbers are compared as numbers, with a unit or without; texts as they are spelled. What cannot be compared, and
        what has no reading, is unknown.
        """
        known = facts(A="2", B="2.5kW", C="open", D="02", E="3", F="open")
        for text, truth in (
            ("A == 2", True),
            ("A == 2.0", True),
            ("A != 2", False),
            ("A < 3", True),
            ("A >= 2", True),
            ("A > 2", False),
            ("B > 2", True),
            ("C == open", True),
            ("C != open", False),
            ("C == Open", False),
            ("C == 2", None),
            ("C > 2", None),
            ("A == open", False),
            ("D == 2", False),
            ("D == 02", True),
            ("D > 1", True),
            ("X == 2", None),
            ("A < sensor 1 E", True),
            ("A == sensor 1 E", False),
            ("C == sensor 1 F", True),
            ("C != sensor 1 F", False),
            ("C < sensor 1 F", None),
            ("A < sensor 1 C", None),
            ("A < sensor 1 X", None),
            ("X < sensor 1 A", None),
        ):
            with self.subTest(text=text):
                self.assertIs(holds(f"sensor 1 {text}", known), truth)

    def test_joined(self) -> None:
        """
        `not`, `and` and `or` follow Kleene's logic of three values.
        """
        terms = {"sensor 1 A == 1": True, "sensor 1 A == 2": False, "sensor 1 X == 1": None}
        known = facts(A="1")
        order = [False, None, True]
        for (left, one), (right, other) in product(terms.items(), repeat=2):
            self.assertIs(holds(f"{left} and {right}", known), min(one, other, key=order.index))
            self.assertIs(holds(f"{left} or {right}", known), max(one, other, key=order.index))
            self.assertIs(holds(f"not {left}", known), None if one is None else not one)

    def test_hysteresis(self) -> None:
        """
        What holds does so until the limit is passed by the margin; unknown readings change nothing.
        """
        for text, steps in (
            ("> 30 hysteresis 2", [(29, False), (30, False), (31, True), (29, True), (28.1, True), (28, False)]),
            (">= 30 hysteresis 2", [(30, True), (28, True), (27.9, False), (29, False), (30, True)]),
            ("< 18 hysteresis 0.5", [(18, False), (17, True), (18.4, True), (18.5, False)]),
            ("<= 18 hysteresis 0.5", [(18, True), (18.5, True), (18.6, False)]),
            ("> 30 hysteresis 2", [(31, True), ("ERR", None), (29, True)]),
        ):
            held: set[int] = set()
            for reading, truth in steps:
                self.assertIs(holds(f"sensor 1 A {text}", facts(A=str(reading)), held), truth, (text, reading))

    def test_hysteresis_everywhere(self) -> None:
        """
        A comparison sees each reading, whatever decides the whole condition.
        """
        held: set[int] = set()
        text = "sensor 1 B == 1 and sensor 1 A > 30 hysteresis 2"
        self.assertIs(holds(text, facts(A="31", B="0"), held), False)
        self.assertIs(holds(text, facts(A="29", B="1"), held), True)

    def test_stale(self) -> None:
        """
        A sensor is out of date when it has not reported for its time, or for that of the condition. One that has never
        reported counts from the start, and is neither until then. A field counts by itself.
        """
        known = facts(3599.0, A="1")
        known.seen["1"] = 1000.0
        self.assertIs(holds("sensor 1 stale", known), False)
        self.assertIs(holds("sensor 1 A stale", known), False)
        self.assertIs(holds("sensor 9 stale", known), None)
        self.assertIs(holds("not sensor 1 B stale", known), None)
        self.assertEqual(leaf("sensor 1 stale").due(known), 4600.0)
        self.assertEqual(leaf("sensor 1 A stale 10s").due(known), 10.0)
        known.moment = Moment(3600.0, 0, None)
        self.assertIs(holds("sensor 1 stale", known), False)
        self.assertIs(holds("sensor 1 A stale", known), True)
        self.assertIs(holds("sensor 9 stale", known), True)
        self.assertIs(holds("sensor 1 stale 2600s", known), True)

    def test_devices(self) -> None:
        """
        The state of a device is unknown until it is known.
        """
        known = facts()
        self.assertIs(holds("device uno offline", known), None)
        known.states["uno"] = "settling"
        self.assertIs(holds("device uno offline", known), False)
        known.states["uno"] = "offline"
        self.assertIs(holds("device uno offline", known), True)

    def test_times(self) -> None:
        """
        A range begins at its first minute and ends before its last one, also over midnight; unknown without a clock.
        """
        for text, clock, truth in (
            ("22:00-06:00", "21:59:59", False),
            ("22:00-06:00", "22:00:00", True),
            ("22:00-06:00", "00:00:00", True),
            ("22:00-06:00", "05:59:59", True),
            ("22:00-06:00", "06:00:00", False),
            ("8:00-24:00", "23:59:59", True),
            ("8:00-24:00", "00:00:00", False),
        ):
            local = datetime.fromisoformat(f"2026-11-27T{clock}")
            self.assertIs(holds(f"time {text}", facts(local=local)), truth, (text, clock))
        self.assertIs(holds("time 22:00-06:00", facts()), None)

    def test_days(self) -> None:
        """
        The day is that of the moment: the night from Friday to Saturday belongs to both.
        """
        for local, truth in (("2026-11-27T23:00", True), ("2026-11-28T01:00", False), ("2026-11-23T00:00", True)):
            self.assertIs(holds("day mon-fri", facts(local=datetime.fromisoformat(local))), truth)
        self.assertIs(holds("day mon-fri", facts()), None)

    def test_minutes(self) -> None:
        """
        Times are looked at with each minute of the local clock.
        """
        local = datetime.fromisoformat("2026-11-27T21:59:58.5")
        self.assertEqual(leaf("time 22:00-06:00").due(facts(100.0, local)), 101.5)
        self.assertEqual(leaf("day mon").due(facts(100.0)), 160.0)

    def test_summer_time(self) -> None:
        """
        When clocks go forward, a time in between does not come; when they go back, it comes twice.
        """

        def minutes(day: datetime, text: str) -> int:
            moments = (day + timedelta(minutes=minute) for minute in range(12 * 60))
            return sum(holds(text, facts(local=moment.astimezone(PARIS))) is True for moment in moments)

        forward, back = datetime(2026, 3, 28, 23, tzinfo=UTC), datetime(2026, 10, 24, 22, tzinfo=UTC)
        self.assertEqual(minutes(forward, "time 02:00-03:00"), 0)
        self.assertEqual(minutes(forward, "time 01:30-03:30"), 60)
        self.assertEqual(minutes(back, "time 02:00-03:00"), 120)
