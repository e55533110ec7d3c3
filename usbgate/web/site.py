"""
The parts of the HTTP front end, put together: the resource that is served, its connections, and the listener.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from http import HTTPStatus
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IListeningPort
from twisted.logger import Logger
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET

from usbgate.access.authority import Authority
from usbgate.access.doors import LOCAL, Door
from usbgate.gateway.interfaces import IGateway
from usbgate.net.listeners import Listeners, listens_everywhere
from usbgate.net.rates import Rates
from usbgate.web.api import Api
from usbgate.web.channel import WebSite
from usbgate.web.cors import CrossOrigin
from usbgate.web.credentials import Credentials
from usbgate.web.events import EventStreams
from usbgate.web.problems import HttpProblem, respond, respond_problem
from usbgate.web.routes import Routes
from usbgate.web.security import HEADERS, RequestGuard

# The default: the page takes 60 when it is opened, and then some each minute; several people can be behind one address.
REQUESTS_PER_SECOND = 50


class Front(Resource):
    """
    Handles every request first: sets the headers of all responses, checks the request, and removes the base path.
    """

    isLeaf = True

    def __init__(self, guard: RequestGuard, cross_origin: CrossOrigin, inner: Any, base_path: str) -> None:
        """
        Args:
            guard: Checks requests.
            cross_origin: The pages of other sites that may use the API.
            inner: The resource that responds.
            base_path: The prefix of our paths behind a proxy that does not remove it, such as `/usbgate`. Paths without
                it work, too.
        """
        super().__init__()
        self._guard = guard
        self._cross_origin = cross_origin
        self._inner = inner
        self._base = [part.encode() for part in base_path.split("/") if part]

    def render(self, request: Any) -> Any:
        """
        Refuse a request, or hand it to the inner resource; Twisted calls this.
        """
        request.responseHeaders.removeHeader("Server")
        for name, value in HEADERS.items():
            request.setHeader(name, value)
        self._cross_origin.prepare(request)
        try:
            preflight = self._cross_origin.preflight(request)
            self._guard.check(request, preflight is not None)
        except HttpProblem as problem:
            respond_problem(request, problem)
            return NOT_DONE_YET  # it is done, but not by Twisted
        if preflight is not None:
            request.setResponseCode(HTTPStatus.NO_CONTENT)
            for name, value in preflight.items():
                request.setHeader(name, value)
            request.finish()
            return NOT_DONE_YET
        depth = len(self._base)
        if depth and request.postpath[:depth] == self._base:
            if len(request.postpath) == depth:
                # Relative, as the proxy may have another scheme and port.
                location = {"Location": request.postpath[-1].decode() + "/"}
                respond(request, HTTPStatus.PERMANENT_REDIRECT, "text/plain", b"", location)
                return NOT_DONE_YET
            request.prepath, request.postpath = request.postpath[:depth], request.postpath[depth:]
        return self._inner.render(request)


class Web(Service):
    """
    The HTTP front end without its listener. It stops after the listener.

    Attributes:
        events: The streams of events.
        site: What to serve.
    """

    def __init__(
        self,
        reactor: Any,
        gateway: IGateway,
        authority: Authority,
        wall: Callable[[], int],
        *,
        door: Door = LOCAL,
        hosts: Collection[str] = (),
        cors: Collection[str] = (),
        base_path: str = "",
        max_connections: int = 1000,
        max_of_address: int | None = None,
        requests_per_second: float = REQUESTS_PER_SECOND,
        metrics_limit: int = 1000,
        others: Callable[[], Mapping[str, int]] = dict,
    ) -> None:
        """
        Args:
            reactor: For time limits.
            gateway: The gateway.
            authority: Decides who clients are.
            wall: The wall clock (`IClock.wall`).
            door: What clients may do without a token.
            hosts: Names by which browsers may call us, besides those that `RequestGuard` knows.
            cors: The pages of other sites that may use the API (see `CrossOrigin`).
            base_path: See `Front`.
            max_connections: The most streams of events, and the most other connections.
            max_of_address: The most of both of one address; see `Places`.
            requests_per_second: The most requests in a second of one address, and with one token.
            metrics_limit: See `Api`.
            others: Returns the numbers of the other front ends' clients, by kind.
        """
        self._others = others
        self.events = EventStreams(reactor, gateway, max_connections, max_of_address)
        api = Api(
            reactor,
            gateway,
            authority,
            Credentials(reactor, authority, door, Rates(reactor, requests_per_second)),
            wall,
            self.events,
            self.counts,
            metrics_limit,
        )
        cross_origin = CrossOrigin(cors)
        front = Front(RequestGuard(hosts, cross_origin), cross_origin, Routes(api.app), base_path)
        self.site = WebSite(reactor, front, 2 * max_connections, max_of_address)

    def counts(self) -> Mapping[str, int]:
        """
        Return the numbers of clients, by kind.
        """
        return {**self._others(), "HTTP": len(self.site.channels), "STREAMS": len(self.events)}

    def stopService(self) -> Deferred[None]:
        """
        Close all connections. Call it when the gateway has failed all waiting requests and the listener has stopped.

        Returns:
            See `WebSite.leave`.
        """
        super().stopService()
        self.events.stop()
        return self.site.leave()


class WebListener(Listeners):
    """
    Listens for HTTP, and logs the page's address.
    """

    log = Logger()

    def __init__(
        self, reactor: Any, endpoint: str, web: Web, base_path: str, required: bool, local_only: bool = False
    ) -> None:
        """
        Args:
            reactor: Listens.
            endpoint: A Twisted server endpoint string.
            web: What to serve.
            base_path: See `Front`.
            required: Whether usbgate must not start if it cannot listen here.
            local_only: See `Listeners`.
        """
        super().__init__(reactor, [endpoint], web.site, required=required, local_only=local_only)
        self._base_path = base_path

    def log_listening(self, port: IListeningPort, description: str) -> None:
        """
        Log the page's address.
        """
        address: Any = port.getHost()
        host = getattr(address, "host", None)
        if host is None:
            self.log.info("the page is on {endpoint}", endpoint=description)
            return
        shown = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)
        where = ", and by all other addresses of this machine" if listens_everywhere(port) else ""
        scheme = "https" if description.startswith("ssl:") else "http"
        url = f"{scheme}://{shown}:{address.port}{self._base_path}/"
        self.log.info("the page is at {url}{where}", url=url, where=where)
