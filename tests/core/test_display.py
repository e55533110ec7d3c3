"""
Text of strangers, as it is shown.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from usbgate.core.display import defused, shown, shown_lines


class ShownTests(SynchronousTestCase):
    """
    `shown` and `shown_lines`.
    """

    def test_escaped(self) -> None:
        """
        What is not seen, turns the direction of writing or commands a terminal is escaped; all other text is kept.
        """
        for text in ("garage/door 21.5 °C", "é 東京 قلعة 🏠", ""):
            self.assertEqual((shown(text), shown_lines(text)), (text, text))
        self.assertEqual(shown("a\u202eb\u200bc\x1b[2Jd\ne\u2066"), r"a\u202eb\u200bc\x1b[2Jd\ne\u2066")
        self.assertEqual(shown("\U000e0041\ufeff"), r"\U000e0041\ufeff")

    def test_lines(self) -> None:
        """
        Line ends and tabs of a log are kept.
        """
        self.assertEqual(shown_lines("a\n\tb\x1b\r\n"), "a\n\tb\\x1b\\r\n")


class FormulaTests(SynchronousTestCase):
    """
    `defused`.
    """

    def test_formulas(self) -> None:
        """
        Formulas get a `'`; numbers and other texts do not.
        """
        for cell in ("=1+1", "+cmd|' /C calc'!A0", "-2+3", "@SUM(A1)", "\t=1", "-", "+1.5C", "-1-"):
            self.assertEqual(defused(cell), "'" + cell)
        for cell in ("", "-1", "+3", "-1.5e-7", "-.5", "-1,5", "1=1", "a-b", "21.5C"):
            self.assertEqual(defused(cell), cell)
