"""
Sensors whose devices have new ids.
"""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis.strategies import lists, sampled_from, tuples
from twisted.internet.defer import Deferred, fail, succeed

from tests.support.draws import given
from tests.support.gateway import WALL, GatewayCase
from usbgate.core.errors import Failed, Malformed, RequestError, Unknown
from usbgate.core.fieldline import parse
from usbgate.core.model import Reading, ReplacementRecord, ReportEvent, Selection, Send
from usbgate.core.replacements import Offer, Replacement
from usbgate.core.settings import SensorSettings
from usbgate.testing import reading, report

IDS = ("1", "2", "3", "28:FF:4C:01")
ids = sampled_from(IDS)


class ReplacingTests(GatewayCase):
    """
    `Gateway.replace`.
    """

    names = ("leonardo", "mega")
    sensor_settings = {"20": SensorSettings(name="kitchen"), "22": SensorSettings()}  # noqa: RUF012  # only read

    def setUp(self) -> None:
        """
        Let sensor 20 report, and then 31.
        """
        super().setUp()
        self.kept: list[list[Replacement]] = []
        self.changes: list[int] = []
        self.gateway.keep_replacements([], self.keep, lambda: self.changes.append(len(self.kept)))
        self.link.listener.link_up()
        self.receive(("20", "1"))
        self.clock.advance(3700)
        self.receive(("31", "2"))
        self.queries = self.gateway.queries

    def keep(self, replacements: Sequence[Replacement]) -> Deferred[None]:
        """
        Keep replacements.
        """
        self.kept.append(list(replacements))
        return succeed(None)

    def replace(self, sensor: str = "20", successor: str = "31") -> Replacement:
        """
        Replace a sensor.
        """
        return self.successResultOf(self.gateway.replace(sensor, successor, "me"))

    def refusal(self, refused: Deferred[Replacement], kind: type[RequestError]) -> str:
        """
        Return why a replacement was refused.
        """
        error = self.failureResultOf(refused, kind).value
        assert isinstance(error, RequestError)
        return error.text

    def last(self) -> dict[str, float | None]:
        """
        Return the newest readings.
        """
        return {each.sensor: each.value for each in self.queries.last(None, None)}

    def test_reports(self) -> None:
        """
        What the successor sent last, and all that it sends from now on, is the sensor's.
        """
        made = self.replace()
        expected = Replacement(
            sensor="20", successor="31", device="leonardo", since=WALL, at=WALL + 3_700_000, who="me"
        )
        self.assertEqual((made, self.kept, self.queries.replacements()), (expected, [[expected]], [expected]))
        self.assertEqual(self.last(), {"20": 2.0})
        self.assertEqual(self.changes, [1])
        self.assertIsNone(self.queries.sensor("31"))
        published: list[object] = []
        self.gateway.subscribe(published.append)
        self.receive(("31", "3"), ("21", "4"))
        self.assertEqual([each.sensor for each in published if isinstance(each, ReportEvent)], ["20", "21"])
        stored = [(row.sensor, row.value) for row in self.journal.rows if isinstance(row, Reading)]
        self.assertEqual(stored, [("20", 1.0), ("31", 2.0), ("20", 3.0), ("21", 4.0)])

    def test_row(self) -> None:
        """
        A row says so, behind all readings that came before.
        """
        self.replace()
        self.successResultOf(self.gateway.undo_replacement("20", "you"))
        row = ReplacementRecord(WALL + 3_700_000, "20", "31", "leonardo", "replaced", WALL, "me", True)
        rows = [each for each in self.journal.rows if isinstance(each, Reading | ReplacementRecord)]
        self.assertEqual(rows[2:], [row, row._replace(event="undone", who="you")])

    def test_old_id(self) -> None:
        """
        If the old id reports again, it is another sensor: the successor's id is free for it.
        """
        self.replace()
        self.receive(("20", "5"))
        self.assertEqual(self.last(), {"20": 2.0, "31": 5.0})

    def test_other_device(self) -> None:
        """
        On other devices, ids mean what they meant.
        """
        self.replace()
        self.receive(("31", "7"), link=self.links["mega"])
        self.assertEqual(self.last(), {"20": 2.0, "31": 7.0})

    def test_asked(self) -> None:
        """
        A question for the sensor goes to the successor, and the successor's report answers it; one of the old id does
        not.
        """
        self.clock.advance(10)
        self.replace()
        del self.events[:]
        asked = self.ask("MSG:J_ID:20_LEVEL:5")
        self.assertIn(("send", "leonardo", "J", "31"), self.events)
        self.link.listener.reports_received([report("20", "J"), report("21", "J")])
        self.assertNoResult(asked)
        self.link.listener.reports_received([report("31", "J")])
        answer = self.successResultOf(asked)
        self.assertEqual((answer.report.sensor, answer.device), ("20", "leonardo"))

    def test_refused_by_the_link(self) -> None:
        """
        A request that the link refuses is that of its asker.
        """
        self.clock.advance(10)
        self.replace()

        def refuse(messages: Sequence[Send]) -> bool:
            for each, _, _ in messages:
                self.link.listener.request_refused(each, Failed("refused"))
            return True

        self.patch(self.link, "send", refuse)
        asked = self.ask("MSG:J_ID:20")
        self.clock.advance(0)
        self.failureResultOf(asked, Failed)

    def test_undo(self) -> None:
        """
        Taken back, each id is itself again.
        """
        self.replace()
        self.successResultOf(self.gateway.undo_replacement("20", "me"))
        self.assertEqual((self.kept[-1], self.queries.replacements()), ([], []))
        self.receive(("31", "3"), ("20", "4"))
        self.assertEqual(self.last(), {"20": 4.0, "31": 3.0})
        self.assertIn("not replaced", self.refusal(self.gateway.undo_replacement("20", "me"), Unknown))

    def test_undo_readings(self) -> None:
        """
        Taken back, what the successor sent before is its own again, unless the sensor sent that field since.
        """
        self.clock.advance(10)
        self.receive(("31", "5"))
        self.clock.advance(10)
        self.replace()
        self.assertEqual(self.last(), {"20": 5.0})
        self.successResultOf(self.gateway.undo_replacement("20", "me"))
        self.assertEqual(self.last(), {"20": 1.0, "31": 5.0})
        self.replace()
        self.clock.advance(10)
        self.receive(("31", "6"))
        self.successResultOf(self.gateway.undo_replacement("20", "me"))
        self.assertEqual(self.last(), {"20": 6.0})

    def test_undo_configured_only(self) -> None:
        """
        A sensor that never reported itself has not reported again.
        """
        self.clock.advance(10)
        self.successResultOf(self.gateway.replace("22", "31", "me"))
        self.successResultOf(self.gateway.undo_replacement("22", "me"))
        self.assertEqual(self.last(), {"20": 1.0, "31": 2.0})

    def test_chain(self) -> None:
        """
        Another successor takes the place of the first one, whose id is its own again.
        """
        self.replace()
        self.receive(("40", "8"))
        self.assertEqual(self.replace("31", "40").sensor, "20")
        self.receive(("40", "9"), ("31", "10"))
        self.assertEqual(self.last(), {"20": 9.0, "31": 10.0})

    def test_refused(self) -> None:
        """
        Sensors that are unknown, configured, or of another device are refused, with the remedy.
        """
        self.receive(("22", "1"), ("33", "1"))
        self.receive(("50", "1"), link=self.links["mega"])
        replace = self.gateway.replace
        self.assertIn("no such sensor: 99", self.refusal(replace("99", "31", "me"), Unknown))
        self.assertIn("has not reported yet", self.refusal(replace("20", "99", "me"), Unknown))
        self.assertIn("remove [sensor.22]", self.refusal(replace("20", "22", "me"), Malformed))
        self.assertIn("50 on mega", self.refusal(replace("20", "50", "me"), Malformed))
        self.replace()
        self.assertIn("--undo 20", self.refusal(replace("33", "20", "me"), Malformed))
        self.assertEqual(len(self.kept), 1)

    def test_not_kept(self) -> None:
        """
        What cannot be kept does not count.
        """
        self.gateway.keep_replacements([], lambda _: fail(OSError(28, "No space left on device")))
        self.assertIn("No space left", self.refusal(self.gateway.replace("20", "31", "me"), Failed))
        self.receive(("31", "3"))
        self.assertEqual(self.last(), {"20": 1.0, "31": 3.0})

    def test_restarted(self) -> None:
        """
        What was kept holds from the first report on, without the database.
        """
        kept = self.replace()
        super().setUp()
        self.gateway.keep_replacements([kept], self.keep)
        self.receive(("31", "3"))
        self.assertEqual([each.sensor for each in self.gateway.queries.last(None, None)], ["20"])

    def test_restored(self) -> None:
        """
        If nothing was kept, the replacements of the database count; otherwise they do not.
        """
        row = ReplacementRecord(WALL, "20", "31", "leonardo", "replaced", 0, "me", True)
        for found, restored in (([], []), (None, ["31"])):
            super().setUp()
            self.gateway.keep_replacements(found, self.keep)
            self.store.add([reading(5.0, sensor="31", at=WALL)], [row])
            self.successResultOf(Deferred.fromCoroutine(self.gateway.restore()))
            self.assertEqual([each.successor for each in self.gateway.queries.replacements()], restored)
        self.assertEqual([each.successor for each in self.kept[-1]], ["31"])
        self.assertEqual([(each.sensor, each.value) for each in self.gateway.queries.last(None, None)], [("20", 5.0)])

    def test_made_before(self) -> None:
        """
        A replacement that is made before the database is reached is not replaced by what that has.
        """
        row = ReplacementRecord(WALL, "20", "40", "leonardo", "replaced", 0, "me", True)
        self.store.add([row])
        self.gateway.keep_replacements(None, self.keep)
        self.replace()
        self.successResultOf(Deferred.fromCoroutine(self.gateway.restore()))
        self.assertEqual([each.successor for each in self.queries.replacements()], ["31"])

    def test_restored_on_a_full_disk(self) -> None:
        """
        What the database has counts even if it can't be kept.
        """
        self.store.add([ReplacementRecord(WALL, "20", "31", "leonardo", "replaced", 0, "me", True)])
        self.gateway.keep_replacements(None, lambda _: fail(OSError(28, "No space left on device")))
        self.successResultOf(Deferred.fromCoroutine(self.gateway.restore()))
        self.receive(("31", "7"))
        self.assertEqual(self.last()["20"], 7.0)

    def test_history(self) -> None:
        """
        What the successor sent since the sensor fell silent belongs to the sensor's history, pages and aggregates.
        """
        self.store.add([reading(9.0, sensor="31", at=WALL - 1), reading(1.0, at=WALL)])
        self.store.add([reading(2.0, sensor="31", at=WALL + 1000)])
        history, selection = self.queries.history, Selection("20")
        self.assertEqual(len(self.successResultOf(history("20", None, None, 9))), 1)
        self.replace()
        self.store.add([row for row in self.journal.rows if isinstance(row, ReplacementRecord)])
        self.store.add([reading(3.0, at=WALL + 2000), reading(4.0, sensor="31", at=WALL + 3000)])
        found = self.successResultOf(history("20", None, None, 9))
        self.assertEqual([(each.sensor, each.value) for each in found], [("20", 1.0), ("20", 2.0), ("20", 3.0)])
        self.assertEqual(self.successResultOf(self.queries.extent(selection, None)), (2, 5))
        page = self.successResultOf(self.queries.page(selection, 1, 9, 9))
        self.assertEqual([(each.seq, each.reading.sensor) for each in page], [(2, "20"), (3, "20"), (5, "20")])
        (bucket,) = self.successResultOf(self.queries.buckets(selection, 10**12, 9))
        self.assertEqual((bucket.min, bucket.max, bucket.readings), (1.0, 3.0, 3))

    def test_offers(self) -> None:
        """
        A sensor that fell silent and an id like it that appeared are offered until it is replaced.
        """
        offer = Offer("20", "31", "leonardo", WALL, WALL + 3_700_000)
        self.assertEqual(self.successResultOf(self.queries.offers()), [offer])
        self.replace()
        self.assertEqual(self.successResultOf(self.queries.offers()), [])

    def test_offers_of_restored(self) -> None:
        """
        When an id appeared that was restored, the database knows; if it cannot be asked, the id is not offered.
        """
        at = WALL + 3_600_000
        for first, offered in ((WALL + 5000, 1), (WALL - 5000, 0)):
            super().setUp()
            self.gateway.keep_replacements([], self.keep)
            self.store.add([reading(1.0, sensor="31", at=first), reading(1.0, at=WALL)])
            self.store.add([reading(2.0, sensor="31", at=at)])
            self.successResultOf(Deferred.fromCoroutine(self.gateway.restore()))
            self.clock.advance(3700)
            self.store.unavailable = "away"
            self.assertEqual(self.successResultOf(self.gateway.queries.offers()), [])
            self.store.unavailable = None
            self.assertEqual(len(self.successResultOf(self.gateway.queries.offers())), offered)


