"""
Run the benchmark: `python -m tests.bench [NAMES…]`.
"""

from __future__ import annotations

import json
import platform
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from tests.bench import page, report
from tests.bench.figures import Measured, Row
from tests.bench.rig import Rig
from tests.bench.rows import ROWS
from tests.support.running import ROOT


@contextmanager
def _progress(console: Console, steps: int) -> Iterator[tuple[Callable[[str], None], Callable[[], None]]]:
    """
    Show the progress: a bar on a terminal, else lines.

    Yields:
        What to call with what is going on, and what to call after each step.
    """
    if not console.is_terminal:
        yield (lambda text: console.print(f"… {text}", markup=False, highlight=False)), (lambda: None)
        return
    columns = (
        BarColumn(),
        TextColumn("{task.completed}/{task.total}"),
        TimeElapsedColumn(),
        TextColumn("{task.description}"),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("", total=steps)
        yield (lambda text: bar.update(task, description=text)), (lambda: bar.advance(task))


class Findings:
    """
    The results so far, kept in a file so that an interrupted run is not lost.
    """

    def __init__(self, file: Path | None, quick: bool) -> None:
        self.rounds: dict[str, list[Measured]] = {}
        self.wrong: list[str] = []
        self._file = file
        self._circumstances = report.circumstances(quick)
        self._begun = time.monotonic()

    def found(self, row: Row, figures: Measured) -> None:
        """
        Record the figures of a row from one round.
        """
        self.rounds.setdefault(row.name, []).append(dict(figures))
        self._keep()

    def failed(self, what: str) -> None:
        """
        Record an error.
        """
        self.wrong.append(what)
        self._keep()

    def results(self) -> dict[str, Any]:
        """
        Return all of it, with when and where it was measured, for `--json`.
        """
        seconds = round(time.monotonic() - self._begun)
        return {**self._circumstances, "seconds": seconds, "rounds": self.rounds, "wrong": self.wrong}

    def _keep(self) -> None:
        if self._file is not None:
            self._file.write_text(json.dumps(self.results(), indent=1) + "\n")


def measure(rows: Sequence[Row], rounds: int, quick: bool, console: Console, findings: Findings) -> None:
    """
    Measure the rows one after the other, in several rounds.
    """
    turns = [(turn, row) for turn in range(1, rounds + 1) for row in rows if turn == 1 or not row.once]
    with _progress(console, len(turns)) as (progress, step):
        rig = Rig(quick)
        try:
            for turn, row in turns:
                name = row.name
                rig.progress = lambda text, turn=turn, name=name: progress(f"round {turn}, {name}: {text}")  # type: ignore[misc]
                try:
                    findings.found(row, row.measure(rig))
                except AssertionError as error:
                    findings.failed(f"round {turn}, {name}: {error}")
                    console.print(findings.wrong[-1], style="red", markup=False, highlight=False)
                step()
        finally:
            rig.close()


@click.command()
@click.argument("names", nargs=-1)
@click.option("--rounds", default=3, show_default=True, help="How often to measure each row.")
@click.option("--json", "file", type=click.Path(path_type=Path, dir_okay=False), help="Write all results to FILE.")
@click.option(
    "--page", "write_page", is_flag=True, help="Write the table and the plots of docs/bench.md; for all rows."
)
@click.option("--quick", is_flag=True, help="Check that the benchmark works, with small amounts of data.")
def main(names: Sequence[str], rounds: int, file: Path | None, write_page: bool, quick: bool) -> None:
    """
    Compare usbgate with what this machine can do. Measures all rows, or only those in NAMES.
    """
    unknown = [name for name in names if name not in ROWS]
    if unknown:
        raise click.UsageError(f"no such row: {', '.join(unknown)}; expected one of {', '.join(ROWS)}")
    if names and write_page:
        raise click.UsageError("--page is for a run of all rows")
    rows = [ROWS[name] for name in names or ROWS]
    console = Console(stderr=True)
    console.print(f"Python {platform.python_version()}, {report.built()}", highlight=False)
    findings = Findings(file, quick)
    measure(rows, rounds, quick, console, findings)
    if sys.stdout.isatty():
        Console().print(report.table(rows, findings.rounds))
    else:
        for line in report.plain(rows, findings.rounds):
            print(line)
    if write_page:
        page.update(findings.results(), ROOT / "docs")
    sys.exit(1 if findings.wrong else 0)


if __name__ == "__main__":
    main()
