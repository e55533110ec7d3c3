"""
Settings of sensors that are read anew.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from usbgate.core.alarms import Condition
from usbgate.core.settings import FieldSettings, SensorSettings, show_anew

ABOVE = Condition.parse("> 60")
BELOW = Condition.parse("< 5")


class ShowAnewTests(SynchronousTestCase):
    """
    `show_anew`.
    """

    def test_shown(self) -> None:
        """
        Names, places, units and buttons are the new ones; alarms, owners and how is stored hold until the next start.
        """
        old = SensorSettings(
            name="a",
            device="x",
            store=5.0,
            fields={"T": FieldSettings(unit="K", alarm=ABOVE), "H": FieldSettings(alarm=BELOW)},
        )
        new = SensorSettings(
            name="b",
            place="c",
            device="y",
            fields={"T": FieldSettings(unit="C", alarm=BELOW), "N": FieldSettings(unit="N")},
        )
        expected = SensorSettings(
            name="b",
            place="c",
            device="x",
            store=5.0,
            fields={
                "T": FieldSettings(unit="C", alarm=ABOVE),
                "H": FieldSettings(alarm=BELOW),
                "N": FieldSettings(unit="N"),
            },
        )
        self.assertEqual(show_anew({"1": old}, {"1": new, "2": new}), {"1": expected})
        self.assertEqual(show_anew({"1": old}, {})["1"].name, None)
