"""
What is shown of what devices send.
"""

from __future__ import annotations

from decimal import Decimal
from math import inf

from hypothesis.strategies import decimals
from twisted.trial.unittest import SynchronousTestCase

from tests.support.draws import given
from usbgate.core.calibration import Calibration, Calibrations, Implausible
from usbgate.core.fieldline import parse_value
from usbgate.core.model import Bucket, Range
from usbgate.core.settings import FieldSettings, SensorSettings
from usbgate.testing import reading

_numbers = decimals(-10_000, 10_000, places=3)


def calibration(
    scale: float = 1.0, offset: float = 0.0, low: float | None = None, high: float | None = None
) -> Calibration:
    """
    Return a calibration.
    """
    return Calibration.of(FieldSettings(scale=scale, offset=offset, min=low, max=high))


class SpellTests(SynchronousTestCase):
    """
    `Calibration.spell`.
    """

    def test_numbers(self) -> None:
        """
        The arithmetic is decimal; as many decimals are shown as the device sent, or more if they are needed.
        """
        for raw, scale, offset, shown in (
            ("21.4", 1.0, 0.1, "21.5"),
            ("21.3", 1.0, 0.1, "21.4"),
            ("21.50", 1.0, -0.4, "21.10"),
            ("0.3", 3.0, 0.0, "0.9"),
            ("215", 0.1, 0.0, "21.5"),
            ("220", 0.1, 0.0, "22"),
            ("21.5", 1.8, 32.0, "70.7"),
            ("513", 0.0009765625, 0.0, "0.5009765625"),
            ("1", 0.333333333333333333, 0.0, "0.333333333333333"),
            ("5", -1.0, 2.0, "-3"),
            ("0", -1.0, 0.0, "0"),
            ("-0", 2.0, 0.0, "0"),
            (".5", 10.0, 0.0, "5.0"),
            ("1e3", 0.1, 0.0, "100"),
            ("0815", 2.0, 0.0, "1630"),
            ("1e300", 10.0, 0.0, "1e+301"),
            ("1e-30", 10.0, 0.0, "1e-29"),
            ("21.4°C", 1.0, 0.1, "21.5°C"),
            ("21.40%RH", 2.0, 0.0, "42.80%RH"),
        ):
            self.assertEqual(calibration(scale, offset).spell(raw), (shown, True), raw)

    def test_texts(self) -> None:
        """
        What is no number is shown as it is, even with limits.
        """
        for raw in ("nan", "OK", "21.4 °C", "21,4", "1_000", "1e400", "0x10", "--3", "1.2foo"):
            self.assertEqual(calibration(2.0, 1.0, 0.0, 1.0).spell(raw), (raw, True))

    def test_limits(self) -> None:
        """
        What lies between the limits, or on them, is plausible; so is not what is no finite number.
        """
        for raw, plausible in (("600", True), ("600.1", False), ("-400", True), ("-401", False), ("-100", True)):
            self.assertEqual(calibration(0.1, 0.0, -40.0, 60.0).spell(raw)[1], plausible, raw)
        self.assertEqual(calibration(-1.0, 0.0, None, 5.0).spell("-6"), ("6", False))
        self.assertEqual(calibration(1e10).spell("1e300"), ("1e300", False))

    def test_limits_alone(self) -> None:
        """
        Limits change no spelling and no digit.
        """
        for raw in ("21.50", "12345678901234567890", "0815", "+3", "5."):
            self.assertEqual(calibration(low=-1.0).spell(raw), (raw, True))

    @given(_numbers, _numbers.filter(bool), _numbers)
    def test_exact(self, raw: Decimal, scale: Decimal, offset: Decimal) -> None:
        """
        What is shown is the exact result; it is a plain decimal that reads back as the number itself; and a raw number
        is within the range exactly if it is plausible.
        """
        exact = raw * scale + offset
        low, high = sorted((offset, scale))
        found = calibration(float(scale), float(offset), float(low), float(high))
        shown, plausible = found.spell(str(raw))
        self.assertEqual(Decimal(shown), exact)
        self.assertEqual(parse_value(shown), (float(exact), None))
        self.assertEqual(plausible, low <= exact <= high)
        of = found.range("20", "TEMP")
        near = min(abs(exact - low), abs(exact - high)) < Decimal("1e-6")
        self.assertTrue(near or plausible == (of.low <= float(raw) <= of.high))
        self.assertEqual(found.number(float(raw)), float(exact))


