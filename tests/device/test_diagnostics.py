"""
What is logged of a device's lines.
"""

from __future__ import annotations

from twisted.logger import capturedLogs

from tests.support.links import LinkCase, texts
from usbgate.device.diagnostics import GARBLED_INTERVAL, TEXT_LENGTH, TEXT_LINES, TEXT_SPAN
from usbgate.device.dialects.fields import Dialect
from usbgate.device.link import Link
from usbgate.device.unended import UNENDED_LIMIT


class DiagnosticsTests(LinkCase):
    """
    The log of a link.
    """

    def test_wrong_speed(self) -> None:
        """
        If most lines are malformed, one warning is logged; another only after good lines in between, at most one a
        minute.
        """
        self.open()
        with capturedLogs() as logs:
            self.device.say(b"ID:1_V:1\n" * 10 + b"\x80\xfe\n" * 9)
            self.device.say(b"\x80\xfe\n" * 200)
            self.device.say(b"ID:1_V:1\n" * 200)
            self.device.say(b"\x80\xfe\n" * 20)  # too soon for another warning
            self.device.say(b"ID:1_V:1\n" * 200)
            self.clock.advance(GARBLED_INTERVAL)
            self.device.say(b"\x80\xfe\n" * 20)
        warning = "board: {} lines malformed: check the baud rate"
        warnings = [text for text in texts(logs) if "malformed" in text]
        self.assertEqual(warnings, [warning.format("209 of 219"), warning.format("20 of 20")])

    def test_another_dialect(self) -> None:
        """
        Malformed lines that are text suggest another dialect; those that mostly are not, a wrong baud rate.
        """
        dialect, speed = "they are text; another dialect?", "check the baud rate"
        text = b"raw:50-03 station:0 batt:ok temp:78.6"
        for lines, expected in (
            ([text], dialect),
            ([b"{'temp': 21.5}"], dialect),
            ([b"21.5\t48\t1013"], dialect),
            (["Température 21,5 °C".encode()], dialect),
            (["Température 21,5 °C".encode("latin-1")], dialect),
            ([b"x" * 300 + b" 1:2"], dialect),
            ([b"x" * 1100], dialect),
            ([text, text, b"\x80\xfe"], dialect),
            ([b"ab", b"\x80\xfe", b"\x86\x00A"], speed),
            ([b"\x80\xfe"], speed),
            ([b"abc\x01def"], speed),
        ):
            for size in (1, 7, 100_000):
                self.open()
                for _ in range(2):
                    self.device.say(b"ID:1_V:1\n" * 40)
                self.clock.advance(GARBLED_INTERVAL)
                data = b"\n".join(lines * 40) + b"\n"
                with capturedLogs() as logs:
                    for place in range(0, len(data), size):
                        self.device.say(data[place : place + size])
                [warning] = [each for each in texts(logs) if "malformed" in each]
                self.assertEqual(warning.partition(" malformed: ")[2], expected, lines)
                self.close()

    def test_wrong_speed_without_line_end(self) -> None:
        """
        At a wrong baud rate there is hardly a line end: that is logged, too, however the data is cut, but not for text.
        """
        for text in ("ID:1_TEXT:" + "日本語" * 100, "ID:1_V:1\r" * 300):
            self.open()
            with capturedLogs() as logs:
                self.device.say(text.encode())
                self.device.say(b"\nID:1_V:1\n" * 20)
            self.assertEqual(texts(logs), [])
            self.close()
        warning = "board: {} bytes without a line that can be read, {} of them not text: check the baud rate"
        good = b"ID:1_V:1\n"
        for first, size, expected in ((b"", 1, (256, 171)), (b"", 1200, (1027, 685)), (good, 1200, (1027, 685))):
            self.open()
            garbage = b"\x86\x00A" * 800
            with capturedLogs() as logs:
                self.device.say(first)
                for place in range(0, len(garbage), size):
                    self.device.say(garbage[place : place + size])
                self.device.say(b"\n" + good * 40)
            self.assertEqual(texts(logs), [warning.format(*expected)])
            self.close()

    def test_wrong_speed_after_good_lines(self) -> None:
        """
        The good lines before the trouble do not end it: it is logged once.
        """
        self.open()
        for good in range(20):
            self.device.say(b"ID:1_V:1\n" * 60)
            with capturedLogs() as logs:
                for _ in range(good):
                    self.device.say(b"ID:1_V:1\n")
                for _ in range(5):
                    self.device.say(b"\xe1\xa7A" * 100 + b"\r")
                self.assertEqual(len(texts(logs)), 1, good)
            self.device.say(b"ID:1_V:1\n" * 60)

    def test_noise_at_the_wrong_speed(self) -> None:
        """
        Bytes that are dropped, and lines of nothing else, speak for a wrong baud rate like any others.
        """
        for data in (b"\x80" * 300, b"\x80\xfe\0\n" * 30):
            for size in (1, 50, len(data)):
                self.open()
                with capturedLogs() as logs:
                    for place in range(0, len(data), size):
                        self.device.say(data[place : place + size])
                self.assertIn("check the baud rate", " ".join(texts(logs)))
                self.assertEqual(len(texts(logs)), 1)
                self.assertEqual(self.link.counts.malformed, 0)
                self.close()
                self.setUp()

    def test_recommend_gap(self) -> None:
        """
        A line that waits too long for its end, and one that is too long, are logged once, with the remedy; garbage is
        not, nor a board with a gap. With 200 bytes it waits too long sooner, but not as soon as it may still arrive.
        """
        remedy = (
            "board: {} bytes without a line end: if the board sends the line end before each line, or never,"
            ' set gap = "250ms" in its table'
        )
        long = b"ID:1_V:1" * 200
        for data, gap, expected in (
            (b"\r\nID:1_V:1", None, [remedy.format(8)]),
            (long, None, [remedy.format(1025)]),
            (long + b"\n", None, [remedy.format(1025)]),
            (b"A\x80\xff", None, []),
            (long, 1.0, []),
            (b"ID:1_V:1", 60.0, []),
        ):
            self.link = Link(self.clock, self.device, "board", "/dev/board", Dialect(), gap=gap)
            self.link.listener = self.listener
            self.open()
            with capturedLogs() as logs:
                for _ in range(3):
                    self.device.say(data)
                    self.clock.pump([UNENDED_LIMIT] * 2)
                    self.device.say(b"\n")
            self.assertEqual(texts(logs), expected, data)
            self.close()

    def test_long_lines(self) -> None:
        """
        A line of 200 bytes or more that has not ended is logged within 5 s, also if it comes in pieces, but not while
        it may still be on its way at 9600 baud; a shorter one only after 5 s.
        """
        piece = b"ID:1_NOTE:abcdefghij"
        for count, pause, limit in ((10, 0.0, 2.0), (10, 0.4, 4.0), (9, 0.0, 5.0), (50, 0.02, 2.0)):
            self.link = Link(self.clock, self.device, "board", "/dev/board", Dialect())
            self.link.listener = self.listener
            self.open()
            with capturedLogs() as logs:
                began = self.clock.seconds()
                for _ in range(count):
                    self.device.say(piece)
                    self.clock.advance(pause)
                while self.clock.seconds() < began + limit - 0.5:
                    self.clock.advance(0.1)
                self.assertEqual(texts(logs), [], count)
                self.clock.pump([0.1] * 20)
            self.assertEqual(["without a line end" in text for text in texts(logs)], [True], count)
            self.close()

    def test_log_text(self) -> None:
        """
        The firmware's own text is logged, quoted and shortened: `TEXT_LINES` lines in `TEXT_SPAN` seconds, and the
        number of the others.
        """
        self.open()
        with capturedLogs() as logs:
            self.device.say(b"# \x1b[31mred\n" * (TEXT_LINES + 5))
            self.clock.advance(TEXT_SPAN)
            self.device.say(b"#calm\n#" + b"x" * TEXT_LENGTH + b"\n#" + b"x" * 1_000 + b"\n")
        first = ["text from board: '\\x1b[31mred'"] * TEXT_LINES
        later = ["5 more lines of text from board not logged", "text from board: 'calm'"]
        later += [f"text from board: '{'x' * TEXT_LENGTH}'", f"text from board: '{'x' * (TEXT_LENGTH - 1)}…'"]
        logged = [text for text in texts(logs) if "text from board" in text]
        self.assertEqual(logged, [*first, *later])
        self.assertEqual((self.listener.calls, self.link.counts.malformed), ([], 0))
