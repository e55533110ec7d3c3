"""
Alarms: raised, ended, acknowledged, and the same one after a restart.
"""

from __future__ import annotations

from itertools import count
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from usbgate.core.alarms import Alarms, Change
from usbgate.core.condition import Condition
from usbgate.core.errors import Malformed, Unknown
from usbgate.core.model import Alarm, AlarmRecord, Reading
from usbgate.core.uncompared import UNCOMPARED_LIMIT, Uncompared
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


class RuleAlarmTests(SynchronousTestCase):
    """
    The alarms of rules.
    """

    def setUp(self) -> None:
        numbers = count(1)
        conditions = {(temperature(0.0).sensor, "TEMP"): Condition.parse("> 60")}
        self.alarms = Alarms(conditions, lambda: f"a{next(numbers)}")
        self.alarms.devices.add("leonardo")
        self.assertEqual(self.alarms.configure_rules(["hot"], 0, True), [])

    def test_life(self) -> None:
        """
        One is raised and ends as the rule says, beside that of the field; it is the same until it was acknowledged.
        """
        hot = temperature(70.0)
        self.assertEqual(events(self.alarms.evaluate([hot])), [("a1", "raised")])
        for active, expected in (
            (False, []),
            (True, [("a2", "raised")]),
            (True, []),
            (False, [("a2", "ended")]),
            (True, [("a2", "raised")]),
        ):
            self.assertEqual(events(self.alarms.set_rule("hot", active, hot)), expected)
        found = {each.alarm: (each.field, each.condition, each.value) for each in self.alarms.open()}
        self.assertEqual(found, {"a1": ("TEMP", "> 60", 70.0), "a2": ("TEMP", "rule hot", 70.0)})
        self.alarms.acknowledge("a2", "Zoé", 1, True)
        self.assertEqual(events(self.alarms.set_rule("hot", False, hot)), [("a2", "ended")])
        self.assertEqual([each.alarm for each in self.alarms.open()], ["a1"])

    def test_about(self) -> None:
        """
        If the rule is about something else now, the alarm about what it was about ends.
        """
        self.alarms.set_rule("hot", True, temperature(70.0))
        changes = self.alarms.set_rule("hot", True, temperature(70.0, field="HUM"))
        self.assertEqual(events(changes), [("a1", "ended"), ("a2", "raised")])
        self.assertEqual([change.alarm.field for change in changes], ["TEMP", "HUM"])
        self.assertEqual(events(self.alarms.set_rule("hot", False, temperature(1.0))), [("a2", "ended")])

    def test_configured(self) -> None:
        """
        It ends when the rule raises no alarm any more, and not when conditions of fields change.
        """
        self.alarms.set_rule("hot", True, temperature(70.0))
        self.assertEqual(self.alarms.configure({}, 1, True), [])
        self.assertEqual(self.alarms.configure_rules(["hot", "other"], 2, True), [])
        self.assertEqual(events(self.alarms.configure_rules(["other"], 3, True)), [("a1", "ended")])

    def test_restored(self) -> None:
        """
        After a restart it goes on, also if it is raised again, unless the rule is gone or says that it is over.
        """
        stored = Alarm("old", "leonardo", temperature(0.0).sensor, "TEMP", "rule hot", 70.0, None, 0)
        self.assertEqual(self.alarms.restore([stored], 1, True), [])
        self.assertEqual(self.alarms.set_rule("hot", True, temperature(71.0)), [])
        self.assertEqual([each.alarm for each in self.alarms.open()], ["old"])
        self.setUp()
        self.alarms.set_rule("hot", True, temperature(71.0))
        self.assertEqual(events(self.alarms.restore([stored], 1, True)), [("a1", "joined")])
        self.assertEqual([each.alarm for each in self.alarms.open()], ["old"])
        self.setUp()
        self.alarms.set_rule("hot", False, temperature(20.0))
        self.assertEqual(events(self.alarms.restore([stored], 1, True)), [("old", "ended")])
        self.setUp()
        self.alarms.set_rule("hot", True, temperature(70.0, field="HUM"))
        self.assertEqual(events(self.alarms.restore([stored], 1, True)), [("old", "ended")])
        self.setUp()
        gone = stored._replace(condition="rule gone")
        self.assertEqual(events(self.alarms.restore([gone], 1, True)), [("old", "ended")])


