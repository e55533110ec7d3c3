"""
How the values of fields are shown: `offset`, `scale`, `min` and `max` of `[sensor.ID.field.NAME]` (protocol §3,
Calibration).

The one place where what a device sent becomes what is shown. Pure rules.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from decimal import MAX_EMAX, MIN_EMIN, Context, Decimal
from math import isfinite
from typing import NamedTuple

from usbgate.core.exchanges import Ended, W
from usbgate.core.fieldline import EXACT_DIGITS, format_number, parse_number, parse_value, unit_of
from usbgate.core.model import Answer, Bucket, Range, Reading, StoredAlarm, StoredState
from usbgate.core.settings import FieldSettings, SensorSettings

# As many digits as a double holds for certain: what is shown reads back as it is.
_ROUNDED = Context(EXACT_DIGITS, Emax=MAX_EMAX, Emin=MIN_EMIN)

_PLAIN = 20  # beyond so many digits before or behind the point, a number is spelled with an exponent

_Values = tuple[tuple[str, str], ...]


class Calibration(NamedTuple):
    """
    How a field is shown: `raw * scale + offset`, if that lies between `low` and `high`.
    """

    scale: Decimal
    offset: Decimal
    low: Decimal
    high: Decimal

    @classmethod
    def of(cls, settings: FieldSettings) -> Calibration:
        """
        Return what is configured for a field.
        """
        low, high = settings.min, settings.max
        return cls(
            _exact(settings.scale),
            _exact(settings.offset),
            Decimal("-inf") if low is None else _exact(low),
            Decimal("inf") if high is None else _exact(high),
        )

    def number(self, raw: float) -> float:
        """
        Return what is shown for a plausible number.
        """
        return float(_ROUNDED.fma(_exact(raw), self.scale, self.offset))

    def spell(self, raw: str) -> tuple[str, bool]:
        """
        Return what is shown for a value, with as many decimals as the device sent, or more if they are needed, and with
        its unit; and whether it is plausible. What is no number is shown as it is.
        """
        unit = unit_of(raw)
        bare = raw.removesuffix(unit)
        if parse_number(bare) is None:
            return raw, True
        sent = Decimal(bare)
        is_raw = self.scale == 1 and not self.offset  # also with more digits than can be shown otherwise
        shown = sent if is_raw else _ROUNDED.fma(sent, self.scale, self.offset)
        number = float(shown)
        if not isfinite(number):
            return raw, False
        plausible = self.low <= shown <= self.high
        if is_raw:
            return raw, plausible
        if not -_PLAIN < shown.adjusted() < _PLAIN:
            return format_number(number) + unit, plausible
        whole, _, decimals = f"{shown:f}".partition(".")
        exponent = sent.as_tuple().exponent
        places = -exponent if isinstance(exponent, int) and exponent < 0 else 0
        decimals = decimals[:places] + decimals[places:].rstrip("0")
        return (f"{whole}.{decimals}{unit}" if decimals else whole + unit), plausible

    def range(self, sensor: str, field: str) -> Range:
        """
        Return which raw numbers are plausible.
        """
        ends = [float((end - self.offset) / self.scale) for end in (self.low, self.high)]
        return Range(sensor, field, min(ends), max(ends), self.scale < 0)


def _exact(number: float) -> Decimal:
    # As people write it: 0.1, not the double nearest to it.
    return Decimal(repr(number))


class Implausible(NamedTuple):
    """
    Readings that lie outside of `min` to `max`, since usbgate started.

    Attributes:
        device: The device that sent them.
        sensor: The sensor.
        field: The field.
        readings: How many.
        text: The last one, as the device sent it.
    """

    device: str
    sensor: str
    field: str
    readings: int
    text: str


class Calibrations:
    """
    The calibrated fields, and the newest plausible reading of each.

    Attributes:
        by_sensor: The calibrations by sensor and field; nothing else needs to be converted.
    """

    def __init__(self, settings: Mapping[str, SensorSettings]) -> None:
        """
        Args:
            settings: The configured sensors, by id.
        """
        self.by_sensor: dict[str, dict[str, Calibration]] = {}
        self._plausible: dict[tuple[str, str, str], Reading] = {}  # as many as devices times calibrated fields at most
        self._implausible: dict[tuple[str, str, str], Implausible] = {}  # likewise
        self.configure(settings)

    def configure(self, settings: Mapping[str, SensorSettings]) -> None:
        """
        Take over the settings of sensors.
        """
        self.by_sensor = {}
        for sensor, each in settings.items():
            fields = {field: Calibration.of(about) for field, about in each.fields.items() if about.is_calibrated}
            if fields:
                self.by_sensor[sensor] = fields
        for kept in (self._plausible, self._implausible):
            for key in [key for key in kept if self._find(*key[1:]) is None]:
                del kept[key]

    def _find(self, sensor: str, field: str) -> Calibration | None:
        of_sensor = self.by_sensor.get(sensor)
        return None if of_sensor is None else of_sensor.get(field)

    # What is received.

    def received(self, readings: Sequence[Reading]) -> Sequence[Reading]:
        """
        Return what is shown of readings that a device just sent; remember the plausible ones, and count the others.
        """
        shown = []
        for reading in readings:
            each = self.reading(reading)
            if each is not None:
                shown.append(each)
            key = (reading.device, reading.sensor, reading.field)
            if each is None:
                self._count(key, reading)
            elif reading.field in self.by_sensor[reading.sensor]:
                self._plausible[key] = reading
        return shown

    def _count(self, key: tuple[str, str, str], reading: Reading) -> None:
        before = self._implausible.get(key)
        count = 1 if before is None else before.readings + 1
        self._implausible[key] = Implausible(*key, count, _spelled(reading))

    def restore(self, reading: Reading) -> None:
        """
        Remember a plausible reading of the database, unless a plausible one was received since.
        """
        self._plausible.setdefault((reading.device, reading.sensor, reading.field), reading)

    def implausible(self) -> list[Implausible]:
        """
        List the fields of which readings were not plausible.
        """
        return list(self._implausible.values())

    # What is shown.

    def newest(self, reading: Reading) -> Reading | None:
        """
        Return what is shown for the newest reading of a field: if it is not plausible, the last one that was.
        """
        shown = self.reading(reading)
        if shown is None:
            kept = self._plausible.get((reading.device, reading.sensor, reading.field))
            shown = None if kept is None else self.reading(kept)
        return shown

    def reading(self, reading: Reading) -> Reading | None:
        """
        Return what is shown for a reading; None if it is not plausible.
        """
        shown, plausible = self._convert(reading)
        return shown if plausible else None

    def _convert(self, reading: Reading) -> tuple[Reading, bool]:
        calibration = self._find(reading.sensor, reading.field)
        if calibration is None or reading.value is None:
            return reading, True
        raw = _spelled(reading)
        spelled, plausible = calibration.spell(raw)
        if spelled == raw:
            return reading, plausible
        value, text = parse_value(spelled)
        return reading._replace(value=value, text=text), plausible

    def values(self, sensor: str, values: _Values) -> _Values:
        """
        Return what is shown of the values of a report; those that are not plausible are left out. The same object if
        all are shown as they are.
        """
        of_sensor = self.by_sensor.get(sensor)
        if of_sensor is None:
            return values
        shown = []
        for field, text in values:
            spelled, plausible = of_sensor[field].spell(text) if field in of_sensor else (text, True)
            if plausible:
                shown.append((field, spelled))
        return values if shown == list(values) else tuple(shown)

    def ended(self, ended: Iterable[Ended[W]]) -> list[Ended[W]]:
        """
        Return outcomes of requests with the answers as they are shown, and with raw values beside those that differ.
        """
        return [(self._answer(each) if isinstance(each, Answer) else each, askers) for each, askers in ended]

    def _answer(self, answer: Answer) -> Answer:
        raw = answer.report.values
        values = self.values(answer.report.sensor, raw)
        return answer if values is raw else answer._replace(report=answer.report._replace(values=values), raw=raw)

    # What is shown of what the store selected by `ranges`.

    def stored(self, reading: Reading) -> Reading:
        """
        Return what is shown for a stored reading.
        """
        return self._convert(reading)[0]

    def bucket(self, sensor: str, bucket: Bucket) -> Bucket:
        """
        Return what is shown for an aggregate.
        """
        calibration = self._find(sensor, bucket.field)
        if calibration is None:
            return bucket
        low, high = sorted(map(calibration.number, (bucket.min, bucket.max)))
        return bucket._replace(min=low, avg=calibration.number(bucket.avg), max=high)

    def state(self, sensor: str, state: StoredState) -> StoredState:
        """
        Return what is shown for a state.
        """
        raw = Reading(state.since, state.device, sensor, state.field, state.value, state.text, None, True)
        shown = self.stored(raw)
        return state._replace(value=shown.value, text=shown.text)

    def past_alarm(self, stored: StoredAlarm) -> StoredAlarm:
        """
        Return what is shown for the peak of an alarm, whose own reading is stored as it was shown.
        """
        calibration = self._find(stored.alarm.sensor, stored.alarm.field)
        if calibration is None or stored.peak is None:
            return stored
        return stored._replace(peak=calibration.number(stored.peak))

    def ranges(self, sensor: str | None = None) -> tuple[Range, ...]:
        """
        Return which raw numbers of the calibrated fields are plausible.

        Args:
            sensor: Only of this sensor; None for all.
        """
        sensors = self.by_sensor if sensor is None else {sensor} & self.by_sensor.keys()
        return tuple(each.range(name, field) for name in sensors for field, each in self.by_sensor[name].items())


def _spelled(reading: Reading) -> str:
    if reading.text is not None:
        return reading.text
    assert reading.value is not None
    return format_number(reading.value)
