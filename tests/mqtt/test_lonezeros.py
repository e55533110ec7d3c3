"""
Counters that report a 0 when they start, and values that are published again.
"""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.support.memory_gateway import MemoryGateway, report_event
from tests.support.publisher import MemoryPublisher
from usbgate.core.settings import FieldSettings, SensorSettings
from usbgate.gateway.interfaces import SensorSummary
from usbgate.mqtt.lonezeros import LoneZeros
from usbgate.mqtt.topics import Topics
from usbgate.mqtt.values import Values
from usbgate.testing import AT, reading


class LoneZerosTests(SynchronousTestCase):
    """
    `LoneZeros`.
    """

    def test_lone(self) -> None:
        """
        A 0 is held until another one comes; each series for itself, and anew after any other value.
        """
        zeros = LoneZeros()
        values = [(5.0, False), (0.0, True), (6.0, False), (0.0, True), (0.0, False), (0.0, False), (1.0, False)]
        for number, (value, held) in enumerate(values):
            self.assertIs(zeros.holds(reading(value, at=AT + number)), held)
            self.assertIs(zeros.holds(reading(value, at=AT + number)), held)  # the same one again
        self.assertTrue(zeros.holds(reading(0.0, at=AT + 9)))
        self.assertTrue(zeros.holds(reading(0.0, at=AT + 10, sensor="21")))
        self.assertFalse(zeros.holds(reading("nan", at=AT + 11, sensor="21")))


class ValuesTests(SynchronousTestCase):
    """
    `Values` with a gateway and a publisher in memory.
    """

    def setUp(self) -> None:
        """
        Connect; sensor 20 has a counter.
        """
        self.clock = Clock()
        self.gateway = MemoryGateway()
        self.gateway.presented = {"20": SensorSettings(fields={"KWH": FieldSettings(never_falls=True)})}
        self.gateway.known_sensors = [SensorSummary("20", "leonardo", ["KWH", "TEMP"], AT, 1)]
        self.publisher = MemoryPublisher()
        self.values = Values(self.clock, lambda: AT, self.gateway, Topics("home"))
        self.values.connected(self.publisher)
        self.published()

    def published(self) -> dict[str, str]:
        """
        Return what was published since the last call, by the last level of its topic.
        """
        self.clock.pump([0.1] * 5)
        return {each.topic.rpartition("/")[2]: each.payload.decode() for each in self.publisher.take()}

    def report(self, kwh: float, at: int) -> dict[str, str]:
        """
        Report the counter and a temperature of 0, and return what was published.
        """
        self.gateway.readings = [reading(kwh, field="KWH", at=at), reading(0.0, field="TEMP", at=at)]
        self.gateway.publish(report_event("20", KWH=str(kwh), TEMP="0"))
        published = self.published()
        published.pop("20")
        return published

    def test_lone_zeros(self) -> None:
        """
        A 0 of what never falls is published when it comes twice, not when it is published again; any other one at once.
        """
        self.assertEqual(self.report(5.0, AT), {"KWH": "5", "TEMP": "0"})
        self.assertEqual(self.report(0.0, AT + 1), {"TEMP": "0"})
        self.values.refresh()
        self.assertNotIn("KWH", self.published())
        self.assertEqual(self.report(0.0, AT + 2), {"KWH": "0", "TEMP": "0"})

    def test_again(self) -> None:
        """
        The values of a sensor are published again; those of one that is not known, or after the connection, are not.
        """
        self.report(5.0, AT)
        self.values.again("20")
        self.values.again("21")
        self.assertEqual({*self.published()}, {"20", "KWH", "TEMP"})
        self.values.disconnected()
        self.values.again("20")
        self.values.refresh()
        self.assertEqual(self.published(), {})

    def test_ids(self) -> None:
        """
        What is spelled as people spell no number stays as it is; a number comes without its unit.
        """
        self.gateway.readings = [
            reading(815.0, text="0815", field="KWH"),
            reading(21.5, text="+21.50°C", field="TEMP"),
        ]
        self.values.again("20")
        published = self.published()
        self.assertEqual((published["KWH"], published["TEMP"]), ("0815", "21.5"))
