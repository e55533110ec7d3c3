"""
Events over HTTP (server-sent events): clients that reconnect get what they missed, and slow clients lose events as
subscribers of the line protocol do.
"""

from __future__ import annotations

from collections.abc import Callable, Set
from typing import Any

import msgspec
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from zope.interface import implementer

from usbgate.core.errors import LimitExceeded
from usbgate.core.model import AlarmEvent, Event, ReportEvent
from usbgate.gateway.interfaces import IGateway
from usbgate.net.broadcast import (
    UNSENT_IN_ALL,
    Broadcast,
    EventBatch,
    ISubscriber,
    unsent_share,
)
from usbgate.net.places import NoPlace, Places
from usbgate.net.sendqueue import STUCK_AFTER, SendQueue
from usbgate.web.replay import MissedEvents, ReplayBuffer
from usbgate.web.schema import ApiDroppedEvent
from usbgate.web.serialize import event_json

UNSENT_LIMIT = 64 * 1024  # bytes; with fewer unsent, a client that lost events gets `dropped`, and events again

# Bytes; beyond, or beyond its share of what may wait for all, a client loses events, as in the line protocol.
STREAM_LIMIT = 1024 * 1024

# Characters: some 4,000 events. A client that reconnects gets them at once, and must not lose them again; it gets only
# their number while so much is unsent to all clients that they might fill the memory.
REPLAY_LIMIT = STREAM_LIMIT // 2

# Seconds for which events are kept when the last client has disconnected; later, none need be made.
LINGER = 300.0

HEARTBEAT = 15.0  # seconds; proxies close a connection that is silent for 60

_RETRY = 2000  # ms after which a browser reconnects


class EventStreams:
    """
    The clients of events.
    """

    def __init__(
        self,
        reactor: IReactorTime,
        gateway: IGateway,
        max_streams: int,
        max_of_address: int | None = None,
        run: str | None = None,
    ) -> None:
        """
        Args:
            reactor: For later turns, heartbeats and time limits.
            gateway: Publishes the events.
            max_streams: The most clients at a time.
            max_of_address: The most of one address; see `Places`.
            run: See `ReplayBuffer`.
        """
        self._reactor = reactor
        self._gateway = gateway
        self._replay = ReplayBuffer(REPLAY_LIMIT, run)
        self._broadcast = Broadcast(reactor, self._subscribe)
        self._streams: Places[EventStream] = Places(max_streams, max_of_address)
        self._publish: Callable[[str | None, str], None] | None = None
        self._unsubscribe: Callable[[], None] | None = None
        self._linger: IDelayedCall | None = None
        self._heartbeat: IDelayedCall | None = None
        self._stopped = False

    def __len__(self) -> int:
        return len(self._streams)

    def admit(self, host: str) -> None:
        """
        Check that another client may connect.

        Args:
            host: Its address.

        Raises:
            LimitExceeded: There are too many.
        """
        refusal = self._streams.refusal(host)
        if refusal is NoPlace.OF_ADDRESS:
            raise LimitExceeded(f"more than {self._streams.most_of_address} streams of events of one address")
        if refusal is NoPlace.IN_ALL:
            raise LimitExceeded(f"more than {self._streams.most} streams of events")

    def open(
        self, transport: Any, head: bytes, host: str, client: str, sensors: Set[str], last_id: str | None
    ) -> Deferred[None]:
        """
        Send a client the events that it missed, and all events from now on.

        Args:
            transport: Its connection.
            head: What to send first.
            host: Its address.
            client: Its address and port, for the log.
            sensors: Readings and alarms of these sensors only, and all other events; of all, if empty.
            last_id: The id of the last event that it has seen; None for none.

        Returns:
            Never fires. Cancel it when the connection is lost.
        """
        stream = EventStream(self._reactor, transport, head, client, self._unsent_limit)
        # Subscribe first, so that events are numbered from now on.
        self._broadcast.add(stream, sensors)
        self._streams.take(stream, host)
        if self._heartbeat is None:
            self._heartbeat = self._reactor.callLater(HEARTBEAT, self._beat)
        missed = self._replay.missed(last_id or "", sensors)
        if missed.frames and sum(each.unsent for each in self._streams) > UNSENT_IN_ALL:
            lost = None if missed.lost is None else missed.lost + len(missed.frames)
            missed = MissedEvents(False, lost)
        dropped = [] if missed.complete else [_dropped(missed.lost)]
        # The id at the end is for a client that disconnects before the first event.
        begin = [f": usbgate\nretry: {_RETRY}\n\n", *dropped, *missed.frames, f"id: {self._replay.newest_id}\n\n"]
        stream.send("".join(begin).encode())
        return Deferred(lambda cancelled: self._close(stream))

    def stop(self) -> None:
        """
        Close all streams, and unsubscribe.
        """
        self._stopped = True
        for stream in list(self._streams):
            self._broadcast.remove(stream)  # which delivers what waits for it
            stream.leave()
        if self._linger is not None:
            self._linger.cancel()
            self._end_linger()

    def _unsent_limit(self) -> int:
        return min(STREAM_LIMIT, unsent_share(len(self._streams)))

    def _close(self, stream: EventStream) -> None:
        stream.close()
        self._broadcast.remove(stream)
        self._streams.leave(stream)
        if not self._streams and self._heartbeat is not None:
            self._heartbeat.cancel()
            self._heartbeat = None

    def _beat(self) -> None:
        self._heartbeat = self._reactor.callLater(HEARTBEAT, self._beat)
        for stream in list(self._streams):
            stream.send(b":\n\n")

    # The subscription to the gateway, which outlasts the last client by `LINGER`.

    def _subscribe(self, publish: Callable[[str | None, str], None]) -> Callable[[], None]:
        self._publish = publish
        if self._linger is not None:
            self._linger.cancel()
            self._linger = None
        if self._unsubscribe is None:
            self._unsubscribe = self._gateway.subscribe(self._deliver)
        return self._last_client_left

    def _last_client_left(self) -> None:
        self._publish = None
        if self._stopped:
            self._end_linger()
        else:
            self._linger = self._reactor.callLater(LINGER, self._end_linger)

    def _end_linger(self) -> None:
        self._linger = None
        if self._unsubscribe is not None:
            self._unsubscribe()
            self._unsubscribe = None
        self._replay.restart()  # a client that reconnects later has missed an unknown number of events

    def _deliver(self, event: Event) -> None:
        sensor = _sensor(event)
        frame = self._replay.add(sensor, _frame(*event_json(event, self._gateway.queries.sensor_settings())))
        if self._publish is not None:
            self._publish(sensor, frame)


