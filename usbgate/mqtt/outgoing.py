"""
Messages for a broker: how many are on their way, what waits, and who waits until there is room.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from twisted.internet.defer import Deferred, succeed

from usbgate.mqtt.interfaces import NotDelivered

# Messages that the broker has not acknowledged yet: mosquitto takes 20 at a time, and says so by its Receive Maximum.
# It also bounds what waits in the transport, and how long a reactor turn publishes (1 ms).
WINDOW = 20

# Messages that wait for the window, and their bytes: replies and events of a moment. Who has more waits for room.
WAITING = 1000
WAITING_BYTES = 1 << 20

OVERHEAD = 40  # bytes of a PUBLISH besides its topic, payload and correlation data, at most


class OutgoingMessage(NamedTuple):
    """
    A message; see `IPublisher.publish`. `delivered` is what `IPublisher.deliver` returned, if it was that.
    """

    topic: str
    payload: bytes
    retain: bool
    expiry: int | None = None
    correlation: bytes | None = None
    delivered: Deferred[None] | None = None

    @property
    def size(self) -> int:
        """
        Bytes of its packet, at most.
        """
        return OVERHEAD + len(self.topic.encode()) + len(self.payload) + len(self.correlation or b"")


class Outgoing:
    """
    The messages of one connection.

    Attributes:
        window: The most messages that the broker takes before it acknowledges one.
    """

    def __init__(self, send: Callable[[OutgoingMessage], int]) -> None:
        """
        Args:
            send: Sends a message, and returns its packet identifier.
        """
        self.window = WINDOW
        self._send = send
        self._sent: dict[int, OutgoingMessage] = {}  # what is not acknowledged, by packet identifier
        self._waiting: deque[OutgoingMessage] = deque()
        self._waiting_bytes = 0
        self._rooms: deque[Deferred[None]] = deque()
        self._flushed: list[Deferred[None]] = []

    def add(self, message: OutgoingMessage) -> bool:
        """
        Send a message now, or when others have been acknowledged. Return whether there is room for it.
        """
        size = message.size
        if len(self._waiting) >= WAITING or self._waiting_bytes + size > WAITING_BYTES:
            return False
        self._waiting.append(message)
        self._waiting_bytes += size
        self._send_waiting()
        return True

    def acknowledged(self, identifier: int) -> OutgoingMessage | None:
        """
        Record that the broker has received a message; return it. `proceed` follows.
        """
        return self._sent.pop(identifier, None)

    def proceed(self) -> None:
        """
        Send what waits, and let those go on who wait.
        """
        self._send_waiting()
        while self._rooms and self._has_room():
            self._rooms.popleft().callback(None)
        if not self._sent:
            self._fire_flushed()

    def close(self) -> int:
        """
        Record that the connection is lost; return how many messages were not sent.
        """
        self._fire_flushed()
        for message in (*self._sent.values(), *self._waiting):
            if message.delivered is not None:
                message.delivered.errback(NotDelivered("the connection to the broker was lost"))
        return len(self._waiting)

    def room(self) -> Deferred[None]:
        """
        See `IPublisher.room`.
        """
        if self._has_room() and not self._rooms:
            return succeed(None)
        waiting: Deferred[None] = Deferred(self._rooms.remove)
        self._rooms.append(waiting)
        return waiting

    def flushed(self) -> Deferred[None]:
        """
        Return a Deferred that fires when everything is acknowledged, or the connection is lost.
        """
        if not self._sent:
            return succeed(None)
        waiting: Deferred[None] = Deferred(self._flushed.remove)
        self._flushed.append(waiting)
        return waiting

    def _has_room(self) -> bool:
        return not self._waiting and len(self._sent) < self.window

    def _send_waiting(self) -> None:
        while self._waiting and len(self._sent) < self.window:
            message = self._waiting.popleft()
            self._waiting_bytes -= message.size
            self._sent[self._send(message)] = message

    def _fire_flushed(self) -> None:
        flushed, self._flushed = self._flushed, []
        for each in flushed:
            each.callback(None)
