"""
Print tables: with colours and wrapped to the width of a terminal, plain into a pipe or a file.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Collection, Iterable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from rich.text import Text

# A text, or a text with a style of rich, such as "red" or "bold".
Cell = str | tuple[str, str]

_GAP = "  "  # between two columns

_AGES = ((86_400, "d"), (3600, "h"), (60, "min"), (1, "s"))
_SIZES = ((1e9, "GB"), (1e6, "MB"), (1e3, "kB"))


def print_table(titles: Sequence[str], rows: Iterable[Sequence[Cell]], right: Collection[str] = ()) -> None:
    """
    Print a table.

    Args:
        titles: A title for each column; if all are empty, no title is printed.
        rows: The cells of each row.
        right: The titles of columns that are aligned to the right.
    """
    if sys.stdout.isatty():
        _print_rich(titles, rows, right)
    else:
        _print_plain(titles, rows, right)


def _print_rich(titles: Sequence[str], rows: Iterable[Sequence[Cell]], right: Collection[str]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, len(_GAP), 0, 0), show_header=any(titles), header_style="dim")
    for title in titles:
        table.add_column(title, justify="right" if title in right else "left", overflow="fold")
    for row in rows:
        table.add_row(*map(styled, row))
    Console(highlight=False).print(table)


def styled(cell: Cell) -> Text:
    """
    Return a cell as a text of rich.
    """
    from rich.text import Text

    return Text(cell) if isinstance(cell, str) else Text(*cell)


def plain(cell: Cell) -> str:
    """
    Return the text of a cell.
    """
    return cell if isinstance(cell, str) else cell[0]


def _print_plain(titles: Sequence[str], rows: Iterable[Sequence[Cell]], right: Collection[str]) -> None:
    lines = [list(map(plain, row)) for row in rows]
    if any(titles):
        lines.insert(0, list(titles))
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        cells = [
            cell.rjust(width) if title in right else cell.ljust(width)
            for title, cell, width in zip(titles, line, widths, strict=True)
        ]
        click.echo(_GAP.join(cells).rstrip())


def spell_time(text: str) -> str:
    """
    Return a time of a data line as local time, to the second.
    """
    return f"{datetime.fromisoformat(text).astimezone():%Y-%m-%d %H:%M:%S}"


def spell_age(text: str) -> str:
    """
    Return how long ago a time of a data line was, in its two largest units.
    """
    return spell_duration(time.time() - datetime.fromisoformat(text).timestamp())


def spell_duration(seconds: float) -> str:
    """
    Return a duration in its two largest units: `3 h 12 min`; 0 s for anything shorter.
    """
    left = max(0, int(seconds))
    parts: list[str] = []
    for size, unit in _AGES:
        count, left = divmod(left, size)
        if count or parts or unit == "s":
            parts.append(f"{count} {unit}")
    return " ".join(part for part in parts[:2] if parts.index(part) == 0 or not part.startswith("0 "))


def spell_size(size: float) -> str:
    """
    Return a number of bytes: `561 kB`.
    """
    for unit, name in _SIZES:
        if size >= unit:
            return f"{size / unit:.3g} {name}"
    return f"{size:.0f} bytes"


def count(number: int, noun: str) -> str:
    """
    Return a number with a noun, in the plural unless it is one.
    """
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