def _sensor(event: Event) -> str | None:
    match event:
        case ReportEvent():
            return event.sensor
        case AlarmEvent():
            return event.alarm.sensor
        case _:
            return None


def _frame(name: str, data: msgspec.Struct) -> str:
    # One line: JSON has no line end within a text.
    return f"event: {name}\ndata: {msgspec.json.encode(data).decode()}\n\n"


def _dropped(count: int | None) -> str:
    return _frame("dropped", ApiDroppedEvent(count=count))


@implementer(ISubscriber)
class EventStream:
    """
    One client.
    """

    log = Logger()

    def __init__(
        self, reactor: IReactorTime, transport: Any, head: bytes, client: str, limit: Callable[[], int]
    ) -> None:
        """
        Args:
            reactor: For the time limit.
            transport: The client's connection, which has no producer.
            head: What to send first.
            client: The client's address, for the log.
            limit: Returns beyond how many unsent bytes events are lost.
        """
        self._limit = limit
        self._transport = transport
        self._client = client
        self._dropped = 0  # events lost since it stopped reading
        self._queue = SendQueue(reactor, transport, self._taken, self._stuck)
        self._queue.write_behind(head)

    def deliver(self, batch: EventBatch) -> None:
        """
        Send events, or count them as lost while too much is unsent.
        """
        if self._dropped or self._queue.unsent > self._limit():
            self._dropped += len(batch)
        else:
            self.send(batch.encode(b""))

    @property
    def unsent(self) -> int:
        """
        Bytes that the client has not read yet.
        """
        return self._queue.unsent

    def send(self, data: bytes) -> None:
        """
        Send data in any case.
        """
        self._queue.write(data)

    def leave(self) -> None:
        """
        Close the connection when all is sent.
        """
        self._queue.flush()
        self._transport.loseConnection()

    def close(self) -> None:
        """
        The connection is lost: discard what is unsent.
        """
        self._queue.close()

    def _taken(self) -> None:
        if self._dropped and self._queue.unsent <= UNSENT_LIMIT:
            dropped, self._dropped = self._dropped, 0
            self._queue.write(_dropped(dropped).encode())

    def _stuck(self) -> None:
        self.log.info(
            "disconnected {client}, which accepted nothing for {seconds:.0f} s; {unsent} bytes were unsent",
            client=self._client,
            unsent=self._queue.unsent,
            seconds=STUCK_AFTER,
        )
        self._queue.close()
        self._transport.abortConnection()
