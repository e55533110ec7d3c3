"""
The dialect of boards that print names and values: `temp=21.5,hum=48`, `T:21.5 H:48` (docs/dialects.md).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from usbgate.core.containers import BoundedDict
from usbgate.core.errors import Malformed
from usbgate.core.fieldline import NO_KEY, UNITS, parse_number, unit_of
from usbgate.core.model import Report
from usbgate.device.dialect import DialectBase
from usbgate.device.dialects.fields import ID_NAMES_LIMIT, TWO_LINES
from usbgate.device.options import DialectOptions

_SEPARATORS = re.compile(r"[,;|\t]")
_BLANKS = re.compile(" {2,}")
_PAIR = re.compile(r"\s*([A-Za-z_][^=:]*)[=:](.*)")
_WHOLE_PAIR = re.compile(r"[A-Za-z_][^=:]*[=:]\s*\S")
_HAS_PAIR = re.compile(r"[^A-Za-z_]*[A-Za-z_][^=:]*[=:]")
_UNITS = {**{unit: unit for unit in UNITS}, "*C": "°C", "*F": "°F"}  # the last two for want of a degree sign


class Dialect(DialectBase):
    """
    Reads lines of `NAME=VALUE` or `NAME:VALUE`, with commas, semicolons, bars, tabs or blanks between. A line without
    any is text.

    The options are `sensor`, the id of the board's only sensor (by default the device's name), and `id`, the name of
    the value that is the sensor's id instead, in lines that have it.
    """

    def configure(self, options: DialectOptions) -> None:
        self._sensor = options.sensor("sensor", "")
        self._id = options.text("id", "id").lower()
        self._id_marks = re.compile(re.escape(self._id) + r"\s*[=:]", re.IGNORECASE)
        self._has_ids = False  # whether any line had an id
        self._id_names: BoundedDict[tuple[str, str], None] = BoundedDict(ID_NAMES_LIMIT)

    def decode(self, frame: bytes) -> Report | str:
        try:
            text = frame.decode()
        except UnicodeDecodeError:
            raise Malformed("not UTF-8") from None
        if text.startswith("#") or not _HAS_PAIR.match(text):
            return text.removeprefix("#").strip()
        marks = len(self._id_marks.findall(text))  # also in values, and at the ends of other names
        ids: list[str] = []
        values: list[tuple[str, str]] = []
        damages: list[str] = []
        for part in _parts(text):
            pair = _PAIR.fullmatch(part)
            if pair is None:
                damages.append(NO_KEY)
                continue
            name, value = pair[1].strip(), _value(pair[2].strip().strip('"'))
            if marks and self._id_marks.search(value):  # `id=31,t=2` and `id=20,t=1`, of which a line end was lost
                raise Malformed(TWO_LINES, value)
            if name.lower() == self._id:
                ids.append(value)
            else:
                values.append((name, value))
        if len(ids) > 1:
            raise Malformed("key given twice", self._id)
        sensor = ids[0] if ids else self._sensor or self.device
        self._has_ids = self._has_ids or bool(ids)
        if marks > len(ids) and self._has_ids:
            self._check_id_names(sensor, [name.lower() for name, _ in values])
        return self.report(sensor, values, left_out=damages)

    def _check_id_names(self, sensor: str, names: Iterable[str]) -> None:
        # `id=31,tem` and `id=2,smoke=1` make `id=31,temid=2,smoke=1`. A tear hardly comes twice in the same place.
        of_id = [name for name in names if name.endswith(self._id)]
        new = [name for name in of_id if (sensor, name) not in self._id_names]
        for name in of_id:
            self._id_names.remember((sensor, name), None)
        if new:
            raise Malformed(TWO_LINES, f"{new[0]} is new")


def _parts(text: str) -> Iterator[str]:
    if _SEPARATORS.search(text):
        yield from filter(str.strip, _SEPARATORS.split(text))
        return
    # Two blanks or more end a pair, so that names may have one: `Humidity: 48 %  Heat index: 21.5 C`.
    pieces = _BLANKS.split(text.strip())
    is_wide = len(pieces) > 1 and all(map(_WHOLE_PAIR.match, pieces))
    for piece in pieces if is_wide else (text,):
        yield from _parts_of_words(piece, is_wide)


def _parts_of_words(text: str, is_wide: bool) -> Iterator[str]:
    # Between blanks, what is no pair belongs to the value before it: `Humidity: 48 % Temperature: 21.5 C`.
    part = ""
    for word in text.split():
        is_name = is_wide and "=" not in part and ":" not in part
        if part and not is_name and _PAIR.fullmatch(word):
            yield part
            part = word
        else:
            part += f" {word}"
    yield part


def _value(text: str) -> str:
    # A number and its unit, between which may be a blank. The same in other units, as in `21.5 C 70.7 F`, is left out.
    if " " not in text:
        return text
    words: list[str] = []
    for word in text.split():
        unit = _UNITS.get(word)
        if unit is not None and words and parse_number(words[-1]) is not None:
            words[-1] += unit
        else:
            words.append(word)
    units = set(map(unit_of, words))
    return words[0] if "" not in units and len(units) == len(words) else text
