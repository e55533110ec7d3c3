"""
What clients and usbgate say to each other (protocol §3).
"""

from __future__ import annotations

from itertools import permutations

from twisted.trial.unittest import SynchronousTestCase

from usbgate.core.errors import Malformed, TimedOut
from usbgate.core.fieldline import LINE_LIMIT, parse
from usbgate.core.messages import answer_line, error_line, event_line, parse_request, salvage, with_tag
from usbgate.core.model import (
    Alarm,
    AlarmEvent,
    Answer,
    DeviceEvent,
    Question,
    Report,
    ReportEvent,
    Request,
    StoreEvent,
)
from usbgate.device.dialects.fields import Dialect


def request(line: str) -> Request:
    """
    Make a request of a line, asked from 10.0.0.7.
    """
    return parse_request(parse(line.encode()), "10.0.0.7", "10.0.0.7:4711")


class RequestTests(SynchronousTestCase):
    """
    Fields to requests.
    """

    def test_plain(self) -> None:
        """
        A question, who asks, and nothing else.
        """
        asked = request("MSG:J_ID:20_ORIGIN:TOTO")
        self.assertEqual(asked.question, Question("20", "J", frozenset()))
        self.assertEqual((asked.origin, asked.client), ("TOTO", "10.0.0.7:4711"))
        self.assertEqual((asked.timeout, asked.max_age, asked.device), (None, None, None))
        self.assertEqual(list(asked.fields.items()), [("MSG", "J"), ("ID", "20"), ("ORIGIN", "TOTO")])

    def test_order_and_ours(self) -> None:
        """
        The device is told the fields in the client's order, ORIGIN always, and nothing that is meant for usbgate.
        """
        asked = request("level:50_TAG:t_ID:9_MAXAGE:30_MSG:L_TIMEOUT:2.5_DEV:leonardo_b:1")
        self.assertEqual(
            list(asked.fields.items()),
            [("LEVEL", "50"), ("ID", "9"), ("MSG", "L"), ("B", "1"), ("ORIGIN", "10.0.0.7")],
        )
        self.assertEqual(asked.question.arguments, frozenset([("B", "1"), ("LEVEL", "50")]))
        self.assertEqual((asked.timeout, asked.max_age, asked.device), (2.5, 30.0, "leonardo"))

    def test_same_question(self) -> None:
        """
        Arguments are compared as a set; who asks, and for how long, makes no other question of it.
        """
        one = request("MSG:L_ID:9_A:1_B:2_ORIGIN:x_TIMEOUT:5")
        other = request("B:2_MSG:L_ID:9_TAG:z_A:1_MAXAGE:9")
        self.assertEqual(one.question, other.question)
        self.assertNotEqual(one.question, request("MSG:L_ID:9_A:1_B:3").question)
        self.assertNotEqual(one.question, request("MSG:l_ID:9_A:1_B:2").question)

    def test_refused(self) -> None:
        """
        What is missing, not allowed or out of range is malformed, and said.
        """
        for line, said in [
            ("MSG:J", "no ID"),
            ("ID:20", "no MSG"),
            ("MSG:J_ID:a b", "sensor id"),
            ("MSG:J_ID:a_b", "sensor id"),
            ("MSG:J_ID:" + "x" * 65, "sensor id"),
            ("MSG:J_ID:20_TIMEOUT:0", "TIMEOUT"),
            ("MSG:J_ID:20_TIMEOUT:3601", "TIMEOUT"),
            ("MSG:J_ID:20_TIMEOUT:soon", "TIMEOUT"),
            ("MSG:J_ID:20_MAXAGE:-1", "MAXAGE"),
            *[(f"MSG:J_ID:20_{key}:x", key) for key in ("AT", "GW", "OK", "ERROR", "TEXT", "EVENT")],
        ]:
            with self.assertRaises(Malformed, msg=line) as caught:
                request(line)
            self.assertIn(said, str(caught.exception))

    def test_bounds(self) -> None:
        """
        The limits of the time limit are allowed.
        """
        self.assertEqual(request("MSG:J_ID:20_TIMEOUT:0.1").timeout, 0.1)
        self.assertEqual(request("MSG:J_ID:20_TIMEOUT:3600_MAXAGE:0").timeout, 3600.0)

    def test_other_ways_in(self) -> None:
        """
        A value that came in some other way and would not read back never reaches a device.
        """
        for value in ["50_ID:2", "a\nb", ""]:
            with self.assertRaises(Malformed):
                parse_request({"MSG": "L", "ID": "9", "LEVEL": value}, "web", "web")
            with self.assertRaises(Malformed):
                parse_request({"MSG": "L", "ID": "9"}, value, "web")

    def test_room(self) -> None:
        """
        How long the line for the device is, with ORIGIN added and what is ours left out, is told in bytes.
        """
        self.assertEqual(request("MSG:J_ID:20_ORIGIN:é_TAG:x").line, "MSG:J_ID:20_ORIGIN:é".encode())
        self.assertEqual(request("MSG:J_ID:20_TIMEOUT:3").line, b"MSG:J_ID:20_ORIGIN:10.0.0.7")
        self.assertGreater(len(request("MSG:J_ID:20_A:" + "x" * (LINE_LIMIT - 14)).line), LINE_LIMIT)


