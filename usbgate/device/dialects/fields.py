"""
The dialect of the original firmware: field lines (protocol §2).
"""

from __future__ import annotations

from string import ascii_letters, digits
from typing import NamedTuple

from zope.interface import implementer

from usbgate.core.errors import Malformed
from usbgate.core.fieldline import LINE_LIMIT, is_sensor_id, join_fields, parse
from usbgate.core.model import Report, Request, make
from usbgate.device.interfaces import IDialect

# Keys that usbgate itself gives a meaning to: on a device's line they are left out and counted.
_LEFT_OUT = frozenset(["ORIGIN", "AT", "GW", "DEV", "EVENT", "MAXAGE", "TIMEOUT"])


# A measurement of nothing but these is a value as it stands.
_PLAIN = (ascii_letters + digits + "+-.").encode()

_SHAPES = 4096  # remembered; of at most 1,024 bytes each


class _Shape(NamedTuple):
    # What a line says whose only measurement comes last, all but its value.
    sensor: str
    command: str | None
    tag: None
    field: str


@implementer(IDialect)
class Dialect:
    """
    `ID:20_VALUE:456` in, `MSG:J_ID:20_ORIGIN:TOTO` out.
    """

    line_starts = (b"ID:", b"MSG:", b"TAG:", b"#")

    def __init__(self) -> None:
        self.left_out = 0
        self._shapes: dict[bytes, _Shape] = {}  # by all that stands before the value

    def decode(self, line: bytes) -> Report | str:
        """
        Read one line of a device (see `IDialect.decode`).
        """
        # Most lines differ from an earlier one in their last value only.
        head, _, end = line.rpartition(b":")
        shape = self._shapes.get(head)
        if shape is not None and end and not end.strip(_PLAIN) and len(line) <= LINE_LIMIT:
            sensor, command, tag, field = shape
            return make(Report, (sensor, command, tag, ((field, end.decode()),)))
        if line.startswith(b"#"):
            return line[1:].decode("utf-8", "replace").strip()
        return self._decode(line, head)

    def _decode(self, line: bytes, head: bytes) -> Report:
        fields = parse(line)
        last = next(reversed(fields))
        whole = _LEFT_OUT.isdisjoint(fields)
        if not whole:
            kept = {key: value for key, value in fields.items() if key not in _LEFT_OUT}
            self.left_out += len(fields) - len(kept)
            fields = kept
        sensor = fields.pop("ID", None)
        if sensor is None:
            raise Malformed("no ID")
        if not is_sensor_id(sensor):
            raise Malformed("not a sensor id", repr(sensor))
        command = fields.pop("MSG", None)
        tag = fields.pop("TAG", None)
        if not fields and command is None:
            raise Malformed("no measurement")
        if len(fields) == 1 and last in fields and tag is None and whole and ":" not in fields[last]:
            if len(self._shapes) >= _SHAPES:
                self._shapes.clear()
            self._shapes[head] = _Shape(sensor, command, None, last)
        return Report(sensor, command, tag, tuple(fields.items()))

    def encode(self, request: Request, tag: str | None) -> bytes:
        """
        Write one request (see `IDialect.encode`).
        """
        # Its values were looked at when it was made (see `parse_request`).
        return join_fields(request.fields if tag is None else {**request.fields, "TAG": tag}).encode()