class CalibrationsTests(SynchronousTestCase):
    """
    `Calibrations`.
    """

    def setUp(self) -> None:
        """
        Calibrate one field.
        """
        self.settings = {
            "20": SensorSettings(
                fields={"VALUE": FieldSettings(scale=-0.1, min=-5.0, max=60.0), "HUM": FieldSettings(unit="%")}
            ),
            "21": SensorSettings(fields={"VALUE": FieldSettings(unit="%")}),
        }
        self.calibrations = Calibrations(self.settings)

    def test_by_sensor(self) -> None:
        """
        Only sensors with calibrated fields need to be looked at.
        """
        self.assertEqual(self.calibrations.by_sensor.keys(), {"20"})

    def test_values(self) -> None:
        """
        A report keeps its order, loses what is not plausible, and is the same object if nothing changes.
        """
        values = (("HUM", "1"), ("VALUE", "10"), ("BAT", "3"))
        self.assertEqual(self.calibrations.values("20", values), (("HUM", "1"), ("VALUE", "-1"), ("BAT", "3")))
        self.assertEqual(self.calibrations.values("20", (("VALUE", "1000"), ("BAT", "3"))), (("BAT", "3"),))
        self.assertIs(self.calibrations.values("21", values), values)
        rest = (("HUM", "1"), ("VALUE", "OK"))
        self.assertIs(self.calibrations.values("20", rest), rest)

    def test_newest(self) -> None:
        """
        In place of a newest reading that is not plausible, the last plausible one of that device is shown; the others
        are counted.
        """
        good, bad, other = reading(10.0), reading(1000.0), reading(20.0, device="uno")
        self.assertEqual(self.calibrations.received([good]), [reading(-1.0)])
        self.calibrations.received([other])
        self.assertEqual(self.calibrations.received([bad, reading(7.0, field="HUM")]), [reading(7.0, field="HUM")])
        self.assertEqual(self.calibrations.newest(bad), reading(-1.0))
        self.assertIsNone(self.calibrations.newest(bad._replace(device="third")))
        self.assertEqual(self.calibrations.implausible(), [Implausible("leonardo", "20", "VALUE", 1, "1000")])
        self.calibrations.restore(reading(30.0))
        self.assertEqual(self.calibrations.newest(bad), reading(-1.0))
        self.calibrations.restore(reading(30.0, device="third"))
        self.assertEqual(self.calibrations.newest(bad._replace(device="third")), reading(-3.0, device="third"))

    def test_configure(self) -> None:
        """
        Other settings hold for what is known already; counts and readings of fields without any are forgotten.
        """
        good, bad = reading(10.0), reading(1000.0)
        self.calibrations.received([good])
        self.calibrations.received([bad])
        self.calibrations.configure({"20": SensorSettings(fields={"VALUE": FieldSettings(scale=2.0, max=60.0)})})
        self.assertEqual(self.calibrations.newest(bad), reading(20.0))
        self.calibrations.configure({})
        self.assertEqual(self.calibrations.newest(bad), bad)
        self.assertEqual(self.calibrations.implausible(), [])

    def test_units(self) -> None:
        """
        A number with a unit keeps it, and a reading of a field that has become text stays as it is.
        """
        self.assertEqual(self.calibrations.reading(reading(10.0, text="10V")), reading(-1.0, text="-1V"))
        text = reading("10V")
        self.assertEqual(self.calibrations.reading(text), text)

    def test_bucket(self) -> None:
        """
        With a negative scale, the lowest is shown for the highest; rounding noise of a mean does not show.
        """
        bucket = Bucket(0, "leonardo", "VALUE", 1.0, 21.299999999999997, 30.0, 3)
        self.assertEqual(self.calibrations.bucket("20", bucket), bucket._replace(min=-3.0, avg=-2.13, max=-0.1))
        self.assertEqual(self.calibrations.bucket("21", bucket), bucket)

    def test_ranges(self) -> None:
        """
        The store selects raw numbers.
        """
        falling = Range("20", "VALUE", -600.0, 50.0, True)
        self.assertEqual(self.calibrations.ranges(), (falling,))
        self.assertEqual(self.calibrations.ranges("20"), (falling,))
        self.assertEqual(self.calibrations.ranges("21"), ())
        self.assertEqual(calibration(2.0).range("1", "A"), Range("1", "A", -inf, inf, False))