class ConditionTests(SynchronousTestCase):
    """
    What a person writes, and which readings fulfil it.
    """

    def test_numbers(self) -> None:
        """
        Numbers are compared as numbers; what is no number cannot be compared.
        """
        for text, below, equal, above in [
            ("< 60", True, False, False),
            ("<= 60.0", True, True, False),
            (">60", False, False, True),
            (" >=  6e1 ", False, True, True),
            ("== 60.0", False, True, False),
            ("!= 60", True, False, True),
        ]:
            condition = Condition.parse(text)
            found = [condition.holds(temperature(value)) for value in (59.5, 60.0, 61.0)]
            self.assertEqual(found, [below, equal, above], text)
            for spelled in ("open", "nan", "inf", "-nan", "ovf", "1_000", "21,5", "--"):
                self.assertIsNone(condition.holds(temperature(spelled)), (text, spelled))

    def test_texts(self) -> None:
        """
        A text is equal or not; any number is spelled differently.
        """
        for text, same, other in [("== door open", True, False), ("!= door open", False, True)]:
            condition = Condition.parse(text)
            readings = [temperature(each) for each in ("door open", "x", "nan", 17.0)]
            self.assertEqual([condition.holds(each) for each in readings], [same, other, other, other])

    def test_spelled_numbers(self) -> None:
        """
        Unless both sides are plain decimals, `==` and `!=` compare the spelling, and the others the number.
        """
        odd = ["00E1", "0815", "+3", "12E4", "1e3", ".5", "5.", "-.5", "1234567890123456", "0.1234567890123456"]
        for spelled in odd:
            reading = temperature(1.0)._replace(value=float(spelled), text=spelled)
            plain = temperature(float(spelled))
            same, different = Condition.parse(f"== {spelled}"), Condition.parse(f"!= {spelled}")
            self.assertEqual((same.holds(reading), different.holds(reading)), (True, False), spelled)
            self.assertEqual((same.holds(plain), different.holds(plain)), (False, True), spelled)
            self.assertEqual(str(same), f"== {spelled}")
            for number in ("0", "3", "1000", "0.5", "5"):
                self.assertIs(Condition.parse(f"== {number}").holds(reading), False, spelled)
                self.assertIs(Condition.parse(f"!= {number}").holds(reading), True, spelled)
            self.assertIs(Condition.parse(">= -1").holds(reading), float(spelled) >= -1)

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

    def test_never_said(self) -> None:
        """
        A text that no reading can have, such as one with NUL, which the database refuses, is no operand.
        """
        for operand in ("A\0", "A\x85B", "O\tK", "A_B:1", "\ud800"):
            self.assertRaises(Malformed, Condition.parse, f"== {operand}")


