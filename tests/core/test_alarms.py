"""
Alarms: raised, ended, acknowledged, and the same one after a restart.
"""

from __future__ import annotations

from itertools import count

from twisted.trial.unittest import SynchronousTestCase

from usbgate.core.alarms import Alarms, Change, Condition
from usbgate.core.errors import Unknown
from usbgate.core.model import Alarm, AlarmRecord, Reading
from usbgate.testing import reading


def temperature(value: float | str, at: int = 0, field: str = "TEMP") -> Reading:
    """
    Make a reading of a temperature.
    """
    return reading(value, at=at, field=field)


def events(changes: list[Change]) -> list[tuple[str, str]]:
    """
    Tell which alarm had what happen.
    """
    return [(change.record.alarm, change.record.event) for change in changes]


class ConditionTests(SynchronousTestCase):
    """
    What a person writes, and which readings fulfil it.
    """

    def test_numbers(self) -> None:
        """
        Numbers are compared as numbers, and a text fulfils none of it.
        """
        for text, below, equal, above in [
            ("< 60", True, False, False),
            ("<= 60.0", True, True, False),
            (">60", False, False, True),
            (" >=  6e1 ", False, True, True),
            ("== 60", False, True, False),
            ("!= 60", True, False, True),
        ]:
            condition = Condition.parse(text)
            found = [condition.holds(temperature(value)) for value in (59.5, 60.0, 61.0)]
            self.assertEqual(found, [below, equal, above], text)
            self.assertFalse(condition.holds(temperature("open")), text)

    def test_texts(self) -> None:
        """
        A text is equal or not, and a number fulfils neither.
        """
        for text, same, other in [("== door open", True, False), ("!= door open", False, True)]:
            condition = Condition.parse(text)
            self.assertEqual([condition.holds(temperature(each)) for each in ("door open", "x")], [same, other])
            self.assertFalse(condition.holds(temperature(1.0)))

    def test_spelling(self) -> None:
        """
        It is told as a person would write it.
        """
        for text in ("> 60", "== 1", "<= -0.5", "!= OK"):
            self.assertEqual(str(Condition.parse(text)), text)
        self.assertEqual(str(Condition.parse(">=60.0")), ">= 60")

    def test_not_one(self) -> None:
        """
        What is none is refused, and so is a text that is to be greater than something.
        """
        for text in ("", "60", "=> 60", "= 60", "> ", "> OK", "<= 1_000", "like x"):
            self.assertRaises(ValueError, Condition.parse, text)


def begin() -> Alarms:
    """
    Mind a temperature and a smoke detector; ids are `a1`, `a2`, ….
    """
    ids = count(1)
    conditions = {("20", "TEMP"): Condition.parse("> 60"), ("2", "SMOKE"): Condition.parse("== 1")}
    return Alarms(conditions, lambda: f"a{next(ids)}")


class AlarmsTests(SynchronousTestCase):
    """
    A life of an alarm.
    """

    def setUp(self) -> None:
        """
        Begin with no alarm.
        """
        self.alarms = begin()

    def test_raised_once(self) -> None:
        """
        It is raised by the first reading that fulfils its condition, and not again by the next ones.
        """
        self.assertEqual(self.alarms.evaluate([temperature(60.0, 1)]), [])
        raised = self.alarms.evaluate([temperature(61.5, 2), temperature(70.0, 3)])
        record = AlarmRecord(2, "a1", "20", "TEMP", "raised", "> 60", 61.5, None, None, True)
        self.assertEqual(raised, [Change(Alarm("a1", "20", "TEMP", "> 60", 61.5, None, 2), record)])
        self.assertEqual(self.alarms.evaluate([temperature(99.0, 4)]), [])
        self.assertEqual(self.alarms.open(), [Alarm("a1", "20", "TEMP", "> 60", 61.5, None, 2)])

    def test_others_raise_none(self) -> None:
        """
        Other fields, and other sensors, are not minded.
        """
        self.assertEqual(
            self.alarms.evaluate([temperature(99.0, field="HUM"), reading(99.0, field="TEMP", sensor="21")]), []
        )
        self.assertEqual(self.alarms.open(), [])
        self.assertFalse(Alarms({}, str).conditions)

    def test_ends_and_stays(self) -> None:
        """
        One that ended stays until it was acknowledged, and is the same when its condition comes again.
        """
        self.alarms.evaluate([temperature(61.0, 1)])
        ended = self.alarms.evaluate([temperature(20.0, 2)])
        record = AlarmRecord(2, "a1", "20", "TEMP", "ended", "> 60", 20.0, None, None, True)
        self.assertEqual(ended, [Change(Alarm("a1", "20", "TEMP", "> 60", 61.0, None, 1, ended=2), record)])
        self.assertEqual([alarm.ended for alarm in self.alarms.open()], [2])
        self.assertEqual(events(self.alarms.evaluate([temperature(62.0, 3)])), [("a1", "raised")])
        self.assertEqual([(alarm.since, alarm.ended) for alarm in self.alarms.open()], [(1, None)])
        self.alarms.evaluate([temperature(20.0, 4)])
        alarm, changes = self.alarms.acknowledge("a1", "Anna", 5, True)
        self.assertEqual((alarm.acknowledged, alarm.by), (5, "Anna"))
        self.assertEqual([(each.record.event, each.record.who) for each in changes], [("acknowledged", "Anna")])
        self.assertEqual(self.alarms.open(), [])
        self.assertRaises(Unknown, self.alarms.acknowledge, "a1", "Anna", 6, True)

    def test_acknowledged_while_active(self) -> None:
        """
        One that was acknowledged stays as long as it is active, and the first to acknowledge it counts; then it is
        gone, and the next one is another.
        """
        self.alarms.evaluate([temperature(61.0, 1)])
        self.alarms.acknowledge("a1", "Anna", 2, True)
        again, changes = self.alarms.acknowledge("a1", "Bob", 3, True)
        self.assertEqual((again.by, again.acknowledged, changes), ("Anna", 2, []))
        self.assertEqual(self.alarms.evaluate([temperature(70.0, 4)]), [])
        self.assertEqual(events(self.alarms.evaluate([temperature(1.0, 5)])), [("a1", "ended")])
        self.assertEqual(self.alarms.open(), [])
        self.assertEqual(events(self.alarms.evaluate([temperature(61.0, 6)])), [("a2", "raised")])

    def test_newest_first(self) -> None:
        """
        Each field has one of its own; the newest comes first.
        """
        self.alarms.evaluate([temperature(61.0, 1), reading(1.0, at=2, field="SMOKE", sensor="2")])
        self.assertEqual([alarm.alarm for alarm in self.alarms.open()], ["a2", "a1"])


