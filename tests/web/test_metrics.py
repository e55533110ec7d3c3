"""
The metrics for Prometheus, and what promtool says of them.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from unittest import skipIf

from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families
from twisted.trial.unittest import SynchronousTestCase

from tests.support.memory_gateway import MemoryGateway
from usbgate.core.counts import LinkCounts
from usbgate.core.model import Alarm
from usbgate.core.settings import FieldSettings, SensorSettings
from usbgate.gateway.interfaces import DeviceSummary, SensorSummary
from usbgate.testing import AT, reading
from usbgate.web.metrics import PIECE, metrics_pieces

PROMTOOL = shutil.which("promtool")

SMOKE = Alarm("a1", "leonardo", "2", "SMOKE", "== 1", 1.0, None, AT)


class MetricsTests(SynchronousTestCase):
    """
    A gateway with a little of everything.
    """

    def setUp(self) -> None:
        """
        Fill the gateway.
        """
        self.gateway = MemoryGateway()
        self.gateway.known_devices = [DeviceSummary("leonardo", "/dev/x", "online", AT, LinkCounts(3))]
        self.gateway.known_sensors = [SensorSummary("20", "leonardo", ["BAT", "HUM", "TEMP"], AT, 7)]
        self.gateway.current_status = replace(self.gateway.current_status, sensors=1)
        self.gateway.presented = {"20": SensorSettings(fields={"TEMP": FieldSettings(unit="°C")})}
        self.gateway.readings = [
            reading(21.5, sensor="20", field="TEMP"),
            reading("OK", sensor="20", field="BAT"),
            reading(48.0, sensor="20", field="HUM")._replace(text="48%"),
            reading(3.0, sensor='a"b\\', field="VALUE"),
        ]
        self.gateway.raised = [SMOKE, SMOKE._replace(alarm="a2", sensor="3", ended=AT)]

    def text(self, limit: int = 1000) -> str:
        """
        Return the metrics.
        """
        return b"".join(metrics_pieces(self.gateway, dict, lambda: AT + 1500, limit)).decode()

    def metrics(self, limit: int = 1000) -> dict[str, Metric]:
        """
        Return the metrics by name.
        """
        families = list(text_string_to_metric_families(self.text(limit)))
        found = {family.name: family for family in families}
        self.assertEqual(len(found), len(families))
        return found

    def test_readings(self) -> None:
        """
        The newest number of each field is a metric, with the unit of the configuration, of the dialect or of
        the value; a text is none.
        """
        self.gateway.known_fields = {"VALUE": FieldSettings(unit="Wh"), "TEMP": FieldSettings(unit="K")}
        samples = [
            (sample.labels["sensor"], sample.labels["field"], sample.labels["unit"], sample.value)
            for sample in self.metrics()["usbgate_reading"].samples
        ]
        expected = [("20", "TEMP", "°C", 21.5), ("20", "HUM", "%", 48.0), ('a"b\\', "VALUE", "Wh", 3.0)]
        self.assertEqual(samples, expected)
        self.assertIn(
            'usbgate_reading{device="leonardo",field="TEMP",gateway="pi",sensor="20",unit="°C"} 21.5', self.text()
        )

    def test_ages_and_alarms(self) -> None:
        """
        Each sensor has its age, each open alarm says whether its condition holds, and open alarms are counted.
        """
        self.assertIn('usbgate_sensor_age_seconds{device="leonardo",gateway="pi",sensor="20"} 1.5', self.text())
        found = self.metrics()
        active = {sample.labels["sensor"]: sample.value for sample in found["usbgate_alarm_active"].samples}
        self.assertEqual(active, {"2": 1.0, "3": 0.0})
        states = {sample.labels["state"]: sample.value for sample in found["usbgate_open_alarms"].samples}
        self.assertEqual(states, {"active": 1.0, "ended": 1.0})

    def test_limit(self) -> None:
        """
        There are no more readings, sensors and alarms than the limit; those left out are counted.
        """
        for limit, shown, left_out in ((1, (1, 1, 1), (2, 0, 1)), (0, (0, 0, 0), (3, 1, 2)), (3, (3, 1, 2), (0, 0, 0))):
            found = self.metrics(limit)
            names = ("usbgate_reading", "usbgate_sensor_age_seconds", "usbgate_alarm_active")
            self.assertEqual(tuple(len(found[name].samples) for name in names), shown)
            samples = found["usbgate_metrics_left_out"].samples
            counts = {sample.labels["what"]: sample.value for sample in samples}
            self.assertEqual(counts, dict(zip(("readings", "sensors", "alarms"), left_out, strict=True)))

    def test_pieces(self) -> None:
        """
        Many readings are one metric, in several pieces of limited size.
        """
        count = 2 * PIECE + 1
        self.gateway.readings = [reading(n, sensor=str(n)) for n in range(count)]
        values = [sample.value for sample in self.metrics(5000)["usbgate_reading"].samples]
        self.assertEqual(values, list(range(count)))
        self.assertEqual(self.text(5000).count("# HELP usbgate_reading "), 1)
        pieces: Iterator[bytes] = metrics_pieces(self.gateway, dict, lambda: AT, 5000)
        self.assertLessEqual(max(piece.count(b"usbgate_reading{") for piece in pieces), PIECE)

    def test_kinds(self) -> None:
        """
        What only grows is a counter, what can also fall is a gauge, and each has a help of several words.
        """
        found = self.metrics()
        kinds = {name: family.type for name, family in found.items()}
        self.assertEqual(kinds["usbgate_rejected_rows"], "gauge")
        self.assertEqual(kinds["usbgate_journal_lost_rows"], "counter")
        self.assertEqual({name for name, kind in kinds.items() if kind not in ("counter", "gauge", "histogram")}, set())
        for name, family in found.items():
            self.assertGreater(len(family.documentation.split()), 2, name)

    @skipIf(PROMTOOL is None, "promtool is not installed (Debian: prometheus)")
    def test_promtool(self) -> None:
        """
        `promtool check metrics` finds nothing.
        """
        checked = subprocess.run(
            [str(PROMTOOL), "check", "metrics"], input=self.text(), capture_output=True, text=True, timeout=60
        )
        self.assertEqual((checked.returncode, checked.stdout + checked.stderr), (0, ""))
