"""
Publishing events to many peers: one subscription behind them, and each event encoded once.

Events of one reactor turn go out together, so that a thousand subscribers cost one write each and not one per event.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from itertools import islice

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from zope.interface import Interface

# Where events come from: takes a function to call with each event's sensor (None if it is about none) and text, and
# returns what to call to end that.
Subscribe = Callable[[Callable[[str | None, str], None]], Callable[[], None]]

SUBSCRIBERS_PER_TURN = 100  # served before other events of the reactor: a millisecond's work

# After serving all subscribers, pause for this many times as long as that took, so that it takes a third of the time
# at most: a few get events in the next reactor turn, a thousand 30 times a second.
PAUSE = 2.0
PAUSE_LIMIT = 0.03  # seconds; on a busy machine, the pause must not become a delay that people notice

EVENTS_LIMIT = 256 * 1024  # bytes; when so many wait, they are sent at once

UNSENT_IN_ALL = 64 * 1024 * 1024  # bytes that wait for all subscribers of a front end together, protocol §3


def unsent_share(subscribers: int) -> int:
    """
    Return how many bytes may wait for each of so many subscribers.
    """
    return UNSENT_IN_ALL // max(1, subscribers)


class EventBatch:
    """
    Events for all subscribers that get the same ones.
    """

    def __init__(self, lines: Sequence[bytes]) -> None:
        """
        Args:
            lines: At least one event, without its line end.
        """
        self._lines = lines
        self._encoded: dict[bytes, bytes] = {}

    def __len__(self) -> int:
        return len(self._lines)

    def encode(self, end: bytes) -> bytes:
        """
        Return the events, each with this line end.
        """
        if end not in self._encoded:
            self._encoded[end] = end.join([*self._lines, b""])
        return self._encoded[end]


class ISubscriber(Interface):
    """
    A peer that gets events.
    """

    def deliver(batch: EventBatch) -> None:
        """
        Send events to the peer.
        """


@dataclass(eq=False, slots=True)
class _Group:
    """
    Subscribers to the same sensors.

    Attributes:
        members: Each with how many of `lines` were published before it subscribed.
        lines: Events that wait for the next round.
        size: Their bytes.
    """

    members: dict[ISubscriber, int] = field(default_factory=dict)
    lines: list[bytes] = field(default_factory=list)
    size: int = 0


class Broadcast:
    """
    Delivers events to subscribers, by sensor. It is subscribed itself only while it has subscribers.
    """

    def __init__(self, reactor: IReactorTime, subscribe: Subscribe) -> None:
        """
        Args:
            reactor: For later turns.
            subscribe: Where the events come from; called when there is a first subscriber.
        """
        self._reactor = reactor
        self._subscribe = subscribe
        self._sensors: dict[ISubscriber, frozenset[str]] = {}
        self._groups: dict[frozenset[str], _Group] = {}  # the empty set is all sensors
        self._of_sensor: dict[str, set[frozenset[str]]] = {}
        # A round delivers the waiting events of all groups.
        self._round: dict[ISubscriber, EventBatch] = {}  # what is left of it
        self._round_took = 0.0  # seconds
        self._next_round = 0.0  # not before this time
        self._call: IDelayedCall | None = None
        self._unsubscribe: Callable[[], None] | None = None

    def __len__(self) -> int:
        return len(self._sensors)

    def __contains__(self, subscriber: ISubscriber) -> bool:
        return subscriber in self._sensors

    def add(self, subscriber: ISubscriber, sensors: Collection[str]) -> None:
        """
        Deliver events to a subscriber from now on, instead of those that it got before.

        Args:
            subscriber: Who gets them.
            sensors: Deliver readings of these sensors only; of all, if empty. Other events are delivered in any case.
        """
        self._remove(subscriber)
        self._sensors[subscriber] = key = frozenset(sensors)
        group = self._groups.get(key)
        if group is None:
            group = self._groups[key] = _Group()
            for sensor in key:
                self._of_sensor.setdefault(sensor, set()).add(key)
        group.members[subscriber] = len(group.lines)
        if self._unsubscribe is None:
            self._unsubscribe = self._subscribe(self._published)

    def remove(self, subscriber: ISubscriber) -> None:
        """
        Deliver the events that wait for a subscriber, and no more; do nothing if it is none.
        """
        self._remove(subscriber)
        if not self._sensors:
            if self._unsubscribe is not None:
                unsubscribe, self._unsubscribe = self._unsubscribe, None
                unsubscribe()
            if self._call is not None:
                self._call.cancel()
                self._call = None

    def _remove(self, subscriber: ISubscriber) -> None:
        key = self._sensors.pop(subscriber, None)
        if key is None:
            return
        group = self._groups[key]
        skipped = group.members.pop(subscriber)
        if not group.members:
            del self._groups[key]
            for sensor in key:
                self._of_sensor[sensor].discard(key)
                if not self._of_sensor[sensor]:
                    del self._of_sensor[sensor]
        if subscriber in self._round:
            subscriber.deliver(self._round.pop(subscriber))
        if len(group.lines) > skipped:
            subscriber.deliver(EventBatch(group.lines[skipped:]))

    def _published(self, sensor: str | None, line: str) -> None:
        data = line.encode()
        keys = self._groups if sensor is None else [frozenset[str](), *self._of_sensor.get(sensor, ())]
        full = False
        for key in keys:
            group = self._groups.get(key)
            if group is not None:
                group.lines.append(data)
                group.size += len(data)
                full = full or group.size > EVENTS_LIMIT
        if full:
            self._deliver_all()
        elif self._call is None:
            wait = max(0.0, self._next_round - self._reactor.seconds())
            self._call = self._reactor.callLater(wait, self._deliver_some)

    def _deliver_some(self) -> None:
        self._call = None
        began = self._reactor.seconds()
        if not self._round:
            self._round_took = 0.0
            self._begin_round()
        for subscriber in [*islice(self._round, SUBSCRIBERS_PER_TURN)]:
            if subscriber in self._round:  # delivering to another one can have removed it
                subscriber.deliver(self._round.pop(subscriber))
        now = self._reactor.seconds()
        self._round_took += now - began
        if self._round:
            self._call = self._reactor.callLater(0, self._deliver_some)
            return
        pause = min(PAUSE * self._round_took, PAUSE_LIMIT)
        self._next_round = now + pause
        if any(group.lines for group in self._groups.values()):
            self._call = self._reactor.callLater(pause, self._deliver_some)

    def _deliver_all(self) -> None:
        for _ in range(2):  # what is left of this round, and the next round
            while self._round:
                subscriber = next(iter(self._round))
                subscriber.deliver(self._round.pop(subscriber))
            self._begin_round()

    def _begin_round(self) -> None:
        for group in self._groups.values():
            if not group.lines:
                continue
            lines, group.lines, group.size = group.lines, [], 0
            batch = EventBatch(lines)
            for subscriber, skipped in group.members.items():
                if skipped:
                    group.members[subscriber] = 0
                if skipped < len(lines):
                    self._round[subscriber] = EventBatch(lines[skipped:]) if skipped else batch
