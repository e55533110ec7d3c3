"""
The lines of `watch`, as the demo shows them.
"""

from __future__ import annotations

from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from usbgate.cli.demo import configuration
from usbgate.cli.readings import rows
from usbgate.config.load import load
from usbgate.core.settings import FieldSettings, SensorSettings
from usbgate.simulator.sensors import furnish


class RowsTests(SynchronousTestCase):
    """
    Lines to rows.
    """

    def test_rows(self) -> None:
        """
        There is a row for each reading, with the sensor's name and the unit, and one for a device's state.
        """
        fields = {"TEMP": FieldSettings(unit="°C"), "HUM": FieldSettings(unit="%")}
        sensors = {"22": SensorSettings(name="bathroom climate", fields=fields)}
        line = "EVENT:reading_ID:22_TEMP:23.1_HUM:60_MSG:J_AT:2013-03-11T21:02:10.123Z"
        temp, hum = [row.plain for row in rows(line, sensors)]
        self.assertRegex(temp, r"^\d\d:\d\d:10 +22 bathroom climate +TEMP +23.1 °C +answers J$")
        self.assertRegex(hum, r" HUM +60 % ")
        [low] = rows("EVENT:reading_ID:22_HUM:low_AT:2013-03-11T21:02:10.123Z", sensors)
        self.assertRegex(low.plain, r" HUM +low$")
        [unknown] = rows("EVENT:reading_ID:5_X:1_AT:2013-03-11T21:02:10.123Z", sensors)
        self.assertRegex(unknown.plain, r"^\d\d:\d\d:10 +5 +X +1$")
        self.assertIn("arduino is online", rows("EVENT:device_DEV:arduino_STATE:online", sensors)[0].plain)
        for other in ("OK:watch", "nonsense"):
            self.assertEqual(rows(other, sensors), [])

    def test_configuration(self) -> None:
        """
        The demo's configuration has the sensors of the simulated home.
        """
        file = Path(self.mktemp())
        file.write_text(configuration(1, 2), encoding="utf-8")
        settings = load(file, environ={})
        self.assertEqual({*settings.sensors}, {*furnish()})
        self.assertEqual(
            (settings.listen, settings.http.listen), (("tcp:1:interface=127.0.0.1",), "tcp:2:interface=127.0.0.1")
        )
