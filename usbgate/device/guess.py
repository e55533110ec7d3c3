"""
Guessing what a device speaks: the bytes that came, read by each dialect, and what their 8th bits are.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from usbgate.device import dialects
from usbgate.device.finddialect import make_dialect
from usbgate.device.framing import SEVEN_BITS
from usbgate.device.transcript import transcribe

# Usual speeds, the most frequent first.
BAUDS = (9600, 115_200, 1200, 57_600, 38_400, 19_200, 4800, 2400)

# Options that are tried, where one dialect has several forms.
_VARIANTS: Mapping[str, Sequence[Mapping[str, object]]] = {
    "csv": (
        {},
        {"separator": "semicolon"},
        {"separator": "semicolon", "decimal": ","},
        {"separator": "tab"},
        {"separator": "bar"},
    )
}

# Shares of frames that were read: of a guess that is shown, and of one that ends the search.
POSSIBLE, CERTAIN = 0.5, 0.8
ENOUGH_READINGS = 3
ENOUGH_BYTES = 300  # of a meter, whose only telegram has more

_PIECE = 64  # bytes that are read at a time
_SHOWN = 3  # readings

# Of text sent with parity and read without, about half the bytes have their 8th bit set.
_PARITY_LEAST = 20  # bytes
_PARITY_SHARE = 0.95  # of bytes with the right parity: some are damaged
_HIGH_SHARE = 0.2  # of bytes with the 8th bit; a few of them are accents or damage

_TEXT = frozenset(range(0x20, 0x7F)) | {*b"\t\r\n\x02\x03"}
_ODD = frozenset(byte for byte in range(256) if byte.bit_count() % 2)


class Guess(NamedTuple):
    """
    How well a dialect reads what came.

    Attributes:
        dialect: Its name.
        options: The options that it was given.
        defaults: Its own settings of the port.
        readings: How many reports there were.
        malformed: How many frames it could not read.
        share: The share of frames that it read, 0 to 1.
        shown: The first reports, as `ID:20_TEMP:21.5`.
    """

    dialect: str
    options: Mapping[str, object]
    defaults: Mapping[str, object]
    readings: int
    malformed: int
    share: float
    shown: Sequence[str]

    def is_certain(self, size: int) -> bool:
        """
        Return whether nothing else need be tried.

        Args:
            size: The bytes that came.
        """
        return self.share >= CERTAIN and (self.readings >= ENOUGH_READINGS or size >= ENOUGH_BYTES)


def guess_dialects(data: bytes, names: Iterable[str] | None = None) -> list[Guess]:
    """
    Return the dialects that read some of what a device sent, the best first.

    Args:
        data: What was received, from any byte to any other.
        names: The dialects; None for all that come with usbgate, but `regex`.
    """
    found = []
    for name in _names() if names is None else names:
        variants = [guess for options in _VARIANTS.get(name, ({},)) if (guess := _try(name, options, data))]
        # Where two read as much, that which leaves no decimal commas.
        found += sorted(variants, key=lambda guess: (-guess.share, sum("," in each for each in guess.shown)))[:1]
    return sorted(found, key=lambda guess: -guess.share)


def _names() -> Iterator[str]:
    # `regex` would read the first number of any line.
    return (module.name for module in pkgutil.iter_modules(dialects.__path__) if module.name != "regex")


def _try(name: str, options: Mapping[str, object], data: bytes) -> Guess | None:
    try:
        dialect = make_dialect(name, options)
    except ValueError:  # it needs options, or a library that is not installed
        return None
    weight = 0.0
    malformed = texts = 0
    readings: list[str] = []
    for made in transcribe(dialect, (data[start : start + _PIECE] for start in range(0, len(data), _PIECE))):
        if made.line.startswith("ID:"):
            readings.append(made.line)
            weight += 0.5 if made.frame else 1.0  # fields were left out
        elif made.line.startswith("malformed:"):
            malformed += 1
        elif made.line.startswith("text:"):
            texts += 1
    if not readings:
        return None
    share = weight / (len(readings) + malformed + texts / 2)
    return Guess(name, options, dialect.defaults, len(readings), malformed, share, readings[:_SHOWN])


def find_line(data: bytes) -> str:
    """
    Return the data bits, parity and stop bits of what was read as 8N1: `7E1` or `7O1` if the 8th bits are a parity,
    otherwise `8N1`.
    """
    if len(data) >= _PARITY_LEAST and sum(byte >> 7 for byte in data) >= len(data) * _HIGH_SHARE:
        odd = sum(byte in _ODD for byte in data)
        if odd <= len(data) * (1 - _PARITY_SHARE):
            return "7E1"
        if odd >= len(data) * _PARITY_SHARE:
            return "7O1"
    return "8N1"


def without_parity(data: bytes) -> bytes:
    """
    Return what was read as 8N1 without its parity, if it has one.
    """
    return data if find_line(data) == "8N1" else data.translate(SEVEN_BITS)


def text_share(data: bytes) -> float:
    """
    Return the share of bytes that may be text, 0 to 1: at a wrong speed, few are.
    """
    return sum(byte in _TEXT for byte in without_parity(data)) / len(data) if data else 1.0
