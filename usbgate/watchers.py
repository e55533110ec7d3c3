"""
Who gets which event: one subscription to the gateway, many peers behind it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from zope.interface import Interface

from usbgate.interfaces import IGateway


class IWatcher(Interface):
    """
    A peer that gets events.
    """

    def event(line: bytes) -> bool:
        """
        Take one event.

        Args:
            line: The event without a line end.

        Returns:
            Whether `flush` must follow.
        """

    def flush() -> None:
        """
        Send the events taken: those of one reactor turn go out together.
        """


class Watchers:
    """
    Hands events on, by sensor; hears of them only while somebody watches.
    """

    def __init__(self, reactor: IReactorTime, gateway: IGateway) -> None:
        """
        Begin with nobody.

        Args:
            reactor: To send once a turn.
            gateway: Where the events come from.
        """
        self._reactor = reactor
        self._gateway = gateway
        self._sensors: dict[IWatcher, Collection[str]] = {}
        self._of_all: set[IWatcher] = set()
        self._of_sensor: dict[str, set[IWatcher]] = {}
        self._unflushed: set[IWatcher] = set()
        self._flush_call: IDelayedCall | None = None
        self._unsubscribe: Callable[[], None] | None = None

    def __len__(self) -> int:
        return len(self._sensors)

    def __contains__(self, watcher: IWatcher) -> bool:
        return watcher in self._sensors

    def add(self, watcher: IWatcher, sensors: Collection[str]) -> None:
        """
        Send events to a watcher, instead of those it got before.

        Args:
            watcher: Who gets them.
            sensors: Readings of these sensors only; of all, if empty. Links' events come in any case.
        """
        self._forget(watcher)
        self._sensors[watcher] = frozenset(sensors)
        for sensor in sensors:
            self._of_sensor.setdefault(sensor, set()).add(watcher)
        if not sensors:
            self._of_all.add(watcher)
        if self._unsubscribe is None:
            self._unsubscribe = self._gateway.subscribe(self._deliver)

    def remove(self, watcher: IWatcher) -> None:
        """
        Send no more events to a watcher, if it is one.
        """
        self._forget(watcher)
        self._unflushed.discard(watcher)  # what it took goes out with whatever it is told next
        if not self._sensors:
            if self._unsubscribe is not None:
                unsubscribe, self._unsubscribe = self._unsubscribe, None
                unsubscribe()
            if self._flush_call is not None:
                self._flush_call.cancel()
                self._flush_call = None

    def _forget(self, watcher: IWatcher) -> None:
        for sensor in self._sensors.pop(watcher, ()):
            others = self._of_sensor[sensor]
            others.discard(watcher)
            if not others:
                del self._of_sensor[sensor]
        self._of_all.discard(watcher)

    def _deliver(self, sensor: str | None, line: str) -> None:
        data = line.encode()
        for watchers in [self._sensors] if sensor is None else [self._of_all, self._of_sensor.get(sensor, ())]:
            for watcher in watchers:
                if watcher.event(data):
                    self._unflushed.add(watcher)
        if self._unflushed and self._flush_call is None:
            self._flush_call = self._reactor.callLater(0, self._flush)

    def _flush(self) -> None:
        self._flush_call = None
        unflushed, self._unflushed = self._unflushed, set()
        for watcher in unflushed:
            watcher.flush()
