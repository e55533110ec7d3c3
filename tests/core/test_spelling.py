"""
Names from elsewhere (protocol §2).
"""

from __future__ import annotations

import re

from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.support.draws import given
from tests.support.running import ROOT
from usbgate.core.errors import Malformed
from usbgate.core.fieldline import NOT_MEASUREMENTS, is_key
from usbgate.core.spelling import Spellings, field_name

NAMES = {
    "temperature_C": "TEMPERATURE-C",
    "ENERGY.Power": "ENERGY.POWER",
    "Température extérieure": "TEMPERATURE-EXTERIEURE",
    "  soil  moisture % ": "SOIL-MOISTURE",
    "PM2.5": "PM2.5",
    "__x__": "X",
    "2nd": "X-2ND",
    "id": "X-ID",
    "Tag": "X-TAG",
    "at": "X-AT",
    "ok": "OK",
    "漢": "",
    "-.-": "",
    "": "",
    "1-0:1.8.1": "IMPORT-T1",
    "1-0:1.8.1*255": "IMPORT-T1",
    "1-0:52.7.0": "VOLTAGE-L2",
    "0-0:96.14.0": "TARIFF",
    "0-1:24.2.1": "MBUS1",
    "0-2:96.1.0": "MBUS2-METER",
    "1-0:99.99.99": "OBIS-99.99.99",
    "7-0:3.0.0": "OBIS-7-0-3.0.0",
}


class FieldNameTests(SynchronousTestCase):
    """
    The rule.
    """

    def test_names(self) -> None:
        """
        Names from elsewhere become those of the table.
        """
        for text, name in NAMES.items():
            self.assertEqual(field_name(text), name, text)

    @given(st.text())
    def test_any(self, text: str) -> None:
        """
        Whatever the text, the name is empty, or one that a measurement may have; and it stays as it is.
        """
        name = field_name(text)
        if name:
            self.assertTrue(is_key(name), name)
            self.assertNotIn(name, NOT_MEASUREMENTS | {"TAG"})
            self.assertEqual(field_name(name), name)

    def test_documented(self) -> None:
        """
        The table of OBIS codes in the documentation is what the rule does.
        """
        text = (ROOT / "docs" / "protocol.md").read_text()
        rows = re.findall(r"(?m)^\| `([0-9]+-[0-9n]+:[0-9.]+)` \| `([A-Z0-9n-]+)` \|", text)
        self.assertGreater(len(rows), 20)
        for code, name in rows:
            self.assertEqual(field_name(code.replace("n", "3")), name.replace("n", "3"))

    def test_spellings(self) -> None:
        """
        A second spelling of a name is refused for the same sensor, and the first conflict is kept in words.
        """
        spellings = Spellings()
        spellings.check("20", "TEMP-IN", "temp_in")
        spellings.check("21", "TEMP-IN", "TEMP_IN")
        spellings.check("20", "TEMP-IN", "temp_in")
        self.assertIsNone(spellings.conflict)
        self.assertRaises(Malformed, spellings.check, "20", "TEMP-IN", "temp-in")
        self.assertRaises(Malformed, spellings.check, "21", "TEMP-IN", "temp-in")
        self.assertEqual(spellings.conflict, "sensor 20 has temp_in and temp-in, which are the same name: refused")
