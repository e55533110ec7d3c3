"""
Events, handed out: once for all who watch the same, together, and a hundred watchers a turn.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from tests.support.turnclock import TurnClock
from usbgate.net.broadcast import EVENTS_LIMIT, PAUSE_LIMIT, WATCHERS_A_TURN, Broadcast, EventBatch, ISubscriber


@implementer(ISubscriber)
class MemoryWatcher:
    """
    Keeps what it gets; takes some time for it.
    """

    def __init__(self, clock: Clock | None = None) -> None:
        self.got: list[EventBatch] = []
        self._clock = clock

    @property
    def heard(self) -> list[str]:
        """
        The events, spelled.
        """
        return [line for events in self.got for line in events.spelled(b"\n").decode().splitlines()]

    def events(self, events: EventBatch) -> None:
        """
        See `ISubscriber`.
        """
        self.got.append(events)
        if self._clock is not None:
            self._clock.rightNow += 0.001


class WatchersTests(SynchronousTestCase):
    """
    Watchers on a gateway in memory.
    """

    def setUp(self) -> None:
        """
        Begin with nobody.
        """
        self.clock = TurnClock()
        self.deliver: Callable[[str | None, str], None] | None = None
        self.watchers = Broadcast(self.clock, self.subscribe)

    def subscribe(self, deliver: Callable[[str | None, str], None]) -> Callable[[], None]:
        """
        Deliver events from now on.
        """
        self.deliver = deliver

        def unsubscribe() -> None:
            self.deliver = None

        return unsubscribe

    def publish(self, sensor: str | None, line: str) -> None:
        """
        Publish an event.
        """
        if self.deliver is not None:
            self.deliver(sensor, line)

    def tearDown(self) -> None:
        """
        At the end nobody listens, and nothing is due.
        """
        for watcher in [*self.watchers._sensors]:
            self.watchers.remove(watcher)
        self.assertIsNone(self.deliver)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def watch(self, *sensors: str, count: int = 1, clock: Clock | None = None) -> list[MemoryWatcher]:
        """
        Let some watch.
        """
        some = [MemoryWatcher(clock) for _ in range(count)]
        for watcher in some:
            self.watchers.add(watcher, sensors)
        return some

    def test_once_for_all(self) -> None:
        """
        What comes in one turn is handed over together, and is one thing for all who watch the same.
        """
        all_of_it = self.watch(count=3)
        twenty = self.watch("20", count=2) + self.watch("20", "21")
        for n in range(3):
            self.publish(f"2{n}", f"e{n}")
        self.publish(None, "device")
        self.clock.turn()
        self.assertEqual([watcher.heard for watcher in all_of_it], [["e0", "e1", "e2", "device"]] * 3)
        self.assertEqual([w.heard for w in twenty], [["e0", "device"], ["e0", "device"], ["e0", "e1", "device"]])
        self.assertEqual([len({id(w.got[0]) for w in some}) for some in (all_of_it, twenty[:2])], [1, 1])
        self.assertEqual([len(watcher.got) for watcher in all_of_it + twenty], [1] * 6)
        self.assertEqual(all_of_it[0].got[0].spelled(b"\r\n"), b"e0\r\ne1\r\ne2\r\ndevice\r\n")

    def test_from_then_on(self) -> None:
        """
        Who begins to watch gets nothing from before; who ends gets all until then, and nothing after.
        """
        (first,) = self.watch()
        self.publish("20", "a")
        (second,) = self.watch()
        self.publish("20", "b")
        self.watchers.remove(first)
        self.watchers.add(second, ["21"])
        self.assertEqual((first.heard, second.heard), (["a", "b"], ["b"]))
        self.publish("20", "c")
        self.publish("21", "d")
        self.clock.turn()
        self.assertEqual((first.heard, second.heard), (["a", "b"], ["b", "d"]))

    def test_many(self) -> None:
        """
        Many are served in several turns, each in its order, whatever comes meanwhile and whoever goes.
        """
        many = self.watch(count=2 * WATCHERS_A_TURN + 50)
        self.publish("20", "a")
        self.clock.turn()
        self.assertEqual(sum(len(watcher.got) for watcher in many), WATCHERS_A_TURN)
        self.publish("20", "b")
        self.watchers.remove(many[-1])
        self.assertEqual(many[-1].heard, ["a", "b"])
        (late,) = self.watch()
        self.publish("20", "c")
        self.clock.advance(1)
        self.assertEqual([watcher.heard for watcher in many[:-1]], [["a", "b", "c"]] * (len(many) - 1))
        self.assertEqual(late.heard, ["c"])

    def test_pause(self) -> None:
        """
        When handing out took its time the next comes a while later, and no later than the limit.
        """
        for count, pause in ((5, 0.01), (90, PAUSE_LIMIT)):
            some = self.watch(count=count, clock=self.clock)
            self.publish("20", "a")
            self.clock.turn()
            self.publish("20", "b")
            self.publish("20", "c")
            (call,) = self.clock.getDelayedCalls()
            self.assertAlmostEqual(call.getTime() - self.clock.seconds(), pause)
            self.clock.advance(pause)
            self.assertEqual([len(events) for events in some[0].got], [1, 2])
            self.clock.advance(1)
            for watcher in some:
                self.watchers.remove(watcher)

    def test_bounded(self) -> None:
        """
        Many bytes do not wait for their turn.
        """
        (watcher,) = self.watch()
        for _ in range(EVENTS_LIMIT // 1000 + 1):
            self.publish("20", "x" * 1000)
        self.assertEqual(len(watcher.heard), EVENTS_LIMIT // 1000 + 1)
