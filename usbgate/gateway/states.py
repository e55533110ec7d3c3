"""
Publishing changes of devices' states, at a bounded rate: a board in a boot loop changes state several times a second.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from usbgate.core.model import DeviceEvent

# Events of one device that are published at once, so that a replug (two) and a lending (three) are seen as they happen,
# even twice; then one a second follows.
BURST = 6


@dataclass(eq=False, slots=True)
class _Rate:
    published: str  # the state of the last event
    allowed: float = BURST  # events that may be published now
    at: float = 0.0  # when that was so, in monotonic seconds
    late: IDelayedCall | None = None


class StateEvents:
    """
    Publishes the states of devices: the first changes at once, then at most one a second and device. Subscribers miss
    short states in between, but always get the last one.
    """

    def __init__(self, reactor: IReactorTime, publish: Callable[[DeviceEvent], None]) -> None:
        """
        Args:
            reactor: For the time.
            publish: Publishes an event.
        """
        self._reactor = reactor
        self._publish = publish
        self._rates: dict[str, _Rate] = {}
        self._stopped = False

    def changed(self, device: str, before: str, current: Callable[[], DeviceEvent]) -> None:
        """
        Publish a change, now or within a second.

        Args:
            device: The device's name.
            before: Its state before.
            current: Returns the event of the state at the time of the call.
        """
        now = self._reactor.seconds()
        rate = self._rates.setdefault(device, _Rate(before, at=now))
        rate.allowed = min(BURST, rate.allowed + now - rate.at)
        rate.at = now
        if rate.late is not None or self._stopped:
            return
        if rate.allowed >= 1.0:
            self._publish_now(rate, current())
        else:
            rate.late = self._reactor.callLater(1.0 - rate.allowed, self._publish_late, rate, current)

    def stop(self) -> None:
        """
        Publish nothing more.
        """
        self._stopped = True
        for rate in self._rates.values():
            if rate.late is not None:
                rate.late.cancel()
                rate.late = None

    def _publish_late(self, rate: _Rate, current: Callable[[], DeviceEvent]) -> None:
        rate.late = None
        rate.allowed, rate.at = 1.0, self._reactor.seconds()
        event = current()
        if event.state != rate.published:
            self._publish_now(rate, event)

    def _publish_now(self, rate: _Rate, event: DeviceEvent) -> None:
        rate.allowed -= 1.0
        rate.published = event.state
        self._publish(event)
