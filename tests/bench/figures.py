"""
The rows of the benchmark: what a round measures, and how each figure is to be read.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import NamedTuple

from tests.bench.rig import Rig


class Figure(NamedTuple):
    """
    One figure of a row.

    Attributes:
        key: Its key in the result of `measure`.
        what: What it is, in words.
        unit: Its unit.
        beside: Keys of figures of the same round to compare it with, each with a label.
        reach: Its limit: `>=` or `<=` and a number; empty for none.
    """

    key: str
    what: str
    unit: str = ""
    beside: Mapping[str, str] = {}
    reach: str = ""


Measured = Mapping[str, float | Sequence[float]]


class Row(NamedTuple):
    """
    One row of the benchmark.

    Attributes:
        name: Its name on the command line.
        title: What it measures.
        figures: Its figures, in the order in which they are shown.
        measure: Measures one round: the figures by their keys, each one value or one for each of several slices. Raises
            AssertionError where something is wrong, not slow.
        once: Whether it is only measured in the first round: it takes long, and hardly changes.
    """

    name: str
    title: str
    figures: Sequence[Figure]
    measure: Callable[[Rig], Measured]
    once: bool = False


class Found(NamedTuple):
    """
    The values of one figure in several rounds and slices.
    """

    median: float
    least: float
    most: float

    @classmethod
    def of(cls, rounds: Sequence[Measured], key: str) -> Found | None:
        """
        Return the values of a figure, over all slices of all rounds; None if no round has it.
        """
        found = [values[key] for values in rounds if key in values]
        values = [value for each in found for value in ([each] if isinstance(each, float | int) else each)]
        return cls(median(values), min(values), max(values)) if values else None


def reached(figure: Figure, found: Found) -> bool | None:
    """
    Return whether a figure reaches its limit; None if it has none.
    """
    if not figure.reach:
        return None
    sign, number = figure.reach.split()
    limit = float(number.replace(",", ""))
    return found.median >= limit if sign == ">=" else found.median <= limit
