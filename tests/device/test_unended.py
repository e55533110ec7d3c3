"""
A line whose end does not come (protocol §2).
"""

from __future__ import annotations

from tests.support.links import REPORT, LinkCase
from tests.support.turnclock import TurnClock
from usbgate.core.fieldline import LINE_LIMIT
from usbgate.device.dialects.fields import Dialect
from usbgate.device.link import Link

GAP = 0.25
LINE = b"ID:20_VALUE:456"


class GapTests(LinkCase):
    """
    A device with a `gap`.
    """

    def setUp(self) -> None:
        """
        Build a link with a gap.
        """
        super().setUp()
        self.turns = self.clock = TurnClock()
        self.link = Link(self.clock, self.device, "board", "/dev/board", Dialect(), lambda attempt: 1.0, gap=GAP)
        self.link.listener = self.listener

    def quiet(self, seconds: float) -> None:
        """
        Let time pass, then let the reactor read once more.
        """
        self.clock.advance(seconds)
        self.clock.advance(0)

    def test_quiet(self) -> None:
        """
        What has come of a line is a line after the gap, also as the first after an opening; and only once.
        """
        self.open()
        for data in (b"\r\n" + LINE, LINE, LINE + b"\0"):
            self.listener.calls.clear()
            self.device.say(data)
            self.quiet(GAP * 0.99)
            self.assertEqual(self.listener.calls, [])
            self.quiet(GAP * 0.02)
            self.assertEqual(self.listener.calls, [("reports", REPORT)])
            self.quiet(100)
            self.device.say(b"\r\n")
            self.assertEqual(len(self.listener.calls), 1)

    def test_in_pieces(self) -> None:
        """
        Each piece begins the gap anew, and a line end ends the line at once.
        """
        self.open()
        for place in range(len(LINE)):
            self.device.say(LINE[place : place + 1])
            self.quiet(GAP * 0.9)
        self.assertEqual(self.listener.calls, [])
        self.device.say(b"\n" + LINE)
        self.quiet(GAP * 0.9)
        self.assertEqual(self.listener.calls, [("reports", REPORT)])
        self.quiet(GAP * 0.2)
        self.assertEqual(self.listener.calls, [("reports", REPORT)] * 2)

    def test_read_once_more(self) -> None:
        """
        Where the reactor was busy for longer than the gap, what it reads then still belongs to the line.
        """
        self.open()
        self.device.say(LINE[:-1])
        self.turns.rightNow += GAP * 10
        self.turns.turn()
        self.device.say(LINE[-1:])  # it waited to be read
        self.turns.turn()
        self.quiet(GAP * 0.9)
        self.assertEqual(self.listener.calls, [])
        self.quiet(GAP * 0.2)
        self.assertEqual(self.listener.calls, [("reports", REPORT)])

    def test_paused(self) -> None:
        """
        While nobody reads the device there is no gap; it is measured from the resumption.
        """
        self.open()
        self.device.say(LINE[:-1])
        self.link.pause()
        self.quiet(GAP * 10)
        self.link.resume()
        self.quiet(GAP * 0.9)
        self.device.say(LINE[-1:] + b"\n")
        self.assertEqual(self.listener.calls, [("reports", REPORT)])

    def test_too_long(self) -> None:
        """
        The gap ends an over-long line, too: the next is read.
        """
        self.open()
        self.device.say(b"#" + b"x" * LINE_LIMIT)
        self.quiet(GAP)
        self.device.say(LINE)
        self.quiet(GAP)
        self.assertEqual(self.listener.calls[1:], [("reports", REPORT)])

    def test_partial(self) -> None:
        """
        The end of a line that began before the opening is partial, also where a gap ends it.
        """
        self.open()
        self.device.say(b"VALUE:456_ID:20")
        self.quiet(GAP)
        self.device.say(b"VALUE:456_ID:20")
        self.quiet(GAP)
        self.assertEqual(self.listener.calls, [("malformed", b"VALUE:456_ID:20", "partial"), ("reports", REPORT)])

    def test_closed(self) -> None:
        """
        What has come of a line when the device goes away is discarded.
        """
        self.open()
        self.device.say(LINE)
        self.device.vanish()
        self.quiet(GAP)
        self.assertEqual(self.listener.calls, [("down", "/dev/board was disconnected")])


class NoGapTests(LinkCase):
    """
    A device without one.
    """

    def test_waits(self) -> None:
        """
        Without a gap, only a line end ends a line.
        """
        self.open()
        self.device.say(LINE)
        self.clock.pump([1.0] * 100)
        self.assertEqual(self.listener.calls, [])
        self.device.say(b"\r")
        self.assertEqual(self.listener.calls, [("reports", REPORT)])
