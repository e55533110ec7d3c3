"""
The newest values.
"""

from __future__ import annotations

import json
from collections import deque
from dataclasses import replace

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.support.memory_gateway import AT_TEXT, MemoryGateway
from tests.support.publisher import MemoryPublisher
from usbgate.core.fieldline import parse_value
from usbgate.core.model import DeviceEvent, Reading, ReportEvent
from usbgate.core.replacements import Replacement
from usbgate.core.settings import SensorSettings
from usbgate.gateway.interfaces import DeviceSummary, SensorSummary
from usbgate.mqtt.interfaces import Message
from usbgate.mqtt.topics import Topics
from usbgate.mqtt.values import INTERVAL, NEW_SENSORS, SWEPT, Values
from usbgate.testing import AT

BASE = "usbgate/home/leonardo"


class SlowPublisher(MemoryPublisher):
    """
    A publisher that has room when the test says so.
    """

    def __init__(self) -> None:
        super().__init__()
        self.waiting: deque[Deferred[None]] = deque()

    def room(self) -> Deferred[None]:
        """
        Wait for the test.
        """
        waiting: Deferred[None] = Deferred(self.waiting.remove)
        self.waiting.append(waiting)
        return waiting


class ValuesCase(SynchronousTestCase):
    """
    Values of a gateway in memory, before the broker is connected.
    """

    def setUp(self) -> None:
        """
        Make them.
        """
        self.clock = Clock()
        self.now = AT
        self.gateway = MemoryGateway()
        self.gateway.known_devices = [DeviceSummary("leonardo", "/dev/x", "online", AT)]
        self.publisher = MemoryPublisher()
        self.values = Values(self.clock, lambda: self.now, self.gateway, Topics("home"))

    def know(self, sensor: str, device: str = "leonardo", at: int = AT, **values: str) -> ReportEvent:
        """
        Let the gateway know values of a sensor; return the event of their report.
        """
        kept = [each for each in self.gateway.readings if each.sensor != sensor or each.field not in values]
        new = [Reading(at, device, sensor, field, *parse_value(text), None, True) for field, text in values.items()]
        self.gateway.readings = kept + new
        fields = sorted({each.field for each in self.gateway.readings if each.sensor == sensor})
        others = [each for each in self.gateway.known_sensors if each.sensor != sensor]
        self.gateway.known_sensors = [*others, SensorSummary(sensor, "leonardo", fields, at, 1)]
        return ReportEvent(sensor, device, None, at, tuple(values.items()))

    def report(self, sensor: str, **values: str) -> None:
        """
        Report values now.
        """
        self.gateway.publish(self.know(sensor, at=self.now, **values))

    def connect(self) -> None:
        """
        Connect the broker.
        """
        self.values.connected(self.publisher)
        self.addCleanup(self.values.disconnected)
        self.run_on(1)

    def run_on(self, seconds: float) -> None:
        """
        Let time pass.
        """
        for _ in range(20):
            self.clock.advance(seconds / 20)

    def taken(self) -> dict[str, str]:
        """
        Return what was published since the last call, the last message of each topic.
        """
        return {each.topic: each.payload.decode() for each in self.publisher.take()}


