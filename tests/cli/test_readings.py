"""
The lines of `watch`, as people see them.
"""

from __future__ import annotations

import tomllib
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.support.standin import replying
from usbgate.cli.connection import connect
from usbgate.cli.demo import configuration
from usbgate.cli.demotexts import FRENCH, is_french
from usbgate.cli.reader import Reader
from usbgate.cli.readings import ReadingRows
from usbgate.config.load import load
from usbgate.simulator.sensors import furnish

AT = "2013-03-11T21:02:10.123Z"
ALARM = f"ALARM:a1_ID:5_FIELD:X_VALUE:1_CONDITION:== 1_SINCE:{AT}_DEV:uno"


class RowsTests(SynchronousTestCase):
    """
    Lines to rows.
    """

    def setUp(self) -> None:
        """
        Have one sensor with a name and units, one with a long id, and one with an active alarm.
        """
        sensors = [
            f"ID:22_DEV:uno_SEEN:{AT}_REPORTS:1_NAME:bathroom climate_UNITS:TEMP=°C,HUM=%",
            f"ID:28:FF:4C_DEV:uno_SEEN:{AT}_REPORTS:1",
        ]
        with replying({"sensors": sensors, "alarms": [ALARM]}) as (port, _):
            connection = connect(("127.0.0.1", port))
            assert connection is not None
            self.addCleanup(connection.close)
            self.readings = ReadingRows(Reader(connection))

    def rows(self, line: str) -> list[str]:
        """
        Return the rows as plain texts, each with the styles of its last part.
        """
        return [f"{row.plain} <{row.spans[-1].style if row.spans else row.style}>" for row in self.readings.rows(line)]

    def test_readings(self) -> None:
        """
        There is a row for each reading, with the sensor's name and the unit of a number. All columns are aligned, as
        wide as the known ids and names are.
        """
        temp, hum = self.rows(f"EVENT:reading_ID:22_TEMP:23.1_HUM:wet_MSG:J_AT:{AT}")
        self.assertRegex(temp, r"^\d\d:\d\d:10 +22 bathroom climate +TEMP +23.1 °C +answers J <dim>$")
        self.assertRegex(hum, r" HUM +wet  answers")
        (unknown,) = self.rows(f"EVENT:reading_ID:6_X:1_AT:{AT}")
        self.assertRegex(unknown, r"^\d\d:\d\d:10 +6 +X +1 <bold>$")
        (long,) = self.rows(f"EVENT:reading_ID:28:FF:4C_X:1_AT:{AT}")
        self.assertEqual({row.index(field) for row, field in [(temp, "TEMP"), (unknown, "X"), (long, "X")]}, {37})

    def test_alarms(self) -> None:
        """
        Readings of a field are marked while its alarm is active, and so are the changes of alarms.
        """
        reading = f"EVENT:reading_ID:5_X:1_AT:{AT}"
        self.assertIn("<red>", self.rows(reading)[0])
        (ended,) = self.rows(f"EVENT:alarm_CHANGE:ended_{ALARM}_ENDED:{AT}_AT:{AT}")
        self.assertIn("ALARM ended: X == 1 <bold>", ended)
        self.assertIn("<bold>", self.rows(reading)[0])
        (raised,) = self.rows(f"EVENT:alarm_CHANGE:raised_{ALARM}_AT:{AT}")
        self.assertIn("ALARM raised: X == 1 <bold white on red>", raised)
        self.assertIn("<red>", self.rows(reading)[0])
        (seen,) = self.rows(f"EVENT:alarm_CHANGE:acknowledged_{ALARM}_ACKNOWLEDGED:{AT}_BY:Zoé_AT:{AT}")
        self.assertIn("acknowledged by Zoé", seen)

    def test_others(self) -> None:
        """
        A device's state and lost events are rows; what is no event is none.
        """
        self.assertIn("arduino is online <green>", self.rows("EVENT:device_DEV:arduino_STATE:online")[0])
        self.assertIn("arduino is offline <red>", self.rows("EVENT:device_DEV:arduino_STATE:offline")[0])
        self.assertIn("12 events were dropped", self.rows("EVENT:dropped_COUNT:12")[0])
        for other in ("OK:watch", "nonsense", "EVENT:new_X:1"):
            self.assertEqual(self.rows(other), [])

    def test_configuration(self) -> None:
        """
        The demo's configuration has the sensors of the simulated home.
        """
        file = Path(self.mktemp())
        file.write_text(configuration(1, 2), encoding="utf-8")
        settings = load(file, environ={})
        self.assertEqual({*settings.sensors}, {*furnish()})
        self.assertEqual(
            (settings.endpoints, settings.http.listen.endpoint),
            (("tcp:1:interface=127.0.0.1",), "tcp:2:interface=127.0.0.1"),
        )

    def test_french(self) -> None:
        """
        In a French locale, each name, place and button of the demo is French, and nothing else differs.
        """
        locales = [{}, {"LANG": "fr_FR.UTF-8"}, {"LANG": "fr_CA", "LC_ALL": "C"}, {"LANG": "C", "LC_MESSAGES": "fr_CH"}]
        self.assertEqual([is_french(each) for each in locales], [False, True, False, True])
        both = [tomllib.loads(configuration(1, 2, french)) for french in (False, True)]
        texts: list[list[str]] = [[], []]
        for configured, found in zip(both, texts, strict=True):
            for sensor in configured["sensor"].values():
                commands = sensor.pop("commands", {})
                found += [sensor.pop("name"), sensor.pop("place"), *commands]
                sensor["commands"] = list(commands.values())
        self.assertEqual(*both)
        for english, french in zip(*texts, strict=True):
            self.assertEqual(FRENCH[english], french)
