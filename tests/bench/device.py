"""
The benchmark's device: a pty in a process of its own. Lines are built before a measurement where possible, so that
building them is not measured; the row `throughput` shows that this suffices.
"""

from __future__ import annotations

import json
import os
import pty
import select
import subprocess
import sys
import time
import tty
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.bench.child import start

BURST = 0.002  # seconds between two writes of unasked readings; a full-speed USB port has a frame a millisecond


class Device:
    """
    A device behind a symlink: answers questions, sends unasked readings at a rate, and sends many lines at once.

    Its answer is `ID:7_VALUE:9_MSG:J`, where 9 is the argument `N` of the question, or the number of the message
    where there is none. Unasked readings are of sensors `u0` to `u39`; their value is the time, in microseconds of
    the monotonic clock.
    """

    def __init__(self, path: Path) -> None:
        """
        Plug the device in.

        Args:
            path: The symlink to make.
        """
        self.path = path
        self.process = start("tests.bench.device", str(path), stdin=subprocess.PIPE)
        self._reply()

    def flood(self, lines: int, sensors: int, first: int = 0) -> None:
        """
        Prepare lines: line n is of sensor n % sensors and has the value n.
        """
        self._ask({"lines": lines, "sensors": sensors, "first": first})

    def go(self) -> float:
        """
        Send the prepared lines as fast as they are read; return the seconds that it took.
        """
        seconds: float = self._ask({"go": True})["seconds"]
        return seconds

    def begin(self) -> None:
        """
        Start to send the prepared lines; call `finish` afterwards.
        """
        self._send({"go": True})

    def finish(self) -> float:
        """
        Wait until the lines of `begin` are sent; return the seconds that it took.
        """
        seconds: float = self._reply()["seconds"]
        return seconds

    def speak(self, rate: float) -> None:
        """
        Send a number of unasked readings per second from now on.
        """
        self._ask({"rate": rate})

    def answer_after(self, delay: float) -> None:
        """
        Answer questions after a delay in seconds from now on.
        """
        self._ask({"delay": delay})

    def counts(self) -> Mapping[str, float]:
        """
        Return how many questions were `received`, how many unasked readings were `spoken`, and how many bytes are
        `unsaid`, since the tty does not take them.
        """
        return self._ask({})

    def unplug(self) -> None:
        """
        Unplug the device.
        """
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()

    def _ask(self, what: Mapping[str, Any]) -> dict[str, Any]:
        self._send(what)
        return self._reply()

    def _send(self, what: Mapping[str, Any]) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(what).encode() + b"\n")
        self.process.stdin.flush()

    def _reply(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise AssertionError("the bench's device ended by itself")
        reply: dict[str, Any] = json.loads(line)
        return reply


class _Board:
    """
    The child process: one loop around the pty and the commands on its standard input.
    """

    def __init__(self, path: Path) -> None:
        self._master, slave = pty.openpty()
        tty.setraw(slave)  # and it stays open, so that a daemon that goes away is no error here
        os.set_blocking(self._master, False)
        path.unlink(missing_ok=True)
        path.symlink_to(os.ttyname(slave))
        self._out = memoryview(b"")  # what the tty has not taken yet
        self._next: list[bytes] = []  # what comes after it
        self._prepared = b""
        self._going: float | None = None  # since when what was prepared is said
        self._rest = b""
        self._received = 0
        self._delay = 0.0
        self._late: list[tuple[float, bytes]] = []  # answers, and when they are due
        self._rate = 0.0
        self._since = 0.0  # from when on the rate counts
        self._spoken_since = 0
        self._spoken = 0

    def run(self) -> None:
        self._reply({})
        poll = select.poll()
        poll.register(0, select.POLLIN)
        poll.register(self._master, select.POLLIN)
        while True:
            poll.modify(self._master, select.POLLIN | (select.POLLOUT if self._out else 0))
            for fd, what in poll.poll(self._patience()):
                if fd == 0:
                    order = sys.stdin.buffer.readline()
                    if not order:
                        return
                    self._obey(json.loads(order))
                elif what & select.POLLIN:
                    self._listen()
            self._speak()
            self._write()

    def _patience(self) -> float | None:
        due = [at for at, _ in self._late[:1]]
        if self._rate:
            due.append(self._since + max((self._spoken_since + 1) / self._rate, time.monotonic() - self._since + BURST))
        return max(0.0, min(due) - time.monotonic()) * 1000 if due else None

    def _obey(self, order: Mapping[str, Any]) -> None:
        if "lines" in order:
            first, sensors = order["first"], order["sensors"]
            lines = (b"ID:%d_VALUE:%d\n" % (n % sensors, n) for n in range(first, first + order["lines"]))
            self._prepared = b"".join(lines)
        elif "go" in order:
            self._going = time.monotonic()
            self._next.append(self._prepared)
            self._prepared = b""
            return
        elif "rate" in order:
            self._rate, self._since, self._spoken_since = order["rate"], time.monotonic(), 0
        elif "delay" in order:
            self._delay = order["delay"]
        unsaid = len(self._out) + sum(map(len, self._next))
        self._reply({"received": self._received, "spoken": self._spoken, "unsaid": unsaid})

    def _reply(self, what: Mapping[str, float]) -> None:
        os.write(1, json.dumps(what).encode() + b"\n")

    def _listen(self) -> None:
        *lines, self._rest = (self._rest + os.read(self._master, 65536)).split(b"\n")
        answers = []
        for line in lines:  # MSG:J_ID:7_ORIGIN:b_N:9
            self._received += 1
            parts = line.split(b"_")
            value = parts[3][2:] if len(parts) > 3 else b"%d" % self._received
            answers.append(b"%s_VALUE:%s_%s\n" % (parts[1], value, parts[0]))
        if not answers:
            return
        if self._delay:
            self._late.append((time.monotonic() + self._delay, b"".join(answers)))
        else:
            self._next.append(b"".join(answers))

    def _speak(self) -> None:
        now = time.monotonic()
        while self._late and self._late[0][0] <= now:
            self._next.append(self._late.pop(0)[1])
        due = int((now - self._since) * self._rate) - self._spoken_since if self._rate else 0
        if due > 0:
            stamp = int(now * 1e6)
            first = self._spoken
            self._next.append(b"".join(b"ID:u%d_VALUE:%d\n" % (n % 40, stamp) for n in range(first, first + due)))
            self._spoken += due
            self._spoken_since += due

    def _write(self) -> None:
        while True:
            if not self._out:
                if not self._next:
                    if self._going is not None:
                        seconds, self._going = time.monotonic() - self._going, None
                        self._reply({"seconds": seconds})
                    return
                self._out = memoryview(b"".join(self._next))
                self._next.clear()
            try:
                self._out = self._out[os.write(self._master, self._out[:65536]) :]
            except BlockingIOError:
                return


if __name__ == "__main__":
    _Board(Path(sys.argv[1])).run()
