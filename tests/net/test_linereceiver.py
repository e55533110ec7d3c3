"""
LineReceiver's interface on a bounded buffer.
"""

from __future__ import annotations

from twisted.internet.testing import StringTransport
from twisted.trial import unittest

from usbgate.net.linereceiver import BoundedLineReceiver


class RecordingReceiver(BoundedLineReceiver):
    """
    Records its lines; some of them are commands.
    """

    MAX_LENGTH = 8

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[bytes] = []

    def lineReceived(self, line: bytes) -> None:
        """
        Record a line, and obey it.
        """
        assert isinstance(self.transport, StringTransport)
        self.lines.append(line)
        if line == b"pause":
            self.pauseProducing()
        elif line == b"blink":
            self.pauseProducing()
            self.resumeProducing()
        elif line == b"quit":
            self.transport.loseConnection()
        elif line == b"fail":
            raise RuntimeError("on command")

    def lineLengthExceeded(self, line: bytes) -> None:
        """
        Record that a line was too long.
        """
        self.lines.append(b"too long")


class BoundedLineReceiverTests(unittest.TestCase):
    """
    Lines from chunks.
    """

    def setUp(self) -> None:
        """
        Connect a receiver.
        """
        self.receiver = RecordingReceiver()
        self.transport = StringTransport()
        self.receiver.makeConnection(self.transport)

    def test_cut_anywhere(self) -> None:
        """
        LF and CRLF end lines, and it does not matter where the chunks are cut.
        """
        stream = b"one\r\ntwo\n\nfour\n"
        for size in (1, 2, 3, len(stream)):
            self.setUp()
            for start in range(0, len(stream), size):
                self.receiver.dataReceived(stream[start : start + size])
            self.assertEqual(self.receiver.lines, [b"one", b"two", b"", b"four"])

    def test_too_long(self) -> None:
        """
        An over-long line is reported once, and the good line behind it is delivered.
        """
        self.receiver.dataReceived(b"good\n" + b"x" * 9 + b"\nalso\n" + b"y" * 20)
        self.receiver.dataReceived(b"y" * 20)
        self.receiver.dataReceived(b"y\nlast\n")
        self.assertEqual(self.receiver.lines, [b"good", b"too long", b"also", b"too long", b"last"])

    def test_pause(self) -> None:
        """
        Lines behind one that pauses wait until resumed, and keep their order.
        """
        self.receiver.dataReceived(b"a\npause\nb\n")
        self.receiver.dataReceived(b"c\n")
        self.assertEqual((self.receiver.lines, self.transport.producerState), ([b"a", b"pause"], "paused"))
        self.receiver.resumeProducing()
        self.assertEqual(self.receiver.lines, [b"a", b"pause", b"b", b"c"])

    def test_pause_and_resume_within(self) -> None:
        """
        Lines that pause and resume, ever so many, are not overtaken by those behind them.
        """
        self.receiver.dataReceived(b"blink\n" * 2000 + b"end\n")
        self.assertEqual(self.receiver.lines, [b"blink"] * 2000 + [b"end"])

    def test_nothing_after_closing(self) -> None:
        """
        After `loseConnection` no line is delivered.
        """
        self.receiver.dataReceived(b"quit\nb\n")
        self.receiver.dataReceived(b"c\n")
        self.assertEqual(self.receiver.lines, [b"quit"])

    def test_exception_passes(self) -> None:
        """
        A line that raises does not stop the next chunk from being read.
        """
        self.assertRaises(RuntimeError, self.receiver.dataReceived, b"fail\nb\n")
        self.receiver.dataReceived(b"c\n")
        self.assertEqual(self.receiver.lines, [b"fail", b"b", b"c"])

    def test_send(self) -> None:
        """
        A line that is sent ends in LF.
        """
        self.receiver.sendLine(b"hello")
        self.assertEqual(self.transport.value(), b"hello\n")
