"""
The units of fields: a field with two units is text from then on.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from usbgate.core.fieldunits import FIELDS_REMEMBERED, FieldUnits, UnitChange
from usbgate.core.model import Reading

POWER = ("board", "7", "POWER")


def stored(text: str | None, value: float | None) -> Reading:
    """
    Make the newest stored reading of `POWER`.
    """
    return Reading(1, *POWER, value, text, None, True)


class FieldUnitsTests(SynchronousTestCase):
    """
    One field after the other.
    """

    def setUp(self) -> None:
        """
        Begin without fields.
        """
        self.units = FieldUnits()

    def test_change(self) -> None:
        """
        The first value with another unit is returned, no later one; the field is mixed from then on.
        """
        for text in ["900W", "+900W", "0815", "905W"]:
            self.assertIsNone(self.units.received(POWER, text))
        self.assertNotIn(POWER, self.units.mixed)
        self.assertEqual(self.units.received(POWER, "1.2kW"), UnitChange("board", "7", "POWER", "W", "kW"))
        self.assertIn(POWER, self.units.mixed)
        for text in ["900W", "1.2kW", "3MW"]:
            self.assertIsNone(self.units.received(POWER, text))

    def test_series(self) -> None:
        """
        Devices, sensors and fields are independent.
        """
        for series in [POWER, ("other", "7", "POWER"), ("board", "8", "POWER"), ("board", "7", "ENERGY")]:
            self.assertIsNone(self.units.received(series, f"5{'W' if series == POWER else 'V'}"))
        self.assertFalse(self.units.mixed)

    def test_restored(self) -> None:
        """
        After a restart, the newest stored reading says the unit, or that the field is mixed.
        """
        self.units.restore([stored("900W", 900.0)])
        self.assertIsNotNone(self.units.received(POWER, "1.2kW"))
        for text in ["1.2kW", "12"]:
            units = FieldUnits()
            units.restore([stored(text, None)])
            self.assertIn(POWER, units.mixed)
        units = FieldUnits()
        units.restore([stored("OK", None), stored(None, 5.0), stored("+3", 3.0)])
        self.assertIsNone(units.received(POWER, "1.2kW"))
        self.assertFalse(units.mixed)

    def test_received_before_restored(self) -> None:
        """
        A unit received since the start counts, not the stored one.
        """
        self.units.received(POWER, "1.2kW")
        self.units.restore([stored("900W", 900.0)])
        self.assertIsNone(self.units.received(POWER, "1.3kW"))

    def test_bounded(self) -> None:
        """
        However many fields devices make up, so many are remembered.
        """
        for text in ["1W", "1V"]:
            for number in range(FIELDS_REMEMBERED + 2):
                self.units.received(("board", str(number), "A"), text)
        self.assertLessEqual(len(self.units.mixed), FIELDS_REMEMBERED)
        self.assertIsNone(self.units.received(POWER, "1W"))
