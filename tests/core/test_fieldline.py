"""
Field lines (protocol §1).
"""

from __future__ import annotations

import re
import unicodedata
from math import isfinite

from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.support.draws import given
from usbgate.core.errors import Malformed
from usbgate.core.fieldline import (
    LINE_LIMIT,
    UNITS,
    check_value,
    checksum,
    fold,
    format_line,
    format_number,
    format_time,
    is_key,
    is_sensor_id,
    join_fields,
    parse,
    parse_number,
    parse_value,
    parse_whole_fields,
    plain_text,
    unit_of,
    without_checksum,
)

# What reads back as itself: it drives parser and formatter alike.
BOTH_WAYS: list[tuple[dict[str, str], str]] = [
    ({"MSG": "J", "ID": "20", "ORIGIN": "TOTO"}, "MSG:J_ID:20_ORIGIN:TOTO"),
    ({"ID": "7", "TEMP": "21.5", "HUM": "48", "BAT": "OK"}, "ID:7_TEMP:21.5_HUM:48_BAT:OK"),
    ({"ORIGIN": "my_site"}, "ORIGIN:my_site"),
    ({"ORIGIN": "my_site", "ID": "2"}, "ORIGIN:my_site_ID:2"),
    ({"ID": "28:FF:4C:01", "A": "1"}, "ID:28:FF:4C:01_A:1"),
    ({"A": "x_"}, "A:x__"),
    ({"A": "_x"}, "A:_x"),
    ({"A": "x_", "B": "1"}, "A:x__B:1"),
    ({"A": "__"}, "A:___"),
    ({"A": "two words"}, "A:two words"),
    ({"A": "21,5 °C"}, "A:21,5 °C"),
    ({"A1": ":"}, "A1::"),
]

# What is read, but not written that way.
READ_ONLY: list[tuple[str, dict[str, str]]] = [
    ("msg:J_Id:20", {"MSG": "J", "ID": "20"}),
    ("ID:20_", {"ID": "20"}),
    ("ID: 20 _A:  x ", {"ID": "20", "A": "x"}),
    ("A:\u00a0x\u2003", {"A": "x"}),
]

MALFORMED: list[tuple[bytes, str]] = [
    (b"NOTE:12_30:45", "no key"),
    (b"HU%:48", "no key"),
    (b"_ID:20", "no key"),
    (b"hello", "no key"),
    (b" ID:20", "no key"),
    (b"ID:20_ TEMP:3", "no key"),
    (b":x", "no key"),
    (b"1A:x", "no key"),
    ("É:x".encode(), "no key"),
    (b"_", "no key"),
    (b"ID:20_id:21", "key given twice"),
    (b"ID:", "empty value"),
    (b"ID:_A:1", "empty value"),
    (b"ID:  _A:1", "empty value"),
    (b"ID:2\x000", "control character"),
    (b"ID:2\t0", "control character"),
    (b"ID:20\r", "control character"),
    ("ID:2\x85".encode(), "control character"),
    (b"ID:\xff", "not UTF-8"),
    (b"ID:\xed\xa0\x80", "not UTF-8"),
    (b"A:" + b"x" * (LINE_LIMIT - 1), "line too long"),
]

