"""
The dialect of the original firmware (protocol §2).
"""

from __future__ import annotations

import pickle

from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.support.draws import given
from usbgate.core.errors import Malformed
from usbgate.core.fieldline import checksum, parse
from usbgate.core.messages import parse_request
from usbgate.core.model import Question, Report, Request
from usbgate.device.dialects import fields
from usbgate.device.dialects.fields import ID_NAMES_LIMIT, Dialect
from usbgate.testing import check_dialect

# Lines of a captured log, and the meaning of each.
LOG: list[tuple[bytes, Report | str]] = [
    (b"ID:20_VALUE:456", Report("20", None, None, (("VALUE", "456"),))),
    (b"ID:7_TEMP:21.5_HUM:48_BAT:OK", Report("7", None, None, (("TEMP", "21.5"), ("HUM", "48"), ("BAT", "OK")))),
    (b"MSG:J_ID:20_VALUE:1", Report("20", "J", None, (("VALUE", "1"),))),
    (b"tag:3f_id:20_value:1", Report("20", None, None, (("TAG", "3f"), ("VALUE", "1")))),
    (b"ID:5_TAG:04A3F2", Report("5", None, None, (("TAG", "04A3F2"),))),
    (b"ID:5_TAG:04A3F3", Report("5", None, None, (("TAG", "04A3F3"),))),
    (b"ID:9_MSG:ON", Report("9", "ON", None, ())),
    (b"ID:20_VALUE:1_MSG:J", Report("20", "J", None, (("VALUE", "1"),))),
    (b"ID:20_VALUE:2_MSG:J", Report("20", "J", None, (("VALUE", "2"),))),
    (b"ID:20_VALUE:2_MSG:J:L", Report("20", "J:L", None, (("VALUE", "2"),))),
    (b"ID:20_VALUE:2_MSG:J:M", Report("20", "J:M", None, (("VALUE", "2"),))),
    (b"ID:20_VALUE:2_msg:K", Report("20", "K", None, (("VALUE", "2"),))),
    (b"ID:20_VALUE:2_msg:L", Report("20", "L", None, (("VALUE", "2"),))),
    (b"ID:9_MSG:ON_OK:1", Report("9", "ON", None, (("OK", "1"),))),
    (b"ID:9_ERROR:radio", Report("9", None, None, (("ERROR", "radio"),))),
    (b"ID:9_TEXT:hi_there", Report("9", None, None, (("TEXT", "hi_there"),))),
    (b"# radio up, channel 7", "radio up, channel 7"),
    (b"#\xff", "\ufffd"),
]

REFUSED: list[tuple[bytes, str]] = [
    (b"VALUE:456", "no ID"),
    (b"ID:20", "no measurement"),
    (b"ID:20_ORIGIN:x_AT:y", "no measurement"),
    (b"ID:a b_VALUE:1", "not a sensor id"),
    (b"ID:my_id_VALUE:1", "not a sensor id"),
    (b"\x80\x81", "not UTF-8"),
    (b"ID:20_VALUE", "not a sensor id"),
]

DAMAGED: list[tuple[bytes, Report]] = [
    (b"ID:45_TEMP:21.5_HUM:", Report("45", None, None, (("TEMP", "21.5"),), ("empty value",))),
    (b"ID:45_HUM:_TEMP:21.5", Report("45", None, None, (("TEMP", "21.5"),), ("empty value",))),
    (b"ID:46_TEMP:21.5_UNIT:\xb0C", Report("46", None, None, (("TEMP", "21.5"),), ("not UTF-8",))),
    (b"A:1\x01_ID:4_HU%:3_C:4", Report("4", None, None, (("C", "4"),), ("control character", "no key"))),
    (b"ID:4_MSG:J_V:", Report("4", "J", None, (), ("empty value",))),
    (b"ID:4_MSG:\xff_V:1", Report("4", None, None, (("V", "1"),), ("not UTF-8",))),
    (b"ID:4_TAG:\xff_V:1", Report("4", None, None, (("V", "1"),), ("not UTF-8",))),
    (b"ID:4_AT:_GW:x_V:1", Report("4", None, None, (("V", "1"),), ("empty value",))),
]

# Damaged lines that are refused, since nothing is left to report, or nobody to report it of.
DAMAGED_REFUSED: list[tuple[bytes, str]] = [
    (b"ID:20_VALUE:", "empty value"),
    (b"ID:20_HU%:1", "no key"),
    (b"ID:20_AT:now_VALUE:", "empty value"),
    (b"ID:_V:1", "empty value"),
    (b"ID:2\xff0_V:1", "not UTF-8"),
    (b"ID:2\x000_V:1", "control character"),
    (b"ID:a b_V:1_H:", "not a sensor id"),
    (b"VALUE:1_H:", "empty value"),
    (b"4F_ID:20_V:1_H:", "no key"),
    (b"ID:20_V:1_v:2_H:", "key given twice"),
]


