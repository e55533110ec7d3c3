"""
Publish and subscribe within the process: all front ends receive events from here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from twisted.logger import Logger

from usbgate.core.alarms import Change
from usbgate.core.calibration import Calibrations
from usbgate.core.model import AlarmEvent, Event, Question, Report, ReportEvent


class Events:
    """
    The subscribers, and what is published to them.

    A subscriber is called at once and must not block. Its front end limits what waits for a slow peer.

    Attributes:
        subscribers: What to call with each event. While there are none, no event needs to be made.
    """

    log = Logger()

    def __init__(self, calibrations: Calibrations) -> None:
        """
        Args:
            calibrations: What is shown of reports.
        """
        self._calibrations = calibrations
        self.subscribers: dict[object, Callable[[Event], None]] = {}

    def subscribe(self, deliver: Callable[[Event], None]) -> Callable[[], None]:
        """
        Call `deliver` with every event from now on (see `IGateway.subscribe`).
        """
        key = object()
        self.subscribers = {**self.subscribers, key: deliver}  # a new one, since the other may be read just now

        def unsubscribe() -> None:
            self.subscribers = {each: other for each, other in self.subscribers.items() if each is not key}

        return unsubscribe

    def publish(self, event: Event) -> None:
        """
        Deliver an event to all subscribers; one that fails is logged and does not affect the others.
        """
        for deliver in self.subscribers.values():
            try:
                deliver(event)
            except Exception:
                self.log.failure("unexpected error in a subscriber")

    def publish_reports(self, device: str, handed: Sequence[tuple[Report, Question | None]], at: int) -> None:
        """
        Publish what is shown of the reports that have measurements.

        Args:
            device: The device's name.
            handed: Reports, each with the question that it answered.
            at: When: whole milliseconds since 1970, UTC.
        """
        calibrated = self._calibrations.by_sensor
        for report, question in handed:
            if raw := report.values:
                command = question.command if question is not None else report.command
                values = self._calibrations.values(report.sensor, raw) if report.sensor in calibrated else raw
                differing = None if values is raw else raw
                self.publish(ReportEvent(report.sensor, device, command, at, values, differing))

    def publish_changes(self, changes: Sequence[Change]) -> None:
        """
        Publish changes of alarms.
        """
        for change in changes:
            self.publish(AlarmEvent(change.alarm, change.record.event, change.record.at))
