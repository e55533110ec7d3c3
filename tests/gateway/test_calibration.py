"""
Calibrated fields: what is shown, and what is stored.
"""

from __future__ import annotations

from twisted.internet.defer import Deferred

from tests.support.gateway import WALL, GatewayCase
from usbgate.core.calibration import Implausible
from usbgate.core.condition import Condition
from usbgate.core.model import AlarmEvent, AlarmRecord, Event, Reading, ReportEvent, Selection, StoredReading
from usbgate.core.settings import FieldSettings, SensorSettings
from usbgate.testing import reading, report


class CalibrationTests(GatewayCase):
    """
    The gateway with `[sensor.20.field.VALUE]`.
    """

    def setUp(self) -> None:
        """
        Show a tenth of what the device sends, up to 60; raise an alarm above 50.
        """
        alarm = Condition.parse("> 50")
        field = FieldSettings(scale=0.1, offset=-0.4, max=60.0, alarm=alarm)
        self.sensor_settings = {"20": SensorSettings(fields={"VALUE": field})}
        super().setUp()
        self.published: list[Event] = []
        self.gateway.subscribe(self.published.append)
        self.queries = self.gateway.queries

    def last(self, raw: bool = False) -> list[tuple[str, float | None]]:
        """
        Return the newest readings of the sensor.
        """
        return [(each.field, each.value) for each in self.queries.last("20", None, raw)]

    def test_shown(self) -> None:
        """
        What is stored is raw; what is shown is calibrated, unless raw readings are asked for.
        """
        self.receive(("20", "214"))
        self.assertEqual(self.journal.rows[-1].value, 214.0)  # type: ignore[union-attr]  # a reading
        self.assertEqual(self.last(), [("VALUE", 21.0)])
        self.assertEqual(self.last(raw=True), [("VALUE", 214.0)])
        event = ReportEvent("20", "leonardo", None, WALL, (("VALUE", "21"),), (("VALUE", "214"),))
        self.assertEqual(self.published, [event])

    def test_uncalibrated(self) -> None:
        """
        Other sensors and fields are shown as they are, and have no raw values beside them.
        """
        self.receive(("21", "214"))
        (event,) = self.published
        assert isinstance(event, ReportEvent)
        self.assertEqual((event.values, event.raw), ((("VALUE", "214"),), None))

    def test_implausible(self) -> None:
        """
        A reading that is not plausible is stored and counted, but changes neither what is shown nor an alarm.
        """
        self.receive(("20", "514"))
        self.clock.advance(1)
        self.published.clear()
        self.link.listener.reports_received([report(VALUE="850", HUM="3")])
        self.receive(("20", "851"))
        stored = [row.value for row in self.journal.rows if isinstance(row, Reading)]
        self.assertEqual(stored, [514.0, 850.0, 3.0, 851.0])
        self.assertEqual(self.last(), [("VALUE", 51.0), ("HUM", 3.0)])
        self.assertEqual(self.last(raw=True), [("VALUE", 851.0), ("HUM", 3.0)])
        (newest, _) = self.queries.last("20", None)
        self.assertEqual(newest.at, WALL)
        self.assertEqual([each.values for each in self.published], [(("HUM", "3"),), ()])  # type: ignore[union-attr]
        self.assertEqual(self.queries.status().implausible, [Implausible("leonardo", "20", "VALUE", 2, "851")])
        (alarm,) = self.queries.alarms()
        self.assertEqual((alarm.value, alarm.ended), (51.0, None))

    def test_alarms(self) -> None:
        """
        A condition is compared with what is shown, which is also what the row of the alarm has.
        """
        self.receive(("20", "503"))
        self.receive(("20", "510"))
        events = [each for each in self.published if isinstance(each, AlarmEvent)]
        self.assertEqual([(each.change, each.alarm.value) for each in events], [("raised", 50.6)])
        rows = [row for row in self.journal.rows if isinstance(row, AlarmRecord)]
        self.assertEqual([row.value for row in rows], [50.6])

    def test_answers(self) -> None:
        """
        All askers get what is shown, from the device and from memory; an implausible value is left out.
        """
        self.link.listener.link_up()
        asked = [self.ask("MSG:J_ID:20"), self.ask("MSG:J_ID:20")]
        self.receive(("20", "214"))
        first, second = map(self.successResultOf, asked)
        self.assertIs(first, second)
        self.assertEqual((first.report.values, first.raw), ((("VALUE", "21"),), (("VALUE", "214"),)))
        recent = self.successResultOf(self.ask("MSG:J_ID:20_MAXAGE:9"))
        self.assertEqual((recent.report.values, recent.recent), ((("VALUE", "21"),), True))
        late = self.ask("MSG:J_ID:20")
        self.receive(("20", "850"))
        answer = self.successResultOf(late)
        self.assertEqual((answer.report.values, answer.raw), ((), (("VALUE", "850"),)))

    def test_history(self) -> None:
        """
        Stored readings, pages, aggregates and extents have what is shown, of plausible readings; or raw ones.
        """
        self.store.add([reading(214.0, at=1000), reading(850.0, at=2000), reading(314.0, at=3000)])
        history = self.queries.history
        self.assertEqual([each.value for each in self.successResultOf(history("20", None, None, 2))], [21.0, 31.0])
        raw = self.successResultOf(history("20", None, None, 2, raw=True))
        self.assertEqual([each.value for each in raw], [850.0, 314.0])
        selection = Selection("20")
        self.assertEqual(self.successResultOf(self.queries.extent(selection, 2)), (1, 3))
        page = self.successResultOf(self.queries.page(selection, 1, 3, 9))
        self.assertEqual(page, [StoredReading(1, reading(21.0, at=1000)), StoredReading(3, reading(31.0, at=3000))])
        (bucket,) = self.successResultOf(self.queries.buckets(selection, 60_000, 9))
        self.assertEqual(bucket[3:], (21.0, 26.0, 31.0, 2))
        (bucket,) = self.successResultOf(self.queries.buckets(Selection("20", raw=True), 60_000, 9))
        self.assertEqual(bucket[3:], (214.0, 459.3333333333333, 850.0, 3))

    def test_restored(self) -> None:
        """
        After a restart, the newest plausible reading of the database is shown.
        """
        self.store.add([reading(214.0, at=1000), reading(850.0, at=2000), reading(850.0, sensor="21")])
        self.successResultOf(Deferred.fromCoroutine(self.gateway.restore()))
        self.assertEqual(self.last(), [("VALUE", 21.0)])
        self.assertEqual(self.last(raw=True), [("VALUE", 850.0)])
        self.assertEqual([each.value for each in self.queries.last("21", None)], [850.0])

    def test_reload(self) -> None:
        """
        Other settings hold at once, for what came before, too.
        """
        self.receive(("20", "214"))
        self.sensor_settings["20"] = SensorSettings(fields={"VALUE": FieldSettings(offset=1.0)})
        self.gateway.sensors_changed()
        self.assertEqual(self.last(), [("VALUE", 215.0)])
        self.sensor_settings.clear()
        self.gateway.sensors_changed()
        self.assertEqual(self.last(), [("VALUE", 214.0)])
