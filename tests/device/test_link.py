"""
The link: on transports in memory for its rules, on real ptys and sockets for the rest.
"""

from __future__ import annotations

import socket
from typing import Any

from twisted.internet import reactor as global_reactor
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.interfaces import IPullProducer
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.tcp import Client
from twisted.logger import capturedLogs
from twisted.python.failure import Failure
from twisted.trial import unittest
from zope.interface.verify import verifyObject

from tests.support.board import Board, open_files
from tests.support.links import REPORT, LinkCase, MemoryEndpoint, texts
from tests.support.separated import Dialect as SeparatedDialect
from tests.support.waiting import until
from usbgate.core.fieldline import LINE_LIMIT, checksum
from usbgate.core.model import BoardKind, DeviceWarning, Report, Send
from usbgate.device import protocol
from usbgate.device.dialects.fields import Dialect
from usbgate.device.endpoint import SerialEndpoint, open_device
from usbgate.device.errors import NoSuchDevice
from usbgate.device.interfaces import IDeviceLink, ILinkListener
from usbgate.device.link import STOP_LIMIT, Link
from usbgate.device.protocol import ASKED_READ_SIZE, READ_SIZE
from usbgate.device.serialport import SerialTransport
from usbgate.device.tapport import TapPort
from usbgate.testing import RecordingListener, request

reactor: Any = global_reactor


