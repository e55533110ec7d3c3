"""
Names of fields that a device spells with `_`, such as `TEMP_IN` (protocol §2).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from usbgate.core.fieldline import RESERVED, is_key, parse_value

_NAME = re.compile(rb"[A-Za-z][A-Za-z0-9.+-]*")

# What a sensor that failed says instead of a number: nothing, or what an Arduino's `print` makes of it.
_NO_NUMBER = re.compile(r"[+-]?(?:nan|inf|ovf)|", re.IGNORECASE)

_find_part = re.compile(rb"_[^_:]*+_").search


def read_name(text: str) -> str:
    """
    Return the name of a field as lines have it, of one that the configuration may spell with `_`.

    Returns:
        In upper case, with `-` for `_`; empty if it is no name.
    """
    name = text.replace("_", "-")
    return name.upper() if is_key(name) else ""


def has_parts(line: bytes) -> bool:
    """
    Return whether a line has a segment without a colon before its last one: only then is there anything to join.
    """
    return _find_part(b"_" + line) is not None


class FieldNames:
    """
    Finds names with `_` in the lines of one device.

    Attributes:
        first: The first name that was joined without being listed, as the device spells it.
    """

    def __init__(self, listed: Iterable[str] = (), join: bool = True) -> None:
        """
        Args:
            listed: Names that are joined whatever stands before them.
            join: Whether other names are joined behind numbers.
        """
        self.first: str | None = None
        self._listed = {name.upper().encode() for name in listed}
        self._most_parts = max((name.count(b"_") for name in self._listed), default=0)
        self._join = join

    def join(self, line: bytes) -> tuple[bytes, Mapping[str, str]]:
        """
        Join the parts of names.

        Args:
            line: A field line.

        Returns:
            The line with `-` for the `_` within names, and how each name that was joined was spelled, in upper case.
        """
        spelled: dict[str, str] = {}
        segments: list[bytes] = []
        parts: list[bytes] = []  # without a colon, behind the last field
        before = None  # the last field
        for segment in line.split(b"_"):
            head, colon, _ = segment.partition(b":")
            if not colon:
                parts.append(segment)
                continue
            if parts and (count := self._parts_of_name(parts, head, before)):
                whole = [*parts[-count:], head]
                spelled[_text(b"-".join(whole))] = _text(b"_".join(whole))
                segment = b"-".join([*parts[-count:], segment])
                del parts[-count:]
            segments += [*parts, segment]
            parts.clear()
            before = segment
        return b"_".join([*segments, *parts]), spelled

    def _parts_of_name(self, parts: list[bytes], head: bytes, before: bytes | None) -> int:
        # How many of the parts belong to the name that ends in `head`.
        for count in range(min(len(parts), self._most_parts), 0, -1):
            if b"_".join([*parts[-count:], head]).upper() in self._listed:
                return count
        if not self._join or before is None or not all(map(_NAME.fullmatch, [*parts, head])):
            return 0
        if _text(head) in RESERVED or not _is_number(before):
            return 0
        if self.first is None:
            self.first = _text(b"_".join([*parts, head]))
        return len(parts)


def _text(name: bytes) -> str:
    return name.decode("ascii", "replace").upper()


def _is_number(field: bytes) -> bool:
    # Whether the value of a field is a number, so that what follows cannot belong to it.
    key, _, value = field.partition(b":")
    name = key.upper()
    text = value.decode("utf-8", "replace").strip()
    if name == b"ID":
        return text.isdigit() and text.isascii()
    return name not in (b"MSG", b"TAG") and (_NO_NUMBER.fullmatch(text) or parse_value(text)[0]) is not None
