"""
HTTP connections: what one may send, and how it is handed over to a stream of events.
"""

from __future__ import annotations

from io import BytesIO
from typing import Any

from twisted.internet.interfaces import ITCPTransport
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from twisted.web.http import HTTPChannel
from twisted.web.server import Request, Site

from usbgate.core.errors import Failed
from usbgate.net.keepalive import keep_alive
from usbgate.web.problems import HttpProblem, respond_problem
from usbgate.web.security import BODY_LIMIT

# Bytes of a body that are read, so that a client which sends first and reads then gets to read why it was refused.
_READ_LIMIT = 16 * BODY_LIMIT


class BoundedRequest(Request):
    """
    A request of which no more is kept than may be.

    Attributes:
        body_size: Bytes of the body, those that were not kept, too.
    """

    content: Any
    channel: Any

    def gotLength(self, length: int | None) -> None:
        """
        Keep the body in memory: it is small.
        """
        self.body_size = 0
        self.content = BytesIO()

    def handleContentChunk(self, data: bytes) -> None:
        """
        Keep it up to the limit; hang up on one that goes on and on.
        """
        self.body_size += len(data)
        if self.body_size <= BODY_LIMIT:
            self.content.write(data)
        elif self.body_size > _READ_LIMIT:
            self.channel.transport.abortConnection()

    def requestReceived(self, command: bytes, path: bytes, version: bytes) -> None:
        """
        Answer; Twisted would first look for a form in the body, and choke on what is none.
        """
        self._body, self.content = self.content, BytesIO()
        super().requestReceived(command, path, version)

    def process(self) -> None:
        """
        Answer; Twisted calls this when it has read the head.
        """
        self.content = self._body
        self.content.seek(0)
        if self.path == b"*":
            self.path = b""  # Twisted would answer that by itself, and say who it is
        super().process()

    def processingFailed(self, reason: Failure) -> Failure:
        """
        Say that something inside went wrong, and log what.
        """
        self._log.failure("unexpected, while answering over HTTP", failure=reason)
        if self.startedWriting:
            self.loseConnection()
        else:
            respond_problem(self, HttpProblem(Failed()))
        return reason


class Channel(HTTPChannel):
    """
    One connection.
    """

    requestFactory = BoundedRequest
    site: Any
    transport: Any

    def connectionMade(self) -> None:
        """
        Be counted.
        """
        super().connectionMade()
        if ITCPTransport.providedBy(self.transport):
            keep_alive(self.transport)
        self.site.opened(self)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """
        Be forgotten.
        """
        self.site.closed(self)
        super().connectionLost(reason)

    def timeoutConnection(self) -> None:
        """
        Close a connection that asks nothing any more: browsers leave some, and Twisted would log each.
        """
        self._abortingCall = self.callLater(self.abortTimeout, self.forceAbortClient)
        self.loseConnection()

    @property
    def busy(self) -> bool:
        """
        Whether a request is being answered.
        """
        return bool(self.requests)

    def hand_over(self, request: Request) -> tuple[Any, bytes]:
        """
        Begin an answer that never ends, and let go of the transport.

        The answer has no length and is not chunked, it ends with the connection; so what is sent to many is the same
        bytes for all of them, and can stand in a queue that knows how much of it was taken.

        Args:
            request: What is answered; its headers are set.

        Returns:
            The transport, which may hold the end of what was answered before, and the head to send on it. The request
            is told when it is lost, as any other.
        """
        request.setHeader("Connection", "close")
        request.startedWriting = 1
        self.persistent = False
        self.transport.unregisterProducer()
        head = [b"HTTP/1.1 200 OK"]
        for name, values in request.responseHeaders.getAllRawHeaders():
            head += [name + b": " + value for value in values]
        return self.transport, b"\r\n".join([*head, b"", b""])

    def leave(self) -> None:
        """
        Close when what is being answered is answered; at once where nothing is.
        """
        if self.busy:
            self.persistent = False
        else:
            self.loseConnection()


class WebSite(Site):
    """
    All connections.
    """

    noisy = False
    protocol: Any = Channel
    requestFactory = BoundedRequest

    def __init__(self, reactor: Any, resource: Any, max_connections: int) -> None:
        """
        Serve a resource.

        Args:
            reactor: For time limits.
            resource: What to serve.
            max_connections: Those beyond are closed at once.
        """
        super().__init__(resource, reactor=reactor)
        self.channels: set[Channel] = set()
        self._max_connections = max_connections

    def startFactory(self) -> None:
        """
        Write no access log: Twisted's would take its time from the monotonic clock, and wake up each second for it.
        """

    def stopFactory(self) -> None:
        """
        There is nothing to close.
        """

    def acceptableProtocols(self) -> list[bytes]:
        """
        Speak HTTP/1.1, over TLS, too; Twisted calls this.
        """
        return [b"http/1.1"]

    def log(self, request: object) -> None:
        """
        Write no access log.
        """

    def opened(self, channel: Channel) -> None:
        """
        Count a connection.
        """
        self.channels.add(channel)
        if len(self.channels) > self._max_connections:
            channel.transport.abortConnection()

    def closed(self, channel: Channel) -> None:
        """
        Forget a connection.
        """
        self.channels.discard(channel)
