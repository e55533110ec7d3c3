"""
Protocol §4.10: who holds places in the queues, and the bounds on askers.
"""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.support.connections import NETWORKS
from tests.support.worlds import message_size
from usbgate.core.displacement import newest_of_most
from usbgate.core.exchanges import Asker, Moves
from usbgate.core.holders import ASKERS_IN_ALL, GONE_PER_ADDRESS, Holder, Holders, network_of
from usbgate.core.model import Question, Request
from usbgate.core.pending import PendingRequests
from usbgate.core.rules import Rules
from usbgate.testing import acknowledgement, request

LONG = 3600.0  # an asker's limit that no test reaches


class HoldersTests(SynchronousTestCase):
    """
    Addresses and counts.
    """

    def test_networks(self) -> None:
        """
        An IPv6 address counts as its /64 network; all others as themselves.
        """
        networks = {host: network_of(host) for host in [*NETWORKS, "fe80::1%eth0", "fe80::2%eth0", ""]}
        self.assertEqual((networks.pop("fe80::1%eth0"), networks.pop("")), (networks.pop("fe80::2%eth0"), ""))
        for one, network in networks.items():
            for other in networks:
                self.assertEqual(network == networks[other], NETWORKS[one] == NETWORKS[other], (one, other))

    def test_newest_of_most(self) -> None:
        """
        Of whoever holds most it is the newest, in whatever order they are listed; all gone connections are one holder.
        """
        a, b, gone, away = Holder("a"), Holder("b"), Holder("a", gone=True), Holder("b", gone=True)
        held = [(a, (1,), "a1"), (b, (3,), "b3"), (a, (2,), "a2"), (b, (5,), "b5"), (b, (4,), "b4"), (gone, (7,), "g7")]
        self.assertEqual(newest_of_most(held), "b5")
        self.assertEqual(newest_of_most([*held, (gone, (6,), "g6"), (away, (0,), "w0")]), "g7")
        self.assertEqual(newest_of_most([(a, (1,), "a1"), (b, (2,), "b2")]), "b2")

    def test_forgotten(self) -> None:
        """
        An address without askers is forgotten: it may have as many as before.
        """
        holders, pending, me = Holders(gone_limit=1), Link(), Holder("me")
        pending.put(request(), me)
        self.assertEqual(holders.disconnected(me), [])
        pending.link_down(0.0)
        pending.link_up(0.0)
        again = Holder("me")
        pending.put(request("21"), again)
        self.assertEqual(holders.disconnected(again), [])
        late = Holder("me")
        pending.put(request("22"), late)
        self.assertEqual([asker.request.question.sensor for asker in holders.disconnected(late)], ["22"])


class Link(PendingRequests[int]):
    """
    The requests over one link, whose waiters are numbers, in the order of asking.
    """

    def __init__(self) -> None:
        """
        Start with a link that is up.
        """
        super().__init__("tty", Rules(patience=5.0), message_size)
        self.numbers = 0
        self.busy: set[int] = set()
        self.link_up(0.0)

    def put(self, request: Request, holder: Holder, started: float = 0.0) -> int:
        """
        Ask; return the number of the asker.
        """
        self.numbers += 1
        self.take(self.ask(Asker(request, started, self.numbers, holder), LONG, 0.0))
        return self.numbers

    def take(self, moves: Moves[int]) -> None:
        """
        Record who failed with `busy`.
        """
        for outcome, askers in moves.ended:
            if getattr(outcome, "code", "") == "busy":
                self.busy.update(asker.waiter for asker in askers)

    def level(self, level: int, holder: Holder, sensor: str = "9") -> int:
        """
        Ask a lamp for a level.
        """
        return self.put(request(sensor, "L", LEVEL=str(level)), holder)

    @property
    def waiting(self) -> list[Question]:
        """
        The questions that wait or are on the wire, each once, in the order of their sensors.
        """
        return list(dict.fromkeys(asker.request.question for asker in self.queues.askers))


