"""
Texts with placeholders.
"""

from __future__ import annotations

import json

from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.support.draws import given
from usbgate.rules.conditions import SensorField
from usbgate.rules.language import LanguageError
from usbgate.rules.texts import LENGTH_LIMIT, JsonTemplate, Placeholder, Template

VALUES = {"value": "21.5", "name": 'a "b"\r\nBcc: x\u2028', SensorField("20", "TEMP"): "0815", "place": "x" * 1000}


def value(placeholder: Placeholder) -> str:
    """
    Return what is put in.
    """
    return VALUES[placeholder]


class TemplateTests(SynchronousTestCase):
    """
    Plain texts, and tables.
    """

    def test_fill(self) -> None:
        """
        Placeholders become values, doubled braces become braces; line ends in values become spaces, and long values are
        cut.
        """
        for text, filled in (
            ("", ""),
            ("no {{value}}", "no {value}"),
            ("{value}{value}°C", "21.521.5°C"),
            ("a\n{name}!", 'a\na "b" Bcc: x !'),
            ("{sensor 20 temp}", "0815"),
            ("{place}", "x" * 200),
        ):
            self.assertEqual(Template.parse(text).fill(value), filled)

    def test_refused(self) -> None:
        """
        An error has the column and a remedy.
        """
        for text, line in (
            ("a {vale}", "column 3: {vale}: unknown placeholder, did you mean {value}?"),
            (
                "{sensor 20}",
                "column 1: {sensor 20}: unknown placeholder, expected one of rule, when, time, gateway, sensor, field, "
                "value, name, place or sensor ID FIELD",
            ),
            ("a { b", "column 3: a single {; write {{ for one in the text"),
            ("a }", "column 3: a single }; write }} for one in the text"),
            ("{time}" * 51, "column 301: expected at most 50 placeholders"),
            ("x" * (LENGTH_LIMIT + 1), "column 4001: expected at most 4,000 characters, got 4,001"),
        ):
            self.assertEqual(str(self.assertRaises(LanguageError, Template.parse, text)), line)

    def test_json(self) -> None:
        """
        A table becomes JSON, whatever the values are; a text that is a number alone becomes one.
        """
        table = {"n": "{value}", "id": "{sensor 20 TEMP}", "t": "is {value}", "x": ["{name}", 1, True, {"y": None}]}
        template = JsonTemplate.parse(table)
        filled = json.loads(template.fill(value))
        self.assertEqual(
            filled, {"n": 21.5, "id": "0815", "t": "is 21.5", "x": ['a "b" Bcc: x ', 1, True, {"y": None}]}
        )
        self.assertEqual([*template.fields()], [SensorField("20", "TEMP")])
        self.assertRaises(LanguageError, JsonTemplate.parse, {"x": ["{valu}"]})
        self.assertRaises(LanguageError, JsonTemplate.parse, {"x": "y" * LENGTH_LIMIT})
        self.assertRaises(LanguageError, JsonTemplate.parse, {"x": ["{value}" * 26] * 2})
        self.assertRaises(ValueError, JsonTemplate.parse, {"x": float("nan")})

    @given(st.text(max_size=300))
    def test_any_value(self, text: str) -> None:
        """
        Whatever a device sends, a filled text has one line, and a filled table is JSON with one key.
        """
        self.assertLessEqual(len(Template.parse("{value}").fill(lambda _: text).splitlines()), 1)
        self.assertEqual([*json.loads(JsonTemplate.parse({"v": "{value}"}).fill(lambda _: text))], ["v"])
