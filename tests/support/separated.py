"""
A dialect with an option, as a package other than usbgate may have one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from usbgate.core.errors import Malformed
from usbgate.core.fieldline import is_key, is_sensor_id, reads_back
from usbgate.core.model import Report, Request
from usbgate.device.dialect import DialectBase
from usbgate.device.options import DialectOptions


class Dialect(DialectBase):
    """
    Reads `20;VALUE;456`, with another separator where the option `separator` says so.

    Attributes:
        separators: The separators of all dialects made so far.
    """

    defaults: ClassVar[Mapping[str, object]] = {"baud": 1200, "store": "on change"}
    fields: ClassVar[Mapping[str, Mapping[str, object]]] = {"temp_in": {"kind": "temperature", "label": "Inside"}}
    separators: ClassVar[list[str]] = []

    def configure(self, options: DialectOptions) -> None:
        """
        Take the option.
        """
        self._separator = options.text("separator", ";")
        self.separators.append(self._separator)

    def decode(self, frame: bytes) -> Report | str:
        """
        Read three parts.
        """
        try:
            sensor, field, value = frame.decode().split(self._separator)
        except ValueError:
            raise Malformed("not three parts") from None
        if not (is_sensor_id(sensor) and is_key(field) and reads_back(value)):
            raise Malformed("not a sensor, a field and a value")
        return Report(sensor, None, None, ((field.upper(), value),))

    def encode(self, request: Request, tag: str | None) -> bytes:
        """
        Write two parts.
        """
        return self._separator.join([request.question.command, request.question.sensor]).encode() + b"\n"
