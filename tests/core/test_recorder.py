"""
The recorder: rows in their order, with the clock marks that they need before them.
"""

from __future__ import annotations

from math import inf

from twisted.trial.unittest import SynchronousTestCase

from usbgate.core.clockmarks import Stamp
from usbgate.core.condition import Condition
from usbgate.core.errors import TimedOut
from usbgate.core.exchanges import Asker
from usbgate.core.fieldline import parse
from usbgate.core.fieldunits import UnitChange
from usbgate.core.holders import Holder
from usbgate.core.messages import parse_request
from usbgate.core.model import AlarmRecord, Answer, ClockMark, Reading, Report, RequestRecord
from usbgate.core.recorder import Contested, Entry, Recorder
from usbgate.core.settings import FieldSettings, SensorSettings


def says(sensor: str, value: str) -> tuple[Report, None]:
    """
    Make what a device says unasked.
    """
    return Report(sensor, None, None, (("VALUE", value),)), None


def kinds(entry: Entry) -> list[str]:
    """
    Name the rows of an entry, in their order.
    """
    return [type(row).__name__ for run in entry.runs for row in run]


class RecorderTests(SynchronousTestCase):
    """
    A recorder that leaves out unchanged readings of sensor 7 and raises alarms of sensor 2.
    """

    def setUp(self) -> None:
        """
        Build it.
        """
        settings = {
            "2": SensorSettings(fields={"VALUE": FieldSettings(alarm=Condition.parse("> 60"))}),
            "7": SensorSettings(store=inf),
        }
        self.recorder = Recorder(settings, lambda: "boot", lambda: "alarm1")
        request = parse_request(parse(b"MSG:J_ID:20_LEVEL:5"), "me", "me:1", parsed=True)
        self.asker = Asker(request, 3.0, None, Holder("me"))

    def record(
        self,
        *handed: tuple[Report, None],
        outcome: Answer | TimedOut | None = None,
        at: int = 10_000,
        device: str = "board",
    ) -> Entry:
        """
        Record, at 12 s, what was decided at 10 s.
        """
        ended = [] if outcome is None else [(outcome, [self.asker])]
        return self.recorder.record(device, handed, ended, Stamp(at, 12.0, True), 12.0, 10.0)

    def test_order(self) -> None:
        """
        The mark comes first, then readings, requests, and changes of alarms, which are returned, too.
        """
        entry = self.record(says("20", "1"), says("2", "61"), outcome=TimedOut())
        self.assertEqual(
            kinds(entry), [each.__name__ for each in (ClockMark, Reading, Reading, RequestRecord, AlarmRecord)]
        )
        self.assertEqual([change.alarm.sensor for change in entry.changes], ["2"])
        self.assertEqual(kinds(self.record(says("20", "1"))), ["Reading"])

    def test_no_mark_alone(self) -> None:
        """
        A mark is made for rows; where there are none it waits for them.
        """
        self.assertEqual(kinds(self.record((Report("20", None, None, ()), None))), [])
        self.assertEqual(kinds(self.record(says("20", "1"))), ["ClockMark", "Reading"])

    def test_held_back_before_the_mark(self) -> None:
        """
        What was held back is stored before the mark of a clock that stepped since, rows or not.
        """
        self.record(says("7", "1"))
        self.assertEqual(kinds(self.record(says("7", "1"))), [])
        entry = self.record(says("7", "1"), at=90_000)
        self.assertEqual(kinds(entry), ["Reading", "ClockMark", "Reading"])
        self.record(says("7", "1"), at=90_000)
        self.assertEqual(kinds(self.record()), ["Reading"])

    def test_end_on_change(self) -> None:
        """
        At the end what was held back is stored, and all that comes later.
        """
        self.record(says("7", "1"))
        self.record(says("7", "1"))
        self.assertEqual(len(self.recorder.end_on_change()), 1)
        self.assertEqual((len(self.recorder.end_on_change()), kinds(self.record(says("7", "1")))), (0, ["Reading"]))

    def test_request(self) -> None:
        """
        A request took until it was decided; its time is when it was accepted, by the clock as it is now.
        """
        answer = Answer(Report("20", "J", None, (("VALUE", "1"),)), "J", 10_000, "board")
        record = self.record(outcome=answer).runs[3][0]
        assert isinstance(record, RequestRecord)
        self.assertEqual((record.at, record.latency_ms, record.outcome), (10_000 - 9_000, 7_000.0, "answered"))
        self.assertEqual((record.device, record.arguments), ("board", "LEVEL:5"))
        self.assertEqual((self.recorder.outcomes, self.recorder.latencies.sum), ({"answered": 1}, 7.0))

    def test_unit_changes(self) -> None:
        """
        A number with a unit has its value and its text; when the unit changes, all values of that field are texts.
        """

        def columns(text: str, device: str = "board") -> tuple[float | None, str | None, int]:
            entry = self.record(says("20", text), device=device)
            reading = next(row for run in entry.runs for row in run if isinstance(row, Reading))
            return reading.value, reading.text, [type(notice) for notice in entry.notices].count(UnitChange)

        self.assertEqual([columns(text) for text in ("900W", "7")], [(900.0, "900W", 0), (7.0, None, 0)])
        self.assertEqual(columns("1.2kW"), (None, "1.2kW", 1))
        for text in ("1.3kW", "900W", "7", "+7", "OK"):
            self.assertEqual(columns(text), (None, text, 0))
        self.assertEqual(columns("7", device="other"), (7.0, None, 0))

    def test_unit_restored(self) -> None:
        """
        The units of stored readings count after a restart.
        """
        for _ in self.recorder.restore({}, [Reading(1, "board", "20", "VALUE", 900.0, "900W", None, True)]):
            pass
        self.assertEqual(len(self.record(says("20", "1.2kW")).notices), 1)
        self.assertEqual(self.recorder.sensors.ids(), ["20"])

    def test_contested(self) -> None:
        """
        That another device reports a sensor is returned once.
        """
        self.record(says("20", "1"))
        self.assertEqual(self.record(says("20", "1"), device="other").notices, [Contested("20", "other", "board")])
        self.assertEqual(self.record(says("20", "1")).notices, [])
        self.assertEqual(self.recorder.readings, 3)
