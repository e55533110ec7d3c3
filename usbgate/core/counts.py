"""
What is counted of one device's link. Each count is declared once; `devices`, HTTP and the metrics derive from that.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from typing import Any, NamedTuple


class Count(NamedTuple):
    """
    One count with what is needed to show it.

    Attributes:
        name: Its name, as an attribute of `LinkCounts` and in the metrics.
        key: Its key in the reply to `devices` (protocol §3), upper case; in lower case its name over HTTP.
        value: How many since usbgate started.
        lines: Whether it counts lines.
        help: What it counts, for the metrics.
    """

    name: str
    key: str
    value: int
    lines: bool
    help: str


def _count(key: str, help: str, lines: bool = True) -> Any:
    return field(default=0, metadata={"key": key, "lines": lines, "help": help})


@dataclass(slots=True)
class LinkCounts:
    """
    Counts since usbgate started, in the order in which they are shown.
    """

    lines_in: int = _count("IN", "Lines read.")
    lines_out: int = _count("OUT", "Lines written.")
    malformed: int = _count("MALFORMED", "Lines that could not be read.")
    partial: int = _count("PARTIAL", "First lines after opening that were the tail of a broken one.")
    echoes: int = _count("ECHOES", "Lines that were an echo of what usbgate wrote.")
    repeats: int = _count("REPEATS", "Lines that repeated the one before, if the configuration filters them.")
    noise_bytes: int = _count("NOISE", "Bytes dropped before and after lines.", lines=False)
    fields_left_out: int = _count("LEFTOUT", "Fields left out because usbgate reserves their keys.", lines=False)
    reconnects: int = _count("RECONNECTS", "Openings of the device after it had been disconnected.", lines=False)

    def __iter__(self) -> Iterator[Count]:
        for each in fields(self):
            yield Count(name=each.name, value=getattr(self, each.name), **each.metadata)
