"""
The benchmark's clients, as processes: raw sockets and epoll, since they share the machine with the daemon.

Each prints one line of JSON: the results, how many seconds it `lasted`, and its own seconds of `cpu`. Some print others
before.
"""

from __future__ import annotations

import json
import os
import re
import select
import socket
import sys
import time
import tty
from array import array
from typing import Any

from tests.bench.asking import (
    Crowd,
    HttpAsker,
    LineAsker,
    Timing,
    ask,
    connect,
    connect_all,
    direct,
    quantile,
    together,
)
from tests.bench.mqttasking import MqttCrowd
from tests.bench.neighbours import besiege

_STREAM = b"GET /api/v1/events HTTP/1.1\r\nHost: localhost\r\n\r\n"
_VALUE = re.compile(rb'VALUE"?:([0-9.]+)')  # EVENT:reading_ID:u1_VALUE:123456_AT:…, {"VALUE":123456.0}


def drain(path: str, size: int) -> dict[str, Any]:
    """
    Read a number of bytes from a tty and discard them.
    """
    fd = os.open(path, os.O_RDWR | os.O_NOCTTY)
    tty.setraw(fd)
    print("{}", flush=True)  # it is open
    begun: float | None = None
    while size:
        size -= len(os.read(fd, 65536))
        begun = begun or time.monotonic()
    return {"seconds": time.monotonic() - (begun or 0.0)}


def watch(
    port: int, watchers: int, sampled: int, quiet: float, http: bool = False, limit: float = 120.0
) -> dict[str, Any]:
    """
    Watch all events over many connections, until standard input ends and no event has come for a while.

    A sample of them reads each event as it comes and records its delay: the value is the time at which it was sent. The
    others read ten times a second, since reading 200,000 events a second one by one takes a core.

    Args:
        port: The port.
        watchers: The number of connections.
        sampled: The size of the sample.
        quiet: Seconds without an event after which to end.
        http: Whether the port is that of the page.
        limit: Seconds after which to end in any case.
    """
    sockets = _connect_slowly(port, watchers) if http else connect_all(port, watchers)
    reading, dropping = (b"event: reading", b"event: dropped") if http else (b"EVENT:reading", b"EVENT:dropped")
    for each in sockets:
        each.send(_STREAM if http else b"watch\n")
        greeting = b""
        while not greeting.endswith(b"-0\n\n" if http else b"OK:watch\n"):
            if not (data := each.recv(4096)):
                raise AssertionError(f"no OK: {greeting!r}")
            greeting += data
        each.setblocking(False)
    print("{}", flush=True)  # all of them watch
    step = max(1, watchers // sampled)
    sample, others = sockets[::step], [each for n, each in enumerate(sockets) if n % step]
    poll = select.epoll()
    for each in sample:
        poll.register(each.fileno(), select.EPOLLIN)
    poll.register(0, select.EPOLLIN)
    by_fd = {each.fileno(): each for each in sample}
    rests = dict.fromkeys(by_fd, b"")
    delays = array("d")
    tails = dict.fromkeys(others, b"")  # where a mark may have begun
    events = dropped = 0
    received = 0.0
    ending = False
    next_look = 0.0
    until = time.monotonic() + limit
    while (now := time.monotonic()) < until and not (ending and now > received + quiet):
        if now >= next_look:
            next_look = now + 0.1
            for each in others:
                for data in _available(each):
                    received = now
                    data = tails[each] + data
                    dropped += data.count(dropping)
                    events += data.count(reading)
                    tails[each] = data[1 - len(reading) :]
            now = time.monotonic()
        for fd, _ in poll.poll(max(0.0, next_look - now)):
            received = time.monotonic()
            if fd == 0:
                ending = True
                poll.unregister(0)
                continue
            data = by_fd[fd].recv(65536)
            *lines, rests[fd] = (rests[fd] + data).split(b"\n")
            for line in lines:
                if value := _VALUE.search(line):
                    events += 1
                    delays.append(received - float(value[1]) / 1e6)
                elif line.startswith(dropping):
                    dropped += 1
    return {
        "events": events,
        "dropped": dropped,
        "p50": quantile(delays, 0.5) * 1000,
        "p99": quantile(delays, 0.99) * 1000,
        "most": max(delays) * 1000,
    }


def _available(source: socket.socket) -> list[bytes]:
    found = []
    try:
        while data := source.recv(262144):
            found.append(data)
            if len(data) < 262144:
                break
    except BlockingIOError:
        pass
    return found


def hold(port: int, clients: int) -> dict[str, Any]:
    """
    Hold idle connections until standard input ends.
    """
    held = connect_all(port, clients)
    print("{}", flush=True)
    sys.stdin.buffer.read()
    return {"held": len(held)}


def ask_in_slices(port: int, clients: int, echo: bool) -> dict[str, Any]:
    """
    Ask over the same connections again and again. Each line of standard input says for how many seconds, and how many
    questions a second at most; 0 for no limit.

    Prints the results of each, with its own seconds of `cpu`.

    Args:
        port: The port of any gateway.
        clients: The number of connections.
        echo: Whether it echoes a question before it answers.
    """
    return _in_slices(Crowd(LineAsker(each, str(n), echo) for n, each in enumerate(_connect_slowly(port, clients), 1)))


def ask_http_in_slices(port: int, clients: int) -> dict[str, Any]:
    """
    The same over HTTP.

    Args:
        port: The port of the daemon's page.
        clients: The number of connections.
    """
    return _in_slices(Crowd(HttpAsker(each, str(n)) for n, each in enumerate(_connect_slowly(port, clients), 1)))


def ask_mqtt_in_slices(port: int, topic: str, clients: int) -> dict[str, Any]:
    """
    The same over MQTT.

    Args:
        port: The port of the broker.
        topic: Where to ask.
        clients: The number of questions at a time.
    """
    return _in_slices(MqttCrowd(port, topic, clients))


def _connect_slowly(port: int, count: int) -> list[socket.socket]:
    made = []
    for _ in range(count):
        made.append(connect(port))
        time.sleep(0.002)  # no faster than any gateway accepts them, see `connect_all`
    return made


def _in_slices(crowd: Crowd | MqttCrowd) -> dict[str, Any]:
    print("{}", flush=True)  # they are connected
    for line in sys.stdin.buffer:
        seconds, rate = map(float, line.split())
        cpu = time.process_time()
        results = crowd.ask(Timing(seconds, warm_up=0.0), rate)
        print(json.dumps({**results, "cpu": time.process_time() - cpu}), flush=True)
    return {}


def main(plan: str) -> None:
    """
    Call the function that a JSON text names as `does`, with its other values as arguments.
    """
    arguments = json.loads(plan)
    functions = (
        ask,
        ask_in_slices,
        ask_http_in_slices,
        ask_mqtt_in_slices,
        direct,
        together,
        drain,
        watch,
        hold,
        besiege,
    )
    does = {function.__name__: function for function in functions}
    begun, cpu = time.monotonic(), time.process_time()
    results = does[arguments.pop("does")](**arguments)
    print(json.dumps({"lasted": time.monotonic() - begun, **results, "cpu": time.process_time() - cpu}))


if __name__ == "__main__":
    main(sys.argv[1])