def begin() -> Alarms:
    """
    Create the alarms of a temperature and a smoke detector; ids are `a1`, `a2`, ….
    """
    ids = count(1)
    conditions = {("20", "TEMP"): Condition.parse("> 60"), ("2", "SMOKE"): Condition.parse("== 1")}
    alarms = Alarms(conditions, lambda: f"a{next(ids)}")
    alarms.devices.update(["leonardo", "uno"])
    return alarms


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
        record = AlarmRecord(2, "a1", "leonardo", "20", "TEMP", "raised", "> 60", 61.5, None, None, True)
        self.assertEqual(raised, [Change(Alarm("a1", "leonardo", "20", "TEMP", "> 60", 61.5, None, 2), record)])
        self.assertEqual(self.alarms.evaluate([temperature(99.0, 4)]), [])
        self.assertEqual(self.alarms.open(), [Alarm("a1", "leonardo", "20", "TEMP", "> 60", 61.5, None, 2)])

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
        record = AlarmRecord(2, "a1", "leonardo", "20", "TEMP", "ended", "> 60", 20.0, None, None, True)
        self.assertEqual(ended, [Change(Alarm("a1", "leonardo", "20", "TEMP", "> 60", 61.0, None, 1, ended=2), record)])
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

    def test_not_compared(self) -> None:
        """
        What is no number ends no alarm and raises none, whatever the condition compares.
        """
        for compare, raising, calm in [(">", 75.0, 1.0), ("<=", 1.0, 75.0), ("==", 60.0, 1.0), ("!=", 1.0, 60.0)]:
            alarms = Alarms({("20", "TEMP"): Condition.parse(f"{compare} 60")}, lambda: "a")
            nothing = [temperature(text) for text in ("nan", "NAN", "inf", "ovf", "OK", "error 5")]
            self.assertEqual(alarms.evaluate(nothing), [])
            self.assertEqual(events(alarms.evaluate([temperature(raising)])), [("a", "raised")])
            self.assertEqual(alarms.evaluate(nothing), [])
            self.assertEqual([alarm.ended for alarm in alarms.open()], [None])
            self.assertEqual(events(alarms.evaluate([temperature(calm)])), [("a", "ended")])

    def test_text_and_number(self) -> None:
        """
        An error code that is a number raises `!= OK`, and what is spelled as the text ends it.
        """
        alarms = Alarms({("20", "TEMP"): Condition.parse("!= OK")}, lambda: "a")
        self.assertEqual(alarms.evaluate([temperature("OK")]), [])
        raised = alarms.evaluate([temperature(17.0)])
        self.assertEqual([(each.alarm.value, each.alarm.text) for each in raised], [(17.0, None)])
        self.assertEqual(events(alarms.evaluate([temperature("nan"), temperature("OK")])), [("a", "ended")])

    def test_closed_meanwhile(self) -> None:
        """
        One that was closed here stays closed, although the database shows it open: the rows that close it may wait.
        """
        stored = Alarm("old", "leonardo", "20", "TEMP", "> 60", 61.0, None, 1)
        self.alarms.restore([stored], 10, True)
        self.alarms.evaluate([temperature(5.0, 12)])
        self.alarms.acknowledge("old", "Anna", 13, True)
        self.alarms.evaluate([temperature(65.0, 14), temperature(5.0, 15)])
        self.alarms.acknowledge("a1", "Anna", 16, True)
        new = Alarm("a1", "leonardo", "20", "TEMP", "> 60", 65.0, None, 14)
        self.assertEqual(self.alarms.restore([stored, new], 17, True), [])
        self.assertEqual(self.alarms.open(), [])

    def test_devices_apart(self) -> None:
        """
        Each device that reports a field has an alarm of its own: no other ends, joins or acknowledges it.
        """
        mine, other = reading(1.0, field="SMOKE", sensor="2"), reading(1.0, field="SMOKE", sensor="2", device="uno")
        self.assertEqual(events(self.alarms.evaluate([mine])), [("a1", "raised")])
        self.assertEqual(self.alarms.evaluate([other._replace(value=0.0)]), [])
        self.assertEqual(events(self.alarms.evaluate([other])), [("a2", "raised")])
        self.assertEqual(
            [(alarm.alarm, alarm.device) for alarm in self.alarms.open()], [("a1", "leonardo"), ("a2", "uno")]
        )
        self.alarms.acknowledge("a1", "Anna", 2, True)
        self.assertEqual(events(self.alarms.evaluate([mine._replace(value=0.0)])), [("a1", "ended")])
        self.assertEqual([(each.alarm, each.acknowledged) for each in self.alarms.open()], [("a2", None)])

    def test_by(self) -> None:
        """
        Who acknowledges is what a line could say, without whitespace at its ends; anything else changes nothing.
        """
        self.alarms.evaluate([temperature(61.0, 1)])
        for by in ("", "  ", "\0", "Anna\0", "An\nna", "An\x9fna", "\ud800", "A_B:C"):
            self.assertRaises(Malformed, self.alarms.acknowledge, "a1", by, 2, True)
            self.assertEqual([alarm.acknowledged for alarm in self.alarms.open()], [None])
        alarm, _ = self.alarms.acknowledge("a1", " Zoé_B \n", 2, True)
        self.assertEqual(alarm.by, "Zoé_B")


