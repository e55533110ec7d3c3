"""
What is noted of all that is heard and asked: the rows to store, the sensors that are known, and what is counted.

Pure rules; the time comes in.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from usbgate.core.alarms import Alarms, Change
from usbgate.core.clockmarks import ClockWatch, Stamp
from usbgate.core.containers import BoundedDict
from usbgate.core.errors import RequestError
from usbgate.core.fieldline import EXACT_DIGITS, format_line, parse_number
from usbgate.core.latencies import LatencyHistogram
from usbgate.core.model import Answer, ClockMark, Question, Reading, Report, Request, RequestRecord, Row, make
from usbgate.core.onchange import OnChangeFilter
from usbgate.core.sensors import KnownSensors

_UNSAID = 1000  # sensors of which it is remembered that two links speaking for them was said


@dataclass(eq=False, slots=True)
class Asked:
    """
    A request that was accepted.

    Attributes:
        request: The request.
        started: When that was, in monotonic seconds.
    """

    request: Request
    started: float


class Entry(NamedTuple):
    """
    What was noted at one moment.

    Attributes:
        runs: Rows to store, in this order.
        changes: What happened to alarms, to be told.
        contested: Each sensor that another device spoke for before, the first time: its id, this device, that device.
    """

    runs: Sequence[Sequence[Row]]
    changes: Sequence[Change]
    contested: Sequence[tuple[str, str, str]] = ()


class Recorder:
    """
    Makes rows of what happens, in the order in which they are stored: a mark of the clocks before those that need it.

    Attributes:
        sensors: The known sensors.
        alarms: The alarms.
        readings: Measurements read.
        outcomes: Requests that ended, by outcome.
        latencies: How long the answers took that a device gave.
    """

    def __init__(self, clock_watch: ClockWatch, alarms: Alarms, thinning: OnChangeFilter | None) -> None:
        """
        Begin with nothing noted.

        Args:
            clock_watch: Tells which rows need a mark of the clocks before them.
            alarms: Minds what is an alarm.
            thinning: Leaves readings out; None to store all.
        """
        self.sensors = KnownSensors()
        self.alarms = alarms
        self.readings = 0
        self.outcomes: Counter[str] = Counter()
        self.latencies = LatencyHistogram()
        self._clock_watch = clock_watch
        self._thinning = thinning
        self._contested: BoundedDict[str, None] = BoundedDict(_UNSAID)

    def enter(
        self,
        device: str | None,
        handed: Sequence[tuple[Report, Question | None]],
        endings: Sequence[tuple[Asked, Answer | RequestError]],
        stamp: Stamp,
        now: float,
        decided: float,
    ) -> Entry:
        """
        Note what a device said, and which requests ended.

        Args:
            device: Its name; None where no device could be told.
            handed: Reports, each with the question that it answered.
            endings: Requests, each with what became of it.
            stamp: This moment.
            now: This moment, in monotonic seconds.
            decided: When `endings` were decided, in monotonic seconds: some turns of the reactor ago, perhaps.
        """
        contested: list[tuple[str, str, str]] = []
        held, marks = self._before(stamp)
        readings, changes = self._note(device, handed, stamp, now, contested) if device and handed else ([], [])
        requests = [self._ended(asked, outcome, device, stamp, now, decided) for asked, outcome in endings]
        return Entry(self._runs(held, marks, readings, requests, changes), changes, contested)

    def enter_changes(self, changes: Sequence[Change], stamp: Stamp) -> Entry:
        """
        Note what happened to alarms at this moment.
        """
        return Entry(self._runs(*self._before(stamp), (), (), changes), changes)

    def end_thinning(self) -> Sequence[Reading]:
        """
        Return what was left out until now and must be stored at the end; what still comes is stored as it is.
        """
        thinning, self._thinning = self._thinning, None
        return () if thinning is None else thinning.end()

    def _before(self, stamp: Stamp) -> tuple[Sequence[Reading], Sequence[ClockMark]]:
        # The mark that rows with this stamp need before them, if any, and before that what was held back until then.
        mark = self._clock_watch.due(stamp)
        if mark is None:
            return (), ()
        return () if self._thinning is None else self._thinning.end(), (mark,)

    def _runs(
        self,
        held: Sequence[Reading],
        marks: Sequence[ClockMark],
        readings: Sequence[Reading],
        requests: Sequence[RequestRecord],
        changes: Sequence[Change],
    ) -> Sequence[Sequence[Row]]:
        # No mark alone: a gap in the numbers where one was lost is then longer than where one row was set aside.
        if not (readings or requests or changes):
            return (held,) if held else ()
        for mark in marks:
            self._clock_watch.noted(mark)
        return (held, marks, readings, requests, [change.record for change in changes])

    def _note(
        self,
        device: str,
        handed: Sequence[tuple[Report, Question | None]],
        stamp: Stamp,
        now: float,
        contested: list[tuple[str, str, str]],
    ) -> tuple[Sequence[Reading], Sequence[Change]]:
        at, _, trusted = stamp
        thinning = self._thinning
        noted: list[Reading] = []
        changes: list[Change] = []
        for report, question in handed:
            sensor, _, _, values = report
            command = question.command if question is not None else None
            readings = []
            for field, text in values:
                number = parse_number(text)
                kept = text if number is None or len(text) > EXACT_DIGITS else None
                readings.append(make(Reading, (at, device, sensor, field, number, kept, command, trusted)))
            before = self.sensors.heard(sensor, device, at, readings)
            if before is not None and sensor not in self._contested:
                self._contested.remember(sensor, None)
                contested.append((sensor, device, before))
            self.readings += len(readings)
            if self.alarms.minding:
                changes += self.alarms.noted(readings)
            noted += readings if thinning is None else thinning.keep(readings, now)
        return noted, changes

    def _ended(
        self,
        asked: Asked,
        outcome: Answer | RequestError,
        device: str | None,
        stamp: Stamp,
        now: float,
        decided: float,
    ) -> RequestRecord:
        name = outcome.code if isinstance(outcome, RequestError) else "recent" if outcome.recent else "answered"
        self.outcomes[name] += 1
        if name == "answered":
            self.latencies.add(decided - asked.started)
        request = asked.request
        sensor, command, arguments = request.question
        told = {k: v for k, v in request.fields.items() if (k, v) in arguments} if arguments else None
        return RequestRecord(
            # When it was accepted, by the clock as it is now: the mark before this row tells of no other.
            stamp.at - round((now - asked.started) * 1000),
            request.origin,
            request.client,
            device,
            sensor,
            command,
            format_line(told) if told else None,
            name,
            round((decided - asked.started) * 1000, 3),
            stamp.trusted,
        )
