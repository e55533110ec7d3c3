"""
Events over HTTP: what is sent, what a client that was cut off gets, and what a slow one loses.
"""

from __future__ import annotations

import json
from typing import Any, get_args

from twisted.internet.defer import Deferred
from twisted.internet.protocol import Protocol
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.support.memory_gateway import AT_TEXT, MemoryGateway, PeerTransport
from tests.support.waiting import until
from tests.support.web import WebTestCase
from usbgate.core.errors import LimitExceeded
from usbgate.core.model import Alarm, AlarmEvent, DeviceEvent, Event, ReportEvent, StoreEvent
from usbgate.core.settings import SensorSettings
from usbgate.net.broadcast import PAUSE_LIMIT
from usbgate.net.sendqueue import STUCK_AFTER
from usbgate.testing import AT
from usbgate.web.api import Api
from usbgate.web.events import HEARTBEAT, LINGER, REPLAY_LIMIT, STREAM_LIMIT, EventStreams
from usbgate.web.serialize import event_json

HEAD = b"HTTP/1.1 200 OK\r\n\r\n"


def reading_event(n: int = 0, sensor: str = "20", text: str = "") -> ReportEvent:
    """
    Make an event whose value tells which one it is.
    """
    return ReportEvent(sensor, "leonardo", None, AT, (("VALUE", text or str(n)),))


def values(received: bytes) -> list[Any]:
    """
    List the values of the readings in what a client heard, and what else happened, in order.
    """
    found: list[Any] = []
    for block in received.decode().split("\n\n"):
        lines = block.split("\n")
        for line in lines:
            if line.startswith("data: "):
                data = json.loads(line.removeprefix("data: "))
                (kind,) = [each.removeprefix("event: ") for each in lines if each.startswith("event: ")]
                found.append(data["values"]["VALUE"] if kind == "reading" else (kind, data))
    return found


class Client:
    """
    A client of events in memory.
    """

    def __init__(
        self, events: EventStreams, clock: Clock, sensor: str | None = None, last_id: str | None = None
    ) -> None:
        self.transport = PeerTransport(clock)
        self.transport.protocol = Protocol()
        self.stream: Deferred[None] = events.open(self.transport, HEAD, "me", sensor, last_id)
        self.stream.addErrback(lambda failure: None)

    @property
    def received(self) -> bytes:
        """
        All that was sent to it.
        """
        data: bytes = self.transport.value()
        return data

    def hang_up(self) -> None:
        """
        Be gone.
        """
        self.stream.cancel()


