"""
Detect connections whose peer is gone.
"""

from __future__ import annotations

import select
import socket
from typing import Any

from twisted.internet.interfaces import IFileDescriptor, ITCPTransport

# Seconds without traffic, seconds between probes, probes without an answer: a peer that lost its power is noticed
# after half a minute. The kernel's default is two hours.
_PROBES = [("TCP_KEEPIDLE", 10), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 2)]


def keep_alive(transport: ITCPTransport) -> None:
    """
    Let the kernel end a connection whose peer is gone.

    A peer that closed its socket is noticed later still: at first it looks half-closed, and its kernel answers the
    probes for a minute (`tcp_fin_timeout`).
    """
    transport.setTcpKeepAlive(True)
    handle = tcp_socket(transport)
    if handle is not None:
        for name, value in _PROBES:
            if hasattr(socket, name):
                handle.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def tcp_socket(transport: ITCPTransport) -> socket.socket | None:
    """
    Return the socket of a transport; None if it is not of TCP: that of a Unix socket provides ITCPTransport, too.
    """
    handle = bare(transport).getHandle()
    is_tcp = isinstance(handle, socket.socket) and handle.family in (socket.AF_INET, socket.AF_INET6)
    return handle if is_tcp else None


def bare(transport: object) -> Any:
    """
    Return the transport of the socket, which for TLS is below the transport.
    """
    return getattr(transport, "transport", transport)


def is_over(transport: object) -> bool:
    """
    Return whether a connection is over though its transport has not noticed: once the peer has half-closed it, the
    reactor no longer polls it for reading.
    """
    if not IFileDescriptor.providedBy(transport):
        return False
    poll = select.poll()
    poll.register(transport.fileno(), 0)  # errors and the end are reported in any case
    return bool(poll.poll(0))