class FullQueueTests(SynchronousTestCase):
    """
    A queue is full, and somebody comes who has nothing there.
    """

    def setUp(self) -> None:
        """
        Fill the queue of sensor 9 over one connection: one question is on the wire, and 64 wait.
        """
        self.link = Link()
        self.greedy, self.newcomer = Holder("10.0.0.1"), Holder("10.0.0.1")
        for level in range(65):
            self.link.level(level, self.greedy)
        self.assertEqual(self.link.busy, set())

    def levels(self) -> list[int]:
        """
        Return the levels in the queue of sensor 9, in order.
        """
        return [int(dict(question.arguments)["LEVEL"]) for question in self.link.waiting]

    def test_sensor(self) -> None:
        """
        A newcomer displaces the newest question, and is served after all others; whoever filled it gets `busy`.
        """
        self.assertEqual(self.link.level(100, self.greedy), 66)
        self.assertEqual(self.link.busy, {66})
        self.link.level(101, self.newcomer)
        self.assertEqual(self.link.busy, {66, 65})
        self.assertEqual(self.levels(), [*range(64), 101])
        self.link.level(102, self.newcomer)
        self.assertEqual(self.link.busy, {66, 65, 68})

    def test_crowd(self) -> None:
        """
        A newcomer displaces the newest question of the connection that holds most, though others are newer.
        """
        crowd = [Holder("10.0.0.2") for _ in range(20)]
        for holder in crowd:
            self.link.level(100, holder, sensor="8")  # they all join one question
            self.link.level(100 + self.link.numbers, holder)
        self.assertEqual(self.link.busy, set(range(46, 66)))
        self.assertEqual(self.levels()[:45], list(range(45)))

    def test_gone(self) -> None:
        """
        All connections that are gone are one holder, however few each of them had.
        """
        link, holders = Link(), Holders()
        link.level(0, Holder("10.0.0.1"))
        for level in range(1, 63):
            gone = Holder(f"10.0.1.{level}")
            link.level(level, gone)
            self.assertEqual(holders.disconnected(gone), [])
        for level in (63, 64):
            link.level(level, self.greedy)
        self.link = link
        link.level(100, self.newcomer)
        self.assertEqual(link.busy, {63})
        self.assertEqual(self.levels(), [*range(62), 63, 64, 100])

    def test_joined(self) -> None:
        """
        A question for which others wait, too, is displaced only if its holder has no other.
        """
        friend = Holder("10.0.0.2")
        self.assertEqual(self.link.level(64, friend), 66)  # joins the newest
        self.link.level(100, self.newcomer)
        self.assertEqual(self.link.busy, {64})
        self.assertEqual(self.levels(), [*range(63), 64, 100])

    def test_passed_on(self) -> None:
        """
        A question counts for the first of its connections that are still there.
        """
        friend = Holder("10.0.0.2")
        self.link.level(64, friend)
        Holders().disconnected(self.greedy)
        self.link.level(100, self.newcomer)
        self.assertEqual(self.link.busy, {64})
        self.assertEqual(self.levels()[-2:], [64, 100])

    def test_joins_after_all(self) -> None:
        """
        A newcomer whose question is the last one after another was displaced joins it.
        """
        self.link.level(63, self.newcomer)
        self.assertEqual(self.link.busy, {65})
        self.assertEqual(self.levels(), list(range(64)))

    def test_one_each(self) -> None:
        """
        Where all have one question, the newest is displaced.
        """
        link = Link()
        for level in range(65):
            link.level(level, Holder("10.0.0.1"))
        link.level(100, self.newcomer)
        self.assertEqual(link.busy, {65})

    def test_sent_before(self) -> None:
        """
        A displaced question that had been written fails with `timeout`: the device may have acted on it.
        """
        link = Link()
        link.queues.sensor_limit = 1
        link.put(request("9", "ON"), Holder("10.0.0.2"))
        link.blocked = True  # it can't be written again when its patience is over
        self.assertEqual(link.expire(5.0).ended, [])
        [(error, [asker])] = link.ask(Asker(request("9", "OFF"), 5.0, 2, self.newcomer), LONG, 5.0).ended
        self.assertEqual((getattr(error, "code", ""), asker.waiter), ("timeout", 1))

    def test_link(self) -> None:
        """
        17 connections fill the queue of the link; whoever comes then is accepted, and every time it costs the one that
        holds most its newest question.
        """
        link = Link()
        crowd = [Holder("10.0.0.1") for _ in range(17)]
        for n in range(4100):
            link.level(n, crowd[n % 17 if n < 17 * 240 else 0], sensor=str(n % 100))
        self.assertEqual((link.busy, link.queues.in_flight), (set(), 4100))
        link.put(request("new"), crowd[1])
        self.assertEqual((link.busy, link.queues.in_flight), ({4101}, 4100))
        for n in range(20):
            link.put(request("new", f"C{n}"), Holder("10.0.0.1"))
        self.assertEqual(link.busy, {4101, *range(4081, 4101)})
        self.assertEqual(link.queues.in_flight, 4100)

    def test_goes_first(self) -> None:
        """
        On a full link a newcomer's question counts as asked when the oldest of those that wait was; newcomers keep
        their order.
        """
        link = Link()
        link.queues.link_limit = 4
        greedy = Holder("10.0.0.1")
        for sensor in range(8):  # four of them are on the wire
            link.put(request(str(sensor)), greedy)
        link.put(request("8"), Holder("10.0.0.2"))
        link.put(request("9"), Holder("10.0.0.3"))
        self.assertEqual(link.busy, {8, 7})
        reports = [acknowledgement(str(sensor)) for sensor in range(3)]
        written = [send.request.question for send in link.received(reports, 1.0, 0).send]
        self.assertEqual([question.sensor for question in written], ["4", "8", "9"])

    def test_no_sensor_overtaken(self) -> None:
        """
        On a full link a newcomer's question still waits behind the others of its sensor.
        """
        link = Link()
        link.queues.link_limit = 2
        link.put(request("1", "A"), Holder("10.0.0.1"))
        greedy = Holder("10.0.0.2")
        link.put(request("1", "B"), greedy)
        link.put(request("1", "C"), greedy)
        link.put(request("1", "D"), Holder("10.0.0.3"))
        written = [link.received([acknowledgement("1", command)], 1.0, 0).send for command in "ABD"]
        self.assertEqual([send.request.question.command for [send] in written[:2]], ["B", "D"])

    def test_neighbour_on_the_wire(self) -> None:
        """
        Whoever has a question on the wire there, and none that waits, is a newcomer.
        """
        link = Link()
        link.level(0, self.newcomer)
        for level in range(1, 65):
            link.level(level, self.greedy)
        link.level(100, self.newcomer)
        self.assertEqual(link.busy, {65})


