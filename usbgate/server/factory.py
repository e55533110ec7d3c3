"""
The connections of clients: how many there may be, who watches what, and how they end.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from twisted.application.service import Service
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IAddress, IDelayedCall, IReactorTime
from twisted.internet.protocol import ServerFactory
from zope.interface import implementer

from usbgate.core.errors import LimitExceeded, RequestError, Stopped
from usbgate.core.messages import answer_line, event_line
from usbgate.core.model import Answer, Event, ReportEvent
from usbgate.gateway.interfaces import IGateway
from usbgate.net.broadcast import Broadcast
from usbgate.server.protocol import ClientProtocol, IConnections

MAX_CONNECTIONS = 1000  # the default; each is a file descriptor and up to 1 MiB of `WATCHER_LIMIT`

# Seconds for clients to take what they are still told when usbgate ends; the whole is to stop within 5 s.
STOP_LIMIT = 1.5


def _wall() -> int:
    return int(time.time() * 1000)


@implementer(IConnections)
class ClientFactory(ServerFactory["ClientProtocol"]):
    """
    All connections of clients: how many there may be, and who watches what.
    """

    noisy = False

    def __init__(
        self,
        reactor: IReactorTime,
        gateway: IGateway,
        max_connections: int = MAX_CONNECTIONS,
        wall: Callable[[], int] = _wall,
    ) -> None:
        """
        Serve clients.

        Args:
            reactor: For time limits.
            gateway: Whom to ask.
            max_connections: The connection beyond is told so and closed.
            wall: The wall clock, whole milliseconds since 1970, UTC (`IClock.wall`).
        """
        self.reactor = reactor
        self.gateway = gateway
        self.watchers = Broadcast(reactor, self.subscribe_lines)
        self.limited = 0
        self._wall = wall
        self._max_connections = max_connections
        self._connections: set[ClientProtocol] = set()
        self._accepted = 0
        self._unflushed: dict[ClientProtocol, None] = {}  # an ordered set
        self._spelled: Answer | None = None  # the one told last, and its line
        self._line = b""
        self._stopping = False
        self._all_gone: Deferred[None] | None = None
        self._stop_call: IDelayedCall | None = None

    def subscribe_lines(self, deliver: Callable[[str | None, str], None]) -> Callable[[], None]:
        """
        Call `deliver` with the sensor and the line of every event that is sent on the line port, from now on.

        The sensor is None for an event that is about none.

        Returns:
            What to call to unsubscribe.
        """

        def spell(event: Event) -> None:
            line = event_line(event)
            if line is not None:
                deliver(event.sensor if isinstance(event, ReportEvent) else None, line)

        return self.gateway.subscribe(spell)

    def buildProtocol(self, addr: IAddress | None) -> ClientProtocol:
        """
        Make the protocol of a new connection.
        """
        return ClientProtocol(self, addr)

    def wall(self) -> int:
        """
        Return the wall clock (see `ICaller.wall`).
        """
        return self._wall()

    def spell(self, answer: Answer) -> bytes:
        """
        Spell an answer (see `IConnections.spell`).
        """
        if answer is not self._spelled:
            self._line, self._spelled = answer_line(answer).encode(), answer
        return self._line

    def counts(self) -> Mapping[str, int]:
        """
        Return the numbers for `status` (see `IConnections.counts`).
        """
        return {
            "CLIENTS": len(self._connections),
            "WATCHERS": len(self.watchers),
            "WAITING": sum(client.in_flight for client in self._connections),
            "ACCEPTED": self._accepted,
            "LIMITED": self.limited,
        }

    def admit(self, client: ClientProtocol) -> RequestError | None:
        """
        Count a new connection (see `IConnections.admit`).
        """
        refusal: RequestError | None = None
        if self._stopping:
            refusal = Stopped()
        elif len(self._connections) >= self._max_connections:
            self.limited += 1
            refusal = LimitExceeded(f"more than {self._max_connections} connections")
        else:
            self._accepted += 1
        self._connections.add(client)
        return refusal

    def flush_later(self, client: ClientProtocol) -> None:
        """
        Flush a connection at the end of this reactor turn (see `IConnections.flush_later`).
        """
        if not self._unflushed:
            self.reactor.callLater(0, self._flush)
        self._unflushed[client] = None

    def _flush(self) -> None:
        unflushed, self._unflushed = self._unflushed, {}
        for client in unflushed:
            client.flush()

    def gone(self, client: ClientProtocol) -> None:
        """
        Forget a connection (see `IConnections.gone`).
        """
        self._connections.discard(client)
        self.watchers.remove(client)
        if self._all_gone is not None and not self._connections:
            if self._stop_call is not None:
                self._stop_call.cancel()
                self._stop_call = None
            all_gone, self._all_gone = self._all_gone, None
            all_gone.callback(None)

    def stop(self) -> Deferred[None]:
        """
        Close all connections; new ones are refused. To be called once, when the gateway has failed what waits.

        Returns:
            Fires when all are closed, `STOP_LIMIT` seconds from now at the latest.
        """
        self._stopping = True
        if not self._connections:
            return succeed(None)
        self._all_gone = all_gone = Deferred[None]()
        self._stop_call = self.reactor.callLater(STOP_LIMIT, self._abort_all)
        for client in list(self._connections):
            client.stop()
        return all_gone

    def _abort_all(self) -> None:
        self._stop_call = None
        for client in list(self._connections):
            client.abort()


class Clients(Service):
    """
    The connections of clients, which outlive the listening for new ones.
    """

    def __init__(self, factory: ClientFactory) -> None:
        self._factory = factory

    def stopService(self) -> Deferred[None]:
        """
        Close them.

        Returns:
            Fires when all are closed.
        """
        super().stopService()
        return self._factory.stop()