# Parts of which lines are built, good and bad.
SEGMENTS = [
    *("ID:20", "id:20", "ID:2:0", "ID:7 ", "MSG:J", "TAG:1f", "AT:1", "VALUE:4", "VALUE:20", "Value:-1.5e3"),
    *("MSG:J:L", "msg:L", "MSG:L"),
    *("VALUE: 5", "VALUE:", "VALUE:4:5", "HUM:é", "x", "", "VALUE:\x7f", "#", ":9", "HU%:1", "TEMP:2"),
]


class DialectTests(SynchronousTestCase):
    """
    Lines in, lines out.
    """

    def test_options(self) -> None:
        """
        An option that it does not have, or a wrong value, is refused by its name.
        """
        Dialect({})
        self.assertRaisesRegex(ValueError, "^separator: unknown key", Dialect, {"separator": ";"})
        for wrong in (1, "yes", None):
            self.assertRaisesRegex(ValueError, "^checksum: expected true or false", Dialect, {"checksum": wrong})

    def test_checksum(self) -> None:
        """
        With `checksum`, lines have the same meaning as without, behind a right checksum; any other is refused.
        """
        lines = [(line + checksum(line), meaning) for line, meaning in LOG if not line.startswith(b"#")]
        refused = [line + checksum(line) for line, _ in REFUSED]
        refused += [line for line, _ in LOG if not line.startswith(b"#")]
        for line, _ in lines:
            refused += [line[:-1], line[1:], line + b"0", line[:-3] + b"7" + line[-3:], line + line]
        dialect = Dialect({"checksum": True})
        check_dialect(dialect, [*lines, (b"# radio up*00", "radio up*00"), *lines], refused)
        self.assertEqual(dialect.notices, [])
        for line, reason in [(b"ID:20_VALUE:456", "no checksum"), (b"ID:20_VALUE:456*00", "wrong checksum")]:
            with self.assertRaises(Malformed) as caught:
                dialect.decode(line)
            self.assertEqual(caught.exception.reason, reason)

    def test_interleaved(self) -> None:
        """
        Two lines that were interleaved have a right checksum at the end at most by chance.
        """
        dialect = Dialect({"checksum": True})
        one, other = b"ID:31_TEMP:21.5*%02X", b"ID:2_SMOKE:1*%02X"
        one, other = (line[:-5] + checksum(line[:-5]) for line in (one, other))
        for place in range(1, len(one)):
            for end in range(1, len(other)):
                with self.assertRaises(Malformed):
                    dialect.decode(one[:place] + other[:end] + one[place:])

    def test_checksum_noticed(self) -> None:
        """
        Lines with a checksum on a device without the setting are noticed once; a value that looks like one is not.
        """
        dialect = Dialect()
        dialect.decode(b"ID:20_VALUE:456*2D")
        self.assertEqual(dialect.notices, [])
        for _ in range(2):
            dialect.decode(b"ID:20_VALUE:456*2C")
        self.assertEqual(dialect.notices, ["lines end in a checksum that is not checked: set `checksum = true`"])

    def test_log(self) -> None:
        """
        Each line is parsed to its meaning, and no line breaks a promise of `IDialect`.
        """
        check_dialect(Dialect(), LOG, [line for line, _ in REFUSED])

    def test_refused(self) -> None:
        """
        A line that is no report is malformed, and the reason says why.
        """
        for line, reason in REFUSED:
            with self.assertRaises(Malformed, msg=repr(line)) as caught:
                Dialect().decode(line)
            self.assertEqual(caught.exception.reason, reason, line)

    def test_damaged(self) -> None:
        """
        A damaged field costs only itself, in whatever order lines come; and no promise of `IDialect`.
        """
        check_dialect(Dialect(), DAMAGED, [line for line, _ in DAMAGED_REFUSED])
        dialect = Dialect()
        for line, expected in [*LOG, *DAMAGED, *reversed(LOG), *reversed(DAMAGED)]:
            self.assertEqual(dialect.decode(line), expected, line)
        for line, reason in DAMAGED_REFUSED:
            with self.assertRaises(Malformed, msg=repr(line)) as caught:
                Dialect().decode(line)
            self.assertEqual(caught.exception.reason, reason, line)

    def test_tags(self) -> None:
        """
        On a device with tags, `TAG` is the tag and no measurement; a damaged one is none.
        """
        dialect = Dialect()
        dialect.tags = True
        self.assertEqual(dialect.decode(b"tag:3f_id:20_value:1"), Report("20", None, "3f", (("VALUE", "1"),)))
        damaged = Report("20", None, None, (("VALUE", "1"),), ("empty value",))
        self.assertEqual(dialect.decode(b"TAG:_ID:20_VALUE:1"), damaged)
        for line in (b"ID:20_TAG:1", b"ID:20_TAG:1_VALUE:"):
            self.assertRaises(Malformed, dialect.decode, line)

    def test_left_out(self) -> None:
        """
        Fields whose keys usbgate uses itself are left out and counted.
        """
        dialect = Dialect()
        dialect.tags = True
        dialect.decode(b"MSG:ON_TAG:1_ID:1_OK:1_ERROR:no_TEXT:none_V:3")
        self.assertEqual(dialect.left_out, 0)
        report = dialect.decode(b"ID:1_ORIGIN:a_AT:b_GW:c_DEV:d_EVENT:e_MAXAGE:1_TIMEOUT:2_V:3")
        self.assertEqual(report, Report("1", None, None, (("V", "3"),)))
        self.assertEqual(dialect.left_out, 7)

    @given(
        st.lists(
            st.lists(
                st.sampled_from(SEGMENTS),
                max_size=4,
            ).map("_".join),
            max_size=12,
        )
    )
    def test_independent_of_earlier_lines(self, lines: list[str]) -> None:
        """
        The meaning of a line does not depend on the lines before it.
        """
        dialect, left_out = Dialect(), 0
        for line in filter(None, lines):
            fresh = Dialect()
            meanings = []
            for each in (dialect, fresh):
                try:
                    meanings.append(each.decode(line.encode()))
                except Malformed as error:
                    meanings.append(str(error))
            left_out += fresh.left_out
            self.assertEqual(meanings[0], meanings[1], line)
            self.assertEqual(dialect.left_out, left_out, line)

    def test_memory(self) -> None:
        """
        However many sensors there are, and however long their lines, memory is bounded, and all lines are decoded.
        """
        limit = 1 << 18
        self.patch(fields, "SHAPES_LIMIT", limit)
        for command in ("J", "J" * 900):
            dialect = Dialect()
            for n in range(2 * limit // (50 + len(command))):
                report = Report(str(n), command, None, (("VALUE", "1"),))
                self.assertEqual(dialect.decode(b"ID:%d_VALUE:1_MSG:%b" % (n, command.encode())), report)
            self.assertLess(len(pickle.dumps(dialect)), limit)  # unbounded it would be over 1.5 times as much

    def test_many_sensors(self) -> None:
        """
        The lines of 10,000 sensors are parsed once, those of more than can be remembered again.
        """
        parsed: list[bytes] = []

        def parse_and_record(line: bytes) -> dict[str, str]:
            parsed.append(line)
            return parse(line)

        self.patch(fields, "parse", parse_and_record)
        dialect = Dialect()
        for count, again in [(10_000, False), (30_000, True)]:
            for value in (b"1", b"2"):
                parsed.clear()
                for n in range(count):
                    dialect.decode(b"ID:%d_VALUE:%b" % (n, value))
            self.assertEqual(bool(parsed), again)

    def test_encode(self) -> None:
        """
        A request is written in its own order, usbgate's tag last.
        """
        request = Request(Question("9", "L"), {}, b"ID:9_MSG:L_LEVEL:50_ORIGIN:x", "x", "x")
        dialect = Dialect()
        self.assertEqual(dialect.encode(request, None), b"ID:9_MSG:L_LEVEL:50_ORIGIN:x\n")
        self.assertEqual(dialect.encode(request, "3f"), b"ID:9_MSG:L_LEVEL:50_ORIGIN:x_TAG:3f\n")

    def test_encode_names(self) -> None:
        """
        An argument whose name is listed is written as listed; every other as lines have it.
        """
        request = parse_request(parse(b"MSG:L_ID:9_TEMP-IN:5_TEMP-OUT:6_ORIGIN:x"), "x", "x", parsed=True)
        written: list[tuple[dict[str, object], bytes]] = [
            ({}, b"MSG:L_ID:9_TEMP-IN:5_TEMP-OUT:6_ORIGIN:x"),
            ({"names": ["Temp_In"]}, b"MSG:L_ID:9_Temp_In:5_TEMP-OUT:6_ORIGIN:x"),
            ({"names": "TEMP_IN TEMP_OUT"}, b"MSG:L_ID:9_TEMP_IN:5_TEMP_OUT:6_ORIGIN:x"),
        ]
        for options, line in written:
            self.assertEqual(Dialect(options).encode(request, None), line + b"\n")
            self.assertEqual(Dialect(options).encode(request, "3f"), line + b"_TAG:3f\n")

    def test_names(self) -> None:
        """
        A name with `_` is read with `-`, in whatever order lines come; the first one is noticed, unless it is listed.
        """
        lines = [
            (b"ID:21_VALUE:3_TEMP_IN:21.5_TEMP_OUT:9", (("VALUE", "3"), ("TEMP-IN", "21.5"), ("TEMP-OUT", "9"))),
            (b"ID:21_TEMP_IN:21.5", (("TEMP-IN", "21.5"),)),
            (b"ID:21_TEMP_IN:22", (("TEMP-IN", "22"),)),
            (b"ID:21_DATE:2026_11_29_TEMP:21", (("DATE", "2026_11_29"), ("TEMP", "21"))),
            (b"ID:21_NOTE:12_30", (("NOTE", "12_30"),)),
            (b"ID:21_PM2.5:4", (("PM2.5", "4"),)),
        ]
        expected = [(line, Report("21", None, None, values)) for line, values in lines]
        notice = 'TEMP_IN is read as one name: set `names = ["TEMP_IN"]` if it is one, or `join = false` if not'
        dialect = Dialect()
        check_dialect(dialect, [*expected, *reversed(expected)], [b"ID:living_temp_VALUE:21"])
        self.assertEqual(dialect.notices, [notice])
        dialect = Dialect({"names": ["TEMP_IN", "TEMP_OUT"], "join": False})
        check_dialect(dialect, [*expected, *reversed(expected)])
        self.assertEqual(dialect.notices, [])
        off = Dialect({"join": False})
        self.assertEqual(off.decode(b"ID:2_V:3_X_Y:1"), Report("2", None, None, (("V", "3_X"), ("Y", "1"))))

    def test_same_names(self) -> None:
        """
        Of two names of one sensor that become the same, the first one counts; the others are refused and noticed once.
        """
        dialect = Dialect({"names": ["T_IN", "A_B-C"]})
        good = [b"ID:1_T_IN:1", b"ID:2_T-IN:1", b"ID:1_A_B-C:1_t_in:1", b"ID:2_X:1_T-IN:4"]
        bad = [b"ID:1_T-IN:1", b"ID:2_V:3_T_IN:1", b"ID:1_A-B-C:1", b"ID:2_T_IN:x"]
        check_dialect(dialect, [], [b"ID:7_T_IN:1_T-IN:2"])
        for _ in range(2):
            for line in good:
                dialect.decode(line)
            for line in bad:
                with self.assertRaises(Malformed) as caught:
                    dialect.decode(line)
                self.assertEqual(caught.exception.reason, "two names that are the same", line)
        self.assertEqual(dialect.notices, ["sensor 1 has T_IN and T-IN, which are the same name: refused"])

    def test_encode_with_checksum(self) -> None:
        """
        With `checksum`, a request ends in one, behind the tag.
        """
        request = Request(Question("20", "J"), {}, b"MSG:J_ID:20_ORIGIN:TOTO", "TOTO", "x")
        dialect = Dialect({"checksum": True})
        for tag, body in [(None, request.line), ("3f", request.line + b"_TAG:3f")]:
            self.assertEqual(dialect.encode(request, tag), body + checksum(body) + b"\n")


# Lines that are two, wherever the first was torn.
TWO_LINES: list[bytes] = [
    b"ID:31_TEMP:2ID:2_SMOKE:1",
    b"ID:31_TEMP:2id:2_SMOKE:1",
    b"ID:31_TEMP:2_iD:2_SMOKE:1",
    b"ID:31ID:2_SMOKE:1",
    b"ID:3ID:31_TEMP:2",
    b"ID:ID:2_SMOKE:1",
    b"ID:31_TEMP:2MSG:J_ID:2_SMOKE:1",
    b"ID:31_TEMP:2Msg:J",
    b"ID:31_MSG:JID:2_SMOKE:1",
    b"ID:31_MSG:JMSG:J_ID:2_SMOKE:1",
    b"ID:31_TEMP:_ID:2_SMOKE:1",
    b"ID:31_NOTE:a_bID:2_SMOKE:1",
    b"ID:31_NOTE:a_12ID:2_SMOKE:1",
    b"ID:31_NOTE:a_12\xffID:2_SMOKE:1",
    b"ID:31_TE\x00ID:2_SMOKE:1",
    b"ID:31_ORIGIN:xID:2_SMOKE:1",
    b"ID:31_TEMP:2 ID:2_SMOKE:1",
    b"ID:31_TEMP:2_ ID:2_SMOKE:1",
    b"ID:31_TEMP:21.5_TAG:3ID:2_TAG:4_SMOKE:1",
    b"ID:31_TEMID:2_SMOKE:1",
    b"ID:31_TEMID:_SMOKE:1",
    b"ID:31_TEMID:2\xff_SMOKE:1",
    b"ID:31_TEMID:2_SMOKE:1_BAT:",
    b"ID:31_id:31_TEMP:2",
]

WHOLE_LINES = [
    b"ID:31_TEMP:21.5_HUM:48",
    b"ID:2_SMOKE:1",
    b"MSG:J_ID:20_VALUE:4",
    b"TAG:3f_ID:21_TEXT:my_text",
    b"ID:28:FF:4C:01_STATE:OK_MSG:ON",
]


class TwoLinesTests(SynchronousTestCase):
    """
    Two lines in one are no line.
    """

    def reason(self, dialect: Dialect, line: bytes) -> str:
        """
        Return the reason why a line is refused.
        """
        try:
            dialect.decode(line)
        except Malformed as error:
            return error.reason
        return ""

    def test_table(self) -> None:
        """
        Each is refused for that reason, also behind whole lines of the same sensors.
        """
        for two in TWO_LINES:
            dialect = Dialect()
            self.assertEqual(self.reason(Dialect(), two), "two lines in one", two)
            for line in (b"ID:31_TEMP:2", b"ID:2_SMOKE:0", b"ID:31_TEMP:21.5_TAG:3_BAT:1", b"ID:31_MSG:J_TEMP:2"):
                self.assertIsInstance(dialect.decode(line), Report)
            self.assertEqual(self.reason(dialect, two), "two lines in one", two)

    def test_any_tear(self) -> None:
        """
        A line torn anywhere, with another behind it, says nothing of its own sensor.
        """
        for first in WHOLE_LINES:
            for second in WHOLE_LINES:
                whole = Dialect().decode(second)
                assert isinstance(whole, Report)
                for place in range(1, len(first)):
                    line = first[:place] + second
                    try:
                        report = Dialect().decode(line)
                    except Malformed:
                        continue
                    assert isinstance(report, Report)
                    self.assertEqual(report.sensor, whole.sensor, line)

    def test_names(self) -> None:
        """
        A key that ends in `ID` counts from the second line on in which this sensor says it, whatever its case.
        """
        dialect = Dialect()
        for sensor in (b"31", b"32"):
            line = b"ID:%b_TEMP:2_HUMID:4" % sensor
            self.assertEqual(self.reason(dialect, line), "two lines in one")
            expected = Report(sensor.decode(), None, None, (("TEMP", "2"), ("HUMID", "4")))
            self.assertEqual(dialect.decode(line), expected)
            self.assertEqual(dialect.decode(line.replace(b"HUMID", b"Humid")), expected)
            self.assertEqual(self.reason(dialect, line + b"_RFID:7"), "two lines in one")
            self.assertEqual(self.reason(dialect, line + b"_HUMID:7"), "key given twice")
            self.assertIsInstance(dialect.decode(b"ID:%b_RFID:7_HUMID:8" % sensor), Report)
            self.assertIsInstance(dialect.decode(b"HUMID:3_ID:%b_RFID:7_X:" % sensor), Report)

    def test_no_report(self) -> None:
        """
        Neither text nor a name that only contains `ID` or ends in `MSG` is taken for two lines; a line without an `ID`
        says so.
        """
        dialect = Dialect()
        self.assertEqual(dialect.decode(b"#ID:1ID:2"), "ID:1ID:2")
        for line in (b"ID:1_IDLE:3", b"ID:1_ID2:3", b"ID:1_XMSG:3", b"ID:1_NOTE:no id", b"ID:1_NOTE:x:MSG_ID_y"):
            self.assertIsInstance(dialect.decode(line), Report, line)
        self.assertEqual(self.reason(dialect, b"TEMID:2_SMOKE:1"), "no ID")

    def test_memory(self) -> None:
        """
        However many such keys there are, memory is bounded.
        """
        dialect = Dialect()
        for n in range(2 * ID_NAMES_LIMIT):
            self.assertRaises(Malformed, dialect.decode, b"ID:1_A%dID:1" % n)
        self.assertLess(len(pickle.dumps(dialect)), 40 * ID_NAMES_LIMIT)  # unbounded it would need twice as much
        self.assertIsInstance(dialect.decode(b"ID:1_A%dID:1" % (2 * ID_NAMES_LIMIT - 1)), Report)
