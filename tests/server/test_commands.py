"""
The words of the line protocol (protocol §3): what each asks of the gateway, and its reply.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from twisted.internet.address import IPv4Address
from twisted.internet.protocol import connectionDone
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.support.access import OPEN, authority
from tests.support.memory_gateway import AT_TEXT, MemoryGateway, PeerTransport
from usbgate.core.calibration import Implausible
from usbgate.core.counts import LinkCounts
from usbgate.core.errors import Busy, Failed, Offline, TimedOut
from usbgate.core.fieldline import LINE_LIMIT, parse
from usbgate.core.model import Action, Alarm, DeviceWarning, RequestRecord, StoredAlarm, StoredReading, StoredRequest
from usbgate.core.replacements import Offer
from usbgate.core.settings import FieldSettings, SensorSettings
from usbgate.core.status import JournalStatus, StoreStatus
from usbgate.core.uncompared import Uncompared
from usbgate.gateway.interfaces import DeviceSummary, HeldRequest, Lease, MalformedLine, RuleSummary, SensorSummary
from usbgate.server.commands import WORDS
from usbgate.server.factory import ClientFactory
from usbgate.server.queries import HISTORY_PAGE
from usbgate.testing import AT, reading, request


class WordCase(SynchronousTestCase):
    """
    One client that sends words.
    """

    def setUp(self) -> None:
        """
        Connect the client.
        """
        self.clock = Clock()
        self.gateway = MemoryGateway()
        self.factory = ClientFactory(self.clock, self.gateway, authority(self.clock), wall=lambda: AT, door=OPEN)
        self.client = self.factory.buildProtocol(IPv4Address("TCP", "10.0.0.7", 4711))
        self.transport = PeerTransport(self.clock)
        self.transport.protocol = self.client
        self.client.makeConnection(self.transport)

    def send(self, line: str) -> list[str]:
        """
        Send a line and let the reactor turn; return the lines received since the last time.
        """
        self.client.dataReceived(line.encode() + b"\n")
        return self.received()

    def received(self) -> list[str]:
        """
        Let the reactor turn; return the lines received since the last time.
        """
        self.clock.pump([0.0] * 20)
        lines: list[str] = self.transport.value().decode().split("\n")
        self.transport.clear()
        self.assertEqual(lines.pop(), "")
        return lines


class AskTests(WordCase):
    """
    `ask`.
    """

    def test_answer(self) -> None:
        """
        The reply is the answer, then the closing line.
        """
        self.assertEqual(self.send("ask 20"), [])
        self.gateway.answer(0)
        self.assertEqual(self.received(), [f"ID:20_VALUE:456_MSG:J_AT:{AT_TEXT}", "OK:ask"])
        (request,) = self.gateway.requested
        self.assertEqual(dict(request.fields), {"MSG": "J", "ID": "20", "ORIGIN": "10.0.0.7"})
        self.assertEqual((request.client, request.timeout, request.max_age), ("10.0.0.7:4711", None, None))

    def test_default_command(self) -> None:
        """
        Without a command, the sensor's default command is asked.
        """
        self.send("ask 2 timeout=3")
        self.send("ask 2")  # waits for the first
        self.assertEqual([request.question.command for request in self.gateway.requested], ["S"])

    def test_everything(self) -> None:
        """
        Options have the meaning that they have in a request line; the others are arguments, in their order.
        """
        self.send("ask 9 L level=50 timeout=2.5 max_age=30 origin=TOTO dev=uno tag=t1 mode=a_b")
        (request,) = self.gateway.requested
        self.assertEqual(
            list(request.fields.items()),
            [("MSG", "L"), ("ID", "9"), ("LEVEL", "50"), ("ORIGIN", "TOTO"), ("MODE", "a_b")],
        )
        self.assertEqual((request.timeout, request.max_age, request.device), (2.5, 30.0, "uno"))
        self.gateway.answer(0)
        self.assertEqual(self.received(), [f"ID:9_VALUE:456_MSG:L_TAG:t1_AT:{AT_TEXT}", "OK:ask_TAG:t1"])
        self.send("ask 9 L maxage=3")
        self.assertEqual(self.gateway.requested[1].max_age, 3.0)

    def test_failure(self) -> None:
        """
        An error is the closing line, with the fields of the request.
        """
        self.send("ask 20 J tag=x")
        self.gateway.fail(0, TimedOut())
        self.assertEqual(
            self.received(),
            ["ERROR:timeout_MSG:J_ID:20_TAG:x_TEXT:The request was sent, and no answer came within its time limit"],
        )

    def test_refused(self) -> None:
        """
        Arguments that are not a request are malformed: the error has the fields that could be read, and nothing is
        asked.
        """
        for line, fields in [
            ("ask", ""),
            ("ask 20 J K", "_MSG:J_ID:20"),
            ("ask 20 J K tag=x", "_MSG:J_ID:20_TAG:x"),
            ("ask 20 J a_b=1 tag=x", "_MSG:J_ID:20_TAG:x"),
            ("ask 20 J ß=1 tag=x", "_MSG:J_ID:20_TAG:x"),
            ("ask 20 J \u212a=1", "_MSG:J_ID:20"),  # KELVIN SIGN, an ASCII `k` in lower case
            ("ask 20 J level=1 LEVEL=2", "_MSG:J_ID:20"),
            ("ask 20 J id=3", "_MSG:J_ID:20"),
            ("ask 20 J x= tag=x origin=TOTO", "_MSG:J_ID:20_ORIGIN:TOTO_TAG:x"),
            ("ask 20 J tag=", "_MSG:J_ID:20"),
            ("ask 20 J tag=x timeout=0", "_MSG:J_ID:20_TAG:x"),
            ("ask 20 J tag=x note=x_y:z", "_MSG:J_ID:20_TAG:x"),
            ("ask 20 J tag=x_y:z", "_MSG:J_ID:20"),
            ("ask a_b", "_MSG:J_ID:a_b"),
            ("ask a_b:c tag=x", "_MSG:J_TAG:x"),
            ("ask 20 J text=x", "_MSG:J_ID:20"),
            ("ask 20 level=5 L", "_MSG:J_ID:20"),
        ]:
            (answer,) = self.send(line)
            self.assertTrue(answer.startswith(f"ERROR:malformed{fields}_TEXT:"), (line, answer))
            parse(answer.encode())
        self.assertEqual(self.gateway.asked, [])
        self.assertIn("usage: ask ID [COMMAND]", self.send("ask")[0])

    def test_bug(self) -> None:
        """
        An exception is logged once and sent as `failed`, without its traceback; the next word is answered.
        """
        self.gateway.broken = ZeroDivisionError("secret")
        self.assertEqual(
            self.send("ask 20") + self.send("ping"),
            ["ERROR:failed_TEXT:Internal error; see the log", "OK:ping"],
        )
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_bug_in_a_word_before_others(self) -> None:
        """
        The words behind one that failed are answered, and then a half-closed connection is closed.
        """
        self.gateway.broken = ZeroDivisionError("secret")
        self.client.dataReceived(b"last\nping\nlast\nping\n")
        self.client.readConnectionLost()
        failed = "ERROR:failed_TEXT:Internal error; see the log"
        self.assertEqual(self.received(), [failed, "OK:ping"] * 2)
        self.assertFalse(self.transport.connected)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 2)


class ReadingTests(WordCase):
    """
    `last` and `history`.
    """

    def test_last(self) -> None:
        """
        Numbers are as short as possible, texts are unchanged, and digits that a double does not hold are kept.
        """
        self.gateway.readings = [
            reading(456.0),
            reading(21.5, field="TEMP", command="J"),
            reading(-0.0, field="ZERO"),
            reading("OK", sensor="7", field="BAT"),
            reading(12345678901234567890.0, sensor="8", field="CARD", text="12345678901234567890"),
            reading("a_b:c\nd", sensor="9", field="NOTE"),
        ]
        self.assertEqual(
            self.send("LAST"),
            [
                f"ID:20_VALUE:456_AT:{AT_TEXT}_DEV:leonardo",
                f"ID:20_TEMP:21.5_MSG:J_AT:{AT_TEXT}_DEV:leonardo",
                f"ID:20_ZERO:-0_AT:{AT_TEXT}_DEV:leonardo",
                f"ID:7_BAT:OK_AT:{AT_TEXT}_DEV:leonardo",
                f"ID:8_CARD:12345678901234567890_AT:{AT_TEXT}_DEV:leonardo",
                f"ID:9_NOTE:a b:c d_AT:{AT_TEXT}_DEV:leonardo",
                "OK:last",
            ],
        )
        self.send("last 20")
        self.send("last 20 temp")
        self.send("last raw=yes")
        self.send("last 20 RAW=no temp")
        calls = [(None, None), ("20", None), ("20", "TEMP"), (None, None, "raw"), ("20", "TEMP")]
        self.assertEqual(self.gateway.last_calls, calls)

    def test_history(self) -> None:
        """
        The query reaches the store, and its readings are sent in order; later words wait for it.
        """
        self.assertEqual(self.send("history 20") + self.send("ping"), [])
        assert self.gateway.historic is not None
        self.gateway.historic.callback([reading(1.0), reading(2.0)])
        received = self.received()
        self.assertEqual([line.split("_")[1] for line in received[:2]], ["VALUE:1", "VALUE:2"])
        self.assertEqual(received[2:], ["OK:history", "OK:ping"])
        self.assertEqual(self.gateway.history_calls, [("20", None, None, 100)])

    def test_since_and_limit(self) -> None:
        """
        `since` is a duration before now or a time; `limit` is a number of readings.
        """
        for line, field, since, limit in [
            ("history 20 temp since=1h", "TEMP", AT - 3_600_000, 100),
            ("history 20 since=30m limit=5", None, AT - 1_800_000, 5),
            ("history 20 since=90s", None, AT - 90_000, 100),
            ("history 20 since=1.5s", None, AT - 1_500, 100),
            ("history 20 since=2d limit=500", None, AT - 172_800_000, 500),
            ("history 20 since=9999999d", None, 0, 100),
            ("history 20 since=" + "9" * 400 + "d", None, 0, 100),
            ("history 20 since=2013-03-11T21:02:10.123Z", None, AT, 100),
            ("history 20 since=2013-03-11T22:02:10.123+01:00", None, AT, 100),
            ("history 20 since=2013-03-11", None, 1362960000000, 100),
            ("history 20 since=1900-01-01", None, 0, 100),
        ]:
            self.send(line)
            self.assertEqual(self.gateway.history_calls[-1], ("20", field, since, limit), line)
            assert self.gateway.historic is not None
            self.gateway.historic.callback([])
            self.assertEqual(self.received(), ["OK:history"])
        self.send("history 20 temp raw=yes limit=5")
        self.assertEqual(self.gateway.history_calls[-1], ("20", "TEMP", None, 5, "raw"))

    def test_history_refused(self) -> None:
        """
        Arguments that are not a query are malformed; a store that can't be reached is an error.
        """
        for line in [
            "history",
            "history 20 TEMP HUM",
            "history 20 since=soon",
            "history 20 limit=0",
            "history a_b",
            "history 20 limit=10001",
            "history 20 limit=x",
            "history 20 until=1h",
            "history 20 a_b",
            "last 1 2 3",
            "last raw=1",
            "last raw=yes raw=yes",
            "history raw=yes",
            "watch raw=",
            "last 1 a_b",
            "history 20 since=1H limit=" + "1" * 500,
        ]:
            (answer,) = self.send(line)
            self.assertTrue(answer.startswith("ERROR:malformed_TEXT:"), (line, answer))
        self.assertEqual(self.gateway.history_calls, [])
        self.send("history 20")
        assert self.gateway.historic is not None
        self.gateway.historic.errback(Failed("the database cannot be reached"))
        self.assertEqual(self.received(), ["ERROR:failed_TEXT:the database cannot be reached"])

    def ask_long_history(self) -> list[str]:
        """
        Ask for most of 10,000 stored readings, beside 20,000 others; return the lines that come until nothing is read.
        """
        self.gateway.stored = [StoredReading(n, reading(float(n))) for n in range(10_000)]
        self.gateway.stored += [StoredReading(n, reading(float(n), sensor="21")) for n in range(10_000, 30_000)]
        self.transport.stuck = True
        lines = self.send("history 20 limit=9700")
        self.clock.pump([0.0] * 1000)
        return lines

    def test_long_history(self) -> None:
        """
        A long history is fetched and sent as the client reads; no more of it waits for one that does not.
        """
        lines = self.ask_long_history()
        self.assertLess(self.client.unsent, 64 * 1024 + 50 * HISTORY_PAGE * 2)
        self.assertLess(len(self.gateway.pages), 5)
        self.assertEqual(self.gateway.pages_kept, 0)
        self.transport.stuck = False
        self.transport.take()
        self.clock.pump([0.0] * 1000)
        *lines, last_line = lines + self.received()
        self.assertEqual([line.split("_")[1] for line in lines], [f"VALUE:{n}" for n in range(300, 10_000)])
        self.assertEqual(last_line, "OK:history")

    def test_long_sensors(self) -> None:
        """
        A list of sensors is made as the client reads.
        """
        made: list[str] = []

        def sensors() -> Iterator[SensorSummary]:
            for n in range(10_000):
                made.append(str(n))
                yield SensorSummary(str(n), "leonardo", ["VALUE"], AT, 1)

        self.patch(self.gateway, "sensors", sensors)
        self.transport.stuck = True
        lines = self.send("sensors")
        self.clock.pump([0.0] * 1000)
        self.assertLess(len(made), 2_000)
        self.assertLess(self.client.unsent, 80 * 1024)
        self.transport.stuck = False
        self.transport.take()
        self.clock.pump([0.0] * 1000)
        self.assertEqual([parse(line.encode())["ID"] for line in (lines + self.received())[:-1]], made)
        self.assertEqual(len(made), 10_000)

    def test_hang_up(self) -> None:
        """
        A long reply ends when the client disconnects.
        """
        self.ask_long_history()
        console = self.client.console
        self.transport.abortConnection()
        self.assertFalse(console.is_active)
        self.clock.advance(0)
        self.assertEqual(self.clock.getDelayedCalls(), [])


class OtherTests(WordCase):
    """
    The other words.
    """

    def test_sensors(self) -> None:
        """
        Each known sensor is one line, without the fields that are not known.
        """
        self.gateway.known_sensors = [
            SensorSummary("20", "leonardo", ["HUM", "TEMP"], AT, 3),
            SensorSummary("9", "uno", [], AT, 0),
        ]
        self.assertEqual(
            self.send("sensors"),
            [
                f"ID:20_DEV:leonardo_FIELDS:HUM,TEMP_SEEN:{AT_TEXT}_REPORTS:3",
                f"ID:9_DEV:uno_SEEN:{AT_TEXT}_REPORTS:0",
                "OK:sensors",
            ],
        )

    def test_devices(self) -> None:
        """
        Each device is one line; a path that would not read back is changed to plain text.
        """
        counts = LinkCounts(lines_in=5, lines_out=4, fields_left_out=1)
        warnings = [DeviceWarning("port shared", "cat", "stop cat"), DeviceWarning("name not unique", "x", "say x")]
        self.gateway.known_devices = [
            DeviceSummary(
                "uno",
                "/dev/serial/by-id/usb-1_x:1",
                "online",
                AT,
                counts,
            ),
            DeviceSummary("b", "/dev/\ud800", "offline", AT),
            DeviceSummary("c", "usb:2341:8036:85_3:2", "offline", AT, warnings=warnings),
        ]
        received = self.send("devices")
        self.assertEqual(
            received[0],
            f"DEV:uno_PATH:/dev/serial/by-id/usb-1 x:1_STATE:online_SINCE:{AT_TEXT}"
            + "".join(f"_{count.key}:{count.value}" for count in counts),
        )
        self.assertEqual(parse(received[1].encode())["STATE"], "offline")
        self.assertEqual(
            received[2:],
            [
                f"DEV:c_PATH:usb:2341:8036:85 3:2_STATE:offline_SINCE:{AT_TEXT}"
                + "".join(f"_{count.key}:0" for count in counts)
                + "_TEXT:stop cat; say x",
                "OK:devices",
            ],
        )

    def test_status(self) -> None:
        """
        The gateway's status, then the counts of the connections.
        """
        self.gateway.current_status = replace(
            self.gateway.current_status,
            sensors=3,
            in_flight=1,
            store=StoreStatus("away", "pi", 12, 1, AT, "no_route"),
            journal=JournalStatus("disk_full", 5, 0.01234, 512, 1024, 3),
            unsure={"uno": ["5", "6"]},
            uncompared=[Uncompared("uno", "5", "TEMP", "> 60", 25, "n_a")],
            implausible=[Implausible("uno", "5", "TEMP", 3, "85")],
            held=2,
        )
        self.send("watch")
        self.client.dataReceived(b"MSG:J_ID:20\n")
        self.received()
        self.assertEqual(
            self.send("status"),
            [
                "VERSION:1.2_UPTIME:7_CLOCK:trusted_SENSORS:3_INFLIGHT:1_HELD:2",
                f"STORE:away_GW:pi_BACKLOG:12_REJECTED:1_OLDEST:{AT_TEXT}_TEXT:no route",
                "JOURNAL:trouble_COMMITS:5_SLOWEST:0.0123_WRITTEN:512_DAILY:1024_LOST:3_TEXT:disk full",
                "REQUESTS:3_OUTCOME:answered",
                "REQUESTS:1_OUTCOME:timeout",
                "MALFORMED:2_REASON:no key",
                "DEV:uno_UNSURE:2_SENSORS:5,6"
                "_TEXT:they answer with neither MSG nor TAG: an unsolicited reading can pass for an answer",
                "DEV:uno_ID:5_FIELD:TEMP_UNCOMPARED:25_TEXT:the last one is n a, and the alarm condition > 60",
                "DEV:uno_ID:5_FIELD:TEMP_IMPLAUSIBLE:3"
                "_TEXT:not within min and max of the field; the last one was sent as 85",
                "CLIENTS:1_WATCHERS:1_WAITING:1_ACCEPTED:1_LIMITED:0_DENIED:0",
                "OK:status",
            ],
        )

    def test_status_without_store(self) -> None:
        """
        Where nothing is stored there is no journal; of many unsure sensors each is named, 50 a line.
        """
        names = [f"sensor-{n}" for n in range(120)]
        self.gateway.current_status = replace(
            self.gateway.current_status, store=StoreStatus(), journal=None, unsure={"uno": names}
        )
        lines = [parse(line.encode()) for line in self.send("status")]
        self.assertEqual(lines[1], {"STORE": "none"})
        self.assertFalse([line for line in lines if "JOURNAL" in line])
        unsure = [line for line in lines if "UNSURE" in line]
        self.assertEqual([line["UNSURE"] for line in unsure], ["50", "50", "20"])
        self.assertEqual(",".join(line["SENSORS"] for line in unsure).split(","), names)

    def test_configured_sensors(self) -> None:
        """
        The configured sensors come first, those that have sent nothing yet included, with places and units, which
        dialects may know as well.
        """
        fields = {"TEMP": FieldSettings(unit="°C"), "HUM": FieldSettings(unit="%"), "BAT": FieldSettings()}
        self.gateway.presented = {
            "31": SensorSettings(name="door_1", device="uno"),
            "20": SensorSettings(place="hall", fields=fields),
            "5": SensorSettings(poll=300.0),
        }
        self.gateway.known_sensors = [
            SensorSummary("9", "uno", [], AT, 1),
            SensorSummary("20", "leonardo", ["TEMP"], AT, 3),
            SensorSummary("7", "leonardo", ["BASE", "PAPP"], AT, 3),
        ]
        self.gateway.readings = [
            *(reading(1.0, sensor="20", field=field) for field in ("TEMP", "PAPP")),
            *(reading(1.0, sensor="7", field=field) for field in ("BASE", "PAPP")),
            *(reading(1.0, sensor=sensor, device="uno", field="PAPP") for sensor in "79"),
        ]
        self.gateway.known_fields = {each: FieldSettings(unit="VA") for each in ("TEMP", "PAPP")}
        self.assertEqual(
            self.send("sensors"),
            [
                "ID:31_DEV:uno_REPORTS:0_NAME:door_1",
                f"ID:20_DEV:leonardo_FIELDS:TEMP_SEEN:{AT_TEXT}_REPORTS:3_PLACE:hall_UNITS:TEMP=°C,HUM=%,PAPP=VA",
                "ID:5_REPORTS:0_POLL:300",
                f"ID:9_DEV:uno_SEEN:{AT_TEXT}_REPORTS:1",
                f"ID:7_DEV:leonardo_FIELDS:BASE,PAPP_SEEN:{AT_TEXT}_REPORTS:3_UNITS:PAPP=VA",
                "OK:sensors",
            ],
        )

    def test_malformed(self) -> None:
        """
        Malformed lines are sent in a form that reads back; the word has an older name, too.
        """
        self.gateway.kept_malformed = [MalformedLine(AT, "uno", "no key", b"x_y:\xff")]
        for word in ("malformed", "NOISE"):
            self.assertEqual(self.send(word), [f"AT:{AT_TEXT}_FROM:uno_REASON:no key_TEXT:x y:\\xff", "OK:malformed"])

    def test_help(self) -> None:
        """
        Every word has a help; all its lines are field lines, and not too long.
        """
        *lines, last_line = self.send("help")
        self.assertEqual(last_line, "OK:help")
        self.assertEqual([parse(line.encode())["USAGE"].split()[0] for line in lines], list(WORDS))
        for word in WORDS:
            usage, text, *_, last_line = self.send(f"help {word.upper()}")
            self.assertEqual(parse(usage.encode())["USAGE"].split()[0], word)
            self.assertTrue(parse(text.encode())["TEXT"].endswith("."))
            self.assertEqual(last_line, "OK:help")
        self.assertIn("[max_age=S]", self.send("help ask")[0])

    def test_unknown(self) -> None:
        """
        An unknown word is an error that mentions `help`, whatever it consists of.
        """
        for line in ["hello", "help hello", "HÉLLO wörld", "x" * LINE_LIMIT, "\x1b[A", "a_b:c", " MSG:J_ID:20", "1:2"]:
            (answer,) = self.send(line)
            self.assertTrue(answer.startswith("ERROR:unknown_TEXT:"), answer)
            self.assertIn("help", answer)
            parse(answer.encode())

    def test_wrong_arguments(self) -> None:
        """
        Where a word takes no arguments, an argument is an error that names the usage, in one line.
        """
        words = [word.name for word in WORDS.values() if not word.takes_arguments]
        self.assertIn("ping", words)
        for word in words:
            self.assertEqual(self.send(f"{word} now"), [f"ERROR:malformed_TEXT:wrong arguments: usage: {word}"])
        for line in ["help a b", "watch a_b"]:
            (answer,) = self.send(line)
            self.assertTrue(answer.startswith("ERROR:malformed_TEXT:"), answer)
        self.assertFalse(self.transport.closing)

    def test_quit(self) -> None:
        """
        The connection is closed after `OK:quit`, and lines behind it are discarded.
        """
        self.send("ping")
        self.client.dataReceived(b"quit\nping\nMSG:J_ID:20\n")
        self.client.dataReceived(b"ping\n")
        self.assertEqual(self.received(), ["OK:quit"])
        self.assertFalse(self.transport.connected)
        self.assertEqual(self.gateway.asked, [])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_offline_is_no_end(self) -> None:
        """
        After a word that failed, the next one is answered.
        """
        self.send("ask 20\nping")
        self.gateway.fail(0, Offline("no device"))
        self.assertEqual(self.received(), ["ERROR:offline_MSG:J_ID:20_TEXT:no device", "OK:ping"])


class AlarmTests(WordCase):
    """
    `alarms`, `acknowledge` and `requests`.
    """

    OPEN = Alarm("a1", "leonardo", "2", "SMOKE", "== 1", 1.0, None, AT)
    LINE = f"ALARM:a1_ID:2_FIELD:SMOKE_VALUE:1_CONDITION:== 1_SINCE:{AT_TEXT}_DEV:leonardo"

    def test_open(self) -> None:
        """
        Open alarms come from memory, newest last, those of one sensor if it is named.
        """
        bat = Alarm("a2", "uno", "7", "BAT", "== x_y:z", None, "x_y:z", AT, AT, AT, "Zoé")
        self.gateway.raised = [bat, self.OPEN]
        line = (
            f"ALARM:a2_ID:7_FIELD:BAT_VALUE:x y:z_CONDITION:== x y:z_SINCE:{AT_TEXT}_ENDED:{AT_TEXT}"
            f"_ACKNOWLEDGED:{AT_TEXT}_BY:Zoé_DEV:uno"
        )
        self.assertEqual(self.send("alarms"), [self.LINE, line, "OK:alarms"])
        self.assertEqual(self.send("alarms 2"), [self.LINE, "OK:alarms"])
        self.assertEqual(self.gateway.alarm_calls, [])

    def test_stored(self) -> None:
        """
        With an option, alarms come from the store, newest last, each with its peak.
        """
        hot = StoredAlarm(Alarm("a2", "uno", "7", "TEMP", "> 60", 61.0, None, AT, AT), 75.5, ((AT, AT),))
        self.gateway.stored_alarms = [hot, StoredAlarm(self.OPEN, None, ())]
        smoke, temp, _ = self.send("alarms since=1h")
        self.assertEqual(smoke, self.LINE)
        self.assertTrue(temp.endswith("_PEAK:75.5"), temp)
        self.send("alarms 7 limit=5")
        self.assertEqual(self.gateway.alarm_calls, [(None, AT - 3_600_000, None, 100), ("7", None, None, 5)])

    def test_acknowledge(self) -> None:
        """
        The name of who has seen it may have blanks, and is by default the client's address; the reply is the alarm.
        """
        self.gateway.raised = [self.OPEN]
        (line, last) = self.send("acknowledge a1 Zoé  Martin")
        self.assertEqual((parse(line.encode())["BY"], last), ("Zoé Martin", "OK:acknowledge"))
        self.send("acknowledge a1")
        self.assertEqual(self.gateway.acknowledged, [("a1", "Zoé Martin"), ("a1", "10.0.0.7")])
        self.assertEqual(self.send("acknowledge a9"), ["ERROR:unknown_TEXT:no such alarm: a9"])

    def test_rules(self) -> None:
        """
        Rules are listed with what is known of them; their conditions in a form that reads back.
        """
        self.gateway.known_rules = [
            RuleSummary("smoke", "sensor 2 A_B:C == 1", True, AT, 3, 1),
            RuleSummary("2", "day mon", False, None, 0, 0, 7, "no_route: x"),
            RuleSummary("x", "time 1:00-2:00", None, None, 0, 0),
        ]
        self.assertEqual(
            self.send("rules"),
            [
                f"RULE:smoke_STATE:true_LAST:{AT_TEXT}_FIRED:3_WAITING:1_TEXT:sensor 2 A B:C == 1",
                "RULE:2_STATE:false_FIRED:0_WAITING:0_DROPPED:7_TROUBLE:no route: x_TEXT:day mon",
                "RULE:x_STATE:unknown_FIRED:0_WAITING:0_TEXT:time 1:00-2:00",
                "OK:rules",
            ],
        )

    def test_replace(self) -> None:
        """
        A sensor is replaced, which is recorded, and listed, as is what may be; it is taken back.
        """
        made = f"ID:20_SUCCESSOR:31_STATE:replaced_SINCE:2013-03-11T21:02:09.123Z_AT:{AT_TEXT}_BY:10.0.0.7_DEV:leonardo"
        self.assertEqual(self.send("replace 20 31"), [made, "OK:replace"])
        (action,) = self.gateway.actions
        self.assertEqual((action.command, action.device), ("replace", "leonardo"))
        self.assertEqual(action.details, {"ID": "20", "SUCCESSOR": "31"})
        self.gateway.offered = [Offer("21", "33", "leonardo", AT - 1000, AT)]
        offer = f"ID:21_SUCCESSOR:33_STATE:offered_SINCE:2013-03-11T21:02:09.123Z_AT:{AT_TEXT}_DEV:leonardo"
        self.assertEqual(self.send("replacements"), [made, offer, "OK:replacements"])
        undone = made.replace("replaced", "undone")
        self.assertEqual(self.send("replace 20 undo=yes"), [undone, "OK:replace"])
        self.assertEqual(self.gateway.actions[-1].command, "replace undo")
        self.assertTrue(self.send("replace 20 undo=yes")[0].startswith("ERROR:unknown_"))
        for line in ("replace", "replace 20", "replace 20 31 undo=yes", "replace 20 a_b", "replace 1 2 3"):
            self.assertTrue(self.send(line)[0].startswith("ERROR:malformed_"), line)
        self.assertEqual(len(self.gateway.replacings), 3)

    def test_requests(self) -> None:
        """
        Requests come from the store, newest last; arguments are in a form that reads back.
        """
        first = RequestRecord(AT, "TOTO", "10.0.0.7:1", "uno", "9", "L", "LEVEL:50_X:1", "answered", 12.34, True)
        last = first._replace(device=None, arguments=None, outcome="unknown")
        self.gateway.stored_requests = [StoredRequest(2, last), StoredRequest(1, first)]
        action = first._replace(sensor=None, command="lend", arguments=None, outcome="done", latency_ms=0.0)
        self.gateway.stored_requests.append(StoredRequest(0, action))
        self.assertEqual(
            self.send("requests"),
            [
                f"AT:{AT_TEXT}_MSG:lend_ORIGIN:TOTO_CLIENT:10.0.0.7:1_DEV:uno_OUTCOME:done_TOOK:0.0000",
                f"AT:{AT_TEXT}_MSG:L_ID:9_ARGUMENTS:LEVEL:50 X:1_ORIGIN:TOTO_CLIENT:10.0.0.7:1_DEV:uno"
                "_OUTCOME:answered_TOOK:0.0123",
                f"AT:{AT_TEXT}_MSG:L_ID:9_ORIGIN:TOTO_CLIENT:10.0.0.7:1_OUTCOME:unknown_TOOK:0.0123",
                "OK:requests",
            ],
        )
        self.send("requests 9 limit=7")
        self.assertEqual(self.gateway.request_calls, [(None, 100), ("9", 7)])

    def test_refused(self) -> None:
        """
        Arguments that are not understood are malformed, and nothing is queried.
        """
        for line in [
            *("alarms a_b", "alarms 2 3", "alarms since=soon", "alarms limit=1001", "alarms until=1h", "acknowledge"),
            *("requests a_b", "requests 2 3", "requests since=1h", "requests limit=1001"),
        ]:
            (answer,) = self.send(line)
            self.assertTrue(answer.startswith("ERROR:malformed_TEXT:"), (line, answer))
        self.assertEqual((self.gateway.alarm_calls, self.gateway.request_calls), ([], []))


class HeldTests(WordCase):
    """
    `ask … when=heard`, `held` and `cancel`.
    """

    def setUp(self) -> None:
        """
        Hold two questions.
        """
        super().setUp()
        questions = [request("9", "SET", LEVEL="5", MODE="a b"), request("20")]
        self.gateway.held_requests = [
            HeldRequest(n, each, "leonardo", AT, AT + 60_000) for n, each in enumerate(questions, 7)
        ]
        until = AT_TEXT.replace("02:10", "03:10")
        self.lines = [
            f"HELD:{held}_ORIGIN:TOTO_CLIENT:test_DEV:leonardo"
            for held in (
                f"7_AT:{AT_TEXT}_UNTIL:{until}_MSG:SET_ID:9_ARGUMENTS:LEVEL:5 MODE:a b",
                f"8_AT:{AT_TEXT}_UNTIL:{until}_MSG:J_ID:20",
            )
        ]

    def test_ask(self) -> None:
        """
        The gateway is asked to hold the question, also by a request line, whose echo has all that was sent.
        """
        self.send("ask 20 when=heard timeout=604800")
        echo = "MSG:J_ID:20_WHEN:heard_ORIGIN:TOTO"
        self.assertEqual(self.send(echo), [echo])
        asked = [(each.when_heard, each.timeout, each.line) for each in self.gateway.requested]
        self.assertEqual(asked[0], (True, 604800.0, b"MSG:J_ID:20_ORIGIN:10.0.0.7"))
        self.assertEqual(asked[1], (True, None, b"MSG:J_ID:20_ORIGIN:TOTO"))

    def test_refused(self) -> None:
        """
        It is `heard` or nothing, and has a time limit of its own.
        """
        for options in ("when=soon", "when=HEARD", "when=heard timeout=604801", "timeout=3601"):
            (answer,) = self.send(f"ask 20 J {options}")
            self.assertTrue(answer.startswith("ERROR:malformed_MSG:J_ID:20_TEXT:value out of range"), answer)
        self.assertEqual(self.gateway.asked, [])

    def test_held(self) -> None:
        """
        A line each, oldest first.
        """
        self.assertEqual(self.send("held"), [*self.lines, "OK:held"])

    def test_cancel(self) -> None:
        """
        What is cancelled is sent, and who did it is recorded; there is an error for all else.
        """
        self.assertEqual(self.send("cancel 8"), [self.lines[1], "OK:cancel"])
        self.assertEqual(self.send("held"), [self.lines[0], "OK:held"])
        details = {"HELD": "8", "ID": "20", "MSG": "J"}
        self.assertEqual(self.gateway.actions, [Action("cancel", "10.0.0.7:4711", "10.0.0.7", details, "leonardo")])
        for number in ("8", "x", "07"):
            (answer,) = self.send(f"cancel {number}")
            self.assertEqual(answer, f"ERROR:unknown_TEXT:no request with the number {number} is held")
        for line in ("cancel", "cancel 7 8"):
            self.assertIn("usage: cancel NUMBER", self.send(line)[0])


class LendTests(WordCase):
    """
    `lend`.
    """

    def lease(self) -> Lease:
        """
        Make a lease that records its end.
        """
        return Lease("leonardo", "/dev/ttyACM0", lambda: self.ended.append(True))

    def setUp(self) -> None:
        """
        Start with no lease ended.
        """
        super().setUp()
        self.ended: list[bool] = []

    def test_as_long_as_the_connection(self) -> None:
        """
        The reply comes when the port is free, and names it; the lease ends when the connection ends, and not before.
        """
        self.assertEqual(self.send("lend leonardo"), [])
        [(device, client, lending)] = self.gateway.lendings
        self.assertEqual((device, client), ("leonardo", "10.0.0.7:4711"))
        lending.callback(self.lease())
        self.assertEqual(self.received(), ["DEV:leonardo_PORT:/dev/ttyACM0", "OK:lend"])
        self.send("ping")
        self.assertEqual(self.ended, [])
        self.client.connectionLost(connectionDone)
        self.assertEqual(self.ended, [True])

    def test_half_closed(self) -> None:
        """
        A half-close ends the lease, even with a subscription: a client that was killed looks half-closed.
        """
        self.send("watch")
        self.send("lend leonardo")
        self.gateway.lendings[0][2].callback(self.lease())
        self.client.readConnectionLost()
        self.assertEqual(self.ended, [True])
        self.client.connectionLost(connectionDone)
        self.assertEqual(self.ended, [True])

    def test_turn_of_its_own(self) -> None:
        """
        No device is released within what has answered the word before: that may be its opening. If the client is gone
        by then, none is released at all.
        """
        for gone in (False, True):
            self.send("ask 20\nlend leonardo")
            self.gateway.answer(-1)
            self.assertEqual(self.gateway.lendings, [])
            if gone:
                self.client.connectionLost(connectionDone)
            self.received()
            self.assertEqual(len(self.gateway.lendings), 0 if gone else 1)
            if not gone:
                self.gateway.lendings.pop()[2].callback(self.lease())

    def test_gone_before(self) -> None:
        """
        If the client disconnects before the port is free, the lease ends at once.
        """
        self.send("lend leonardo")
        self.client.connectionLost(connectionDone)
        self.gateway.lendings[0][2].callback(self.lease())
        self.assertEqual(self.ended, [True])

    def test_refused(self) -> None:
        """
        An error of the gateway is sent; exactly one device must be named.
        """
        self.send("lend leonardo")
        self.gateway.lendings[0][2].errback(Busy("leonardo is lent already"))
        self.assertEqual(self.received(), ["ERROR:busy_TEXT:leonardo is lent already"])
        for line in ("lend", "lend a b"):
            self.assertEqual(self.send(line), ["ERROR:malformed_TEXT:wrong arguments: usage: lend DEVICE"])
