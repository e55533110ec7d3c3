"""
The dialect of loggers that print columns (RFC 4180, and its variants with semicolons and decimal commas).

    id;temp;hum
    20;21,5;48
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable

from usbgate.core.errors import Malformed
from usbgate.core.model import Report
from usbgate.core.spelling import field_name
from usbgate.device.dialect import DialectBase
from usbgate.device.framing import LineFraming
from usbgate.device.interfaces import IFraming
from usbgate.device.options import DialectOptions

_SEPARATORS = {"comma": ",", "semicolon": ";", "tab": "\t", "bar": "|", "blank": " "}
_DECIMAL_COMMA = re.compile(r"\A([+-]?[0-9]+),([0-9]+)")
_NUMBER = re.compile(r"[+-]?[.,]*[0-9][0-9.,]*")

HEADER = "header"  # the key of `kept` that has the header line


class _Framing(LineFraming):
    # The first line counts if it is a header, which many boards print when they start.

    def __init__(self, is_header: Callable[[bytes], bool]) -> None:
        super().__init__()
        self._is_header = is_header

    def is_partial(self, frame: bytes) -> bool:
        return not self._is_header(frame)


class Dialect(DialectBase):
    """
    Each line is a report, with a field for each column that has a value. The columns come from the option `columns`,
    or from a header: a line of names and no numbers, the first one or the first after an opening. The header outlives
    restarts. A line that begins with `#` is text.

    The other options are `separator` and `decimal`; `id`, the column with the sensor's id; and `sensor`, the sensor if
    there is no such column (by default the device's name).
    """

    def configure(self, options: DialectOptions) -> None:
        self._columns = options.texts("columns")
        self._separator = _SEPARATORS[options.choice("separator", "comma", _SEPARATORS)]
        self._decimal = options.choice("decimal", ".", [".", ","])
        if self._decimal == self._separator:
            raise ValueError('decimal: expected "." for columns between commas, or another `separator`')
        self._id = field_name(options.text("id", "id"))
        self._sensor = options.sensor("sensor", "")
        self._is_first = True  # what is decoded next is the first line since the opening

    def opened(self) -> bytes:
        self._is_first = True
        return b""

    def framing(self) -> IFraming:
        return _Framing(self._is_whole_header)

    def decode(self, frame: bytes) -> Report | str:
        text = _text(frame)
        if text.startswith("#"):
            return text[1:].strip()
        cells = self._cells(text)
        is_first, self._is_first = self._is_first, False
        columns = self._columns or self._header()
        if _folded(cells) == _folded(columns):
            return text
        # What is known may be the end of this header, or have the end of another line before it: the first line, cut.
        known = self.kept.get(HEADER, "")
        if not self._columns and (is_first or text.endswith(known) or known.endswith(text)) and _are_names(cells):
            self.kept[HEADER] = text
            return text
        if not columns:
            raise Malformed("no header yet", "set `columns` if the board prints none")
        if len(cells) != len(columns):
            raise Malformed("wrong number of columns", f"{len(cells)} instead of {len(columns)}")
        values: list[tuple[str, str]] = []
        sensor = self._sensor or self.device
        for column, cell in zip(columns, cells, strict=True):
            if field_name(column) == self._id:
                sensor = cell
            elif cell:
                values.append((column, self._number(cell)))
        return self.report(sensor, values)

    def _header(self) -> list[str]:
        return self._cells(self.kept.get(HEADER, ""))

    def _is_whole_header(self, frame: bytes) -> bool:
        # Of a header that was cut, the end is left, and that looks like another one.
        try:
            text = _text(frame)
        except Malformed:
            return False
        known = self.kept.get(HEADER, "")
        return _are_names(self._cells(text)) and (text == known or not known.endswith(text))

    def _cells(self, text: str) -> list[str]:
        if self._separator == " ":
            return text.split()
        try:
            cells = next(csv.reader([text], delimiter=self._separator, skipinitialspace=True), [])
        except csv.Error as error:
            raise Malformed("not CSV", str(error)) from None
        return [cell.strip() for cell in cells]

    def _number(self, cell: str) -> str:
        return _DECIMAL_COMMA.sub(r"\1.\2", cell) if self._decimal == "," else cell


def _text(frame: bytes) -> str:
    try:
        return frame.decode("utf-8-sig").strip()
    except UnicodeDecodeError:
        raise Malformed("not UTF-8") from None


def _folded(cells: list[str]) -> list[str]:
    return [cell.lower() for cell in cells]


def _are_names(cells: list[str]) -> bool:
    return len(cells) > 1 and all(field_name(cell) for cell in cells) and not any(map(_NUMBER.fullmatch, cells))
