"""
What tells a connection whose other end is gone from one that is quiet.
"""

from __future__ import annotations

import select
import socket

from twisted.internet.interfaces import IFileDescriptor, ITCPTransport

# Seconds of quiet, seconds between probes, probes without an answer: a peer that lost its power is noticed after half
# a minute, not after the two hours that are the kernel's default.
_PROBES = [("TCP_KEEPIDLE", 10), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 2)]


def keep_alive(transport: ITCPTransport) -> None:
    """
    Let the kernel end a connection whose other end is gone.

    A peer that closed is found out later still: it looks as if it had half-closed, and its kernel answers for it for a
    minute (`tcp_fin_timeout`).
    """
    transport.setTcpKeepAlive(True)
    handle = transport.getHandle()  # type: ignore[attr-defined]  # Twisted's interface leaves it out
    # TLS has another handle; a Unix socket's transport says that it were TCP's.
    if isinstance(handle, socket.socket) and handle.family in (socket.AF_INET, socket.AF_INET6):
        for name, value in _PROBES:
            if hasattr(socket, name):
                handle.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def is_over(transport: object) -> bool:
    """
    Whether a connection is over though its transport does not know it: once its peer has half-closed nobody reads
    from it, and the reactor does not look.
    """
    if not IFileDescriptor.providedBy(transport):
        return False
    poll = select.poll()
    poll.register(transport.fileno(), 0)  # errors and the end are told in any case
    return bool(poll.poll(0))
