"""
A stream of bytes is cut into lines (protocol §1).
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from usbgate.core.fieldline import LINE_LIMIT
from usbgate.core.linebuffer import LineBuffer


class LineBufferTests(SynchronousTestCase):
    """
    Chunks of bytes in, lines out.
    """

    STREAM = b"one\r\ntwo\n\n" + b"x" * 3000 + b"\nthree\n" + b"y" * LINE_LIMIT + b"\r\nfour\nrest"
    LINES = (b"one", b"two", b"", b"x" * (LINE_LIMIT + 1), b"three", b"y" * LINE_LIMIT, b"four")

    def feed(self, size: int) -> tuple[list[bytes], LineBuffer]:
        """
        Feed the stream in pieces of a size.
        """
        buffer = LineBuffer()
        lines: list[bytes] = []
        for start in range(0, len(self.STREAM), size):
            lines += buffer.feed(self.STREAM[start : start + size])
        return lines, buffer

    def test_pieces(self) -> None:
        """
        However the stream is cut, the same lines come out, and the good line behind an over-long one.
        """
        for size in [1, 2, 3, 7, 512, 1023, 1024, 1025, 1026, 4000, len(self.STREAM)]:
            lines, buffer = self.feed(size)
            self.assertEqual(lines, list(self.LINES), size)
            self.assertEqual(buffer.rest, b"rest")
            self.assertEqual(buffer.take_rest(), b"rest")
            self.assertEqual(buffer.rest, b"")

    def test_line_ends(self) -> None:
        """
        `crlf` tells how the newest line ended.
        """
        buffer = LineBuffer()
        buffer.feed(b"a\r\n")
        self.assertTrue(buffer.crlf)
        buffer.feed(b"b\r")
        self.assertTrue(buffer.crlf)
        self.assertEqual(buffer.feed(b"\nc\n"), [b"b", b"c"])
        self.assertFalse(buffer.crlf)

    def test_too_long_at_once(self) -> None:
        """
        An over-long line is returned when it is found, not when it ends, and only once.
        """
        buffer = LineBuffer()
        self.assertEqual(buffer.feed(b"x" * (LINE_LIMIT + 1)), [b"x" * (LINE_LIMIT + 1)])
        self.assertEqual(buffer.feed(b"x" * 5000), [])
        self.assertEqual(buffer.feed(b"\n"), [])
        self.assertEqual(buffer.feed(b"ok\n"), [b"ok"])

    def test_bounded(self) -> None:
        """
        Without a line end, no more than a line's worth is kept.
        """
        buffer = LineBuffer()
        for _ in range(100):
            buffer.feed(b"x" * 65536)
            self.assertLessEqual(len(buffer.rest), LINE_LIMIT + 1)
