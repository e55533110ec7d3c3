"""
The demo's home to look at: a device that a test controls, the real daemon, a real database.

Everything here blocks. The home is started once per process.
"""

from __future__ import annotations

import atexit
import json
import shutil
from collections.abc import Callable
from functools import cache
from threading import Event
from typing import Any
from urllib.request import Request, urlopen

from tests.support import mosquitto, postgresql
from tests.support.folders import new_folder
from tests.support.mosquitto import RUN_HURRIED
from tests.support.running import PtyDevice, TwistdDaemon, free_port, is_answered
from tests.support.waiting import LIMIT, eventually
from usbgate.cli.demo import configuration

# In addition to the demo's sensors: one that never answers, with a short time limit, one with an alarm,
# and one with states.
_MORE = """
[sensor.98]
name = "boiler"
field.TEMP = { unit = "°C", alarm = "> 60" }

[sensor.96]
name = "garage"
field.GATE = { label = { en = "gate", fr = "portail" }, values = { 0 = "shut", 1 = { en = "open", fr = "ouvert" } } }
field.SW = { kind = "switch" }

[sensor.95]
name = "cellar door"
field.OPEN = { kind = "door" }

[sensor.99]
name = "cellar"
timeout = 0.3
"""


class Home:
    """
    The demo's home. Its sensors answer at once unless a test keeps them silent.
    """

    def __init__(self, more: str = "", french: bool = False) -> None:
        """
        Create the home and start the daemon.

        Args:
            more: Configuration in addition to the demo's.
            french: Whether its sensors have French names.
        """
        self.folder = new_folder()
        self.folder.chmod(0o755)
        atexit.register(shutil.rmtree, self.folder, ignore_errors=True)
        self.values = {
            **{"20": "VALUE:21.5", "21": "VALUE:48.0", "22": "TEMP:23.0_HUM:61.0_BAT:OK", "23": "VALUE:8.0"},
            **{"2": "SMOKE:0", "6": "PRESENCE:1", "7": "PRESENCE:0", "9": "LEVEL:0", "10": "LEVEL:100"},
        }
        self.silent: set[str] = set()
        self.asked: dict[str, Event] = {}
        self.device = PtyDevice(self.folder / "arduino", self.answer)
        atexit.register(self.device.unplug)
        self.database = postgresql.server().create_database()
        self.http_port = free_port()
        self.port = free_port()
        self.config = self.folder / "usbgate.toml"
        text = configuration(self.port, self.http_port, french)
        self.config.write_text(text + more, encoding="utf-8")
        self.start()

    def start(self) -> None:
        """
        Start the daemon; wait until its device and its database are connected.
        """
        options = ("--config", str(self.config), "--database", self.database)
        self.daemon = TwistdDaemon(self.folder / "state", *options, port=self.port, http=None, program=RUN_HURRIED)
        self.stop = self.daemon.stop
        atexit.register(self.stop)
        self.daemon.ready()
        eventually(lambda: is_answered(f"{self.url}healthz") == "ok", "the device and the database are there")

    @property
    def url(self) -> str:
        """
        Where the page is.
        """
        return f"http://127.0.0.1:{self.http_port}/"

    def say(self, sensor: str, values: str) -> None:
        """
        Let a sensor send an unasked report.
        """
        self.values[sensor] = values
        self.device.say(f"ID:{sensor}_{values}".encode())

    def reply(self, sensor: str, values: str) -> None:
        """
        Let a sensor answer a question that it was asked while kept silent.
        """
        self.device.say(f"ID:{sensor}_{values}_MSG:J".encode())

    def say_all(self) -> None:
        """
        Let every sensor send an unasked report.
        """
        for sensor, values in self.values.items():
            self.say(sensor, values)

    def end_alarms(self) -> None:
        """
        End and acknowledge all alarms.
        """
        for alarm in self._alarms():
            self.say(alarm["sensor"], f"{alarm['field']}:0")
            acknowledge = f"{self.url}api/v1/alarms/{alarm['id']}/acknowledge"
            urlopen(Request(acknowledge, b"{}", {"Content-Type": "application/json"}), timeout=LIMIT).close()
        eventually(lambda: not self._alarms(), "the alarms have ended")

    def _alarms(self) -> list[dict[str, Any]]:
        with urlopen(f"{self.url}api/v1/alarms", timeout=LIMIT) as response:
            found: list[dict[str, Any]] = json.load(response)["alarms"]
        return found

    def answer(self, fields: dict[str, str]) -> list[bytes]:
        """
        Answer a question.
        """
        sensor, command = fields["ID"], fields["MSG"]
        self.asked.setdefault(sensor, Event()).set()
        if sensor in self.silent or sensor not in self.values:
            return []
        if command in ("ON", "OFF"):
            self.values[sensor] = "LEVEL:100" if command == "ON" else "LEVEL:0"
        elif command == "L":
            self.values[sensor] = f"LEVEL:{fields['LEVEL']}"
        return [f"ID:{sensor}_{self.values[sensor]}_MSG:{command}".encode()]

    def keep_silent(self, *sensors: str) -> Callable[[], None]:
        """
        Keep sensors from answering until the returned function is called.
        """
        self.silent.update(sensors)
        for sensor in sensors:
            self.asked[sensor] = Event()
        return self.silent.clear


# Where mosquitto is installed, the home is at the tests' broker, whose clients may command.
_MQTT = """
[mqtt]
broker = "%s"
role = "command"
"""


@cache
def flat() -> Home:
    """
    Return the home, started once per process.
    """
    furnished = Home(_MORE + (_MQTT % mosquitto.shared_mosquitto().endpoint if mosquitto.PROGRAM else ""))
    furnished.say_all()
    return furnished
