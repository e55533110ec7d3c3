"""
The demo: a simulated Arduino, the daemon and a database, in a folder that is removed at the end.
"""

from __future__ import annotations

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
from importlib.resources import files
from pathlib import Path
from string import Template
from tempfile import TemporaryDirectory
from threading import Event
from typing import NoReturn, TypeVar

from psycopg2.extensions import make_dsn
from rich.console import Console
from rich.text import Text

from usbgate.cli.autostart import TWISTD, environment
from usbgate.cli.connection import AskError, Connection, RequestRefused, connect
from usbgate.cli.demotexts import in_french, is_french
from usbgate.cli.leftovers import PREFIX, clear, end_database, end_with_parent, hold
from usbgate.cli.reach import PORT
from usbgate.cli.reader import Reader
from usbgate.cli.readings import ReadingRows
from usbgate.store.embedded.cluster import DATABASE, USER
from usbgate.store.embedded.postmaster import BinariesMissing, PidFile, find_binaries

HTTP_PORT = 8080
HOST = "127.0.0.1"

RATE = 2.0  # reports per second: slow enough to be read

READY_LIMIT = 60.0  # seconds for a part to be ready: 1 on a PC, many for initdb on a Pi's SD card
END_LIMIT = 15.0  # seconds for the daemon to end, of which its database may take 6
LOOK = 0.05  # seconds between two looks while a part starts or ends
TURN = 0.2  # seconds between two looks at the signals and the processes while readings are shown
LAST_LINES = 5  # of the log, printed if a part ended


_Found = TypeVar("_Found")


class DemoFailed(AskError):
    """
    The demo cannot continue; the text says why.
    """


class _Ended(Exception):
    """
    A signal asked the demo to end.
    """


def configuration(port: int, http_port: int, french: bool = False) -> str:
    """
    Return the text of the demo's configuration file.

    Args:
        port: For line clients.
        http_port: For browsers.
        french: Whether the sensors have French names.
    """
    text = Template((files("usbgate.cli") / "demo.toml").read_text("utf-8")).substitute(port=port, http_port=http_port)
    return in_french(text) if french else text


def run(seed: int | None) -> int:
    """
    Run the demo until SIGINT, SIGTERM or SIGHUP, and leave nothing behind.

    Args:
        seed: For the same simulated home in every run; None for a different one each time.

    Returns:
        The exit status.

    Raises:
        DemoFailed: One of its parts does not start, or ended.
    """
    try:
        psql = find_binaries() / "psql"
    except BinariesMissing as error:
        raise DemoFailed(str(error)) from None
    # Handlers only set the event: an exception could be raised just after a process was started, and lose it.
    ending = Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: ending.set())
    clear()
    console = Console(highlight=False, soft_wrap=True)
    with TemporaryDirectory(prefix=PREFIX) as folder, closing(hold(Path(folder))), ExitStack() as parts:
        # For root, the database server runs as another user, which must be able to enter.
        os.chmod(folder, 0o711)
        with suppress(_Ended):
            _Demo(Path(folder), parts, ending, console).run(seed, psql)
    console.print("The demo has ended; nothing of it is left.")
    return 0


