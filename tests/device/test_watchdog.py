"""
Silence, and resetting the board for it (protocol §4.7).
"""

from __future__ import annotations

from twisted.internet.testing import StringTransport
from twisted.logger import capturedLogs
from zope.interface import implementer

from tests.support.links import REPORT, LinkCase, texts
from usbgate.core.model import Send
from usbgate.device.dialects.fields import Dialect
from usbgate.device.errors import NoSuchDevice
from usbgate.device.interfaces import IResettable
from usbgate.device.link import Link
from usbgate.testing import request


@implementer(IResettable)
class ResettableTransport(StringTransport):
    """
    A transport that counts how often the board is reset.
    """

    resets = 0

    def reset(self) -> bool:
        """
        Count the reset.
        """
        self.resets += 1
        return True


class SilenceTests(LinkCase):
    """
    A device that sends nothing, and is reset.
    """

    def setUp(self) -> None:
        """
        Build a link that resets its board.
        """
        super().setUp()
        self.device.transport_class = ResettableTransport
        self.build(reset_silent=True)

    def build(self, reset_silent: bool) -> None:
        """
        Build a link to a device that is silent after 60 s.
        """
        self.link = Link(
            self.clock,
            self.device,
            "board",
            "/dev/board",
            Dialect(),
            retry=lambda attempt: 1.0,
            silence=60.0,
            reset_silent=reset_silent,
        )
        self.link.listener = self.listener

    @property
    def resets(self) -> int:
        """
        How often the board was reset since it was opened.
        """
        transport = self.device.transport
        assert isinstance(transport, ResettableTransport)
        return transport.resets

    def test_silent(self) -> None:
        """
        A device without a line for that time is silent, which is reported once; at the next line it is active again,
        which is reported before the line is delivered.
        """
        self.open()
        with capturedLogs() as logs:
            self.clock.pump([1.0] * 59)
            self.device.say(b"ID:20_VALUE:456\n")
            self.clock.pump([1.0] * 59)
            self.assertEqual(self.listener.calls, [("reports", REPORT)])
            self.clock.advance(1.0)
            self.clock.pump([60.0] * 10)
            self.assertEqual(self.listener.calls[1:], [("silent",)])
            self.device.say(b"ID:20_VALUE:456\n")
            self.assertEqual(self.listener.calls[2:], [("active",), ("reports", REPORT)])
        logged = [text for text in texts(logs) if "reset" not in text]
        self.assertEqual(logged, ["board has sent no line for 60 s", "board is active again after 660.0 s of silence"])
        self.clock.advance(60.0)
        self.assertEqual(self.listener.calls[4:], [("silent",)])

    def test_one_timer(self) -> None:
        """
        Lines start no timers.
        """
        self.open()
        timers = self.clock.getDelayedCalls()
        self.device.say(b"ID:20_VALUE:456\n" * 100)
        self.assertEqual((self.clock.getDelayedCalls(), len(timers)), (timers, 1))

    def test_what_is_a_line(self) -> None:
        """
        Malformed lines and the firmware's own text count as lines; empty lines, unfinished lines and echoes do not.
        """
        self.open()
        self.link.send([Send(request(), None, 3600.0)])
        for data in (b"x\n", b"x\n", b"#here\n"):
            self.clock.advance(59.0)
            self.device.say(data)
        self.assertNotIn(("silent",), self.listener.calls)
        self.clock.advance(59.0)
        self.device.say(b"\r\n" + self.device.transport.value() + b"half")
        self.clock.advance(1.0)
        self.assertEqual(self.listener.calls[-1], ("silent",))

    def test_not_while_paused(self) -> None:
        """
        A paused device is not called silent; the silence is measured from its resumption.
        """
        self.open()
        self.link.pause()
        self.clock.pump([30.0] * 10)
        self.link.resume()
        self.clock.pump([59.0])
        self.assertEqual(self.listener.calls, [])
        self.clock.pump([30.0] * 3)
        self.assertEqual(self.listener.calls, [("silent",)])

    def test_reset(self) -> None:
        """
        A silent board is reset, and again after growing intervals of up to an hour; the next silence begins with the
        shortest.
        """
        self.open()
        at: list[int] = []
        for second in range(1, 15_000):
            self.clock.advance(1.0)
            if self.resets > len(at):
                at.append(second)
        self.assertEqual(at, [60, 180, 420, 900, 1860, 3780, 7380, 10980, 14580])
        self.device.say(b"#boot\n")
        self.clock.pump([1.0] * 59)
        self.assertEqual(self.resets, 9)
        self.clock.pump([1.0] * 121)
        self.assertEqual(self.resets, 11)

    def test_gone_while_silent(self) -> None:
        """
        A device that went away is not silent; when it is back the silence is measured anew.
        """
        self.open()
        self.clock.advance(60.0)
        self.device.vanish()
        self.device.absent = NoSuchDevice("/dev/board")
        self.clock.pump([1.0] * 200)
        self.device.absent = None
        self.clock.advance(1.0)
        self.clock.pump([1.0] * 59)
        self.assertEqual([event[0] for event in self.listener.calls], ["silent", "down", "up"])
        self.clock.advance(1.0)
        self.assertEqual([event[0] for event in self.listener.calls], ["silent", "down", "up", "silent"])

    def test_no_reset(self) -> None:
        """
        Without `reset_silent` a silent board is not reset, and no timer is left while it is silent.
        """
        self.build(reset_silent=False)
        self.open()
        self.clock.pump([60.0] * 10)
        self.assertEqual((self.listener.calls, self.resets), ([("silent",)], 0))
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.device.say(b"#boot\n")
        self.clock.advance(60.0)
        self.assertEqual(self.listener.calls, [("silent",), ("active",), ("silent",)])

    def test_no_dtr(self) -> None:
        """
        A board without a line that resets it stays silent, and is not tried again.
        """
        self.device.transport_class = StringTransport
        self.open()
        self.clock.advance(60.0)
        self.assertEqual((self.listener.calls, self.clock.getDelayedCalls()), ([("silent",)], []))
