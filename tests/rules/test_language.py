"""
The language of conditions: what it accepts, and what its errors say.
"""

from __future__ import annotations

from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.support.draws import given
from usbgate.rules.conditions import (
    DAYS,
    Comparison,
    DayOfWeek,
    DeviceState,
    Joined,
    Not,
    SensorField,
    Staleness,
    Term,
    TimeOfDay,
)
from usbgate.rules.language import DEPTH_LIMIT, LENGTH_LIMIT, LanguageError, parse_condition

SMOKE = Comparison(SensorField("2", "SMOKE"), "==", 1.0, 0.0, 1)
OFFLINE = DeviceState("uno", "offline")
NIGHT = TimeOfDay(22 * 60, 6 * 60)

ACCEPTED: list[tuple[str, Term]] = [
    ("sensor 2 SMOKE == 1", SMOKE),
    ("sensor 2 smoke==1", SMOKE),
    ("  sensor\n2\tSMOKE == 1 ", SMOKE),
    (
        "sensor 2 SMOKE == 1 or sensor 3 T < 2 hysteresis 1",
        Joined((SMOKE, Comparison(SensorField("3", "T"), "<", 2.0, 1.0, 2)), True),
    ),
    ("sensor 20 TEMP_IN <= -1.5", Comparison(SensorField("20", "TEMP-IN"), "<=", -1.5, 0.0, 1)),
    ("sensor 20 TEMP > 30 hysteresis 2", Comparison(SensorField("20", "TEMP"), ">", 30.0, 2.0, 1)),
    ("sensor 3 DOOR != open", Comparison(SensorField("3", "DOOR"), "!=", "open", 0.0, 1)),
    ('sensor 3 DOOR == "wide open"', Comparison(SensorField("3", "DOOR"), "==", "wide open", 0.0, 1)),
    ("sensor 3 DOOR == 'and'", Comparison(SensorField("3", "DOOR"), "==", "and", 0.0, 1)),
    ("sensor 3 BADGE == 0815", Comparison(SensorField("3", "BADGE"), "==", "0815", 0.0, 1)),
    ('sensor 3 N == "1"', Comparison(SensorField("3", "N"), "==", 1.0, 0.0, 1)),
    ('sensor "a(b" "OR" == 1', Comparison(SensorField("a(b", "OR"), "==", 1.0, 0.0, 1)),
    (
        "sensor 20 TEMP > sensor 21 TEMP",
        Comparison(SensorField("20", "TEMP"), ">", SensorField("21", "TEMP"), 0.0, 1),
    ),
    ("sensor 20 stale", Staleness("20", None, None)),
    ("sensor 20 stale 90", Staleness("20", None, 90.0)),
    ("sensor 20 TEMP stale 1.5h", Staleness("20", "TEMP", 5400.0)),
    ("device uno offline", OFFLINE),
    ("device 'usb:2' silent", DeviceState("usb:2", "silent")),
    ("time 22:00-06:00", NIGHT),
    ("time 22:00 - 6:00", NIGHT),
    ("time 8:30-24:00", TimeOfDay(510, 1440)),
    ("day mon-fri, sun", DayOfWeek(frozenset([0, 1, 2, 3, 4, 6]))),
    ("day sat-mon", DayOfWeek(frozenset([5, 6, 0]))),
    ("not device uno offline", Not(OFFLINE)),
    ("(((device uno offline)))", OFFLINE),
    (
        "device uno offline or time 22:00-06:00 and not device uno offline",
        Joined((OFFLINE, Joined((NIGHT, Not(OFFLINE)), False)), True),
    ),
    (
        "(device uno offline or time 22:00-06:00) and device uno offline",
        Joined((Joined((OFFLINE, NIGHT), True), OFFLINE), False),
    ),
    ("not not device uno offline", Not(Not(OFFLINE))),
]

