"""
Acknowledge at once what a peer sends.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from contextlib import suppress

from twisted.internet.interfaces import ITCPTransport

from usbgate.net.keepalive import tcp_socket


def quick_ack(transport: ITCPTransport) -> Callable[[], None]:
    """
    Return what to call after each read.

    By default, the kernel waits up to 40 ms for data that it could send with the acknowledgement. A peer that does not
    switch Nagle's algorithm off, such as mosquitto, sends its next small message only then.
    """
    handle = tcp_socket(transport)
    option = getattr(socket, "TCP_QUICKACK", None)  # of Linux
    if handle is None or option is None:
        return lambda: None

    def acknowledge() -> None:
        with suppress(OSError):  # it is closed
            handle.setsockopt(socket.IPPROTO_TCP, option, 1)  # the kernel forgets it again

    return acknowledge
