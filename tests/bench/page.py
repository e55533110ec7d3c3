"""
Update the docs with the results of a benchmark: `python -m tests.bench.page FILE`, where `--json FILE` wrote FILE.

Replaces the table of docs/bench.md, with the reasons of missed targets, and redraws its plots. These need matplotlib
(the extra `bench`); without it, they stay as they are.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from textwrap import wrap
from typing import Any

import click

from tests.bench import report
from tests.bench.figures import Found
from tests.bench.reasons import REASONS
from tests.bench.roundtrip import CLIENTS
from tests.bench.rows import ROWS
from tests.bench.throughput import SENSORS
from tests.support.running import ROOT

BEGIN, END = "<!-- figures: made by tests.bench.page -->", "<!-- end of figures -->"

# The load before the start beyond which figures say little; what ended within the last minute counts in it, too.
BUSY = 2.0


def table(results: Mapping[str, Any]) -> Iterator[str]:
    """
    Return the results as lines of Markdown.

    Args:
        results: The content of the JSON file.
    """
    doubts = []
    if results["quick"]:
        doubts.append("a quick run (`--quick`)")
    if results["load"] > BUSY:
        doubts.append("a busy machine")
    yield from _wrapped(
        f"Measured on {results['at'][:10]}, {results['cores']} cores, {results['machine']}, "
        f"Python {results['python']}, Twisted {results['twisted']}, load {results['load']:.1f} before the start, "
        f"in {results['seconds'] / 60:.0f} minutes"
        + ("; " + " and ".join(doubts) + ": **not reliable**." if doubts else ".")
    )
    yield ""
    yield "| figure | median | range | reference, same run | target | met |"
    yield "| --- | ---: | --- | --- | ---: | --- |"
    rounds: report.Rounds = results["rounds"]
    missed: defaultdict[str, list[str]] = defaultdict(list)
    for name, row in ROWS.items():
        if name in rounds:
            yield f"| **{name}**: {row.title} | | | | | |"
            for figure, line in zip(row.figures, report.lines(row, rounds[name]), strict=True):
                mark = {True: "yes", False: "**no**", None: ""}[line.reached]
                yield f"| {line.what} | {line.found} | {line.spread} | {line.beside} | {line.reach} | {mark} |"
                if line.reached is False:
                    why = REASONS.get((name, figure.key), "The cause was not investigated.")
                    missed[why].append(f"`{name}`, {line.what}: {line.found}, target {line.reach}")
    if missed:
        yield ""
        yield "Targets that were missed:"
        yield ""
        for why, targets in missed.items():
            yield from _wrapped(f"- **{'; '.join(targets)}.** {why}", "  ")


def _wrapped(text: str, indent: str = "") -> list[str]:
    words = " ".join(text.split())
    return wrap(words, 120, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)


def replaced(page: str, lines: Sequence[str]) -> str:
    """
    Replace the lines between the two marks of a page.
    """
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return "\n".join([before + BEGIN, *lines, END]) + after


def draw(rounds: report.Rounds, folder: Path) -> list[Path]:
    """
    Draw the plots; return the files, none without matplotlib.
    """
    # Nothing else in the benchmark needs it.
    try:
        from matplotlib import rcParams
        from matplotlib.backends.backend_svg import FigureCanvasSVG
        from matplotlib.figure import Figure as Plot
    except ImportError:
        return []

    rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "usbgate"})  # small, and the same for the same figures
    drawn = []

    def points(name: str, keys: Mapping[int, str]) -> list[tuple[int, Found]]:
        found = [(x, Found.of(rounds.get(name, ()), key)) for x, key in keys.items()]
        return [(x, value) for x, value in found if value is not None]

    def plot(file: str, x: str, y: str, curves: Mapping[str, list[tuple[int, Found]]]) -> None:
        if not any(curves.values()):
            return
        made = Plot(figsize=(6.4, 3.6), layout="constrained")
        axes = made.subplots()
        for label, curve in curves.items():
            if curve:
                middle = [value.median for _, value in curve]
                spread = [
                    [value.median - value.least for _, value in curve],
                    [value.most - value.median for _, value in curve],
                ]
                axes.errorbar([at for at, _ in curve], middle, spread, marker="o", capsize=3, label=label)
        axes.set_xscale("log")
        ticks = sorted({at for curve in curves.values() for at, _ in curve})
        axes.set_xticks(ticks, [f"{at:,}" for at in ticks])
        axes.minorticks_off()
        axes.set_xlabel(x)
        axes.set_ylabel(y)
        if len(curves) > 1:
            axes.set_yscale("log")
            axes.legend()
        else:
            axes.set_ylim(bottom=0)
        axes.grid(alpha=0.3)
        FigureCanvasSVG(made).print_svg(folder / file, metadata={"Date": None})
        drawn.append(folder / file)

    def asked(who: str, key: str) -> list[tuple[int, Found]]:
        return points("roundtrip", {clients: f"{who}_{clients}_{key}" for clients in CLIENTS})

    curves = {"usbgate, median": asked("usbgate", "p50"), "usbgate, 99th percentile": asked("usbgate", "p99")}
    curves |= {"the tty alone, median": asked("direct", "p50"), "ser2net, median": asked("ser2net", "p50")}
    curves |= {"least gateway, median": asked("least", "p50")}
    plot("bench-roundtrip.svg", "clients", "latency (ms)", curves)
    stored = points("sensors", {sensors: f"per_second_{sensors}" for sensors in SENSORS})
    plot("bench-sensors.svg", "sensors", "readings stored per second", {"usbgate": stored})
    return drawn


def update(results: Mapping[str, Any], docs: Path) -> None:
    """
    Update the page and its plots, and print their paths.

    Args:
        results: The content of the JSON file.
        docs: The folder with the page.
    """
    page = docs / "bench.md"
    page.write_text(replaced(page.read_text(), list(table(results))))
    for path in [page, *draw(results["rounds"], docs)]:
        click.echo(str(path), err=True)


@click.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
def main(file: Path) -> None:
    """
    Update docs/bench.md and its plots with the results in FILE, as `--json FILE` wrote them.
    """
    update(json.loads(file.read_text()), ROOT / "docs")


if __name__ == "__main__":
    main()
