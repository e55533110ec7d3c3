"""
LineReceiver's face on a bounded buffer.
"""

from __future__ import annotations

from twisted.internet.testing import StringTransport
from twisted.trial import unittest

from usbgate.net.linereceiver import BoundedLineReceiver


class Listener(BoundedLineReceiver):
    """
    Keeps its lines; some of them are commands.
    """

    MAX_LENGTH = 8

    def __init__(self) -> None:
        super().__init__()
        self.heard: list[bytes] = []

    def lineReceived(self, line: bytes) -> None:
        """
        Keep a line, and do what it says.
        """
        assert isinstance(self.transport, StringTransport)
        self.heard.append(line)
        if line == b"pause":
            self.pauseProducing()
        elif line == b"blink":
            self.pauseProducing()
            self.resumeProducing()
        elif line == b"quit":
            self.transport.loseConnection()
        elif line == b"fail":
            raise RuntimeError("as told")

    def lineLengthExceeded(self, line: bytes) -> None:
        """
        Keep that a line was too long.
        """
        self.heard.append(b"too long")


class BoundedLineReceiverTests(unittest.TestCase):
    """
    Lines from chunks.
    """

    def setUp(self) -> None:
        """
        Connect a listener.
        """
        self.listener = Listener()
        self.transport = StringTransport()
        self.listener.makeConnection(self.transport)

    def test_cut_anywhere(self) -> None:
        """
        LF and CRLF end lines, and it does not matter where the chunks are cut.
        """
        stream = b"one\r\ntwo\n\nfour\n"
        for size in (1, 2, 3, len(stream)):
            self.setUp()
            for start in range(0, len(stream), size):
                self.listener.dataReceived(stream[start : start + size])
            self.assertEqual(self.listener.heard, [b"one", b"two", b"", b"four"])

    def test_too_long(self) -> None:
        """
        An over-long line is told once, and the good line behind it is read.
        """
        self.listener.dataReceived(b"good\n" + b"x" * 9 + b"\nalso\n" + b"y" * 20)
        self.listener.dataReceived(b"y" * 20)
        self.listener.dataReceived(b"y\nlast\n")
        self.assertEqual(self.listener.heard, [b"good", b"too long", b"also", b"too long", b"last"])

    def test_pause(self) -> None:
        """
        Lines behind one that pauses wait until resumed, and keep their order.
        """
        self.listener.dataReceived(b"a\npause\nb\n")
        self.listener.dataReceived(b"c\n")
        self.assertEqual((self.listener.heard, self.transport.producerState), ([b"a", b"pause"], "paused"))
        self.listener.resumeProducing()
        self.assertEqual(self.listener.heard, [b"a", b"pause", b"b", b"c"])

    def test_pause_and_resume_within(self) -> None:
        """
        Lines that pause and resume, ever so many, are not overtaken by those behind them.
        """
        self.listener.dataReceived(b"blink\n" * 2000 + b"end\n")
        self.assertEqual(self.listener.heard, [b"blink"] * 2000 + [b"end"])

    def test_nothing_after_hanging_up(self) -> None:
        """
        Once we hang up, no line is handed on any more.
        """
        self.listener.dataReceived(b"quit\nb\n")
        self.listener.dataReceived(b"c\n")
        self.assertEqual(self.listener.heard, [b"quit"])

    def test_exception_passes(self) -> None:
        """
        A line that raises does not stop the next chunk from being read.
        """
        self.assertRaises(RuntimeError, self.listener.dataReceived, b"fail\nb\n")
        self.listener.dataReceived(b"c\n")
        self.assertEqual(self.listener.heard, [b"fail", b"b", b"c"])

    def test_send(self) -> None:
        """
        What is sent ends in LF.
        """
        self.listener.sendLine(b"hello")
        self.assertEqual(self.transport.value(), b"hello\n")
