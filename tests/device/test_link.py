"""
The link: on transports in memory for its rules, on real ptys and sockets for its life.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from typing import Any

from twisted.internet import reactor as global_reactor
from twisted.internet.defer import Deferred, execute
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.interfaces import IProtocol, IProtocolFactory, IPullProducer, IStreamClientEndpoint
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import Clock
from twisted.internet.tcp import Client
from twisted.internet.testing import StringTransport
from twisted.logger import LogEvent, capturedLogs, formatEvent
from twisted.python.failure import Failure
from twisted.trial import unittest
from zope.interface import implementer
from zope.interface.verify import verifyObject

from tests.support.board import Board, open_files
from tests.support.waiting import until
from usbgate.core.fieldline import LINE_LIMIT
from usbgate.core.model import Question, Report, Request, Send
from usbgate.device.diagnostics import GARBLED_INTERVAL, TEXT_LENGTH, TEXT_LINES, TEXT_SPAN
from usbgate.device.dialects.fields import Dialect
from usbgate.device.endpoint import SerialEndpoint, open_device
from usbgate.device.errors import NoSuchDevice
from usbgate.device.interfaces import IDeviceLink, ILinkListener, IResettable
from usbgate.device.link import ECHO_MEMORY, Link
from usbgate.device.serialport import SerialTransport

reactor: Any = global_reactor

REPORT = Report("20", None, None, (("VALUE", "456"),))


def request(sensor: str = "20") -> Request:
    """
    Ask a sensor for its value.
    """
    fields = {"MSG": "J", "ID": sensor, "ORIGIN": "TOTO"}
    return Request(Question(sensor, "J"), fields, origin="TOTO", client="test")


@implementer(ILinkListener)
class Events:
    """
    Keeps what a link tells, in order.
    """

    def __init__(self) -> None:
        self.all: list[tuple[Any, ...]] = []
        self.flow: list[str] = []

    def link_up(self) -> None:
        """
        Keep it.
        """
        self.all.append(("up",))

    def link_down(self, reason: str) -> None:
        """
        Keep it.
        """
        self.all.append(("down", reason))

    def link_drained(self) -> None:
        """
        Keep it.
        """
        self.flow.append("drained")

    def link_silent(self) -> None:
        """
        Keep it.
        """
        self.all.append(("silent",))

    def link_active(self) -> None:
        """
        Keep it.
        """
        self.all.append(("active",))

    def reports_received(self, reports: Sequence[Report]) -> None:
        """
        Keep them, as one.
        """
        self.all.append(("reports", *reports))

    def line_malformed(self, line: bytes, reason: str) -> None:
        """
        Keep it.
        """
        self.all.append(("malformed", line, reason))


@implementer(IStreamClientEndpoint)
class MemoryEndpoint:
    """
    Connects to a transport in memory, or fails while it is `absent`.
    """

    def __init__(self) -> None:
        self.absent: Exception | None = None
        self.attempts = 0
        self.transport_class: type[StringTransport] = StringTransport

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        """
        Connect at once.
        """
        return execute(self._connect, protocolFactory)

    def _connect(self, factory: IProtocolFactory) -> IProtocol:
        self.attempts += 1
        if self.absent is not None:
            raise self.absent
        protocol = factory.buildProtocol(None)  # type: ignore[arg-type]  # nobody looks at the address
        assert protocol is not None
        self.protocol = protocol
        self.transport = self.transport_class()
        protocol.makeConnection(self.transport)
        return protocol

    def say(self, data: bytes) -> None:
        """
        Let the device send a chunk.
        """
        self.protocol.dataReceived(data)

    def vanish(self) -> None:
        """
        End the connection.
        """
        self.protocol.connectionLost(connectionDone)


class LinkCase(unittest.TestCase):
    """
    A link to a device in memory, on a clock that the test moves.
    """

    def setUp(self) -> None:
        """
        Open a link in memory.
        """
        self.clock = Clock()
        self.device = MemoryEndpoint()
        self.events = Events()
        self.link = Link(self.clock, self.device, "board", "/dev/board", Dialect(), retry=lambda attempt: 1.0)
        self.link.listener = self.events

    def open(self) -> None:
        """
        Start the link and forget that it told so.
        """
        self.link.startService()
        self.addCleanup(self.close)
        self.events.all.clear()

    def close(self) -> None:
        """
        Stop the link; nothing may stay armed.
        """
        stopped = self.link.stopService()
        if self.link.stopService().called is False:
            self.device.vanish()
        self.successResultOf(stopped)
        self.assertEqual(self.clock.getDelayedCalls(), [])


class RulesTests(LinkCase):
    """
    What a link makes of lines (protocol §2).
    """

    def test_interfaces(self) -> None:
        """
        It is the link that others expect, and so is our listener.
        """
        verifyObject(IDeviceLink, self.link)
        verifyObject(ILinkListener, self.events)

    def test_one_batch_a_chunk(self) -> None:
        """
        All reports of a chunk are handed on together; malformed, empty and log lines between them don't matter.
        """
        self.open()
        self.device.say(b"#boot\r\n\r\nID:20_VALUE:456\nnonsense\nID:9_MSG:ON\nID:9_MSG:ON_OK:1_AT:now\nID:7_TE")
        self.device.say(b"MP:21.5\n")
        self.assertEqual(
            self.events.all,
            [
                ("malformed", b"nonsense", "no key"),
                ("reports", REPORT, Report("9", "ON", None, ()), Report("9", "ON", None, (("OK", "1"),))),
                ("reports", Report("7", None, None, (("TEMP", "21.5"),))),
            ],
        )
        link = self.link
        self.assertEqual(
            (link.counts.lines_in, link.counts.malformed, link.counts.partial, link.counts.left_out), (6, 1, 0, 1)
        )

    def test_first_line(self) -> None:
        """
        The first line after an opening counts only if it starts as a line can; nothing else is skipped.
        """
        long = b"x" * (LINE_LIMIT + 100)
        kept = b"x" * LINE_LIMIT
        table: list[tuple[bytes, list[tuple[Any, ...]]]] = [
            (b"ID:20_VALUE:456\n", [("reports", REPORT)]),
            (b"TAG:7_ID:20_VALUE:456\n", [("reports", REPORT._replace(tag="7"))]),
            (b"MSG:J_ID:20_VALUE:456\n", [("reports", REPORT._replace(command="J"))]),
            (b"#hello\n", []),
            (b"VALUE:456_ID:20\n", [("malformed", b"VALUE:456_ID:20", "partial")]),
            (b"20_VALUE:456\nID:20_VALUE:456\n", [("malformed", b"20_VALUE:456", "partial"), ("reports", REPORT)]),
            (b"\nVALUE:456_ID:20\n", [("reports", REPORT)]),
            (b"\xff\x00\nrest\n", [("malformed", b"\xff\x00", "partial"), ("malformed", b"rest", "no key")]),
            (long + b"\nID:20_VALUE:456\n", [("malformed", kept, "partial"), ("reports", REPORT)]),
            (b"ID:" + long + b"\n", [("malformed", (b"ID:" + long)[:LINE_LIMIT], "line too long")]),
        ]
        for data, expected in table:
            for size in (1, 7, len(data)):
                self.setUp()
                self.open()
                for start in range(0, len(data), size):
                    self.device.say(data[start : start + size])
                self.assertEqual(self.events.all, expected, data)
                refusals = [event[2] for event in expected if event[0] == "malformed"]
                self.assertEqual(self.link.counts.partial, refusals.count("partial"))
                self.assertEqual(self.link.counts.malformed, len(refusals) - refusals.count("partial"))

    def test_first_line_of_each_opening(self) -> None:
        """
        The rule holds again after a reopening, and what was left unfinished before is forgotten.
        """
        self.open()
        self.device.say(b"ID:20_VALUE:456\nID:20_VAL")
        self.device.vanish()
        self.clock.advance(1.0)
        self.device.say(b"UE:456\nVALUE:456_ID:20\n")
        self.assertEqual(self.events.all[-2:], [("malformed", b"UE:456", "partial"), ("reports", REPORT)])

    def test_over_long_then_good(self) -> None:
        """
        A line of any length costs only itself, whatever it begins with.
        """
        self.open()
        long = b"#" * 5000
        self.device.say(b"ID:20_VALUE:456\n" + long + b"\nID:20_VALUE:456\n")
        refused = ("malformed", long[:LINE_LIMIT], "line too long")
        self.assertEqual(self.events.all, [refused, ("reports", REPORT, REPORT)])

    def test_binary_noise(self) -> None:
        """
        Noise is refused and counted; the good line after it is read.
        """
        self.open()
        self.device.say(b"#\n" + bytes(range(256)) * 3 + b"\nID:20_VALUE:456\n")
        self.assertEqual(self.events.all[-1], ("reports", REPORT))
        self.assertEqual({event[0] for event in self.events.all[:-1]}, {"malformed"})
        self.assertEqual(self.link.counts.malformed, len(self.events.all) - 1)

    def test_echo(self) -> None:
        """
        A line that was written is ignored for as long as it may come back, and is a report after that.
        """
        self.open()
        self.link.send([Send(request(), None, 5.0)])
        self.link.send([Send(request(), "x1", 5.0)])
        self.assertEqual(self.device.transport.value(), b"MSG:J_ID:20_ORIGIN:TOTO\nMSG:J_ID:20_ORIGIN:TOTO_TAG:x1\n")
        self.clock.advance(4.9)
        self.device.say(self.device.transport.value() + b"MSG:J_ID:20\n")
        self.assertEqual((self.link.counts.echoes, self.link.counts.lines_in, self.link.counts.lines_out), (2, 3, 2))
        self.clock.advance(0.2)
        self.device.say(b"MSG:J_ID:20_ORIGIN:TOTO\r\n")
        acknowledgement = Report("20", "J", None, ())
        self.assertEqual(self.events.all, [("reports", acknowledgement), ("reports", acknowledgement)])

    def test_echo_of_longest_patience(self) -> None:
        """
        The same line written again with less patience does not shorten the first one's.
        """
        self.open()
        self.link.send([Send(request(), None, 10.0)])
        self.link.send([Send(request(), None, 1.0)])
        self.clock.advance(5.0)
        self.device.say(b"MSG:J_ID:20_ORIGIN:TOTO\n")
        self.assertEqual((self.events.all, self.link.counts.echoes), ([], 1))

    def test_echo_memory(self) -> None:
        """
        Only so many written lines are remembered, the newest.
        """
        self.open()
        for number in range(ECHO_MEMORY + 1):
            self.link.send([Send(request(str(number)), None, 1e9)])
        self.device.say(b"MSG:J_ID:1_ORIGIN:TOTO\nMSG:J_ID:0_ORIGIN:TOTO\n")
        self.assertEqual((self.events.all, self.link.counts.echoes), ([("reports", Report("0", "J", None, ()))], 1))

    def tell_repeats_apart(self) -> None:
        """
        Make the device one whose radio sends each packet several times.
        """
        self.link = Link(self.clock, self.device, "board", "/dev/board", Dialect(), repeats=0.2)
        self.link.listener = self.events

    def test_repeats(self) -> None:
        """
        An identical report again within the time is counted and not handed on; after the time it is handed on again.
        """
        self.tell_repeats_apart()
        self.open()
        self.device.say(b"ID:20_VALUE:456\nID:20_VALUE:456\r\n")
        self.clock.advance(0.1)
        self.device.say(b"ID:20_VALUE:456\nID:20_VALUE:457\n")
        other = REPORT._replace(values=(("VALUE", "457"),))
        self.assertEqual(self.events.all, [("reports", REPORT), ("reports", other)])
        self.clock.advance(0.15)
        self.device.say(b"ID:20_VALUE:456\n")
        self.assertEqual(self.events.all[2:], [("reports", REPORT)])
        self.assertEqual((self.link.counts.repeats, self.link.counts.lines_in, self.link.counts.malformed), (2, 5, 0))

    def test_repeats_and_answers(self) -> None:
        """
        An answer in the same words, to who asked since, is handed on; malformed lines are refused each time.
        """
        self.tell_repeats_apart()
        self.open()
        self.device.say(b"ID:20_VALUE:456\n")
        self.link.send([Send(request(), None, 5.0)])
        self.device.say(b"ID:20_VALUE:456\nID:20_VALUE:456\nnonsense\nnonsense\n")
        refused = ("malformed", b"nonsense", "no key")
        self.assertEqual(self.events.all, [("reports", REPORT), refused, refused, ("reports", REPORT)])
        self.assertEqual((self.link.counts.repeats, self.link.counts.malformed), (1, 2))

    def test_send_while_offline(self) -> None:
        """
        What is sent while there is no device is written nowhere, then or later.
        """
        self.link.send([Send(request(), None, 5.0)])
        self.open()
        self.device.vanish()
        self.link.send([Send(request(), None, 5.0)])
        self.clock.advance(1.0)
        self.assertEqual((self.device.transport.value(), self.link.counts.lines_out), (b"", 0))

    def test_device_takes_nothing(self) -> None:
        """
        `send` returns whether the device took all; that it takes all again is reported once.
        """
        self.open()
        self.assertFalse(self.link.send([Send(request(), None, 5.0)]))
        self.assertFalse(self.link.send([Send(request(), None, 5.0)]))
        producer = self.device.transport.producer
        assert IPullProducer.providedBy(producer)
        producer.resumeProducing()
        self.assertEqual(self.events.flow, ["drained"])
        self.assertIsNone(self.device.transport.producer)
        self.assertEqual(self.link.counts.lines_out, 2)

    def test_wrong_speed(self) -> None:
        """
        If most lines are malformed, the log says once what to look at; and again, when all was well in between, but not
        more often than once a minute.
        """
        self.open()
        with capturedLogs() as logs:
            self.device.say(b"ID:1_V:1\n" * 10 + b"\x80\xfe\n" * 9)
            self.device.say(b"\x80\xfe\n" * 200)
            self.device.say(b"ID:1_V:1\n" * 200)
            self.device.say(b"\x80\xfe\n" * 20)  # so soon again it would only fill the log
            self.device.say(b"ID:1_V:1\n" * 200)
            self.clock.advance(GARBLED_INTERVAL)
            self.device.say(b"\x80\xfe\n" * 20)
        said = "board: {} lines malformed: check the baud rate"
        self.assertEqual(
            [text for text in texts(logs) if "malformed" in text], [said.format("209 of 219"), said.format("20 of 20")]
        )

    def test_wrong_speed_without_line_end(self) -> None:
        """
        At a wrong speed hardly a line end comes through: that is told, too, however it is cut; text is no sign of it.
        """
        for text in ("x" * 2000, "ID:1_TEXT:" + "日本語" * 100, "ID:1_V:1\r" * 300):
            self.open()
            with capturedLogs() as logs:
                self.device.say(text.encode())
                self.device.say(b"\nID:1_V:1\n" * 20)
            self.assertEqual(texts(logs), [])
            self.close()
        told = "board: {} bytes without a line end, {} of them no text: check the baud rate"
        good = b"ID:1_V:1\n"
        for first, size, expected in ((b"", 1, (256, 171)), (b"", 1200, (1025, 684)), (good, 1200, (1025, 684))):
            self.open()
            noise = b"\x86\x00A" * 800
            with capturedLogs() as logs:
                self.device.say(first)
                for place in range(0, len(noise), size):
                    self.device.say(noise[place : place + size])
                self.device.say(b"\n" + good * 40)
            self.assertEqual(texts(logs), [told.format(*expected)])
            self.close()

    def test_log_text(self) -> None:
        """
        The firmware's own text goes to the log, harmless for a terminal, so many lines at a time, the others counted,
        and of a long line its beginning.
        """
        self.open()
        with capturedLogs() as logs:
            self.device.say(b"# \x1b[31mred\n" * (TEXT_LINES + 5))
            self.clock.advance(TEXT_SPAN)
            self.device.say(b"#calm\n#" + b"x" * TEXT_LENGTH + b"\n#" + b"x" * 1_000 + b"\n")
        said = ["board says '\\x1b[31mred'"] * TEXT_LINES
        rest = ["board said 5 lines more", "board says 'calm'"]
        rest += [f"board says '{'x' * TEXT_LENGTH}'", f"board says '{'x' * (TEXT_LENGTH - 1)}…'"]
        heard = [text for text in texts(logs) if text.startswith(("board says", "board said"))]
        self.assertEqual(heard, [*said, *rest])
        told = [event for event in self.events.all if event not in [("silent",), ("active",)]]
        self.assertEqual((told, self.link.counts.malformed), ([], 0))

    def test_absent(self) -> None:
        """
        The first attempt that fails is told, with its remedy, later ones are not; each kind is logged once.
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
        self.assertEqual(self.events.all, [("down", why), ("up",)])
        self.assertEqual(
            texts(logs),
            [
                f"board can't be opened: {why}",
                "board can't be opened: broken",
                "board is back after 11.0 s",
            ],
        )

    def test_away_and_back(self) -> None:
        """
        Losing the device and finding it again are told once each, also in the log.
        """
        with capturedLogs() as logs:
            self.link.startService()
            self.addCleanup(self.close)
            self.device.vanish()
            self.device.absent = NoSuchDevice("/dev/board")
            self.clock.pump([1.0] * 3)
            self.device.absent = None
            self.clock.advance(1.0)
        self.assertEqual(self.events.all, [("up",), ("down", "/dev/board went away"), ("up",)])
        self.assertEqual(texts(logs)[0], "board is open: /dev/board")
        self.assertEqual(texts(logs)[-1], "board is back after 4.0 s")

    def test_pause(self) -> None:
        """
        A paused link reads nothing, after a reopening neither, until it is resumed; repeating it is harmless.
        """
        self.link.pause()
        self.open()
        self.assertEqual(self.device.transport.producerState, "paused")
        self.device.vanish()
        self.clock.advance(1.0)
        self.link.pause()
        self.assertEqual(self.device.transport.producerState, "paused")
        self.link.resume()
        self.link.resume()
        self.assertEqual(self.device.transport.producerState, "producing")
        self.device.vanish()
        self.link.pause()
        self.link.resume()

    def test_stop(self) -> None:
        """
        A stop hangs up, and ends when the connection has; nothing is written any more, and no loss is told.
        """
        self.open()
        stopped = self.link.stopService()
        self.assertTrue(self.device.transport.disconnecting)
        self.link.send([Send(request(), None, 5.0)])
        self.assertNoResult(stopped)
        self.device.vanish()
        self.successResultOf(stopped)
        self.assertEqual((self.events.all, self.device.transport.value()), ([], b""))

    def test_stop_while_waiting(self) -> None:
        """
        A stop between two attempts ends at once, and a new start begins anew.
        """
        self.device.absent = NoSuchDevice("/dev/board")
        self.link.startService()
        self.successResultOf(self.link.stopService())
        self.assertEqual(self.clock.getDelayedCalls(), [])
        with capturedLogs() as logs:
            self.link.startService()
        self.addCleanup(self.close)
        self.assertEqual(self.events.all, [("down", str(self.device.absent))] * 2)
        self.assertEqual(texts(logs), [f"board can't be opened: {self.device.absent}"])