class RulesTests(LinkCase):
    """
    Lines in and out (protocol §2).
    """

    def test_interfaces(self) -> None:
        """
        A link and the listener of these tests provide their interfaces.
        """
        verifyObject(IDeviceLink, self.link)
        verifyObject(ILinkListener, self.listener)

    def test_one_batch_a_chunk(self) -> None:
        """
        All reports of a chunk are delivered together, whatever malformed, empty and log lines are between them.
        """
        self.open()
        self.device.say(b"#boot\r\n\r\nID:20_VALUE:456\nnonsense\nID:9_MSG:ON\nID:9_MSG:ON_OK:1_AT:now\nID:7_TE")
        self.device.say(b"MP:21.5\n")
        self.assertEqual(
            self.listener.calls,
            [
                ("malformed", b"nonsense", "no key"),
                ("reports", REPORT, Report("9", "ON", None, ()), Report("9", "ON", None, (("OK", "1"),))),
                ("reports", Report("7", None, None, (("TEMP", "21.5"),))),
            ],
        )
        link = self.link
        self.assertEqual(
            (link.counts.lines_in, link.counts.malformed, link.counts.partial, link.counts.fields_left_out),
            (6, 1, 0, 1),
        )

    def test_tap(self) -> None:
        """
        A tap is there while the link runs, and receives all bytes as they come.
        """
        tap = TapPort("board", self.mktemp())
        copied: list[bytes | str] = []
        self.patch(tap, "start", lambda: copied.append("start"))
        self.patch(tap, "stop", lambda: copied.append("stop"))
        self.patch(tap, "write", copied.append)
        self.link = Link(self.clock, self.device, "board", "/dev/board", Dialect(), tap=tap)
        self.link.listener = self.listener
        self.open()
        self.device.say(b"\0ID:20_VAL")
        self.device.say(b"UE:456\n")
        self.assertEqual(self.listener.calls, [("reports", REPORT)])
        self.close()
        self.assertEqual(copied, ["start", b"\0ID:20_VAL", b"UE:456\n", "stop", "stop"])

    def test_board(self) -> None:
        """
        At each opening the listener receives what is known of the board then.
        """
        boards = [BoardKind(resets=True), BoardKind(native=True)]
        link = Link(
            self.clock,
            self.device,
            "board",
            "/dev/board",
            Dialect(),
            retry=lambda attempt: 1.0,
            describe=lambda path: boards[len(opened)],
        )
        opened: list[BoardKind] = []
        link.listener = self.listener
        self.patch(self.listener, "link_up", opened.append)
        link.startService()
        self.device.vanish()
        self.clock.advance(1.0)
        self.assertEqual(opened, boards)
        self.assertFalse(link.stopService().called)
        self.device.vanish()
        self.clock.advance(STOP_LIMIT)

    def test_board_started(self) -> None:
        """
        A board that was reset has started with its first line that the dialect accepts, be it text; once an opening.
        """
        cases: list[tuple[BoardKind, bytes, list[tuple[Any, ...]]]] = [
            (BoardKind(resets=True), b"ID:20_VALUE:456\n", [("reports", REPORT), ("started",)]),
            (BoardKind(resets=True), b"# hello\n", [("started",)]),
            (BoardKind(resets=True), b"ID:20\n# hello\n", [("malformed", b"ID:20", "no measurement"), ("started",)]),
            (BoardKind(resets=True), b"ID:20\n", [("malformed", b"ID:20", "no measurement")]),
            (BoardKind(resets=True), b"E:456\n", [("malformed", b"E:456", "partial")]),
            (BoardKind(), b"ID:20_VALUE:456\n", [("reports", REPORT)]),
            (BoardKind(native=True), b"# hello\n", []),
        ]
        for board, chunk, calls in cases:
            with self.subTest(board=board, chunk=chunk):
                device, listener = MemoryEndpoint(), RecordingListener()
                link = Link(
                    self.clock,
                    device,
                    "board",
                    "/dev/board",
                    Dialect(),
                    retry=lambda attempt: 1.0,
                    describe=lambda path, board=board: board,  # type: ignore[misc]  # for each its own
                )
                link.listener = listener
                link.startService()
                for opening in range(2):
                    listener.calls.clear()
                    device.say(chunk)
                    self.assertEqual(listener.calls, calls)
                    device.say(b"ID:20_VALUE:456\n" if ("started",) in calls else b"")
                    self.assertEqual(listener.calls.count(("started",)), calls.count(("started",)))
                    if not opening:
                        device.vanish()
                        self.clock.advance(1.0)
                stopped = link.stopService()
                device.vanish()
                self.successResultOf(stopped)

    def test_size(self) -> None:
        """
        The size of a message is that of what is written, in the dialect of the device.
        """
        self.open()
        for tag in (None, "5f"):
            self.link.send([Send(request(), tag, 5.0)])
            self.assertEqual(self.link.size(request(), tag), len(self.device.transport.value()))
            self.device.transport.clear()

    def test_size_unknown(self) -> None:
        """
        A request that the dialect cannot write has no size; `send` logs it.
        """
        self.patch(Dialect, "encode", lambda *arguments: 1 / 0)
        self.assertEqual(self.link.size(request(), None), 0)

    def test_first_line(self) -> None:
        """
        The first line after an opening counts only if it has the beginning of a line; no other line is dropped.
        """
        long = b"x" * (LINE_LIMIT + 100)
        kept = b"x" * LINE_LIMIT
        table: list[tuple[bytes, list[tuple[Any, ...]]]] = [
            (b"ID:20_VALUE:456\n", [("reports", REPORT)]),
            (b"TAG:7_ID:20_VALUE:456\n", [("reports", REPORT._replace(values=(("TAG", "7"), *REPORT.values)))]),
            (b"MSG:J_ID:20_VALUE:456\n", [("reports", REPORT._replace(command="J"))]),
            (b"#hello\n", []),
            (b"VALUE:456_ID:20\n", [("malformed", b"VALUE:456_ID:20", "partial")]),
            (b"20_VALUE:456\nID:20_VALUE:456\n", [("malformed", b"20_VALUE:456", "partial"), ("reports", REPORT)]),
            (b"\nVALUE:456_ID:20\n", [("reports", REPORT)]),
            (b"\xff\x00\nrest\n", [("malformed", b"rest", "no key")]),
            (b"\x00\xf0ID:20_VALUE:456\0\n", [("reports", REPORT)]),
            (b"\x00VALUE:456_ID:20\r\n", [("malformed", b"VALUE:456_ID:20", "partial")]),
            (b"\rVALUE:456_ID:20\r", [("reports", REPORT)]),
            (long + b"\nID:20_VALUE:456\n", [("malformed", kept, "partial"), ("reports", REPORT)]),
            (b"ID:" + long + b"\n", [("malformed", (b"ID:" + long)[:LINE_LIMIT], "line too long")]),
        ]
        for data, expected in table:
            for size in (1, 7, len(data)):
                self.setUp()
                self.open()
                for start in range(0, len(data), size):
                    self.device.say(data[start : start + size])
                self.assertEqual(self.listener.calls, expected, data)
                refusals = [event[2] for event in expected if event[0] == "malformed"]
                self.assertEqual(self.link.counts.partial, refusals.count("partial"))
                self.assertEqual(self.link.counts.malformed, len(refusals) - refusals.count("partial"))

    def test_first_line_of_each_opening(self) -> None:
        """
        The rule holds again after a reopening, and an unfinished line of before is discarded.
        """
        self.open()
        self.device.say(b"ID:20_VALUE:456\nID:20_VAL")
        self.device.vanish()
        self.clock.advance(1.0)
        self.device.say(b"UE:456\nVALUE:456_ID:20\n")
        self.assertEqual(self.listener.calls[-2:], [("malformed", b"UE:456", "partial"), ("reports", REPORT)])

    def test_edges(self) -> None:
        """
        Lines end in CR or LF, stray bytes at their edges are dropped and counted, and lines of nothing else are none.
        """
        for size in (1, 5, 100):
            self.setUp()
            self.open()
            said = b"\0\0ID:20_VALUE:456\n\rID:20_VALUE:456\0\0\r\n\xffID:20_VALUE:456\r\0\xff\r\nID:20_VALUE:4\xb056\n"
            for start in range(0, len(said), size):
                self.device.say(said[start : start + size])
            reports = [report for event in self.listener.calls if event[0] == "reports" for report in event[1:]]
            self.assertEqual(reports, [REPORT] * 3)
            counts = self.link.counts
            self.assertEqual((counts.lines_in, counts.malformed, counts.noise_bytes), (4, 1, 7))

    def test_fields_left_out(self) -> None:
        """
        A line with damaged fields is delivered without them; they are counted by reason, and the line is listed once
        for each reason, but is not malformed.
        """
        self.open()
        line = b"ID:20_VALUE:456_A:_B:_HU%:3_C:\xff"
        self.device.say(line + b"\nID:20_VALUE:456\n" + line + b"_D:\x01\n")
        reasons = ("empty value", "empty value", "no key", "not UTF-8")
        listed = [("malformed", line, f"field left out, {reason}") for reason in dict.fromkeys(reasons)]
        self.assertEqual(self.listener.calls[:3], listed)
        damaged = REPORT._replace(left_out=reasons)
        again = REPORT._replace(left_out=(*reasons, "control character"))
        self.assertEqual(self.listener.calls[-1], ("reports", damaged, REPORT, again))
        counts = self.link.counts
        self.assertEqual(
            (counts.fields_empty, counts.fields_not_utf8, counts.fields_control, counts.fields_no_key), (4, 2, 1, 2)
        )
        self.assertEqual((counts.malformed, counts.fields_left_out), (0, 0))

    def test_nuls(self) -> None:
        """
        Any number of NULs around a line costs nothing; an echo and a repeat are recognized behind them.
        """
        self.filter_repeats()
        self.open()
        self.link.send([Send(request(), None, 5.0)])
        self.device.say(b"\0" * 5000 + b"ID:20_VALUE:456" + b"\0" * 5000 + b"\n\0ID:20_VALUE:456\n")
        self.device.say(b"\0MSG:J_ID:20_ORIGIN:TOTO\0\r")
        self.assertEqual(self.listener.calls, [("reports", REPORT)])
        counts = self.link.counts
        self.assertEqual((counts.repeats, counts.echoes, counts.noise_bytes), (1, 1, 10_003))

    def test_over_long_then_good(self) -> None:
        """
        A line of any length costs only itself, whatever it begins with.
        """
        self.open()
        long = b"#" * 5000
        self.device.say(b"ID:20_VALUE:456\n" + long + b"\nID:20_VALUE:456\n")
        refused = ("malformed", long[:LINE_LIMIT], "line too long")
        self.assertEqual(self.listener.calls, [refused, ("reports", REPORT, REPORT)])

    def test_binary(self) -> None:
        """
        Binary data is malformed and counted; the good line after it is read.
        """
        self.open()
        self.device.say(b"#\n" + bytes(range(256)) * 3 + b"\nID:20_VALUE:456\n")
        self.assertEqual(self.listener.calls[-1], ("reports", REPORT))
        self.assertEqual({event[0] for event in self.listener.calls[:-1]}, {"malformed"})
        self.assertEqual(self.link.counts.malformed, len(self.listener.calls) - 1)

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
        self.assertEqual(self.listener.calls, [("reports", acknowledgement), ("reports", acknowledgement)])

    def test_echo_within_a_line(self) -> None:
        """
        A line that holds what was written is an echo, with and without a tag; the request with a value is a report.
        """
        self.open()
        self.device.say(b"#\n")
        lines = [b"MSG:J_ID:20_ORIGIN:TOTO", b"MSG:J_ID:20_ORIGIN:TOTO_TAG:x1"]
        said = b"".join(b"Received: %b\r\ngot [%b]\r\n" % (line, line) for line in lines)
        for size in (1, 7, len(said)):
            self.link.send([Send(request(), None, 5.0), Send(request(), "x1", 5.0)])
            for start in range(0, len(said), size):
                self.device.say(said[start : start + size])
        self.assertEqual((self.listener.calls, self.link.counts.echoes), ([], 12))
        self.device.say(b"MSG:J_ID:20_ORIGIN:TOTO_VALUE:456\n")
        self.assertEqual(self.listener.calls, [("reports", REPORT._replace(command="J"))])
        self.clock.advance(5.1)
        self.device.say(b"Received: MSG:J_ID:20_ORIGIN:TOTO\n")
        self.assertEqual((len(self.listener.calls), self.link.counts.echoes), (2, 12))

    def test_checksum(self) -> None:
        """
        With `checksum`, the edges of a line are cut before it is checked, and a wrong line is malformed.
        """
        self.link = Link(self.clock, self.device, "board", "/dev/board", Dialect({"checksum": True}))
        self.link.listener = self.listener
        self.open()
        said = b"ID:20_VALUE:456*2C\r\n\x00ID:20_VALUE:456*2C\x00\r\rID:20_VALUE:457*2C\n"
        for size in (1, 7, len(said)):
            self.listener.calls.clear()
            for start in range(0, len(said), size):
                self.device.say(said[start : start + size])
            reports = [report for call in self.listener.calls if call[0] == "reports" for report in call[1:]]
            self.assertEqual(reports, [REPORT, REPORT])
            self.assertIn(("malformed", b"ID:20_VALUE:457*2C", "wrong checksum"), self.listener.calls)
        self.link.send([Send(request(), None, 5.0)])
        line = self.device.transport.value()[:-1]
        self.assertEqual(line, b"MSG:J_ID:20_ORIGIN:TOTO" + checksum(b"MSG:J_ID:20_ORIGIN:TOTO"))
        self.device.say(line + b"\n" + b"Received: MSG:J_ID:20_ORIGIN:TOTO\n")
        self.assertEqual(self.link.counts.echoes, 2)

    def test_checksum_noticed(self) -> None:
        """
        That lines end in a checksum which is not checked is logged once.
        """
        self.open()
        with capturedLogs() as logs:
            for _ in range(3):
                self.device.say(b"ID:20_VALUE:456*2C\nID:20_VALUE:456*2C\n")
        self.assertEqual(texts(logs), ["board: lines end in a checksum that is not checked: set `checksum = true`"])

    def test_echo_in_another_dialect(self) -> None:
        """
        In a dialect that is none of field lines, only an equal line is an echo.
        """
        self.link = Link(self.clock, self.device, "board", "/dev/board", SeparatedDialect())
        self.link.listener = self.listener
        self.open()
        self.link.send([Send(request(), None, 5.0)])
        self.device.say(b"\nJ;20\n20;ORIGIN;J;20\n20;VALUE;J\n")
        self.assertEqual((self.link.counts.echoes, self.link.counts.malformed), (1, 1))

    def filter_repeats(self) -> None:
        """
        Build the link with a filter for repeats.
        """
        self.link = Link(self.clock, self.device, "board", "/dev/board", Dialect(), repeats=0.2)
        self.link.listener = self.listener

    def test_repeats(self) -> None:
        """
        An identical report within the time is counted and not delivered; after the time it is delivered again.
        """
        self.filter_repeats()
        self.open()
        self.device.say(b"ID:20_VALUE:456\nID:20_VALUE:456\r\n")
        self.clock.advance(0.1)
        self.device.say(b"ID:20_VALUE:456\nID:20_VALUE:457\n")
        other = REPORT._replace(values=(("VALUE", "457"),))
        self.assertEqual(self.listener.calls, [("reports", REPORT), ("reports", other)])
        self.clock.advance(0.15)
        self.device.say(b"ID:20_VALUE:456\n")
        self.assertEqual(self.listener.calls[2:], [("reports", REPORT)])
        self.assertEqual((self.link.counts.repeats, self.link.counts.lines_in, self.link.counts.malformed), (2, 5, 0))

    def test_repeats_and_answers(self) -> None:
        """
        An identical line that answers a later request is delivered; malformed lines are counted each time.
        """
        self.filter_repeats()
        self.open()
        self.device.say(b"ID:20_VALUE:456\n")
        self.link.send([Send(request(), None, 5.0)])
        self.device.say(b"ID:20_VALUE:456\nID:20_VALUE:456\nnonsense\nnonsense\n")
        refused = ("malformed", b"nonsense", "no key")
        self.assertEqual(self.listener.calls, [("reports", REPORT), refused, refused, ("reports", REPORT)])
        self.assertEqual((self.link.counts.repeats, self.link.counts.malformed), (1, 2))

    def test_send_while_offline(self) -> None:
        """
        Requests sent while the device is away are not written, then or later.
        """
        self.link.send([Send(request(), None, 5.0)])
        self.open()
        self.device.vanish()
        self.link.send([Send(request(), None, 5.0)])
        self.clock.advance(1.0)
        self.assertEqual((self.device.transport.value(), self.link.counts.lines_out), (b"", 0))

    def test_device_stops_reading(self) -> None:
        """
        `send` returns whether the device took all; `link_drained` is called once it has.
        """
        self.open()
        self.assertFalse(self.link.send([Send(request(), None, 5.0)]))
        self.assertFalse(self.link.send([Send(request(), None, 5.0)]))
        producer = self.device.transport.producer
        assert IPullProducer.providedBy(producer)
        producer.resumeProducing()
        self.assertEqual(self.listener.calls, [("drained",)])
        self.assertIsNone(self.device.transport.producer)
        self.assertEqual(self.link.counts.lines_out, 2)

    def test_pause(self) -> None:
        """
        A paused link reads nothing, not even after a reopening, until it is resumed; repeating a call is harmless.
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
        A stop closes the connection and ends when it is closed; nothing more is written, and `link_down` is not called.
        """
        self.open()
        stopped = self.link.stopService()
        self.assertTrue(self.device.transport.disconnecting)
        self.link.send([Send(request(), None, 5.0)])
        self.assertNoResult(stopped)
        self.device.vanish()
        self.successResultOf(stopped)
        self.assertEqual((self.listener.calls, self.device.transport.value()), ([], b""))


