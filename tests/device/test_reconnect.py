"""
Opening a device until it succeeds, and again when it went away.
"""

from __future__ import annotations

from twisted.logger import capturedLogs

from tests.support.links import LinkCase, texts
from usbgate.device.errors import NoSuchDevice


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
