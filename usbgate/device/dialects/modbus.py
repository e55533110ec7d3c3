"""
The dialect of Modbus RTU (MODBUS over Serial Line 1.02): energy meters, inverters, pumps, relays on RS-485.

    01 03 00 5e 00 02 a5 d9          to unit 1: read 2 holding registers from 0x5e
    01 03 04 43 66 80 00 6e 68       from unit 1: 4 bytes, a float32 that is 230.5
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import ClassVar, NamedTuple

from usbgate.core.crc16 import crc16
from usbgate.core.errors import Malformed
from usbgate.core.fieldline import is_sensor_id
from usbgate.core.model import Reply, Report, Request
from usbgate.core.spelling import field_name
from usbgate.device.dialect import DialectBase
from usbgate.device.framing import FramingBase
from usbgate.device.interfaces import Part
from usbgate.device.options import DialectOptions

LIMIT = 256  # bytes of a frame
GAP = 0.1  # seconds; the pause between frames is 4 ms, which USB does not keep, and no frame has one this long
HIGHEST_UNIT = 247

# Functions that read, by what they read, with the most that one message may ask for.
_FUNCTIONS = {"coil": (1, 2000), "discrete": (2, 2000), "holding": (3, 125), "input": (4, 125)}
_BITS = (1, 2)
_READS = (1, 2, 3, 4)
_WRITES = (15, 16)  # several
_EXCEPTION = 0x80
_WITH_EXCEPTIONS = (1, 2, 3, 4, 5, 6, 15, 16)

_EXCEPTIONS = {
    1: "illegal function",
    2: "illegal data address",
    3: "illegal data value",
    4: "device failure",
    5: "acknowledge",
    6: "device busy",
    8: "memory parity error",
    10: "gateway path unavailable",
    11: "gateway target failed to respond",
}

# Types of values: the format of `struct`, and the number of registers.
_TYPES = {
    "uint16": ("H", 1),
    "int16": ("h", 1),
    "uint32": ("I", 2),
    "int32": ("i", 2),
    "float32": ("f", 2),
    "uint64": ("Q", 4),
    "int64": ("q", 4),
    "float64": ("d", 4),
}

_REGISTER = re.compile(
    rf"(coil|discrete|holding|input)\s+(0x[0-9A-Fa-f]+|[0-9]+)(?:\s+({'|'.join(_TYPES)}))?"
    r"(?:\s+([*/])\s*([0-9]+(?:\.[0-9]+)?))?(\s+swapped)?"
)


def with_crc(message: bytes) -> bytes:
    """
    Return a message with its CRC.
    """
    return message + crc16(message, 0xFFFF).to_bytes(2, "little")


class _Read(NamedTuple):
    # What one message asks for: registers or bits of a unit.
    unit: int
    function: int
    at: int
    number: int

    def message(self) -> bytes:
        return with_crc(struct.pack(">BBHH", *self))

    @property
    def size(self) -> int:
        # Bytes of data in the response.
        return (self.number + 7) // 8 if self.function in _BITS else 2 * self.number

    def is_answered(self, frame: bytes) -> bool:
        # Whether a frame, which may look like a request, is the response.
        head = (self.unit, self.function, self.size)
        return (*frame[:3],) == head and len(frame) == 5 + self.size and frame != self.message()


class _Register(NamedTuple):
    # A configured value.
    name: str
    function: int
    at: int
    number: int
    format: str  # empty for a bit
    factor: Decimal
    is_swapped: bool

    def value(self, data: bytes, first: int) -> str:
        # The text of the value in the data of a response that begins with the register `first`.
        place = self.at - first
        if not self.format:
            return str(data[place // 8] >> place % 8 & 1)
        words = [data[2 * index : 2 * index + 2] for index in range(place, place + self.number)]
        (number,) = struct.unpack(">" + self.format, b"".join(reversed(words) if self.is_swapped else words))
        if isinstance(number, float):
            return f"{number * float(self.factor):.{7 if self.number == 2 else 15}g}"
        return f"{number * self.factor:f}"


class Framing(FramingBase):
    """
    The length of a frame follows from its function, and its CRC says whether it is one. A request and a response of the
    same function differ in length: what has a right CRC counts. What is neither is noise.
    """

    gap = GAP

    def __init__(self) -> None:
        super().__init__(LIMIT)

    def feed(self, data: bytes) -> Sequence[bytes]:
        return self._cut(self.rest + data, may_wait=True)

    def end(self) -> Sequence[bytes]:
        return self._cut(self.rest, may_wait=False)

    def _cut(self, data: bytes, may_wait: bool) -> list[bytes]:
        frames: list[bytes] = []
        at, is_noise = 0, False
        while at < len(data):
            lengths = _lengths(data[at : at + 7])
            length = next((each for each in lengths if _is_whole(data[at : at + each], each)), 0)
            if length:
                frames.append(data[at : at + length])
                is_noise = False
            elif may_wait and (len(data) - at < 7 or max(lengths, default=0) > len(data) - at):
                break
            else:
                self.noise += 1
                self.noise_frames += not is_noise
                is_noise = True
            at += length or 1
        self.rest = data[at:]
        return frames


def _is_whole(frame: bytes, length: int) -> bool:
    return len(frame) == length and with_crc(frame[:-2]) == frame


def _lengths(begin: bytes) -> list[int]:
    # The possible lengths of a frame that begins with these bytes, shortest first.
    if len(begin) < 5 or begin[0] > HIGHEST_UNIT:
        return []
    function = begin[1]
    if function & _EXCEPTION:
        return [5] if function & ~_EXCEPTION in _WITH_EXCEPTIONS else []
    if function in _READS:
        return sorted({8, 5 + begin[2]} if 0 < begin[2] <= LIMIT - 6 else {8})
    if function in _WRITES:
        return [8, 9 + begin[6]] if len(begin) > 6 and begin[6] <= LIMIT - 10 else [8]
    return [8] if function in _WITH_EXCEPTIONS else []


class Dialect(DialectBase):
    """
    The option `unit` has a table for each unit: the names of its values, and where each is, such as
    `"holding 0x5e float32"`. The sensor is the unit's number, or the text `sensor` of its table.

    A request reads all values of its unit, by as few messages as the registers allow, one after the other. What another
    master on the bus reads is reported as well.
    """

    defaults: ClassVar[Mapping[str, object]] = {"window": 1, "patience": "3s"}
    named = True
    alone = True

    def configure(self, options: DialectOptions) -> None:
        self._sensors: dict[int, str] = {}
        self._registers: dict[int, list[_Register]] = {}
        for key, table in options.tables("unit").items():
            if not (key.isascii() and key.isdigit() and 1 <= int(key) <= HIGHEST_UNIT):
                raise ValueError(f"unit: expected numbers of units, 1 to {HIGHEST_UNIT}, got {key!r}")
            unit = int(key)
            sensor = table.get("sensor", str(unit))
            if not (isinstance(sensor, str) and is_sensor_id(sensor)) or sensor in self._sensors.values():
                raise ValueError(f"unit: unit {unit}: sensor: expected the id of another sensor, got {sensor!r}")
            self._sensors[unit] = sensor
            self._registers[unit] = [_register(unit, *item) for item in table.items() if item[0] != "sensor"]
            names = [field_name(register.name) for register in self._registers[unit]]
            if len(set(names)) < len(names):
                raise ValueError(f"unit: unit {unit}: two names are the same: {', '.join(names)}")
        self._units = {sensor: unit for unit, sensor in self._sensors.items()}
        self.opened()

    def framing(self) -> Framing:
        return Framing()

    def opened(self) -> bytes:
        self._asked: _Read | None = None  # what the next response is about
        self._request: Request | None = None  # for which `_reads` is read, of which `_values` are there
        self._reads: list[_Read] = []
        self._values: list[tuple[str, str]] = []
        return b""

    def decode(self, frame: bytes) -> Sequence[Part]:
        if not _is_whole(frame, len(frame)) or len(frame) not in _lengths(frame[:7]):
            raise Malformed("wrong checksum")
        unit, function = frame[0], frame[1]
        asked = self._asked
        if function in _READS and len(frame) == 8 and not (asked is not None and asked.is_answered(frame)):
            self._asked = _Read(*struct.unpack(">BBHH", frame[:6]))  # our echo, or another master
            return ()
        if function & ~_EXCEPTION not in _READS:
            return ()  # another master writes
        if asked is None or (unit, function & ~_EXCEPTION) != (asked.unit, asked.function):
            raise Malformed("a response to nothing that was asked")
        parts: list[Part] = []
        values: list[tuple[str, str]] = []
        if function & _EXCEPTION:
            parts.append(f"unit {unit} cannot be read from {asked.at}: {_EXCEPTIONS.get(frame[2], frame[2])}")
        elif frame[2] != asked.size:
            raise Malformed("a response of another length")
        else:
            values = _values(self._registers.get(unit, ()), asked, frame[3:-2])
        self._asked = None
        return parts + self._take(asked, values)

    def _take(self, read: _Read, values: list[tuple[str, str]]) -> list[Report | Reply]:
        # Our request is answered when all that it needs is read.
        command = None
        if self._reads and self._reads[0] == read:
            values = self._values = self._values + values
            del self._reads[0]
            if self._reads:
                self._asked = self._reads[0]
                return [Reply(self._asked.message())]
            command = None if self._request is None else self._request.question.command
            self._request = None
        return [self.report(self._sensors[read.unit], values, command)] if values else []

    def encode(self, request: Request, tag: str | None) -> bytes:
        return self._plan(request)[0].message()

    def sent(self, request: Request) -> None:
        self._request = request
        self._reads = self._plan(request)
        self._values = []
        self._asked = self._reads[0]

    def _plan(self, request: Request) -> list[_Read]:
        question = request.question
        unit = self._units.get(question.sensor)
        if unit is None or not self._registers[unit]:
            raise Malformed("not a unit with registers in the configuration", question.sensor)
        if question.arguments:
            raise Malformed("units are only read", request.line.decode())
        return _reads(unit, self._registers[unit])


def _register(unit: int, name: str, text: object) -> _Register:
    match = _REGISTER.fullmatch(text) if isinstance(text, str) else None
    function, _ = _FUNCTIONS[match[1]] if match else (0, 0)
    is_bit = function in _BITS
    if match is None or not field_name(name) or (is_bit and any(match.group(3, 4, 6))):
        raise ValueError(
            f'unit: unit {unit}: {name}: expected such as "holding 0x5e float32", "input 12 int16 /10 swapped" or'
            f' "coil 3", with one of {", ".join(_TYPES)}; got {text!r}'
        )
    format, count = ("", 1) if is_bit else _TYPES[match[3] or "uint16"]
    factor = Decimal(match[5] or 1)
    if not factor:
        raise ValueError(f"unit: unit {unit}: {name}: expected a factor other than 0, got {text!r}")
    at = int(match[2], 0) if match[2].startswith("0x") else int(match[2])
    if at + count > 0x10000:
        raise ValueError(f"unit: unit {unit}: {name}: expected a register below 65536, got {text!r}")
    return _Register(name, function, at, count, format, 1 / factor if match[4] == "/" else factor, bool(match[6]))


def _reads(unit: int, registers: Iterable[_Register]) -> list[_Read]:
    # Neighbours are read together; a unit may refuse registers that it does not have, so no others are.
    most = {function: limit for function, limit in _FUNCTIONS.values()}
    reads: list[_Read] = []
    for _, function, at, count, *_ in sorted(registers, key=lambda register: register[1:4]):
        if reads and reads[-1].function == function and at <= (end := reads[-1].at + reads[-1].number):
            total = max(end, at + count) - reads[-1].at
            if total <= most[function]:
                reads[-1] = reads[-1]._replace(number=total)
                continue
        reads.append(_Read(unit, function, at, count))
    return reads


def _values(registers: Iterable[_Register], read: _Read, data: bytes) -> list[tuple[str, str]]:
    return [
        (register.name, register.value(data, read.at))
        for register in registers
        if register.function == read.function
        and read.at <= register.at
        and register.at + register.number <= read.at + read.number
    ]
