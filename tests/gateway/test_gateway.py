"""
The gateway: decisions become deeds, in the right order.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf

from twisted.internet.defer import Deferred
from twisted.logger import capturedLogs, formatEvent
from twisted.python.failure import Failure
from zope.interface.verify import verifyObject

from tests.support.gateway import WALL, GatewayCase, MemoryLink
from usbgate import __version__
from usbgate.core.clock import IClock
from usbgate.core.errors import Busy, Denied, Malformed, Offline, RequestError, Stopped, TimedOut, Unknown
from usbgate.core.fieldline import LINE_LIMIT
from usbgate.core.holders import Holder
from usbgate.core.model import (
    Action,
    Answer,
    BoardKind,
    ClockMark,
    DeviceWarning,
    Event,
    OwnerRecord,
    Reading,
    Report,
    RequestRecord,
    Send,
)
from usbgate.core.rules import Rules
from usbgate.core.sensors import RESTORED_AT_ONCE
from usbgate.core.settings import SensorSettings
from usbgate.core.status import JournalStatus, StoreStatus
from usbgate.device.interfaces import IDeviceLink, ILinkListener
from usbgate.gateway.interfaces import IGateway, IQueries, Lease
from usbgate.store.interfaces import IJournal
from usbgate.testing import request


class LiveTests(GatewayCase):
    """
    One link.
    """

    def test_doors(self) -> None:
        """
        The gateway and its neighbours in these tests are what they say.
        """
        verifyObject(IGateway, self.gateway)
        verifyObject(IQueries, self.gateway.queries)
        verifyObject(ILinkListener, self.link.listener)
        verifyObject(IDeviceLink, self.link)
        verifyObject(IJournal, self.journal)
        verifyObject(IClock, self.time)

    def test_order(self) -> None:
        """
        Who asked gets the answer first, then it is journalled, then subscribers get it.
        """
        self.link.listener.link_up()
        self.watch(self.events)
        asked = self.ask("MSG:J_ID:20_ORIGIN:TOTO")
        self.clock.advance(0.25)
        self.receive(("20", "456"), ("2", "1"))
        self.assertEqual(
            self.events,
            [
                ("send", "leonardo", "J", "20"),
                ("answer", {"VALUE": "456"}, "J"),
                ("journal", 2, ["answered"]),
                "EVENT:reading_ID:20_VALUE:456_MSG:J_AT:2013-03-11T21:02:10.250Z",
                "EVENT:reading_ID:2_VALUE:1_AT:2013-03-11T21:02:10.250Z",
            ],
        )
        answer = self.successResultOf(asked)
        self.assertEqual((answer.at, answer.device, answer.recent), (WALL + 250, "leonardo", False))

    def test_unit_changes(self) -> None:
        """
        That the unit of a field changed is logged once.
        """
        with capturedLogs() as logs:
            self.receive(("20", "900W"), ("20", "1.2kW"), ("20", "900W"))
            self.receive(("20", "1.2kW"))
        self.assertEqual(
            [formatEvent(event) for event in logs],
            ["leonardo: the unit of VALUE of sensor 20 was W and is kW: it is text from now on"],
        )
        self.assertEqual([reading.value for reading in self.journal.readings], [900.0, None, None, None])

    def test_rows(self) -> None:
        """
        A reading's row has what it answered; the request's row has who asked, how it ended, and how long it took.
        """
        self.link.listener.link_up()
        asked = self.ask("MSG:L_ID:9_LEVEL:50_A:1_ORIGIN:TOTO")
        self.clock.advance(0.5)
        self.time.trust = False
        self.link.listener.reports_received(
            [Report("9", "L", None, (("LEVEL", "50"), ("MODE", "slow"), ("SERIAL", "1234567890123456")))]
        )
        self.successResultOf(asked)
        at = WALL + 500
        self.assertEqual(
            self.journal.readings,
            [
                Reading(at, "leonardo", "9", "LEVEL", 50.0, None, "L", False),
                Reading(at, "leonardo", "9", "MODE", None, "slow", "L", False),
                Reading(at, "leonardo", "9", "SERIAL", 1234567890123456.0, "1234567890123456", "L", False),
            ],
        )
        self.assertEqual(
            self.journal.requests,
            [RequestRecord(WALL, "TOTO", "me:1", "leonardo", "9", "L", "LEVEL:50_A:1", "answered", 500.0, False)],
        )

    def test_every_asker_has_a_row(self) -> None:
        """
        Request rows equal askers: joined, recent, timed out, offline, unknown, hung up and stopped ones.
        """
        ends = [self.ask("MSG:J_ID:20"), self.ask("MSG:J_ID:20_DEV:nobody")]
        self.link.listener.link_up()
        ends.append(self.ask("MSG:J_ID:20"))
        self.receive(("20", "1"))
        ends.append(self.ask("MSG:J_ID:20_MAXAGE:30"))
        ends.append(self.ask("MSG:J_ID:21_TIMEOUT:1"))
        hung_up = self.ask("MSG:J_ID:22_TIMEOUT:1")
        hung_up.cancel()
        self.clock.advance(1)
        self.link.listener.link_down("unplugged")
        ends.append(self.ask("MSG:J_ID:20"))
        self.link.listener.link_up()
        ends.append(self.ask("MSG:J_ID:23"))
        self.gateway.stopService()
        ends.append(self.ask("MSG:J_ID:24"))
        for end in [*ends, hung_up]:
            end.addErrback(lambda _: None)
        self.assertEqual(
            [request.outcome for request in self.journal.requests],
            ["unknown", "answered", "answered", "recent", "timeout", "timeout", "offline", "stopped", "stopped"],
        )
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_hang_up(self) -> None:
        """
        Who hangs up loses nothing but the answer: it is still sent, and stored.
        """
        asked = self.ask("MSG:J_ID:20")
        asked.cancel()
        asked.addErrback(lambda _: None)
        self.link.listener.link_up()
        self.assertIn(("send", "leonardo", "J", "20"), self.events)
        self.receive(("20", "3"))
        self.assertEqual(self.journal.readings[0].command, "J")
        self.assertEqual(self.journal.requests[0].outcome, "answered")

    def test_time_limits(self) -> None:
        """
        Ten seconds without any setting, as in the original; the wall clock has no say in it.
        """
        self.link.listener.link_up()
        asked = self.ask("MSG:J_ID:20")
        self.clock.advance(9.9)
        self.time.stepped = -3_600_000
        self.assertNoResult(asked)
        self.clock.advance(0.2)
        self.failureResultOf(asked, TimedOut)

    def test_clock_stepped_back(self) -> None:
        """
        After the wall clock went back an hour, `last` still shows what came last, and max_age still counts seconds.
        """
        self.link.listener.link_up()
        self.ask("MSG:J_ID:20")
        self.receive(("20", "1"))
        self.time.stepped = -3_600_000
        self.clock.advance(1)
        self.assertEqual(self.successResultOf(self.ask("MSG:J_ID:20_MAXAGE:5")).recent, True)
        self.receive(("20", "2"))
        [reading] = self.gateway.queries.last("20", None)
        self.assertEqual((reading.value, reading.at), (2.0, WALL + 1000 - 3_600_000))
        self.clock.advance(10)
        self.assertNoResult(self.ask("MSG:J_ID:20_MAXAGE:5"))

    def test_offline(self) -> None:
        """
        When the device goes away, who waits is told at once, and watchers are.
        """
        lines: list[str] = []
        self.watch(lines)
        self.link.listener.link_up()
        asked = self.ask("MSG:J_ID:20")
        self.link.listener.link_down("unplugged")
        self.failureResultOf(asked, Offline)
        self.failureResultOf(self.ask("MSG:J_ID:20"), Offline)
        self.assertEqual(lines, ["EVENT:device_DEV:leonardo_STATE:online", "EVENT:device_DEV:leonardo_STATE:offline"])
        [device] = self.gateway.queries.devices()
        self.assertEqual((device.name, device.path, device.state), ("leonardo", "/dev/leonardo", "offline"))
        self.assertEqual(device.warnings, ())
        warning = DeviceWarning("name not unique", "two", "there are two of it")
        self.gateway.add_link(MemoryLink("clone", self.events), self.rules, lambda: [warning])
        self.assertEqual([device.warnings for device in self.gateway.queries.devices()], [(), [warning]])

    def test_device_takes_nothing(self) -> None:
        """
        While a device takes nothing, no more is written to it: a toggle that never reached it was not asked.
        """
        self.link.listener.link_up()
        self.link.full = True
        self.ask("MSG:J_ID:20").addErrback(lambda _: None)
        asked = self.ask("MSG:TOGGLE_ID:9_TIMEOUT:2")
        self.clock.advance(3)
        self.failureResultOf(asked, Busy)
        later = self.ask("MSG:TOGGLE_ID:9_TIMEOUT:2")
        self.assertEqual([event for event in self.events if "send" in str(event)], [("send", "leonardo", "J", "20")])
        self.link.full = False
        self.link.listener.link_drained()
        self.assertEqual(self.events[-1], ("send", "leonardo", "TOGGLE", "9"))
        self.receive(("9", "1"))
        self.successResultOf(later)

    def test_acknowledgement(self) -> None:
        """
        An acknowledgement answers, and stores and publishes nothing.
        """
        lines: list[str] = []
        self.link.listener.link_up()
        asked = self.ask("MSG:ON_ID:9")
        self.watch(lines)
        self.link.listener.reports_received([Report("9", "ON", None, ())])
        self.assertEqual(self.successResultOf(asked).report.values, ())
        self.assertEqual((self.journal.readings, lines), ([], []))

    def test_who_asks_again_when_answered(self) -> None:
        """
        Asking from within an answer's callback is an ordinary ask.
        """
        self.link.listener.link_up()
        second: list[Deferred[Answer]] = []
        self.ask("MSG:J_ID:20").addCallback(lambda _: second.append(self.ask("MSG:J_ID:20")))
        self.receive(("20", "1"), ("20", "2"))
        self.assertNoResult(second[0])
        self.receive(("20", "3"))
        self.assertEqual(self.successResultOf(second[0]).report.values, (("VALUE", "3"),))

    def test_subscriber_fails(self) -> None:
        """
        A subscriber that fails keeps nobody else from hearing.
        """
        lines: list[str] = []

        def broken(event: Event) -> None:
            raise ZeroDivisionError

        self.gateway.subscribe(broken)
        unsubscribe = self.watch(lines)
        self.link.listener.link_up()
        self.assertEqual(len(lines), 1)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        unsubscribe()
        self.receive(("20", "1"))
        self.assertEqual(len(lines), 1)
        self.flushLoggedErrors(ZeroDivisionError)

    def test_memory(self) -> None:
        """
        The newest reading of each field is remembered, in the order of the sensors' first appearance.
        """
        self.receive(("21", "5"), ("20", "1"), ("20", "2"))
        self.link.listener.reports_received([Report("20", None, None, (("TEMP", "3"),))])
        self.assertEqual(
            [(r.sensor, r.field, r.value) for r in self.gateway.queries.last(None, None)],
            [("21", "VALUE", 5.0), ("20", "VALUE", 2.0), ("20", "TEMP", 3.0)],
        )
        self.assertEqual([r.value for r in self.gateway.queries.last("20", "TEMP")], [3.0])
        self.assertEqual([*self.gateway.queries.last("99", None)], [])
        first, second = self.gateway.queries.sensors()
        self.assertEqual((first.sensor, first.reports, second.fields, second.reports), ("21", 1, ["TEMP", "VALUE"], 3))

    def test_sensors_are_bounded(self) -> None:
        """
        Of more sensors than are remembered, readings are stored all the same.
        """
        self.receive(*[(str(n), "1") for n in range(10_050)])
        self.assertEqual(len([*self.gateway.queries.sensors()]), 10_000)
        self.assertEqual(len(self.journal.readings), 10_050)

    def test_recall(self) -> None:
        """
        What the database knows is remembered, unless something newer was heard.
        """
        self.receive(("20", "9"))
        self.store.add(
            [
                Reading(5, "old", "20", "VALUE", 1.0, None, None, True),
                Reading(6, "old", "20", "TEMP", 2.0, None, None, True),
                Reading(7, "old", "21", "VALUE", 3.0, None, None, True),
            ]
        )
        self.successResultOf(Deferred.fromCoroutine(self.gateway.restore()))
        self.assertEqual([r.value for r in self.gateway.queries.last(None, None)], [9.0, 2.0, 3.0])
        self.assertEqual([s.device for s in self.gateway.queries.sensors()], ["leonardo", "old"])

    def test_recall_many(self) -> None:
        """
        So many readings are taken over in a reactor turn, and those that come meanwhile are newer.
        """
        self.store.add([Reading(n, "old", str(n), "VALUE", 1.0, None, None, True) for n in range(2500)])
        restored = Deferred.fromCoroutine(self.gateway.restore())
        self.assertEqual(len([*self.gateway.queries.last(None, None)]), RESTORED_AT_ONCE)
        self.receive(("0", "9"), ("2499", "9"))
        self.clock.advance(0)
        self.successResultOf(restored)
        values = {r.sensor: r.value for r in self.gateway.queries.last(None, None)}
        self.assertEqual(len(values), 2500)
        self.assertEqual([sensor for sensor, value in values.items() if value == 9.0], ["0", "2499"])

    def test_recall_again(self) -> None:
        """
        What the database knows later takes the place of what it knew before, not of what was heard before or since.
        """
        fields = ("VALUE", "TEMP", "HUM")
        for sensor in ("20", "21"):
            self.store.add([Reading(5, "old", sensor, field, 1.0, None, None, True) for field in fields])
        self.receive(("20", "9"))
        self.successResultOf(Deferred.fromCoroutine(self.gateway.restore()))
        self.link.listener.reports_received([Report("20", None, None, (("TEMP", "9"),))])
        for sensor in ("20", "21"):
            self.store.add([Reading(6, "older", sensor, field, 2.0, None, None, True) for field in fields])
        self.successResultOf(Deferred.fromCoroutine(self.gateway.restore()))
        newest = {(r.sensor, r.field): r.value for r in self.gateway.queries.last(None, None)}
        self.assertEqual([newest["20", field] for field in fields], [9.0, 9.0, 2.0])
        self.assertEqual([newest["21", field] for field in fields], [2.0, 2.0, 2.0])
        self.assertEqual([s.device for s in self.gateway.queries.sensors()], ["leonardo", "older"])

    def test_pressure(self) -> None:
        """
        While the journal can't keep up, no device is read.
        """
        self.gateway.hold_devices(True)
        self.gateway.hold_devices(False)
        self.assertEqual(self.events, [("pause", "leonardo"), ("resume", "leonardo")])

    def test_status(self) -> None:
        """
        The status has the state of the store and of the journal, and names the sensors to which §4.6 applies.
        """
        self.link.listener.link_up()
        self.ask("MSG:J_ID:20")
        self.receive(("20", "1"))
        self.ask("MSG:J_ID:21")
        self.clock.advance(2.5)
        status = self.gateway.queries.status()
        self.assertEqual((status.version, status.uptime, status.clock_trusted), (__version__, 2.5, True))
        self.assertEqual((status.sensors, status.in_flight, status.unsure), (1, 1, {"leonardo": ["20"]}))
        self.assertEqual((status.store, status.journal), (StoreStatus("connected", "pi"), JournalStatus()))
        self.time.trust = False
        self.assertFalse(self.gateway.queries.status().clock_trusted)

    def test_malformed_lines(self) -> None:
        """
        The last 100 malformed lines are kept, and all are counted by reason; what follows a colon is left out.
        """
        for n in range(150):
            self.link.listener.line_malformed(b"garbage_%d" % n, "no key: 'x_y'")
        self.gateway.add_malformed("client 10.0.0.7", b"", "empty value: A")
        self.assertEqual(self.gateway.queries.totals().malformed, {"no key": 150, "empty value": 1})
        kept = self.gateway.queries.malformed_lines()
        self.assertEqual(len(kept), 100)
        self.assertEqual(
            kept[-2:], [(WALL, "leonardo", "no key", b"garbage_149"), (WALL, "client 10.0.0.7", "empty value", b"")]
        )

    def test_many_reasons(self) -> None:
        """
        A dialect that gives each line another reason fills no memory: 200 are counted, then all others together.
        """
        for n in range(1000):
            self.link.listener.line_malformed(b"?", f"{n} is no temperature")
        self.link.listener.line_malformed(b"?", "0 is no temperature")
        counts = self.gateway.queries.totals().malformed
        self.assertEqual((len(counts), counts["0 is no temperature"], counts["other reasons"]), (201, 2, 800))
        self.assertEqual(self.gateway.queries.malformed_lines()[-2].reason, "999 is no temperature")

    def test_too_long(self) -> None:
        """
        A request that has no room in a line for the device is refused, and has its row.
        """
        self.link.listener.link_up()
        longest = "MSG:J_ID:20_ORIGIN:x_A:" + "x" * (LINE_LIMIT - 23)
        self.assertNoResult(self.ask(longest))
        self.assertEqual(len(self.events), 1)
        self.failureResultOf(self.ask("MSG:J_ID:20_A:" + "x" * (LINE_LIMIT - 14)), Malformed)
        self.assertEqual(len(self.events), 2)
        (record,) = self.journal.requests
        self.assertEqual((record.outcome, record.device, record.sensor), ("malformed", "leonardo", "20"))

    def test_one_timer(self) -> None:
        """
        However many wait, one timer runs; when nobody does, none.
        """
        self.link.listener.link_up()
        asks = [self.ask(f"MSG:J_ID:{n}_TIMEOUT:{n % 7 + 1}") for n in range(50)]
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)
        for _ in range(600):
            self.clock.advance(0.1)
        self.assertEqual(len([self.failureResultOf(asked) for asked in asks]), 50)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_refused(self) -> None:
        """
        A request that its client may not make is recorded, and not asked.
        """
        self.link.listener.link_up()
        self.events.clear()
        self.gateway.refuse(request("9", "ON", client="phone@10.0.0.1:5"), Denied())
        self.assertEqual(self.events, [("journal", 0, ["denied"])])
        (record,) = self.journal.requests
        self.assertEqual(
            (record.client, record.device, record.sensor, record.command), ("phone@10.0.0.1:5", None, "9", "ON")
        )

    def test_action(self) -> None:
        """
        What somebody does besides asking is recorded, and counted as no request.
        """
        details = {"ALARM": "a1", "BY": "Zoé_X:1"}
        self.gateway.record(Action("acknowledge", "phone@10.0.0.1:5", "10.0.0.1", details, "leonardo"))
        (record,) = self.journal.requests
        self.assertEqual(
            record,
            RequestRecord(
                *(WALL, "10.0.0.1", "phone@10.0.0.1:5", "leonardo", None, "acknowledge"),
                *("ALARM:a1_BY:Zoé X:1", "done", 0.0, True),
            ),
        )
        self.assertEqual(self.gateway.queries.totals().outcomes, {})


class TagTests(GatewayCase):
    """
    A device that echoes tags.
    """

    rules = Rules(tags=True)

    def test_too_long(self) -> None:
        """
        The longest tag must have its place in the line.
        """
        self.link.listener.link_up()
        longest = "MSG:J_ID:20_ORIGIN:x_A:" + "x" * (LINE_LIMIT - len("_TAG:12345678") - 23)
        self.assertNoResult(self.ask(longest))
        self.failureResultOf(self.ask(longest + "y"), Malformed)
        self.assertEqual([record.outcome for record in self.journal.requests], ["malformed"])


class RefusalTests(GatewayCase):
    """
    A request that the device can't be sent.
    """

    rules = Rules(window=1)

    def test_refused(self) -> None:
        """
        Its asker fails at once, before any report can pass for the answer, and the request is recorded.
        """
        self.link.listener.link_up()
        send = self.link.send

        def refuse(messages: Sequence[Send]) -> bool:
            for each in messages:
                if each.request.question.command == "L":
                    self.link.listener.request_refused(each.request, Malformed("the device only sends"))
            return send(messages)

        self.patch(self.link, "send", refuse)
        asked = [self.ask(f"MSG:{command}_ID:{sensor}") for command, sensor in (("L", 20), ("L", 21), ("J", 22))]
        self.clock.pump([0.0] * 3)
        for each in asked[:2]:
            self.failureResultOf(each, Malformed)
        self.receive(("20", "1"), ("22", "1"))
        self.successResultOf(asked[2])
        self.assertEqual([each.outcome for each in self.journal.requests], ["malformed", "malformed", "answered"])


class DeviceThinningTests(GatewayCase):
    """
    A device of which only changes are stored.
    """

    def test_device(self) -> None:
        """
        Of its sensors, only changes are stored; of those of other devices, everything.
        """
        meter = MemoryLink("meter", self.events)
        self.gateway.add_link(meter, Rules(), store=300.0)
        for _ in range(2):
            self.receive(("30", "1"), link=meter)
            self.receive(("31", "1"))
        self.assertEqual(
            [(reading.sensor, reading.value) for reading in self.journal.readings],
            [("30", 1.0), ("31", 1.0), ("31", 1.0)],
        )


class ThinningTests(GatewayCase):
    """
    A sensor of which only changes are stored.
    """

    sensor_settings = {"20": SensorSettings(store=300.0)}  # noqa: RUF012  # only read

    def stored(self) -> list[tuple[str, float | None]]:
        """
        Tell what is in the journal.
        """
        return [(reading.sensor, reading.value) for reading in self.journal.readings]

    def test_on_change(self) -> None:
        """
        Equal readings are not all stored; who asks, who watches and `last` get each of them.
        """
        watched: list[str] = []
        self.link.listener.link_up()
        self.watch(watched)
        self.receive(("20", "1"), ("21", "1"))
        for _ in range(3):
            self.clock.advance(1.0)
            self.receive(("20", "1"), ("21", "1"))
        asked = self.ask("MSG:J_ID:20_ORIGIN:TOTO")
        self.receive(("20", "1"))
        self.assertEqual(self.successResultOf(asked).report.values, (("VALUE", "1"),))
        self.assertEqual(self.stored(), [("20", 1.0), *[("21", 1.0)] * 4])
        self.assertEqual(len(watched), 9)
        self.assertEqual(next(self.gateway.queries.last("20", None)).at, WALL + 3_000)
        self.receive(("20", "2"))
        self.assertEqual(self.stored()[5:], [("20", 1.0), ("20", 2.0)])
        self.assertEqual(self.journal.readings[-2].at, WALL + 3_000)

    def test_time(self) -> None:
        """
        An equal reading is stored, too, when the one before it is old enough by the clock that does not step.
        """
        self.receive(("20", "1"))
        self.clock.advance(301.0)
        self.receive(("20", "1"))
        self.assertEqual(len(self.journal.readings), 2)

    def test_stop(self) -> None:
        """
        What was held back is stored at the stop, and what comes after that is not held back.
        """
        self.receive(("20", "1"))
        self.clock.advance(1.0)
        self.receive(("20", "1"))
        self.assertEqual(len(self.journal.readings), 1)
        self.gateway.stopService()
        self.assertEqual([reading.at for reading in self.journal.readings], [WALL, WALL + 1_000])
        self.receive(("20", "1"))
        self.assertEqual(len(self.journal.readings), 3)


class SettleTests(GatewayCase):
    """
    A board that resets when it is opened.
    """

    rules = Rules(settle=2.0)

    def test_settling(self) -> None:
        """
        Requests wait until the board has settled; watchers hear both states.
        """
        lines: list[str] = []
        self.watch(lines)
        self.link.listener.link_up()
        asked = self.ask("MSG:J_ID:20")
        self.clock.advance(1.9)
        self.assertEqual(self.events, [])
        self.clock.advance(0.2)
        self.assertEqual(self.events, [("send", "leonardo", "J", "20")])
        self.assertEqual([line[-9:] for line in lines], [":settling", "TE:online"])
        self.gateway.stopService()
        self.failureResultOf(asked, Stopped)


class AutomaticSettleTests(GatewayCase):
    """
    `settle = "auto"`.
    """

    rules = Rules(settle=None)

    def test_first_line(self) -> None:
        """
        The first line of a board that was reset makes it online, and the questions that waited are written.
        """
        lines: list[str] = []
        self.watch(lines)
        self.link.listener.link_up(BoardKind(resets=True))
        asked = self.ask("MSG:J_ID:20")
        self.assertEqual(self.events, [])
        self.link.listener.board_started()
        self.assertEqual(self.events, [("send", "leonardo", "J", "20")])
        self.assertEqual([line[-9:] for line in lines], [":settling", "TE:online"])
        self.gateway.stopService()
        self.failureResultOf(asked, Stopped)

    def test_other_boards(self) -> None:
        """
        A board that was not reset is online at once.
        """
        self.link.listener.link_up()
        self.assertEqual([device.state for device in self.gateway.queries.devices()], ["online"])


class BoundsTests(GatewayCase):
    """
    How many may wait, over all links (protocol §4.10).
    """

    names = ("hall", "attic")

    def setUp(self) -> None:
        """
        Both links are up.
        """
        super().setUp()
        for link in self.links.values():
            link.listener.link_up()
        self.ended: list[str] = []

    def ask_many(self, count: int, holder: Holder, device: str = "hall") -> None:
        """
        Ask one question many times over one connection.
        """
        asking = request(device=device, timeout=3600.0)

        def failed(failure: Failure) -> None:
            assert isinstance(failure.value, RequestError)
            self.ended.append(failure.value.code)

        for _ in range(count):
            self.gateway.ask(asking, holder).addErrback(failed)

    def in_flight(self) -> int:
        """
        Return how many wait.
        """
        return self.gateway.queries.status().in_flight

    def test_gone(self) -> None:
        """
        Of the askers of a connection that is gone 1,024 go on; the others end at once, those on other links, too, and
        have their rows.
        """
        holder = Holder("10.0.0.1")
        self.ask_many(1000, holder)
        self.ask_many(30, holder, "attic")
        self.gateway.disconnected(holder)
        self.assertEqual(self.in_flight(), 1024)
        self.assertEqual(self.ended, ["timeout"] * 6)
        self.assertEqual([(row.device, row.outcome) for row in self.journal.requests], [("attic", "timeout")] * 6)
        again = Holder("10.0.0.1")
        self.ask_many(1, again)
        self.gateway.disconnected(again)
        self.assertEqual((self.in_flight(), self.journal.requests[-1].device), (1024, "hall"))

    def test_all(self) -> None:
        """
        Beyond 20,000 askers, whoever has some gets `busy`, and whoever has none displaces the newest of whoever holds
        most.
        """
        crowd = [Holder("10.0.0.1") for _ in range(80)]
        for n, holder in enumerate(crowd):
            self.ask_many(251 if n == 3 else 249 if n == 4 else 250, holder, self.names[n % 2])
            self.clock.advance(0.001)
        self.assertEqual((self.in_flight(), self.ended), (20_000, []))
        self.ask_many(2, crowd[0])
        self.assertEqual((self.in_flight(), self.ended), (20_000, ["busy"] * 2))
        self.ask_many(1, Holder("10.0.0.1"))
        self.assertEqual((self.in_flight(), self.ended), (20_000, [*["busy"] * 2, "timeout"]))
        self.assertEqual([row.device for row in self.journal.requests], ["hall", "hall", "attic"])
        self.assertEqual(len(crowd[3].askers), 250)


class RoutingTests(GatewayCase):
    """
    Two links (protocol §4.1).
    """

    names = ("hall", "attic")
    sensor_settings = {  # noqa: RUF012  # only read
        "5": SensorSettings(name="lamp", device="attic", default_command="ON", timeout=1.0),
        "6": SensorSettings(device="gone"),
    }

    def setUp(self) -> None:
        """
        Both links are up.
        """
        super().setUp()
        for link in self.links.values():
            link.listener.link_up()

    def asked_of(self, line: str) -> str:
        """
        Ask, and tell which link was written to.
        """
        before = len(self.events)
        self.ask(line).addErrback(lambda _: None)
        sent = [event for event in self.events[before:] if isinstance(event, tuple) and event[0] == "send"]
        return str(sent[0][1]) if sent else ""

    def test_device_named(self) -> None:
        """
        DEV wins; one that does not exist is unknown.
        """
        self.assertEqual(self.asked_of("MSG:J_ID:5_DEV:hall"), "hall")
        self.failureResultOf(self.ask("MSG:J_ID:5_DEV:cellar"), Unknown)

    def test_configured(self) -> None:
        """
        Else the sensor's own setting; its default command and time limit hold as well.
        """
        self.receive(("5", "1"), link=self.links["hall"])
        self.assertEqual(self.asked_of("MSG:J_ID:5"), "attic")
        self.assertEqual(
            (self.gateway.queries.default_command("5"), self.gateway.queries.default_command("7")), ("ON", "J")
        )
        asked = self.ask("MSG:K_ID:5")
        self.clock.advance(1.1)
        self.failureResultOf(asked)

    def test_known(self) -> None:
        """
        Sensors that are configured, have reported, or are stored are known: three others do not keep their place.
        """
        self.store.add([Reading(5, "attic", "8", "VALUE", 1.0, None, None, True)])
        self.successResultOf(Deferred.fromCoroutine(self.gateway.restore()))
        self.receive(("7", "1"), link=self.links["attic"])
        for sensor in range(100, 104):
            self.asked_of(f"MSG:J_ID:{sensor}_DEV:attic")
        for line in ("MSG:J_ID:5", "MSG:J_ID:7", "MSG:J_ID:8", "MSG:J_ID:7_DEV:attic", "MSG:J_ID:5_DEV:attic"):
            self.assertEqual(self.asked_of(line), "attic", line)
            self.receive((line[9], "1"), link=self.links["attic"])
        self.assertEqual(self.asked_of("MSG:J_ID:105_DEV:attic"), "")

    def test_heard(self) -> None:
        """
        Else the device that first reported the sensor, or that of its newest stored reading; else none is known.
        """
        self.failureResultOf(self.ask("MSG:J_ID:7"), Unknown)
        self.receive(("7", "1"), link=self.links["attic"])
        self.assertEqual(self.asked_of("MSG:J_ID:7"), "attic")
        self.receive(("7", "1"), link=self.links["hall"])
        self.assertEqual(self.asked_of("MSG:J_ID:7_DEV:hall"), "hall")
        self.store.add([Reading(5, "attic", "8", "VALUE", 1.0, None, None, True)])
        self.successResultOf(Deferred.fromCoroutine(self.gateway.restore()))
        self.assertEqual(self.asked_of("MSG:J_ID:8"), "attic")

    def test_setting_of_a_device_that_is_gone(self) -> None:
        """
        A setting that names no link is passed over.
        """
        self.receive(("6", "1"), link=self.links["hall"])
        self.assertEqual(self.asked_of("MSG:J_ID:6"), "hall")

    def test_other_link(self) -> None:
        """
        A report answers only what was asked on the link that it came by; both are stored, each under its own device.
        """
        asked = self.ask("MSG:J_ID:5")
        self.receive(("5", "1"), link=self.links["hall"])
        self.assertNoResult(asked)
        self.receive(("5", "2"), link=self.links["attic"])
        self.assertEqual(self.successResultOf(asked).report.values, (("VALUE", "2"),))
        self.assertEqual([r.device for r in self.journal.readings], ["hall", "attic"])


class OwnerTests(GatewayCase):
    """
    Two boards that report the same sensors (protocol §4.1).
    """

    names = ("hall", "attic")
    rules = Rules(patience=5.0)

    def setUp(self) -> None:
        """
        Let sensor 9 belong to the hall, while the attic reports it, too.
        """
        super().setUp()
        for link in self.links.values():
            link.listener.link_up()
        self.report("hall", 3)
        self.report("attic", 1)

    def report(self, device: str, times: int = 1) -> None:
        """
        Let a device report sensor 9 some times.
        """
        for _ in range(times):
            self.receive(("9", "1"), link=self.links[device])

    def asked(self, line: str = "MSG:OPEN_ID:9_CODE:1234") -> str:
        """
        Ask, and return the device to which the question was written.
        """
        before = len(self.events)
        self.ask(line).addErrback(lambda _: None)
        return next(str(each[1]) for each in self.events[before:] if isinstance(each, tuple) and each[0] == "send")

    def owners(self) -> list[tuple[str, str]]:
        """
        List the owners that were journalled.
        """
        return [(row.device, row.event) for row in self.journal.rows if isinstance(row, OwnerRecord)]

    def test_asked(self) -> None:
        """
        Only the owner is asked, whoever reported last, unless the client names a device.
        """
        self.assertEqual(self.asked(), "hall")
        self.assertEqual(self.asked("MSG:OPEN_ID:9_DEV:attic"), "attic")
        self.assertEqual(self.owners(), [("hall", "claimed")])

    def test_readings_of_all(self) -> None:
        """
        Every reading is stored and published under its own device, and `last` shows each device's newest.
        """
        lines: list[tuple[str | None, str]] = []
        self.watch(lines)
        self.receive(("9", "2"), link=self.links["attic"])
        self.assertEqual([(each.device, each.value) for each in self.journal.readings][-1], ("attic", 2.0))
        self.assertEqual(len(lines), 1)
        newest = [(each.device, each.value) for each in self.gateway.queries.last("9", None)]
        self.assertEqual(newest, [("hall", 1.0), ("attic", 2.0)])
        self.assertEqual([each.device for each in self.gateway.queries.sensors()], ["hall"])

    def test_unanswered(self) -> None:
        """
        It passes when the owner leaves a question unanswered, which is stored and logged.
        """
        self.asked()
        with capturedLogs() as logged:
            self.clock.advance(5.1)
        self.assertEqual(self.owners(), [("hall", "claimed"), ("attic", "passed")])
        self.assertIn("sensor 9 passes from hall, ", formatEvent(logged[0]))
        self.assertEqual(self.asked("MSG:J_ID:9"), "attic")

    def test_offline(self) -> None:
        """
        It passes when the owner has been offline for an hour, not before.
        """
        self.links["hall"].listener.link_down("unplugged")
        self.clock.advance(3599)
        self.failureResultOf(self.ask("MSG:J_ID:9"), Offline)
        self.report("attic")
        self.assertEqual(self.owners(), [("hall", "claimed")])
        self.clock.advance(1)
        self.assertEqual(self.asked("MSG:J_ID:9"), "attic")
        self.assertEqual(self.owners()[1:], [("attic", "passed")])

    def test_back_in_time(self) -> None:
        """
        An owner that was online in between is not away.
        """
        self.links["hall"].listener.link_down("unplugged")
        self.clock.advance(3000)
        self.links["hall"].listener.link_up()
        self.links["hall"].listener.link_down("unplugged")
        self.clock.advance(3000)
        self.report("attic", 5)
        self.failureResultOf(self.ask("MSG:J_ID:9"), Offline)

    def test_restored(self) -> None:
        """
        The stored owner is asked after a restart, whichever device reported meanwhile, and not the newest reading's.
        """
        self.store.add([OwnerRecord(1, sensor, "hall", "claimed", True) for sensor in ("7", "8")])
        self.store.add([Reading(5, "attic", "8", "VALUE", 1.0, None, None, True)])
        for _ in range(5):
            self.receive(("7", "1"), link=self.links["attic"])
        self.successResultOf(Deferred.fromCoroutine(self.gateway.restore()))
        self.assertEqual([self.asked(f"MSG:J_ID:{sensor}") for sensor in ("7", "8")], ["hall", "hall"])

    def test_restored_without_owner(self) -> None:
        """
        A sensor of which only readings are stored belongs to the device of the newest, and that is stored.
        """
        self.store.add([Reading(5, "attic", "8", "VALUE", 1.0, None, None, True)])
        self.successResultOf(Deferred.fromCoroutine(self.gateway.restore()))
        self.assertEqual(self.owners()[1:], [("attic", "claimed")])
        for _ in range(5):
            self.receive(("8", "1"), link=self.links["hall"])
        self.assertEqual(self.asked("MSG:J_ID:8"), "attic")


class SilenceTests(GatewayCase):
    """
    A device that says nothing.
    """

    def test_states(self) -> None:
        """
        It is `silent` until it is heard or opened again, each is an event, and who asks is not refused.
        """
        lines: list[str] = []
        self.watch(lines)
        self.link.listener.link_up()
        self.link.listener.link_silent()
        [device] = self.gateway.queries.devices()
        self.assertEqual(device.state, "silent")
        asked = self.ask("MSG:J_ID:20_ORIGIN:TOTO")
        self.assertNoResult(asked)
        self.link.listener.link_active()
        self.link.listener.link_silent()
        self.clock.advance(2.0)
        self.link.listener.link_down("it went away")
        self.failureResultOf(asked, Offline)
        self.link.listener.link_up()
        states = [line.removeprefix("EVENT:device_DEV:leonardo_STATE:") for line in lines]
        self.assertEqual(states, ["online", "silent", "online", "silent", "offline", "online"])


class SlowSilenceTests(GatewayCase):
    """
    A device that takes long to start, and says nothing then.
    """

    rules = Rules(settle=2.0)

    def test_settling(self) -> None:
        """
        While it is settling it is not called silent, but afterwards.
        """
        self.link.listener.link_up()
        self.link.listener.link_silent()
        self.assertEqual([device.state for device in self.gateway.queries.devices()], ["settling"])
        asked = self.ask("MSG:J_ID:20_ORIGIN:TOTO")
        self.clock.advance(2.0)
        self.assertEqual([device.state for device in self.gateway.queries.devices()], ["silent"])
        self.receive(("20", "456"))
        self.successResultOf(asked)


class LendTests(GatewayCase):
    """
    A device that another program has for a while.
    """

    def lend(self) -> Lease:
        """
        Lend the device, at once.
        """
        lent = self.gateway.lend("leonardo", "me:1")
        self.link.released.callback("/dev/ttyACM0")
        return self.successResultOf(lent)

    def test_lent(self) -> None:
        """
        It is lent when its port is closed; who waits fails with `Offline`, and so does who asks then. At the end it is
        taken back, once.
        """
        self.link.listener.link_up()
        waiting = self.ask("MSG:J_ID:20_ORIGIN:TOTO")
        self.events.clear()
        self.watch(self.events)
        lent = self.gateway.lend("leonardo", "me:1")
        self.failureResultOf(waiting, Offline)
        self.assertNoResult(lent)
        self.link.released.callback("/dev/ttyACM0")
        lease = self.successResultOf(lent)
        self.assertEqual((lease.device, lease.port), ("leonardo", "/dev/ttyACM0"))
        self.failureResultOf(self.ask("MSG:J_ID:20_ORIGIN:TOTO"), Offline)
        self.assertEqual([(each.state, each.lent_to) for each in self.gateway.queries.devices()], [("lent", "me:1")])
        lease.end()
        lease.end()
        self.assertEqual([each.lent_to for each in self.gateway.queries.devices()], [None])
        self.link.listener.link_up()
        self.assertEqual(
            [event for event in self.events if not isinstance(event, tuple) or event[0] != "journal"],
            [
                ("release", "leonardo"),
                "EVENT:device_DEV:leonardo_STATE:lent",
                "EVENT:device_DEV:leonardo_STATE:offline",
                ("take back", "leonardo"),
                "EVENT:device_DEV:leonardo_STATE:online",
            ],
        )

    def test_refused(self) -> None:
        """
        An unknown device is not lent, nor one that is lent, or is about to be; a lease that is over ends no other.
        """
        self.failureResultOf(self.gateway.lend("nobody", "me:1"), Unknown)
        lent = self.gateway.lend("leonardo", "me:1")
        self.failureResultOf(self.gateway.lend("leonardo", "me:2"), Busy)
        self.link.released.callback("/dev/ttyACM0")
        self.failureResultOf(self.gateway.lend("leonardo", "me:2"), Busy)
        first = self.successResultOf(lent)
        first.end()
        self.lend()
        first.end()
        self.failureResultOf(self.gateway.lend("leonardo", "me:2"), Busy)

    def test_stopping(self) -> None:
        """
        A gateway that ends lends nothing, and takes nothing back.
        """
        lease = self.lend()
        self.gateway.stopService()
        self.events.clear()
        lease.end()
        self.failureResultOf(self.gateway.lend("leonardo", "me:1"), Stopped)
        self.assertEqual(self.events, [])


class ClockMarkTests(GatewayCase):
    """
    Marks of the clocks among the rows.
    """

    sensor_settings: dict[str, SensorSettings] = {"7": SensorSettings(store=inf)}  # noqa: RUF012  # only read

    looked = 0  # rows that `kinds` has returned

    def kinds(self) -> list[object]:
        """
        List what was journalled since the last look: the marks, and values or outcomes of the others.
        """
        rows = self.journal.rows[self.looked :]
        self.looked = len(self.journal.rows)
        told = {Reading: "value", RequestRecord: "outcome"}
        return [row if isinstance(row, ClockMark) else getattr(row, told[type(row)]) for row in rows]

    def mark(self, at: int, uptime: float, clock: bool = True) -> ClockMark:
        """
        Make a mark of this machine.
        """
        return ClockMark(WALL + at, 1000.0 + uptime, "the first", clock)

    def test_first(self) -> None:
        """
        There is one before the first row, and none without a row, nor while the clock goes evenly.
        """
        self.link.listener.link_up()
        self.link.listener.reports_received([Report("9", "ON", None, ())])
        self.assertEqual(self.kinds(), [])
        self.clock.advance(2)
        self.receive(("20", "1"), ("20", "2"))
        self.clock.advance(86400)
        self.time.stepped = 400  # too small to be one
        self.receive(("20", "3"))
        self.assertEqual(self.kinds(), [self.mark(2000, 2), 1.0, 2.0, 3.0])

    def test_steps(self) -> None:
        """
        There is one before the rows that come when the clock has stepped, forth and back, and when its trust changed.
        """
        self.receive(("20", "1"))
        self.kinds()
        for step, trust in ((86400_000, True), (-86400_000, True), (-86400_000, False), (0, True)):
            self.clock.advance(1)
            self.time.stepped, self.time.trust = step, trust
            self.receive(("20", "2"))
            self.receive(("20", "3"))
            now = self.clock.seconds()
            self.assertEqual(self.kinds(), [self.mark(round(now * 1000) + step, now, trust), 2.0, 3.0])

    def test_small_steps_add_up(self) -> None:
        """
        Steps too small to be one are measured from the last mark.
        """
        for step in (0, 300, 600, 900, 1200):
            self.time.stepped = step
            self.receive(("20", "1"))
        self.assertEqual([row.at - WALL for row in self.journal.rows if isinstance(row, ClockMark)], [0, 600, 1200])

    def test_requests(self) -> None:
        """
        A request that ends after a step has its mark before it, and tells by the new clock when it was accepted.
        """
        self.link.listener.link_up()
        self.failureResultOf(self.ask("MSG:J_ID:20_ORIGIN:TOTO_DEV:nowhere"), Unknown)
        asked = self.ask("MSG:J_ID:20_ORIGIN:TOTO_TIMEOUT:2")
        self.time.stepped = 3600_000
        self.clock.advance(2)
        self.failureResultOf(asked, RequestError)
        self.assertEqual(self.kinds(), [self.mark(0, 0), "unknown", self.mark(3602_000, 2), "timeout"])
        self.assertEqual([request.at - WALL for request in self.journal.requests], [0, 3600_000])
        self.assertEqual([request.clock for request in self.journal.requests], [True, True])

    def test_sleep(self) -> None:
        """
        What a machine slept through is no step: both clocks went on.
        """
        self.receive(("20", "1"))
        self.time.stepped, self.time.slept = 3600_000, 3600
        self.receive(("20", "2"))
        self.assertEqual(self.kinds(), [self.mark(0, 0), 1.0, 2.0])

    def test_held_back(self) -> None:
        """
        What thinning held back when the clock stepped was stamped before, and is stored before the mark.
        """
        self.receive(("7", "1"))
        self.receive(("7", "1"))
        self.time.stepped = 3600_000
        self.receive(("7", "1"))
        self.assertEqual(self.kinds(), [self.mark(0, 0), 1.0, 1.0, self.mark(3600_000, 0), 1.0])
        self.assertEqual([reading.at - WALL for reading in self.journal.readings], [0, 0, 3600_000])
