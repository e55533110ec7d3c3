"""
A browser, and the demo's home to look at: a device that a test controls, the real daemon, a real database.

Everything here blocks. Browser and home are started once per process, since a browser starts slowly.
"""

from __future__ import annotations

import atexit
import os
import shutil
import subprocess
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from threading import Event

from playwright.sync_api import Browser, sync_playwright
from twisted.trial.unittest import SkipTest

from tests.support import postgresql
from tests.support.folders import new_folder
from tests.support.running import RUN, PtyDevice, TwistdDaemon, free_port, is_answered
from tests.support.waiting import LIMIT, eventually
from usbgate.cli.demo import configuration

NAMES = ("chromium", "chromium-browser", "google-chrome")

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

[sensor.99]
name = "cellar"
timeout = 0.3
"""


def find_browser() -> str | None:
    """
    Return the path of an installed browser.
    """
    return next((path for path in map(shutil.which, NAMES) if path is not None), None)


ARGUMENTS = [
    "--no-sandbox",  # which root can't use
    "--disable-features=WebUIOmniboxPopup,WebUIOmniboxAimPopup",  # two hidden pages of each window, as dear as ours
]


@cache
def browser() -> Browser:
    """
    Start the browser, which loads nothing but our page.
    """
    playwright = sync_playwright().start()
    started = playwright.chromium.launch(executable_path=find_browser(), args=ARGUMENTS)

    def stop() -> None:
        with suppress(Exception):  # it may have ended already
            started.close()
            playwright.stop()

    atexit.register(stop)
    return started


class Proxy:
    """
    nginx in front of a daemon, with a base path, configured as in docs/http.md.
    """

    def __init__(self, behind: str) -> None:
        """
        Start it.

        Args:
            behind: The address of the daemon.

        Raises:
            SkipTest: There is no nginx.
        """
        nginx = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
        if nginx is None:
            raise SkipTest("nginx is not installed")
        self._nginx = nginx
        self._folder, self._port = new_folder(), free_port()
        atexit.register(shutil.rmtree, self._folder, ignore_errors=True)
        kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        paths = "".join(f"{kind}_temp_path {self._folder}/{kind};" for kind in kinds)
        (self._folder / "nginx.conf").write_text(
            f"""
            daemon off; master_process off; pid {self._folder}/pid; error_log stderr crit; events {{}}
            http {{
                access_log off; {paths}
                server {{
                    listen 127.0.0.1:{self._port};
                    location /house/flat/ {{
                        proxy_pass {behind};
                        proxy_set_header Host $host;
                        proxy_read_timeout 1h;
                    }}
                }}
            }}
            """
        )
        self.start()

    @property
    def url(self) -> str:
        """
        Where the page is.
        """
        return f"http://127.0.0.1:{self._port}/house/flat/"

    def start(self) -> None:
        """
        Start nginx, or start it again.
        """
        self._process = subprocess.Popen(
            [self._nginx, "-c", self._folder / "nginx.conf", "-e", "stderr"],
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
        eventually(lambda: is_answered(f"{self.url}healthz"), "nginx is there")

    def stop(self) -> None:
        """
        Stop nginx and close all connections.
        """
        self._process.terminate()
        self._process.wait(LIMIT)


class Home:
    """
    The demo's home. Its sensors answer at once unless a test keeps them silent.
    """

    def __init__(self, more: str = "") -> None:
        """
        Create the home and start the daemon.

        Args:
            more: Configuration in addition to the demo's.
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
        text = configuration(self.port, self.http_port)
        self.config.write_text(text + more, encoding="utf-8")
        self.start()

    def start(self) -> None:
        """
        Start the daemon; wait until its device and its database are connected.
        """
        options = ("--config", str(self.config), "--database", self.database)
        self.daemon = TwistdDaemon(self.folder / "state", *options, port=self.port, http=None, program=RUN)
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


@cache
def flat() -> Home:
    """
    Return the home, started once per process.
    """
    furnished = Home(_MORE)
    furnished.say_all()
    return furnished
