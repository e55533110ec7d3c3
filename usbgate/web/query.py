"""
The query of an URL: every name known, each given once, and its value in range.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

from usbgate.core.errors import Malformed
from usbgate.core.fieldline import is_key, is_sensor_id
from usbgate.core.units import parse_duration, parse_moment

# Seconds of a bucket: the least is what a fast sensor says anyway, the most a year.
BUCKET_RANGE = (1.0, 366 * 86_400.0)


class Query:
    """
    What stands behind the question mark.
    """

    def __init__(self, arguments: Mapping[bytes, list[bytes]], known: Collection[str]) -> None:
        """
        Take the arguments of a request.

        Raises:
            Malformed: One of them is not known, or given twice, or not UTF-8.
        """
        self._values: dict[str, str] = {}
        for name_bytes, values in arguments.items():
            try:
                name, *texts = [each.decode() for each in (name_bytes, *values)]
            except UnicodeDecodeError:
                raise Malformed("not UTF-8", "the query") from None
            if name not in known:
                raise Malformed("no such parameter", f"{name[:40]!r}, there are {', '.join(sorted(known)) or 'none'}")
            if len(texts) != 1:
                raise Malformed("parameter given twice", name)
            self._values[name] = texts[0]

    def sensor(self) -> str | None:
        """
        Read `sensor`.
        """
        sensor = self._values.get("sensor")
        if sensor is not None and not is_sensor_id(sensor):
            raise Malformed("not a sensor id", repr(sensor[:80]))
        return sensor

    def field(self) -> str | None:
        """
        Read `field`, in upper case.
        """
        field = self._values.get("field")
        if field is None:
            return None
        if not is_key(field):
            raise Malformed("not a field", repr(field[:80]))
        return field.upper()

    def moment(self, name: str, now: int) -> int | None:
        """
        Read a time; an age is one before now.
        """
        text = self._values.get(name)
        if text is None:
            return None
        # A `+` in a query means a blank, and few know that they must spell it %2B.
        try:
            return parse_moment(re.sub(r" (?=[0-9]{2}:?[0-9]{2}$)", "+", text), now)
        except ValueError:
            raise Malformed("not a time", f"{name} is {text[:40]!r}, expected RFC 3339 or an age such as 1h") from None

    def limit(self, most: int) -> int | None:
        """
        Read `limit`, above 0; None where it is not given.
        """
        text = self._values.get("limit")
        if text is None:
            return None
        number = int(text) if re.fullmatch("[0-9]{1,10}", text) else 0
        if not 0 < number <= most:
            raise Malformed("value out of range", f"limit is {text[:40]!r}, expected 1 to {most}")
        return number

    def bucket(self) -> float | None:
        """
        Read `bucket`, in seconds.
        """
        text = self._values.get("bucket")
        if text is None:
            return None
        least, most = BUCKET_RANGE
        try:
            seconds = parse_duration(text)
        except ValueError:
            seconds = 0.0
        if not least <= seconds <= most:
            raise Malformed(
                "value out of range", f"bucket is {text[:40]!r}, expected a duration from 1s to 366d such as 5m"
            )
        return seconds
