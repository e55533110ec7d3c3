"""
The dialect of the original firmware: field lines (protocol §2).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from string import ascii_letters, digits
from typing import NamedTuple

from usbgate.core.containers import BoundedDict
from usbgate.core.errors import Malformed
from usbgate.core.fieldline import (
    LINE_LIMIT,
    NO_KEY,
    NOT_MEASUREMENTS,
    RESERVED,
    checksum,
    is_key,
    is_sensor_id,
    join_fields,
    parse,
    parse_whole_fields,
    without_checksum,
)
from usbgate.core.fieldnames import FieldNames, has_parts, read_name
from usbgate.core.model import Report, Request, make
from usbgate.device.dialect import DialectBase
from usbgate.device.framing import LineFraming
from usbgate.device.options import DialectOptions

# Fields with these keys are left out of a device's lines, and counted.
_LEFT_OUT = NOT_MEASUREMENTS - {"MSG", "ID"}

# A value of only these characters needs no further check.
_PLAIN = (ascii_letters + digits + "+-.").encode()

LINE_STARTS = (b"ID:", b"MSG:", b"TAG:", b"#")

_CHECKSUM = re.compile(rb"\*[0-9A-Fa-f]{2}")

# Bytes of the shapes remembered: 25,000 of short lines, 3,600 of the longest.
SHAPES_LIMIT = 8 << 20
SHAPE_SIZE = 300  # approximate bytes of a shape without its texts, which are at most twice as long as its head

USUAL_KEYS_LIMIT = 4096  # at most 1,024 bytes each

# Names that end in ID remembered, with their sensors, at most 1,024 bytes each; one that was forgotten costs a line.
ID_NAMES_LIMIT = 4096

TWO_LINES = "two lines in one"  # the reason why such a line is malformed


def may_be_two(line: bytes) -> bool:
    """
    Return whether to look for two lines in a line of which no key ends in `ID`.
    """
    upper = line.upper()
    return upper.count(b"ID:") != 1 or upper.count(b"MSG:") != upper.startswith(b"MSG:") + upper.count(b"_MSG:")


def names_in_one_line(line: bytes) -> list[bytes]:
    """
    Return the names in a line, other than `ID`, that end in `ID`, in upper case: each may be one torn by another line.

    Raises:
        Malformed: There are two lines in it: `ID` occurs twice, or `ID:` or `MSG:` in a value.
    """
    names: list[bytes] = []
    ids = 0
    for segment in line.upper().split(b"_"):
        head, colon, value = segment.partition(b":")
        if b"ID:" in value or b"MSG:" in value:
            raise Malformed(TWO_LINES, repr(segment))
        if not colon or not head.endswith(b"ID"):
            continue
        if head == b"ID":
            ids += 1
        elif is_key(head.decode("latin-1")):
            names.append(head)
        else:  # no name ends so
            raise Malformed(TWO_LINES, repr(segment))
    if ids > 1:
        raise Malformed(TWO_LINES)
    return names


class _Shape(NamedTuple):
    # All but the value of a report that has one field, at the end of its line or before its command.
    sensor: str
    command: str | None
    tag: None
    field: str


class Dialect(DialectBase):
    """
    Reads `ID:20_VALUE:456`, writes `MSG:J_ID:20_ORIGIN:TOTO`. The options are those of protocol §2: `checksum`, `names`
    and `join`.
    """

    echo_mark: bytes | None = b"ORIGIN:"

    def __init__(self, options: Mapping[str, object] = {}) -> None:
        super().__init__(options)
        self._join_noticed = False
        self._checksum_noticed = self._checksum
        self._shapes: dict[bytes, _Shape] = {}  # by the line without its value, the head
        self._shapes_size = 0  # bytes
        self._usual_keys: set[str] = set()  # keys that do not end in ID, besides `ID` itself
        self._id_names: BoundedDict[tuple[str, bytes], None] = BoundedDict(ID_NAMES_LIMIT)

    def configure(self, options: DialectOptions) -> None:
        self._checksum = options.flag("checksum", False)
        listed = options.texts("names")
        _check_names(listed)
        self._names = FieldNames(listed, options.flag("join", True))
        self._written_names = {read_name(name): name for name in listed}

    def framing(self) -> LineFraming:
        return LineFraming(LINE_STARTS)

    def decode(self, frame: bytes) -> Report | str:
        line = frame
        if self._checksum and not line.startswith(b"#"):
            line = self._check(line)
        # Most lines differ from an earlier one in their last value only, or in the one before `_MSG:J`.
        head, _, value = line.rpartition(b":")
        shape = self._shapes.get(head)
        if shape is None and head.endswith(b"_MSG"):
            command_at = len(head) - 4
            head, _, value = line[:command_at].rpartition(b":")
            head = b"%b\n%b" % (head, line[command_at:])  # no line has a line end
            shape = self._shapes.get(head)
        if shape is not None and value and not value.strip(_PLAIN) and len(line) <= LINE_LIMIT:
            sensor, command, tag, field = shape
            return make(Report, (sensor, command, tag, ((field, value.decode()),), ()))
        if line.startswith(b"#"):
            return line[1:].decode("utf-8", "replace").strip()
        if not self._checksum_noticed and line[-3:-2] == b"*" and without_checksum(line) is not None:
            self._checksum_noticed = True
            self.notices.append("lines end in a checksum that is not checked: set `checksum = true`")
        return self._decode(line, head)

    def _check(self, line: bytes) -> bytes:
        body = without_checksum(line)
        if body is None:
            raise Malformed("wrong checksum" if _CHECKSUM.fullmatch(line[-3:]) else "no checksum")
        return body

    def _decode(self, line: bytes, head: bytes) -> Report:
        spelled: Mapping[str, str] = {}
        damages: tuple[str, ...] = ()
        names: Sequence[bytes] = ()
        fields, error = _try_parse(line)
        # Where every segment is a field there is nothing to join.
        if len(fields) <= line.count(b"_") and has_parts(line):
            line, spelled = self._join(line)
            fields, error = _try_parse(line)
        if error is not None:
            if may_be_two(line):
                names = names_in_one_line(line)  # if it raises, that is the better reason
            fields, damages = self._parse_damaged(line, error)
        if not self._usual_keys.issuperset(fields):
            names = names_in_one_line(line)
            self._remember_usual(fields)
        elif line.count(b":") != len(fields) and may_be_two(line):
            names = names_in_one_line(line)
        keys = list(fields)
        whole = not damages and _LEFT_OUT.isdisjoint(fields)
        if not whole:
            kept = {key: value for key, value in fields.items() if key not in _LEFT_OUT}
            self.left_out += len(fields) - len(kept)
            fields = kept
        sensor = fields.pop("ID", None)
        if sensor is None:
            raise Malformed("no ID")
        if not is_sensor_id(sensor):
            raise Malformed("not a sensor id", repr(sensor))
        if names:
            self._check_id_names(sensor, names)
        if b"-" in line:
            for key in fields:
                if "-" in key:
                    self._check_spelling(sensor, key, spelled.get(key, key))
        command = fields.pop("MSG", None)
        tag = fields.pop("TAG", None) if self.tags else None
        if not fields and command is None:
            raise Malformed("no measurement")
        if len(fields) == 1 and tag is None and whole:
            field = keys[-2] if b"\n" in head else keys[-1]
            if ":" not in fields.get(field, ":"):
                self._remember_shape(head, _Shape(sensor, command, None, field))
        return make(Report, (sensor, command, tag, tuple(fields.items()), damages))

    def _remember_shape(self, head: bytes, shape: _Shape) -> None:
        if head in self._shapes:
            return
        self._shapes[head] = shape
        self._shapes_size += SHAPE_SIZE + 2 * len(head)
        if self._shapes_size > SHAPES_LIMIT:
            # The oldest eighth at once: to find the oldest, a dict passes over all that were deleted before it.
            for oldest in list(islice(self._shapes, len(self._shapes) // 8)):
                del self._shapes[oldest]
                self._shapes_size -= SHAPE_SIZE + 2 * len(oldest)

    def _remember_usual(self, keys: Iterable[str]) -> None:
        if len(self._usual_keys) >= USUAL_KEYS_LIMIT:
            self._usual_keys.clear()
        self._usual_keys.update(key for key in keys if key == "ID" or not key.endswith("ID"))

    def _check_id_names(self, sensor: str, names: Sequence[bytes]) -> None:
        # `ID:31_TEM` and `ID:2_SMOKE:1` make `ID:31_TEMID:2_SMOKE:1`. A tear hardly comes twice in the same place.
        new = [name for name in names if (sensor, name) not in self._id_names]
        for name in names:
            self._id_names.remember((sensor, name), None)
        if new:
            raise Malformed(TWO_LINES, f"{new[0].decode()} is new")

    def _parse_damaged(self, line: bytes, error: Malformed) -> tuple[dict[str, str], tuple[str, ...]]:
        try:
            fields, damages = parse_whole_fields(line)
        except Malformed as other:
            raise (error if other.reason == NO_KEY else other) from None
        if "ID" not in fields or _LEFT_OUT | {"ID", "TAG" if self.tags else "ID"} >= fields.keys():
            raise error  # nothing is left to report
        return fields, tuple(damages)

    def _join(self, line: bytes) -> tuple[bytes, Mapping[str, str]]:
        joined = self._names.join(line)
        first = self._names.first
        if first is not None and not self._join_noticed:
            self._join_noticed = True
            self.notices.append(
                f'{first} is read as one name: set `names = ["{first}"]` if it is one, or `join = false` if not'
            )
        return joined

    def encode(self, request: Request, tag: str | None) -> bytes:
        # `parse_request` has checked the values.
        line = request.line
        if not self._written_names.keys().isdisjoint(request.fields):
            fields = {self._written_names.get(key, key): value for key, value in request.fields.items()}
            line = join_fields(fields).encode()
        if tag is not None:
            line = b"%b_TAG:%b" % (line, tag.encode())
        return b"%b%b\n" % (line, checksum(line)) if self._checksum else line + b"\n"


def _try_parse(line: bytes) -> tuple[dict[str, str], Malformed | None]:
    try:
        return parse(line), None
    except Malformed as error:
        return {}, error


def _check_names(names: Sequence[str]) -> None:
    if not all(map(read_name, names)):
        raise ValueError(f'names: expected names such as ["TEMP_IN"], got {names!r}')
    if wrong := [name for name in names if read_name(name) in RESERVED]:
        raise ValueError(f"names: {wrong[0]} is reserved")
    if len(set(map(read_name, names))) < len(names):
        raise ValueError(f"names: two are the same: {names!r}")
