"""
Broadcast: each event is encoded once for all subscribers to the same sensors, and a hundred are served per turn.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from tests.support.turnclock import TurnClock
from usbgate.net.broadcast import (
    EVENTS_LIMIT,
    PAUSE_LIMIT,
    SUBSCRIBERS_PER_TURN,
    UNSENT_IN_ALL,
    Broadcast,
    EventBatch,
    ISubscriber,
    unsent_share,
)


@implementer(ISubscriber)
class MemorySubscriber:
    """
    Keeps the batches that it gets.
    """

    def __init__(self, clock: Clock | None = None) -> None:
        """
        Args:
            clock: Moved by a millisecond for each batch.
        """
        self.batches: list[EventBatch] = []
        self._clock = clock

    @property
    def events(self) -> list[str]:
        """
        The events of all batches.
        """
        return [line for batch in self.batches for line in batch.encode(b"\n").decode().splitlines()]

    def deliver(self, batch: EventBatch) -> None:
        """
        Keep a batch.
        """
        self.batches.append(batch)
        if self._clock is not None:
            self._clock.rightNow += 0.001


class BroadcastTests(SynchronousTestCase):
    """
    Subscribers and a source of events in memory.
    """

    def setUp(self) -> None:
        """
        Start without subscribers.
        """
        self.clock = TurnClock()
        self.sources: list[Callable[[str | None, str], None]] = []
        self.broadcast = Broadcast(self.clock, self.subscribe)
        self.subscribers: list[MemorySubscriber] = []

    def tearDown(self) -> None:
        """
        Without subscribers, the broadcast is not subscribed either, and nothing is scheduled.
        """
        for subscriber in self.subscribers:
            self.broadcast.remove(subscriber)
        self.assertEqual((len(self.broadcast), self.sources), (0, []))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def subscribe(self, deliver: Callable[[str | None, str], None]) -> Callable[[], None]:
        """
        Be the source of events.
        """
        self.sources.append(deliver)
        return lambda: self.sources.remove(deliver)

    def publish(self, sensor: str | None, text: str) -> None:
        """
        Publish an event to whoever is subscribed.
        """
        for deliver in self.sources:
            deliver(sensor, text)

    def add(self, *sensors: str, count: int = 1, clock: Clock | None = None) -> list[MemorySubscriber]:
        """
        Add some subscribers to the same sensors.
        """
        some = [MemorySubscriber(clock) for _ in range(count)]
        self.subscribers += some
        for subscriber in some:
            self.broadcast.add(subscriber, sensors)
        return some

    def test_once_for_all(self) -> None:
        """
        Events of one turn are delivered together, as one batch for all subscribers to the same sensors.
        """
        to_all = self.add(count=3)
        to_twenty = self.add("20", count=2) + self.add("20", "21")
        for n in range(3):
            self.publish(f"2{n}", f"e{n}")
        self.publish(None, "device")
        self.clock.turn()
        self.assertEqual([each.events for each in to_all], [["e0", "e1", "e2", "device"]] * 3)
        self.assertEqual([each.events for each in to_twenty], [["e0", "device"]] * 2 + [["e0", "e1", "device"]])
        self.assertEqual([len({id(each.batches[0]) for each in some}) for some in (to_all, to_twenty[:2])], [1, 1])
        self.assertEqual([len(each.batches) for each in to_all + to_twenty], [1] * 6)
        self.assertEqual(to_all[0].batches[0].encode(b"\r\n"), b"e0\r\ne1\r\ne2\r\ndevice\r\n")
        self.assertEqual(len(to_all[0].batches[0]), 4)

    def test_from_then_on(self) -> None:
        """
        A subscriber gets no event from before it subscribed, all events until it is removed, and none after that.
        """
        (first,) = self.add()
        self.publish("20", "a")
        (second,) = self.add()
        self.publish("20", "b")
        self.broadcast.remove(first)
        self.broadcast.add(second, ["21"])
        self.assertEqual((first.events, second.events), (["a", "b"], ["b"]))
        self.assertEqual((first in self.broadcast, second in self.broadcast), (False, True))
        self.publish("20", "c")
        self.publish("21", "d")
        self.clock.turn()
        self.assertEqual((first.events, second.events), (["a", "b"], ["b", "d"]))

    def test_many(self) -> None:
        """
        Many subscribers are served in several turns, each in order, whatever is published or removed meanwhile.
        """
        many = self.add(count=2 * SUBSCRIBERS_PER_TURN + 50)
        self.publish("20", "a")
        self.clock.turn()
        self.assertEqual(sum(len(each.batches) for each in many), SUBSCRIBERS_PER_TURN)
        self.publish("20", "b")
        self.broadcast.remove(many[-1])
        self.assertEqual(many[-1].events, ["a", "b"])
        (late,) = self.add()
        self.publish("20", "c")
        self.clock.advance(1)
        self.assertEqual([each.events for each in many[:-1]], [["a", "b", "c"]] * (len(many) - 1))
        self.assertEqual(late.events, ["c"])

    def test_pause(self) -> None:
        """
        The next round comes twice as long after a round as that took, and no later than the limit.
        """
        for count, pause in ((5, 0.01), (90, PAUSE_LIMIT)):
            some = self.add(count=count, clock=self.clock)
            self.publish("20", "a")
            self.clock.turn()
            self.publish("20", "b")
            self.publish("20", "c")
            (call,) = self.clock.getDelayedCalls()
            self.assertAlmostEqual(call.getTime() - self.clock.seconds(), pause)
            self.clock.advance(pause)
            self.assertEqual([len(batch) for batch in some[0].batches], [1, 2])
            self.clock.advance(1)
            for subscriber in some:
                self.broadcast.remove(subscriber)

    def test_bounded(self) -> None:
        """
        When too many bytes wait, they are delivered at once.
        """
        (subscriber,) = self.add()
        for _ in range(EVENTS_LIMIT // 1000 + 1):
            self.publish("20", "x" * 1000)
        self.assertEqual(len(subscriber.events), EVENTS_LIMIT // 1000 + 1)


class ShareTests(SynchronousTestCase):
    """
    How much may wait for a subscriber that does not read.
    """

    def test_share(self) -> None:
        """
        However many there are, no more than `UNSENT_IN_ALL` waits for all together.
        """
        for subscribers in (0, 1, 64, 1000, 5000):
            self.assertLessEqual(subscribers * unsent_share(subscribers), UNSENT_IN_ALL)
        self.assertGreater(unsent_share(1000), 60 * 1024)