class SpellingTests(SynchronousTestCase):
    """
    What usbgate says.
    """

    REPORT = Report("20", None, None, (("VALUE", "456.0"), ("BAT", "OK")))
    AT = 1363035730123

    def test_answer(self) -> None:
        """
        An answer carries the report as the device spelled it, the command, the asker's mark, and the time.
        """
        answer = Answer(self.REPORT, "J", self.AT, "leonardo")
        self.assertEqual(answer_line(answer), "ID:20_VALUE:456.0_BAT:OK_MSG:J_AT:2013-03-11T21:02:10.123Z")
        self.assertEqual(answer_line(answer, "t1"), "ID:20_VALUE:456.0_BAT:OK_MSG:J_TAG:t1_AT:2013-03-11T21:02:10.123Z")

    def test_with_tag(self) -> None:
        """
        A client's `TAG` takes the place of a measurement of that name; without one, the measurement is there.
        """
        for values in ((("VALUE", "1"),), (("VALUE", "1"), ("TAG", "04A3"), ("BAT", "x_")), (("TAG", "04A3"),)):
            answer = Answer(Report("20", None, None, values), "J", self.AT, "leonardo")
            plain = answer_line(answer)
            self.assertEqual(parse(plain.encode()).get("TAG"), dict(values).get("TAG"))
            tagged = answer_line(answer, "t_1")
            self.assertEqual(with_tag(plain.encode(), "t_1"), tagged.encode())
            self.assertEqual(parse(tagged.encode()), {**parse(plain.encode()), "TAG": "t_1"})

    def test_event(self) -> None:
        """
        Watchers hear a reading, with the command it answered or carried.
        """
        smoke = ReportEvent("2", "leonardo", None, self.AT, (("SMOKE", "1"),))
        line = "EVENT:reading_ID:2_SMOKE:1_AT:2013-03-11T21:02:10.123Z"
        self.assertEqual(event_line(smoke), ("2", line))
        self.assertEqual(event_line(smoke._replace(command="J")), ("2", line.replace("_AT:", "_MSG:J_AT:")))
        self.assertEqual(
            event_line(DeviceEvent("leonardo", "offline", self.AT)),
            (None, "EVENT:device_DEV:leonardo_STATE:offline"),
        )
        alarm = Alarm("a1", "leonardo", "2", "SMOKE", "== 1", 1.0, None, self.AT)
        at = "2013-03-11T21:02:10.123Z"
        self.assertEqual(
            event_line(AlarmEvent(alarm._replace(ended=self.AT), "ended", self.AT)),
            (
                "2",
                "EVENT:alarm_CHANGE:ended_ALARM:a1_ID:2_FIELD:SMOKE_VALUE:1_CONDITION:== 1"
                f"_SINCE:{at}_ENDED:{at}_DEV:leonardo_AT:{at}",
            ),
        )
        self.assertIsNone(event_line(StoreEvent("away", 7)))

    def test_error(self) -> None:
        """
        A failure names the code, the request, and why.
        """
        fields = parse(b"ID:20_MSG:J_LEVEL:3_TAG:a_ORIGIN:TOTO")
        self.assertEqual(
            error_line(TimedOut("no answer_in 10 s"), fields),
            "ERROR:timeout_MSG:J_ID:20_ORIGIN:TOTO_TAG:a_TEXT:no answer in 10 s",
        )

    def test_error_of_what_does_not_read_back(self) -> None:
        """
        A failure repeats of the request only what reads back.
        """
        fields = {"MSG": "J", "ID": "20_A:1", "TAG": "a\nb", "ORIGIN": "x"}
        self.assertEqual(error_line(TimedOut("late"), fields), "ERROR:timeout_MSG:J_ORIGIN:x_TEXT:late")

    def test_never_like_an_error(self) -> None:
        """
        An answer begins with its ID, and an event with EVENT, whatever the device's fields are and their order: so a
        line that begins with ERROR or OK is never a device's.
        """
        for values in permutations([("ERROR", "7"), ("OK", "1"), ("TEXT", "x"), ("EVENT", "reading")]):
            answer = Answer(Report("20", "J", None, values), "J", self.AT, "leonardo")
            for line in (answer_line(answer), answer_line(answer, "t")):
                self.assertEqual(list(parse(line.encode()))[:2], ["ID", values[0][0]], line)
        report = Dialect().decode(b"ERROR:7_OK:1_ID:20_MSG:J")
        assert isinstance(report, Report)
        line = answer_line(Answer(report, "J", self.AT, "leonardo"))
        self.assertTrue(line.startswith("ID:20_ERROR:7_OK:1_MSG:J_AT:"), line)

    def test_dialects_values(self) -> None:
        """
        A report whose values would not read back is told to nobody: a dialect can be anybody's.
        """
        for value in ["1_ID:2", "a\nb", ""]:
            report = Report("20", None, None, (("VALUE", value),))
            with self.assertRaises(Malformed):
                answer_line(Answer(report, "J", self.AT, "leonardo"))
            with self.assertRaises(Malformed):
                event_line(ReportEvent(report.sensor, "leonardo", None, self.AT, report.values))

    def test_salvage(self) -> None:
        """
        Of a malformed line, what can be read of the request is told.
        """
        self.assertEqual(salvage(b"msg:J_ID:20_NOTE:12_30:45_TAG:z"), {"MSG": "J", "ID": "20", "TAG": "z"})
        self.assertEqual(salvage(b"MSG:J_ID:\xff_ORIGIN:"), {"MSG": "J"})
        self.assertEqual(salvage(b"MSG:J_MSG:K_hello"), {"MSG": "J"})
        self.assertEqual(salvage(b"\x00\x01"), {})
        # Upper case makes `ID` of this, and it is no key: the real one is what can be read.
        self.assertEqual(salvage("MSG:J_ıd:5_ID:20".encode()), {"MSG": "J", "ID": "20"})
