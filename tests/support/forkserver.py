"""
Daemons that are forked from a process which has imported twistd and usbgate: the imports take most of the CPU time of
a start. The first daemon of a test process starts this module as a process, the fork server.

For each daemon it forks a parent, which forks the daemon and writes two lines to a pipe: the daemon's process id, then
its exit status. So a test can wait for a daemon that is not its child.

The command line that others see is the fork server's. Tests that are about it, or about the start itself, run
`running.TWISTD` instead.
"""

from __future__ import annotations

import atexit
import gc
import json
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import IO, Any

REQUEST = 1 << 16  # bytes, the most of a request: the arguments and the environment
FILES = 2  # of a request: the daemon's output, and the pipe for its parent's lines


class ForkedProcess:
    """
    A daemon of the fork server, with the methods of `subprocess.Popen` that tests use.

    Attributes:
        pid: Its process id.
        returncode: Its exit status, negative if a signal ended it; None while it is not known to have ended.
    """

    def __init__(self, status: IO[bytes]) -> None:
        """
        Wait until it is forked.

        Args:
            status: The pipe with its parent's lines, unbuffered.
        """
        self._status = status
        self.pid = int(status.readline())
        self.returncode: int | None = None

    def wait(self, timeout: float | None = None) -> int:
        """
        Wait for its end; return its exit status.

        Args:
            timeout: Seconds; None for no limit.

        Raises:
            subprocess.TimeoutExpired: It still runs.
        """
        if self.returncode is None:
            readable = select.poll()
            readable.register(self._status, select.POLLIN)
            if not readable.poll(None if timeout is None else timeout * 1000):
                raise subprocess.TimeoutExpired(f"process {self.pid}", timeout or 0.0)
            with self._status as status:
                self.returncode = os.waitstatus_to_exitcode(int(status.readline()))
        return self.returncode

    def poll(self) -> int | None:
        """
        Return its exit status; None if it still runs.
        """
        try:
            return self.wait(0)
        except subprocess.TimeoutExpired:
            return None

    def send_signal(self, number: int) -> None:
        """
        Send it a signal, unless it has ended.
        """
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """
        Send it SIGKILL.
        """
        self.send_signal(signal.SIGKILL)


@cache
def _server() -> socket.socket:
    # Start the fork server, which ends when this process does.
    ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2 * REQUEST)
    with its:
        # Another package may have installed its own `tests`.
        paths = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
        process = subprocess.Popen(
            [sys.executable, "-m", __name__], stdin=its.fileno(), cwd="/", env=paths, start_new_session=True
        )

    def stop() -> None:
        ours.close()
        process.wait()

    atexit.register(stop)
    return ours


def fork(code: str, arguments: Sequence[str], environment: Mapping[str, str], output: int) -> ForkedProcess:
    """
    Fork a daemon, in a session of its own, and in the root folder.

    Args:
        code: The Python code that runs twistd.
        arguments: The arguments of twistd.
        environment: Its environment.
        output: The file descriptor of its standard output and error.
    """
    reading, writing = os.pipe()
    try:
        request = json.dumps({"code": code, "arguments": arguments, "environment": dict(environment)}).encode()
        socket.send_fds(_server(), [request], [output, writing])
    finally:
        os.close(writing)
    return ForkedProcess(open(reading, "rb", buffering=0))


def _load() -> None:
    # Import what a daemon needs, but not the reactor, which each process must have for itself, and so not klein.
    for module in (
        *("twisted.scripts.twistd", "twisted.internet.epollreactor", "twisted.application.service", "twisted.plugin"),
        *("usbgate.tap", "usbgate.assembly.daemon", "usbgate.device.dialects.fields"),
    ):
        import_module(module)
    assert "twisted.internet.reactor" not in sys.modules
    gc.freeze()  # so that the daemon's collections do not write to memory that is shared


def _serve(requests: socket.socket) -> str | None:
    # Return the code to run in each forked daemon; None at the end of the requests.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # so that the daemons' parents leave no zombies
    while True:
        data, (*files,), _, _ = socket.recv_fds(requests, REQUEST, FILES)
        if not data:
            return None
        if os.fork() == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            signal.signal(signal.SIGHUP, signal.SIG_DFL)  # which `nohup` has ignored
            break
        for file in files:
            os.close(file)
    output, status = files
    if pid := os.fork():
        requests.close()
        os.close(output)
        os.write(status, b"%d\n" % pid)
        _, result = os.waitpid(pid, 0)
        os.write(status, b"%d\n" % result)
        os._exit(0)
    os.setsid()
    requests.close()
    nowhere = os.open(os.devnull, os.O_RDONLY)
    for number, file in enumerate((nowhere, output, output)):
        os.dup2(file, number)
    os.closerange(3, max(nowhere, output, status) + 1)
    request: Any = json.loads(data)
    os.environ.clear()
    os.environ.update(request["environment"])
    sys.argv[1:] = request["arguments"]
    code: str = request["code"]
    return code


def _main() -> None:
    _load()
    code = _serve(socket.socket(fileno=0))
    if code is not None:
        exec(code, {"__name__": "__main__"})


if __name__ == "__main__":
    _main()
