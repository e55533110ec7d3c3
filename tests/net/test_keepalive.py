"""
Keep-alive of connections.
"""

from __future__ import annotations

import socket
from types import SimpleNamespace
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from usbgate.net.keepalive import keep_alive


class KeepAliveTests(SynchronousTestCase):
    """
    A real socket.
    """

    def test_probes(self) -> None:
        """
        A peer that is gone is noticed after half a minute, below TLS, too, whose transport has another handle.
        """
        for encrypted in (False, True):
            channel = socket.socket()
            self.addCleanup(channel.close)
            bare: Any = SimpleNamespace(setTcpKeepAlive=lambda on: None, getHandle=lambda channel=channel: channel)
            tls: Any = SimpleNamespace(setTcpKeepAlive=lambda on: None, getHandle=object, transport=bare)
            keep_alive(tls if encrypted else bare)
            options = (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
            self.assertEqual([channel.getsockopt(socket.IPPROTO_TCP, each) for each in options], [10, 10, 2])