class WorldTests(GatewayCase):
    """
    Whatever is replaced, taken back, asked and reported, in any order.
    """

    # Which step, and two ids; a step that is not possible does nothing.
    steps = lists(tuples(sampled_from(["ask", "ask", "answer", "report", "replace", "undo"]), ids, ids), max_size=40)

    @given(steps)
    def test_matching(self, steps: list[tuple[str, str, str]]) -> None:
        """
        A question is written with the id that stands for its sensor then, and gets the answer to what was written for
        it; and each reading is stored as one of the sensor for which its id stands.
        """
        GatewayCase.setUp(self)
        self.gateway.keep_replacements([], lambda _: succeed(None))
        sent: list[tuple[str, str]] = []  # ids and commands that the device got
        asked: dict[str, str] = {}  # sensors, by command
        answered: dict[str, tuple[str, str]] = {}  # sensors and ids of answers, by command

        def swaps() -> dict[str, str]:
            last = {each.sensor: each.successor for each in self.gateway.queries.replacements()}
            return last | {successor: sensor for sensor, successor in last.items()}

        def send(messages: Sequence[Send]) -> bool:
            for request, _, _ in messages:
                fields = parse(request.line)
                sensor = asked[fields["MSG"]]
                self.assertEqual(fields["ID"], swaps().get(sensor, sensor))
                self.assertEqual((fields["ID"], fields["MSG"]), (request.question.sensor, request.question.command))
                sent.append((fields["ID"], fields["MSG"]))
            return True

        self.link.send = send  # type: ignore[method-assign]
        self.link.listener.link_up()
        self.clock.advance(10)
        for each in IDS:
            self.receive((each, "0"))
        expected = [(each, 0.0) for each in IDS]
        for number, (step, first, second) in enumerate(steps, 1):
            names = swaps()
            if step == "ask":
                asked[f"C{number}"] = first
                self.ask(f"MSG:C{number}_ID:{first}").addCallbacks(
                    lambda answer, sensor=first: answered.update({answer.command: (sensor, answer.report.sensor)}),
                    lambda _: None,
                )
            elif step == "answer" and sent:
                wire, command = sent.pop(0)
                self.link.listener.reports_received([report(wire, command, VALUE=str(number))])
                expected.append((names.get(wire, wire), float(number)))
                if command in answered:
                    self.assertEqual(answered[command], (names.get(wire, wire),) * 2)
            elif step == "report":
                self.link.listener.reports_received([report(first, "X", VALUE=str(number))])
                expected.append((names.get(first, first), float(number)))
            elif step == "replace":
                self.gateway.replace(first, second, "me").addErrback(lambda failure: failure.trap(RequestError))
            elif step == "undo":
                self.gateway.undo_replacement(first, "me").addErrback(lambda failure: failure.trap(RequestError))
            self.clock.advance(0.1)
        stored = [(row.sensor, row.value) for row in self.journal.rows if isinstance(row, Reading)]
        self.assertEqual(stored, expected)