class ConnectedTests(ValuesCase):
    """
    When the broker is connected.
    """

    def test_everything(self) -> None:
        """
        The states of the devices are published first, then all values, each alone on a topic of its own and all of a
        sensor together; all are retained. Numbers have no unit; a text stays as it is, also one like 0815.
        """
        self.gateway.known_devices.append(DeviceSummary("uno", "/dev/y", "offline", AT))
        self.gateway.presented["20"] = SensorSettings(name="Bedroom", place="First floor")
        self.know("20", TEMP="21.5", HUM="40%", STATE="on a_b", ID2="0815")
        self.connect()
        published = self.publisher.take()
        self.assertEqual(
            [(each.topic, each.payload.decode()) for each in published[:-1]],
            [
                (f"{BASE}/_availability", "online"),
                ("usbgate/home/uno/_availability", "offline"),
                (f"{BASE}/20/TEMP", "21.5"),
                (f"{BASE}/20/HUM", "40"),
                (f"{BASE}/20/STATE", "on a_b"),
                (f"{BASE}/20/ID2", "0815"),
            ],
        )
        self.assertEqual(published[-1].topic, f"{BASE}/20")
        self.assertEqual(
            published[-1].json,
            {
                **{"sensor": "20", "name": "Bedroom", "place": "First floor", "device": "leonardo", "at": AT_TEXT},
                "values": {"TEMP": 21.5, "HUM": 40, "STATE": "on a_b", "ID2": "0815"},
            },
        )
        self.assertTrue(all(each.retain for each in published))

    def test_life(self) -> None:
        """
        A value expires when its reading is out of date, never at once; what is out of date is not published. A wall
        clock that was set back makes nobody live longer.
        """
        self.gateway.presented["20"] = SensorSettings(stale=60)
        for field, age in (
            ("NEW", 0),
            ("OLD", 58_100),
            ("LAST", 59_500),
            ("OUT", 60_000),
            ("DEAD", 10**9),
            ("LATER", -(10**6)),
        ):
            self.know("20", at=AT - age, **{field: "1"})
        self.connect()
        expiries = {each.topic.rsplit("/", 1)[1]: each.expiry for each in self.publisher.take()}
        self.assertEqual(expiries, {"_availability": None, "NEW": 60, "OLD": 2, "LAST": 1, "LATER": 60, "20": 60})

    def test_other_device(self) -> None:
        """
        Of a sensor that several devices report, the values are those of the device that is asked. Those of another one
        are removed, and its reports are no sign of life.
        """
        self.know("20", TEMP="21")
        self.know("20", "uno", HUM="40")
        self.connect()
        taken = self.taken()
        self.assertEqual(taken[f"{BASE}/20/TEMP"], "21")
        self.assertEqual((taken["usbgate/home/uno/20/HUM"], taken["usbgate/home/uno/20"]), ("", ""))
        self.gateway.publish(self.know("20", "uno", TEMP="22"))
        self.run_on(1)
        self.assertEqual(self.taken(), {})

    def test_moved(self) -> None:
        """
        When another device is asked for a sensor, all of its values are published, and those of the former are removed.
        """
        self.know("20", TEMP="21")
        self.know("20", "uno", HUM="40")
        self.connect()
        self.taken()
        event = self.know("20", "uno", LUX="5")
        self.gateway.known_sensors = [replace(each, device="uno") for each in self.gateway.known_sensors]
        self.gateway.publish(event)
        self.run_on(1)
        uno = "usbgate/home/uno"
        taken = self.taken()
        self.assertEqual(json.loads(taken.pop(f"{uno}/20"))["values"], {"HUM": 40.0, "LUX": 5.0})
        self.assertEqual(taken, {f"{BASE}/20/TEMP": "", f"{BASE}/20": "", f"{uno}/20/HUM": "40", f"{uno}/20/LUX": "5"})

    def test_replaced(self) -> None:
        """
        When a sensor was replaced, all of its values are published, and those of its successor are removed, once; but
        not if that is a sensor again, since the old id reports.
        """
        for sensor in "9", "20", "31", "32":
            self.know(sensor, TEMP="21")
        self.connect()
        self.taken()
        self.gateway.replaced = [
            Replacement(sensor=sensor, successor=successor, device="leonardo", since=AT, at=AT, who="test")
            for sensor, successor in (("20", "31"), ("9", "32"))
        ]
        self.gateway.known_sensors = [each for each in self.gateway.known_sensors if each.sensor != "31"]
        self.gateway.readings = [each for each in self.gateway.readings if each.sensor != "31"]
        self.values.refresh()
        self.run_on(1)
        taken = self.taken()
        self.assertEqual([topic for topic, payload in taken.items() if not payload], [f"{BASE}/31/TEMP", f"{BASE}/31"])
        self.assertEqual(taken[f"{BASE}/20/TEMP"], "21")
        self.values.refresh()
        self.run_on(1)
        self.assertNotIn("", self.taken().values())

    def test_former_device(self) -> None:
        """
        The state of a device that is no longer configured is removed; that of others stays.
        """
        self.connect()
        self.taken()
        self.assertEqual(self.values.retained, ("usbgate/home/+/_availability",))
        for payload, retained in ((b"online", False), (b"", True)):
            self.values.received(Message("usbgate/home/uno/_availability", payload, retained))
        self.values.received(Message(f"{BASE}/_availability", b"online", True))
        self.assertEqual(self.taken(), {})
        self.values.received(Message("usbgate/home/uno/_availability", b"online", True))
        self.assertEqual(self.taken(), {"usbgate/home/uno/_availability": ""})

    def test_again(self) -> None:
        """
        When the broker is back, everything is published again, but no report that came meanwhile.
        """
        self.know("20", TEMP="21")
        self.connect()
        self.values.disconnected()
        self.taken()
        for number in range(5):
            self.report("20", TEMP=str(number))
        self.run_on(1)
        self.assertEqual(self.taken(), {})
        self.values.connected(self.publisher)
        self.run_on(1)
        payloads = [each.payload for each in self.publisher.take() if each.topic == f"{BASE}/20/TEMP"]
        self.assertEqual(payloads, [b"4"])


