"""
What a connection does besides requests (protocol §3): words, a subscription, leases.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Mapping
from itertools import islice
from typing import TYPE_CHECKING

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from zope.interface import implementer

from usbgate.access.authority import Authority
from usbgate.access.tokens import redact
from usbgate.core.errors import Failed, RequestError
from usbgate.core.fieldline import format_line
from usbgate.core.messages import data_line, error_line
from usbgate.core.model import Action
from usbgate.gateway.interfaces import IQueries, Lease
from usbgate.net.broadcast import EventBatch, ISubscriber, unsent_share
from usbgate.server import commands

if TYPE_CHECKING:
    from usbgate.server.protocol import ClientProtocol

# Data lines sent before other events of the reactor, and a client that reads slowly, get their turn: below a
# millisecond's work.
DATA_LINES_PER_TURN = 100

# Bytes unsent; beyond, or beyond its share of what may wait for all, a subscriber loses events, protocol §3.
SUBSCRIBER_LIMIT = 1024 * 1024


@implementer(ISubscriber)
class Console:
    """
    Answers the words of one connection, one after the other.

    Attributes:
        connection: The connection.
        factory: All connections.
        gateway: Answers requests and queries.
        peer: Who the client is.
        words: Lines that are not answered yet, or the error that a line is answered with. The first one is being
            answered.
    """

    log = Logger()

    def __init__(self, connection: ClientProtocol) -> None:
        self.connection = connection
        self.factory = connection.factory
        self.gateway = connection.factory.gateway
        self.peer = connection.peer
        self.words: deque[str | RequestError] = deque()
        self._leases: list[Lease] = []
        self._lost_events = 0  # since the client stopped reading
        self._room: Deferred[None] | None = None
        self._turn: Deferred[None] | None = None

    @property
    def queries(self) -> IQueries:
        """
        The queries of what the client may see.
        """
        authority: Authority = self.factory.authority
        return authority.queries(self.peer.access, self.gateway.queries)

    @property
    def is_active(self) -> bool:
        """
        Whether there is a word to answer, or a subscription.
        """
        return bool(self.words) or self in self.factory.subscribers or self in self.factory.raw_subscribers

    @property
    def has_lease(self) -> bool:
        """
        Whether a device is lent to the client.
        """
        return bool(self._leases)

    def connection_lost(self) -> None:
        """
        The client is gone: end its subscription and its leases.
        """
        self.unwatch()
        self.factory.intake.forget(self._give_turn)
        self._give_turn()
        self.end_leases()
        self._give_room()

    # Words.

    def receive(self, word: str | RequestError) -> None:
        """
        Answer a word when those before it are answered.

        Args:
            word: A line that is not blank, or the error that the reply to it is.
        """
        self.words.append(word)
        if len(self.words) == 1:
            Deferred.fromCoroutine(self._answer_words()).addErrback(
                lambda failure: self.log.failure(
                    "unexpected error in a word of {client}", failure=failure, client=self.peer.name
                )
            )

    async def _answer_words(self) -> None:
        connection = self.connection
        while self.words and not connection.closing:
            word = self.words[0]
            try:
                if isinstance(word, RequestError):
                    connection.send_lines(error_line(word, {}))
                else:
                    await commands.answer(self, word)
            except Exception:
                self.log.failure(
                    "unexpected error in a word of {client}: {word!r}",
                    client=self.peer.name,
                    word=redact(str(word).encode()).decode(),
                )
                connection.send_lines(error_line(Failed(), {}))
            self.words.popleft()
            connection.regulate()
        connection.close_if_done()

    def send_lines(self, *lines: str) -> None:
        """
        Send lines, each with a line end; do nothing once the connection is closing.
        """
        self.connection.send_lines(*lines)

    async def send_data(self, rows: Iterable[Mapping[str, str]], *, held: bool = False) -> None:
        """
        Send data lines, as fast as the client reads them; stop when it is gone.

        Args:
            rows: The fields of each line. A value that would not read back is changed to plain text.
            held: Whether what they are made from stays in memory until the last one is made. If so, make all lines even
                if the client does not read: they are smaller.
        """
        rest = iter(rows)
        while lines := [data_line(fields) for fields in islice(rest, DATA_LINES_PER_TURN)]:
            self.send_lines(*lines)
            if len(lines) < DATA_LINES_PER_TURN or not await (self.turn_came() if held else self.room_made()):
                return

    def close(self) -> None:
        """
        Close the connection once the client has read all that was sent.
        """
        self.connection.close()

    async def room_made(self) -> bool:
        """
        Wait for a later reactor turn in which the client has read most of what was sent to it, or is gone.

        Returns:
            Whether it is still connected.
        """
        await self.turn_came()
        if not (self.connection.closing or self.connection.has_room):
            self._room = Deferred()
            await self._room
            await self.turn_came()
        return not self.connection.closing

    async def turn_came(self) -> bool:
        """
        Wait for a later reactor turn.

        Returns:
            Whether the client is still connected.
        """
        if not self.connection.closing:
            self._turn = Deferred()
            self.factory.intake.later(self._give_turn)
            await self._turn
        return not self.connection.closing

    def _give_turn(self) -> None:
        turn, self._turn = self._turn, None
        if turn is not None:
            turn.callback(None)

    def drained(self) -> None:
        """
        The client has read most of what was sent to it.
        """
        if self._lost_events:
            lost, self._lost_events = self._lost_events, 0
            self.connection.send_lines(format_line({"EVENT": "dropped", "COUNT": str(lost)}))
        self._give_room()

    def _give_room(self) -> None:
        room, self._room = self._room, None
        if room is not None:
            room.callback(None)

    # The subscription.

    def watch(self, sensors: Collection[str], raw: bool = False) -> None:
        """
        Send events from now on, instead of those that were subscribed to before.

        Args:
            sensors: Send readings of these sensors only; of all, if empty.
            raw: Whether to send readings as the devices sent them.
        """
        if not self.connection.closing:
            kinds = (self.factory.subscribers, self.factory.raw_subscribers)
            kinds[not raw].remove(self)
            kinds[raw].add(self, sensors)

    def unwatch(self) -> None:
        """
        End the subscription, if there is one.
        """
        self.factory.subscribers.remove(self)
        self.factory.raw_subscribers.remove(self)

    def deliver(self, batch: EventBatch) -> None:
        """
        Send events, or count them as lost while too much is unsent (protocol §3).
        """
        if self._lost_events or self.connection.unsent > self._unsent_limit():
            self._lost_events += len(batch)
        else:
            # Now, since `Broadcast` pauses by how long this takes: at the end of the turn, events took all of a core.
            self.connection.send_now(batch.encode(self.connection.delimiter))

    def _unsent_limit(self) -> int:
        return min(SUBSCRIBER_LIMIT, unsent_share(self.factory.watchers))

    def end(self) -> None:
        """
        End what the client has begun: its subscription and its leases.
        """
        self.unwatch()
        self.end_leases()

    def record(self, command: str, outcome: str = "done", device: str | None = None, **details: str) -> None:
        """
        Record what the client did, or was denied, besides asking.
        """
        self.gateway.record(Action(command, self.peer.name, self.peer.origin, details, device, outcome))

    # Leases.

    def keep(self, lease: Lease) -> None:
        """
        End a lease when the client closes or half-closes the connection; at once, if it has.
        """
        self._leases.append(lease)
        if self.connection.half_closed or self.connection.closing:
            self.end_leases()

    def end_leases(self) -> None:
        """
        End all leases.
        """
        leases, self._leases = self._leases, []
        for lease in leases:
            lease.end()