class LendingTests(LinkCase):
    """
    Releasing the device, and taking it back.
    """

    def test_lent(self) -> None:
        """
        A released device is closed and stays so, without a `link_down`; taken back, it is opened.
        """
        self.open()
        released = self.link.release()
        self.assertNoResult(released)
        self.link.send([Send(request(), None, 5.0)])
        self.assertEqual(self.device.transport.value(), b"")
        self.device.vanish()
        self.assertEqual(self.successResultOf(released), "/dev/board")
        self.clock.pump([1.0] * 10)
        self.assertEqual((self.device.attempts, self.listener.calls, self.clock.getDelayedCalls()), (1, [], []))
        self.link.take_back()
        self.assertEqual((self.device.attempts, self.listener.calls), (2, [("up",)]))

    def test_lent_while_away(self) -> None:
        """
        A device that is away can be lent, too: no attempt to open it is made meanwhile.
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
        A link that was stopped does not open the device when it is taken back.
        """
        self.open()
        released = self.link.release()
        self.device.vanish()
        self.successResultOf(released)
        self.successResultOf(self.link.stopService())
        self.link.take_back()
        self.assertEqual(self.device.attempts, 1)


def ports_read() -> list[SerialTransport]:
    """
    Return the serial ports that the reactor reads.
    """
    return [reader for reader in reactor.getReaders() if isinstance(reader, SerialTransport)]