# Lines of a device of which some fields are damaged: the whole ones, and why each of the others is left out.
DAMAGED: list[tuple[bytes, dict[str, str], list[str]]] = [
    (b"ID:45_TEMP:21.5_HUM:", {"ID": "45", "TEMP": "21.5"}, ["empty value"]),
    (b"ID:45_HUM:_TEMP:21.5", {"ID": "45", "TEMP": "21.5"}, ["empty value"]),
    (b"ID:45_HUM: \xc2\xa0_TEMP:1", {"ID": "45", "TEMP": "1"}, ["empty value"]),
    (b"ID:46_TEMP:21.5_UNIT:\xb0C", {"ID": "46", "TEMP": "21.5"}, ["not UTF-8"]),
    (b"UNIT:x\xc3_y_ID:46", {"ID": "46"}, ["not UTF-8"]),
    (b"UNIT:\xed\xa0\x80_ID:46_A:\xc2\xb0", {"ID": "46", "A": "\xb0"}, ["not UTF-8"]),
    (b"ID:1_A:2\x003_B:4\t_C: 5 ", {"ID": "1", "C": "5"}, ["control character", "control character"]),
    (b"ID:1_A:\xc2\x85_B:\x7f_C:_c_", {"ID": "1", "C": "_c"}, ["control character", "control character"]),
    (b"ID:7_HU%:48_TEMP:1", {"ID": "7", "TEMP": "1"}, ["no key"]),
    (b"NOTE:12_30:45_x_ID:2", {"NOTE": "12", "ID": "2"}, ["no key"]),
    (b"\xe9t\xe9:1_:2_1A:3_A\x00:4_ID:5", {"ID": "5"}, ["no key"] * 4),
    (b"ID:_A:1", {"A": "1"}, ["empty value"]),
    (b"ID:2\xff0_A:1", {"A": "1"}, ["not UTF-8"]),
    (b"A:1", {"A": "1"}, []),
]

NUMBERS: list[tuple[str, float | None]] = [
    ("456", 456.0),
    ("-21.5", -21.5),
    ("+.5", 0.5),
    ("5.", 5.0),
    ("1e3", 1000.0),
    ("1E-3", 0.001),
    ("1e-400", 0.0),
    ("007", 7.0),
    ("1e400", None),
    ("-1e400", None),
    ("1_000", None),
    ("١٢", None),
    ("nan", None),
    ("inf", None),
    ("21,5", None),
    ("0x10", None),
    (".", None),
    ("", None),
    ("1e", None),
    ("--1", None),
    (" 1", None),
    ("1\n", None),
    ("²", None),
]