@implementer(IResettable)
class ResettableTransport(StringTransport):
    """
    A transport that counts how often the board is reset.
    """

    resets = 0

    def reset(self) -> bool:
        """
        Count it.
        """
        self.resets += 1
        return True


class SilenceTests(LinkCase):
    """
    A device that says nothing (protocol §4.7), and is reset for it.
    """

    reset = True

    def setUp(self) -> None:
        """
        Open a link that is silent after 60 s.
        """
        super().setUp()
        self.device.transport_class = ResettableTransport
        self.link = Link(
            self.clock,
            self.device,
            "board",
            "/dev/board",
            Dialect(),
            retry=lambda attempt: 1.0,
            silence=60.0,
            reset_silent=self.reset,
        )
        self.link.listener = self.events

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
        So long without a line, and it is silent, which is told once; a line, and it is heard again, told before the
        line is.
        """
        self.open()
        with capturedLogs() as logs:
            self.clock.pump([1.0] * 59)
            self.device.say(b"ID:20_VALUE:456\n")
            self.clock.pump([1.0] * 59)
            self.assertEqual(self.events.all, [("reports", REPORT)])
            self.clock.advance(1.0)
            self.clock.pump([60.0] * 10)
            self.assertEqual(self.events.all[1:], [("silent",)])
            self.device.say(b"ID:20_VALUE:456\n")
            self.assertEqual(self.events.all[2:], [("active",), ("reports", REPORT)])
        told = [text for text in texts(logs) if "reset" not in text]
        self.assertEqual(told, ["board has said nothing for 60 s", "board speaks again after 660.0 s"])
        self.clock.advance(60.0)
        self.assertEqual(self.events.all[4:], [("silent",)])

    def test_one_timer(self) -> None:
        """
        Lines arm no timer of their own.
        """
        self.open()
        armed = self.clock.getDelayedCalls()
        self.device.say(b"ID:20_VALUE:456\n" * 100)
        self.assertEqual((self.clock.getDelayedCalls(), len(armed)), (armed, 1))

    def test_what_is_a_line(self) -> None:
        """
        A malformed line and the firmware's own text are signs of life; blank lines, half lines and echoes are none.
        """
        self.open()
        self.link.send([Send(request(), None, 3600.0)])
        for said in (b"x\n", b"x\n", b"#here\n"):
            self.clock.advance(59.0)
            self.device.say(said)
        self.assertNotIn(("silent",), self.events.all)
        self.clock.advance(59.0)
        self.device.say(b"\r\n" + self.device.transport.value() + b"half")
        self.clock.advance(1.0)
        self.assertEqual(self.events.all[-1], ("silent",))

    def test_not_while_paused(self) -> None:
        """
        A link that is not read is not called silent; its time begins again when it is.
        """
        self.open()
        self.link.pause()
        self.clock.pump([30.0] * 10)
        self.link.resume()
        self.clock.pump([59.0])
        self.assertEqual(self.events.all, [])
        self.clock.pump([30.0] * 3)
        self.assertEqual(self.events.all, [("silent",)])

    def test_reset(self) -> None:
        """
        A silent device is reset once, and again after ever longer times, if it stays so, up to an hour; in the next
        silence it begins anew.
        """
        self.open()
        at: list[int] = []
        for second in range(1, 15_000):
            self.clock.advance(1.0)
            if self.resets > len(at):
                at.append(second)
        self.assertEqual(at, [60, 180, 420, 900, 1860, 3780, 7380, 10980, 14580] if self.reset else [])
        self.device.say(b"#boot\n")
        self.clock.pump([1.0] * 59)
        self.assertEqual(self.resets, 9 * self.reset)
        self.clock.pump([1.0] * 121)
        self.assertEqual(self.resets, 11 * self.reset)

    def test_gone_while_silent(self) -> None:
        """
        A device that went away is not silent; when it is back its time begins again.
        """
        self.open()
        self.clock.advance(60.0)
        self.device.vanish()
        self.device.absent = NoSuchDevice("/dev/board")
        self.clock.pump([1.0] * 200)
        self.device.absent = None
        self.clock.advance(1.0)
        self.clock.pump([1.0] * 59)
        self.assertEqual([event[0] for event in self.events.all], ["silent", "down", "up"])
        self.clock.advance(1.0)
        self.assertEqual([event[0] for event in self.events.all], ["silent", "down", "up", "silent"])


class SilenceWithoutResetTests(SilenceTests):
    """
    A device that says nothing, and is left in peace.
    """

    reset = False


class LendingTests(LinkCase):
    """
    A link that lets go of its device.
    """

    def test_lent(self) -> None:
        """
        A released device is closed and not looked for, and nobody is told that it went away; taken back, it is opened.
        """
        self.open()
        released = self.link.release()
        self.assertNoResult(released)
        self.link.send([Send(request(), None, 5.0)])
        self.assertEqual(self.device.transport.value(), b"")
        self.device.vanish()
        self.assertEqual(self.successResultOf(released), "/dev/board")
        self.clock.pump([1.0] * 10)
        self.assertEqual((self.device.attempts, self.events.all, self.clock.getDelayedCalls()), (1, [], []))
        self.link.take_back()
        self.assertEqual((self.device.attempts, self.events.all), (2, [("up",)]))

    def test_lent_while_away(self) -> None:
        """
        A device that is not there can be lent, too: it is not looked for meanwhile.
        """
        self.device.absent = NoSuchDevice("/dev/board")
        self.link.startService()
        self.assertEqual(self.successResultOf(self.link.release()), "/dev/board")
        self.clock.pump([1.0] * 10)
        self.assertEqual(self.device.attempts, 1)
        self.device.absent = None
        self.link.take_back()
        self.assertEqual(self.device.attempts, 2)
        self.close()

    def test_stopped_while_lent(self) -> None:
        """
        A link that was stopped takes nothing back.
        """
        self.open()
        released = self.link.release()
        self.device.vanish()
        self.successResultOf(released)
        self.successResultOf(self.link.stopService())
        self.link.take_back()
        self.assertEqual(self.device.attempts, 1)


def texts(logs: Sequence[LogEvent]) -> list[str]:
    """
    Format log events.
    """
    return [formatEvent(event) for event in logs]


def ports_read() -> list[SerialTransport]:
    """
    List the serial ports that the reactor reads from.
    """
    return [reader for reader in reactor.getReaders() if isinstance(reader, SerialTransport)]


class PtyTests(unittest.TestCase):
    """
    A link's life on a real pty.
    """

    def setUp(self) -> None:
        """
        Plug a board in, and begin to look for it.
        """
        self.board = Board(self.mktemp())
        self.addCleanup(self.board.unplug)
        self.events = Events()
        self.link = self.new_link()

    def new_link(self) -> Link:
        """
        Make a link to the board, which is stopped at the end.
        """
        endpoint = SerialEndpoint(reactor, self.board.path)
        link = Link(reactor, endpoint, "board", self.board.path, Dialect())
        link.listener = self.events
        self.addCleanup(link.stopService)
        return link

    async def start(self) -> None:
        """
        Start the link and wait until it is up.
        """
        self.link.startService()
        await until(lambda: self.events.all == [("up",)])

    async def test_both_ways(self) -> None:
        """
        Reports come in, requests go out, and nothing is echoed.
        """
        await self.start()
        self.board.say(b"ID:20_VALUE:456\r\n")
        await until(lambda: len(self.events.all) > 1)
        self.link.send([Send(request(), None, 5.0)])
        self.assertEqual(self.board.listen(), b"MSG:J_ID:20_ORIGIN:TOTO\n")  # written at once, in this very turn
        self.board.say(b"ID:20_VALUE:456\n")
        await until(lambda: len(self.events.all) > 2)
        self.assertEqual(self.events.all, [("up",), ("reports", REPORT), ("reports", REPORT)])
        self.assertEqual(self.link.counts.echoes, 0)

    async def test_replugged(self) -> None:
        """
        A device that went away is told at once and found again under its name; only one port is open.
        """
        await self.start()
        before = open_files()
        for _ in range(3):
            self.events.all.clear()
            self.board.unplug()
            await until(lambda: self.events.all)
            self.assertEqual(self.events.all, [("down", f"{self.board.path} went away")])
            self.board.plug()
            await until(lambda: len(self.events.all) > 1)
            self.assertEqual(self.events.all[1:], [("up",)])
        self.board.say(b"ID:20_VALUE:456\n")
        await until(lambda: ("reports", REPORT) in self.events.all)
        self.assertEqual(open_files(), before)

    async def test_busy(self) -> None:
        """
        A second link to the same port is told that it is in use, and has it once the first one has stopped.
        """
        await self.start()
        other = self.new_link()
        other.startService()
        await until(lambda: len(self.events.all) > 1)
        self.assertIn("in use by another program", self.events.all[1][1])
        await self.link.stopService()
        await until(lambda: self.events.all[2:] == [("up",)])

    async def test_pause_holds_over_replug(self) -> None:
        """
        A link that was paused when its device went away is paused when it is back, and loses nothing it is sent.
        """
        await self.start()
        self.board.unplug()
        await until(lambda: len(self.events.all) > 1)
        self.link.pause()
        self.board.plug()
        await until(lambda: len(self.events.all) > 2)
        self.board.say(b"ID:20_VALUE:456\n")
        self.assertEqual(ports_read(), [])
        self.link.resume()
        await until(lambda: self.events.all[3:] == [("reports", REPORT)])

    async def test_stop(self) -> None:
        """
        When a stop is over the port is closed and free, and the loss was not told.
        """
        await self.start()
        await self.link.stopService()
        self.assertEqual(self.events.all, [("up",)])
        self.assertEqual(ports_read(), [])
        self.events.all.clear()
        self.link.startService()
        await until(lambda: self.events.all == [("up",)])

    async def test_stop_while_looking(self) -> None:
        """
        A stop while the device is being looked for, and one before its first attempt, end.
        """
        self.board.unplug()
        self.link.startService()
        await self.link.stopService()
        self.assertEqual(self.events.all, [])
        self.link.startService()
        await until(lambda: self.events.all)
        await self.link.stopService()
        self.assertEqual(len(self.events.all), 1)


class Server(Protocol):
    """
    A serial server on the network, with a device behind it.
    """

    def __init__(self) -> None:
        self.data = b""
        self.lost = False

    def dataReceived(self, data: bytes) -> None:
        """
        Keep what is to go to the device.
        """
        self.data += data

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """
        Keep that the gateway has gone.
        """
        self.lost = True


class TcpTests(unittest.TestCase):
    """
    A link to a serial server on the network.
    """

    async def test_serial_server(self) -> None:
        """
        A serial server does as well as a tty: reports, requests at once, options set, reopened when it hangs up.
        """
        served: list[Server] = []

        def build() -> Server:
            served.append(Server())
            return served[-1]

        port = await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(Factory.forProtocol(build))
        self.addCleanup(port.stopListening)
        spec = f"tcp:127.0.0.1:{port.getHost().port}"
        events = Events()
        link = Link(reactor, open_device(reactor, spec), "server", spec, Dialect(), retry=lambda attempt: 0.05)
        link.listener = events
        self.addCleanup(link.stopService)
        link.startService()
        await until(lambda: events.all == [("up",)] and served)
        sockets = [reader.socket for reader in reactor.getReaders() if isinstance(reader, Client)]
        for level, option in ((socket.IPPROTO_TCP, socket.TCP_NODELAY), (socket.SOL_SOCKET, socket.SO_KEEPALIVE)):
            self.assertTrue(sockets[0].getsockopt(level, option))
        link.send([Send(request(), None, 5.0)])
        await until(lambda: served[0].data == b"MSG:J_ID:20_ORIGIN:TOTO\n")
        assert served[0].transport is not None
        served[0].transport.write(b"ID:20_VALUE:456\r\n")
        await until(lambda: ("reports", REPORT) in events.all)
        served[0].transport.loseConnection()
        await until(lambda: len(served) == 2)
        await until(lambda: events.all[2:] == [("down", f"{spec} went away"), ("up",)])
        await link.stopService()
        await until(lambda: all(server.lost for server in served))

    async def test_refused(self) -> None:
        """
        A server that is not there is a link that is down, with a reason.
        """
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            spec = f"tcp:127.0.0.1:{unused.getsockname()[1]}"
            events = Events()
            link = Link(reactor, open_device(reactor, spec), "server", spec, Dialect(), retry=lambda attempt: 0.01)
            link.listener = events
            with capturedLogs() as logs:
                link.startService()
                self.addCleanup(link.stopService)
                await until(lambda: events.all)
                await link.stopService()
        self.assertEqual([event[0] for event in events.all], ["down"])
        self.assertEqual(texts(logs), [f"server can't be opened: {events.all[0][1]}"])
        self.assertIn("refused", events.all[0][1])

    async def test_server_takes_nothing(self) -> None:
        """
        A server that reads nothing is told as soon as the kernel takes no more, and does not hold up a stop.
        """
        served: list[Server] = []

        class Deaf(Server):
            def connectionMade(self) -> None:
                assert self.transport is not None
                served.append(self)
                self.transport.pauseProducing()  # type: ignore[attr-defined]

        port = await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(Factory.forProtocol(Deaf))
        self.addCleanup(port.stopListening)
        spec = f"tcp:127.0.0.1:{port.getHost().port}"
        events = Events()
        link = Link(reactor, open_device(reactor, spec), "server", spec, Dialect())
        link.listener = events
        link.startService()
        self.addCleanup(link.stopService)
        await until(lambda: served)
        for _ in range(1_000_000):  # 100 MB, more than any kernel keeps
            if not link.send([Send(request("x" * 64), None, 5.0)]):
                break
        else:
            self.fail("the server took all")
        await link.stopService()
        assert served[0].transport is not None
        served[0].transport.loseConnection()
        await until(lambda: served[0].lost)
