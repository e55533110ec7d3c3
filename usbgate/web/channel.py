"""
HTTP connections: the limit on their number and on the size of a body, and how one becomes a stream of events.
"""

from __future__ import annotations

from io import BytesIO
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall, IProtocolFactory, ITCPTransport
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from twisted.web.http import HTTPChannel
from twisted.web.server import Request, Site
from zope.interface import implementer_only

from usbgate.access.roles import Access, Role
from usbgate.core.errors import Failed
from usbgate.net.keepalive import keep_alive
from usbgate.net.places import NoPlace, Places, is_local
from usbgate.net.slices import Slices
from usbgate.web.problems import HttpProblem, respond_problem
from usbgate.web.security import BODY_LIMIT

# Bytes of a body that are read, so that a client which sends all before it reads still gets the problem.
_READ_LIMIT = 16 * BODY_LIMIT

# Seconds for a request, from its first byte to its last; and for an idle connection to begin one. A request is at most
# 16 KiB of head and 64 KiB of body, so one that takes longer only occupies a place.
REQUEST_LIMIT = 60

# The response to a connection of an address that has too many.
TOO_MANY = b"HTTP/1.1 429 Too Many Requests\r\nRetry-After: 10\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"

LOCAL_HOST = "local"  # the address of those who connect to a Unix socket

# Seconds for clients to read their last responses when usbgate stops; all of it has to stop within 5 s.
STOP_LIMIT = 1.5


class BoundedRequest(Request):
    """
    A request whose body is kept only up to `BODY_LIMIT`.

    Attributes:
        body_size: Bytes of the body, including those that were not kept.
        access: What its client may do, once that is known.
        forwarded_for: The address of its client, according to a proxy that is believed; None if there is none.
    """

    content: Any
    channel: Any
    access = Access(Role.NONE)
    forwarded_for: str | None = None

    def gotLength(self, length: int | None) -> None:
        """
        Keep the body in memory: it is small.
        """
        self.body_size = 0
        self.content = BytesIO()

    def handleContentChunk(self, data: bytes) -> None:
        """
        Keep data up to the limit; disconnect a client that sends more than `_READ_LIMIT`.
        """
        self.body_size += len(data)
        if self.body_size <= BODY_LIMIT:
            self.content.write(data)
        elif self.body_size > _READ_LIMIT:
            self.channel.transport.abortConnection()

    def requestReceived(self, command: bytes, path: bytes, version: bytes) -> None:
        """
        Hide the body from Twisted, which would parse it as a form and fail if it is not one.
        """
        self._body, self.content = self.content, BytesIO()
        super().requestReceived(command, path, version)

    def process(self) -> None:
        """
        Respond, in a later reactor turn if many others have sent requests; Twisted calls this when all is received.
        """
        slices: Slices = self.channel.site.slices
        if slices.has_time:
            self._process()
        else:
            slices.next().addCallback(lambda _: self._process()).addErrback(
                lambda failure: self._log.failure("unexpected error while responding over HTTP", failure=failure)
            )

    def _process(self) -> None:
        if self.channel is None:  # the client has disconnected meanwhile
            return
        self.content = self._body
        self.content.seek(0)
        if self.path == b"*":
            self.path = b""  # Twisted would respond to that itself, and give its name
        super().process()

    def processingFailed(self, reason: Failure) -> Failure:
        """
        Log an unexpected error, and respond with a problem that does not show it.
        """
        self._log.failure("unexpected error while responding over HTTP", failure=reason)
        if self.startedWriting:
            self.loseConnection()
        else:
            respond_problem(self, HttpProblem(Failed()))
        return reason


class Channel(HTTPChannel):
    """
    One connection.

    Attributes:
        host: The peer's address; `local` on a Unix socket.
        is_local: Whether the peer is on this machine.
    """

    requestFactory = BoundedRequest
    site: Any
    transport: Any
    _is_in_request = False

    def connectionMade(self) -> None:
        """
        Set keep-alive, and register with the site.
        """
        self.host = str(getattr(self.transport.getPeer(), "host", LOCAL_HOST))
        self.is_local = is_local(self.host)
        super().connectionMade()
        if ITCPTransport.providedBy(self.transport):
            keep_alive(self.transport)
        self.site.opened(self)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """
        Unregister from the site.
        """
        self.site.closed(self)
        super().connectionLost(reason)

    def dataReceived(self, data: bytes) -> None:
        """
        Drop what comes after the connection was closed: over TLS, it is read until the peer closes it, too. Twisted
        would fail at what follows a bad request, also when it reports the end, and the place would be lost.
        """
        if not self.transport.disconnecting:
            super().dataReceived(data)

    def timeoutConnection(self) -> None:
        """
        Close an idle connection as Twisted does, without its log line: browsers leave idle connections behind.
        """
        self._abortingCall = self.callLater(self.abortTimeout, self.forceAbortClient)
        self.loseConnection()

    def resetTimeout(self) -> None:
        """
        Begin the time of a request at its first byte; Twisted calls this for every chunk, so that a client which sends
        a byte now and then would never be closed.
        """
        if self.timeOut is not None and not self._is_in_request:
            self._is_in_request = True
            super().resetTimeout()

    def allContentReceived(self) -> None:
        """
        A request is complete; Twisted calls this.
        """
        self._is_in_request = False
        self.site.busy(self)
        super().allContentReceived()

    def requestDone(self, request: Request) -> None:
        """
        A response is complete; Twisted calls this.
        """
        if self.persistent:
            self.site.waiting(self)
        super().requestDone(request)

    def hand_over(self, request: Request) -> tuple[Any, bytes]:
        """
        Begin a response without end, and give the transport away.

        The response has no length and is not chunked; it ends with the connection. So the same bytes can be sent to
        many clients, through a queue of ours that knows how much was sent.

        Args:
            request: The request, with the headers of its response set.

        Returns:
            The transport, which may still hold the end of an earlier response, and the head of this one. The request is
            notified when the connection is lost, like any other.
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
        Close the connection after the response that is being sent, if there is one.
        """
        if self.requests:
            self.persistent = False
        else:
            self.loseConnection()


