"""
Recordings as text.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from usbgate.core.recording import (
    LONGEST,
    PAUSE,
    Piece,
    RecordingWriter,
    UnreadableRecording,
    is_recording,
    parse_recording,
    sent_by_device,
    spell_piece,
)


class WritingTests(SynchronousTestCase):
    """
    What comes becomes lines.
    """

    def setUp(self) -> None:
        """
        Begin at second 100.
        """
        self.written: list[str] = []
        self.writer = RecordingWriter(self.written.append, 100.0)

    def lines(self) -> list[str]:
        """
        Return the lines so far but the first, and forget them.
        """
        lines = "".join(self.written).splitlines()
        self.written.clear()
        return lines

    def test_lines(self) -> None:
        """
        A line of the device is a line of the file, with the time of its first byte, however it was read.
        """
        self.assertEqual(self.lines(), ["# usbgate recording"])
        for number, byte in enumerate(b"T=1\r\nT=2\r\nT"):
            self.writer.feed(False, bytes([byte]), 101 + number / 1000)
        self.assertEqual(self.lines(), ['1.000 < "T=1\\r\\n"', '1.005 < "T=2\\r\\n"'])
        self.writer.flush()
        self.assertEqual(self.lines(), ['1.010 < "T"'])

    def test_ends(self) -> None:
        """
        A pause, the other direction and the longest line end a line, too.
        """
        self.lines()
        self.writer.feed(False, b"a", 100.0)
        self.writer.feed(False, b"b", 100 + PAUSE / 2)
        self.writer.feed(False, b"c", 100.5)
        self.writer.feed(True, b"d", 100.5)
        self.assertEqual(self.lines(), ['0.000 < "ab"', '0.500 < "c"'])
        self.writer.expire(100.5 + PAUSE / 2)
        self.assertEqual(self.lines(), [])
        self.writer.expire(100.5 + PAUSE * 2)
        self.assertEqual(self.lines(), ['0.500 > "d"'])
        self.writer.feed(True, b"x" * (LONGEST + 1), 101)
        self.assertEqual([len(line) for line in self.lines()], [LONGEST + len('1.000 > ""')])

    def test_round_trip(self) -> None:
        """
        All bytes are read as they were written; so are those of a text that a person has typed.
        """
        data = bytes(range(256))
        self.writer.comment("a\nb")
        self.writer.feed(False, data, 100.25)
        self.writer.feed(True, b'"\\', 100.5)
        self.writer.flush()
        text = "".join(self.written)
        self.assertTrue(text.isascii() and "# a b\n" in text)
        self.assertTrue(is_recording(text.encode()))
        pieces = list(parse_recording(text))
        self.assertEqual(b"".join(piece.data for piece in pieces), data + b'"\\')
        self.assertEqual(pieces[-1], Piece(0.5, True, b'"\\'))
        self.assertEqual(list(parse_recording(spell_piece(pieces[-1]))), [pieces[-1]])
        self.assertEqual(sent_by_device(text.encode()), data)
        self.assertEqual(sent_by_device(data), data)


class ReadingTests(SynchronousTestCase):
    """
    What a person has edited.
    """

    def test_edited(self) -> None:
        """
        Comments, empty lines, times from the line before, and characters that are not ASCII.
        """
        text = '# usbgate recording\n\n  1 < "a" # first\n+0.5 < "21°"\n+1 > "\\0\\t"\r\n2.5 < ""'
        self.assertEqual(
            list(parse_recording(text)),
            [
                Piece(1, False, b"a"),
                Piece(1.5, False, "21°".encode()),
                Piece(2.5, True, b"\0\t"),
                Piece(2.5, False, b""),
            ],
        )

    def test_wrong(self) -> None:
        """
        The number of the line, and what is wrong.
        """
        for text, error in [
            ("x", "line 1: expected"),
            ('\n1 < "a', "line 2: expected"),
            ('1 = "a"', "line 1: expected"),
            ('1 < "\\q"', r"line 1: \\q is none of"),
            ('2 < "a"\n1 < "a"', r"line 2: 1 is before .* use \+1\?"),
        ]:
            found = self.assertRaises(UnreadableRecording, list, parse_recording(text))
            self.assertRegex(str(found), error)
