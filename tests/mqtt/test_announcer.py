"""
When Home Assistant learns of sensors, with a gateway and a publisher in memory.
"""

from __future__ import annotations

import json

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.support.memory_gateway import MemoryGateway, report_event
from tests.support.publisher import MemoryPublisher, Published
from usbgate.core.model import Button
from usbgate.core.settings import FieldSettings, SensorSettings
from usbgate.gateway.interfaces import DeviceSummary, SensorSummary
from usbgate.mqtt import announcer
from usbgate.mqtt.announcer import GATHER, MESSAGES_A_TURN, TURN, Announcer
from usbgate.mqtt.discovery import Discovery
from usbgate.mqtt.interfaces import Message
from usbgate.testing import AT, reading

DISCOVERY = Discovery("home")
GATEWAY = DISCOVERY.gateway


class AnnouncerTests(SynchronousTestCase):
    """
    `Announcer`, connected.
    """

    def setUp(self) -> None:
        """
        Connect; nothing is known of a sensor yet.
        """
        self.clock = Clock()
        self.gateway = MemoryGateway()
        self.gateway.known_devices = [DeviceSummary("leonardo", "/dev/ttyACM0", "online", AT)]
        self.publisher = MemoryPublisher()
        self.retained: dict[str, Published] = {}  # by device of Home Assistant
        self.all: list[Published] = []
        self.changed: list[str] = []
        self.announcer = self.make()
        self.announcer.connected(self.publisher)

    def make(self, extent: str = "all") -> Announcer:
        """
        Make an announcer.
        """
        return Announcer(self.clock, self.gateway, DISCOVERY, extent=extent, changed=self.changed.append)

    def announced(self, seconds: float = 3 * GATHER) -> list[tuple[str, list[str]]]:
        """
        Let time pass, and return what was announced then: devices of Home Assistant, with their components.
        """
        for _ in range(round(seconds / TURN)):
            self.clock.advance(TURN)
        found: list[tuple[str, list[str]]] = []
        for each in self.publisher.take():
            device = DISCOVERY.device_of(each.topic)
            assert device is not None
            self.assertEqual(each[2:], (True, None, None))
            self.retained[device] = each
            self.all.append(each)
            found.append((device, [*json.loads(each.payload)["components"]] if each.payload else []))
        return found

    def report(self, sensor: str, **values: str) -> None:
        """
        Let the leonardo report a sensor.
        """
        for field, value in values.items():
            number = float(value) if value.replace(".", "").isdigit() else None
            key = (sensor, field)
            self.gateway.readings = [each for each in self.gateway.readings if (each.sensor, each.field) != key]
            self.gateway.readings.append(reading(value if number is None else number, sensor=sensor, field=field))
        if self.gateway.sensor(sensor) is None:
            self.gateway.known_sensors.append(SensorSummary(sensor, "leonardo", [], AT, 1))
        self.gateway.publish(report_event(sensor, **values))

    def receive(self, topic: str, payload: bytes, retained: bool = False) -> None:
        """
        Let the broker deliver a message.
        """
        self.announcer.received(Message(topic, payload, retained))

    def test_connected(self) -> None:
        """
        The gateway is announced first, then all sensors that are known or can be commanded.
        """
        self.gateway.presented = {"9": SensorSettings(commands=(Button("On", "ON"),)), "8": SensorSettings(name="new")}
        self.report("20", TEMP="21.5")
        self.announcer.disconnected()
        self.announcer.connected(self.publisher)
        self.assertEqual(
            self.announced(),
            [
                (GATEWAY, ["binary_sensor_leonardo", "event__5Fevents"]),
                ("usbgate__home__9", ["button_On", "event__5Fevents"]),
                ("usbgate__home__20", ["sensor_TEMP"]),
            ],
        )
        self.assertEqual(self.changed, ["9", "20"])

    def test_gathered(self) -> None:
        """
        What changes of a sensor within two seconds is one message, and the next one comes two seconds later.
        """
        self.announced()
        self.report("20", TEMP="21.5")
        self.assertEqual(self.announced(GATHER - TURN), [])
        self.report("20", HUM="45")
        self.assertEqual(self.announced(2 * TURN), [("usbgate__home__20", ["sensor_HUM", "sensor_TEMP"])])
        self.report("20", LIGHT="5")
        self.assertEqual(self.announced(GATHER - TURN), [])
        self.assertEqual(len(self.announced(2 * TURN)), 1)

    def test_unchanged(self) -> None:
        """
        What is announced already is not announced again.
        """
        self.report("20", TEMP="21.5")
        self.announced()
        for value in ("22", "nan"):
            self.report("20", TEMP=value)
        self.assertEqual(self.announced(), [])

    def test_texts_and_numbers(self) -> None:
        """
        A field whose first value was a text is announced again as a number, and stays one.
        """
        self.report("20", TEMP="ERR")
        self.announced()
        self.report("20", TEMP="21.5")
        self.assertEqual(len(self.announced()), 1)
        self.report("20", TEMP="ERR", HUM="45")
        self.announced()
        component = json.loads(self.retained["usbgate__home__20"].payload)["components"]["sensor_TEMP"]
        self.assertEqual(component["state_class"], "measurement")

    def test_another_device(self) -> None:
        """
        A sensor that passes to another device is announced with its topics; what others report of it is not.
        """
        self.report("20", TEMP="21.5")
        self.announced()
        event = report_event("20", TEMP="5")._replace(device="uno")
        self.gateway.publish(event)
        self.assertEqual(self.announced(), [])
        self.gateway.known_sensors = [SensorSummary("20", "uno", [], AT, 1)]
        self.gateway.readings = [reading(5.0, device="uno", field="TEMP")]
        self.gateway.publish(event)
        self.assertEqual(len(self.announced()), 1)
        self.assertIn(b"usbgate/home/uno/20/TEMP", self.retained["usbgate__home__20"].payload)

    def test_birth(self) -> None:
        """
        When Home Assistant has started, everything is announced again; that it had, at the connection, changes nothing.
        """
        self.report("20", TEMP="21.5")
        self.announced()
        self.changed.clear()
        self.receive("homeassistant/status", b"online", retained=True)
        self.receive("homeassistant/status", b"offline")
        self.assertEqual(self.announced(), [])
        self.receive("homeassistant/status", b"online")
        self.assertEqual(self.announced(GATHER - TURN), [])
        self.assertEqual([device for device, _ in self.announced()], [GATEWAY, "usbgate__home__20"])
        self.assertEqual(self.changed, [])

    def test_spread(self) -> None:
        """
        Many sensors are announced some at a time.
        """
        self.announced()
        for number in range(30):
            self.report(str(number), TEMP="5")
        self.announced(GATHER - TURN)
        counts = [len(self.announced(TURN)) for _ in range(9)]
        self.assertEqual(max(counts), MESSAGES_A_TURN)
        self.assertEqual(sum(counts), 30)

    def test_removed_component(self) -> None:
        """
        A component that is no more is removed by its platform alone, and then left out.
        """
        self.gateway.presented = {"20": SensorSettings(commands=(Button("On", "ON"),))}
        self.report("20", TEMP="21.5")
        self.announced()
        self.gateway.presented = {"20": SensorSettings(fields={"TEMP": FieldSettings(kind="door")})}
        self.announcer.refresh()
        first, second = [keys for device, keys in self.announced() if device != GATEWAY]
        self.assertEqual(first, ["binary_sensor_TEMP", "sensor_TEMP", "button_On", "event__5Fevents"])
        self.assertEqual(second, ["binary_sensor_TEMP"])
        removals = [json.loads(each.payload)["components"] for each in self.all if b"button_On" in each.payload][-1]
        self.assertEqual(removals["button_On"], {"platform": "button"})

    def restart(self) -> None:
        """
        Start anew, with a broker that has what was announced.
        """
        self.announced()
        self.announcer.disconnected()
        self.announcer = self.make()
        self.announcer.connected(self.publisher)
        for device, message in self.retained.items():
            self.receive(DISCOVERY.topic(device), message.payload, retained=True)

    def test_earlier_run(self) -> None:
        """
        What an earlier run announced stays though its sensor has not reported yet; commands that are configured no
        longer do not. A sensor that this run announced, and has forgotten since, is removed.
        """
        self.gateway.presented = {"20": SensorSettings(commands=(Button("On", "ON"),))}
        self.report("20", TEMP="21.5")
        self.report("NEW", TEMP="21.5")
        self.restart()
        self.gateway.presented = {}
        self.gateway.known_sensors = self.gateway.known_sensors[:1]
        found = self.announced()
        self.assertEqual({device for device, _ in found}, {GATEWAY, "usbgate__home__20"})
        self.assertIn(("usbgate__home__20", ["sensor_TEMP", "button_On", "event__5Fevents"]), found)
        self.assertEqual(found[-1], ("usbgate__home__20", ["sensor_TEMP"]))

        self.gateway.known_sensors = []
        self.announcer.refresh()
        self.assertIn(("usbgate__home__20", []), self.announced())

    def test_replaced(self) -> None:
        """
        A sensor that is another one now is removed, also if that became so in an earlier run.
        """
        self.report("20", TEMP="21.5")
        self.report("NEW", TEMP="21.5")
        self.announced()
        self.gateway.replace("20", "NEW", "me")
        self.announcer.refresh()
        self.assertEqual(self.announced(), [("usbgate__home__NEW", [])])
        self.receive(DISCOVERY.topic("usbgate__home__NEW"), b'{"components": {}}')
        self.assertEqual(self.announced(), [("usbgate__home__NEW", [])])
        self.gateway.undo_replacement("20", "me")
        self.report("NEW", TEMP="21.5")
        self.assertEqual(self.announced(), [("usbgate__home__NEW", ["sensor_TEMP"])])

    def test_fields_of_earlier_runs(self) -> None:
        """
        A field that an earlier run announced stays as it was until it is reported again.
        """
        self.gateway.presented = {"20": SensorSettings(name="Bedroom")}
        self.report("20", TEMP="21.5", HUM="45", DOOR="1")
        self.restart()
        before = json.loads(self.retained["usbgate__home__20"].payload)
        self.gateway.readings, self.gateway.known_sensors = [], []
        self.assertEqual(self.announced()[1:], [("usbgate__home__20", ["sensor_DOOR", "sensor_HUM", "sensor_TEMP"])])
        self.assertEqual(json.loads(self.retained["usbgate__home__20"].payload), before)

        self.gateway.presented = {
            "20": SensorSettings(name="Bedroom", fields={"DOOR": FieldSettings(kind="door", label="Front")})
        }
        self.report("20", TEMP="22")
        self.assertEqual(self.announced(), [])
        self.report("20", DOOR="1")
        marked, clean = self.announced()
        self.assertEqual(marked[1], ["sensor_HUM", "sensor_TEMP", "binary_sensor_DOOR", "sensor_DOOR"])
        self.assertEqual(clean[1], ["sensor_HUM", "sensor_TEMP", "binary_sensor_DOOR"])
        self.restart()
        self.assertEqual(self.announced()[1:], [clean])

    def test_devices_of_earlier_runs(self) -> None:
        """
        A device that is configured no longer is removed.
        """
        self.restart()
        self.gateway.known_devices = [DeviceSummary("uno", "/dev/ttyACM0", "online", AT)]
        self.assertEqual(
            [keys for _, keys in self.announced()],
            [
                ["event__5Fevents", "binary_sensor_uno", "binary_sensor_leonardo"],
                ["event__5Fevents", "binary_sensor_uno"],
            ],
        )

    def test_too_much(self) -> None:
        """
        A message that the broker does not take is tried again two seconds later; others go out.
        """
        publish = self.publisher.publish
        self.patch(
            self.publisher,
            "publish",
            lambda topic, *args, **kwargs: GATEWAY + "/" not in topic and publish(topic, *args, **kwargs),
        )
        self.report("20", TEMP="21.5")
        self.assertEqual([device for device, _ in self.announced()], ["usbgate__home__20"])
        self.patch(self.publisher, "publish", publish)
        self.assertEqual([device for device, _ in self.announced(GATHER + TURN)], [GATEWAY])

    def test_components_of_others(self) -> None:
        """
        What somebody else has put into a message of ours does not stay.
        """
        component = {"platform": "sensor", "unique_id": "usbgate__home__20__HUM", "name": "x"}
        wrong = {
            "sensor_A": component,
            "fan_HUM": {**component, "platform": "fan"},
            "sensor_B": {**component, "unique_id": "usbgate__home__20__b_"},
            "sensor_C": {"platform": "sensor"},
            "sensor_D": 5,
        }
        message = json.dumps({"components": {**wrong, "sensor_HUM": component}}).encode()
        self.receive(DISCOVERY.topic("usbgate__home__20"), message, retained=True)
        self.report("20", TEMP="21.5")
        self.assertEqual(self.announced()[-1], ("usbgate__home__20", ["sensor_HUM", "sensor_TEMP"]))

    def test_nothing_to_show(self) -> None:
        """
        A sensor of which nothing is left to show is removed.
        """
        self.gateway.presented = {"9": SensorSettings(commands=(Button("On", "ON"),))}
        self.announcer.refresh()
        self.announced()
        self.gateway.presented = {"9": SensorSettings()}
        self.announcer.refresh()
        self.assertIn(("usbgate__home__9", []), self.announced())

    def test_removed_by_others(self) -> None:
        """
        A device that somebody removed in Home Assistant appears again when something of it changes.
        """
        self.report("20", TEMP="21.5")
        self.announced()
        self.receive(DISCOVERY.topic("usbgate__home__20"), b"")
        self.assertEqual(self.announced(), [])
        self.report("20", HUM="45")
        self.assertEqual(len(self.announced()), 1)

    def test_configured(self) -> None:
        """
        With `configured`, others are neither announced nor left.
        """
        self.announcer.disconnected()
        self.announcer = self.make("configured")
        self.announcer.connected(self.publisher)
        self.gateway.presented = {"20": SensorSettings()}
        self.report("20", TEMP="21.5")
        self.report("21", TEMP="21.5")
        self.receive(DISCOVERY.topic("usbgate__home__22"), b'{"components": {}}', retained=True)
        found = self.announced()
        self.assertEqual([device for device, _ in found], [GATEWAY, "usbgate__home__20", "usbgate__home__22"])
        self.assertEqual(found[2], ("usbgate__home__22", []))

    def test_none(self) -> None:
        """
        With `none`, all that was announced is removed; what others announced stays.
        """
        self.announcer.disconnected()
        self.announcer = self.make("none")
        self.announcer.connected(self.publisher)
        self.report("20", TEMP="21.5")
        for device in (GATEWAY, "usbgate__home__20", "usbgate__homer", "zigbee", "usbgate__home__a__b"):
            self.receive(DISCOVERY.topic(device), b"{}", retained=True)
        self.assertEqual(self.announced(), [(GATEWAY, []), ("usbgate__home__20", [])])

    def test_foreign_messages(self) -> None:
        """
        Whatever else stands on one of our topics is replaced.
        """
        self.report("20", TEMP="21.5")
        self.announced()
        for payload in (
            b"\xff",
            b"[]",
            b'{"components": 5}',
            b"[" * 100_000,
            b'{"components": {"a": {"platform": "x"}}}',
            b'{"components": {"a": {"platform": "\xff", "unique_id": "a"}}}',
            b'{"components": {"a": {"platform": "x", "unique_id": "a", "name": "\xff"}}}',
        ):
            self.receive(DISCOVERY.topic("usbgate__home__20"), payload)
            self.assertEqual(self.announced(), [("usbgate__home__20", ["sensor_TEMP"])])
        self.receive(DISCOVERY.topic("usbgate__home__20"), self.retained["usbgate__home__20"].payload)
        self.assertEqual(self.announced(), [])

    def test_limits(self) -> None:
        """
        So many messages, and so many bytes, are read of what others may have made up; our own sensors are announced all
        the same while there is room for devices.
        """
        self.patch(announcer, "DEVICES_LIMIT", 4)
        self.patch(announcer, "BYTES_LIMIT", 1000)
        self.announced()
        component = {"platform": "sensor", "unique_id": "usbgate__home__20__HUM"}
        message = json.dumps({"components": {"sensor_HUM": {**component, "name": "x" * 1000}}}).encode()
        for sensor in ("20", "21", "22", "23"):
            self.receive(DISCOVERY.topic(DISCOVERY.device(sensor)), message, retained=True)
        for sensor in ("20", "24"):
            self.report(sensor, TEMP="21.5")
        self.assertEqual(self.announced(), [("usbgate__home__20", ["sensor_TEMP"])])

    def test_broker_takes_nothing(self) -> None:
        """
        What can't be published waits; nothing is published while there is no room.
        """
        self.publisher.connected = False
        self.report("20", TEMP="21.5")
        self.assertEqual(self.announced(), [])
        self.publisher.connected = True
        room: Deferred[None] = Deferred()
        self.patch(self.publisher, "room", lambda: room)
        self.assertEqual(self.announced(), [])
        room.callback(None)
        self.assertEqual(len(self.announced(0)), 2)

    def test_disconnected(self) -> None:
        """
        After the connection, nothing is left: no timer, and no subscription.
        """
        self.report("20", TEMP="21.5")
        self.announcer.disconnected()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(self.gateway.subscribers, [])
        self.announcer.refresh()
        self.report("20", TEMP="21.5")
        self.assertEqual(self.announced(), [])
