"""
The results of the benchmark, for people and for programs.
"""

from __future__ import annotations

import os
import platform
import re
import sys
import sysconfig
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any, NamedTuple

from rich.table import Table

from tests.bench.figures import Figure, Found, Measured, Row, reached

Rounds = Mapping[str, Sequence[Measured]]


class Line(NamedTuple):
    """
    One figure as people read it.
    """

    what: str
    found: str
    spread: str
    beside: str
    reach: str
    reached: bool | None


def number(value: float) -> str:
    """
    Format a number with three significant digits, or as a whole number.
    """
    if abs(value) >= 100 or value == int(value):
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}" if abs(value) >= 0.1 else f"{value:.3f}"


def lines(row: Row, rounds: Sequence[Measured]) -> Iterator[Line]:
    """
    Return the lines of a row.
    """
    for figure in row.figures:
        found = Found.of(rounds, figure.key)
        if found is None:
            yield Line(figure.what, "not measured", "", "", _reach(figure), None)
            continue
        beside = []
        for key, what in figure.beside.items():
            other = Found.of(rounds, key)
            if other is not None:
                beside.append(f"{what}: {_with_unit(number(other.median), figure.unit)}")
        spread = f"{number(found.least)} – {number(found.most)}" if len(rounds) > 1 or found.least < found.most else ""
        text = _with_unit(number(found.median), figure.unit)
        yield Line(figure.what, text, spread, "; ".join(beside), _reach(figure), reached(figure, found))


def _reach(figure: Figure) -> str:
    return _with_unit(figure.reach.replace(">=", "≥").replace("<=", "≤"), figure.unit) if figure.reach else ""


def _with_unit(value: str, unit: str) -> str:
    return value + unit if unit in ("/s", "") else f"{value} {unit}"


def table(rows: Sequence[Row], rounds: Rounds) -> Table:
    """
    Return the results of rows as one table.
    """
    shown = Table("figure", "median", "range", "reference, same run", "target", "met", title_justify="left")
    for index in (1, 2, 4):
        shown.columns[index].justify = "right"
    for row in rows:
        if row.name in rounds:
            shown.add_section()
            shown.add_row(f"[bold]{row.name}[/]: {row.title}", "", "", "", "", "")
            for line in lines(row, rounds[row.name]):
                mark = {True: "[green]yes", False: "[red]no", None: ""}[line.reached]
                shown.add_row("  " + line.what, line.found, line.spread, line.beside, line.reach, mark)
    return shown


def plain(rows: Sequence[Row], rounds: Rounds) -> Iterator[str]:
    """
    Return the results as lines of text.
    """
    for row in rows:
        if row.name in rounds:
            yield f"{row.name}: {row.title}"
            for line in lines(row, rounds[row.name]):
                parts = [f"  {line.what}: {line.found}"]
                parts += [f"({line.spread})"] if line.spread else []
                parts += [f"[{line.beside}]"] if line.beside else []
                mark = {True: ": yes", False: ": NO", None: ""}[line.reached]
                parts += [f"target {line.reach}{mark}"] if line.reach else []
                yield " ".join(parts)


def built() -> str:
    """
    Return how this Python was built: one with profile-guided optimization and LTO is up to a third faster.
    """
    if sys.base_prefix == "/usr":  # distributions optimize in ways that its configuration does not show
        return f"built by {platform.freedesktop_os_release().get('NAME', 'the distribution')}"
    flags = str(sysconfig.get_config_var("PY_CFLAGS"))
    options = str(sysconfig.get_config_var("CONFIG_ARGS"))
    level = re.findall(r"-O\S*", flags)
    profiled, linked = "--enable-optimizations" in options, "--with-lto" in options
    return f"{level[-1] if level else 'no -O'}, {'' if profiled else 'no '}PGO, {'' if linked else 'no '}LTO"


def circumstances(quick: bool) -> dict[str, Any]:
    """
    Return when and where this was measured.
    """
    return {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "cores": os.cpu_count(),
        "machine": platform.machine().replace("_", "-"),
        "load": os.getloadavg()[0],
        "python": f"{platform.python_version()} ({built()})",
        **{name: version(name) for name in ("twisted", "psycopg2-binary")},
        "quick": quick,
    }
