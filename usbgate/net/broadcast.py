"""
Who watches what: one subscription to all events, many peers behind it.

An event is put down once for all who watch the same, spelled once, and goes out with all others since the last time:
what a thousand watchers cost is a write each, and not for every event.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from itertools import islice

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from zope.interface import Interface

# Makes a function hear of every event, with its sensor (None for one that is no reading) and as text, from now on;
# gives what to call to hear no more.
Subscribe = Callable[[Callable[[str | None, str], None]], Callable[[], None]]

WATCHERS_A_TURN = 100  # handed their events before the reactor gets its turn: a millisecond's work

# Handing out to many takes its time, and others wait for the reactor too: it is left alone for twice as long as that
# took. So events go to a few watchers in the next turn, and to a thousand 30 times a second.
PAUSE = 2.0
PAUSE_LIMIT = 0.03  # seconds; a busy machine must not make it a delay that people see

EVENTS_LIMIT = 256 * 1024  # bytes; where so many came before their time, they are handed out at once, not kept here


class EventBatch:
    """
    Some events, for all who get the same.
    """

    def __init__(self, lines: Sequence[bytes]) -> None:
        """
        Take events.

        Args:
            lines: At least one, without line ends.
        """
        self._lines = lines
        self._spelled: dict[bytes, bytes] = {}

    def __len__(self) -> int:
        return len(self._lines)

    def spelled(self, end: bytes) -> bytes:
        """
        Spell them, each with this line end.
        """
        if end not in self._spelled:
            self._spelled[end] = end.join([*self._lines, b""])
        return self._spelled[end]


class ISubscriber(Interface):
    """
    A peer that gets events.
    """

    def events(events: EventBatch) -> None:
        """
        Take some events, and send them.
        """


@dataclass(eq=False, slots=True)
class _Group:
    # Those who watch the same, each with how many of the lines came before it did; and what they have not got yet.
    watchers: dict[ISubscriber, int] = field(default_factory=dict)
    lines: list[bytes] = field(default_factory=list)
    size: int = 0


class Broadcast:
    """
    Hands events on, by sensor; hears of them only while somebody watches.
    """

    def __init__(self, reactor: IReactorTime, subscribe: Subscribe) -> None:
        """
        Begin with nobody.

        Args:
            reactor: To hand out later what came together.
            subscribe: Where the events come from; called when the first one watches.
        """
        self._reactor = reactor
        self._subscribe = subscribe
        self._sensors: dict[ISubscriber, frozenset[str]] = {}
        self._groups: dict[frozenset[str], _Group] = {}  # nothing stands for all sensors
        self._of_sensor: dict[str, set[frozenset[str]]] = {}
        self._handing: dict[ISubscriber, EventBatch] = {}  # in this round, and not handed out yet
        self._took = 0.0  # seconds, in this round
        self._not_before = 0.0
        self._call: IDelayedCall | None = None
        self._unsubscribe: Callable[[], None] | None = None

    def __len__(self) -> int:
        return len(self._sensors)

    def __contains__(self, watcher: ISubscriber) -> bool:
        return watcher in self._sensors

    def add(self, watcher: ISubscriber, sensors: Collection[str]) -> None:
        """
        Send events to a watcher, instead of those it got before.

        Args:
            watcher: Who gets them.
            sensors: Readings of these sensors only; of all, if empty. Other events come in any case.
        """
        self._forget(watcher)
        self._sensors[watcher] = key = frozenset(sensors)
        group = self._groups.get(key)
        if group is None:
            group = self._groups[key] = _Group()
            for sensor in key:
                self._of_sensor.setdefault(sensor, set()).add(key)
        group.watchers[watcher] = len(group.lines)
        if self._unsubscribe is None:
            self._unsubscribe = self._subscribe(self._deliver)

    def remove(self, watcher: ISubscriber) -> None:
        """
        Hand a watcher what there is for it, and send it no more; does nothing if it is none.
        """
        self._forget(watcher)
        if not self._sensors:
            if self._unsubscribe is not None:
                unsubscribe, self._unsubscribe = self._unsubscribe, None
                unsubscribe()
            if self._call is not None:
                self._call.cancel()
                self._call = None

    def _forget(self, watcher: ISubscriber) -> None:
        key = self._sensors.pop(watcher, None)
        if key is None:
            return
        group = self._groups[key]
        skipped = group.watchers.pop(watcher)
        if not group.watchers:
            del self._groups[key]
            for sensor in key:
                self._of_sensor[sensor].discard(key)
                if not self._of_sensor[sensor]:
                    del self._of_sensor[sensor]
        if watcher in self._handing:
            watcher.events(self._handing.pop(watcher))
        if len(group.lines) > skipped:
            watcher.events(EventBatch(group.lines[skipped:]))

    def _deliver(self, sensor: str | None, line: str) -> None:
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
            self._hand_out()
        elif self._call is None:
            self._call = self._reactor.callLater(max(0.0, self._not_before - self._reactor.seconds()), self._hand_some)

    def _hand_some(self) -> None:
        self._call = None
        began = self._reactor.seconds()
        if not self._handing:
            self._took = 0.0
            self._begin_round()
        for watcher in [*islice(self._handing, WATCHERS_A_TURN)]:
            if watcher in self._handing:  # it can have gone with one before
                watcher.events(self._handing.pop(watcher))
        now = self._reactor.seconds()
        self._took += now - began
        if self._handing:
            self._call = self._reactor.callLater(0, self._hand_some)
            return
        pause = min(PAUSE * self._took, PAUSE_LIMIT)
        self._not_before = now + pause
        if any(group.lines for group in self._groups.values()):
            self._call = self._reactor.callLater(pause, self._hand_some)

    def _hand_out(self) -> None:
        for _ in range(2):  # what is left of this round, and the next
            while self._handing:
                watcher = next(iter(self._handing))
                watcher.events(self._handing.pop(watcher))
            self._begin_round()

    def _begin_round(self) -> None:
        for group in self._groups.values():
            if not group.lines:
                continue
            lines, group.lines, group.size = group.lines, [], 0
            events = EventBatch(lines)
            for watcher, skipped in group.watchers.items():
                if skipped:
                    group.watchers[watcher] = 0
                if skipped < len(lines):
                    self._handing[watcher] = EventBatch(lines[skipped:]) if skipped else events
