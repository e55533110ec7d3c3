"""
CSV (RFC 4180) for programs, or as the spreadsheets of a country read it.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from urllib.parse import quote

import msgspec

from usbgate.core.display import defused
from usbgate.core.fieldline import format_number, format_time

_FAR = 100_000_000_000_000  # ms since 1970, in the year 5138; far from the first and the last year of a `datetime`

SEPARATORS = {"comma": ",", "semicolon": ";", "tab": "\t"}


@dataclass(frozen=True, slots=True)
class CsvFormat:
    """
    How rows are spelled.

    Attributes:
        separator: What separates cells.
        decimal_comma: Whether numbers have a comma instead of a point.
        zone: The zone of times, which are then spelled without it, as spreadsheets need them; None for RFC 3339.
        formulas: Whether texts that a spreadsheet takes for formulas are left as they are.
    """

    separator: str = ","
    decimal_comma: bool = False
    zone: tzinfo | None = None
    formulas: bool = False

    def encode(self, rows: Iterable[Sequence[str]]) -> bytes:
        """
        Return rows of cells.
        """
        text = io.StringIO()
        csv.writer(text, delimiter=self.separator).writerows(rows)
        return text.getvalue().encode()

    def cells(self, row: msgspec.Struct, at: int) -> list[str]:
        """
        Return the cells of a row.

        Args:
            row: The row, which has an `at`.
            at: That time, in milliseconds since 1970, UTC.
        """
        return [self._cell(value) for value in msgspec.structs.astuple(msgspec.structs.replace(row, at=self._time(at)))]

    def _time(self, at: int) -> str:
        if self.zone is None or abs(at) >= _FAR:
            return format_time(at)
        return datetime.fromtimestamp(at / 1000, self.zone).isoformat(" ", "milliseconds")[:23]

    def _cell(self, value: object) -> str:
        if value is None:
            return ""
        if isinstance(value, bool):
            return "true" if value else "false"
        if isinstance(value, float):
            number = format_number(value)
            return number.replace(".", ",") if self.decimal_comma else number
        return str(value) if self.formulas else defused(str(value))

    def disposition(self, name: str, since: int | None, until: int | None) -> str:
        """
        Return the `Content-Disposition` (RFC 6266) of a file.

        Args:
            name: What the file is about.
            since: Milliseconds since 1970, UTC; None for the first reading.
            until: Likewise; None for the last one.
        """
        times = [
            f"{datetime.fromtimestamp(at / 1000, self.zone or UTC):%Y-%m-%d-%H%M}"
            for at in (since, until)
            if at is not None and abs(at) < _FAR
        ]
        file = "-".join([re.sub(r"\W+", "-", name).strip("-") or "readings", "-to-".join(times)]).strip("-") + ".csv"
        plain = re.sub(r"[^A-Za-z0-9.-]", "_", file)
        exact = "" if plain == file else f"; filename*=UTF-8''{quote(file)}"
        return f'attachment; filename="{plain}"{exact}'
