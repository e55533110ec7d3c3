"""
An idle daemon, and how fast it starts.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import closing, suppress
from pathlib import Path
from urllib.request import urlopen

from tests.bench import child
from tests.bench.device import Device
from tests.bench.figures import Figure, Row
from tests.bench.rig import Rig
from tests.bench.running import Daemon
from tests.support.running import LineClient, free_port


def _measure_idle(rig: Rig) -> Mapping[str, float]:
    seconds = rig.size(20, 2)
    port = free_port()
    page = f"tcp:{port}:interface=127.0.0.1"
    with rig.device() as device, rig.database() as database, rig.daemon(device, database.url, http=page) as daemon:
        with closing(LineClient(daemon.port)) as client:
            client.word("ask 1")
        with urlopen(f"http://127.0.0.1:{port}/") as response:
            response.read()
        # What a start leaves to be done: the reactor also wakes up for timers of 10 s that were cancelled.
        time.sleep(rig.size(12, 1))
        rig.progress(f"idle for {seconds} s")
        woken, cpu = child.wakeups(daemon.pid), daemon.cpu
        time.sleep(seconds)
        return {
            "rss": daemon.rss / 2**20,
            "wakeups": (child.wakeups(daemon.pid) - woken) / seconds,
            "cpu": (daemon.cpu - cpu) / seconds * 100,
        }


IDLE = Row(
    "idle",
    "an idle daemon, connected to its database, with its page on",
    [
        Figure("rss", "memory", "MiB", reach="<= 60"),
        Figure("wakeups", "wake-ups", "/s", reach="<= 1"),
        Figure("cpu", "CPU usage, of one core", "%"),
    ],
    _measure_idle,
    once=True,
)


def _until_answered(daemon: Daemon) -> float:
    """
    Ask as soon as a connection is possible, until there is an answer; return the time of the answer.
    """
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if daemon.process.poll() is not None:
            raise AssertionError(f"the daemon ended: {daemon.log}")
        with suppress(OSError):
            client = LineClient(daemon.port)
            with closing(client):
                client.say("MSG:J_ID:1_ORIGIN:b_N:5")
                client.receive()
                answer = client.receive()
            if not answer.startswith("ID:1_VALUE:5_MSG:J_AT:"):
                raise AssertionError(f"the first answer is {answer!r}")
            return time.monotonic()
        time.sleep(0.002)
    raise AssertionError(f"no answer: {daemon.log}")


def started(rig: Rig, device: Device, database: str, state: Path | None = None) -> tuple[float, float]:
    """
    Start a daemon; return the seconds until it answered a first request, and until that answer was stored.
    """
    page = f"tcp:{free_port()}:interface=127.0.0.1"
    begun = time.monotonic()
    with rig.daemon(device, database, wait=False, state=state, http=page) as daemon:
        answered = _until_answered(daemon) - begun
        daemon.wait_until("status", "STORE:connected")
        daemon.wait_until("status", "BACKLOG:0")
        return answered, time.monotonic() - begun


def _measure_start(rig: Rig) -> Mapping[str, float]:
    found = {}
    with rig.device() as device, rig.database() as database:
        rig.progress("a start with an external database")
        found["external_answered"], found["external_stored"] = started(rig, device, database.url)
    with rig.device() as device:
        state = rig.new_path("embedded")
        for name in ("first", "next"):
            rig.progress(f"the {name} start with an embedded database")
            found[f"{name}_answered"], found[f"{name}_stored"] = started(rig, device, "embedded", state)
    return found


START = Row(
    "start",
    "from the start of the process, with its page on, to the first answered request",
    [
        Figure("external_answered", "external database: answered", "s", reach="<= 1"),
        Figure("external_stored", "external database: stored", "s"),
        Figure("first_answered", "embedded, first start: answered", "s", reach="<= 2"),
        Figure("first_stored", "embedded, first start: stored", "s", reach="<= 2"),
        Figure("next_answered", "embedded, later starts: answered", "s"),
        Figure("next_stored", "embedded, later starts: stored", "s"),
    ],
    _measure_start,
)