class RecallTests(SynchronousTestCase):
    """
    After a restart.
    """

    def setUp(self) -> None:
        """
        Begin with no alarm.
        """
        self.alarms = begin()

    def test_taken_up(self) -> None:
        """
        One that was open goes on: it is raised by no reading, and ended by the first that no longer fulfils it.
        """
        stored = Alarm("old", "20", "TEMP", "> 60", 61.0, None, 1)
        self.assertEqual(self.alarms.restore([stored], 10, True), [])
        self.assertEqual(self.alarms.evaluate([temperature(65.0, 11)]), [])
        self.assertEqual(self.alarms.open(), [stored])
        self.assertEqual(events(self.alarms.evaluate([temperature(5.0, 12)])), [("old", "ended")])
        self.assertEqual(self.alarms.restore([stored], 13, True), [])
        self.assertEqual([alarm.ended for alarm in self.alarms.open()], [12])

    def test_raised_before_the_database_came(self) -> None:
        """
        One that was raised before the stored one was known joins it, with what was done about it.
        """
        self.alarms.evaluate([temperature(65.0, 10)])
        self.alarms.acknowledge("a1", "Anna", 11, True)
        changes = self.alarms.restore([Alarm("old", "20", "TEMP", "> 60", 61.0, None, 1, ended=2)], 12, True)
        self.assertEqual(events(changes), [("a1", "joined"), ("old", "raised"), ("old", "acknowledged")])
        (alarm,) = self.alarms.open()
        self.assertEqual((alarm.alarm, alarm.since, alarm.ended, alarm.by), ("old", 1, None, "Anna"))
        self.assertEqual(events(self.alarms.evaluate([temperature(1.0, 13)])), [("old", "ended")])
        self.assertEqual(self.alarms.open(), [])

    def test_same_state(self) -> None:
        """
        Where the stored one is in the state of the new one, nothing more happens to it.
        """
        self.alarms.evaluate([temperature(65.0, 10)])
        changes = self.alarms.restore([Alarm("old", "20", "TEMP", "> 60", 61.0, None, 1)], 12, True)
        self.assertEqual(events(changes), [("a1", "joined")])
        self.assertEqual((changes[0].alarm.ended, changes[0].alarm.acknowledged), (12, 12))

    def test_two_stored(self) -> None:
        """
        Of two that are stored the older one goes on, whenever the other one is found.
        """
        old, late = (Alarm(name, "20", "TEMP", "> 60", 61.0, None, at) for name, at in [("old", 1), ("late", 2)])
        self.assertEqual(events(begin().restore([old, late], 9, True)), [("late", "joined")])
        self.assertEqual(self.alarms.restore([old], 9, True), [])
        self.assertEqual(events(self.alarms.restore([old, late], 10, True)), [("late", "joined")])
        self.assertEqual(self.alarms.open(), [old])

    def test_condition_gone(self) -> None:
        """
        One whose condition is no longer in the configuration ends, and waits to be acknowledged.
        """
        changes = self.alarms.restore([Alarm("old", "30", "TEMP", "> 60", 61.0, None, 1)], 12, True)
        self.assertEqual(events(changes), [("old", "ended")])
        self.assertEqual([alarm.ended for alarm in self.alarms.open()], [12])
        self.alarms.acknowledge("old", "Anna", 13, True)
        self.assertEqual(self.alarms.open(), [])
