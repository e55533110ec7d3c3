"""
Clients that want too much, as one process: they flood, drip or never read.
"""

from __future__ import annotations

import select
import socket
import time
from typing import Any

from tests.bench.asking import connect, connect_all

PIECE = 64 * 1024  # bytes in one write of a client that floods
DRIP = 0.1  # seconds between two bytes of a client that drips

# Seconds between two rounds of writing: the sockets hold far more than is read of them meanwhile, and the benchmark's
# other processes need the processor.
PACE = 0.005

# What clients flood with: words, questions to 100 sensors, lines that are not UTF-8, a line that does not end.
FLOODS = (
    b"ping\n" * (PIECE // 5),
    b"".join(b"MSG:J_ID:x%d_ORIGIN:x_N:%d\n" % (n % 100, n) for n in range(PIECE // 28)),
    b"ID:\xff\n" * (PIECE // 5),
    b"ping\n" + b"x" * PIECE,
)


class _Flood:
    """
    A connection that sends a text again and again, as fast as the socket takes it.
    """

    def __init__(self, connected: socket.socket, text: bytes) -> None:
        connected.setblocking(False)
        self.socket = connected
        self.text = text
        self._at = 0

    def send(self) -> None:
        """
        Send as much as the socket takes.
        """
        count = self.socket.send(self.text[self._at : self._at + PIECE])
        # A line that does not end goes on: what stands before it is sent once.
        self._at = (self._at + count) % len(self.text) or len(self.text) - PIECE


def besiege(port: int, flooding: int, dripping: int, deaf: int) -> dict[str, Any]:
    """
    Bother the daemon over many connections until standard input ends. One that is closed is opened again.

    Args:
        port: The port.
        flooding: How many flood, and discard what they receive.
        dripping: How many send a byte every `DRIP` seconds.
        deaf: How many ask for the known sensors all the time and read nothing.
    """
    poll = select.epoll()
    floods: dict[int, _Flood] = {}
    closed = 0

    def flood(connected: socket.socket, text: bytes, events: int) -> None:
        floods[connected.fileno()] = _Flood(connected, text)
        poll.register(connected.fileno(), events)

    for number, each in enumerate(connect_all(port, flooding)):
        flood(each, FLOODS[number % len(FLOODS)], select.EPOLLIN | select.EPOLLOUT)
    drips = connect_all(port, dripping)
    for each in connect_all(port, deaf):
        flood(each, b"sensors\n" * (PIECE // 8), select.EPOLLOUT)
    poll.register(0, select.EPOLLIN)
    print("{}", flush=True)
    next_drip = time.monotonic()
    dripped = 0
    while True:
        time.sleep(PACE)
        for fd, event in poll.poll(max(0.0, next_drip - time.monotonic())):
            if fd == 0:
                return {"closed": closed}
            neighbour = floods[fd]
            try:
                if event & select.EPOLLIN and not neighbour.socket.recv(PIECE):
                    raise ConnectionResetError
                if event & select.EPOLLOUT:
                    neighbour.send()
            except BlockingIOError:
                pass
            except ConnectionError:
                closed += 1
                del floods[fd]
                neighbour.socket.close()
                flood(connect(port), neighbour.text, select.EPOLLIN | select.EPOLLOUT)
        if time.monotonic() >= next_drip:
            next_drip = time.monotonic() + DRIP
            for each in drips:
                each.send(b"ping\n"[dripped % 5 : dripped % 5 + 1])
            dripped += 1
