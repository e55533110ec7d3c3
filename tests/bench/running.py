"""
What runs during a measurement: the daemon and the clients.
"""

from __future__ import annotations

import json
import subprocess
import time
from contextlib import suppress
from typing import Any

from tests.bench import child
from tests.support.running import LineClient, TwistdDaemon


class Daemon(TwistdDaemon):
    """
    The daemon, its cost, and its own status.
    """

    @property
    def pid(self) -> int:
        """
        The process id.
        """
        return self.process.pid

    @property
    def cpu(self) -> float:
        """
        The CPU seconds that it has used.
        """
        return child.cpu(self.pid)

    @property
    def rss(self) -> int:
        """
        The bytes of memory that it uses now.
        """
        return child.memory(self.pid)

    @property
    def peak(self) -> int:
        """
        The most bytes of memory that it has used.
        """
        return child.memory(self.pid, "VmHWM")

    def wait_until(self, word: str, text: str, limit: float = 60.0) -> None:
        """
        Send a word until its reply contains a text.
        """
        client = LineClient(self.port)
        deadline = time.monotonic() + limit
        try:
            while not any(text in line for line in client.word(word)):
                if time.monotonic() > deadline:
                    raise AssertionError(f"the reply to {word} lacks {text}: {self.log}")
                time.sleep(0.01)
        finally:
            client.close()

    def status(self, key: str) -> str:
        """
        Return one field of its `status`.
        """
        client = LineClient(self.port)
        try:
            for line in client.word("status"):
                for field in line.split("_"):
                    name, _, value = field.partition(":")
                    if name == key:
                        return value
        finally:
            client.close()
        raise AssertionError(f"status has no {key}")

    def close(self) -> None:
        """
        Stop the daemon, by SIGKILL if need be.
        """
        with suppress(AssertionError):  # it was killed; the measurement is over
            self.stop()


class Load:
    """
    Clients that run in the background.
    """

    def __init__(self, plan: str) -> None:
        self._process = child.start("tests.bench.load", plan, stdin=subprocess.PIPE)

    def ready(self) -> None:
        """
        Wait until they are ready, if they report that.
        """
        self._reply()

    def slice(self, seconds: float, rate: float = 0.0) -> dict[str, Any]:
        """
        Let them ask for some seconds, if they ask in slices, at most so many questions a second; return the results.
        """
        assert self._process.stdin is not None
        self._process.stdin.write(b"%f %f\n" % (seconds, rate))
        self._process.stdin.flush()
        return self._reply()

    def sleep(self, seconds: float) -> None:
        """
        Let them run; raise if they end early.
        """
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return
        raise AssertionError("the bench's clients ended by themselves")

    def result(self) -> dict[str, Any]:
        """
        End their standard input, wait until they end, and return their results.
        """
        assert self._process.stdin is not None
        self._process.stdin.close()
        return self._reply()

    def close(self) -> None:
        """
        End them, unless they have ended by themselves.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(1)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()

    def _reply(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise AssertionError("the bench's clients ended by themselves")
        reply: dict[str, Any] = json.loads(line)
        return reply
