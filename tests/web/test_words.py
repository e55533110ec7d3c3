"""
The texts of the page: both languages have the same ones, and there is one for each way in which something can fail.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

import usbgate
from tests.support.running import ROOT
from usbgate.core import errors
from usbgate.core.errors import RequestError
from usbgate.device.errors import DeviceBusy, SecondName

LINE = re.compile(r'  ("[^"]+"|\w+): ("(?:[^"\\]|\\.)*"),\n')


def texts(language: str) -> dict[str, str]:
    """
    Return the texts of a language, by key.
    """
    source = (files("usbgate.web") / "page" / f"{language}.js").read_text("utf-8")
    found = LINE.findall(source)
    assert len(found) == source.count("\n  ")  # each line is one
    return {key.strip('"'): json.loads(text) for key, text in found}


def literals(pattern: str) -> Iterator[tuple[str, ...]]:
    """
    Yield the groups of a pattern, wherever it is in the source.
    """
    for path in Path(usbgate.__file__).parent.rglob("*.py"):
        yield from re.findall(pattern, path.read_text("utf-8"))


class WordsTests(SynchronousTestCase):
    """
    English and French.
    """

    def setUp(self) -> None:
        """
        Read the texts.
        """
        self.languages = [texts("english"), texts("french")]

    def assert_text(self, key: str) -> None:
        """
        Check that there is a text in both languages.
        """
        for each in self.languages:
            self.assertIn(key, each)

    def test_same(self) -> None:
        """
        Both languages have the same texts, with the same parts that vary.
        """
        english, french = self.languages
        self.assertEqual(list(english), list(french))
        for key, text in english.items():
            self.assertEqual({*re.findall(r"{\w+}", text)}, {*re.findall(r"{\w+}", french[key])}, key)

    def test_codes(self) -> None:
        """
        Each error code has a text, as a problem and as the outcome of a request.
        """
        classes = [each for each in vars(errors).values() if isinstance(each, type) and issubclass(each, RequestError)]
        for code in {each.code for each in classes if each is not RequestError}:
            self.assert_text(f"problem.{code}")
            self.assert_text(f"outcome.{code}")

    def test_reasons(self) -> None:
        """
        Each reason that an error of a call can have has a text, and docs/http.md has it.
        """
        codes = {"Unknown": "unknown", "StoreUnavailable": "failed", "Denied": "denied", "Unauthenticated": "denied"}
        found = {*literals(rf'({"|".join(codes)})\([^()]*(?:\([^()]*\))?[^()]*, "([a-z ]+)"(?:, [\w.]+)?,?\s*\)')}
        self.assertIn(("Unknown", "no such alarm"), found)
        http = (ROOT / "docs" / "http.md").read_text("utf-8")
        for name, reason in found:
            self.assert_text(f"problem.{codes[name]}.{reason}")
            self.assertIn(f"`{reason}`", http)

    def test_reasons_given(self) -> None:
        """
        Each reason that has a text, or is in docs/http.md, is given by something.
        """
        given = {reason for _, reason in literals(r'(")([a-z ]+)"')}
        worded = {key.split(".")[2] for key in self.languages[0] if re.fullmatch(r"problem\.\w+\..+", key)}
        _, _, behind = (ROOT / "docs" / "http.md").read_text("utf-8").partition("| `code` | `reason` |")
        rows = behind.partition("\n\n")[0].splitlines()
        documented = {reason for row in rows for reason in re.findall("`([^`]+)`", row)[1:]}
        self.assertIn("no such alarm", worded & documented)
        self.assertEqual((worded | documented) - given, set())

    def test_warnings(self) -> None:
        """
        Each warning about a device has a text.
        """
        reasons = {reason for _, reason in literals(r'(DeviceWarning)\("([a-z ]+)"')}
        self.assertEqual(reasons, {"port shared", "name not unique"})
        for reason in {*reasons, DeviceBusy.reason, SecondName.reason}:
            self.assert_text(f"warning.{reason}")
