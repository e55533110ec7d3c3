"""
The demo: a simulated Arduino, the daemon and a database, on a folder that is gone afterwards.
"""

from __future__ import annotations

import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing, suppress
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Event
from typing import NamedTuple, NoReturn, TypeVar

from psycopg2.extensions import make_dsn
from rich.console import Console
from rich.text import Text

from usbgate.cli.autostart import TWISTD, environment
from usbgate.cli.connection import AskError, Connection, RequestRefused, connect
from usbgate.core.errors import Malformed
from usbgate.core.fieldline import parse
from usbgate.store.embedded.cluster import DATABASE, USER
from usbgate.store.embedded.postmaster import BinariesMissing, PidFile, find_binaries, is_server_of, kill_server

PORT = 50007  # the original's
HTTP_PORT = 8080
HOST = "127.0.0.1"

RATE = 2.0  # unasked lines a second: they scroll by, and can be read

READY_LIMIT = 60.0  # seconds; 1 on a PC, many for initdb on a Pi's SD card
END_LIMIT = 15.0  # seconds for a daemon to end: its database alone may take 6
LOOK = 0.05  # seconds between looks while something starts
TURN = 0.2  # seconds between looks at the signal and the processes while readings scroll by
LAST_LINES = 5  # of the log, when the daemon died


class Measurement(NamedTuple):
    """
    What a field is, for people.

    Attributes:
        unit: Behind the number; None for none.
        decimals: To how many places; None for as it comes.
        alarm: The condition for an alarm; None for none.
    """

    unit: str | None = None
    decimals: int | None = None
    alarm: str | None = None


class Furnishing(NamedTuple):
    """
    What a sensor is, for people.

    Attributes:
        name: What they call it.
        place: Where it is.
        fields: What it measures, by field.
        commands: What it can be told, by the label of the button.
    """

    name: str
    place: str
    fields: dict[str, Measurement]
    commands: dict[str, str] = {}  # noqa: RUF012  # nobody changes it


_CELSIUS = Measurement("°C", 1)
_PERCENT = Measurement("%", 0)

# The simulated flat, by id.
FLAT: dict[str, Furnishing] = {
    "20": Furnishing("bedroom temperature", "bedroom", {"VALUE": _CELSIUS}),
    "21": Furnishing("bedroom humidity", "bedroom", {"VALUE": _PERCENT}),
    "22": Furnishing("bathroom climate", "bathroom", {"TEMP": _CELSIUS, "HUM": _PERCENT}),
    "23": Furnishing("balcony temperature", "balcony", {"VALUE": _CELSIUS}),
    "2": Furnishing("smoke detector", "hall", {"SMOKE": Measurement(alarm="== 1")}),
    "6": Furnishing("hall presence", "hall", {}),
    "7": Furnishing("kitchen presence", "kitchen", {}),
    "9": Furnishing("lamp", "bedroom", {"LEVEL": _PERCENT}, {"On": "ON", "Off": "OFF", "Half": "L LEVEL=50"}),
    "10": Furnishing("shutter", "bedroom", {"LEVEL": _PERCENT}, {"Up": "ON", "Down": "OFF", "Toggle": "TOGGLE"}),
}


_Found = TypeVar("_Found")


class DemoFailed(AskError):
    """
    The demo can't go on; the text says why.
    """


class _Ended(Exception):
    """
    Somebody asked for the end.
    """


def run(seed: int | None) -> int:
    """
    Run the demo until SIGINT, SIGTERM or SIGHUP, and leave nothing behind.

    Args:
        seed: Simulate the same flat every time; None for another each time.

    Returns:
        The exit status.

    Raises:
        DemoFailed: One of its parts does not start, or died.
    """
    try:
        psql = find_binaries() / "psql"
    except BinariesMissing as error:
        raise DemoFailed(str(error)) from None
    # Only noted, never raised: an exception might come just when a process was started, and lose it.
    ending = Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: ending.set())
    with TemporaryDirectory(prefix="usbgate-demo-") as folder, ExitStack() as parts:
        # As root the database server runs as another user, and must pass through.
        os.chmod(folder, 0o711)
        with suppress(_Ended):
            _Demo(Path(folder), parts, ending, Console(highlight=False, soft_wrap=True)).run(seed, psql)
    return 0


