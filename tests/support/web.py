"""
The HTTP server on a real port in front of a gateway in memory, and clients.
"""

from __future__ import annotations

from collections.abc import Mapping
from json import dumps, loads
from pathlib import Path
from typing import Any, NamedTuple

from twisted.internet import reactor as global_reactor
from twisted.internet.defer import Deferred, succeed
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.interfaces import IConsumer
from twisted.internet.protocol import Protocol, connectionDone
from twisted.internet.task import deferLater
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase
from twisted.web.client import Agent, readBody
from twisted.web.http_headers import Headers
from twisted.web.iweb import IBodyProducer
from zope.interface import implementer

from tests.support.access import OPEN, authority
from tests.support.memory_gateway import MemoryGateway
from tests.support.waiting import until
from usbgate.testing import AT
from usbgate.web.site import Web, WebListener

reactor: Any = global_reactor

NOW = AT + 5_000
JSON = {"Content-Type": "application/json"}
PROBLEM = "application/problem+json"


class Reply(NamedTuple):
    """
    The response to a call.
    """

    code: int
    headers: Headers
    body: bytes
    phrase: str

    @property
    def json(self) -> Any:
        """
        The body, parsed as JSON.
        """
        return loads(self.body)

    def header(self, name: str) -> str | None:
        """
        Return the value of a header, which may occur once at most.
        """
        values = self.headers.getRawHeaders(name, [])
        assert len(values) < 2, values
        return values[0] if values else None


@implementer(IBodyProducer)
class Body:
    """
    The body of a request: a few bytes, sent at once.
    """

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.length = len(data)

    def startProducing(self, consumer: IConsumer) -> Deferred[None]:
        """
        Send the body.
        """
        consumer.write(self._data)
        return succeed(None)

    def pauseProducing(self) -> None:
        """
        It is sent already.
        """

    def resumeProducing(self) -> None:
        """
        It is sent already.
        """

    def stopProducing(self) -> None:
        """
        It is sent already.
        """


class RawClient(Protocol):
    """
    A client that sends raw bytes, and records what it receives.
    """

    transport: Any

    def __init__(self) -> None:
        self.received = b""
        self.lost = False

    def dataReceived(self, data: bytes) -> None:
        """
        Record the data.
        """
        self.received += data

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """
        Record the loss of the connection.
        """
        self.lost = True

    def say(self, head: str, body: bytes = b"") -> None:
        """
        Send a request, given as its lines and its body.
        """
        self.transport.write(head.replace("\n", "\r\n").encode() + b"\r\n\r\n" + body)


class WebTestCase(TestCase):
    """
    A site for each test.
    """

    timeout = 60
    hosts: tuple[str, ...] = ()
    cors: tuple[str, ...] = ()
    base_path = ""
    max_connections = 1000
    requests_per_second = 50.0
    door = OPEN
    state = Path("/nonexistent")

    def setUp(self) -> None:
        """
        Listen.
        """
        self.gateway = MemoryGateway()
        self.authority = authority(reactor, self.state, self.gateway)
        self.web = Web(
            reactor,
            self.gateway,
            self.authority,
            lambda: NOW,
            door=self.door,
            hosts=self.hosts,
            cors=self.cors,
            base_path=self.base_path,
            max_connections=self.max_connections,
            requests_per_second=self.requests_per_second,
            others=lambda: {"CLIENTS": 3},
        )
        self.listening = WebListener(reactor, "tcp:0:interface=127.0.0.1", self.web, self.base_path, True)
        self.listening.privilegedStartService()
        address: Any = self.listening.ports[0].getHost()
        self.port: int = address.port
        self.agent = Agent(reactor)
        self.raw: list[RawClient] = []
        self.addCleanup(self._stop)

    async def _stop(self) -> None:
        await self.listening.stopService()
        await self.web.stopService()
        self.authority.failures.stopService()
        await until(lambda: all(client.lost for client in self.raw))
        await deferLater(reactor, 0)

    def ask_for(self, method: str, path: str, **how: Any) -> Deferred[Reply]:
        """
        Start a call (see `call`) without waiting for its response.
        """
        return Deferred.fromCoroutine(self.call(method, path, **how))

    async def call(
        self,
        method: str,
        path: str,
        *,
        json: object = None,
        data: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Reply:
        """
        Make a call on a new connection; return the whole response. Redirections are not followed.

        Args:
            method: The HTTP method.
            path: The path and the query.
            json: The body, to be encoded as JSON.
            data: The body, as bytes.
            headers: More headers.
        """
        all_headers = Headers({name: [value] for name, value in (headers or {}).items()})
        if json is not None:
            data = dumps(json).encode()
            all_headers.setRawHeaders("Content-Type", ["application/json"])
        url = f"http://127.0.0.1:{self.port}{path}"
        body = None if data is None else Body(data)
        response: Any = await self.agent.request(method.encode(), url.encode(), all_headers, body)
        return Reply(response.code, response.headers, await readBody(response), response.phrase.decode())

    async def get(self, path: str, **how: Any) -> Any:
        """
        Make a call that must succeed; return its JSON.
        """
        reply = await self.call("GET", path, **how)
        self.assertEqual((reply.code, reply.header("Content-Type")), (200, "application/json"), reply.body)
        return reply.json

    async def problem(self, method: str, path: str, **how: Any) -> tuple[int, str, str]:
        """
        Make a call that must fail; return its status, code and text.
        """
        reply = await self.call(method, path, **how)
        self.assertEqual(reply.header("Content-Type"), PROBLEM, reply.body)
        problem = reply.json
        self.assertEqual(sorted({*problem} - {"reason", "role"}), ["code", "detail", "status", "title", "type"])
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
        Subscribe to events; return the client when the subscription has begun.
        """
        client = await self.connect()
        client.say("\n".join([f"GET /api/v1/events{query} HTTP/1.1", "Host: localhost", *headers]))
        await until(lambda: b"\n\nid: " in client.received)
        return client
