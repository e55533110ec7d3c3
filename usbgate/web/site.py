"""
The HTTP face, put together: what is served, where, and how it ends.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from http import HTTPStatus
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall, IListeningPort
from twisted.logger import Logger
from twisted.web.resource import Resource

from usbgate.gateway.interfaces import IGateway
from usbgate.net.listeners import Listeners
from usbgate.web.api import Api
from usbgate.web.channel import Channel, WebSite
from usbgate.web.events import EventStreams
from usbgate.web.problems import HttpProblem, respond, respond_problem
from usbgate.web.security import HEADERS, RequestGuard

# Seconds for clients to take what they are still told when usbgate ends; the whole is to stop within 5 s.
STOP_LIMIT = 1.5


class Front(Resource):
    """
    What every request meets first.
    """

    isLeaf = True

    def __init__(self, guard: RequestGuard, inner: Any, base_path: str) -> None:
        """
        Stand before a resource.

        Args:
            guard: Judges requests.
            inner: The resource.
            base_path: What a proxy leaves before our paths, such as `/usbgate`; without it they are ours, too.
        """
        super().__init__()
        self._guard = guard
        self._inner = inner
        self._base = [part.encode() for part in base_path.split("/") if part]

    def render(self, request: Any) -> Any:
        """
        Refuse a request, or hand it on; Twisted calls this.
        """
        request.responseHeaders.removeHeader("Server")
        for name, value in HEADERS.items():
            request.setHeader(name, value)
        try:
            self._guard.check(request)
        except HttpProblem as problem:
            respond_problem(request, problem)
            return 1  # NOT_DONE_YET: it is, and by us
        depth = len(self._base)
        if depth and request.postpath[:depth] == self._base:
            if len(request.postpath) == depth:
                # Relative, as the proxy may have another scheme and port.
                location = {"Location": request.postpath[-1].decode() + "/"}
                respond(request, HTTPStatus.PERMANENT_REDIRECT, "text/plain", b"", location)
                return 1
            request.prepath, request.postpath = request.postpath[:depth], request.postpath[depth:]
        # Klein joins the segments; a `/` that was quoted within one is part of an id.
        request.postpath = [part.replace(b"%", b"%25").replace(b"/", b"%2F") for part in request.postpath]
        return self._inner.render(request)


class Web(Service):
    """
    The connections, which outlive the listening for new ones.
    """

    def __init__(
        self,
        reactor: Any,
        gateway: IGateway,
        wall: Callable[[], int],
        *,
        hosts: Collection[str] = (),
        base_path: str = "",
        max_connections: int = 1000,
        others: Callable[[], Mapping[str, int]] = dict,
    ) -> None:
        """
        Put it together; nothing is opened.

        Args:
            reactor: For time limits.
            gateway: Whom to ask.
            wall: The wall clock (`IClock.wall`).
            hosts: Names by which browsers may call us, beside those that `RequestGuard` knows.
            base_path: See `Front`.
            max_connections: How many clients may hear events; as many may do something else meanwhile.
            others: Numbers of the other faces' clients, by name.
        """
        self._reactor = reactor
        self._others = others
        self._stopped: Deferred[None] | None = None
        self._limit: IDelayedCall | None = None
        self.events = EventStreams(reactor, gateway, max_connections)
        self.api = Api(reactor, gateway, wall, self.events, self.counts)
        front = Front(RequestGuard(hosts), self.api.app.resource(), base_path)
        self.site = _Site(reactor, front, 2 * max_connections, self._closed)

    def counts(self) -> Mapping[str, int]:
        """
        Return how many clients there are, by what they do.
        """
        return {**self._others(), "HTTP": len(self.site.channels), "STREAMS": len(self.events)}

    def stopService(self) -> Deferred[None]:
        """
        Close all connections. To be called when the gateway has failed what waits, and nobody listens any more.

        Returns:
            Fires when all are closed, `STOP_LIMIT` seconds from now at the latest.
        """
        super().stopService()
        self.events.stop()
        for channel in list(self.site.channels):
            channel.leave()
        if not self.site.channels:
            return succeed(None)
        self._stopped = stopped = Deferred[None]()
        self._limit = self._reactor.callLater(STOP_LIMIT, self._abort)
        return stopped

    def _abort(self) -> None:
        self._limit = None
        for channel in list(self.site.channels):
            channel.transport.abortConnection()

    def _closed(self) -> None:
        if self._stopped is not None and not self.site.channels:
            if self._limit is not None:
                self._limit.cancel()
                self._limit = None
            stopped, self._stopped = self._stopped, None
            stopped.callback(None)


class _Site(WebSite):
    # Tells when a connection was closed.

    def __init__(self, reactor: Any, resource: Any, max_connections: int, told: Callable[[], None]) -> None:
        super().__init__(reactor, resource, max_connections)
        self._told = told

    def closed(self, channel: Channel) -> None:
        """
        Forget a connection.
        """
        super().closed(channel)
        self._told()


class WebListener(Listeners):
    """
    Where browsers find us; says so.
    """

    log = Logger()

    def __init__(self, reactor: Any, endpoint: str, web: Web, base_path: str, asked_for: bool) -> None:
        """
        Remember where to listen.

        Args:
            reactor: What the endpoint needs of it.
            endpoint: A Twisted server endpoint string.
            web: What to serve.
            base_path: See `Front`.
            asked_for: Whether somebody wants it there: then nowhere else will do.
        """
        super().__init__(reactor, [endpoint], web.site, required=asked_for)
        self._base_path = base_path

    def log_listening(self, port: IListeningPort, description: str) -> None:
        address: Any = port.getHost()
        host = getattr(address, "host", None)
        if host is None:
            self.log.info("the page is on {endpoint}", endpoint=description)
            return
        shown = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)
        self.log.info("the page is at {url}", url=f"http://{shown}:{address.port}{self._base_path}/")
