"""
What systemd is told, over a datagram socket of the tests' own.
"""

from __future__ import annotations

import os
import socket
from pathlib import Path

from twisted.internet.task import Clock
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from tests.support.folders import new_folder
from usbgate.daemon.notify import SystemdNotifier


class NotifierTests(SynchronousTestCase):
    """
    The service, without a daemon; `tests.cli.test_install` has both.
    """

    def setUp(self) -> None:
        """
        Bind.
        """
        self.path = str(new_folder() / "notify")
        self.channel = self.listen(self.path)
        self.clock = Clock()

    def listen(self, address: str) -> socket.socket:
        """
        Bind a socket on which systemd would receive.
        """
        channel = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.addCleanup(channel.close)
        channel.bind(address)
        return channel

    def started(self, **environ: str) -> SystemdNotifier:
        """
        Start a notifier with this environment.
        """
        notifier = SystemdNotifier(self.clock, environ)
        notifier.startService()
        return notifier

    def received(self) -> list[bytes]:
        """
        Return what has arrived.
        """
        self.channel.setblocking(False)
        states = []
        try:
            while True:
                states.append(self.channel.recv(100))
        except BlockingIOError:
            return states

    def test_life(self) -> None:
        """
        It reports that it is ready, three times in the watchdog's time that it is alive, and that it stops.
        """
        notifier = self.started(NOTIFY_SOCKET=self.path, WATCHDOG_USEC="6000000", WATCHDOG_PID=str(os.getpid()))
        self.assertEqual(self.received(), [b"READY=1", b"WATCHDOG=1"])
        self.clock.pump([1.9, 0.2])
        self.assertEqual(self.received(), [b"WATCHDOG=1"])
        self.clock.pump([2.0, 2.0])
        self.assertEqual(self.received(), [b"WATCHDOG=1"] * 2)
        notifier.stopService()
        self.assertEqual(self.received(), [b"STOPPING=1"])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_no_watchdog(self) -> None:
        """
        Without a watchdog, or with one that watches another process, there are no signs of life.
        """
        for watchdog in ({}, {"WATCHDOG_USEC": "6000000", "WATCHDOG_PID": "1"}, {"WATCHDOG_USEC": "0"}):
            self.started(NOTIFY_SOCKET=self.path, **watchdog).stopService()
            self.assertEqual(self.received(), [b"READY=1", b"STOPPING=1"])

    def test_abstract(self) -> None:
        """
        An address that begins with `@` is not a file.
        """
        self.channel = self.listen(f"\0usbgate-test-{os.getpid()}")
        self.started(NOTIFY_SOCKET=f"@usbgate-test-{os.getpid()}")
        self.assertEqual(self.received(), [b"READY=1"])

    def test_none(self) -> None:
        """
        Without systemd, nothing is sent.
        """
        with capturedLogs() as events:
            self.started(WATCHDOG_USEC="6000000").stopService()
        self.assertEqual((self.received(), events), ([], []))

    def test_unreachable(self) -> None:
        """
        A socket that cannot be reached is logged once, and harms nothing.
        """
        with capturedLogs() as events:
            notifier = self.started(NOTIFY_SOCKET=str(Path(self.path).parent / "none"), WATCHDOG_USEC="3000000")
            self.clock.pump([1.0] * 5)
            notifier.stopService()
        (event,) = events
        self.assertIn("No such file", formatEvent(event) or "")
