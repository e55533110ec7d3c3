"""
Names of fields that a device spells with `_`.
"""

from __future__ import annotations

from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.support.draws import given
from usbgate.core.fieldnames import FieldNames, read_name

NUMBERS = [
    b"nan",
    b"NaN",
    b"inf",
    b"-inf",
    b"INF",
    b"ovf",
    b"-ovf",
    b"",
    b" ",
    b"0815",
    b"21.5C",
    b"+5\xc2\xb0C",
    b".5",
]

# What a device says, and the line with the names joined.
JOINED = [
    (b"ID:21_VALUE:3_TEMP_IN:21.5_TEMP_OUT:9", b"ID:21_VALUE:3_TEMP-IN:21.5_TEMP-OUT:9"),
    (b"ID:21_TEMP_IN:21.5", b"ID:21_TEMP-IN:21.5"),
    (b"id:21_temp_in:21.5_", b"id:21_temp-in:21.5_"),
    (b"ID:7_A:1_X_Y_Z:2_B:3", b"ID:7_A:1_X-Y-Z:2_B:3"),
    (b"ID:7_A:-1.5e3_PM2.5_T-1:2", b"ID:7_A:-1.5e3_PM2.5-T-1:2"),
    (b"ID:7_A: 1 _X_Y:2", b"ID:7_A: 1 _X-Y:2"),
    (b"ID:7_N:a_b_A:5_X_Y:2_N2:c_d", b"ID:7_N:a_b_A:5_X-Y:2_N2:c_d"),
    *((b"ID:7_A:%b_X_Y:2" % number, b"ID:7_A:%b_X-Y:2" % number) for number in NUMBERS),
]

# What stays as it is.
KEPT = [
    b"ID:20_VALUE:456",
    b"ID:7_DATE:2026_11_29_TEMP:21",
    b"ID:7_NOTE:12_30",
    b"ID:7_NOTE:12_30_TEMP:4",
    b"ID:7_NOTE:12_x",
    b"ID:7_NOTE:hello_there_TEMP:4",
    b"ID:7_NOTE:12x_there_TEMP:4",
    b"ID:7_T:12:30_X_Y:4",
    b"ID:7_A:1_X_2_Y:3",
    b"ID:7_A:1_2_X_Y:3",
    b"ID:7_A:1_X y_Z:3",
    b"ID:7_A:1__Z:3",
    b"ID:7_A:1_X_5:3",
    b"ID:7_A:1_\xc3\xa9_Z:3",
    b"ID:living_temp_VALUE:21",
    b"ID:2.5_temp_VALUE:21",
    b"ID:\xd9\xa3_temp_VALUE:21",
    b"ID:_temp_VALUE:21",
    b"ID:7_MSG:5_X_Y:2",
    b"ID:7_TAG:5_X_Y:2",
    b"tag:5_X_Y:2_ID:7",
    b"ID:7_A:5_X_MSG:J",
    b"ID:7_A:5_X_TAG:3",
    b"ID:7_A:5_X_OK:1",
    b"A:5_X_ID:7",
    b"X_Y:5_ID:7",
    b"_X:5_ID:7",
    b"ID:7_A:5_X_",
    b"",
    b"_",
]


class FieldNamesTests(SynchronousTestCase):
    """
    Lines, and the lines with the names joined.
    """

    def test_joined(self) -> None:
        """
        Parts between a number and a key belong to the name.
        """
        for line, joined in JOINED:
            self.assertEqual(FieldNames().join(line)[0], joined, line)

    def test_kept(self) -> None:
        """
        Behind a text, with a part that begins no name, before a reserved key, parts continue the value.
        """
        for line in KEPT:
            names = FieldNames()
            self.assertEqual(names.join(line), (line, {}))
            self.assertIsNone(names.first)

    def test_spelled(self) -> None:
        """
        It is returned how each name was spelled, and the first of all lines is remembered.
        """
        names = FieldNames()
        _, spelled = names.join(b"ID:21_V:3_Temp_In:21.5_A-B_C:9")
        self.assertEqual(spelled, {"TEMP-IN": "TEMP_IN", "A-B-C": "A-B_C"})
        names.join(b"ID:21_X_Y:3")
        self.assertEqual(names.first, "TEMP_IN")

    def test_listed(self) -> None:
        """
        A listed name is joined whatever stands before it; the rest continues the value.
        """
        names = FieldNames(["TEMP_IN", "pm_2_5", "IN_IN"], join=False)
        for line, joined in [
            (b"ID:living_TEMP_IN:21", b"ID:living_TEMP-IN:21"),
            (b"ID:7_NOTE:hello_you_temp_in:3", b"ID:7_NOTE:hello_you_temp-in:3"),
            (b"ID:7_MSG:J_TEMP_IN:3", b"ID:7_MSG:J_TEMP-IN:3"),
            (b"TEMP_IN:3_ID:7", b"TEMP-IN:3_ID:7"),
            (b"ID:7_A:1_PM_2_5:3", b"ID:7_A:1_PM-2-5:3"),
            (b"ID:7_A:x_TEMP_IN_IN:3", b"ID:7_A:x_TEMP_IN-IN:3"),
            (b"ID:7_A:1_TEMP_OUT:3", b"ID:7_A:1_TEMP_OUT:3"),
            (b"ID:7_A:1_IN:3", b"ID:7_A:1_IN:3"),
        ]:
            self.assertEqual(names.join(line)[0], joined)
        self.assertIsNone(names.first)

    def test_off(self) -> None:
        """
        With `join` off, only listed names are joined.
        """
        for line, _ in JOINED:
            self.assertEqual(FieldNames(join=False).join(line), (line, {}))

    @given(st.text(alphabet=st.sampled_from("AX1._:-é"), max_size=24))
    def test_only_underscores_change(self, text: str) -> None:
        """
        Whatever a device says, `_` becomes `-` and nothing else changes; to join again changes nothing.
        """
        names = FieldNames(["A_X"])
        line = text.encode()
        joined, _ = names.join(line)
        self.assertEqual(len(joined), len(line))
        self.assertTrue(all(old == new or (old, new) == (95, 45) for old, new in zip(line, joined, strict=True)))

    def test_read_name(self) -> None:
        """
        The configuration may spell a name with `_`; what is no name is none.
        """
        for text, name in [("TEMP_IN", "TEMP-IN"), ("temp-in", "TEMP-IN"), ("pm2.5", "PM2.5"), ("PM_2_5", "PM-2-5")]:
            self.assertEqual(read_name(text), name)
        for text in ("", "_A", "5", "A B", "É", "A:"):
            self.assertEqual(read_name(text), "")