class ManyTests(ValuesCase):
    """
    Many sensors.
    """

    def test_new_first(self) -> None:
        """
        When the broker is back, what is new does not wait for all the others.
        """
        for number in range(3 * SWEPT):
            self.know(str(number), TEMP="1")
        self.values.connected(self.publisher)
        self.addCleanup(self.values.disconnected)
        self.clock.advance(0)
        self.assertLessEqual(len(self.taken()), 1 + 2 * SWEPT)
        self.report("299", TEMP="2")
        self.clock.advance(INTERVAL)
        self.assertEqual(self.publisher.take()[0].topic, f"{BASE}/299/TEMP")
        self.run_on(1)
        self.assertEqual(self.taken()[f"{BASE}/298/TEMP"], "1")

    def test_made_up(self) -> None:
        """
        A device that makes up ids, with a broker that takes nothing, fills no memory; what is known is published when
        the broker goes on.
        """
        self.publisher = slow = SlowPublisher()
        self.know("20", TEMP="1")
        self.connect()
        for number in range(NEW_SENSORS + 5):
            self.gateway.publish(ReportEvent(f"made-up-{number}", "leonardo", None, AT, (("A", "1"),)))
        self.report("20", TEMP="2")
        self.taken()
        calls = 0
        while slow.waiting:
            calls += 1
            slow.waiting.popleft().callback(None)
            self.clock.advance(INTERVAL)
        self.assertLess(calls, 20)
        self.assertEqual(self.taken()[f"{BASE}/20/TEMP"], "2")