class UncomparedTests(SynchronousTestCase):
    """
    Conditions with which the newest readings cannot be compared.
    """

    def setUp(self) -> None:
        """
        Create the alarms.
        """
        self.alarms = begin()

    def evaluate(self, text: float | str, times: int = 1, **others: Any) -> None:
        """
        Evaluate the same reading some times.
        """
        for _ in range(times):
            self.alarms.evaluate([reading(text, **{"field": "TEMP", **others})])

    def test_shown(self) -> None:
        """
        It is shown from the 20th reading in a row on, until one can be compared.
        """
        self.evaluate("nan", UNCOMPARED_LIMIT - 1)
        self.assertEqual(self.alarms.uncompared.shown(), [])
        self.evaluate("err")
        shown = Uncompared("leonardo", "20", "TEMP", "> 60", UNCOMPARED_LIMIT, "err")
        self.assertEqual(self.alarms.uncompared.shown(), [shown])
        self.evaluate("nan")
        self.assertEqual(self.alarms.uncompared.shown(), [shown._replace(readings=UNCOMPARED_LIMIT + 1, text="nan")])
        self.evaluate(5.0)
        self.assertEqual(self.alarms.uncompared.shown(), [])
        self.evaluate("nan", UNCOMPARED_LIMIT - 1)
        self.evaluate(5.0)
        self.evaluate("nan", UNCOMPARED_LIMIT - 1)
        self.assertEqual(self.alarms.uncompared.shown(), [])

    def test_logged_once(self) -> None:
        """
        It is to be logged once, however often it comes and goes; each field and each device on its own.
        """
        self.evaluate("nan", UNCOMPARED_LIMIT - 1)
        self.assertEqual(self.alarms.uncompared.take_unlogged(), [])
        self.evaluate("nan", 5)
        logged = self.alarms.uncompared.take_unlogged()
        self.assertEqual(logged, [Uncompared("leonardo", "20", "TEMP", "> 60", UNCOMPARED_LIMIT, "nan")])
        for _ in range(3):
            self.evaluate("nan", UNCOMPARED_LIMIT + 5)
            self.evaluate(5.0)
            self.assertEqual(self.alarms.uncompared.take_unlogged(), [])
        self.evaluate("nan", UNCOMPARED_LIMIT, device="uno")
        self.evaluate("?", UNCOMPARED_LIMIT, sensor="2", field="SMOKE")
        self.evaluate("?", UNCOMPARED_LIMIT, field="HUM")
        self.assertEqual(
            [(each.device, each.sensor) for each in self.alarms.uncompared.take_unlogged()],
            [("uno", "20"), ("leonardo", "2")],
        )


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
        stored = Alarm("old", "leonardo", "20", "TEMP", "> 60", 61.0, None, 1)
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
        changes = self.alarms.restore(
            [Alarm("old", "leonardo", "20", "TEMP", "> 60", 61.0, None, 1, ended=2)], 12, True
        )
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
        changes = self.alarms.restore([Alarm("old", "leonardo", "20", "TEMP", "> 60", 61.0, None, 1)], 12, True)
        self.assertEqual(events(changes), [("a1", "joined")])
        self.assertEqual((changes[0].alarm.ended, changes[0].alarm.acknowledged), (12, 12))

    def test_two_stored(self) -> None:
        """
        Of two that are stored the older one goes on, whenever the other one is found.
        """
        old, late = (
            Alarm(name, "leonardo", "20", "TEMP", "> 60", 61.0, None, at) for name, at in [("old", 1), ("late", 2)]
        )
        self.assertEqual(events(begin().restore([old, late], 9, True)), [("late", "joined")])
        self.assertEqual(self.alarms.restore([old], 9, True), [])
        self.assertEqual(events(self.alarms.restore([old, late], 10, True)), [("late", "joined")])
        self.assertEqual(self.alarms.open(), [old])

    def test_condition_gone(self) -> None:
        """
        One whose condition is no longer in the configuration ends, and waits to be acknowledged.
        """
        changes = self.alarms.restore([Alarm("old", "leonardo", "30", "TEMP", "> 60", 61.0, None, 1)], 12, True)
        self.assertEqual(events(changes), [("old", "ended")])
        self.assertEqual([alarm.ended for alarm in self.alarms.open()], [12])
        self.alarms.acknowledge("old", "Anna", 13, True)
        self.assertEqual(self.alarms.open(), [])

    def test_devices_apart(self) -> None:
        """
        A stored alarm of another device is not the same.
        """
        self.alarms.evaluate([temperature(65.0, 10)])
        stored = Alarm("old", "uno", "20", "TEMP", "> 60", 61.0, None, 1)
        self.assertEqual(self.alarms.restore([stored], 12, True), [])
        self.assertEqual([alarm.alarm for alarm in self.alarms.open()], ["a1", "old"])

    def test_device_gone(self) -> None:
        """
        One of a device that is no longer configured stays until it is acknowledged, which ends it, too.
        """
        stored = Alarm("old", "gone", "20", "TEMP", "> 60", 61.0, None, 1)
        self.assertEqual(self.alarms.restore([stored], 12, True), [])
        self.assertEqual(self.alarms.open(), [stored])
        alarm, changes = self.alarms.acknowledge("old", "Anna", 13, True)
        self.assertEqual((alarm.acknowledged, alarm.ended, alarm.by), (13, 13, "Anna"))
        self.assertEqual(events(changes), [("old", "acknowledged"), ("old", "ended")])
        self.assertEqual((changes[-1].record.device, changes[-1].alarm), ("gone", alarm))
        self.assertEqual(self.alarms.open(), [])

    def test_device_gone_since(self) -> None:
        """
        One that was acknowledged before its device was removed from the configuration ends when it is restored.
        """
        stored = Alarm("old", "gone", "20", "TEMP", "> 60", 61.0, None, 1, None, 2, "Anna")
        self.assertEqual(events(self.alarms.restore([stored], 12, True)), [("old", "ended")])
        self.assertEqual(self.alarms.open(), [])
        kept = stored._replace(alarm="other", device="uno")
        self.assertEqual(self.alarms.restore([kept], 12, True), [])
        self.assertEqual(self.alarms.open(), [kept])
