"""
A dialect with an option, as a package other than usbgate may have one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from zope.interface import implementer

from usbgate.core.errors import Malformed
from usbgate.core.fieldline import is_key, is_sensor_id, reads_back
from usbgate.core.model import Report, Request
from usbgate.device.interfaces import IDialect

OPTIONS = ("separator",)


@implementer(IDialect)
class Dialect:
    """
    Reads `20;VALUE;456`, with another separator where the option `separator` says so.

    Attributes:
        separators: The separators of all dialects made so far.
    """

    line_starts = ()
    echo_mark = None
    left_out = 0
    tags = False
    separators: ClassVar[list[str]] = []

    def __init__(self, options: Mapping[str, object] = {}) -> None:
        for key, value in options.items():
            if key != "separator":
                raise ValueError(f"{key}: unknown key, expected separator")
            if not isinstance(value, str) or len(value) != 1:
                raise ValueError(f"separator: expected one character, got {value!r}")
        self._separator = str(options.get("separator", ";"))
        self.notices: list[str] = []
        self.separators.append(self._separator)

    def decode(self, line: bytes) -> Report | str:
        try:
            sensor, field, value = line.decode().split(self._separator)
        except ValueError:
            raise Malformed("not three parts") from None
        if not (is_sensor_id(sensor) and is_key(field) and reads_back(value)):
            raise Malformed("not a sensor, a field and a value")
        return Report(sensor, None, None, ((field.upper(), value),))

    def encode(self, request: Request, tag: str | None) -> bytes:
        return self._separator.join([request.question.command, request.question.sensor]).encode()
