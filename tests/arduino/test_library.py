"""
`arduino/UsbGate`: its files, and what it makes of single lines on an emulated board.
"""

from __future__ import annotations

import os
import re

from twisted.trial.unittest import SynchronousTestCase

import usbgate
from tests.support.arduino import LIBRARY, SKETCHES, UNO, workshop
from tests.support.firmware import FirmwareCase, read_count, read_lines, summed, text_of
from usbgate.core.fieldline import parse


class FilesTests(SynchronousTestCase):
    """
    What the IDE reads.
    """

    def test_properties(self) -> None:
        """
        The version is usbgate's.
        """
        self.assertIn(f"version={usbgate.__version__}", (LIBRARY / "library.properties").read_text().splitlines())

    def test_mandatory(self) -> None:
        """
        Nothing is missing without which the IDE 1.8 takes no library. A library that is no project of its own has no
        URL, but its line.
        """
        lines = (LIBRARY / "library.properties").read_text().splitlines()
        keys = {line.partition("=")[0] for line in lines if "=" in line}
        mandatory = {"name", "version", "author", "maintainer", "sentence", "paragraph", "url"}
        self.assertEqual(mandatory - keys, set())

    def test_keywords(self) -> None:
        """
        Every word that it shows in colour is in the header.
        """
        keywords = [line.split("\t")[0] for line in (LIBRARY / "keywords.txt").read_text().splitlines()]
        self.assertGreater(len(keywords), 15)
        self.assertLessEqual(set(keywords), set(re.findall(r"\w+", (LIBRARY / "src" / "UsbGate.h").read_text())))


class LinesTests(FirmwareCase):
    """
    What the library makes of single lines.
    """

    def test_lines(self) -> None:
        """
        It answers what is a request, whatever its spelling, and nothing else; no line that it sends is torn.
        """
        workshop().build_runner()
        elf = workshop().build(UNO, SKETCHES / "Probe" / "Probe.ino")
        board = self.switch_on(UNO, elf, f"0={self.folder}/probe")
        port = self.open(self.folder / "probe")

        def send(data: bytes, count: int = 1) -> list[str]:
            # An acknowledgement of the last line shows what it and the lines before it have led to.
            os.write(port, data)
            return read_count(port, count)

        # It starts with an end for the line that a reset may have cut off. (It was started when nobody listened yet.)
        board.do("reset")
        read_lines(port, lambda lines: "\n".join(lines).endswith("\x18\n# UsbGate started"))
        end = b"MSG:J_ID:0_ORIGIN:t\n"
        longest = "MSG:J_ID:9_A:".ljust(64, "9")
        for line, *expected in (
            # ORIGIN may stand anywhere, and be as long as it likes.
            ("ORIGIN:my_site_ID:9_MSG:J", "ID:9_MSG:J"),
            (f"MSG:J_ORIGIN:{300 * 'o'}_{300 * 'x'}_ID:9_TAG:5f0e3a1c", "ID:9_MSG:J_TAG:5f0e3a1c"),
            ("MSG:J_ID:kitchen_ORIGIN:t\r\n", "ID:kitchen_MSG:J"),
            ("\xff\0MSG:J_ID:28:FF:4C_ORIGIN:t", "ID:28:FF:4C_MSG:J"),
            # Arguments.
            ("MSG:L_ID:9_LEVEL:-5_NAME:a_b_ORIGIN:t", "ID:9_LEVEL:-5_NAME:a_b_OWN:1_MSG:L"),
            ("MSG:L_ID:09_LEVEL:5%_ORIGIN:t", "ID:09_LEVEL:-1_NAME:none_OWN:0_MSG:L"),
            ("MSG:L_ID:19_XLEVEL:5_ORIGIN:t", "ID:19_LEVEL:-1_NAME:none_OWN:0_MSG:L"),
            ("MSG:L_ID:9_LEVEL:2147483647_ORIGIN:t", "ID:9_LEVEL:2147483647_NAME:none_OWN:1_MSG:L"),
            ("MSG:L_ID:9_LEVEL:4294967301_ORIGIN:t", "ID:9_LEVEL:-1_NAME:none_OWN:1_MSG:L"),
            # As long as there is room for, wherever ORIGIN stands.
            (f"{longest}_ORIGIN:t", "ID:9_MSG:J"),
            (f"ORIGIN:t_{longest}", "ID:9_MSG:J"),
            # What is no request: its own line, too long, damaged, without command or sensor.
            ("ID:9_MSG:J",),
            (f"MSG:J_ORIGIN:t_ID:9_A:{72 * '9'}",),
            (f"MSG:J_ID:9_ORIGIN:t_{64 * 'K'}:1",),
            ("MSG:J_ID:9\x07_ORIGIN:t",),
            ("ID:9_ORIGIN:t",),
            ("MSG:J_ORIGIN:t",),
            # Any other command: passed on, with a checksum.
            ("MSG:X_ORIGIN:t_ID:9_A:1_TAG:a1", text_of(summed("MSG:X_ID:9_A:1_TAG:a1_ORIGIN:hub"))),
            # Answers that overtake each other, each with its own tag; one whose texts are too long for that.
            ("MSG:TWO_ID:1_ORIGIN:t_TAG:a",),
            ("MSG:TWO_ID:2_ORIGIN:t_TAG:b", "ID:2_TURN:2_MSG:TWO_TAG:b", "ID:1_TURN:1_MSG:TWO_TAG:a"),
            (f"MSG:TWO_ID:{32 * '1'}_ORIGIN:t", f"ID:{32 * '1'}_LONG:1_MSG:TWO"),
        ):
            got = send(line.encode("latin-1") + b"\n" + end, len(expected) + 1)
            self.assertEqual(got, [*expected, "ID:0_MSG:J"], line)

        # Of more lines than there is room for, some are left out as a whole, and the caller learns it. The next request
        # waits until there is room for its answer.
        os.write(port, b"MSG:MANY_ID:1_ORIGIN:t\n" + end)
        *many, last, _ = read_lines(port, lambda lines: lines[-1] == "ID:0_MSG:J")
        readings = [line for line in many if line.startswith("ID:28:FF_TEMP:21.537_N:")]
        self.assertEqual(readings, many)
        self.assertEqual(parse(last.encode())["TAKEN"], str(len(readings)))
        self.assertIn(len(readings), range(2, 20))
        self.assertEqual(readings, sorted(readings, key=lambda line: int(line.rpartition(":")[2])))

        # Checksums.
        got = send(b"MSG:CHECK_ID:1_ORIGIN:t\n", 2)
        self.assertEqual(got, ["# two words " + 87 * "x", text_of(summed("ID:1_REFUSED:6_MSG:CHECK"))])
        torn = summed("MSG:J_ID:12_ORIGIN:t").replace(b"12", b"1")
        for wrong in (b"MSG:J_ID:9_ORIGIN:t\n", torn, b"MSG:J_ID:9_ORIGIN:t*\n", b"*00\n"):
            got = send(wrong + summed("ORIGIN:t_MSG:J_ID:9_TAG:b"))
            self.assertEqual(got, [text_of(summed("ID:9_MSG:J_TAG:b"))], wrong)
        self.assertEqual(send(summed(f"ORIGIN:t_{longest}")), [text_of(summed("ID:9_MSG:J"))])
