"""
Acknowledging at once.
"""

from __future__ import annotations

import socket
from types import SimpleNamespace
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from usbgate.net.quickack import quick_ack


class QuickAckTests(SynchronousTestCase):
    """
    Real sockets.
    """

    def test_tcp(self) -> None:
        """
        After each call, the kernel does not delay acknowledgements, below TLS, too; a socket that is closed does no
        harm.
        """
        with socket.create_server(("127.0.0.1", 0)) as server:
            for encrypted in (False, True):
                channel = socket.create_connection(server.getsockname())
                self.addCleanup(channel.close)
                bare: Any = SimpleNamespace(getHandle=lambda channel=channel: channel)
                tls: Any = SimpleNamespace(getHandle=object, transport=bare)
                acknowledge = quick_ack(tls if encrypted else bare)
                for _ in range(2):
                    channel.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 0)
                    acknowledge()
                    self.assertEqual(channel.getsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK), 1)
                channel.close()
                acknowledge()

    def test_others(self) -> None:
        """
        A Unix socket has no acknowledgements.
        """
        one, other = socket.socketpair()
        self.addCleanup(one.close)
        self.addCleanup(other.close)
        transport: Any = SimpleNamespace(getHandle=lambda: one)
        quick_ack(transport)()
