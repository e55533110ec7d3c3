"""
The least gateway in Twisted, run with the path of a tty and a port: what any gateway costs that is written so.

It echoes each line of a client, writes it to the tty, and passes each line of the tty on to the client that was the
first to ask for its sensor. It checks, limits and stores nothing, and has no timers.
"""

from __future__ import annotations

import sys
from collections import defaultdict, deque
from typing import Any

from twisted.internet import reactor as _reactor
from twisted.internet.interfaces import ITCPTransport
from twisted.internet.protocol import Factory
from twisted.internet.serialport import SerialPort
from twisted.protocols.basic import LineOnlyReceiver


class _Tty(LineOnlyReceiver):
    delimiter = b"\n"

    def __init__(self) -> None:
        self.askers: defaultdict[bytes, deque[LineOnlyReceiver]] = defaultdict(deque)  # by `ID:7`

    def lineReceived(self, line: bytes) -> None:
        self.askers[line.partition(b"_")[0]].popleft().sendLine(line)


class _Asker(LineOnlyReceiver):
    delimiter = b"\n"
    transport: ITCPTransport

    def __init__(self, tty: _Tty) -> None:
        self._tty = tty

    def connectionMade(self) -> None:
        self.transport.setTcpNoDelay(True)

    def lineReceived(self, line: bytes) -> None:
        self.sendLine(line)
        self._tty.askers[line.split(b"_")[1]].append(self)
        self._tty.sendLine(line)


def main(path: str, port: int) -> None:
    """
    Serve until SIGTERM.
    """
    reactor: Any = _reactor
    tty = _Tty()
    SerialPort(tty, path, reactor, baudrate=115200)
    reactor.listenTCP(port, Factory.forProtocol(lambda: _Asker(tty)), interface="127.0.0.1")
    reactor.run()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
