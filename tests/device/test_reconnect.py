"""
Opening a device until it succeeds, and again when it went away.
"""

from __future__ import annotations

from itertools import pairwise

from twisted.internet.interfaces import ITCPTransport
from twisted.internet.testing import StringTransport
from twisted.logger import capturedLogs
from zope.interface import implementer

from tests.support.links import LinkCase, texts
from usbgate.device.errors import NoSuchDevice
from usbgate.device.reconnect import BRIEF

OPEN_LOST_BACK = ["board is open: /dev/board", "board was disconnected: /dev/board", "board is back after 1.0 s"]


@implementer(ITCPTransport)
class NetworkTransport(StringTransport):  # type: ignore[misc]  # it has as much of it as is used
    """
    The transport of a connection to a serial server.
    """

    def setTcpNoDelay(self, enabled: bool) -> None:
        """
        Accept the option.
        """

    def setTcpKeepAlive(self, enabled: bool) -> None:
        """
        Accept the option.
        """

    def getHandle(self) -> None:
        """
        There is no socket.
        """

    def abortConnection(self) -> None:
        """
        Nothing is to be aborted.
        """


class ReconnectorTests(LinkCase):
    """
    A link to a device that is absent at times.
    """

    def test_absent(self) -> None:
        """
        `link_down` is called for the first failure only, with its remedy; each kind of failure is logged once.
        """
        self.device.absent = NoSuchDevice("/dev/board")
        with capturedLogs() as logs:
            self.link.startService()
            self.clock.pump([1.0] * 5)
            self.device.absent = OSError("broken")
            self.clock.pump([1.0] * 5)
            self.device.absent = None
            self.clock.advance(1.0)
        self.addCleanup(self.close)
        self.assertEqual(self.device.attempts, 12)
        why = str(NoSuchDevice("/dev/board"))
        self.assertEqual(self.listener.calls, [("down", why), ("up",)])
        self.assertEqual(
            texts(logs),
            [
                f"board cannot be opened: {why}",
                "board cannot be opened: broken",
                "board is back after 11.0 s",
            ],
        )

    def test_away_and_back(self) -> None:
        """
        Losing the device and opening it again are reported and logged once each.
        """
        with capturedLogs() as logs:
            self.link.startService()
            self.addCleanup(self.close)
            self.device.vanish()
            self.device.absent = NoSuchDevice("/dev/board")
            self.clock.pump([1.0] * 3)
            self.device.absent = None
            self.clock.advance(1.0)
        self.assertEqual(self.listener.calls, [("up",), ("down", "/dev/board was disconnected"), ("up",)])
        self.assertEqual(texts(logs)[0], "board is open: /dev/board")
        self.assertEqual(texts(logs)[-1], "board is back after 4.0 s")

    def test_stop_while_waiting(self) -> None:
        """
        A stop between two attempts completes at once; the next start reports the first failure again.
        """
        self.device.absent = NoSuchDevice("/dev/board")
        self.link.startService()
        self.successResultOf(self.link.stopService())
        self.assertEqual(self.clock.getDelayedCalls(), [])
        with capturedLogs() as logs:
            self.link.startService()
        self.addCleanup(self.close)
        self.assertEqual(self.listener.calls, [("down", str(self.device.absent))] * 2)
        self.assertEqual(texts(logs), [f"board cannot be opened: {self.device.absent}"])


class BriefConnectionTests(LinkCase):
    """
    A device that is open only briefly, again and again.
    """

    def loop(self, times: int, stays: float, away: float = 1.0) -> None:
        """
        Let the device be open for so many seconds, and away for as many, some times.
        """
        for _ in range(times):
            self.clock.advance(stays)
            self.device.vanish()
            self.clock.advance(away)

    def start(self, transport: type[StringTransport] = StringTransport) -> None:
        """
        Start the link.
        """
        self.device.transport_class = transport
        self.link.startService()
        self.addCleanup(self.close)

    def test_boot_loop(self) -> None:
        """
        A tty is opened again at once each time; the loop is logged once, counted, and its end is logged.
        """
        with capturedLogs() as logs:
            self.start()
            self.loop(100, stays=0.3)
            self.assertEqual(self.device.attempts, 101)
            self.assertEqual(self.link.counts.reconnects, 100)
            self.clock.advance(BRIEF)
            lines = texts(logs)
            self.clock.advance(60.0)
            self.device.vanish()
            self.clock.advance(1.0)
        self.assertEqual(len(lines), 5)
        self.assertEqual(lines[:3], OPEN_LOST_BACK)
        self.assertIn("only briefly again and again: check the board's power supply", lines[3])
        self.assertEqual(lines[4], "board stays open, after 100 brief connections")
        self.assertEqual(texts(logs)[5:], ["board was disconnected: /dev/board", "board is back after 1.0 s"])

    def test_long_connections(self) -> None:
        """
        A device that stays for some seconds each time is in no loop: each time is logged.
        """
        with capturedLogs() as logs:
            self.start()
            self.loop(10, stays=BRIEF + 0.1)
        self.assertEqual(len(texts(logs)), 21)

    def test_serial_server_in_use(self) -> None:
        """
        A serial server that closes each connection at once is tried ever more rarely, every 30 s at last, and as often
        as ever once a connection lasted.
        """
        with capturedLogs() as logs:
            self.start(NetworkTransport)
            attempts: list[float] = []
            for _ in range(300):
                if self.device.attempts > len(attempts):
                    self.device.vanish()
                    attempts.append(self.clock.seconds())
                self.clock.advance(1.0)
        waits = [after - before for before, after in pairwise(attempts)]
        self.assertEqual(waits, sorted(waits))
        self.assertTrue(30.0 <= waits[-1] <= 31.0, waits)
        self.assertLess(len(attempts), 18)
        self.assertEqual(len(texts(logs)), 4)
        self.assertIn("is another client connected to the serial server?", texts(logs)[3])
        self.clock.advance(31.0)
        self.clock.advance(BRIEF)
        self.device.vanish()
        self.clock.advance(1.0)
        self.assertEqual(self.device.attempts, len(attempts) + 2)

    def test_stop_in_a_loop(self) -> None:
        """
        A stop leaves no timer, and the next start begins anew.
        """
        self.start()
        self.loop(5, stays=0.1)
        stopped = self.link.stopService()
        self.device.vanish()
        self.successResultOf(stopped)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        with capturedLogs() as logs:
            self.link.startService()
        self.assertEqual(texts(logs), ["board is open: /dev/board"])
