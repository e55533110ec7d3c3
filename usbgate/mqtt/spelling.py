"""
What readings are to others: their values, and how long they count.
"""

from __future__ import annotations

import re

from usbgate.core.fieldline import unit_of
from usbgate.core.model import Reading
from usbgate.core.settings import SensorSettings

_USUAL_NUMBER = re.compile(r"[+-]?(?:0|[1-9][0-9]*)?(?:\.[0-9]*)?")


def is_number(reading: Reading) -> bool:
    """
    Return whether a reading is a number to people, and not an id, as 0815 and 00E1 may be.
    """
    value, text = reading.value, reading.text
    return value is not None and (text is None or bool(unit_of(text)) or _USUAL_NUMBER.fullmatch(text) is not None)


def plain_value(reading: Reading) -> float | str:
    """
    Return the value of a reading: a number without its unit, or the text.
    """
    return reading.value if reading.value is not None and is_number(reading) else reading.text or ""


def lifetime(sensor: SensorSettings) -> float:
    """
    Return for how many seconds the readings of a sensor count: until they are out of date, or, for a sensor that is
    polled, three polls.
    """
    return sensor.stale if sensor.poll is None else 3 * sensor.poll
