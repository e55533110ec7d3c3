"""
Events over MQTT, with a gateway and a publisher in memory.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Raw
from twisted.trial.unittest import SynchronousTestCase

from tests.support.memory_gateway import AT_TEXT, MemoryGateway, report_event
from tests.support.publisher import MemoryPublisher, Published
from usbgate.core.model import Alarm, AlarmEvent
from usbgate.core.settings import SensorSettings
from usbgate.gateway.interfaces import SensorSummary
from usbgate.mqtt.events import EventTopics
from usbgate.mqtt.messages import EVENT_TYPES, MqttFailure
from usbgate.mqtt.topics import Topics
from usbgate.testing import AT

ALARM = Alarm("a1", "leonardo", "2", "SMOKE", "== 1", 1.0, None, AT)


class EventTopicsTests(SynchronousTestCase):
    """
    `EventTopics`, connected.
    """

    def setUp(self) -> None:
        """
        Connect.
        """
        self.gateway = MemoryGateway()
        self.publisher = MemoryPublisher()
        self.events = EventTopics(self.gateway, Topics("flat"), lambda: AT)
        self.events.connected(self.publisher)

    def published(self, *topics: str) -> Published:
        """
        Return what was published since the last call: the same to these topics.
        """
        published: Sequence[Published] = self.publisher.take()
        self.assertEqual([each.topic for each in published], list(topics))
        self.assertEqual(len({each[1:] for each in published}), 1)
        self.assertEqual(published[0][2:], (False, None, None))
        return published[0]

    def test_alarms(self) -> None:
        """
        Each change of an alarm, with the alarm as it is now, goes to the topic of its sensor and to that of all.
        """
        self.gateway.presented = {"2": SensorSettings(name="smoke", place="hall")}
        ended = ALARM._replace(ended=AT + 1000)
        acknowledged = ended._replace(acknowledged=AT + 2000, by="Zoé")
        for alarm, change in ((ALARM, "raised"), (ended, "ended"), (acknowledged, "acknowledged")):
            self.gateway.publish(AlarmEvent(alarm, change, AT))
            json = self.published("usbgate/flat/events", "usbgate/flat/leonardo/2/_events").json
            self.assertEqual(json["event_type"], f"alarm_{change}")
            self.assertIn(json["event_type"], EVENT_TYPES)
            about = [json[key] for key in ("at", "id", "sensor", "field", "value", "name", "place", "since")]
            self.assertEqual(about, [AT_TEXT, "a1", "2", "SMOKE", 1.0, "smoke", "hall", AT_TEXT])
        self.assertEqual(
            (json["ended"], json["acknowledged"]),
            (
                "2013-03-11T21:02:11.123Z",
                {"by": "Zoé", "at": "2013-03-11T21:02:12.123Z"},
            ),
        )

    def test_owner(self) -> None:
        """
        The topic of a sensor is that of its own device, whichever has sent the reading.
        """
        self.gateway.known_sensors = [SensorSummary("2", "uno", ["SMOKE"], AT, 1)]
        self.gateway.publish(AlarmEvent(ALARM, "raised", AT))
        self.published("usbgate/flat/events", "usbgate/flat/uno/2/_events")

    def test_others(self) -> None:
        """
        Nothing else is published so, nor is that an alarm from before a restart is the same as another.
        """
        self.gateway.publish(report_event("2"), AlarmEvent(ALARM, "joined", AT))
        self.assertEqual(self.publisher.take(), [])

    def test_failed(self) -> None:
        """
        A failed command goes to the topic of its sensor, too, if that is known: by its device, as it is configured or
        as it has reported.
        """
        self.gateway.presented = {"9": SensorSettings(device="uno"), "8": SensorSettings()}
        self.gateway.known_sensors = [SensorSummary(each, "leonardo", ["T"], AT, 1) for each in ("9", "7")]
        for sensor, *topics in (("9", "uno/9"), ("8",), ("7", "leonardo/7"), ("6",), (None,)):
            self.events.failed(MqttFailure(error="timeout", detail="late", sensor=sensor, command="ON", id=Raw(b"[7]")))
            own = [f"usbgate/flat/{topic}/_events" for topic in topics]
            json = self.published("usbgate/flat/events", *own).json
            expected = {"event_type": "command_failed", "at": AT_TEXT, "error": "timeout", "detail": "late", "id": [7]}
            expected |= {"command": "ON"} if sensor is None else {"command": "ON", "sensor": sensor}
            self.assertEqual(json, expected)
        self.assertIn("command_failed", EVENT_TYPES)

    def test_away(self) -> None:
        """
        While the broker is away, nothing is published, and events need not be made.
        """
        self.events.disconnected()
        self.assertEqual(self.gateway.subscribers, [])
        self.events.failed(MqttFailure(error="timeout", detail="late"))
        self.assertEqual(self.publisher.take(), [])
        self.events.connected(self.publisher)
        self.gateway.publish(AlarmEvent(ALARM, "raised", AT))
        self.assertEqual(len(self.publisher.take()), 2)