REFUSED = [
    ("", "column 1: expected sensor, device, time, day, not or (, got the end"),
    ("sensr 2 SMOKE == 1", "column 1: expected sensor, device, time, day, not or (, got sensr: did you mean sensor?"),
    ("sensor", "column 7: expected the id of a sensor, got the end"),
    ("sensor stale", 'column 8: expected the id of a sensor, got stale: did you mean "stale", in quotes?'),
    ("sensor 2 == 1", "column 10: expected a field of sensor 2, or stale, got =="),
    ("sensor 2 SMOKE", "column 15: expected a comparison such as == 1, or stale, got the end"),
    ("sensor 2 SMOKE = 1", "column 16: expected a comparison such as == 1, or stale, got =: did you mean ==?"),
    ("sensor 2 SMOKE is 1", "column 16: expected a comparison such as == 1, or stale, got is: did you mean ==?"),
    (
        "sensor 2 SMOKE == and",
        'column 19: expected a number, a text or sensor, got and: did you mean "and", in quotes?',
    ),
    (
        "sensor 2 T > hot",
        "column 14: expected a number or sensor, since only == and != compare with a text, got hot",
    ),
    ("sensor 2 T == 1 hysteresis 1", "column 17: == has no hysteresis, only <, <=, > and >= have one"),
    ("sensor 2 T > 1 hysteresis 0", "column 27: expected a number above 0, got 0"),
    ("sensor 2 T > 1 hysteresis", "column 26: expected a number above 0, got the end"),
    ("sensor 2 X == 'a_B:c'", "column 15: no reading can have the text 'a_B:c'"),
    ("sensor 2 stale 10x", "column 16: expected a duration such as 10m, got 10x"),
    ("sensor 2 stale 0.1s", "column 16: expected a duration from 1s to 366d, got 0.1s"),
    ("device uno", "column 11: expected the state online, silent, offline or lent, got the end"),
    *(
        (
            f"device uno {compare} online",
            f"column 12: expected the state online, silent, offline or lent, got {compare}: leave it out, as in "
            "device uno offline",
        )
        for compare in ("is", "=", "==")
    ),
    (
        "device uno ofline",
        "column 12: expected the state online, silent, offline or lent, got ofline: did you mean offline?",
    ),
    ("time 22:00", "column 6: expected times such as 22:00-06:00, got 22:00"),
    ("time night", "column 6: expected times such as 22:00-06:00, got night"),
    ("time 22:00-25:00", "column 6: expected times of a day, 0:00 to 24:00, got 22:00-25:00"),
    ("time 22:60-23:00", "column 6: expected times of a day, 0:00 to 24:00, got 22:60-23:00"),
    ("time 0:00-24:00", "column 6: expected two times, or no term with time for the whole day, got 0:00-24:00"),
    (
        "day monday",
        "column 5: expected days such as mon-fri or sat, of mon tue wed thu fri sat sun, got monday: did you mean mon?",
    ),
    ("day mon,", "column 9: expected days such as mon-fri or sat, of mon tue wed thu fri sat sun, got the end"),
    ("device uno offline AND day mon", "column 20: expected and, or, or the end, got AND: did you mean and?"),
    ("device uno offline && day mon", "column 20: expected and, or, or the end, got &&: did you mean and?"),
    (
        "sensor 2 T > 30 for 5m",
        'column 17: expected and, or, or the end, got for: did you mean for = "5m", a key of the rule?',
    ),
    ("sensor 2 T > 30,5", "column 16: expected and, or, or the end, got ,: did you mean 30.5?"),
    ("sensor 2 T == 30 5", "column 18: expected and, or, or the end, got 5"),
    (
        "(sensor 3 DOOR == wide open)",
        'column 24: expected and, or, or the ) of the ( in column 1, got open: did you mean "wide open", in quotes?',
    ),
    ("uno offline", "column 1: expected sensor, device, time, day, not or (, got uno"),
    ("day lun", "column 5: expected days such as mon-fri or sat, of mon tue wed thu fri sat sun, got lun"),
    ("device uno offline)", "column 19: expected and, or, or the end, got )"),
    ("(device uno offline", "column 20: expected and, or, or the ) of the ( in column 1, got the end"),
    ("device uno offline or", "column 22: expected sensor, device, time, day, not or (, got the end"),
    ("sensor 2 DOOR == 'open", "column 18: this ' has no other one that ends the text"),
    ("not " * (DEPTH_LIMIT + 1) + "day mon", "column 129: more than 32 levels of parentheses and not"),
    ("(" * 500, "column 33: more than 32 levels of parentheses and not"),
    ("day mon or " * 100, "column 1001: expected at most 1,000 characters, got 1,100"),
]

_WORDS = ["sensor", "device", "time", "day", "and", "or", "not", "2", "T", "'x'", "10m", "stale", "é"]
_SIGNS = ["(", ")", "==", ">", "-", ",", "\n"]