class ParseTests(SynchronousTestCase):
    """
    Text to fields and back.
    """

    def test_both_ways(self) -> None:
        """
        A line is read as its fields, and the fields are written as that line.
        """
        for fields, line in BOTH_WAYS:
            self.assertEqual(list(parse(line.encode()).items()), list(fields.items()), line)
            self.assertEqual(format_line(fields), line)
            self.assertEqual(join_fields(fields), line)

    def test_read_only(self) -> None:
        """
        Keys in lower case, blanks around values and one `_` at the end are read.
        """
        for line, fields in READ_ONLY:
            self.assertEqual(parse(line.encode()), fields, line)

    def test_malformed(self) -> None:
        """
        Each malformed line is refused for its own reason.
        """
        for line, reason in MALFORMED:
            with self.assertRaises(Malformed, msg=repr(line)) as caught:
                parse(line)
            self.assertEqual(caught.exception.reason, reason, line)

    def test_damaged(self) -> None:
        """
        The whole fields of a damaged line are read, wherever the others are, and each of these has its reason.
        """
        for line, fields, left_out in DAMAGED:
            self.assertEqual(parse_whole_fields(line), (fields, left_out), line)

    def test_damaged_and_refused(self) -> None:
        """
        A line that does not begin with a field or is too long, and a key given twice, damaged or not, are refused.
        """
        for line, reason in (
            (b"x_ID:20", "no key"),
            (b"\xff_ID:20", "no key"),
            (b"_ID:20", "no key"),
            (b"ID:1_A:1_a:", "key given twice"),
            (b"A:\xff_A:1_ID:1", "key given twice"),
            (b"A:_B:" + b"x" * LINE_LIMIT, "line too long"),
        ):
            with self.assertRaises(Malformed, msg=repr(line)) as caught:
                parse_whole_fields(line)
            self.assertEqual(caught.exception.reason, reason, line)

    @given(
        st.dictionaries(
            st.from_regex(r"[A-Z][A-Z0-9]{0,5}", fullmatch=True), st.from_regex("[a-z0-9.:]+", fullmatch=True)
        ),
        st.sampled_from([b"Q:", b"Q: ", b"Q:a\xffb", b"Q:\x01", b"Q%:1", b"\xc3Q:1", b":", b"Q:\xb0C_x"]),
        st.integers(0, 8),
    )
    def test_costs_only_itself(self, fields: dict[str, str], damaged: bytes, place: int) -> None:
        """
        A damaged field anywhere in a line changes nothing of the others.
        """
        fields.pop("Q", None)
        segments = [f"{key}:{value}".encode() for key, value in fields.items()]
        segments.insert(place, damaged)
        found, left_out = parse_whole_fields(b"_".join(segments))
        self.assertEqual((found, len(left_out)), (fields, 1))

    def test_longest(self) -> None:
        """
        A line of exactly the limit is read, also where that is another.
        """
        line = b"A:" + b"x" * (LINE_LIMIT - 2)
        self.assertEqual(parse(line), {"A": "x" * (LINE_LIMIT - 2)})
        self.assertEqual(parse(line + b"x", LINE_LIMIT + 1), {"A": "x" * (LINE_LIMIT - 1)})
        with self.assertRaises(Malformed):
            parse(line + b"xx", LINE_LIMIT + 1)

    @given(st.dictionaries(st.from_regex(r"[A-Z][A-Z0-9.+-]{0,5}", fullmatch=True), st.text(max_size=12), min_size=1))
    def test_reads_back_or_is_refused(self, fields: dict[str, str]) -> None:
        """
        parse(format(f)) == f, or format refuses.
        """
        try:
            line = format_line(fields)
        except Malformed:
            return
        self.assertEqual(parse(line.encode()), fields)

    @given(st.text(alphabet=st.sampled_from("AB1:_ é\x00"), max_size=24))
    def test_what_is_read_can_be_written(self, text: str) -> None:
        """
        Whatever parse gives, format takes, and it reads back.
        """
        try:
            fields = parse(text.encode())
        except Malformed:
            return
        self.assertEqual(parse(format_line(fields).encode()), fields)

    def test_values_refused(self) -> None:
        """
        A value that would not read back is refused, and the error names its key.
        """
        for value in ["", " x", "x ", "a\nb", "a_B:1", "a_30:45", "a_:", "\ud800", "x\x7f"]:
            with self.assertRaises(Malformed, msg=repr(value)) as caught:
                check_value("NAME", value)
            self.assertIn("NAME", str(caught.exception))

    def test_control_characters(self) -> None:
        """
        Unicode's category Cc is refused whole, and nothing else of the first planes is.
        """
        for code in [*range(0x20, 0x300), 0x2028, 0xFEFF]:
            character = chr(code)
            try:
                check_value("A", f"a{character}b")
                refused = False
            except Malformed:
                refused = True
            self.assertEqual(refused, unicodedata.category(character) == "Cc", hex(code))


