"""
Which user is at the other end of a Unix socket.
"""

from __future__ import annotations

import socket
import struct
from typing import Any


def peer_user(transport: Any) -> int | None:
    """
    Return the number of the user who connected, as the kernel knows it; None if this is no Unix socket.

    Args:
        transport: A transport of Twisted.
    """
    channel = transport.getHandle() if hasattr(transport, "getHandle") else None
    if not isinstance(channel, socket.socket) or channel.family != socket.AF_UNIX:
        return None
    _, user, _ = struct.unpack("3i", channel.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i")))
    return int(user)