class _Demo:
    """
    The demo's parts and its output.
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
        self._history: subprocess.Popen[bytes] | None = None  # what makes it, until it is made

    def run(self, seed: int | None, psql: Path) -> None:
        """
        Start everything, print what to try, and show readings.

        Raises:
            _Ended: Always, unless it fails.
        """
        port, http_port = (_choose_port(usual, self._parts) for usual in (PORT, HTTP_PORT))
        device = self._folder / "arduino"
        config = self._folder / "usbgate.toml"
        config.write_text(configuration(port, http_port, is_french(os.environ)), encoding="utf-8")
        self._state.mkdir(mode=0o711)

        self._say("starting a simulated Arduino, the daemon and its database …", style="dim")
        simulate = [sys.executable, "-P", "-m", "usbgate.cli", "simulate", str(device), "--rate", str(RATE)]
        self._start("simulator", simulate if seed is None else [*simulate, "--seed", str(seed)])
        self._wait("the simulated Arduino", device.is_symlink)
        self._parts.callback(end_database, self._data)
        twistd = [*TWISTD, "-n", "--pidfile=", f"--logfile={self._log}", "usbgate", "--config", str(config)]
        self._start("daemon", twistd)
        connection = self._wait("the daemon", lambda: connect((HOST, port)))
        dsn = self._wait("the database", lambda: self._find_database(psql))

        self._make_history(psql, dsn)
        usbgate = [*_command(), "--config", str(config)]
        self._say("Ready. To try in a browser and in another terminal:\n")
        for line, what in [
            (f"http://{HOST}:{http_port}/", "open the page; the API is under api/v1/"),
            (shlex.join([*usbgate, "ask", "20"]), "ask the thermometer"),
            (shlex.join([*usbgate, "ask", "-s", "L", "-i", "9", "-o", "TOTO", "LEVEL=50"]), "dim the lamp"),
            (f"echo MSG:TEST_ID:2 | nc -w 5 {HOST} {port}", "set off the smoke detector; its card has a button, too"),
            (f"nc {HOST} {port}", "and type: last, watch, status or help"),
            (shlex.join([str(psql), dsn, "-c", "select * from public.measures limit 10"]), "show stored readings"),
        ]:
            self._say(f"  # {what}", style="dim")
            self._say(f"  {line}\n", style="bold")
        self._say("Readings (Ctrl-C ends the demo):\n")
        with closing(connection):
            self._show(connection)

    def _make_history(self, psql: Path, dsn: str) -> None:
        # In the background: it takes a second on a PC, and a minute on a Pi.
        self._say("making 30 days of history in the background …", style="dim")
        script = self._folder / "history.sql"
        script.write_bytes((files("usbgate.cli") / "demohistory.sql").read_bytes())
        zone = f"set time zone {time.localtime().tm_gmtoff / 3600}"  # for the hours of the day
        command = [str(psql), "-XAtqw", "-v", "ON_ERROR_STOP=1", "-d", dsn, "-c", zone, "-f", str(script)]
        self._history = self._popen(command)

    def _check_history(self) -> None:
        if self._history is not None and self._history.poll() is not None:
            made = self._history.returncode == 0
            self._say("30 days of history are made" if made else f"no history: see {self._log}", style="dim")
            self._history = None

    def _say(self, text: str, style: str = "") -> None:
        self._console.print(Text(text, style))

    def _start(self, name: str, arguments: Sequence[str]) -> None:
        self._running[name] = self._popen(arguments)

    def _popen(self, arguments: Sequence[str]) -> subprocess.Popen[bytes]:
        # In a session of its own, so that Ctrl-C reaches only us, and we end the parts in order.
        with open(self._log, "ab") as log:
            process = subprocess.Popen(
                arguments,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment(self._state),
                start_new_session=True,
                preexec_fn=end_with_parent(),  # if the demo is killed
            )
        self._parts.callback(_end, process)
        return process

    def _check(self) -> None:
        if self._ending.is_set():
            raise _Ended
        for name, process in self._running.items():
            if process.poll() is not None:
                self._fail(f"the {name} exited unexpectedly")

    def _wait(self, what: str, look: Callable[[], _Found | None]) -> _Found:
        deadline = time.monotonic() + READY_LIMIT
        while not (found := look()):
            self._check()
            if time.monotonic() > deadline:
                self._fail(f"{what} was not ready after {READY_LIMIT:.0f} s")
            self._ending.wait(LOOK)
        return found

    def _fail(self, why: str) -> NoReturn:
        lines = self._log.read_text("utf-8", "replace").splitlines()[-LAST_LINES:]
        print(*lines, sep="\n", file=sys.stderr)
        raise DemoFailed(f"{why}; the last lines of its log are above")

    def _find_database(self, psql: Path) -> str | None:
        """
        Return how to connect to the database, once the command that the demo shows works; None until then.
        """
        server = PidFile.read(self._data)
        if server is None or not server.ready:
            return None
        dsn = make_dsn(host=server.socket_folder, port=server.port, user=USER, dbname=DATABASE)
        query = [str(psql), "-XAtqw", "-d", dsn, "-c", "select 1 from public.measures limit 1"]
        quiet = subprocess.DEVNULL
        tried = subprocess.run(query, stdin=quiet, stdout=quiet, stderr=quiet, start_new_session=True)
        return dsn if tried.returncode == 0 else None

    def _show(self, connection: Connection) -> None:
        readings = ReadingRows(Reader(connection))
        connection.send("watch")
        while True:
            self._check()
            self._check_history()
            try:
                line = connection.receive(time.monotonic() + TURN)
            except RequestRefused:  # no line in this time
                continue
            except AskError:
                # The daemon is ending or has ended: the next check says which.
                self._ending.wait(LOOK)
                continue
            for row in readings.rows(line):
                self._console.print(row)


def _choose_port(usual: int, parts: ExitStack) -> int:
    """
    Return a port on which the daemon can listen: the usual one, or else a free one, reserved until `parts` is closed.
    """
    with suppress(OSError), socket.create_server((HOST, usual)):
        return usual
    # A socket that is bound and does not listen keeps others from getting the port before the daemon listens on it.
    keeper = parts.enter_context(socket.socket())
    keeper.bind((HOST, 0))
    keeper.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # after bind, which could otherwise share a port
    port: int = keeper.getsockname()[1]
    return port


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
