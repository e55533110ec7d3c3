"""
All connections of line clients: their limit, their counts, their subscriptions, and how they end.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import partial

from twisted.application.service import Service
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IAddress, IDelayedCall, IReactorTime
from twisted.internet.protocol import Factory, ServerFactory
from twisted.logger import Logger

from usbgate.access.authority import Authority
from usbgate.access.doors import LOCAL, Door
from usbgate.core.errors import LimitExceeded, RequestError, Stopped
from usbgate.core.loglimit import LogLimit
from usbgate.core.messages import answer_line, error_line, event_line
from usbgate.core.model import Answer, Event
from usbgate.gateway.interfaces import IGateway
from usbgate.net.broadcast import Broadcast
from usbgate.net.places import NoPlace, Places
from usbgate.net.rates import Rates
from usbgate.server.intake import BYTES_PER_SECOND, BYTES_PER_TURN, Intake
from usbgate.server.protocol import ClientProtocol

MAX_CONNECTIONS = 1000  # the default; each is a file descriptor and 64 KiB to 1 MiB of unsent data

REQUESTS_PER_SECOND = 100  # the default: about what a board at 9,600 baud answers, 30 lines, three times

# Seconds for clients to read what is unsent when usbgate stops; the whole stop must take less than 5 s.
STOP_LIMIT = 1.5

# Seconds without data after which a client makes room for others, while all places are taken. A client that asks rarely
# can connect again.
IDLE_AFTER = 60.0


def _wall() -> int:
    return int(time.time() * 1000)


class ClientFactory(ServerFactory):  # not of a type in brackets, which Twisted 24.11 does not have
    """
    The connections of line clients, and what they share.

    Attributes:
        reactor: For time limits and later turns.
        gateway: Answers requests.
        authority: Decides who clients are.
        wall: The wall clock, whole milliseconds since 1970, UTC (`IClock.wall`).
        subscribers: Subscriptions to events.
        raw_subscribers: Those with readings as the devices sent them.
        intake: How much of each connection is read and served at a time.
        rates: How many requests each address and each token may make.
        limited: Refusals because of a limit, since the start.
        connections: The open connections.
        sent_one: Whether an answer was sent before the end of the reactor turn, since the last `flush_later`.
    """

    log = Logger()
    noisy = False

    def __init__(
        self,
        reactor: IReactorTime,
        gateway: IGateway,
        authority: Authority,
        max_connections: int = MAX_CONNECTIONS,
        wall: Callable[[], int] = _wall,
        max_of_address: int | None = None,
        door: Door = LOCAL,
        bytes_per_turn: int = BYTES_PER_TURN,
        bytes_per_second: int = BYTES_PER_SECOND,
        requests_per_second: float = REQUESTS_PER_SECOND,
    ) -> None:
        """
        Args:
            reactor: See the attribute, as for `gateway`, `authority` and `wall`.
            gateway: See above.
            authority: See above.
            max_connections: Connections beyond that get an error and are closed, unless an idle one makes room.
            wall: See above.
            max_of_address: The same for the connections of one address; see `Places`.
            door: What clients may do without a token.
            bytes_per_turn: The most bytes that are read of a connection in a reactor turn.
            bytes_per_second: The most bytes that are read of a connection in a second, on average; or of one address
                elsewhere, or with one token.
            requests_per_second: The most requests and words in a second of one address elsewhere, or with one token.
        """
        self.reactor = reactor
        self.gateway = gateway
        self.authority = authority
        self.wall = wall
        self.subscribers = Broadcast(reactor, self.subscribe_lines)
        self.raw_subscribers = Broadcast(reactor, partial(self.subscribe_lines, raw=True))
        self.intake = Intake(reactor, bytes_per_turn, bytes_per_second)
        self.rates = Rates(reactor, requests_per_second)
        self.limited = 0
        self._door = door
        self.connections: set[ClientProtocol] = set()
        self._places: Places[ClientProtocol] = Places(max_connections, max_of_address)
        # Those that may make room: whether they are local, and an ordered set, the oldest first. Those that have sent
        # no line yet, and those that were idle at the last look.
        self._silent: dict[bool, dict[ClientProtocol, None]] = {True: {}, False: {}}
        self._idle: dict[bool, dict[ClientProtocol, None]] = {True: {}, False: {}}
        self._looked_for_idle = float("-inf")
        self._accepted = 0
        self._unflushed: dict[ClientProtocol, None] = {}  # an ordered set
        self.sent_one = False
        self._encoded: tuple[Answer | None, bytes] = (None, b"")  # the latest
        self._refused = LogLimit()
        self._stopping = False
        self._all_closed: Deferred[None] | None = None
        self._stop_call: IDelayedCall | None = None

    def buildProtocol(self, addr: IAddress | None) -> ClientProtocol:
        """
        Build the protocol of a new connection.
        """
        return ClientProtocol(self, addr, self._door)

    def behind(self, door: Door) -> Factory:
        """
        Return a factory for the connections of another door.
        """
        return DoorFactory(self, door)

    def add(self, client: ClientProtocol) -> RequestError | None:
        """
        Add a new connection.

        Returns:
            None, or the error with which it must be closed.
        """
        refusal: RequestError | None = Stopped() if self._stopping else self._take_place(client)
        if refusal is None:
            self._accepted += 1
            self._silent[client.peer.is_local][client] = None
        self.connections.add(client)
        return refusal

    def _take_place(self, client: ClientProtocol) -> RequestError | None:
        places = self._places
        if len(places) >= places.most // 2:
            self._look_for_idle()
        refusal = places.take(client, client.peer.origin)
        if refusal is NoPlace.IN_ALL and self._make_room(client.peer.is_local):
            refusal = places.take(client, client.peer.origin)
        if refusal is None:
            return None
        self.limited += 1
        if refusal is NoPlace.OF_ADDRESS:
            return LimitExceeded(f"more than {places.most_of_address} connections of one address")
        return LimitExceeded(f"more than {places.most} connections")

    def _look_for_idle(self) -> None:
        now = self.reactor.seconds()
        if now - self._looked_for_idle < IDLE_AFTER:
            return
        self._looked_for_idle = now
        for idle in self._idle.values():
            idle.clear()
        for client in self._places:
            if client.is_idle and not client.sent_data:
                self._idle[client.peer.is_local][client] = None
            client.sent_data = False

    def _make_room(self, local: bool) -> bool:
        # A client elsewhere never displaces one of this machine.
        for candidates in (self._silent, self._idle):
            for where in (False, True) if local else (False,):
                while candidates[where]:
                    client = next(iter(candidates[where]))
                    del candidates[where][client]
                    if (
                        client in self._places
                        and client.is_idle
                        and not (candidates is self._idle and client.sent_data)
                    ):
                        self.limited += 1
                        self._places.leave(client)
                        client.send_lines(error_line(LimitExceeded("closed while idle, to make room"), {}))
                        client.close()
                        return True
        return False

    def first_line_received(self, client: ClientProtocol) -> None:
        """
        Let a connection make room only if it is idle for `IDLE_AFTER`, now that it has sent a line.
        """
        self._silent[client.peer.is_local].pop(client, None)

    def remove(self, client: ClientProtocol) -> None:
        """
        Remove a connection that is lost.
        """
        self.connections.discard(client)
        self._places.leave(client)
        self._unflushed.pop(client, None)
        for candidates in (self._silent, self._idle):
            candidates[client.peer.is_local].pop(client, None)
        if self._all_closed is not None and not self.connections:
            if self._stop_call is not None:
                self._stop_call.cancel()
                self._stop_call = None
            all_closed, self._all_closed = self._all_closed, None
            all_closed.callback(None)

    def log_refused(self, client: str, reason: str) -> None:
        """
        Log, once a minute, that a connection was closed because its first line is not a line client's.

        Args:
            client: The client's host and port.
            reason: What its first line is instead.
        """
        count = self._refused.add(self.reactor.seconds())
        if count:
            self.log.warn(
                "closed {count} connection(s) that did not begin as a line client's, the last from {client}: {reason}",
                count=count,
                client=client,
                reason=reason,
            )

    @property
    def watchers(self) -> int:
        """
        The number of subscriptions.
        """
        return len(self.subscribers) + len(self.raw_subscribers)

    def counts(self) -> Mapping[str, int]:
        """
        Return the last line of `status` (protocol §3): counts of the present, then counts since the start.
        """
        return {
            "CLIENTS": len(self.connections),
            "WATCHERS": self.watchers,
            "WAITING": sum(client.requests.in_flight for client in self.connections),
            "ACCEPTED": self._accepted,
            "LIMITED": self.limited,
            "DENIED": self.authority.denied,
        }

    def subscribe_lines(self, deliver: Callable[[str | None, str], None], raw: bool = False) -> Callable[[], None]:
        """
        Call `deliver` from now on with each event that line clients can subscribe to.

        Args:
            deliver: Called with the sensor and the line, see `event_line`.
            raw: See `event_line`.

        Returns:
            What to call to unsubscribe.
        """

        def publish(event: Event) -> None:
            spelled = event_line(event, raw)
            if spelled is not None:
                deliver(*spelled)

        return self.gateway.subscribe(publish)

    def encode(self, answer: Answer) -> bytes:
        """
        Return the line of an answer, without a tag, encoded once for all its askers.
        """
        if answer is not self._encoded[0]:
            self._encoded = answer, answer_line(answer).encode()
        return self._encoded[1]

    def flush_later(self, client: ClientProtocol) -> None:
        """
        Flush a connection at the end of this reactor turn: all that is written to it in one turn leaves in one packet,
        and a client on this machine that wakes up for the first packet is awake for the others.
        """
        if not self._unflushed:
            self.reactor.callLater(0, self._flush)  # runs before the reactor polls again
        self._unflushed[client] = None

    def _flush(self) -> None:
        self.sent_one = False
        self.intake.new_turn()
        unflushed, self._unflushed = self._unflushed, {}
        for client in unflushed:
            client.flush()

    def stop(self) -> Deferred[None]:
        """
        Close all connections, and refuse new ones. To be called once, after the gateway has failed all requests.

        Returns:
            Fires when all are closed, `STOP_LIMIT` seconds from now at the latest.
        """
        self._stopping = True
        if not self.connections:
            return succeed(None)
        self._all_closed = all_closed = Deferred[None]()
        self._stop_call = self.reactor.callLater(STOP_LIMIT, self._abort_all)
        for client in list(self.connections):
            client.stop()
        return all_closed

    def _abort_all(self) -> None:
        self._stop_call = None
        for client in list(self.connections):
            client.abort()


class DoorFactory(Factory):
    """
    Builds the connections of one door.
    """

    noisy = False

    def __init__(self, factory: ClientFactory, door: Door) -> None:
        """
        Args:
            factory: All connections.
            door: What clients may do there without a token.
        """
        self._factory = factory
        self._door = door

    def buildProtocol(self, addr: IAddress | None) -> ClientProtocol:
        """
        Build the protocol of a new connection.
        """
        return ClientProtocol(self._factory, addr, self._door)


class Clients(Service):
    """
    Closes all connections at the stop; they outlive the listening for new ones.
    """

    def __init__(self, factory: ClientFactory) -> None:
        self._factory = factory

    def stopService(self) -> Deferred[None]:
        """
        Close all connections.

        Returns:
            Fires when all are closed.
        """
        super().stopService()
        return self._factory.stop()
