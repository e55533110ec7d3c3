"""
Events over HTTP (server-sent events): numbered, kept for a while so that a client that was cut off can go on, and
bounded for each client as for the watchers of the line protocol.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Iterator
from secrets import token_hex
from typing import Any

import msgspec
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from zope.interface import implementer

from usbgate.core.errors import LimitExceeded
from usbgate.core.model import AlarmEvent, DeviceEvent, Event, ReportEvent
from usbgate.gateway.interfaces import IGateway
from usbgate.net import broadcast
from usbgate.net.sendqueue import STUCK_AFTER, SendQueue
from usbgate.web import schema
from usbgate.web.serialize import alarm_shape, moment, values_shape

UNSENT_LIMIT = 64 * 1024  # bytes; less, and a client that lost events is told and gets them again
STREAM_LIMIT = 1024 * 1024  # bytes; beyond, a client loses events, as a watcher does (protocol §3)

# Bytes of events that are kept, some 4,000: a client that comes back gets them at once, and must not lose them again.
RING_BYTES = STREAM_LIMIT // 2

# Seconds for which events are numbered and kept when the last client is gone; without one none need be made.
LINGER = 300.0

HEARTBEAT = 15.0  # seconds; proxies close what is quiet for 60

_RETRY = 2000  # ms until a browser that was cut off comes back

_ID = re.compile(r"([0-9a-f]{1,32})-([0-9]{1,18})")


class EventStreams:
    """
    All events of a gateway, and who gets them.
    """

    def __init__(self, reactor: IReactorTime, gateway: IGateway, max_streams: int, boot: str | None = None) -> None:
        """
        Begin with nobody.

        Args:
            reactor: For turns, heartbeats and time limits.
            gateway: Where the events come from.
            max_streams: How many clients there may be.
            boot: What tells the numbers of this time of listening from those of another; by default random.
        """
        self._reactor = reactor
        self._gateway = gateway
        self._max_streams = max_streams
        self._boot = boot or token_hex(4)
        self._newest = 0  # the number of the newest event
        self._stopped = False
        self._ring: deque[tuple[int, str | None, str]] = deque()
        self._ring_bytes = 0
        self._watchers = broadcast.Broadcast(reactor, self._listen)
        self._streams: set[EventStream] = set()
        self._tell: Callable[[str | None, str], None] | None = None
        self._unsubscribe: Callable[[], None] | None = None
        self._linger: IDelayedCall | None = None
        self._heartbeat: IDelayedCall | None = None

    def __len__(self) -> int:
        return len(self._streams)

    def admit(self) -> None:
        """
        Look whether there is room for one more.

        Raises:
            LimitExceeded: There is not.
        """
        if len(self._streams) >= self._max_streams:
            raise LimitExceeded(f"more than {self._max_streams} streams of events")

    def open(self, transport: Any, head: bytes, client: str, sensor: str | None, last_id: str | None) -> Deferred[None]:
        """
        Send events to a client from now on, and what it missed before.

        Args:
            transport: Its connection.
            head: What to send first.
            client: Who it is, for the log.
            sensor: Readings of this sensor only; None for all. Other events come in any case.
            last_id: What it had seen, by its own account.

        Returns:
            Never fires. To be cancelled when the connection is lost.
        """
        stream = EventStream(self._reactor, transport, head, client)
        # First, for it numbers what comes from now on.
        self._watchers.add(stream, () if sensor is None else (sensor,))
        self._streams.add(stream)
        if self._heartbeat is None:
            self._heartbeat = self._reactor.callLater(HEARTBEAT, self._beat)
        begin = [f": usbgate\nretry: {_RETRY}\n\n", *self._missed(sensor, last_id)]
        begin.append(f"id: {self._boot}-{self._newest}\n\n")  # so that one who hears nothing can go on, too
        stream.send("".join(begin).encode())
        return Deferred(lambda cancelled: self._close(stream))

    def stop(self) -> None:
        """
        Close all, and listen no more.
        """
        self._stopped = True
        for stream in list(self._streams):
            self._watchers.remove(stream)  # which hands it what there is for it
            stream.leave()
        if self._linger is not None:
            self._linger.cancel()
            self._end_linger()

    def _close(self, stream: EventStream) -> None:
        stream.close()
        self._watchers.remove(stream)
        self._streams.discard(stream)
        if not self._streams and self._heartbeat is not None:
            self._heartbeat.cancel()
            self._heartbeat = None

    def _beat(self) -> None:
        self._heartbeat = self._reactor.callLater(HEARTBEAT, self._beat)
        for stream in list(self._streams):
            stream.send(b":\n\n")

    def _missed(self, sensor: str | None, last_id: str | None) -> Iterator[str]:
        seen = _ID.fullmatch(last_id or "")
        if seen is None:
            return
        number = int(seen[2])
        first = self._ring[0][0] if self._ring else self._newest + 1
        if seen[1] != self._boot or number > self._newest:
            yield _dropped_frame(None)
            return
        if number < first - 1:
            # How many of them were about this sensor nobody knows any more.
            yield _dropped_frame(first - 1 - number if sensor is None else None)
        else:
            first = number + 1
        for each, about, frame in self._ring:
            if each >= first and (sensor is None or about in (None, sensor)):
                yield frame

    # Where the events come from.

    def _listen(self, tell: Callable[[str | None, str], None]) -> Callable[[], None]:
        self._tell = tell
        if self._linger is not None:
            self._linger.cancel()
            self._linger = None
        if self._unsubscribe is None:
            self._unsubscribe = self._gateway.subscribe(self._happened)

        def unlisten() -> None:
            self._tell = None
            if self._stopped:
                self._end_linger()
            else:
                self._linger = self._reactor.callLater(LINGER, self._end_linger)

        return unlisten

    def _end_linger(self) -> None:
        self._linger = None
        if self._unsubscribe is not None:
            self._unsubscribe()
            self._unsubscribe = None
        self._ring.clear()
        self._ring_bytes = 0
        self._boot = token_hex(4)  # who comes back after that has missed something, nobody knows how much

    def _happened(self, event: Event) -> None:
        self._newest += 1
        sensor = event.sensor if isinstance(event, ReportEvent) else None
        frame = f"id: {self._boot}-{self._newest}\n{self._frame(event)}"
        self._ring.append((self._newest, sensor, frame))
        self._ring_bytes += len(frame)
        while self._ring_bytes > RING_BYTES:
            self._ring_bytes -= len(self._ring.popleft()[2])
        if self._tell is not None:
            self._tell(sensor, frame)

    def _frame(self, event: Event) -> str:
        if isinstance(event, ReportEvent):
            return _frame(
                "reading",
                schema.ReportEvent(
                    sensor=event.sensor,
                    device=event.device,
                    command=event.command,
                    at=moment(event.at),
                    values=values_shape(event.values),
                ),
            )
        if isinstance(event, DeviceEvent):
            return _frame(
                "device", schema.DeviceEvent(device=event.device, state=event.state, since=moment(event.since))
            )
        if isinstance(event, AlarmEvent):
            return _frame("alarm", alarm_shape(event.alarm, self._gateway.queries.presentations()))
        return _frame("store", schema.StoreEvent(state=event.state, backlog=event.backlog))


def _frame(name: str, data: msgspec.Struct) -> str:
    # One line: JSON has no line end within a text.
    return f"event: {name}\ndata: {msgspec.json.encode(data).decode()}\n\n"


def _dropped_frame(count: int | None) -> str:
    return _frame("dropped", schema.DroppedEvent(count=count))


@implementer(broadcast.ISubscriber)
class EventStream:
    """
    One client.
    """

    log = Logger()

    def __init__(self, reactor: IReactorTime, transport: Any, head: bytes, client: str) -> None:
        """
        Stand before a transport whose producer is nobody, and send the first data.
        """
        self._transport = transport
        self._client = client
        self._dropped = 0  # events lost since it stopped reading
        self._queue = SendQueue(reactor, transport, self._taken, self._stuck)
        self._queue.write_behind(head)

    def deliver(self, batch: broadcast.EventBatch) -> None:
        """
        Send events, or count them as lost while too much is unsent.
        """
        if self._dropped or self._queue.unsent > STREAM_LIMIT:
            self._dropped += len(batch)
        else:
            self.send(batch.encode(b""))

    def send(self, data: bytes) -> None:
        """
        Send what is no event.
        """
        self._queue.write(data)

    def leave(self) -> None:
        """
        Close the connection when what waits is taken.
        """
        self._queue.flush()
        self._transport.loseConnection()

    def abort(self) -> None:
        """
        Drop the connection with all that waits.
        """
        self._queue.close()
        self._transport.abortConnection()

    def close(self) -> None:
        """
        The connection is over.
        """
        self._queue.close()

    def _taken(self) -> None:
        if self._dropped and self._queue.unsent <= UNSENT_LIMIT:
            dropped, self._dropped = self._dropped, 0
            self._queue.write(_dropped_frame(dropped).encode())

    def _stuck(self) -> None:
        self.log.info(
            "{client} took nothing of {unsent} bytes for {seconds:.0f} s and was dropped",
            client=self._client,
            unsent=self._queue.unsent,
            seconds=STUCK_AFTER,
        )
        self.abort()