class NumberTests(SynchronousTestCase):
    """
    Numbers and times.
    """

    def test_table(self) -> None:
        """
        What is a number is read as its double, all else is text.
        """
        for text, number in NUMBERS:
            self.assertEqual(parse_number(text), number, repr(text))

    @given(st.text("+-.0123456789eE_ naif\u0661\n", max_size=8))
    def test_grammar(self, text: str) -> None:
        """
        A number is what the grammar of protocol §1 says, and nothing else that Python would read.
        """
        number = re.fullmatch(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?", text)
        finite = number is not None and isfinite(float(text))
        self.assertEqual(parse_number(text), float(text) if finite else None)

    @given(st.floats(allow_nan=False, allow_infinity=False))
    def test_shortest(self, number: float) -> None:
        """
        A number is written so that it reads back as the same double, with no `.0`.
        """
        text = format_number(number)
        self.assertEqual(parse_number(text), number)
        self.assertFalse(text.endswith(".0"))

    def test_plain_decimals(self) -> None:
        """
        The number alone is kept of a plain decimal that a double holds, and of nothing else.
        """
        for text in ["0", "-0", "7", "-21.5", "21.50", "0.05", "123456789012345", "-1234567890.12345"]:
            self.assertEqual(parse_value(text), (float(text), None), text)
        for text in ["0815", "00E1", "12E4", "1e3", "+3", "5.", ".5", "-.5", "00", "-01", "00.5", "1e-400"]:
            self.assertEqual(parse_value(text), (float(text), text), text)
        for text in ["1234567890123456", "-1234567890.123456", "0.123456789012345"]:
            self.assertEqual(parse_value(text), (float(text), text), text)

    @given(st.floats(allow_nan=False, allow_infinity=False).map(format_number))
    def test_lossless(self, text: str) -> None:
        """
        The spelling of every number is its text, or follows from its value.
        """
        number, kept = parse_value(text)
        self.assertEqual(number, float(text))
        if kept is None:
            self.assertEqual(format_number(float(text)), text)

    def test_units(self) -> None:
        """
        A number directly followed by a unit is that number with its text; with anything else it is text.
        """
        for number in ["21", "-21.5", "+3", "5.", ".5", "007", "1e3"]:
            for unit in UNITS:
                self.assertEqual(parse_value(number + unit), (float(number), number + unit))
                self.assertEqual(unit_of(number + unit), unit)
        for text in [
            "21 C",
            "21c",
            "C",
            "-C",
            "21CC",
            "21C%",
            "C21",
            "1,5V",
            "1e400V",
            "12B",
            "0x1F",
            "٣V",
            "",
            "12E",
            "5V\n",
        ]:
            self.assertEqual((parse_value(text), unit_of(text)), ((None, text), ""), repr(text))
        for text in ["21", "00E1"]:
            self.assertEqual(unit_of(text), "")

    def test_time(self) -> None:
        """
        Times are RFC 3339 in UTC with milliseconds, before 1970 too.
        """
        self.assertEqual(format_time(1363035730123), "2013-03-11T21:02:10.123Z")
        self.assertEqual(format_time(0), "1970-01-01T00:00:00.000Z")
        self.assertEqual(format_time(-1), "1969-12-31T23:59:59.999Z")

    def test_checksum(self) -> None:
        """
        A checksum is the XOR of all bytes before its `*`, in hexadecimal; a change of any bit is found.
        """
        line = b"ID:20_VALUE:456"
        self.assertEqual(checksum(line), b"*2C")
        for body, end in [(line, b"*2C"), (line, b"*2c"), (b"", b"*00"), (b"A*2C", checksum(b"A*2C"))]:
            self.assertEqual(without_checksum(body + end), body)
        for wrong in [
            b"",
            b"2C",
            b"*2C",
            line,
            line + b"*2D",
            line + b"*2",
            line + b"2C",
            line + b"*2C ",
            line + b"*+C",
        ]:
            self.assertIsNone(without_checksum(wrong), wrong)
        for place in range(len(line)):
            for bit in range(8):
                changed = bytearray(line)
                changed[place] ^= 1 << bit
                self.assertIsNone(without_checksum(bytes(changed) + b"*2C"))

    def test_fold(self) -> None:
        """
        Only ASCII letters lose their case.
        """
        for text, folded in [
            ("On", "on"),
            ("GET.T-1", "get.t-1"),
            ("ÉCO", "Éco"),
            ("\u212a", "\u212a"),
            ("", ""),
        ]:
            self.assertEqual(fold(text), folded)

    def test_names(self) -> None:
        """
        Keys are ASCII letters and digits; a sensor's id may be nearly anything without blank and `_`.
        """
        self.assertTrue(all(map(is_key, ["A", "temp2", "X9y", "TEMP-IN", "PM2.5", "A+", "a."])))
        self.assertFalse(any(map(is_key, ["", "1A", "-B", ".5", "É", "A_B", "A\n", "A%"])))
        self.assertTrue(all(map(is_sensor_id, ["20", "28:FF:4C:01", "é", "x" * 64])))
        self.assertFalse(any(map(is_sensor_id, ["", "a b", "a_b", "x" * 65, "a\u00a0b", "a\x00", "\ud800"])))

    @given(st.text())
    def test_plain_text(self, text: str) -> None:
        """
        Any text becomes a value that reads back.
        """
        line = format_line({"TEXT": plain_text(text)})
        self.assertEqual(parse(line.encode()), {"TEXT": plain_text(text)})
