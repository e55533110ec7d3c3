"""
A stream of bytes is cut into lines (protocol §1, §2).
"""

from __future__ import annotations

import re

from hypothesis import example
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.support.draws import given
from usbgate.core.fieldline import LINE_LIMIT
from usbgate.core.linebuffer import DeviceLineBuffer, LineBuffer


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


# Streams of a device, with the lines and the rest that come of each.
EDGES: list[tuple[bytes, list[bytes], bytes]] = [
    (b"a\nb\r\nc\n\rd\r\re\rf\n", [b"a", b"b", b"c", b"d", b"e", b"f"], b""),
    (b"\r\na", [], b"a"),
    (b"\n\r\n\n", [], b""),
    (b"\0\0a\n\xf0\xffb\n\x01\x7f\x80\tc\n", [b"a", b"b", b"c"], b""),
    (b"\xef\xbb\xbfID:1\n", [b"ID:1"], b""),
    (b"a\0\0\0\r\n\0b\0\n\0\0", [b"a", b"b"], b""),
    (b"\0\n\xff\xff\r\0\r\n", [], b""),
    (b"a\0b\n c \na\xff\n~\n", [b"a\0b", b" c ", b"a\xff", b"~"], b""),
    (b"\xc2\xb0C:1\nC:\xc2\xb0\n", [b"C:1", b"C:\xc2\xb0"], b""),
    (b"\0" * 5000 + b"a" + b"\0" * 5000 + b"\nb", [b"a"], b"b"),
    (b"\xff" * 3000 + b"x" * LINE_LIMIT + b"\0" * 3000 + b"\r", [b"x" * LINE_LIMIT], b""),
    (b"x" * 3000 + b"\ry", [b"x" * (LINE_LIMIT + 1)], b"y"),
    (b"a" + b"\0" * 2000 + b"b\nc\n", [b"a" + b"\0" * LINE_LIMIT, b"c"], b""),
]


def edges_cut(stream: bytes, limit: int) -> tuple[list[bytes], int]:
    """
    Return the lines of a stream that ends in a line end, and how many bytes were dropped, by the plainest means.
    """
    lines, noise = [], 0
    for raw in re.split(rb"[\r\n]", stream):
        line = re.sub(rb"\A[^ -~]+", b"", raw)
        kept = re.sub(rb"\0+\Z", b"", line)
        noise += len(raw) - len(kept if len(kept) <= limit else line)
        lines += [kept[: limit + 1]] if kept else []
    return lines, noise


class DeviceLineBufferTests(SynchronousTestCase):
    """
    What a device sends: any line end, and stray bytes at the edges of lines.
    """

    def test_table(self) -> None:
        """
        Whole, in pieces of any size, and with a line behind it, a stream gives the same lines.
        """
        for stream, expected, rest in EDGES:
            for size in [1, 2, 3, 7, 1000, 1025, len(stream)]:
                buffer = DeviceLineBuffer()
                lines: list[bytes] = []
                for start in range(0, len(stream), size):
                    lines += filter(None, buffer.feed(stream[start : start + size]))
                    self.assertLessEqual(len(buffer.rest), LINE_LIMIT + 1)
                self.assertEqual((lines, buffer.rest), (expected, rest), (stream[:30], size))
                behind = [line for line in buffer.feed(b"\rgood\n") if line]
                self.assertEqual(behind, [rest, b"good"] if rest else [b"good"], (stream[:30], size))

    @example([b"x" + 9 * b"\0", b"x\n", b"\0\n"])
    @given(st.lists(st.text("Ax_ \0\r\n\xff\x01", max_size=12).map(lambda text: text.encode("latin-1")), max_size=8))
    def test_any_cut(self, chunks: list[bytes]) -> None:
        """
        However a stream is cut, its lines are the same, and each dropped byte is counted once.
        """
        buffer = DeviceLineBuffer(6)
        lines: list[bytes] = []
        noise = 0
        for chunk in [*chunks, b"\n"]:
            lines += filter(None, buffer.feed(chunk))
            noise += buffer.take_noise()[0]
            self.assertLessEqual(len(buffer.rest), 7)
        self.assertEqual((lines, noise), edges_cut(b"".join(chunks), 6))

    def test_noise_lines(self) -> None:
        """
        Lines of nothing but dropped bytes are counted, each once; empty lines are not.
        """
        for size in (1, 2, 100):
            buffer = DeviceLineBuffer()
            stream = b"a\n\r\n\0\n\xff\xfe\r\nb\n\n\x80\r" + b"x" * 2000 + b"\r\n\n\xff"
            for start in range(0, len(stream), size):
                buffer.feed(stream[start : start + size])
            self.assertEqual(buffer.unended_noise, 1)
            self.assertEqual(buffer.take_noise(), (5, 3))
            self.assertEqual(buffer.take_noise(), (0, 0))

    def test_discarding(self) -> None:
        """
        The rest of an over-long line is discarded up to the next line end.
        """
        buffer = DeviceLineBuffer()
        buffer.feed(b"x" * 2000)
        self.assertEqual((buffer.rest, buffer.discarding), (b"", True))
        self.assertEqual(buffer.feed(b"\n"), [])
        self.assertFalse(buffer.discarding)
