"""
What the tests of several dialects share.
"""

from __future__ import annotations

import re
from pathlib import Path
from unittest import TestCase

from usbgate.core.model import Request
from usbgate.device.interfaces import IDialect

RECORDINGS = Path(__file__).parents[1] / "device" / "dialects"


def send(dialect: IDialect, asked: Request) -> bytes:
    """
    Send a request, as a link does; return the message.
    """
    message = dialect.encode(asked, None)
    dialect.sent(asked)
    return message


def assert_labelled(case: TestCase, name: str, dialect: IDialect) -> None:
    """
    All fields that a dialect's recordings have are known to it, and all that it knows have labels in both languages.
    """
    for file in RECORDINGS.glob(f"{name}.*.txt"):
        lines = [line for line in file.read_text().splitlines() if line.startswith("ID:")]
        found = {key for line in lines for key in re.findall("_([A-Z][A-Z0-9+-]*):", line)}
        case.assertEqual(found - dialect.fields.keys(), set(), file.name)
    for key, about in dialect.fields.items():
        label = about["label"]
        assert isinstance(label, dict)
        case.assertEqual([*label], ["en", "fr"], key)
