"""
Events over HTTP: what is sent, what a client that reconnects gets, and what a slow client loses.
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
    Make an event that is recognized by its value.
    """
    return ReportEvent(sensor, "leonardo", None, AT, (("VALUE", text or str(n)),))


def values(received: bytes) -> list[Any]:
    """
    List the values of the readings that a client received, and the other events, in order.
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
        sensors = frozenset(() if sensor is None else (sensor,))
        self.stream: Deferred[None] = events.open(self.transport, HEAD, "10.0.0.7", "me", sensors, last_id)
        self.stream.addErrback(lambda failure: None)

    @property
    def received(self) -> bytes:
        """
        All that it was sent.
        """
        data: bytes = self.transport.value()
        return data

    def hang_up(self) -> None:
        """
        Disconnect.
        """
        self.stream.cancel()


class StreamTests(SynchronousTestCase):
    """
    Without sockets, by a fake clock.
    """

    def setUp(self) -> None:
        """
        Start without clients.
        """
        self.clock = Clock()
        self.gateway = MemoryGateway()
        self.events = EventStreams(self.clock, self.gateway, 3, run="b0")

    def tearDown(self) -> None:
        """
        Check that no timer and no subscription is left.
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
        The streams that were opened.
        """
        if not hasattr(self, "_clients"):
            self._clients: list[Client] = []
        return self._clients

    def happen(self, *events: Any) -> None:
        """
        Publish events, and let a reactor turn pass.
        """
        self.gateway.publish(*events)
        self.clock.advance(0)

    def test_begin(self) -> None:
        """
        The head, a comment and the newest id are sent at once.
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
            AlarmEvent(Alarm("a1", "leonardo", "2", "SMOKE", "== 1", 1.0, None, AT), "raised", AT),
        ]
        self.assertEqual({type(event) for event in events}, set(get_args(Event)))
        [call] = [call for call in Api.calls.documented if call.path == "/api/v1/events"]
        for event in events:
            self.assertIn(type(event_json(event, {})[1]), call.content["text/event-stream"])
        self.happen(*events)
        blocks = client.received[before:].decode().split("\n\n")
        self.assertEqual(blocks.pop(), "")
        frames = []
        for n, block in enumerate(blocks, 1):
            number, name, data = block.split("\n")
            self.assertEqual(number, f"id: b0-{n}")
            frames.append((name, json.loads(data.removeprefix("data: "))))
        self.assertEqual(
            frames,
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
                        **{"id": "a1", "device": "leonardo", "sensor": "2", "field": "SMOKE", "name": "smoke"},
                        **{
                            "place": "hall",
                            "condition": "== 1",
                            "value": 1.0,
                            "text": None,
                            "since": AT_TEXT,
                            "ended": None,
                        },
                        "acknowledged": None,
                    },
                ),
            ],
        )

    def test_one_sensor(self) -> None:
        """
        With `sensor`, a client gets the readings and alarms of that sensor only, and all events that are about none.
        """
        client = self.client(sensor="21")
        alarms = [
            AlarmEvent(Alarm("a1", "leonardo", each, "T", "> 1", 2.0, None, AT), "raised", AT) for each in ("20", "21")
        ]
        self.happen(reading_event(1), reading_event(2, "21"), StoreEvent("away", 0), *alarms, reading_event(3))
        reading, store, (kind, alarm) = values(client.received)
        self.assertEqual((reading, store), (2.0, ("store", {"state": "away", "backlog": 0})))
        self.assertEqual((kind, alarm["sensor"]), ("alarm", "21"))

    def test_resume(self) -> None:
        """
        A client that reconnects gets what it missed, once and in order, and then new events.
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
        With `sensor`, missed readings are of that sensor only.
        """
        self.client()
        self.happen(reading_event(1), reading_event(2, "21"), reading_event(3))
        self.assertEqual(values(self.client(sensor="21", last_id="b0-0").received), [2.0])

    def test_cannot_resume(self) -> None:
        """
        A client with an id of another run, or from the future, gets `dropped` without a number; others are ignored.
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
        The newest events are kept, up to the limit; `dropped` has the number of lost ones if it is known.
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
        When the last client has disconnected, events are kept for a while; then the subscription ends.
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
        Without clients, there is no subscription.
        """
        self.assertEqual(self.gateway.subscribers, [])

    def test_heartbeat(self) -> None:
        """
        A comment is sent regularly, even without events.
        """
        client = self.client()
        before = client.received
        self.clock.pump([1.0] * int(2 * HEARTBEAT))
        self.assertEqual(client.received.removeprefix(before), b":\n\n:\n\n")

    def test_slow(self) -> None:
        """
        A client that does not read loses events beyond the limit, and gets their number when it reads again; the others
        lose none.
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
        Events that wait are sent before the connections are closed.
        """
        client = self.client()
        self.gateway.publish(reading_event(7))
        self.events.stop()
        self.assertEqual(values(client.received), [7.0])
        self.clock.pump([0] * 3)
        self.assertFalse(client.transport.connected)

    def test_stuck(self) -> None:
        """
        A client that reads nothing for too long is disconnected.
        """
        client = self.client()
        client.transport.stuck = True
        self.happen(*[reading_event(text="x" * 1000) for _ in range(100)])
        self.clock.pump([1.0] * int(STUCK_AFTER + 2))
        self.assertFalse(client.transport.connected)

    def test_too_many(self) -> None:
        """
        The number of streams is limited; a client that disconnects makes room.
        """
        for _ in range(3):
            self.events.admit("10.0.0.7")
            self.client()
        self.assertRaises(LimitExceeded, self.events.admit, "10.0.0.7")
        self.clients[0].hang_up()
        self.events.admit("10.0.0.7")


class WireTests(WebTestCase):
    """
    On a real port.
    """

    async def test_begin(self) -> None:
        """
        The headers have the type, the end with the connection, and the request to proxies not to buffer.
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
        `Last-Event-ID` resumes a stream.
        """
        client = await self.listen("?sensor=20")
        self.gateway.publish(reading_event(1), reading_event(2, "21"), reading_event(3))
        await until(lambda: values(client.received) == [1.0, 3.0])
        boot = client.received.rpartition(b"id: ")[2].partition(b"-")[0].decode()
        again = await self.listen("?sensor=20", f"Last-Event-ID: {boot}-1")
        self.assertEqual(values(again.received), [3.0])

    async def test_behind_an_answer(self) -> None:
        """
        On a pipelined connection, a stream begins after the earlier responses.
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
        A stream ends when its client disconnects.
        """
        client = await self.listen()
        client.transport.abortConnection()
        await until(lambda: not self.web.events and not self.web.site.channels)

    async def test_malformed(self) -> None:
        """
        A stream with a wrong parameter is a problem.
        """
        self.assertEqual((await self.problem("GET", "/api/v1/events?sensor=a_b"))[:2], (400, "malformed"))

    async def test_stop(self) -> None:
        """
        Stopping closes all connections: streams, idle ones, and those that wait for a response, after it.
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
        A client that reads nothing, and one without an answer, do not delay stopping.
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
        self.assertEqual(len(self.web.site.channels), 0)
        client.transport.resumeProducing()