class StreamTests(SynchronousTestCase):
    """
    Without sockets, by a clock of our own.
    """

    def setUp(self) -> None:
        """
        Have nobody.
        """
        self.clock = Clock()
        self.gateway = MemoryGateway()
        self.events = EventStreams(self.clock, self.gateway, 3, "b0")

    def tearDown(self) -> None:
        """
        No timer is left.
        """
        for client in self.clients:
            client.hang_up()
        self.events.stop()
        self.assertEqual([call for call in self.clock.getDelayedCalls() if "PeerTransport" not in str(call)], [])
        self.assertEqual(self.gateway.subscribers, [])

    def client(self, **how: Any) -> Client:
        """
        Open a stream.
        """
        client = Client(self.events, self.clock, **how)
        self.clients.append(client)
        self.clock.advance(0)
        return client

    @property
    def clients(self) -> list[Client]:
        """
        Those that were opened.
        """
        if not hasattr(self, "_clients"):
            self._clients: list[Client] = []
        return self._clients

    def happen(self, *events: Any) -> None:
        """
        Let something happen, and a turn of the reactor go by.
        """
        self.gateway.publish(*events)
        self.clock.advance(0)

    def test_begin(self) -> None:
        """
        The head, a comment and where one is come at once.
        """
        client = self.client()
        self.assertEqual(client.received, HEAD + b": usbgate\nretry: 2000\n\nid: b0-0\n\n")

    def test_kinds(self) -> None:
        """
        Each kind of event has its name and its number, and one line of data, whose type is in the document.
        """
        self.gateway.presented = {"2": SensorSettings(name="smoke", place="hall")}
        client = self.client()
        before = len(client.received)
        events: list[Event] = [
            ReportEvent("20", "leonardo", "J", AT, (("TEMP", "21.5"), ("T", "<img\u2028 onerror=1>"))),
            DeviceEvent("leonardo", "offline", AT),
            StoreEvent("away", 12),
            AlarmEvent(Alarm("a1", "2", "SMOKE", "== 1", 1.0, None, AT)),
        ]
        self.assertEqual({type(event) for event in events}, set(get_args(Event)))
        [call] = [call for call in Api.calls.documented if call.path == "/api/v1/events"]
        for event in events:
            self.assertIn(type(event_json(event, {})[1]), call.content["text/event-stream"])
        self.happen(*events)
        blocks = client.received[before:].decode().split("\n\n")
        self.assertEqual(blocks.pop(), "")
        told = []
        for n, block in enumerate(blocks, 1):
            number, name, data = block.split("\n")
            self.assertEqual(number, f"id: b0-{n}")
            told.append((name, json.loads(data.removeprefix("data: "))))
        self.assertEqual(
            told,
            [
                (
                    "event: reading",
                    {
                        **{"sensor": "20", "device": "leonardo", "command": "J", "at": AT_TEXT},
                        "values": {"TEMP": 21.5, "T": "<img\u2028 onerror=1>"},
                    },
                ),
                ("event: device", {"device": "leonardo", "state": "offline", "since": AT_TEXT}),
                ("event: store", {"state": "away", "backlog": 12}),
                (
                    "event: alarm",
                    {
                        **{"id": "a1", "sensor": "2", "field": "SMOKE", "name": "smoke", "place": "hall"},
                        **{"condition": "== 1", "value": 1.0, "text": None, "since": AT_TEXT, "ended": None},
                        "acknowledged": None,
                    },
                ),
            ],
        )

    def test_one_sensor(self) -> None:
        """
        Who wants one sensor gets no other's readings, and all else.
        """
        client = self.client(sensor="21")
        self.happen(reading_event(1), reading_event(2, "21"), StoreEvent("away", 0), reading_event(3))
        self.assertEqual(values(client.received), [2.0, ("store", {"state": "away", "backlog": 0})])

    def test_resume(self) -> None:
        """
        Who was cut off gets what it missed, in order, once, and then what comes.
        """
        self.client()
        self.happen(*[reading_event(n) for n in range(1, 6)])
        for last_id, missed in [("b0-2", [3.0, 4.0, 5.0]), ("b0-5", []), ("b0-0", [1.0, 2.0, 3.0, 4.0, 5.0])]:
            client = self.client(last_id=last_id)
            self.assertEqual(values(client.received), missed)
            self.assertTrue(client.received.endswith(b"id: b0-5\n\n"))
            if last_id == "b0-2":
                client.hang_up()
        self.happen(reading_event(6))
        self.assertEqual(values(client.received)[-1], 6.0)

    def test_resume_one_sensor(self) -> None:
        """
        What was missed is of that sensor only, too.
        """
        self.client()
        self.happen(reading_event(1), reading_event(2, "21"), reading_event(3))
        self.assertEqual(values(self.client(sensor="21", last_id="b0-0").received), [2.0])

    def test_cannot_resume(self) -> None:
        """
        Who comes from before the start, or from a time of which nothing is kept, is told that it lost something.
        """
        self.client()
        self.happen(reading_event(1))
        for last_id in ("b1-0", "b0-2", "b0-99999"):
            client = self.client(last_id=last_id)
            self.assertEqual(values(client.received), [("dropped", {"count": None})], last_id)
            client.hang_up()
        for nonsense in ("", "x", "b0-", "b0-1-1", "b0--1", "b0-\u0661"):
            client = self.client(last_id=nonsense)
            self.assertEqual(values(client.received), [])
            client.hang_up()

    def test_ring_is_bounded(self) -> None:
        """
        Of too many the newest are kept; how many were lost is told where it is known.
        """
        self.client()
        self.happen(*[reading_event(n, text="x" * 1000) for n in range(2000)])
        client = self.client(last_id="b0-3")
        (_, data), *kept = values(client.received)
        self.assertEqual(data["count"] + len(kept), 2000 - 3)
        self.assertLess(len(client.received), REPLAY_LIMIT + 2000)
        self.assertGreater(len(client.received), REPLAY_LIMIT - 2000)
        self.assertEqual(values(self.client(last_id="b0-3", sensor="21").received), [("dropped", {"count": None})])

    def test_lingers(self) -> None:
        """
        When the last one is gone, events are numbered for a while yet; then no more, and none is made.
        """
        self.client().hang_up()
        self.clock.advance(LINGER - 1)
        self.happen(reading_event(1))
        client = self.client(last_id="b0-0")
        self.assertEqual(values(client.received), [1.0])
        client.hang_up()
        self.clock.advance(LINGER + 1)
        self.assertEqual(self.gateway.subscribers, [])
        self.assertEqual(values(self.client(last_id="b0-1").received), [("dropped", {"count": None})])

    def test_nobody(self) -> None:
        """
        Before the first one comes nobody hears of events.
        """
        self.assertEqual(self.gateway.subscribers, [])

    def test_heartbeat(self) -> None:
        """
        Something comes now and then, whatever happens.
        """
        client = self.client()
        before = client.received
        self.clock.pump([1.0] * int(2 * HEARTBEAT))
        self.assertEqual(client.received.removeprefix(before), b":\n\n:\n\n")

    def test_slow(self) -> None:
        """
        A client that does not read loses events beyond the limit, which are counted and told when it reads again; the
        others lose none.
        """
        slow, other = self.client(), self.client()
        slow.transport.stuck = True
        text = "x" * 10_000
        count = STREAM_LIMIT // len(text)
        for _ in range(count):
            self.happen(reading_event(text=text), reading_event(text=text))
        self.clock.advance(PAUSE_LIMIT)
        self.assertEqual(len(values(other.received)), 2 * count)
        slow.transport.stuck = False
        slow.transport.take()
        self.clock.pump([0] * 1000)
        *taken, (kind, data) = values(slow.received)
        self.assertEqual((kind, data["count"] + len(taken)), ("dropped", 2 * count))
        self.assertGreater(len(taken) * len(text), STREAM_LIMIT - len(text))
        self.assertLess(len(slow.received), STREAM_LIMIT + 100_000)
        self.happen(reading_event(7))
        self.assertEqual(values(slow.received)[-1], 7.0)

    def test_stop(self) -> None:
        """
        What happened just before the end is told, and then the connections are closed.
        """
        client = self.client()
        self.gateway.publish(reading_event(7))
        self.events.stop()
        self.assertEqual(values(client.received), [7.0])
        self.clock.pump([0] * 3)
        self.assertFalse(client.transport.connected)

    def test_stuck(self) -> None:
        """
        One that takes nothing at all is dropped.
        """
        client = self.client()
        client.transport.stuck = True
        self.happen(*[reading_event(text="x" * 1000) for _ in range(100)])
        self.clock.pump([1.0] * int(STUCK_AFTER + 2))
        self.assertFalse(client.transport.connected)

    def test_too_many(self) -> None:
        """
        There are only so many, until one is gone.
        """
        for _ in range(3):
            self.events.admit()
            self.client()
        self.assertRaises(LimitExceeded, self.events.admit)
        self.clients[0].hang_up()
        self.events.admit()