class AskersTests(SynchronousTestCase):
    """
    The bounds over all links, with the real numbers.
    """

    def setUp(self) -> None:
        """
        Start with two links.
        """
        self.links = [Link(), Link()]
        self.holders = Holders()
        self.holders.links += [link.queues for link in self.links]

    def test_gone(self) -> None:
        """
        Of one address 1,024 askers of gone connections go on, the oldest of each connection; of another one, too.
        """
        surplus: list[Asker[Any]] = []
        for n in range(5):
            holder = Holder(f"2001:db8::{n}")
            numbers = [self.links[k % 2].put(request(str(k)), holder) for k in range(250)]
            self.assertEqual([asker.waiter for asker in holder.askers], numbers)
            surplus = self.holders.disconnected(holder)
            self.assertEqual([asker.waiter for asker in surplus], numbers[24:] if n == 4 else [])
        for link in self.links:
            link.take(link.withdraw([asker for asker in surplus if asker in list(link.queues.askers)], 0.0))
        self.assertEqual(self.holders.in_flight, GONE_PER_ADDRESS)
        other = Holder("2001:db8:0:1::1")
        self.links[0].put(request(), other)
        self.assertEqual(self.holders.disconnected(other), [])

    def test_withdrawn_once(self) -> None:
        """
        Whoever has ended meanwhile is not ended again.
        """
        me = Holder("me")
        self.links[0].put(request(), me)
        [asker] = me.askers
        self.links[0].link_down(0.0)
        self.assertEqual(self.links[0].withdraw([asker], 0.0).ended, [])

    def test_all(self) -> None:
        """
        The 20,001st asker costs whoever holds most its newest, on whatever link that is.
        """
        crowd = [Holder("10.0.0.1") for _ in range(100)]
        for n in range(ASKERS_IN_ALL):
            self.assertFalse(self.holders.full)
            self.links[n % 2].put(request(str(n % 3000)), crowd[n % 100 if n < ASKERS_IN_ALL - 2 else 7], float(n))
        self.assertTrue(self.holders.full)
        self.assertEqual(self.holders.surplus(), [])
        newest = list(crowd[7].askers)[-1]
        self.links[0].put(request("new"), Holder("10.0.0.2"), float(ASKERS_IN_ALL))
        self.assertEqual(self.holders.surplus(), [newest])
        self.assertEqual(newest.request.question.sensor, str((ASKERS_IN_ALL - 1) % 3000))

    def test_acknowledged(self) -> None:
        """
        Whoever was answered is counted no more.
        """
        me = Holder("me")
        self.links[0].put(request("9", "ON"), me)
        self.links[0].received([acknowledgement("9", "ON")], 1.0, 0)
        self.assertEqual((self.holders.in_flight, me.askers), (0, {}))