_names = st.text("abcXYZ019-.é(", min_size=1, max_size=5)
_fields = st.builds(SensorField, _names, st.sampled_from(["TEMP", "A-B", "STALE", "OR"]))
_margins = st.sampled_from([0.0, 0.5, 2.0])
_leaves: st.SearchStrategy[Term] = st.one_of(
    st.builds(Comparison, _fields, st.sampled_from(["<", "<=", ">", ">="]), st.floats(-9, 9), _margins, st.just(0)),
    st.builds(Comparison, _fields, st.sampled_from(["==", "!="]), st.just("not a number"), st.just(0.0), st.just(0)),
    st.builds(Comparison, _fields, st.sampled_from(["==", "<"]), _fields, st.just(0.0), st.just(0)),
    st.builds(Staleness, _names, st.none() | st.just("TEMP"), st.none() | st.just(90.0)),
    st.builds(DeviceState, _names, st.sampled_from(["online", "lent"])),
    st.builds(TimeOfDay, st.just(5), st.integers(6, 1440)),
    st.builds(DayOfWeek, st.frozensets(st.integers(0, 6), min_size=1)),
)
_terms = st.recursive(
    _leaves,
    lambda parts: (
        st.builds(Not, parts) | st.builds(Joined, st.lists(parts, min_size=2, max_size=3).map(tuple), st.booleans())
    ),
    max_leaves=6,
)


def spell(term: Term) -> str:
    """
    Write a condition.
    """
    match term:
        case Comparison(left, compare, right, margin):
            operand = f'sensor "{right[0]}" "{right[1]}"' if isinstance(right, SensorField) else f'"{right}"'
            if isinstance(right, float):
                operand = f"{right:.20f}"
            hysteresis = f" hysteresis {margin}" if margin else ""
            return f'sensor "{left.sensor}" "{left.field}" {compare} {operand}{hysteresis}'
        case Staleness(sensor, field, limit):
            named = f' "{field}"' if field else ""
            return f'sensor "{sensor}"{named} stale {limit or ""}'
        case DeviceState(device, state):
            return f"device '{device}' {state}"
        case TimeOfDay(start, end):
            return f"time {start // 60}:{start % 60:02}-{end // 60}:{end % 60:02}"
        case DayOfWeek(days):
            return "day " + ",".join(DAYS[day] for day in days)
        case Not(part):
            return f"not ({spell(part)})"
        case Joined(parts, decisive):
            return (" or " if decisive else " and ").join(f"({spell(part)})" for part in parts)
    raise AssertionError(term)


def without_numbers(term: Term) -> Term:
    """
    Return a condition whose comparisons have no numbers, and whose operands are as they were written.
    """
    match term:
        case Comparison(left, compare, right, margin):
            return Comparison(left, compare, float(f"{right:.20f}") if isinstance(right, float) else right, margin, 0)
        case Not(part):
            return Not(without_numbers(part))
        case Joined(parts, decisive):
            return Joined(tuple(map(without_numbers, parts)), decisive)
    return term


class LanguageTests(SynchronousTestCase):
    """
    Texts become terms.
    """

    def test_accepted(self) -> None:
        """
        Words bind as documented; spaces and the case of fields do not matter.
        """
        for text, term in ACCEPTED:
            with self.subTest(text=text):
                self.assertEqual(parse_condition(text), term)

    def test_refused(self) -> None:
        """
        An error has the column, what was expected there, and, where it can be guessed, what was meant.
        """
        for text, line in REFUSED:
            with self.subTest(text=text):
                self.assertEqual(str(self.assertRaises(LanguageError, parse_condition, text)), line)

    @given(_terms)
    def test_round_trip(self, term: Term) -> None:
        """
        Every tree can be written, and is read back as itself.
        """
        text = spell(term)
        if len(text) <= LENGTH_LIMIT:
            self.assertEqual(without_numbers(parse_condition(text)), without_numbers(term))

    @given(st.lists(st.sampled_from([*_WORDS, *_SIGNS])) | st.text(max_size=40).map(lambda text: [text]))
    def test_any_text(self, words: list[str]) -> None:
        """
        Whatever the text is, it is a condition or one error whose column is in it.
        """
        text = " ".join(words)
        try:
            parse_condition(text)
        except LanguageError as error:
            column = int(str(error).split()[1].rstrip(":"))
            self.assertTrue(1 <= column <= len(text) + 1)
