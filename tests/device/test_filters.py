"""
Echoes and repeats: the lines of a device that are no news.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from usbgate.core.fieldline import checksum
from usbgate.device.filters import ECHO_MEMORY, REPEAT_MEMORY, EchoFilter, RepeatFilter


class EchoFilterTests(SynchronousTestCase):
    """
    A line that was written and comes back.
    """

    def setUp(self) -> None:
        """
        Build a filter.
        """
        self.echoes = EchoFilter()

    def test_until(self) -> None:
        """
        A written line is an echo until its time is over, as often as it comes; other lines are none.
        """
        self.echoes.line_written(b"a", 5.0)
        self.assertFalse(self.echoes.is_echo(b"b", 1.0))
        self.assertTrue(self.echoes.is_echo(b"a", 1.0))
        self.assertTrue(self.echoes.is_echo(b"a", 5.0))
        self.assertFalse(self.echoes.is_echo(b"a", 5.1))
        self.assertNotIn(b"a", self.echoes.written)

    def test_longest(self) -> None:
        """
        The same line written again with less patience does not shorten the time of the first one.
        """
        self.echoes.line_written(b"a", 10.0)
        self.echoes.line_written(b"a", 2.0)
        self.assertTrue(self.echoes.is_echo(b"a", 9.0))

    def test_holds_echo(self) -> None:
        """
        A line that holds a written one as a whole is an echo, unless a further field or more digits follow.
        """
        written = b"MSG:J_ID:31_ORIGIN:127.0.0.1"
        self.echoes.line_written(b"MSG:L_ID:9_ORIGIN:other", 5.0)
        self.echoes.line_written(written, 5.0)
        for before in [b"", b"Received: ", b">", b"ID:31_VALUE:5_GOT:", b"ID:2_TEMP:", b"\xff"]:
            for behind in [b"", b" ok", b".", b"\r", b'"]', b"_", b" 17", b"_ok", b"-> 5", b":5", b"X"]:
                self.assertTrue(self.echoes.holds_echo(before + written + behind, 5.0), (before, behind))
            for behind in [b"_VALUE:5", b"7", b".5", b" ok_VALUE:5", b"_TAG:5f", b"ID:31_VALUE:5"]:
                self.assertFalse(self.echoes.holds_echo(before + written + behind, 5.0), (before, behind))
        self.assertFalse(self.echoes.holds_echo(b"# got " + written, 5.0))
        for end in range(1, len(written)):
            self.assertFalse(self.echoes.holds_echo(b"Received: " + written[:end], 5.0))
            self.assertFalse(self.echoes.holds_echo(written[:end] + b" " + written[end:], 5.0))

    def test_without_checksum(self) -> None:
        """
        A written line whose checksum the device cut off is an echo, too.
        """
        self.echoes.line_written(b"MSG:J_ID:31_ORIGIN:x" + checksum(b"MSG:J_ID:31_ORIGIN:x"), 5.0)
        self.assertTrue(self.echoes.is_echo(b"MSG:J_ID:31_ORIGIN:x", 1.0))
        self.assertTrue(self.echoes.holds_echo(b"Received: MSG:J_ID:31_ORIGIN:x*00", 1.0))
        self.assertTrue(self.echoes.is_echo(b"MSG:J_ID:31_ORIGIN:x" + checksum(b"MSG:J_ID:31_ORIGIN:x"), 1.0))
        self.echoes.line_written(b"MSG:J_ID:32_ORIGIN:x*00", 5.0)
        self.assertFalse(self.echoes.holds_echo(b"Received: MSG:J_ID:32_ORIGIN:x", 1.0))

    def test_holds_echo_of_one_of_two(self) -> None:
        """
        If one written line is the beginning of another, a line is compared with both.
        """
        self.echoes.line_written(b"MSG:L_ORIGIN:x_ID:9", 5.0)
        self.echoes.line_written(b"MSG:L_ORIGIN:x_ID:9_LEVEL:5", 5.0)
        self.assertTrue(self.echoes.holds_echo(b"> MSG:L_ORIGIN:x_ID:9_LEVEL:5", 1.0))
        self.assertFalse(self.echoes.holds_echo(b"MSG:L_ORIGIN:x_ID:9_LEVEL:50", 1.0))

    def test_holds_echo_until(self) -> None:
        """
        Each written line has its own time, in whatever order they were written; what is over is forgotten.
        """
        for number, until in enumerate([2.0, 9.0, 5.0]):
            self.echoes.line_written(b"MSG:J_ID:%d" % number, until)
        for now, echoes in [(2.0, [True, True, True]), (5.1, [False, True, False]), (9.1, [False] * 3)]:
            found = [self.echoes.holds_echo(b"got MSG:J_ID:%d" % number, now) for number in range(3)]
            self.assertEqual(found, echoes, now)
        self.assertFalse(self.echoes.written)

    def test_memory(self) -> None:
        """
        The newest `ECHO_MEMORY` lines are remembered; a line that is written again is new.
        """
        for number in [*range(ECHO_MEMORY), 0, ECHO_MEMORY]:
            self.echoes.line_written(b"%d" % number, 9.0)
        self.assertTrue(self.echoes.is_echo(b"0", 1.0))
        self.assertFalse(self.echoes.is_echo(b"1", 1.0))
        self.assertTrue(self.echoes.is_echo(b"2", 1.0))


class RepeatFilterTests(SynchronousTestCase):
    """
    The same line again within some time.
    """

    def test_within(self) -> None:
        """
        A line is a repeat within the time, counted from the one that was delivered.
        """
        repeats = RepeatFilter(0.2)
        self.assertFalse(repeats.is_repeat(b"a", 1.0))
        repeats.line_delivered(b"a", "20", 1.0)
        self.assertTrue(repeats.is_repeat(b"a", 1.0))
        self.assertTrue(repeats.is_repeat(b"a", 1.19))
        self.assertFalse(repeats.is_repeat(b"b", 1.1))
        self.assertFalse(repeats.is_repeat(b"a", 1.21))

    def test_asked(self) -> None:
        """
        The answer to a sensor that was asked in between is no repeat; other sensors' lines still are.
        """
        repeats = RepeatFilter(0.2)
        repeats.sensor_asked("20")
        repeats.line_delivered(b"a", "20", 1.0)
        repeats.line_delivered(b"b", "21", 1.0)
        self.assertTrue(repeats.is_repeat(b"a", 1.0))
        repeats.sensor_asked("20")
        self.assertFalse(repeats.is_repeat(b"a", 1.0))
        self.assertTrue(repeats.is_repeat(b"b", 1.0))
        repeats.line_delivered(b"a", "20", 1.0)
        self.assertTrue(repeats.is_repeat(b"a", 1.0))

    def test_memory(self) -> None:
        """
        The newest `REPEAT_MEMORY` lines are remembered.
        """
        repeats = RepeatFilter(1e9)
        for number in range(REPEAT_MEMORY + 1):
            repeats.sensor_asked(str(number))
            repeats.line_delivered(b"%d" % number, str(number), 1.0)
        self.assertFalse(repeats.is_repeat(b"0", 1.0))
        self.assertTrue(repeats.is_repeat(b"1", 1.0))

    def test_memory_of_questions(self) -> None:
        """
        That a sensor was asked is forgotten when `REPEAT_MEMORY` others were asked since.
        """
        repeats = RepeatFilter(1e9)
        repeats.line_delivered(b"a", "20", 1.0)
        repeats.sensor_asked("20")
        for number in range(REPEAT_MEMORY):
            self.assertFalse(repeats.is_repeat(b"a", 1.0), number)
            repeats.sensor_asked(f"other {number}")
        self.assertTrue(repeats.is_repeat(b"a", 1.0))
