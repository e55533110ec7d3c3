"""
Requests that wait until their sensor reports (protocol §4.12): for nodes that sleep, and listen for a moment then.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable
from dataclasses import replace
from math import inf
from typing import Any, Generic, TypeVar

from usbgate.core.errors import NotHeard, RequestError, TimedOut
from usbgate.core.exchanges import Asker, Ended, Exchange, Hold, Lane
from usbgate.core.model import Question
from usbgate.core.queues import Queues

W = TypeVar("W")


class HeldAskers(Generic[W]):
    """
    The askers that are held, which have no place in the queues.

    Attributes:
        by_sensor: Those of each sensor, in the order in which they asked.
    """

    def __init__(self, device: str, queues: Queues[W], number: Callable[[], int]) -> None:
        """
        Args:
            device: The link's name.
            queues: Where they wait when their sensors have reported.
            number: Returns a number for `Hold.asked`.
        """
        self.by_sensor: dict[str, list[Asker[W]]] = {}
        self._device = device
        self._queues = queues
        self._number = number

    def add(self, asker: Asker[W]) -> None:
        """
        Hold an asker.
        """
        asker.device = self._device
        asker.holder.askers[asker] = None
        self._hold(asker, Hold(self._number()))

    def add_again(self, exchange: Exchange[W]) -> None:
        """
        Hold those askers of a question again who were held before.
        """
        for asker in list(exchange.askers):
            if asker.hold is not None:
                self._queues.take_back(asker, exchange)
                self._hold(asker, replace(asker.hold, waits=True, unanswered=exchange.unanswered))

    def add_waiting(self, lane: Lane[W]) -> None:
        """
        Hold those again who wait in a lane for their questions to be written: their sensor no longer listens.
        """
        for exchange in list(lane.queue):
            if exchange.turn[1] == -inf and not exchange.on_wire:
                self.add_again(exchange)
                if not exchange.askers:
                    self._queues.remove(exchange)

    def release(self, sensor: str, is_once: Callable[[Question], bool]) -> None:
        """
        Queue the questions of a sensor that has reported ahead of all others.

        Args:
            sensor: The sensor.
            is_once: Returns whether a question joins no other.
        """
        for asker in self.by_sensor.pop(sensor, ()):
            assert asker.hold is not None
            asker.hold.waits = False
            self._queues.add_first(asker, asker.hold, is_once(asker.request.question))

    def end(self, asker: Asker[W], error: RequestError | None = None) -> Ended[W]:
        """
        End an asker; without an error, as if its time limit had ended.
        """
        sensor = asker.request.question.sensor
        self.by_sensor[sensor].remove(asker)
        if not self.by_sensor[sensor]:
            del self.by_sensor[sensor]
        del asker.holder.askers[asker]
        asker.hold = None
        return error or (TimedOut() if asker.sent else NotHeard()), (asker,)

    def end_all(self, error: type[RequestError]) -> list[Ended[W]]:
        """
        End all of them.
        """
        return [self.end(asker, error()) for askers in list(self.by_sensor.values()) for asker in list(askers)]

    def _hold(self, asker: Asker[W], hold: Hold) -> None:
        asker.hold = hold
        insort(self.by_sensor.setdefault(asker.request.question.sensor, []), asker, key=_asked)


def _asked(asker: Asker[Any]) -> int:
    assert asker.hold is not None
    return asker.hold.asked
