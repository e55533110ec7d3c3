"""
What rows of the bench are: what is measured in a round, and how each figure is to be read.
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
        key: Its key among what `measure` gives.
        what: What it is, for people.
        unit: In which unit.
        beside: Keys of figures of the same round to read it beside, each with what that is.
        reach: What it must be: `>=` or `<=` and a number; empty for nothing.
    """

    key: str
    what: str
    unit: str = ""
    beside: Mapping[str, str] = {}
    reach: str = ""


class Row(NamedTuple):
    """
    One row of the bench.

    Attributes:
        name: By which it is asked for.
        title: What it measures.
        figures: What it finds, in the order in which it is shown.
        measure: Measures one round: the figures by their keys. Raises AssertionError where something is wrong,
            not slow.
    """

    name: str
    title: str
    figures: Sequence[Figure]
    measure: Callable[[Rig], Mapping[str, float]]


class Found(NamedTuple):
    """
    A figure of several rounds.
    """

    median: float
    least: float
    most: float

    @classmethod
    def of(cls, rounds: Sequence[Mapping[str, float]], key: str) -> Found | None:
        """
        Find a figure; None where no round has it.
        """
        values = [values[key] for values in rounds if key in values]
        return cls(median(values), min(values), max(values)) if values else None


def reached(figure: Figure, found: Found) -> bool | None:
    """
    Tell whether a figure is what it must be; None where it must be nothing.
    """
    if not figure.reach:
        return None
    sign, number = figure.reach.split()
    limit = float(number.replace(",", ""))
    return found.median >= limit if sign == ">=" else found.median <= limit