class _Demo:
    """
    The demo's parts and what it says.
    """

    def __init__(self, folder: Path, parts: ExitStack, ending: Event, console: Console) -> None:
        self._folder = folder
        self._state = folder / "state"
        self._data = self._state / "postgres" / "data"
        self._log = self._state / "usbgate.log"
        self._parts = parts
        self._ending = ending
        self._console = console
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def run(self, seed: int | None, psql: Path) -> None:
        """
        Start everything, say what to try, and show readings.

        Raises:
            _Ended: Always, unless it fails.
        """
        port, http_port = _choose_port(PORT), _choose_port(HTTP_PORT)
        device = self._folder / "arduino"
        config = self._folder / "usbgate.toml"
        config.write_text(configuration(self._state, device, port, http_port), encoding="utf-8")
        self._state.mkdir(mode=0o711)

        self._say("starting a simulated Arduino, the daemon and a database of its own …", style="dim")
        simulate = [sys.executable, "-P", "-m", "usbgate.cli", "simulate", str(device), "--rate", str(RATE)]
        self._start("simulator", simulate if seed is None else [*simulate, "--seed", str(seed)])
        self._wait("the simulated Arduino", device.is_symlink)
        self._parts.callback(_end_database, self._data)
        twistd = [*TWISTD, "-n", "--pidfile=", f"--logfile={self._log}", "usbgate", "--config", str(config)]
        self._start("daemon", twistd)
        connection = self._wait("the daemon", lambda: connect((HOST, port)))
        dsn = self._wait("the database", lambda: self._find_database(psql))

        usbgate = [*_command(), "--config", str(config)]
        self._say("Ready. To try in a browser and in another terminal:\n")
        for line, what in [
            (f"http://{HOST}:{http_port}/", "the page, for a browser; its API is under api/v1/"),
            (shlex.join([*usbgate, "ask", "20"]), "ask the thermometer"),
            (shlex.join([*usbgate, "ask", "-s", "L", "-i", "9", "-o", "TOTO", "LEVEL=50"]), "dim the lamp"),
            (f"nc {HOST} {port}", "then type: last, watch, status, help"),
            (shlex.join([str(psql), dsn, "-c", "select * from measures limit 10"]), "what is stored"),
        ]:
            self._say(f"  # {what}", style="dim")
            self._say(f"  {line}\n", style="bold")
        self._say("Readings as they come (Ctrl-C ends all of it):\n")
        with closing(connection):
            self._show(connection)

    def _say(self, text: str, style: str = "") -> None:
        self._console.print(Text(text, style))

    def _start(self, name: str, arguments: Sequence[str]) -> None:
        # In a session of its own: Ctrl-C is for us, and we end our parts in order.
        with open(self._log, "ab") as log:
            process = subprocess.Popen(
                arguments,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment(self._state),
                start_new_session=True,
            )
        self._running[name] = process
        self._parts.callback(_end, process)

    def _check(self) -> None:
        if self._ending.is_set():
            raise _Ended
        for name, process in self._running.items():
            if process.poll() is not None:
                self._fail(f"the {name} ended by itself")

    def _wait(self, what: str, look: Callable[[], _Found | None]) -> _Found:
        deadline = time.monotonic() + READY_LIMIT
        while not (found := look()):
            self._check()
            if time.monotonic() > deadline:
                self._fail(f"{what} is not there after {READY_LIMIT:.0f} s")
            self._ending.wait(LOOK)
        return found

    def _fail(self, why: str) -> NoReturn:
        lines = self._log.read_text("utf-8", "replace").splitlines()[-LAST_LINES:]
        print(*lines, sep="\n", file=sys.stderr)
        raise DemoFailed(f"{why}; above are the last lines of the log")

    def _find_database(self, psql: Path) -> str | None:
        """
        Return how to reach the database, once the command shown to people works.
        """
        server = PidFile.read(self._data)
        if server is None or not server.ready:
            return None
        dsn = make_dsn(host=server.socket_folder, port=server.port, user=USER, dbname=DATABASE)
        query = [str(psql), "-XAtqw", "-d", dsn, "-c", "select 1 from measures limit 1"]
        quiet = subprocess.DEVNULL
        tried = subprocess.run(query, stdin=quiet, stdout=quiet, stderr=quiet, start_new_session=True)
        return dsn if tried.returncode == 0 else None

    def _show(self, connection: Connection) -> None:
        connection.send("watch")
        while True:
            self._check()
            try:
                line = connection.receive(time.monotonic() + TURN)
            except RequestRefused:  # nothing happened meanwhile
                continue
            except AskError:
                # It is ending, or dead: which, is seen in a moment.
                self._ending.wait(LOOK)
                continue
            for row in rows(line):
                self._console.print(row)


