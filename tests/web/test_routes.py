"""
What is left of requests that are over.
"""

from __future__ import annotations

import gc

from tests.support.waiting import until
from tests.support.web import RawClient, WebTestCase
from usbgate.core.model import StoredReading
from usbgate.testing import AT, reading
from usbgate.web.channel import BoundedRequest, Channel
from usbgate.web.events import EventStream


def _count() -> int:
    return sum(type(each) in (BoundedRequest, Channel, EventStream) for each in gc.get_objects())


class FreedTests(WebTestCase):
    """
    A request and its connection are freed when they are over, not when the garbage collector comes: it would hold the
    reactor.
    """

    def setUp(self) -> None:
        """
        Let the garbage collector not come.
        """
        super().setUp()
        gc.collect()
        gc.disable()
        self.addCleanup(gc.enable)
        self.before = _count()  # of other tests

    async def hang_up(self, client: RawClient) -> None:
        """
        Disconnect a client.
        """
        client.transport.abortConnection()
        await until(lambda: client.lost)

    async def check_freed(self) -> None:
        """
        Check that nothing is left.
        """
        await until(lambda: _count() <= self.before)

    async def test_answered(self) -> None:
        """
        Requests that were answered, also by a problem.
        """
        for method, path, code in (
            *(("GET", "/api/v1/status", 200), ("GET", "/app.js", 200), ("GET", "/api/v1/sensors", 200)),
            *(("GET", "/no/such/path", 404), ("POST", "/api/v1/status", 405), ("GET", "/api/v1/readings", 400)),
        ):
            self.assertEqual((await self.call(method, path, json={} if method == "POST" else None)).code, code)
        await self.check_freed()

    async def test_hung_up(self) -> None:
        """
        Requests whose clients hung up: while they waited for an answer, for events, and for more of a long response.
        """
        client = await self.connect()
        head = (
            "POST /api/v1/sensors/20/ask HTTP/1.1\nHost: localhost\nContent-Type: application/json\nContent-Length: 2"
        )
        client.say(head, b"{}")
        await until(lambda: len(self.gateway.asked) == 1)
        await self.hang_up(client)
        self.gateway.asked.clear()
        await self.hang_up(await self.listen())
        self.gateway.stored = [StoredReading(n, reading(n / 2, at=AT + n)) for n in range(60_000)]
        client = await self.connect()
        client.say("GET /api/v1/readings?sensor=20 HTTP/1.1\nHost: localhost")
        await until(lambda: client.received)
        client.transport.pauseProducing()
        await until(lambda: any(channel.transport.dataBuffer for channel in self.web.site.channels))
        await self.hang_up(client)
        await self.check_freed()
