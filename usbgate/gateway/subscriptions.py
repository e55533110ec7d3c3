"""
Publish and subscribe within the process: events, for every face that has somebody watching.

A subscriber is called at once and must not hold anything up: what a slow peer may pile up is bounded by the face that
knows the peer.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, ParamSpec

from twisted.logger import Logger

P = ParamSpec("P")


class Subscriptions(Generic[P]):
    """
    Who wants to hear of events, and what an event is told as.
    """

    log = Logger()

    def __init__(self) -> None:
        self._subscribers: dict[object, Callable[P, None]] = {}

    @property
    def wanted(self) -> bool:
        """
        Whether anybody listens; without, no event need be made.
        """
        return bool(self._subscribers)

    def subscribe(self, deliver: Callable[P, None]) -> Callable[[], None]:
        """
        Call `deliver` with every event from now on.

        Returns:
            What to call to end it; calling it again does nothing.
        """
        key = object()
        self._subscribers[key] = deliver

        def unsubscribe() -> None:
            self._subscribers.pop(key, None)

        return unsubscribe

    def publish(self, *event: P.args, **others: P.kwargs) -> None:
        """
        Tell everybody; one that fails is logged and keeps nobody else from hearing.
        """
        for deliver in list(self._subscribers.values()):
            try:
                deliver(*event, **others)
            except Exception:
                self.log.failure("a subscriber failed")
