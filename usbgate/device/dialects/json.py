"""
The dialect of devices that send JSON (RFC 8259), one object a line: rtl_433 with `-F json`, Tasmota's sensors, sketches
with ArduinoJson.

    {"time":"2026-11-29 12:00:00","model":"Prologue-TH","id":93,"temperature_C":21.5}
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from typing import Any

from usbgate.core.errors import Malformed
from usbgate.core.fieldline import EMPTY_VALUE, NO_KEY
from usbgate.core.model import Report, Request
from usbgate.core.spelling import field_name
from usbgate.device.dialect import DialectBase
from usbgate.device.framing import LineFraming
from usbgate.device.options import DialectOptions

LIMIT = 4096  # bytes of a line; Tasmota's longest have about 1,500

NAME_LIMIT = 128  # characters; the name of a value is repeated for each one of an array, and remembered

DEPTH = 8  # levels of objects and arrays; Tasmota has three

# What an Arduino, or a `printf`, makes of a number that is none. JSON has no word for it.
_NO_NUMBER = re.compile(r'"(?:[^"\\]|\\.)*"?|([+-]?\b(?:nan|inf(?:inity)?|ovf)\b)', re.IGNORECASE)

_NO_ID = re.compile(r"[\s_]+")


class _Object(list[tuple[str, Any]]):
    # The pairs of an object in their order; a name may have come twice.
    pass


class Dialect(DialectBase):
    """
    Every number, text, true (1) and false (0) is a field; those of nested objects and arrays have a name such as
    `ENERGY.POWER` and `POWER.0`. A line that begins with neither `{` nor `[` is text; an array holds several objects.

    The options are `id`, the names of the values that together are the sensor's id; `sensor`, the sensor of an object
    without these (by default the device's name); `without`, names of values that are left out; and `command`, the name
    of the value that is the command, for boards that take commands: without it the device only sends.
    """

    def configure(self, options: DialectOptions) -> None:
        ids = options.texts("id", ["id"])
        self._id = ids[0] if ids else ""
        self._ids = [field_name(name) for name in ids]
        self._sensor = options.sensor("sensor", "")
        self._without = {field_name(name) for name in options.texts("without", ["time"])}
        self._command = options.text("command", "")

    def framing(self) -> LineFraming:
        return LineFraming((b"{", b"["), LIMIT)

    def decode(self, frame: bytes) -> str | Sequence[Report]:
        try:
            text = frame.decode("utf-8-sig")
        except UnicodeDecodeError:
            raise Malformed("not UTF-8") from None
        if not text.startswith(("{", "[")):
            return text
        objects = _parse(text)
        if isinstance(objects, _Object):
            objects = [objects]
        if not (isinstance(objects, list) and all(isinstance(each, _Object) for each in objects)):
            raise Malformed("no JSON object")
        return [self._report(each) for each in objects]

    def _report(self, pairs: _Object) -> Report:
        ids: dict[str, str] = {}
        command = None
        values: list[tuple[str, str]] = []
        damages: list[str] = []
        for spelled, value in _flat(pairs, ""):
            if len(spelled) > NAME_LIMIT:
                damages.append(NO_KEY)
                continue
            name = field_name(spelled)
            if value is None:
                damages.append(EMPTY_VALUE)
            elif name in ids:
                raise Malformed("key given twice", name)
            elif name in self._ids:
                ids[name] = _NO_ID.sub("-", value.strip())
            elif self._command and spelled == self._command:
                command = value
            elif name not in self._without:
                values.append((spelled, value))
        sensor = "-".join(ids[name] for name in self._ids if name in ids) if ids else self._sensor or self.device
        return self.report(sensor, values, command, damages)

    def encode(self, request: Request, tag: str | None) -> bytes:
        if not (self._command and self._id):
            return super().encode(request, tag)
        names = {"ID": self._id, "MSG": self._command}
        message = {names.get(key, key.lower()): value for key, value in request.fields.items() if key != "ORIGIN"}
        return json.dumps(message, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def _parse(text: str) -> Any:
    try:
        return _loads(text)
    except ValueError:
        pass
    try:
        return _loads(_NO_NUMBER.sub(lambda found: f'"{found[1]}"' if found[1] else found[0], text))
    except ValueError as error:
        raise Malformed("not JSON", str(error)) from None


def _loads(text: str) -> Any:
    # Numbers stay as they are spelled.
    try:
        return json.loads(text, object_pairs_hook=_Object, parse_int=str, parse_float=str, parse_constant=str)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _flat(value: Any, name: str, depth: int = 0) -> Iterator[tuple[str, str | None]]:
    if depth > DEPTH:
        raise Malformed("nested too deeply")
    if isinstance(value, _Object):
        for key, each in value:
            yield from _flat(each, f"{name}.{key}" if name else key, depth + 1)
    elif isinstance(value, list):
        for index, each in enumerate(value):
            yield from _flat(each, f"{name}.{index}", depth + 1)
    elif isinstance(value, bool):
        yield name, "1" if value else "0"
    else:
        yield name, value