def reports_of(listener: RecordingListener) -> int:
    """
    Return how many reports came.
    """
    return sum(len(call) - 1 for call in listener.calls if call[0] == "reports")


def most_at_once(listener: RecordingListener) -> int:
    """
    Return how many reports came at once, at most.
    """
    return max(len(call) - 1 for call in listener.calls if call[0] == "reports")


class PtyTests(unittest.TestCase):
    """
    A link on a real pty.
    """

    def setUp(self) -> None:
        """
        Plug a board in, and build a link to it.
        """
        self.board = Board(self.mktemp())
        self.addCleanup(self.board.unplug)
        self.listener = RecordingListener()
        self.link = self.new_link()

    def new_link(self) -> Link:
        """
        Return a link to the board, which is stopped at the end.
        """
        endpoint = SerialEndpoint(reactor, self.board.path)
        link = Link(reactor, endpoint, "board", self.board.path, Dialect())
        link.listener = self.listener
        self.addCleanup(link.stopService)
        return link

    async def start(self) -> None:
        """
        Start the link and wait until it is up.
        """
        self.link.startService()
        await until(lambda: self.listener.calls == [("up",)])

    async def test_both_ways(self) -> None:
        """
        Reports are delivered, requests are written, and nothing is echoed.
        """
        await self.start()
        self.board.say(b"ID:20_VALUE:456\r\n")
        await until(lambda: len(self.listener.calls) > 1)
        self.link.send([Send(request(), None, 5.0)])
        self.assertEqual(self.board.listen(), b"MSG:J_ID:20_ORIGIN:TOTO\n")  # written at once, not a reactor turn later
        self.board.say(b"ID:20_VALUE:456\n")
        await until(lambda: len(self.listener.calls) > 2)
        self.assertEqual(self.listener.calls, [("up",), ("reports", REPORT), ("reports", REPORT)])
        self.assertEqual(self.link.counts.echoes, 0)

    async def test_much_at_once(self) -> None:
        """
        What a tty keeps is read in pieces, so that the reactor is not held for long; in smaller ones while it is asked.
        """
        self.patch(protocol, "READS_UNASKED", 20)
        await self.start()
        (port,) = (reader for reader in reactor.getReaders() if isinstance(reader, SerialTransport))
        lines = 4000 // len(b"ID:20_VALUE:456\n")
        for size in (READ_SIZE, ASKED_READ_SIZE):
            self.assertEqual(port.bufferSize, size)
            self.listener.calls.clear()
            self.board.say(b"ID:20_VALUE:456\n" * lines)
            await until(lambda: reports_of(self.listener) == lines)
            self.assertLessEqual(most_at_once(self.listener), size // len(b"ID:20_VALUE:456\n") + 1)
            self.link.send([Send(request(), None, 5.0)])
        for _ in range(protocol.READS_UNASKED):
            self.listener.calls.clear()
            self.board.say(b"ID:20_VALUE:456\n")
            await until(lambda: reports_of(self.listener) == 1)
        self.assertEqual(port.bufferSize, READ_SIZE)

    async def test_replugged(self) -> None:
        """
        A device that goes away is reported at once and opened again under its name; only one port is open.
        """
        await self.start()
        before = open_files()
        for _ in range(3):
            self.listener.calls.clear()
            self.board.unplug()
            await until(lambda: self.listener.calls)
            self.assertEqual(self.listener.calls, [("down", f"{self.board.path} was disconnected")])
            self.board.plug()
            await until(lambda: len(self.listener.calls) > 1)
            self.assertEqual(self.listener.calls[1:], [("up",)])
        self.board.say(b"ID:20_VALUE:456\n")
        await until(lambda: ("reports", REPORT) in self.listener.calls)
        self.assertEqual(open_files(), before)

    async def test_busy(self) -> None:
        """
        A second link to the same port fails while the port is in use, and says so in its warning; it opens the port
        once the first has stopped.
        """
        await self.start()
        other = self.new_link()
        other.startService()
        await until(lambda: len(self.listener.calls) > 1)
        self.assertIn("usbgate itself has it open", self.listener.calls[1][1])
        self.assertIsNone(self.link.warning)
        busy = DeviceWarning("port open under another name", self.link.path, self.listener.calls[1][1])
        self.assertEqual(other.warning, busy)
        await self.link.stopService()
        await until(lambda: self.listener.calls[2:] == [("up",)])
        self.assertIsNone(other.warning)

    async def test_pause_holds_over_replug(self) -> None:
        """
        A link that was paused when its device went away is paused when it is back, and loses no data.
        """
        await self.start()
        self.board.unplug()
        await until(lambda: len(self.listener.calls) > 1)
        self.link.pause()
        self.board.plug()
        await until(lambda: len(self.listener.calls) > 2)
        self.board.say(b"ID:20_VALUE:456\n")
        self.assertEqual(ports_read(), [])
        self.link.resume()
        await until(lambda: self.listener.calls[3:] == [("reports", REPORT)])

    async def test_stop(self) -> None:
        """
        When a stop is complete the port is closed and free, and `link_down` was not called.
        """
        await self.start()
        await self.link.stopService()
        self.assertEqual(self.listener.calls, [("up",)])
        self.assertEqual(ports_read(), [])
        self.listener.calls.clear()
        self.link.startService()
        await until(lambda: self.listener.calls == [("up",)])

    async def test_stop_while_away(self) -> None:
        """
        A stop between two attempts, and one before the first, completes.
        """
        self.board.unplug()
        self.link.startService()
        await self.link.stopService()
        self.assertEqual(self.listener.calls, [])
        self.link.startService()
        await until(lambda: self.listener.calls)
        await self.link.stopService()
        self.assertEqual(len(self.listener.calls), 1)


class SerialServer(Protocol):
    """
    A serial server on the network, with a device behind it.
    """

    def __init__(self) -> None:
        self.data = b""
        self.lost = False

    def dataReceived(self, data: bytes) -> None:
        """
        Record what is sent to the device.
        """
        self.data += data

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """
        Record that the link has closed the connection.
        """
        self.lost = True


class TcpTests(unittest.TestCase):
    """
    A link to a serial server on the network.
    """

    async def test_serial_server(self) -> None:
        """
        A serial server works like a tty: reports, requests written at once, opened again when it closes the connection.
        """
        served: list[SerialServer] = []

        def build() -> SerialServer:
            served.append(SerialServer())
            return served[-1]

        port = await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(Factory.forProtocol(build))
        self.addCleanup(port.stopListening)
        spec = f"tcp:127.0.0.1:{port.getHost().port}"
        listener = RecordingListener()
        link = Link(reactor, open_device(reactor, spec), "server", spec, Dialect(), retry=lambda attempt: 0.05)
        link.listener = listener
        self.addCleanup(link.stopService)
        link.startService()
        await until(lambda: listener.calls == [("up",)] and served)
        sockets = [reader.socket for reader in reactor.getReaders() if isinstance(reader, Client)]
        for level, option in ((socket.IPPROTO_TCP, socket.TCP_NODELAY), (socket.SOL_SOCKET, socket.SO_KEEPALIVE)):
            self.assertTrue(sockets[0].getsockopt(level, option))
        link.send([Send(request(), None, 5.0)])
        await until(lambda: served[0].data == b"MSG:J_ID:20_ORIGIN:TOTO\n")
        assert served[0].transport is not None
        served[0].transport.write(b"ID:20_VALUE:456\r\n")
        await until(lambda: ("reports", REPORT) in listener.calls)
        served[0].transport.write(b"ID:20_VALUE:456\n" * 1000)
        await until(lambda: reports_of(listener) == 1001)
        self.assertLessEqual(most_at_once(listener), READ_SIZE // len(b"ID:20_VALUE:456\n") + 1)
        served[0].transport.loseConnection()
        await until(lambda: len(served) == 2)
        await until(lambda: listener.calls[-2:] == [("down", f"{spec} was disconnected"), ("up",)])
        await link.stopService()
        await until(lambda: all(server.lost for server in served))

    async def test_refused(self) -> None:
        """
        If there is no server, `link_down` is called with the reason.
        """
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            spec = f"tcp:127.0.0.1:{unused.getsockname()[1]}"
            listener = RecordingListener()
            link = Link(reactor, open_device(reactor, spec), "server", spec, Dialect(), retry=lambda attempt: 0.01)
            link.listener = listener
            with capturedLogs() as logs:
                link.startService()
                self.addCleanup(link.stopService)
                await until(lambda: listener.calls)
                await link.stopService()
        self.assertEqual([event[0] for event in listener.calls], ["down"])
        self.assertEqual(texts(logs), [f"server cannot be opened: {listener.calls[0][1]}"])
        self.assertIn("refused", listener.calls[0][1])

    async def test_server_stops_reading(self) -> None:
        """
        If a server does not read, `send` returns False once the kernel's buffer is full, and a stop does not wait.
        """
        served: list[SerialServer] = []

        class StalledServer(SerialServer):
            def connectionMade(self) -> None:
                assert self.transport is not None
                served.append(self)
                self.transport.pauseProducing()  # type: ignore[attr-defined]

        port = await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(Factory.forProtocol(StalledServer))
        self.addCleanup(port.stopListening)
        spec = f"tcp:127.0.0.1:{port.getHost().port}"
        listener = RecordingListener()
        link = Link(reactor, open_device(reactor, spec), "server", spec, Dialect())
        link.listener = listener
        link.startService()
        self.addCleanup(link.stopService)
        await until(lambda: served)
        for _ in range(1_000_000):  # 100 MB, more than any kernel keeps
            if not link.send([Send(request("x" * 64), None, 5.0)]):
                break
        else:
            self.fail("send never returned False")
        await link.stopService()
        assert served[0].transport is not None
        served[0].transport.loseConnection()
        await until(lambda: served[0].lost)