def rows(line: str) -> list[Text]:
    """
    Show a line of `watch` to a person: a row for each measurement.
    """
    try:
        fields = parse(line.encode())
    except Malformed:
        return []
    event = fields.pop("EVENT", "")
    if event == "device":
        return [Text(f"          {fields.get('DEV')} is {fields.get('STATE')}", "dim")]
    if event != "reading":
        return []
    sensor = fields.pop("ID")
    at = datetime.fromisoformat(fields.pop("AT")).astimezone()
    command = fields.pop("MSG", None)
    furnishing = FLAT.get(sensor, Furnishing("", "", {}))
    found = []
    for field, value in fields.items():
        row = Text(f"{at:%H:%M:%S}  ", "dim")
        row.append(f"{sensor:>3} {furnishing.name:<20}  ", "cyan")
        row.append(f"{field:<9}", "dim")
        unit = furnishing.fields.get(field, Measurement()).unit or ""
        row.append(f"{value:>6} {unit:<2}", "red" if (field, value) == ("SMOKE", "1") else "bold")
        if command is not None:
            row.append(f"  answers {command}", "dim")
        row.rstrip()
        found.append(row)
    return found


def _choose_port(usual: int) -> int:
    with suppress(OSError), socket.create_server((HOST, usual)):
        return usual
    with socket.create_server((HOST, 0)) as server:
        port: int = server.getsockname()[1]
        return port


def configuration(state: Path, device: Path, port: int, http_port: int) -> str:
    """
    Spell the demo's configuration.

    Args:
        state: The state folder.
        device: Where the simulated Arduino is.
        port: For clients.
        http_port: For browsers.
    """
    lines = [
        f"state = {_quoted(str(state))}",
        'database = "embedded"',
        'gateway = "demo"',
        f'listen = ["tcp:{port}:interface={HOST}"]',
        f'http = "tcp:{http_port}:interface={HOST}"',
        "",
        "[device.arduino]",
        f"path = {_quoted(str(device))}",
    ]
    for sensor, furnishing in FLAT.items():
        lines += [
            "",
            f"[sensor.{sensor}]",
            f"name = {_quoted(furnishing.name)}",
            f"place = {_quoted(furnishing.place)}",
        ]
        if furnishing.commands:
            buttons = (f"{_quoted(label)} = {_quoted(command)}" for label, command in furnishing.commands.items())
            lines += [f"commands = {{ {', '.join(buttons)} }}"]
        for field, measurement in furnishing.fields.items():
            lines += ["", f"[sensor.{sensor}.field.{field}]"]
            lines += [f"{key} = {_quoted(value)}" for key, value in measurement._asdict().items() if value is not None]
    # A toggle that is asked twice is meant twice.
    lines += ["", "[command.TOGGLE]", "coalesce = false"]
    return "\n".join(lines) + "\n"


def _quoted(value: str | int) -> str:
    # What JSON spells TOML reads, too.
    return json.dumps(value, ensure_ascii=False)


def _command() -> list[str]:
    installed = Path(sysconfig.get_path("scripts"), "usbgate")
    return [str(installed)] if installed.exists() else [sys.executable, "-m", "usbgate.cli"]


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(END_LIMIT)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _end_database(data: Path) -> None:
    """
    End the database server where the daemon could not: it has a session of its own, and outlives a killed one.
    """
    server = PidFile.read(data)
    if server is None or not is_server_of(server.pid, data):
        return
    for number in (signal.SIGINT, signal.SIGQUIT):  # PostgreSQL's fast stop, then its immediate one
        with suppress(ProcessLookupError):
            os.kill(server.pid, number)
        deadline = time.monotonic() + END_LIMIT
        while is_server_of(server.pid, data):
            if time.monotonic() > deadline:
                break
            time.sleep(LOOK)
        else:
            return
    kill_server(server.pid)
