"""
The HTTP face on a real port over a gateway in memory, and clients of it.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, NamedTuple

import treq
from twisted.internet import reactor as global_reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.protocol import Protocol, connectionDone
from twisted.internet.task import deferLater
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase
from twisted.web.client import HTTPConnectionPool
from twisted.web.http_headers import Headers

from tests.memory_gateway import AT, MemoryGateway
from usbgate.web.site import Web, WebPort

reactor: Any = global_reactor

NOW = AT + 5_000
JSON = {"Content-Type": "application/json"}
PROBLEM = "application/problem+json"


class Reply(NamedTuple):
    """
    An answer.
    """

    code: int
    headers: Headers
    body: bytes

    @property
    def json(self) -> Any:
        """
        Its body, read as JSON.
        """
        return json.loads(self.body)

    def header(self, name: str) -> str | None:
        """
        One of its headers, which must be there once at most.
        """
        values = self.headers.getRawHeaders(name, [])
        assert len(values) < 2, values
        return values[0] if values else None


async def until(condition: Callable[[], object]) -> None:
    """
    Wait for something, at most 20 s.
    """
    for _ in range(2000):
        if condition():
            return
        await deferLater(reactor, 0.01)
    raise AssertionError("it did not come true")


class RawClient(Protocol):
    """
    A client that sends what it is told, and keeps what it hears.
    """

    transport: Any

    def __init__(self) -> None:
        self.heard = b""
        self.lost = False

    def dataReceived(self, data: bytes) -> None:
        """
        Keep it.
        """
        self.heard += data

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """
        It is over.
        """
        self.lost = True

    def say(self, head: str, body: bytes = b"") -> None:
        """
        Send a request, whose lines are told.
        """
        self.transport.write(head.replace("\n", "\r\n").encode() + b"\r\n\r\n" + body)


class WebTestCase(TestCase):
    """
    A site of its own for each test.
    """

    timeout = 60
    hosts: tuple[str, ...] = ()
    base_path = ""
    max_connections = 1000

    def setUp(self) -> None:
        """
        Listen.
        """
        self.gateway = MemoryGateway()
        self.web = Web(
            reactor,
            self.gateway,
            lambda: NOW,
            hosts=self.hosts,
            base_path=self.base_path,
            max_connections=self.max_connections,
            others=lambda: {"CLIENTS": 3},
        )
        self.listening = WebPort(reactor, "tcp:0:interface=127.0.0.1", self.web, self.base_path, True)
        self.listening.privilegedStartService()
        address: Any = self.listening._ports[0].getHost()
        self.port: int = address.port
        self.pool = HTTPConnectionPool(reactor, persistent=False)
        self.raw: list[RawClient] = []
        self.addCleanup(self._stop)

    async def _stop(self) -> None:
        await self.listening.stopService()
        await self.web.stopService()
        await until(lambda: all(client.lost for client in self.raw))
        await self.pool.closeCachedConnections()
        await deferLater(reactor, 0)

    def ask_for(self, method: str, path: str, **how: Any) -> Deferred[Any]:
        """
        Begin a call.
        """
        return treq.request(method, f"http://127.0.0.1:{self.port}{path}", pool=self.pool, **how)

    async def call(self, method: str, path: str, **how: Any) -> Reply:
        """
        Call, and wait for all of the answer.
        """
        response = await self.ask_for(method, path, **how)
        return Reply(response.code, response.headers, await response.content())

    async def get(self, path: str, **how: Any) -> Any:
        """
        Get something that is JSON.
        """
        reply = await self.call("GET", path, **how)
        self.assertEqual((reply.code, reply.header("Content-Type")), (200, "application/json"), reply.body)
        return reply.json

    async def problem(self, method: str, path: str, **how: Any) -> tuple[int, str, str]:
        """
        Call something that must fail; give its status, code and text.
        """
        reply = await self.call(method, path, **how)
        self.assertEqual(reply.header("Content-Type"), PROBLEM, reply.body)
        problem = reply.json
        self.assertEqual(sorted(problem), ["code", "detail", "status", "title", "type"])
        self.assertEqual(problem["status"], reply.code)
        return reply.code, problem["code"], problem["detail"]

    async def connect(self) -> RawClient:
        """
        Connect until the end of the test.
        """
        endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", self.port)
        client: RawClient = await connectProtocol(endpoint, RawClient())
        self.raw.append(client)
        return client

    async def listen(self, query: str = "", *headers: str) -> RawClient:
        """
        Hear events, from the moment when they are heard.
        """
        client = await self.connect()
        client.say("\n".join([f"GET /api/v1/events{query} HTTP/1.1", "Host: localhost", *headers]))
        await until(lambda: b"\n\nid: " in client.heard)
        return client
