"""
The grammar of durations, sizes and times: in the configuration, in the words of line clients, and over HTTP.

A number, then a unit, with or without a space between: `90s`, `1.5 h`, `200ms`, `2 GiB`. A duration without a unit is
in seconds.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from math import inf

_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0, "w": 604_800.0, "": 1.0}
_BYTES = {"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}

# Shorter numbers are durations: 12 digits of seconds are 3,000 years.
_EPOCH_MS = re.compile(r"[1-9][0-9]{11,13}")

_MEASURE = re.compile(r"([0-9]+(?:\.[0-9]+)?)(?: ?([A-Za-z]+))?")


def parse_duration(text: str) -> float:
    """
    Return the seconds of a duration such as `200ms`, `90s`, `1.5 h`, `7d`, `1w` or `90`.

    Raises:
        ValueError: The text is not a duration.
    """
    return _measure(text, _SECONDS)


def parse_size(text: str) -> int:
    """
    Return the bytes of a size such as `64KiB`, `1.5 GiB` or `1TiB`.

    Raises:
        ValueError: The text is not a size.
    """
    size = _measure(text, _BYTES)
    if size == inf:
        raise ValueError(f"not a size: {text!r}")
    return int(size)


def parse_moment(text: str, now: int) -> int:
    """
    Return the time that a text means: a duration before now, an RFC 3339 time, in UTC if it names no zone, or, in 12 to
    14 digits, the milliseconds since 1970, UTC.

    Args:
        text: Such as `1h`, `2026-01-31T12:00:00Z` or `1769860800000`.
        now: Milliseconds since 1970, UTC.

    Returns:
        Milliseconds since 1970, UTC; 0 for anything earlier.

    Raises:
        ValueError: The text is not a time.
    """
    if _EPOCH_MS.fullmatch(text):
        return int(text)
    try:
        before = parse_duration(text)
    except ValueError:
        try:
            moment = datetime.fromisoformat(text)
            if moment.tzinfo is None:
                moment = moment.replace(tzinfo=UTC)
            return max(0, int(moment.timestamp() * 1000))
        except (ValueError, OverflowError):
            raise ValueError(f"not a time: {text!r}") from None
    return max(0, now - round(before * 1000)) if before < inf else 0


def _measure(text: str, units: Mapping[str, float]) -> float:
    spelled = _MEASURE.fullmatch(text)
    unit = None if spelled is None else units.get(spelled[2] or "")
    if spelled is None or unit is None:
        raise ValueError(f"not a number with one of the units {' '.join(filter(None, units))}: {text!r}")
    return float(spelled[1]) * unit
