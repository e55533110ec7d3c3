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

from usbgate.core.display import shown

if TYPE_CHECKING:
    from rich.text import Text

# A text, or a text with a style of rich, such as "red" or "bold".
Cell = str | tuple[str, str]

WORD_LIMIT = 20  # columns; longer words are split on a narrow terminal

_GAP = "  "  # between two columns

_AGES = ((86_400, "d"), (3600, "h"), (60, "min"), (1, "s"))
_SIZES = ((1e9, "GB"), (1e6, "MB"), (1e3, "kB"))


def print_table(titles: Sequence[str], rows: Iterable[Sequence[Cell]], right: Collection[str] = ()) -> None:
    """
    Print a table; on a terminal, without columns that are empty in all rows, and if it is too narrow, with the cells of
    each row one below the other.

    Args:
        titles: A title for each column; if all are empty, no title is printed.
        rows: The cells of each row; at least one.
        right: The titles of columns that are aligned to the right.
    """
    if sys.stdout.isatty():
        _print_rich(titles, rows, right)
    else:
        _print_plain(titles, rows, right)


def _print_rich(titles: Sequence[str], rows: Iterable[Sequence[Cell]], right: Collection[str]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False)
    filled = [
        (title, cells)
        for title, cells in zip(titles, zip(*rows, strict=True), strict=True)
        if not title or any(map(plain, cells))
    ]
    titles = [title for title, _ in filled]
    lines = list(zip(*(cells for _, cells in filled), strict=True))
    columns = [[title, *map(plain, cells)] for title, cells in filled]
    widths = _fit(columns, console.width - len(_GAP) * len(columns))
    if widths is None:
        for line in lines:
            for title, cell in zip(titles, line, strict=True):
                if plain(cell):
                    console.print(Text(f"{title:<{max(map(len, titles))}}{_GAP}", "dim"), styled(cell), sep="")
            console.print()
        return
    table = Table(box=None, pad_edge=False, padding=(0, len(_GAP), 0, 0), show_header=any(titles), header_style="dim")
    for title, width in zip(titles, widths, strict=True):
        table.add_column(title, justify="right" if title in right else "left", overflow="fold", width=width)
    for line in lines:
        table.add_row(*map(styled, line))
    console.print(table)


def _fit(columns: Sequence[Sequence[str]], room: int) -> list[int] | None:
    # The widths of the columns if they fit, the widest wrapped at blanks if they must be; a word, such as an id, is
    # split only if it is very long. rich itself would split words, or leave out the last columns.
    from rich.cells import cell_len

    widths = [max(map(cell_len, column)) for column in columns]
    least = [
        min(WORD_LIMIT, max(cell_len(word) for text in column for word in text.split() or [""])) for column in columns
    ]
    while sum(widths) > room:
        _, index = max((width - most, index) for index, (width, most) in enumerate(zip(widths, least, strict=True)))
        if widths[index] <= least[index]:
            return None
        widths[index] -= 1
    return widths


def styled(cell: Cell) -> Text:
    """
    Return a cell as a text of rich.
    """
    from rich.text import Text

    return Text(shown(cell)) if isinstance(cell, str) else Text(shown(cell[0]), cell[1])


def plain(cell: Cell) -> str:
    """
    Return the text of a cell.
    """
    return shown(cell if isinstance(cell, str) else cell[0])


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


def spell_time_briefly(text: str) -> str:
    """
    Return a time of a data line as local time, to the second, without the day if that is today.
    """
    at = datetime.fromisoformat(text).astimezone()
    return f"{at:%H:%M:%S}" if at.date() == datetime.now().date() else spell_time(text)


def spell_age(text: str, units: int = 2) -> str:
    """
    Return how long ago a time of a data line was, in its largest units.
    """
    return spell_duration(time.time() - datetime.fromisoformat(text).timestamp(), units)


def spell_duration(seconds: float, units: int = 2) -> str:
    """
    Return a duration in its largest units: `3 h 12 min`; 0 s for anything shorter.
    """
    left = max(0, int(seconds))
    parts: list[str] = []
    for size, unit in _AGES:
        count, left = divmod(left, size)
        if count or parts or unit == "s":
            parts.append(f"{count} {unit}")
    return " ".join(part for part in parts[:units] if parts.index(part) == 0 or not part.startswith("0 "))


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