class WireTests(WebTestCase):
    """
    On a real port.
    """

    async def test_begin(self) -> None:
        """
        The head says what it is, that it ends with the connection, and that no proxy may hold it up.
        """
        client = await self.listen()
        head, _, rest = client.received.partition(b"\r\n\r\n")
        self.assertTrue(head.startswith(b"HTTP/1.1 200 OK\r\n"))
        for line in (b"Content-Type: text/event-stream", b"X-Accel-Buffering: no", b"Connection: close"):
            self.assertIn(line, head.split(b"\r\n"))
        self.assertNotIn(b"chunked", head)
        self.assertTrue(rest.startswith(b": usbgate\nretry: 2000\n\n"))
        self.gateway.publish(reading_event(1))
        await until(lambda: values(client.received) == [1.0])

    async def test_resume(self) -> None:
        """
        A browser that comes back says what it saw last.
        """
        client = await self.listen("?sensor=20")
        self.gateway.publish(reading_event(1), reading_event(2, "21"), reading_event(3))
        await until(lambda: values(client.received) == [1.0, 3.0])
        boot = client.received.rpartition(b"id: ")[2].partition(b"-")[0].decode()
        again = await self.listen("?sensor=20", f"Last-Event-ID: {boot}-1")
        self.assertEqual(values(again.received), [3.0])

    async def test_behind_an_answer(self) -> None:
        """
        On a connection that asked for something else before, pipelined, all of that comes first.
        """
        client = await self.connect()
        client.transport.pauseProducing()
        page = "GET / HTTP/1.1\nHost: localhost\n\n"
        client.say(page * 50 + "GET /api/v1/events HTTP/1.1\nHost: localhost")
        await until(lambda: len(self.web.events) == 1)
        self.gateway.publish(reading_event(1))
        client.transport.resumeProducing()
        await until(lambda: b'"VALUE":1.0' in client.received)
        self.assertEqual(client.received.count(b"</html>"), 50)
        self.assertLess(client.received.rindex(b"</html>"), client.received.index(b": usbgate"))

    async def test_hung_up(self) -> None:
        """
        Who hangs up is forgotten.
        """
        client = await self.listen()
        client.transport.abortConnection()
        await until(lambda: not self.web.events and not self.web.site.channels)

    async def test_malformed(self) -> None:
        """
        A stream of something that there is not is a problem.
        """
        self.assertEqual((await self.problem("GET", "/api/v1/events?sensor=a_b"))[:2], (400, "malformed"))

    async def test_stop(self) -> None:
        """
        At the end all are closed: those that hear events, those that wait for an answer (which they get), the idle.
        """
        listening, idle, asking = await self.listen(), await self.connect(), await self.connect()
        asking.say(
            "POST /api/v1/sensors/20/ask HTTP/1.1\nHost: localhost\nContent-Type: application/json\nContent-Length: 2",
            b"{}",
        )
        await until(lambda: self.gateway.asked)
        stopping = self.web.stopService()
        await until(lambda: listening.lost and idle.lost)
        self.assertNoResult(stopping)
        self.gateway.answer(0)
        await stopping
        await until(lambda: asking.lost)
        self.assertTrue(asking.received.startswith(b"HTTP/1.1 200 "))

    async def test_stop_stuck(self) -> None:
        """
        One that takes nothing, and one that nobody answers, do not hold up the end.
        """
        client = await self.listen()
        client.transport.pauseProducing()
        for _ in range(100):
            self.gateway.publish(reading_event(text="x" * 100_000))
        asking = await self.connect()
        asking.say(
            "POST /api/v1/sensors/20/ask HTTP/1.1\nHost: localhost\nContent-Type: application/json\nContent-Length: 2",
            b"{}",
        )
        await until(lambda: self.gateway.asked)
        await self.web.stopService()
        self.assertEqual(self.web.site.channels, set())
        client.transport.resumeProducing()
