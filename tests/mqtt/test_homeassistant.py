"""
A real Home Assistant with a real broker, the daemon as a process, and a board on a pty.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Mapping
from unittest import SkipTest

from tests.support.daemon import RunningCase
from tests.support.homeassistant import HomeAssistant
from tests.support.mosquitto import Mosquitto
from tests.support.running import TwistdDaemon
from tests.support.waiting import eventually
from usbgate.core.model import Button
from usbgate.core.settings import FieldSettings
from usbgate.mqtt.controls import Commands
from usbgate.mqtt.entities import on_off, quote

# What the board reports, by sensor.
CLIMATE = b"ID:20_TEMP:21.5_HUM:45_DUST:7"
METER = b"ID:30_KWH:1234.5_STATE:closed"

CONFIGURATION = """
gateway = "home"
database = "none"
[mqtt]
broker = "{broker}"
role = "command"
[device.leonardo]
path = "{path}"
[sensor.20]
name = "Bedroom"
place = "First floor"
stale = "5s"
[sensor.20.field.TEMP]
kind = "temperature"
unit = "C"
decimals = 1
[sensor.20.field.HUM]
kind = "humidity"
[sensor.20.field.DUST]
kind = "pm25"
unit = "ug/m3"
[sensor.30]
name = "Cellar"
[sensor.30.field.KWH]
kind = "energy"
unit = "KWh"
never_falls = true
[sensor.30.field.STATE]
kind = "door"
alarm = "== open"
[sensor.9]
name = "Hall"
commands = {{ "Bell" = "RING" }}
[sensor.9.control.Lamp]
type = "light"
on = "ON"
off = "OFF"
state = "LEVEL"
set = "L LEVEL={{}}"
level = "LEVEL"
[sensor.9.control.Blind]
type = "cover"
open = "UP"
close = "DOWN"
state = "POS"
set = "P POS={{}}"
"""

WITH_MODE = """
[sensor.9.control.Relay]
type = "switch"
on = "RELAY ON=1"
off = "RELAY ON=0"
[sensor.9.control.Heating]
type = "number"
set = "T T={}"
max = 30
step = 0.5
[sensor.9.control.Mode]
type = "select"
set = "M M={}"
options = ["AUTO", "MANUAL"]
state = "M"
"""


def answer(fields: dict[str, str]) -> list[bytes]:
    """
    Answer as the board: with what it was set to.
    """
    values = {key: value for key, value in fields.items() if key not in ("MSG", "ID", "ORIGIN")}
    level = {"ON": "100", "OFF": "0", "UP": "100", "DOWN": "0"}.get(fields["MSG"])
    if level is not None:
        values["POS" if fields["MSG"] in ("UP", "DOWN") else "LEVEL"] = level
    return [
        "_".join(
            f"{key}:{value}" for key, value in {"ID": fields["ID"], "MSG": fields["MSG"], **values}.items()
        ).encode()
    ]


# What Home Assistant then shows.
STATES = {
    "sensor.bedroom_temperature": "21.5",
    "sensor.bedroom_humidity": "45",
    "sensor.bedroom_pm2_5": "7",
    "sensor.cellar_energy": "1234.5",
    "binary_sensor.cellar_door": "off",
    "binary_sensor.usbgate_home_leonardo": "on",
    "event.usbgate_home_events": "unknown",
    "button.hall_bell": "unknown",
}


class HomeAssistantTests(RunningCase):
    """
    Home Assistant 2025.4.
    """

    def setUp(self) -> None:
        """
        Start everything; the board has reported each sensor once.
        """
        program = os.environ.get("USBGATE_HASS")
        if not program:
            raise SkipTest("USBGATE_HASS names no Home Assistant (docs/mqtt.md)")
        super().setUp()
        self.broker = Mosquitto()
        self.addCleanup(self.broker.close)
        self.board = self.plug(answer)
        self.configure(WITH_MODE)
        self.daemon = self.start_daemon()
        self.report(CLIMATE, METER)
        folder = self.folder / "hass"
        folder.mkdir()
        self.home = HomeAssistant(program, folder, self.broker.port)
        self.addCleanup(self.home.stop)
        self.home.start()

    def configure(self, more: str = "") -> None:
        """
        Write the configuration.
        """
        text = CONFIGURATION.format(broker=self.broker.endpoint, path=self.board.path)
        (self.folder / "usbgate.toml").write_text(text + more)

    def start_daemon(self) -> TwistdDaemon:
        """
        Start the daemon, and wait until the board is online.
        """
        daemon = self.run_daemon("--config", str(self.folder / "usbgate.toml"))
        self.online(daemon).close()
        return daemon

    def report(self, *lines: bytes) -> None:
        """
        Let the board report.
        """
        self.board.say(*lines)

    def expect(self, states: Mapping[str, str | None], *reported: bytes) -> None:
        """
        Wait until entities have these states, None for entities that are not there, while the board reports.
        """
        found: dict[str, str] = {}

        def are_so() -> bool:
            if reported:
                self.report(*reported)
            found.clear()
            found.update(self.home.states())
            return all(found.get(entity) == state for entity, state in states.items())

        try:
            eventually(are_so, "the states of the entities")
        except AssertionError as error:
            raise AssertionError(f"{error}: {states}, not {found}\n{self.home.log}\n{self.daemon.log}") from None

    def sent(self, line: bytes) -> None:
        """
        Wait until the board has received a line, but for who asks.
        """
        eventually(
            lambda: line in map(_without_origin, self.board.received),
            f"the board receives {line!r}: {self.board.received}",
        )

    def test_everything(self) -> None:
        """
        Entities appear, with units and classes; values change; a dead field becomes unavailable, and so does all when
        the board or the daemon is away; commands reach the board; no restart loses an entity; what is configured no
        longer is removed.
        """
        self.check_values()
        self.check_templates()
        self.check_commands()
        self.check_alarms()
        self.check_absences()
        self.check_removals()
        troubles = [line for line in self.home.log.splitlines() if "components.mqtt" in line]
        self.assertEqual(troubles, [])

    def check_values(self) -> None:
        """
        Values, and what is said of them.
        """
        self.expect(STATES, CLIMATE)
        about = self.home.attributes("sensor.bedroom_temperature")
        self.assertEqual(
            (about["unit_of_measurement"], about["device_class"], about["state_class"]),
            ("°C", "temperature", "measurement"),
        )
        about = self.home.attributes("sensor.cellar_energy")
        self.assertEqual((about["unit_of_measurement"], about["state_class"]), ("kWh", "total_increasing"))
        self.assertEqual(self.home.render("{{ area_name('sensor.bedroom_temperature') }}"), "First floor")
        gateway = "device_attr(device_attr('sensor.bedroom_temperature', 'via_device_id'), 'name')"
        self.assertEqual(self.home.render(f"{{{{ {gateway} }}}}"), "usbgate home")

        self.expect({"sensor.bedroom_temperature": "-3.5"}, b"ID:20_TEMP:-3.5_HUM:45")
        self.expect({"sensor.bedroom_temperature": "unknown"}, b"ID:20_TEMP:nan_HUM:45")
        # The humidity is dead, but not its sensor.
        self.expect({"sensor.bedroom_temperature": "20", "sensor.bedroom_humidity": "unavailable"}, b"ID:20_TEMP:20")
        self.expect(STATES, CLIMATE)
        self.report(b"ID:30_KWH:0_STATE:open")
        self.expect({"binary_sensor.cellar_door": "on", "sensor.cellar_energy": "1234.5"})
        self.report(METER)
        # A new sensor, and a new field.
        self.report(b"ID:77_LEVEL:3")
        self.expect({"sensor.usbgate_77_level": "3"})
        self.report(b"ID:77_VERSION:1.2b_LEVEL:4")
        self.expect({"sensor.usbgate_77_level": "4", "sensor.usbgate_77_version": "1.2b"})

    def check_templates(self) -> None:
        """
        What templates make of values.
        """
        plain, upside_down = FieldSettings(), FieldSettings(values={"0": "open", "1": {"en": "closed", "fr": "fermée"}})
        for settings, value, expected in (
            (plain, "1", "ON"),
            (plain, "0", "OFF"),
            (plain, "0.0", "OFF"),
            (plain, "2.5", "ON"),
            (plain, "Open", "ON"),
            (plain, "CLOSED", "OFF"),
            (plain, "nan", "None"),
            (plain, "?", "None"),
            (upside_down, "0", "ON"),
            (upside_down, "1", "OFF"),
            (upside_down, "2", "ON"),
        ):
            rendered = self.home.render(f"{{% set value = {quote(value)} %}}" + on_off(settings, "ON", "OFF"))
            self.assertEqual((value, rendered), (value, expected))
        commands = Commands("x", 'a"{{b{%')
        command = Button("", "{}", {"A": "{}", "B": "é{#"})
        for value in ("5", "0.5", '"AU\\"TO{{"'):
            rendered = self.home.render(f"{{% set value = {value} %}}" + commands.template(command))
            expected_message = {"sensor": 'a"{{b{%', "command": "{}", "arguments": {"A": json.loads(value), "B": "é{#"}}
            self.assertEqual(json.loads(rendered), expected_message)

    def check_commands(self) -> None:
        """
        Buttons and controls.
        """
        self.home.call("button/press", "button.hall_bell")
        self.sent(b"MSG:RING_ID:9")
        self.home.call("light/turn_on", "light.hall_lamp")
        self.sent(b"MSG:L_ID:9_LEVEL:100")
        self.expect({"light.hall_lamp": "on"})
        self.home.call("light/turn_on", "light.hall_lamp", brightness_pct=40)
        self.sent(b"MSG:L_ID:9_LEVEL:40")
        eventually(
            lambda: self.home.attributes("light.hall_lamp").get("brightness") == 102,
            "the brightness is that of the board",
        )
        self.assertNotIn(b"MSG:ON_ID:9", [*map(_without_origin, self.board.received)])
        self.home.call("light/turn_off", "light.hall_lamp")
        self.expect({"light.hall_lamp": "off"})
        self.home.call("cover/set_cover_position", "cover.hall_blind", position=30)
        self.sent(b"MSG:P_ID:9_POS:30")
        self.expect({"cover.hall_blind": "open"})
        self.home.call("cover/close_cover", "cover.hall_blind")
        self.expect({"cover.hall_blind": "closed"})
        self.home.call("number/set_value", "number.hall_heating", value=19.5)
        self.sent(b"MSG:T_ID:9_T:19.5")
        self.home.call("select/select_option", "select.hall_mode", option="MANUAL")
        self.sent(b"MSG:M_ID:9_M:MANUAL")
        self.expect({"select.hall_mode": "MANUAL"})
        self.home.call("switch/turn_on", "switch.hall_relay")
        self.sent(b"MSG:RELAY_ID:9_ON:1")
        self.expect({"switch.hall_relay": "on"})

    def check_alarms(self) -> None:
        """
        Alarms are events.
        """
        self.report(b"ID:30_STATE:open")
        eventually(
            lambda: self.home.attributes("event.cellar_events").get("event_type") == "alarm_raised",
            "the alarm is an event",
        )
        about = self.home.attributes("event.usbgate_home_events")
        self.assertEqual((about["sensor"], about["condition"]), ("30", "== open"))
        self.report(METER)

    def check_absences(self) -> None:
        """
        The board, the daemon, the broker and Home Assistant, each away and back again.
        """
        entities = set(self.home.states())
        self.board.unplug()
        away = {"sensor.cellar_energy": "unavailable", "button.hall_bell": "unavailable"}
        self.expect({**away, "binary_sensor.usbgate_home_leonardo": "off"})
        self.board.plug()
        there = {"sensor.cellar_energy": "1234.5", "binary_sensor.usbgate_home_leonardo": "on"}
        self.expect(there)

        self.daemon.stop()
        self.expect({**away, "binary_sensor.usbgate_home_leonardo": "unavailable"})
        self.daemon = self.start_daemon()
        self.expect(there, METER)
        # A sensor that has not reported since is still there when others are announced.
        self.report(b"ID:78_LEVEL:5")
        self.expect({"sensor.usbgate_78_level": "5", "sensor.bedroom_temperature": "unavailable"})
        entities |= {"sensor.usbgate_78_level"}

        self.broker.kill()
        self.broker.start()
        self.expect(there, METER)

        self.home.stop()
        self.home.start()
        self.expect({**there, "sensor.bedroom_temperature": "21.5"}, CLIMATE, METER)
        self.assertEqual(set(self.home.states()), entities)

    def check_removals(self) -> None:
        """
        A control that is configured no longer.
        """
        self.assertIn("select.hall_mode", self.home.states())
        self.configure()
        self.daemon.process.send_signal(signal.SIGHUP)
        self.expect({"select.hall_mode": None, "number.hall_heating": None, "switch.hall_relay": None})
        self.assertIn("light.hall_lamp", self.home.states())


def _without_origin(line: bytes) -> bytes:
    return line.replace(b"_ORIGIN:mqtt", b"")