# Not of IProtocolNegotiationFactory, as Site is: over TLS we have only HTTP/1.1, and older versions of Twisted would
# negotiate it with callbacks, which need memory that systemd denies us (see `usbgate.net.tls`).
@implementer_only(IProtocolFactory)
class WebSite(Site):
    """
    All connections.

    Attributes:
        channels: The open ones.
        slices: The time that each reactor turn has for requests.
    """

    noisy = False
    protocol: Any = Channel
    requestFactory = BoundedRequest

    def __init__(self, reactor: Any, resource: Any, max_connections: int, max_of_address: int | None = None) -> None:
        """
        Args:
            reactor: For time limits.
            resource: The resource to serve.
            max_connections: The most connections at a time. For one more, the one that has waited for a request for the
                longest time is closed.
            max_of_address: The most of one address (see `Places`); more are closed at once.
        """
        super().__init__(resource, reactor=reactor, timeout=REQUEST_LIMIT)
        self.channels: Places[Channel] = Places(max_connections, max_of_address)
        # Those that wait for a whole request: whether they are local, and an ordered set, the oldest first.
        self._waiting: dict[bool, dict[Channel, None]] = {True: {}, False: {}}
        self.slices = Slices(reactor)
        self._clock = reactor
        self._stopped: Deferred[None] | None = None
        self._limit: IDelayedCall | None = None

    def startFactory(self) -> None:
        """
        Open no access log: Twisted's takes its time from the monotonic clock, and wakes the process every second.
        """

    def stopFactory(self) -> None:
        """
        There is no access log to close.
        """

    def log(self, request: object) -> None:
        """
        Write no access log.
        """

    def opened(self, channel: Channel) -> None:
        """
        Register a connection, or close it if there are too many.
        """
        refusal = self.channels.take(channel, channel.host)
        if refusal is NoPlace.IN_ALL and self._make_room(channel.is_local):
            refusal = self.channels.take(channel, channel.host)
        if refusal is None:
            self.waiting(channel)
        else:
            channel.transport.write(TOO_MANY)
            channel.loseConnection()

    def waiting(self, channel: Channel) -> None:
        """
        A connection waits for a request from now on.
        """
        self._waiting[channel.is_local][channel] = None

    def busy(self, channel: Channel) -> None:
        """
        A connection has a whole request.
        """
        self._waiting[channel.is_local].pop(channel, None)

    def _make_room(self, local: bool) -> bool:
        # A client elsewhere never displaces one of this machine. A browser whose idle connection is closed opens
        # another one.
        for where in (False, True) if local else (False,):
            if self._waiting[where]:
                channel = next(iter(self._waiting[where]))
                self.closed(channel)
                channel.transport.abortConnection()
                return True
        return False

    def closed(self, channel: Channel) -> None:
        """
        Unregister a connection.
        """
        self.channels.leave(channel)
        self.busy(channel)
        if self._stopped is not None and not self.channels:
            if self._limit is not None:
                self._limit.cancel()
                self._limit = None
            stopped, self._stopped = self._stopped, None
            stopped.callback(None)

    def leave(self) -> Deferred[None]:
        """
        Close all connections after the responses that are being sent.

        Returns:
            Fires when all are closed, `STOP_LIMIT` seconds from now at the latest.
        """
        for channel in list(self.channels):
            channel.leave()
        if not self.channels:
            return succeed(None)
        self._stopped = stopped = Deferred[None]()
        self._limit = self._clock.callLater(STOP_LIMIT, self._abort)
        return stopped

    def _abort(self) -> None:
        self._limit = None
        for channel in list(self.channels):
            self.closed(channel)
            channel.transport.abortConnection()


def client_of(request: Any) -> str:
    """
    Return the peer's address and port, which may be a proxy's, behind the name of its token or user.
    """
    port = None if request.forwarded_for else getattr(request.getClientAddress(), "port", None)
    access: Access = request.access
    return access.sign(host_of(request) if port is None else f"{host_of(request)}:{port}")


def host_of(request: Any) -> str:
    """
    Return the client's address, as the proxy says, or else the peer's; that of a Unix socket has none, and is `local`.
    """
    if request.forwarded_for:
        return str(request.forwarded_for)
    return str(getattr(request.getClientAddress(), "host", LOCAL_HOST))