class ReportedTests(ValuesCase):
    """
    Values that are reported.
    """

    def setUp(self) -> None:
        """
        Connect the broker.
        """
        super().setUp()
        self.connect()
        self.taken()

    def test_own_topics(self) -> None:
        """
        Only the fields of the report are published, so that others show no sign of life; and all together as JSON.
        """
        self.report("20", TEMP="21", HUM="40")
        self.run_on(1)
        self.assertEqual(set(self.taken()), {f"{BASE}/20/TEMP", f"{BASE}/20/HUM", f"{BASE}/20"})
        self.report("20", TEMP="22")
        self.run_on(1)
        taken = self.taken()
        self.assertEqual(set(taken), {f"{BASE}/20/TEMP", f"{BASE}/20"})
        self.assertEqual(json.loads(taken[f"{BASE}/20"])["values"], {"TEMP": 22, "HUM": 40})

    def test_newest_wins(self) -> None:
        """
        The first report is published at once; of many that follow, the newest: at first ten times a second, and twice,
        if that goes on.
        """
        self.report("20", TEMP="0")
        self.clock.advance(0)
        self.assertEqual(self.taken()[f"{BASE}/20/TEMP"], "0")
        published = []
        for number in range(1, 6001):
            self.report("20", TEMP=str(number))
            self.clock.advance(0.01)
            published += [each.payload for each in self.publisher.take() if each.topic == f"{BASE}/20/TEMP"]
            if number == 50:
                self.assertIn(len(published), (4, 5))
        self.assertLess(len(published), 140)
        self.run_on(1)
        self.assertEqual(self.taken()[f"{BASE}/20/TEMP"], "6000")

    def test_few(self) -> None:
        """
        A sensor that reports often holds no other one back, nor does a device whose reports of it do not count.
        """
        self.report("22", TEMP="1")
        for number in range(100):
            self.report("20", TEMP=str(number))
            self.gateway.publish(self.know("22", "uno", TEMP=str(number)))
            self.run_on(INTERVAL)
        self.taken()
        self.report("21", TEMP="1")
        self.report("22", TEMP="2")
        self.run_on(INTERVAL)
        taken = self.taken()
        self.assertEqual((taken[f"{BASE}/21/TEMP"], taken[f"{BASE}/22/TEMP"]), ("1", "2"))

    def test_forgotten(self) -> None:
        """
        A sensor that is forgotten before its turn is left out.
        """
        self.report("20", TEMP="21")
        self.gateway.known_sensors.clear()
        self.run_on(1)
        self.assertEqual(self.taken(), {})

    def test_device(self) -> None:
        """
        The state of a device is published at once.
        """
        for state, usable in (("silent", "offline"), ("online", "online"), ("lent", "offline")):
            self.gateway.publish(DeviceEvent("leonardo", state, AT))
            self.assertEqual(self.taken(), {f"{BASE}/_availability": usable})


class SlowTests(ValuesCase):
    """
    A broker that is slow, or is lost while it has not taken everything.
    """

    def setUp(self) -> None:
        """
        Connect it.
        """
        super().setUp()
        self.publisher = self.slow = SlowPublisher()
        self.connect()
        self.taken()

    def test_slow(self) -> None:
        """
        Sensors wait for their turn, and are published with what is newest then.
        """
        for number in range(100):
            self.report("20", TEMP=str(number))
            self.report("21", TEMP=str(number))
            self.run_on(1)
        self.assertEqual(self.taken(), {})
        self.assertEqual(len(self.slow.waiting), 1)
        self.slow.waiting.popleft().callback(None)
        self.assertEqual(self.taken()[f"{BASE}/20/TEMP"], "99")
        self.slow.waiting.popleft().callback(None)
        self.assertEqual(self.taken()[f"{BASE}/21/TEMP"], "99")
        self.run_on(1)
        while self.slow.waiting:
            self.slow.waiting.popleft().callback(None)
            self.run_on(1)
        self.assertEqual(self.taken()[f"{BASE}/20/TEMP"], "99")

    def test_state(self) -> None:
        """
        The state of a device that is not taken is published later, as it is then.
        """
        self.slow.connected = False
        self.gateway.publish(DeviceEvent("leonardo", "offline", AT))
        self.run_on(1)
        self.gateway.publish(DeviceEvent("leonardo", "online", AT), DeviceEvent("leonardo", "silent", AT))
        self.slow.connected = True
        self.run_on(1)
        self.assertEqual(self.taken(), {f"{BASE}/_availability": "offline"})
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_lost(self) -> None:
        """
        If the broker is lost, nothing more happens, and nothing is left behind.
        """
        self.report("20", TEMP="1")
        self.run_on(1)
        self.values.disconnected()
        self.assertEqual((len(self.slow.waiting), self.clock.getDelayedCalls(), self.gateway.subscribers), (0, [], []))
