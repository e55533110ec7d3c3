"""
The controls of sensors, as the configuration describes them.
"""

from __future__ import annotations

from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from usbgate.config.load import load
from usbgate.config.types import ConfigError
from usbgate.core.model import Button
from usbgate.core.settings import ControlSettings

TYPES = '"switch", "light", "cover", "number" or "select"'
SETTER = 'a command with one argument that is {}, such as "L LEVEL={}"'

# The keys of `[sensor.20.control.Lamp]`, and what is said against them.
WRONG = [
    ("", f"type: missing, expected {TYPES}"),
    ('type = "fan"', f'type: expected {TYPES}, got "fan"'),
    ('typ = "switch"', "typ: unknown key, did you mean type?"),
    ('type = "switch"\non = "ON"', 'off: missing, expected a command such as "ON" or "L LEVEL=50"'),
    ('type = "switch"\non = "ON"\noff = ""', 'off: expected a command such as "ON" or "L LEVEL=50", got ""'),
    ('type = "switch"\non = "1"\noff = "0"\nmin = 5', "min: not for a switch, expected on, off, state"),
    ('type = "switch"\non = "1"\noff = "0"\nstate = "_"', 'state: expected the name of a field such as TEMP, got "_"'),
    ('type = "light"\non = "1"\noff = "0"\nlevel = "L"', "level: only with set"),
    ('type = "cover"\nopen = "UP"\nclose = "DOWN"\nset = "P POS={}"', "set: only with state"),
    ('type = "number"\nset = "T TEMP"', f'set: expected {SETTER}, got "T TEMP"'),
    ('type = "number"\nset = "T A={} B={}"', f'set: expected {SETTER}, got "T A={{}} B={{}}"'),
    ('type = "number"\nset = "T TEMP={}"\nmax = -5', "max: expected more than min, which is 0, got -5.0"),
    ('type = "number"\nset = "T TEMP={}"\nstep = 0', "step: expected a number from 0.001, got 0"),
    ('type = "light"\non = "1"\noff = "0"\nset = "L L={}"\nmax = 2.5', "max: expected whole numbers for a light"),
    ('type = "select"\nset = "M M={}"', 'options: missing, expected different texts such as ["AUTO", "OFF"]'),
    (
        'type = "select"\nset = "M M={}"\noptions = ["A", "A"]',
        'options: expected different texts such as ["AUTO", "OFF"], got ["A", "A"]',
    ),
]


class ControlTests(SynchronousTestCase):
    """
    `[sensor.ID.control.NAME]`.
    """

    def load(self, text: str) -> dict[str, ControlSettings]:
        """
        Return the controls of sensor 20.
        """
        self.file = Path(self.mktemp())
        self.file.write_text(text)
        return load(self.file, state="/s", environ={}).sensors["20"].controls

    def test_wrong(self) -> None:
        """
        A key that is missing, unknown, wrong, or of another type is named.
        """
        for text, line in WRONG:
            with self.subTest(text=text):
                error = self.assertRaises(ConfigError, self.load, f"[sensor.20.control.Lamp]\n{text}")
                self.assertEqual(str(error), f"{self.file}: sensor.20.control.Lamp.{line}")
        error = self.assertRaises(ConfigError, self.load, "[sensor.20]\ncontrol = 5")
        self.assertIn("control: expected tables such as [sensor.ID.control.NAME], got 5", str(error))

    def test_controls(self) -> None:
        """
        Commands are parsed as those of buttons, fields are in upper case, and `{}` stays in the place of the value.
        """
        controls = self.load(
            '[sensor.20.control.Lamp]\ntype = "light"\non = "ON"\noff = "L LEVEL=0"\nset = "L level={} RAMP=2"\n'
            'state = "level"\nmax = 255\n[sensor.20.control."Sétpoint 2"]\ntype = "number"\nset = "T TEMP={}"'
        )
        self.assertEqual(
            controls,
            {
                "Lamp": ControlSettings(
                    type="light",
                    on=Button("", "ON"),
                    off=Button("", "L", {"LEVEL": "0"}),
                    set=Button("", "L", {"LEVEL": "{}", "RAMP": "2"}),
                    state="LEVEL",
                    max=255.0,
                ),
                "Sétpoint 2": ControlSettings(type="number", set=Button("", "T", {"TEMP": "{}"})),
            },
        )
