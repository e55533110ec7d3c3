"""
The log lines about what the recorder noticed in reports.
"""

from __future__ import annotations

from collections.abc import Iterable

from twisted.logger import Logger, LogLevel

from usbgate.core.fieldunits import UnitChange
from usbgate.core.recorder import Contested, Notice
from usbgate.core.sensors import OwnerChange
from usbgate.core.uncompared import Uncompared

_LINES = {
    OwnerChange: (
        LogLevel.info,
        "sensor {sensor} passes from {before}, which left a question unanswered or is away, to {device}, "
        "which reports it; further sensors that pass so are not logged",
    ),
    Uncompared: (
        LogLevel.warn,
        "the last {readings} readings of {field} of sensor {sensor} on {device} can't be compared with its "
        "alarm condition {condition}, the last one is {text}: they neither raise nor end the alarm",
    ),
    Contested: (
        LogLevel.warn,
        "{device} and {before} both report sensor {sensor}: its readings are stored under each device",
    ),
    UnitChange: (
        LogLevel.warn,
        "{device}: the unit of {field} of sensor {sensor} was {before} and is {unit}: it is text from now on",
    ),
}


class NoticeLog:
    """
    Logs notices. The recorder makes most of them once; that sensors pass is logged once for each pair of devices.
    """

    log = Logger()

    def __init__(self) -> None:
        self._passed: set[tuple[str, str]] = set()  # as many as there are devices, squared

    def add(self, notices: Iterable[Notice]) -> None:
        """
        Log notices.
        """
        for notice in notices:
            if isinstance(notice, OwnerChange):
                between = (notice.before, notice.device)
                if notice.event != "passed" or between in self._passed:
                    continue
                self._passed.add(between)
            level, line = _LINES[type(notice)]
            self.log.emit(level, line, **notice._asdict())
