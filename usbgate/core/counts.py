"""
What is counted of one device's link. Each count is declared once; `devices`, HTTP and the metrics derive from that.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from typing import Any, NamedTuple

from usbgate.core.fieldline import CONTROL_CHARACTER, EMPTY_VALUE, NO_KEY, NO_VALUE, NOT_UTF8, WRONG_CHECKSUM


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
    fields_empty: int = _count("EMPTY", "Fields left out because their value was empty.", lines=False)
    fields_not_utf8: int = _count("NOTUTF8", "Fields left out because their value was not UTF-8.", lines=False)
    fields_control: int = _count("CONTROL", "Fields left out because of a control character.", lines=False)
    fields_no_key: int = _count("NOKEY", "Fields left out because their name was not possible.", lines=False)
    fields_no_value: int = _count("NOVALUE", "Fields left out because their value was not possible.", lines=False)
    fields_checksum: int = _count("CHECKSUM", "Fields left out because their checksum was wrong.", lines=False)
    reconnects: int = _count("RECONNECTS", "Openings of the device after it had been disconnected.", lines=False)

    def field_left_out(self, reason: str) -> None:
        """
        Count a damaged field.

        Args:
            reason: One of `DAMAGES`; any other is not counted.
        """
        name = DAMAGES.get(reason)
        if name is not None:
            setattr(self, name, getattr(self, name) + 1)

    def __iter__(self) -> Iterator[Count]:
        for each in fields(self):
            yield Count(name=each.name, value=getattr(self, each.name), **each.metadata)


# Why a damaged field is left out (protocol §2), and where that is counted.
DAMAGES = {
    EMPTY_VALUE: "fields_empty",
    NOT_UTF8: "fields_not_utf8",
    CONTROL_CHARACTER: "fields_control",
    NO_KEY: "fields_no_key",
    NO_VALUE: "fields_no_value",
    WRONG_CHECKSUM: "fields_checksum",
}
