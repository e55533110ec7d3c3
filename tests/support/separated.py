"""
A dialect with an option, as a package other than usbgate may have one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from zope.interface import implementer

from usbgate.core.model import Report, Request
from usbgate.device.interfaces import IDialect


@implementer(IDialect)
class Dialect:
    """
    Reads `20;VALUE;456`, with another separator where the option `separator` says so.

    Attributes:
        separators: The separators of all dialects made so far.
    """

    line_starts = ()
    left_out = 0
    separators: ClassVar[list[str]] = []

    def __init__(self, options: Mapping[str, object] = {}) -> None:
        for key, value in options.items():
            if key != "separator":
                raise ValueError(f"{key}: unknown key, expected separator")
            if not isinstance(value, str) or len(value) != 1:
                raise ValueError(f"separator: expected one character, got {value!r}")
        self._separator = str(options.get("separator", ";"))
        self.separators.append(self._separator)

    def decode(self, line: bytes) -> Report | str:
        sensor, field, value = line.decode().split(self._separator)
        return Report(sensor, None, None, ((field, value),))

    def encode(self, request: Request, tag: str | None) -> bytes:
        return self._separator.join([request.question.command, request.question.sensor]).encode()
