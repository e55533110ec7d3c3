"""
When rules fire.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.support.draws import given
from tests.support.rules import rule
from usbgate.rules.conditions import Comparison, Moment, SensorField, Term, leaves
from usbgate.rules.language import parse_condition
from usbgate.rules.ruleset import RATE, KeptState, RuleSet
from usbgate.rules.settings import PublishTarget, RuleSettings
from usbgate.rules.texts import Template

WALL = 1_363_035_730_000


def moment(now: float) -> Moment:
    """
    Return a moment by the monotonic clock.
    """
    return Moment(now, WALL + round(now * 1000), datetime.fromtimestamp(WALL / 1000 + now, UTC))


class RuleSetCase(SynchronousTestCase):
    """
    Rules that are looked at when they ask for it.
    """

    def start(self, *rules: RuleSettings, kept: dict[str, KeptState] | None = None, now: float = 0.0) -> None:
        """
        Start with some rules.
        """
        self.now = now
        self.fired: list[tuple[float, str]] = []
        self.set = RuleSet(rules, kept or {}, lambda sensor: 3600.0, moment(now))
        self.go(now)

    def go(self, now: float) -> None:
        """
        Let time pass.
        """
        while self.set.due <= now:
            self.now = max(self.now, self.set.due)
            self.note(self.set.advance(moment(self.now)))
        self.now = now

    def report(self, now: float, sensor: str = "1", **values: str) -> None:
        """
        Let a sensor report.
        """
        self.go(now)
        self.note(self.set.report("uno", sensor, values.items(), moment(now)))

    def note(self, firings: Sequence[Any]) -> None:
        """
        Remember what fired.
        """
        self.fired += [(self.now, firing.rule.name) for firing in firings]


class FiringTests(RuleSetCase):
    """
    One rule at a time.
    """

    def times(self) -> list[float]:
        """
        Return when something fired.
        """
        return [at for at, _ in self.fired]

    def test_edge(self) -> None:
        """
        A rule fires when its condition becomes true, and again only after it was false.
        """
        self.start(rule("sensor 1 A == 1"))
        for now, value in enumerate("0110101", 1):
            self.report(now, A=value)
        self.report(8, "2", A="1")
        self.assertEqual(self.times(), [2, 5, 7])

    def test_first(self) -> None:
        """
        The first reading counts: a condition that is true then fires.
        """
        self.start(rule("sensor 1 A == 1"))
        self.report(1, A="1")
        self.assertEqual(self.times(), [1])

    def test_unknown(self) -> None:
        """
        A condition that becomes unknown neither arms the rule nor fires it.
        """
        self.start(rule("sensor 1 A > 1"))
        for now, value in enumerate(["2", "ERR", "2", "ERR", "0", "ERR", "2"], 1):
            self.report(now, A=value)
        self.assertEqual(self.times(), [1, 7])

    def test_for(self) -> None:
        """
        The condition must be true for the whole time; false and unknown let it begin anew.
        """
        self.start(rule("sensor 1 A > 1", for_=10.0))
        self.report(1, A="2")
        self.report(10, A="0")
        self.report(20, A="2")
        self.report(25, A="ERR")
        self.report(30, A="2")
        self.report(35, A="3")
        self.go(39.9)
        self.assertEqual(self.times(), [])
        self.go(100)
        self.assertEqual(self.times(), [40])

    def test_late(self) -> None:
        """
        A rule whose time has passed fires, though nobody looked at it, before the next report is taken over.
        """
        self.start(rule("sensor 1 A == 1", for_=10.0))
        self.report(1, A="1")
        self.assertEqual(len(self.set.advance(moment(50))), 1)
        self.assertEqual(self.set.report("uno", "1", [("A", "0")], moment(50)), [])

    def test_quiet(self) -> None:
        """
        A rule does not fire while it is quiet; at the end, it does if its condition is still true.
        """
        self.start(rule("sensor 1 A == 1", quiet=60.0))
        self.report(1, A="1")
        self.report(10, A="0")
        self.report(20, A="1")
        self.report(30, A="0")
        self.report(50, A="1")
        self.go(70)
        self.assertEqual(self.times(), [1, 61])

    def test_rate(self) -> None:
        """
        A rule that would fire again and again does so ten times a minute, and is marked.
        """
        self.start(rule("sensor 1 A == 1"))
        for now in range(1, 100):
            self.report(now / 10, A=str(now % 2))
        self.assertEqual(len(self.fired), RATE)
        self.assertTrue(self.set.rules["r"].limited)
        self.report(10, A="1")
        self.go(59)
        self.assertEqual(len(self.fired), RATE)
        self.go(61)
        self.assertEqual(self.times()[RATE:], [60.1])
        self.assertFalse(self.set.rules["r"].limited)

    def test_stale(self) -> None:
        """
        A sensor that falls silent fires, and arms the rule when it reports.
        """
        self.start(rule("sensor 1 stale 10s"))
        self.report(5, B="0")
        self.go(20)
        self.report(30, B="0")
        self.go(50)
        self.assertEqual(self.times(), [15, 40])

    def test_time(self) -> None:
        """
        A time fires at its minute.
        """
        local = datetime.fromtimestamp(WALL / 1000, UTC)
        start = local.hour * 60 + local.minute + 2
        self.start(rule(f"time {start // 60}:{start % 60:02}-{start // 60}:{start % 60 + 1:02}"))
        self.go(3600)
        self.assertEqual(self.times(), [120 - local.second - local.microsecond / 1e6])

    def test_devices(self) -> None:
        """
        The state of a device fires; `starting` is no state.
        """
        self.start(rule("not device uno online"))
        for now, state in enumerate(["starting", "online", "starting", "offline", "offline", "online"], 1):
            self.now = now
            self.set.device_state("uno", state)
            self.set.device_state("other", "offline")
            self.note(self.set.advance(moment(now)))
        self.assertEqual(self.times(), [4])

    def test_readings(self) -> None:
        """
        A firing has the newest readings of all fields that the rule names, in its condition or its texts.
        """
        payload = Template.parse("{sensor 3 C} {sensor 4 D}")
        self.start(rule("sensor 1 A == 1", publish=PublishTarget(topic="t", payload=payload)))
        self.report(1, "3", C="x", D="y")
        (firing,) = self.set.report("uno", "1", [("A", "1"), ("B", "2")], moment(2))
        self.assertEqual(
            firing.readings,
            {SensorField("1", "A"): (1.0, None, "uno", 2.0), SensorField("3", "C"): (None, "x", "uno", 1.0)},
        )
        self.assertIsNone(self.set.reading(SensorField("3", "D")))  # nobody needs it

    def test_restored_reading(self) -> None:
        """
        A reading from the database counts by its age.
        """
        self.start(rule("sensor 1 A == 1", "is"), rule("sensor 1 stale 60s", "stale"))
        self.set.restore_reading(SensorField("1", "A"), 1.0, None, "uno", 50.0)
        self.go(0)
        self.assertEqual(self.fired, [(0, "is")])
        self.go(20)
        self.assertEqual(self.fired, [(0, "is"), (10, "stale")])


class RestartTests(RuleSetCase):
    """
    What is kept over a restart, and over a change of the configuration.
    """

    def restart(self, rules: RuleSettings, now: float) -> None:
        """
        Start anew with what was kept.
        """
        self.start(rules, kept=dict(self.set.take_changed()), now=now)

    def test_fires_once(self) -> None:
        """
        A rule that has fired does not fire again for the same condition after a restart, but after it was false.
        """
        fires = rule("sensor 1 A == 1")
        self.start(fires)
        self.report(1, A="1")
        self.restart(fires, 10)
        self.report(11, A="1")
        self.assertEqual(self.fired, [])
        self.report(12, A="0")
        self.report(13, A="1")
        self.assertEqual(self.fired, [(13, "r")])
        self.assertEqual(self.set.take_changed(), {"r": KeptState("sensor 1 A == 1", True, WALL + 13_000)})
        self.assertEqual(self.set.take_changed(), {})

    def test_missed_edge(self) -> None:
        """
        What became true while usbgate did not run fires.
        """
        fires = rule("sensor 1 A == 1")
        self.start(fires)
        self.report(1, A="1")
        self.report(2, A="0")
        self.restart(fires, 10)
        self.report(11, A="1")
        self.assertEqual(self.fired, [(11, "r")])

    def test_hysteresis(self) -> None:
        """
        A value that is between the limits does not arm a rule by a restart.
        """
        fires = rule("sensor 1 A > 30 hysteresis 2")
        self.start(fires)
        self.report(1, A="31")
        self.restart(fires, 10)
        self.report(11, A="29")
        self.report(12, A="31")
        self.assertEqual(self.fired, [])

    def test_hysteresis_of_a_part(self) -> None:
        """
        That a part of the condition held is kept, also while the whole condition does not hold.
        """
        fires = rule("sensor 1 A > 30 hysteresis 2 and sensor 1 B == 1")
        self.start(fires)
        self.report(1, A="31", B="0")
        self.restart(fires, 10)
        self.report(11, A="29", B="1")
        self.assertEqual(self.fired, [(11, "r")])

    def test_quiet(self) -> None:
        """
        The quiet time goes on; a wall clock that was set back does not make it longer.
        """
        fires = rule("sensor 1 A == 1", quiet=60.0)
        for now, first in ((30.0, 61.0), (-10_000.0, -9_940.0)):
            self.start(fires)
            self.report(1, A="1")
            self.report(2, A="0")
            self.restart(fires, now)
            self.report(now + 1, A="1")
            self.go(now + 1000)
            self.assertEqual(self.fired, [(first, "r")])

    def test_silent(self) -> None:
        """
        Of a sensor that was out of date before a restart and still is, nothing fires a second time: neither that it is,
        nor that it is not. Both fire when it is there again, and falls silent again.
        """
        for text in ("sensor 1 stale 10s", "sensor 1 A stale 10s"):
            rules = rule(text), rule(f"not {text}", "back")
            self.start(*rules)
            self.report(1, A="0")
            self.go(20)
            self.assertEqual(self.fired, [(1, "back"), (11, "r")], text)
            for is_restored in (False, True):
                self.start(*rules, kept={name: active.kept for name, active in self.set.rules.items()}, now=100.0)
                if is_restored:
                    self.go(101)
                    self.set.restore_reading(SensorField("1", "A"), 0.0, None, "uno", 100.0)
                self.go(120)
                self.assertEqual(self.fired, [], text)
            self.report(130, A="0")
            self.go(150)
            self.assertEqual(self.fired, [(130, "back"), (140, "r")], text)

    def test_devices(self) -> None:
        """
        Nothing fires at a restart because a device is opened anew, and nothing again while it cannot be opened for
        long: what it was before counts until it is ready.
        """
        online, offline = "device uno online", "device uno offline"
        rules = rule(online, "on"), rule(f"not {online}", "away"), rule(offline, "off")
        self.start(*rules)
        self.states("starting", "settling", "online")
        self.assertEqual(self.fired, [(0, "on")])
        self.start(*rules, kept=dict(self.set.take_changed()), now=100)
        self.states("starting", "settling", "online")
        self.assertEqual(self.fired, [])
        self.states("offline", "settling", "offline", "settling", "offline")
        self.assertEqual(self.fired, [(100, "away"), (100, "off")])
        self.states("settling", "online")
        self.assertEqual(self.fired[2:], [(100, "on")])

    def states(self, *states: str) -> None:
        """
        Let a device have some states, one after the other.
        """
        for state in states:
            self.set.device_state("uno", state)
            self.note(self.set.advance(moment(self.now)))

    def test_configure_quiet(self) -> None:
        """
        Another quiet time counts from when the rule fired last, as after a restart.
        """
        for before, after, first in ((1000.0, 60.0, 61.0), (0.0, 60.0, 61.0), (60.0, 0.0, 10.0)):
            self.start(rule("sensor 1 A == 1", quiet=before))
            self.report(1, A="1")
            self.report(2, A="0")
            self.set.configure([rule("sensor 1 A == 1", quiet=after)], moment(3))
            self.report(10, A="1")
            self.go(100)
            self.assertEqual(self.fired, [(1, "r"), (first, "r")])

    def test_configure(self) -> None:
        """
        A rule with the same condition keeps its state, whatever else of it changed; one with another condition is new.
        """
        self.start(rule("sensor 1 A == 1"))
        self.report(1, A="1")
        self.set.configure([rule("sensor 1 A == 1", alarm=True)], moment(2))
        self.report(3, A="1")
        self.assertEqual(len(self.fired), 1)
        self.set.configure([rule("sensor 1 A >= 1"), rule("sensor 2 A == 1", "s")], moment(4))
        self.go(4)
        self.assertEqual(self.fired, [(1, "r"), (4, "r")])
        self.set.configure([], moment(5))
        self.assertEqual((self.set.sensors, self.set.fields, self.set.due), (set(), set(), float("inf")))


# A naive reference: at each moment it evaluates the whole history again.

_CONDITIONS = [
    "sensor 1 A > 1",
    "sensor 1 A > 1 hysteresis 1",
    "sensor 1 A == 1 or sensor 2 A == 1",
    "sensor 1 A == 1 and not sensor 2 A == 1",
    "sensor 1 stale 4s",
    "sensor 1 A > 1 hysteresis 1 and not sensor 2 A stale 3s",
]
_REPORTS = st.tuples(st.integers(1, 3), st.sampled_from("12"), st.sampled_from(["0", "1", "2", "x"]))


def truth_at(term: Term, history: Sequence[tuple[int, str, str]], now: float, held: bool) -> bool | None:
    """
    Return whether one of `_CONDITIONS` holds at a time, by looking at the history as a person would.
    """

    def newest(sensor: str) -> tuple[float, str | None]:
        return next(((at, value) for at, each, value in reversed(history) if each == sensor), (0.0, None))

    def compare(field: SensorField, symbol: str, right: float, margin: float) -> bool | None:
        value = newest(field.sensor)[1]
        if value is None or value == "x":
            return None
        return float(value) == right if symbol == "==" else float(value) > right - (margin if held else 0)

    one, other = newest("1"), newest("2")
    text = str(_CONDITIONS[[parse_condition(each) for each in _CONDITIONS].index(term)])
    a1 = compare(SensorField("1", "A"), "==", 1, 0)
    a2 = compare(SensorField("2", "A"), "==", 1, 0)
    above = compare(SensorField("1", "A"), ">", 1, 1 if "hysteresis" in text else 0)
    match _CONDITIONS.index(text):
        case 0 | 1:
            return above
        case 2:
            return True if True in (a1, a2) else None if None in (a1, a2) else False
        case 3:
            not2 = None if a2 is None else not a2
            return False if False in (a1, not2) else None if None in (a1, not2) else True
        case 4:
            return now - one[0] >= 4
        case _:
            fresh = False if now - other[0] >= 3 else None if other[1] is None else True
            return False if False in (above, fresh) else None if None in (above, fresh) else True


class ReferenceTests(RuleSetCase):
    """
    Random reports, compared with the reference, second by second.
    """

    @given(
        st.sampled_from(_CONDITIONS),
        st.lists(_REPORTS, max_size=25),
        st.sampled_from([0.0, 2.0]),
        st.sampled_from([0.0, 5.0]),
    )
    def test_same(self, text: str, events: list[tuple[int, str, str]], for_: float, quiet: float) -> None:
        """
        The rules fire exactly when the reference says so.
        """
        history: list[tuple[int, str, str]] = []
        now = 0
        for pause, sensor, value in events:
            now += pause
            history.append((now, sensor, value))
        self.start(rule(text, for_=for_, quiet=quiet))
        for at, sensor, value in history:
            self.report(at, sensor, A=value)
        self.go(now + 20)
        self.assertEqual([at for at, _ in self.fired], reference(text, history, now + 20, for_, quiet))


def reference(text: str, history: list[tuple[int, str, str]], end: int, for_: float, quiet: float) -> list[float]:
    """
    Return when a rule fires.
    """
    term = parse_condition(text)
    held = fired = False
    since: int | None = None
    fires: list[float] = []
    for now in range(end + 1):
        # Time passes before the report of the same second is known, and is looked at again then.
        for known in ([each for each in history if each[0] < now], [each for each in history if each[0] <= now]):
            truth = truth_at(term, known, now, held)
            margin = truth_of_margin(term, known, held)
            held = held if margin is None else margin
            if truth is not True:
                since, fired = None, fired and truth is None
                continue
            since = now if since is None else since
            recent = [at for at in fires if at > now - 60]
            if not fired and now - since >= for_ and (not fires or now - fires[-1] >= quiet) and len(recent) < RATE:
                fired = True
                fires.append(now)
    return fires


def truth_of_margin(term: Term, history: Sequence[tuple[int, str, str]], held: bool) -> bool | None:
    """
    Return whether the comparison with a hysteresis holds.
    """
    if not any(isinstance(each, Comparison) and each.margin for each in leaves(term)):
        return False
    value = next((value for _, sensor, value in reversed(history) if sensor == "1"), "x")
    return None if value == "x" else float(value) > (0 if held else 1)
