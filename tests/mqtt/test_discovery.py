"""
Home Assistant's discovery messages.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest import SkipTest

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.support.discovery import FOLDER, MESSAGES, SET, field, message, spell
from usbgate.core.fieldkinds import FIELD_KINDS
from usbgate.core.fieldline import UNITS
from usbgate.core.model import Button
from usbgate.core.settings import ControlSettings, SensorSettings
from usbgate.mqtt.deviceclasses import DEVICE_CLASSES, device_class, spell_unit, state_class
from usbgate.mqtt.discovery import Discovery

NAMES = st.text(st.characters(exclude_categories=("C", "Z")), min_size=1, max_size=6)
UNIT_SPELLINGS = st.sampled_from([*UNITS, "kwh", "Lux", "degC", "m^3", "kn", "°", "kvarh"]) | NAMES


@st.composite
def drawn_messages(draw: st.DrawFn) -> dict[str, Any]:
    """
    Draw the message of any sensor.
    """
    fields = [
        field(
            name,
            draw(st.just(21.5) | st.just("OPEN")),
            draw(st.sampled_from([None, "21.5°C", "0815"])),
            kind=draw(st.sampled_from([None, *FIELD_KINDS])),
            unit=draw(st.none() | UNIT_SPELLINGS),
            decimals=draw(st.none() | st.integers(0, 9)),
            never_falls=draw(st.booleans()),
            label=draw(st.none() | NAMES | st.fixed_dictionaries({"fr": NAMES})),
            values=draw(st.dictionaries(NAMES, NAMES, max_size=3)),
        )
        for name in draw(st.lists(NAMES, max_size=4, unique=True))
    ]
    command = Button("", draw(NAMES), {"A": draw(NAMES)})
    setter = Button("", draw(NAMES), {"A": "{}", "B": draw(NAMES)})
    controls = {
        "switch": ControlSettings(type="switch", on=command, off=command, state=draw(st.none() | NAMES)),
        "light": ControlSettings(type="light", on=command, off=command, state="S", set=setter, level="L"),
        "cover": ControlSettings(
            type="cover", open=command, close=command, state="S", set=draw(st.none() | st.just(setter))
        ),
        "number": ControlSettings(type="number", set=setter, state="S"),
        "select": ControlSettings(
            type="select", set=setter, options=tuple(draw(st.lists(NAMES, min_size=1))), state="S"
        ),
    }
    about = SensorSettings(
        name=draw(st.none() | NAMES),
        place=draw(st.none() | NAMES),
        stale=draw(st.floats(1, 1e7)),
        commands=(Button(draw(NAMES), draw(NAMES), {"A": draw(NAMES)}),),
        controls={draw(NAMES): controls[each] for each in draw(st.sets(st.sampled_from(sorted(controls))))},
    )
    return message(
        about, *fields, sensor=draw(NAMES), gateway=draw(NAMES), language=draw(st.sampled_from(["en", "fr"]))
    )


class DiscoveryTests(SynchronousTestCase):
    """
    The messages.
    """

    def test_examples(self) -> None:
        """
        The messages are those that were read, and accepted by Home Assistant.
        """
        self.assertEqual({file.stem for file in FOLDER.glob("*.json")}, set(MESSAGES))
        for name, example in MESSAGES.items():
            with self.subTest(name=name):
                self.assertEqual(spell(example), (FOLDER / f"{name}.json").read_text())

    @given(drawn_messages())
    @settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    def test_known_keys(self, drawn: dict[str, Any]) -> None:
        """
        Where Home Assistant 2025.4 refuses a message for a key that it does not know, there is none.
        """
        self.assertEqual(drawn.keys(), {"device", "origin", "availability", "availability_mode", "components"})
        known = {"identifiers", "name", "manufacturer", "via_device", "suggested_area"}
        self.assertLessEqual(drawn["device"].keys(), known)
        self.assertEqual(drawn["origin"].keys(), {"name", "sw_version"})
        for key, component in drawn["components"].items():
            self.assertRegex(key, "^[a-zA-Z0-9_-]+$")
            self.assertTrue(component["default_entity_id"].startswith(component["platform"] + "."))
        ids = [(each["platform"], each["unique_id"]) for each in drawn["components"].values()]
        self.assertEqual(len(ids), len(set(ids)))

    def test_topics(self) -> None:
        """
        The id of a sensor names it and its gateway, and only that; the topics of others are not ours.
        """
        home = Discovery("home", prefix="ha/x")
        for sensor in ("20", "météo/1+#", "a__b", "_", "x_5F"):
            device = home.device(sensor)
            self.assertRegex(device, "^[a-zA-Z0-9_-]+$")
            self.assertEqual(home.sensor(device), sensor)
            self.assertEqual(home.device_of(home.topic(device)), device)
            self.assertIs(Discovery("hom", prefix="ha/x").device_of(home.topic(device)), None)
        self.assertEqual(home.topic("x"), "ha/x/device/x/config")
        self.assertEqual(home.device_of(home.topic(home.gateway)), home.gateway)
        self.assertEqual(home.birth, "ha/x/status")
        for device in (home.gateway, "usbgate__home__a_b", "usbgate__home__a__b", "usbgate__homer__20"):
            self.assertIs(home.sensor(device), None)
        for topic in ("ha/x/device/usbgate__home2/config", "ha/x/status", "ha/x/device/usbgate__home"):
            self.assertIs(home.device_of(topic), None)

    def test_without_commands(self) -> None:
        """
        Without the role `command` there are no buttons and controls, nor events of commands that failed.
        """
        about = SensorSettings(commands=(Button("On", "ON"),), controls={"N": ControlSettings(type="number", set=SET)})
        self.assertEqual(
            [each["platform"] for each in message(about)["components"].values()], ["button", "number", "event"]
        )
        self.assertEqual(message(about, commands=False)["components"], {})

    def test_names(self) -> None:
        """
        Home Assistant names a field by its device class only if it is the only one of its sensor, and has no label.
        """
        fields = [field("A", 1.0, kind="temperature", unit="°C"), field("B", 1.0, kind="temperature", unit="°C")]
        self.assertNotIn("name", message(None, fields[0])["components"]["sensor_A"])
        self.assertEqual([each["name"] for each in message(None, *fields)["components"].values()], ["A", "B"])


class DeviceClassTests(SynchronousTestCase):
    """
    Units and classes.
    """

    def test_units(self) -> None:
        """
        Units are spelled as Home Assistant spells them; case only matters where it makes a difference.
        """
        for kind, unit, spelled in (
            ("temperature", "C", "°C"),
            ("temperature", "ºF", "°F"),
            ("energy", "KWH", "kWh"),
            ("energy", "MWh", "MWh"),
            ("energy", "MWH", "MWH"),
            ("gas", "m3", "m³"),
            ("pm25", "ug/m3", "µg/m³"),
            ("illuminance", "lux", "lx"),
            ("humidity", "%RH", "%"),
            ("water", "l", "L"),
            (None, "kvarh", "kvarh"),
        ):
            self.assertEqual(spell_unit(unit, kind), spelled)

    def test_classes(self) -> None:
        """
        A field has the class of its kind only with a unit of that class; each kind's own unit is one.
        """
        self.assertEqual(DEVICE_CLASSES.keys(), {kind for kind, about in FIELD_KINDS.items() if not about.states})
        for kind in DEVICE_CLASSES:
            self.assertEqual(device_class(kind, FIELD_KINDS[kind].unit), kind)
            self.assertIs(device_class(kind, "furlong"), None)
        self.assertIs(device_class("temperature", None), None)
        self.assertIs(device_class("smoke", None), None)
        self.assertIs(device_class(None, "W"), None)

    def test_state_classes(self) -> None:
        """
        Only what never falls is `total_increasing`, and only where Home Assistant permits that; angles have no mean.
        """
        for kind, unit, usual, increasing in (
            ("energy", "kWh", "total", "total_increasing"),
            (None, None, "measurement", "total_increasing"),
            ("temperature", "°C", "measurement", "measurement"),
            ("wind_direction", "°", "measurement_angle", "measurement_angle"),
            (None, "°", None, "total_increasing"),
        ):
            self.assertEqual([state_class(kind, unit, each) for each in (False, True)], [usual, increasing])


class SchemaTests(SynchronousTestCase):
    """
    Home Assistant's own schema.
    """

    def setUp(self) -> None:
        """
        Start the program that has it.
        """
        python = os.environ.get("USBGATE_HASS_SCHEMA")
        if not python:
            raise SkipTest("USBGATE_HASS_SCHEMA names no Python with Home Assistant 2026.11 (docs/mqtt.md)")
        program = Path(__file__).with_name("homeassistant_schema.py")
        self.process = subprocess.Popen([python, program], text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.addCleanup(self.process.communicate)

    def check(self, checked: dict[str, Any]) -> str:
        """
        Return what Home Assistant says against a message.
        """
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print(json.dumps(checked), file=self.process.stdin, flush=True)
        return self.process.stdout.readline().rstrip("\n")

    def test_messages(self) -> None:
        """
        It accepts all messages.
        """
        for example in MESSAGES.values():
            self.assertEqual(self.check(example), "")

        @given(drawn_messages())
        @settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
        def accepted(drawn: dict[str, Any]) -> None:
            self.assertEqual(self.check(drawn), "")

        accepted()

    def test_wrong_messages(self) -> None:
        """
        It refuses what is wrong, or else it would show nothing.
        """
        wrong: Sequence[tuple[str, dict[str, Any]]] = [
            ("not a valid option", {**message(), "~": "x"}),
            ("unit of measurement", _changed("sensor_HUM", unit_of_measurement="W")),
            ("total with humidity", _changed("sensor_HUM", state_class="total")),
            ("TemplateSyntaxError", _changed("sensor_HUM", value_template="{{ x")),
        ]
        for text, each in wrong:
            self.assertIn(text, self.check(each))


def _changed(key: str, **keys: str) -> dict[str, Any]:
    example = MESSAGES["measurements"]
    components = example["components"]
    return {**example, "components": {**components, key: {**components[key], **keys}}}
