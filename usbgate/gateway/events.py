"""
What happens, as who watches is told of it: each event as a line of protocol §3, and as a value.
"""

from __future__ import annotations

from collections.abc import Sequence

from usbgate.core.alarms import Change
from usbgate.core.fieldline import format_line
from usbgate.core.messages import reading_event_line
from usbgate.core.model import AlarmEvent, DeviceEvent, Event, Question, Report, ReportEvent, StoreEvent
from usbgate.gateway.subscriptions import Subscriptions


class Publisher:
    """
    Tells events to who wants them; what nobody wants is not made.

    Attributes:
        lines: For those who want lines; each with its sensor, or with None where it is about none.
        values: For those who want values.
    """

    def __init__(self) -> None:
        self.lines: Subscriptions[[str | None, str]] = Subscriptions()
        self.values: Subscriptions[[Event]] = Subscriptions()

    def readings(self, device: str, handed: Sequence[tuple[Report, Question | None]], at: int) -> None:
        """
        Tell what a device said.

        Args:
            device: Its name.
            handed: Reports, each with the question that it answered.
            at: When: whole milliseconds since 1970, UTC.
        """
        if self.lines.wanted:
            for report, question in handed:
                if report.values:
                    command = question.command if question is not None else None
                    self.lines.publish(report.sensor, reading_event_line(report, command, at))
        if self.values.wanted:
            for report, question in handed:
                if report.values:
                    command = question.command if question is not None else report.command
                    self.values.publish(ReportEvent(report.sensor, device, command, at, report.values))

    def alarms(self, changes: Sequence[Change]) -> None:
        """
        Tell what happened to alarms.
        """
        for change in changes:
            self.values.publish(AlarmEvent(change.alarm))

    def device(self, name: str, state: str, since: int) -> None:
        """
        Tell that the state of a link is another one, since when (as `DeviceSummary` has them).
        """
        self.lines.publish(None, format_line({"EVENT": "device", "DEV": name, "STATE": state}))
        self.values.publish(DeviceEvent(name, state, since))

    def store(self, state: str, backlog: int) -> None:
        """
        Tell that the store's state is another one.
        """
        self.values.publish(StoreEvent(state, backlog))
