"""
Counters that begin again: a meter that starts reports a 0 before it knows its count, and Home Assistant would take the
count after it for consumption.
"""

from __future__ import annotations

from usbgate.core.containers import BoundedDict
from usbgate.core.model import Reading

COUNTERS_REMEMBERED = 10_000

Series = tuple[str, str, str]  # a device, a sensor and a field


class LoneZeros:
    """
    Knows the counters whose newest reading is a 0 that has not come again.
    """

    def __init__(self) -> None:
        self._first: BoundedDict[Series, int] = BoundedDict(COUNTERS_REMEMBERED)  # when the first 0 came

    def holds(self, reading: Reading) -> bool:
        """
        Return whether a reading is not to be shown yet.

        Args:
            reading: The newest reading of a field that never falls.
        """
        series = (reading.device, reading.sensor, reading.field)
        if reading.value != 0.0:
            self._first.pop(series, None)
            return False
        if series not in self._first:
            self._first.remember(series, reading.at)
        return self._first[series] == reading.at
