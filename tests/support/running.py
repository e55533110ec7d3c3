"""
A device on a pty, the daemon as a process, and clients on sockets. Everything here blocks.
"""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import socket
import subprocess
import sys
import time
import tty
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from threading import Lock, Thread
from urllib.request import urlopen

from tests.support import forkserver
from tests.support.waiting import LIMIT, eventually
from usbgate.access.localtoken import LOCAL_FILE
from usbgate.core.fieldline import parse

RUN = "from twisted.scripts.twistd import run; run()"
TWISTD = (sys.executable, "-c", RUN)

ROOT = Path(__file__).resolve().parents[2]

Answer = Callable[[dict[str, str]], list[bytes]]


_kept: list[socket.socket] = []


def free_port() -> int:
    """
    Return a free TCP port, and reserve it until this process ends.

    A socket that is bound to the port but does not listen lets servers listen, since they set SO_REUSEADDR, and keeps
    the kernel from giving the port to anybody else before our daemon listens.
    """
    keeper = socket.socket()
    keeper.bind(("127.0.0.1", 0))
    keeper.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # after bind, which could otherwise share a port
    _kept.append(keeper)
    port: int = keeper.getsockname()[1]
    return port


def environment() -> dict[str, str]:
    """
    Return the environment for our processes: this source tree, and no settings of the person who runs the tests.
    """
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("USBGATE_", "XDG_"))}
    return {**kept, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", "XDG_CONFIG_HOME": "/nonexistent"}


def is_answered(url: str) -> object:
    """
    Return the status from a daemon's health URL; None if it does not answer.
    """
    with suppress(OSError), urlopen(url, timeout=5) as response:
        return json.load(response)["status"]
    return None


class PtyDevice:
    """
    A device on a pty, behind a symlink; a thread receives lines and answers them.
    """

    def __init__(self, path: Path, answer: Answer = lambda fields: []) -> None:
        """
        Plug it in.

        Args:
            path: The symlink to make.
            answer: Returns the lines that answer some received fields.
        """
        self.path = path
        self.received: list[bytes] = []
        self.answer = answer
        self._lock = Lock()
        self.plug()

    def plug(self) -> None:
        """
        Plug the device in, on a new pty behind the same symlink.
        """
        self._master, slave = pty.openpty()
        tty.setraw(slave)
        # Held open, so that writing does not fail before the daemon opens it.
        self._slave = slave
        self.path.unlink(missing_ok=True)
        self.path.symlink_to(os.ttyname(slave))
        self._stop, self._stopping = os.pipe()
        self._thread = Thread(target=self._listen, daemon=True)
        self._thread.start()
        self._plugged = True

    def unplug(self) -> None:
        """
        Unplug the device, unless it is unplugged already.
        """
        if not self._plugged:
            return
        self._plugged = False
        os.write(self._stopping, b"x")
        self._thread.join()
        self.path.unlink(missing_ok=True)
        for fd in (self._master, self._slave, self._stop, self._stopping):
            os.close(fd)

    def say(self, *lines: bytes) -> None:
        """
        Send lines as the device, in one write.
        """
        self.pour(b"".join(line + b"\n" for line in lines))

    def pour(self, data: bytes) -> None:
        """
        Send bytes as the device.
        """
        with self._lock:
            while data:
                data = data[os.write(self._master, data) :]

    def _listen(self) -> None:
        rest = b""
        while True:
            readable, _, _ = select.select([self._master, self._stop], [], [])
            if self._stop in readable:
                return
            *lines, rest = (rest + os.read(self._master, 65536)).split(b"\n")
            for line in lines:
                self.received.append(line)
                if answer := self.answer(parse(line)):
                    self.say(*answer)


class TwistdDaemon:
    """
    `twistd usbgate` as a process in a session of its own.
    """

    def __init__(
        self,
        state: Path,
        *options: str,
        port: int | None = None,
        twistd: tuple[str, ...] = ("-n", "--pidfile="),
        program: tuple[str, ...] | str = TWISTD,
        http: str | None = "none",
        output: int | None = None,
    ) -> None:
        """
        Start the daemon; `ready` waits for it.

        Args:
            state: Its state folder.
            options: Options of `usbgate`.
            port: The port to listen on; None picks one.
            twistd: Options of twistd.
            program: The command that runs twistd; or, to save the time of its imports, Python code that runs it in a
                forked process (see `forkserver`), such as `RUN`.
            http: The endpoint for browsers; None for the default.
            output: The file descriptor of its standard output; None for the file that `log` reads.
        """
        self.state = state
        self.port = port or free_port()
        arguments = [
            *(*twistd, "usbgate", "--state", str(state)),
            *("--listen", f"tcp:{self.port}:interface=127.0.0.1:backlog=511", *options),
            *(() if http is None else ("--http", http)),
        ]
        self.process: subprocess.Popen[bytes] | forkserver.ForkedProcess
        with ExitStack() as ours:
            if output is None:
                output = ours.enter_context((state.parent / f"{state.name}.log").open("ab")).fileno()
            if isinstance(program, str):
                self.process = forkserver.fork(program, arguments, environment(), output)
            else:
                self.process = subprocess.Popen(
                    [*program, *arguments],
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    cwd="/",
                    env=environment(),
                    start_new_session=True,
                )

    @property
    def log(self) -> str:
        """
        The log so far: the daemon writes it beside its work, so until it does not grow for a moment.
        """
        path = self.state.parent / f"{self.state.name}.log"
        text = ""
        for _ in range(50):
            before, text = text, path.read_text() if path.exists() else ""
            if text == before or self.process.poll() is not None:
                break
            time.sleep(0.02)
        return text

    def ready(self) -> TwistdDaemon:
        """
        Wait until it accepts connections.
        """
        eventually(self._listens, f"the daemon listens: {self.log}")
        return self

    def _listens(self) -> bool:
        if self.process.poll() is not None:
            raise AssertionError(f"the daemon ended with {self.process.returncode}: {self.log}")
        with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
            return True
        return False

    def local_token(self) -> str:
        """
        Return the local token, once it has one.
        """
        file = self.state / LOCAL_FILE
        eventually(file.exists, "there is a local token")
        return file.read_text().split("\n")[0]

    def kill(self) -> None:
        """
        Kill the daemon.
        """
        self.process.kill()
        self.process.wait(LIMIT)

    def stop(self) -> int:
        """
        Stop the daemon with SIGTERM, as an init system does; return its exit status.
        """
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(LIMIT)
            except subprocess.TimeoutExpired:
                self.kill()
                raise AssertionError(f"the daemon does not stop: {self.log}") from None
        return self.process.wait()


class LineClient:
    """
    A client that sends and receives lines.
    """

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), LIMIT)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._file = self.socket.makefile("rb")

    def say(self, *lines: str) -> None:
        """
        Send lines.
        """
        self.socket.sendall("".join(line + "\n" for line in lines).encode())

    def receive(self) -> str:
        """
        Return the next line; empty if the connection was closed.
        """
        return self._file.readline().decode().rstrip("\n")

    def word(self, line: str) -> list[str]:
        """
        Send a word; return the lines of its reply, the last one with OK or ERROR.
        """
        self.say(line)
        return list(self._reply())

    def _reply(self) -> Iterator[str]:
        while True:
            line = self.receive()
            yield line
            if line.startswith(("OK:", "ERROR:")) or not line:
                return

    def close(self) -> None:
        """
        Hang up.
        """
        self._file.close()
        self.socket.close()
