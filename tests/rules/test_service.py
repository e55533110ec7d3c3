"""
Rules in the daemon, between a gateway in memory and actions that the test ends.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from tests.support.gateway import WALL, TwoClocks
from tests.support.memory_gateway import MemoryGateway, report_event
from tests.support.rules import ListedAction, at_once, rule
from tests.support.turnclock import TurnClock
from usbgate.core.model import DeviceEvent, Event, Reading, StoreEvent
from usbgate.core.settings import SensorSettings
from usbgate.gateway.interfaces import DeviceSummary, RuleSummary, SensorSummary
from usbgate.rules.actions.interfaces import TryAgain
from usbgate.rules.outbox import Outbox
from usbgate.rules.service import STATE_INTERVAL, TURN_TIME, RuleService
from usbgate.rules.settings import MailTarget, PublishTarget, RuleCommand, RuleSettings, WebhookTarget
from usbgate.rules.texts import JsonTemplate, Template

SMOKE = "sensor 2 SMOKE == 1"
COMMAND = (RuleCommand("9", "ON"),)


class ServiceTests(SynchronousTestCase):
    """
    The service.
    """

    def setUp(self) -> None:
        self.clock = TurnClock()
        self.time = TwoClocks(self.clock)
        self.gateway = MemoryGateway()
        self.gateway.known_devices = [DeviceSummary("leonardo", "/dev/x", "online", WALL)]
        self.gateway.presented["2"] = SensorSettings(name="Detector", place="Hall", stale=600.0)
        self.file = Path(self.mktemp())
        self.services: list[RuleService] = []

    def start(self, *rules: RuleSettings) -> RuleService:
        """
        Start, after whatever ran before was killed.
        """
        for service in self.services:
            self.gateway.subscribers.clear()
            self.services.remove(service)
        self.actions = {kind: ListedAction() for kind in ("command", "mail", "webhook", "publish")}
        self.outbox = Outbox(self.clock, self.file, at_once)
        ids = iter(range(100))
        service = RuleService(
            self.clock,
            self.time,
            self.gateway,
            self.outbox,
            self.actions.get,
            rules,
            None,
            "home",
            lambda: f"a{next(ids)}",
        )
        service.startService()
        self.services.append(service)
        self.go()
        return service

    def go(self, seconds: float = 0.0) -> None:
        """
        Let time pass, in small steps.
        """
        self.clock.pump([0.0] * 5)
        end = self.clock.seconds() + seconds
        while self.clock.seconds() < end:
            self.clock.advance(min(1.0, end - self.clock.seconds()))
            self.clock.pump([0.0] * 5)

    def publish(self, *events: Event) -> None:
        """
        Let something happen.
        """
        self.gateway.publish(*events)
        self.go()

    def payloads(self, kind: str) -> Sequence[Any]:
        """
        Return what was to be sent.
        """
        return [action.payload for action, _ in self.actions[kind].tried]

    def test_actions(self) -> None:
        """
        A rule that fires does all that it says, with the readings put in.
        """
        table = JsonTemplate.parse({"v": "{value}", "t": "{time} {gateway}"})
        self.start(
            rule(
                SMOKE,
                "smoke",
                command=(RuleCommand("9", "L", {"LEVEL": "50"}),),
                mail=MailTarget(to=("a@b.c",), subject=Template.parse("{name} in {place}: {rule}")),
                webhook=WebhookTarget(url="http://x", body=table),
                publish=PublishTarget(topic="siren", payload=Template.parse("{sensor 2 X}"), retain=True),
                alarm=True,
            )
        )
        self.publish(report_event("2", SMOKE="0"), report_event("2", SMOKE="1", X="y"))
        self.assertEqual(self.payloads("command"), [{"sensor": "9", "command": "L", "arguments": {"LEVEL": "50"}}])
        (mail,) = self.payloads("mail")
        self.assertEqual((mail["to"], mail["subject"]), (("a@b.c",), "Detector in Hall: smoke"))
        self.assertIn("\nsensor 2 (Detector) SMOKE: 1\n", mail["text"])
        (webhook,) = self.payloads("webhook")
        self.assertEqual(webhook["type"], "application/json")
        self.assertRegex(webhook["body"], r'^{"v": 1, "t": "2013-03-1\d \d\d:\d\d:\d\d home"}$')
        self.assertEqual(self.payloads("publish"), [{"topic": "siren", "payload": "y", "retain": True}])
        self.assertEqual(
            self.gateway.rule_alarms["smoke"], Reading(WALL, "leonardo", "2", "SMOKE", 1.0, None, None, True)
        )

    def test_default_texts(self) -> None:
        """
        Without texts of their own, a mail and a webhook have the readings.
        """
        self.start(rule(SMOKE, "smoke", mail=MailTarget(to=("a@b.c",)), webhook=WebhookTarget(url="http://x")))
        self.publish(report_event("2", SMOKE="1"))
        (mail,), (webhook,) = self.payloads("mail"), self.payloads("webhook")
        self.assertEqual(mail["subject"], f"smoke: {SMOKE}")
        self.assertEqual(
            webhook["body"],
            '{"rule": "smoke", "when": "sensor 2 SMOKE == 1", "at": "2013-03-11T21:02:10.000Z", "gateway": "home", '
            '"readings": [{"sensor": "2", "field": "SMOKE", "value": 1.0, "text": null, "device": "leonardo"}]}',
        )

    def test_each_report(self) -> None:
        """
        Reports that come together are looked at one by one, for a bounded time in each turn, and others not at all.
        """
        looked = 0

        def slow_settings() -> dict[str, SensorSettings]:
            nonlocal looked
            looked += 1
            self.clock.spend(TURN_TIME / 5)
            return {}

        self.start(rule(f"{SMOKE} or sensor 2 stale", command=COMMAND))
        self.patch(self.gateway, "sensor_settings", slow_settings)
        self.gateway.publish(*[report_event("2", SMOKE=str(number % 2)) for number in range(20)])
        self.gateway.publish(*[report_event("3", SMOKE="1")] * 1000, StoreEvent("away", 1))
        self.clock.turn()
        self.assertEqual(self.services[0].summaries()[0].firings, 1)
        self.go()
        self.assertEqual(self.services[0].summaries()[0].firings, 10)
        self.assertLess(looked, 100)

    def test_kill(self) -> None:
        """
        After a crash, what was not done is done, with the same id, and nothing fires again; a command that was begun is
        not sent again.
        """
        fires = rule(SMOKE, command=COMMAND, mail=MailTarget(to=("a@b.c",)), alarm=True)
        self.start(fires)
        self.publish(report_event("2", SMOKE="1"))
        before = self.actions["mail"].tried[0][0]
        self.actions["mail"].end(error=TryAgain("no route"))
        self.start(fires)
        self.publish(report_event("2", SMOKE="1"))
        self.assertEqual([(action.id, action.at) for action, _ in self.actions["mail"].tried], [(before.id, before.at)])
        self.assertEqual(self.services[0].summaries()[0].firings, 0)
        self.publish(report_event("2", SMOKE="0"), report_event("2", SMOKE="1"))
        self.assertEqual(self.services[0].summaries()[0].firings, 1)

    def test_kill_command(self) -> None:
        """
        A command that was begun is not on disk any more.
        """
        fires = rule(SMOKE, command=COMMAND)
        self.start(fires)
        performer = self.actions["command"]
        performer.at_most_once = True
        self.publish(report_event("2", SMOKE="1"))
        self.assertEqual(len(performer.tried), 1)
        self.start(fires)
        self.go(100)
        self.assertEqual(self.actions["command"].tried, [])

    def test_stop(self) -> None:
        """
        At the end, the last states are written, although they are not yet due.
        """
        fires = rule(SMOKE, command=COMMAND)
        service = self.start(fires)
        self.publish(report_event("2", SMOKE="1"))
        self.publish(report_event("2", SMOKE="0"))
        self.successResultOf(service.stopService())
        self.assertEqual((self.gateway.subscribers, self.clock.getDelayedCalls()), ([], []))
        self.start(fires)
        self.publish(report_event("2", SMOKE="1"))
        self.assertEqual(self.services[0].summaries()[0].firings, 1)

    def test_armed_late(self) -> None:
        """
        That a rule is armed again is written within seconds, though not at once.
        """
        fires = rule(SMOKE, command=COMMAND)
        self.start(fires)
        self.publish(report_event("2", SMOKE="1"))
        self.publish(report_event("2", SMOKE="0"))
        self.go(STATE_INTERVAL)
        self.start(fires)
        self.publish(report_event("2", SMOKE="1"))
        self.assertEqual(self.services[0].summaries()[0].firings, 1)

    def test_known_at_start(self) -> None:
        """
        The newest readings, those that are loaded later from the database, and the states of devices count at once.
        """
        self.gateway.readings = [Reading(WALL - 1000, "leonardo", "3", "A", 1.0, None, None, True)]
        service = self.start(
            rule("sensor 3 A == 1", "a", command=COMMAND),
            rule("sensor 2 SMOKE == 1", "b", command=COMMAND),
            rule("not device leonardo online", "c", command=COMMAND),
            rule("sensor 2 stale", "d", command=COMMAND),
        )
        found = {each.name: each.truth for each in service.summaries()}
        self.assertEqual(found, {"a": True, "b": None, "c": False, "d": None})
        self.gateway.readings = [Reading(WALL - 595_000, "leonardo", "2", "SMOKE", 1.0, None, None, True)]
        service.restored()
        self.publish(DeviceEvent("leonardo", "offline", WALL))
        self.assertEqual([each.truth for each in service.summaries()], [True, True, True, False])
        self.go(5)
        self.assertIs(service.summaries()[3].truth, True)

    def test_shown_otherwise(self) -> None:
        """
        A reading that is shown in another way after a reload counts as it is shown now, and is no older for that.
        """
        service = self.start(rule("sensor 3 A > 30", "a"), rule("sensor 3 A stale 30s", "b"))
        self.publish(report_event("3", A="25"))
        shown = Reading(WALL - 60_000, "leonardo", "3", "A", 35.0, None, None, True)  # the clock was set since
        self.gateway.readings = [shown, shown._replace(at=shown.at - 1, device="mega", value=1.0)]
        service.restored()
        self.go()
        self.assertEqual([each.truth for each in service.summaries()], [True, False])

    def test_before_ready(self) -> None:
        """
        What happens before the file is read is looked at afterwards.
        """
        service = self.start()
        service.configure([rule(SMOKE, command=COMMAND)], None)
        self.gateway.publish(report_event("2", SMOKE="1"))
        self.go()
        self.assertEqual(service.summaries(), [RuleSummary("r", SMOKE, True, WALL, 1, 1)])

    def test_without_rules(self) -> None:
        """
        Without rules, nothing is followed and no file is made.
        """
        service = self.start()
        self.assertEqual((self.gateway.subscribers, self.file.exists()), ([], False))
        self.assertEqual(service.summaries(), [])
        self.successResultOf(service.stopService())

    def test_alarms(self) -> None:
        """
        An alarm is raised when the rule fires, and ends when its condition is false; unknown changes nothing.
        """
        self.start(
            rule("sensor 2 T > 1", "hot", alarm=True, for_=5.0), rule("device leonardo offline", "away", alarm=True)
        )
        self.publish(report_event("2", T="2"))
        self.assertEqual(self.gateway.rule_alarms, {"hot": None, "away": None})
        self.go(5)
        self.publish(report_event("2", T="ERR"))
        about = self.gateway.rule_alarms["hot"]
        assert about is not None
        self.assertEqual((about.sensor, about.field), ("2", "T"))
        self.publish(report_event("2", T="0"))
        self.assertIsNone(self.gateway.rule_alarms["hot"])
        self.publish(DeviceEvent("leonardo", "offline", WALL))
        self.assertEqual(
            self.gateway.rule_alarms["away"],
            Reading(WALL + 5000, "leonardo", "leonardo", "OFFLINE", None, "offline", None, True),
        )

    def test_alarm_without_reading(self) -> None:
        """
        An alarm about a field that has no reading has the value `?`.
        """
        self.start(rule("sensor 2 T stale 1s", "away", alarm=True))
        self.go(2)
        about = self.gateway.rule_alarms["away"]
        assert about is not None
        self.assertEqual((about.sensor, about.field, about.text), ("2", "T", "?"))

    def test_alarm_device(self) -> None:
        """
        An alarm belongs to the device that is asked for its sensor, or to the device that it is about.
        """
        self.gateway.known_devices = [DeviceSummary(name, "/dev/x", "online", WALL) for name in ("uno", "due", "nano")]
        self.gateway.known_sensors = [SensorSummary("3", "due", ["A"], WALL, 1)]
        self.gateway.presented["4"] = SensorSettings(device="nano")
        for subject, device in [("sensor 3", "due"), ("sensor 4", "nano"), ("sensor 5", "uno"), ("device due", "due")]:
            state = "online" if subject.startswith("device") else "stale 1s"
            self.start(rule(f"{subject} {state}", subject, alarm=True))
            self.go(2)
            about = self.gateway.rule_alarms[subject]
            assert about is not None
            self.assertEqual(about.device, device, subject)

    def test_short_alarm(self) -> None:
        """
        An alarm is raised and ends also if both happen in one turn, and nothing is said twice.
        """
        self.start(rule(SMOKE, "smoke", alarm=True))
        self.publish(*[report_event("2", SMOKE=value) for value in "0100"])
        self.assertEqual(self.gateway.rule_alarm_calls, [("smoke", True), ("smoke", False)])

    def test_reload(self) -> None:
        """
        Rules that are as they were keep their state, also without an alarm that they had; others begin.
        """
        service = self.start(rule(SMOKE, "smoke", alarm=True))
        self.publish(report_event("2", SMOKE="1"))
        service.configure([rule(SMOKE, "smoke", command=COMMAND), rule(SMOKE, "new", alarm=True)], None)
        self.go()
        self.assertEqual([each.firings for each in service.summaries()], [1, 1])
        self.assertEqual([*self.gateway.rule_alarms], ["new"])
        service.configure([rule(SMOKE, "smoke", alarm=True)], None)
        self.go()
        self.assertIsNotNone(self.gateway.rule_alarms["smoke"])

    def test_untrusted_clock(self) -> None:
        """
        While the clock is not set, times are unknown. Once it was, they stay known without a time server.
        """
        self.time.trust = False
        service = self.start(rule("time 0:00-23:59", command=COMMAND))
        self.assertIs(service.summaries()[0].truth, None)
        self.time.trust = True
        self.go(61)
        self.assertIs(service.summaries()[0].truth, True)
        self.time.trust = False
        self.go(61)
        self.assertIs(service.summaries()[0].truth, True)

    def test_log(self) -> None:
        """
        Each firing is a line; that a rule fires too often is another one, once.
        """
        with capturedLogs() as events:
            self.start(rule(SMOKE, command=COMMAND))
            for _ in range(2):
                for number in range(40):
                    self.publish(report_event("2", SMOKE=str(number % 2)))
                self.go(60)
        lines = [formatEvent(event) for event in events]
        self.assertEqual(lines.count(f"rule r fires: {SMOKE}"), 21)
        self.assertEqual(lines.count("rule r fires too often, and waits: do rules trigger each other?"), 1)
