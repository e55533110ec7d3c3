"""
The dialect of the original firmware: field lines (protocol §2).
"""

from __future__ import annotations

from zope.interface import implementer

from usbgate.fieldline import is_sensor_id, join_fields, parse
from usbgate.interfaces import IDialect
from usbgate.model import Malformed, Report, Request

# Keys that usbgate itself gives a meaning to: on a device's line they are left out and counted.
_LEFT_OUT = frozenset(["ORIGIN", "AT", "GW", "DEV", "EVENT", "MAXAGE", "TIMEOUT"])


@implementer(IDialect)
class Dialect:
    """
    `ID:20_VALUE:456` in, `MSG:J_ID:20_ORIGIN:TOTO` out.
    """

    line_starts = (b"ID:", b"MSG:", b"TAG:", b"#")

    def __init__(self) -> None:
        self.left_out = 0

    def decode(self, line: bytes) -> Report | str:
        """
        Read one line of a device (see `IDialect.decode`).
        """
        if line.startswith(b"#"):
            return line[1:].decode("utf-8", "replace").strip()
        fields = parse(line)
        if not _LEFT_OUT.isdisjoint(fields):
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
        return Report(sensor, command, tag, tuple(fields.items()))

    def encode(self, request: Request, tag: str | None) -> bytes:
        """
        Write one request (see `IDialect.encode`).
        """
        # Its values were looked at when it was made (see `parse_request`).
        return join_fields(request.fields if tag is None else {**request.fields, "TAG": tag}).encode()
