"""
The dialect of radio sticks that print packets as decimal bytes: JeeLink and RFM69Pi with the sketches
LaCrosseITPlusReader (its format as FHEM's module 36_LaCrosse documents it) and RF12demo (JeeLib).

    [LaCrosseITPlusReader.10.1s (RFM12B f:0 r:17241)]
    OK 9 56 1 4 156 37           sensor 56 of LaCrosse: 18.0 degrees, 37 %
    OK 10 244 1 12 0 (-57)       node 10, with the strength of the signal
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from typing import ClassVar, NamedTuple

from usbgate.core.errors import Malformed
from usbgate.core.fieldline import NO_VALUE, WRONG_CHECKSUM
from usbgate.core.model import Report
from usbgate.core.spelling import field_name
from usbgate.device.dialect import DialectBase, labelled
from usbgate.device.framing import LineFraming
from usbgate.device.options import DialectOptions

BYTES = 66  # of a packet, the most that the radio's driver receives

_PACKET = re.compile(r"OK (WS |)([0-9]{1,3}(?: [0-9]{1,3})*) ?(?:\((-[0-9]{1,3})\))?\s*")

_LACROSSE = 9  # what LaCrosseITPlusReader prints as the node, before 5 bytes
_NODE = 31  # of a node's byte, these bits are its number; the others say how the packet is acknowledged

_HIGHEST = 1000  # tenths of a degree; a sensor measures up to 60 degrees
_HUMIDITIES = range(1, 100)  # a sensor without humidity sends 106, its second probe 125
_NO_BYTE = 255  # of what a weather station does not measure, the first byte

# Codes of `struct`, and the digits of their floats that count.
_CODES = {**dict.fromkeys("bBhHiIlLqQ", 0), "f": 7, "d": 15}
_FACTOR = re.compile(r"[+-]?[0-9]*\.?[0-9]+")

_BATTERY = {"0": {"en": "good", "fr": "bonne"}, "1": {"en": "low", "fr": "faible"}}

_FIELDS: Mapping[str, Mapping[str, object]] = {
    "TEMP": {"kind": "temperature"},
    "TEMP2": labelled("Second temperature", "Deuxième température", kind="temperature"),
    "HUM": {"kind": "humidity"},
    "PRESSURE": {"kind": "atmospheric_pressure"},
    "RAIN": labelled("Rain", "Pluie", kind="precipitation", unit="mm"),
    "WIND": {"kind": "wind_speed", "unit": "m/s", "decimals": 1},
    "GUST": labelled("Wind gusts", "Rafales", kind="wind_speed", unit="m/s", decimals=1),
    "WIND-DIRECTION": {"kind": "wind_direction"},
    "BATTERY-LOW": labelled("Battery", "Pile", values=_BATTERY),
    "BATTERY-NEW": labelled(
        "New battery", "Pile neuve", values={"0": {"en": "no", "fr": "non"}, "1": {"en": "yes", "fr": "oui"}}
    ),
    "RSSI": {"kind": "signal_strength"},
}


class _Table(NamedTuple):
    # The fields of a node's packets: names, perhaps empty, digits of floats, and factors.
    layout: struct.Struct
    fields: Sequence[tuple[str, int, Decimal | None]]


class Dialect(DialectBase):
    """
    The sensor is the number of LaCrosse's sensor or of the node, or `WS-` and that of a weather station.

    The option `nodes` has the fields of a node's packets; without it they are the bytes. A line that begins with
    neither `OK` nor `?` is text.
    """

    defaults: ClassVar[Mapping[str, object]] = {"baud": 57600}
    fields = _FIELDS

    def configure(self, options: DialectOptions) -> None:
        self._nodes = {_number(node): _table(node, fields) for node, fields in options.table("nodes").items()}

    def framing(self) -> LineFraming:
        return LineFraming((b"OK ", b"[", b"?"))

    def decode(self, frame: bytes) -> Report | str:
        text = frame.decode("ascii", "replace").strip()
        if text.startswith("?"):
            raise Malformed(WRONG_CHECKSUM, "reported by the stick")
        if not text.startswith("OK"):
            return text
        found = _PACKET.fullmatch(text)
        if found is None:
            raise Malformed("not a packet")
        first, *data = map(int, found[2].split())
        if len(data) > BYTES or max(first, *data, 0) > 255:
            raise Malformed("not a packet")
        values: list[tuple[str, str]] = []
        damages: list[str] = []
        if found[1]:
            sensor = f"WS-{first}"
            read = _read_station(data)
        elif first == _LACROSSE and first not in self._nodes:
            if len(data) != 5:  # not of a node 9, which would have a table
                raise Malformed("wrong number of bytes", f"{len(data)} instead of 5")
            sensor = str(data[0])
            read = _read_lacrosse(data)
        else:
            sensor = str(first & _NODE)
            read = self._read_node(first & _NODE, bytes(data))
        for name, value in read:
            if value is None:
                damages.append(NO_VALUE)
            else:
                values.append((name, value))
        if found[3]:
            values.append(("RSSI", found[3]))
        return self.report(sensor, values, left_out=damages)

    def _read_node(self, node: int, data: bytes) -> Iterator[tuple[str, str | None]]:
        table = self._nodes.get(node)
        if table is None:
            for number, byte in enumerate(data, 1):
                yield f"B{number}", str(byte)
            return
        if len(data) != table.layout.size:
            raise Malformed("wrong number of bytes", f"{len(data)} instead of {table.layout.size}")
        for (name, digits, factor), value in zip(table.fields, table.layout.unpack(data), strict=True):
            if name:
                yield name, _spell(value, digits, factor)


def _read_lacrosse(data: Sequence[int]) -> Iterator[tuple[str, str | None]]:
    _, kind, high, low, humidity = data
    probe = kind & 15
    yield "TEMP" if probe < 2 else f"TEMP{probe}", _temperature(high, low)
    if humidity & 127 in _HUMIDITIES:
        yield "HUM", str(humidity & 127)
    yield "BATTERY-LOW", str(humidity >> 7)
    yield "BATTERY-NEW", str(kind >> 7)


def _read_station(data: Sequence[int]) -> Iterator[tuple[str, str | None]]:
    if len(data) not in (13, 15):
        raise Malformed("wrong number of bytes", f"{len(data)} instead of 13 or 15")
    if data[1] != _NO_BYTE:
        yield "TEMP", _temperature(data[1], data[2])
    if data[3] != _NO_BYTE:
        yield "HUM", str(data[3])
    numbers = [("RAIN", 4, "0.5"), ("WIND-DIRECTION", 6, "0.1"), ("WIND", 8, "0.1"), ("GUST", 10, "0.1")]
    for name, at, factor in numbers + [("PRESSURE", 13, "1")] * (len(data) == 15):
        if data[at] != _NO_BYTE:
            yield name, _spell(data[at] * 256 + data[at + 1], 0, Decimal(factor))
    yield "BATTERY-LOW", str(data[12] >> 2 & 1)
    yield "BATTERY-NEW", str(data[12] & 1)


def _temperature(high: int, low: int) -> str | None:
    tenths = high * 256 + low - 1000
    return f"{tenths / 10:.1f}" if tenths <= _HIGHEST else None


def _spell(value: float, digits: int, factor: Decimal | None) -> str | None:
    if not math.isfinite(value):
        return None
    exact = Decimal(f"{value:.{digits}g}") if digits else Decimal(value)
    return f"{exact if factor is None else exact * factor:f}"


def _number(node: str) -> int:
    if node.isdecimal() and node.isascii() and 1 <= int(node) <= _NODE:
        return int(node)
    raise ValueError(f"nodes: expected the number of a node, 1 to {_NODE}, got {node!r}")


def _table(node: str, texts: Sequence[str]) -> _Table:
    codes = "<"
    fields: list[tuple[str, int, Decimal | None]] = []
    for text in texts:
        name, code, factor = (*text.split(), "", "", "")[:3]
        if code not in _CODES or len(text.split()) > 3 or not (name == "-" or field_name(name)):
            raise ValueError(f'nodes: expected a name and a code, such as "TEMP h 0.1", got {text!r} for node {node}')
        if factor and not _FACTOR.fullmatch(factor):
            raise ValueError(f"nodes: expected a factor such as 0.1, got {factor!r} for node {node}")
        codes += code
        fields.append(("" if name == "-" else name, _CODES[code], Decimal(factor) if factor else None))
    layout = struct.Struct(codes)
    if not 1 <= layout.size <= BYTES:
        raise ValueError(f"nodes: expected fields of 1 to {BYTES} bytes in all, got {layout.size} for node {node}")
    return _Table(layout, fields)
