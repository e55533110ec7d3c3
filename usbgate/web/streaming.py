"""
Responses that are sent no faster than their clients read them.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from twisted.internet.defer import Deferred, DeferredSemaphore, succeed
from twisted.internet.interfaces import IDelayedCall, IPushProducer, IReactorTime
from zope.interface import implementer

from usbgate.core.errors import LimitExceeded
from usbgate.net.slices import Slices
from usbgate.web.problems import respond, start_response

PIECE = 32 * 1024  # bytes, which take a millisecond or two to make

# Bytes that wait for their clients, in all: of responses beyond a piece that are complete, and of the pieces of others.
HELD_IN_ALL = 64 * 1024 * 1024

# Responses that are made at a time, of all clients, whose rows must be in memory together: at most 10,000 rows of each.
MADE_AT_ONCE = 2

# Seconds in which a client must read all that the transport holds: 64 KiB, or a piece of ours. The kernel, which may
# hold 4 MiB for a slow client, accepts more only when the client has read a third of that.
PATIENCE = 300.0


@dataclass(slots=True)
class Held:
    """
    What waits for clients that read slowly.

    Attributes:
        size: Its bytes.
    """

    size: int = 0

    def check(self, size: int = 0) -> None:
        """
        Check that so many bytes more may wait.

        Raises:
            LimitExceeded: They would be too many.
        """
        if self.size + size > HELD_IN_ALL:
            raise LimitExceeded("too many clients have not read their responses")


@implementer(IPushProducer)
class StreamedResponse:
    """
    Writes the body of a response, and waits while the client is slow.
    """

    def __init__(self, reactor: IReactorTime, request: Any, held: Held) -> None:
        """
        Become the request's producer, until `close`.

        Args:
            reactor: For the time limit.
            request: A `twisted.web` request.
            held: Counts what waits for all clients.
        """
        self._reactor = reactor
        self._request = request
        self._held = held
        self._size = 0  # of what waits for this one
        self._paused = False
        self._waiting: Deferred[None] | None = None
        self._limit: IDelayedCall | None = None
        request.registerProducer(self, True)

    def write(self, data: bytes) -> Deferred[None]:
        """
        Send data.

        Returns:
            Fires when there is room for more. A client that makes no room for `PATIENCE` seconds is disconnected, and
            one that makes none at once if too much waits for others already.
        """
        self._request.write(data)
        if not self._paused:
            return succeed(None)
        if self._held.size + len(data) > HELD_IN_ALL:
            self._request.channel.transport.abortConnection()
            return Deferred()  # its coroutine is cancelled when the connection is lost
        self._size = len(data)
        self._held.size += self._size
        self._limit = self._reactor.callLater(PATIENCE, self._request.channel.transport.abortConnection)
        self._waiting = Deferred(lambda cancelled: self._stop_waiting())
        return self._waiting

    def close(self) -> None:
        """
        Stop being the request's producer.
        """
        if self._request.channel is not None:
            self._request.unregisterProducer()
        else:  # the connection is lost, and Twisted has not done it
            self._request.producer = None

    def pauseProducing(self) -> None:
        """
        The transport's buffer is full.
        """
        self._paused = True

    def resumeProducing(self) -> None:
        """
        The transport's buffer is empty.
        """
        self._paused = False
        waiting = self._waiting
        self._stop_waiting()
        if waiting is not None:
            waiting.callback(None)

    def stopProducing(self) -> None:
        """
        The connection is lost; the request reports that to the writer.
        """

    def _stop_waiting(self) -> None:
        self._waiting = None
        self._held.size -= self._size
        self._size = 0
        if self._limit is not None:
            self._limit.cancel()
            self._limit = None


_T = TypeVar("_T")


class Responses:
    """
    Sends long responses, and bounds what they take, of memory and of each reactor turn.
    """

    def __init__(self, reactor: IReactorTime) -> None:
        """
        Args:
            reactor: For time limits and later turns.
        """
        self._reactor = reactor
        self._slices = Slices(reactor)
        self._held = Held()
        self._made = DeferredSemaphore(MADE_AT_ONCE)

    def make(self, work: Callable[[], Coroutine[Deferred[Any], Any, _T]]) -> Deferred[_T]:
        """
        Fetch and make a whole response when fewer than `MADE_AT_ONCE` others are being made.

        Args:
            work: Does it.
        """
        made: Deferred[_T] = self._made.run(lambda: Deferred.fromCoroutine(work()))
        return made

    async def collect(self, items: Iterable[_T], at_once: int) -> list[_T]:
        """
        Make all items, so many in each reactor turn.
        """
        made: list[_T] = []
        for item in items:
            made.append(item)
            if len(made) % at_once == 0:
                await self._slices.next()
        return made

    async def send(
        self, request: Any, status: int, content_type: str, body: bytes, headers: Mapping[str, str] | None = None
    ) -> None:
        """
        Send a whole response, as `respond` does.

        Raises:
            LimitExceeded: Too much waits for other clients.
        """
        if len(body) <= PIECE or request.method == b"HEAD":
            respond(request, status, content_type, body, headers)
            return
        self._held.check(len(body))
        start_response(request, status, content_type, len(body), headers or {})
        self._held.size += len(body)
        response = StreamedResponse(self._reactor, request, Held())  # whose pieces are counted already
        try:
            for start in range(0, len(body), PIECE):
                await response.write(body[start : start + PIECE])
        finally:
            response.close()
            self._held.size -= len(body)
        request.finish()

    async def stream(
        self, request: Any, content_type: str, pieces: Iterable[bytes], headers: Mapping[str, str]
    ) -> None:
        """
        Send a response while it is made, which takes as much time of each reactor turn as there is.

        Args:
            request: The request.
            content_type: The type of the body.
            pieces: Parts of the body; small ones are sent together.
            headers: More headers.

        Raises:
            LimitExceeded: Too much waits for other clients.
        """
        await self.stream_fetched(request, content_type, self._in_slices(pieces), headers)

    async def _in_slices(self, pieces: Iterable[bytes]) -> AsyncIterator[bytes]:
        waiting: list[bytes] = []
        size = 0
        for piece in pieces:
            waiting.append(piece)
            size += len(piece)
            if size >= PIECE:
                joined, waiting, size = b"".join(waiting), [], 0
                yield joined
                await self._slices.next()
        if waiting:
            yield b"".join(waiting)

    async def stream_fetched(
        self, request: Any, content_type: str, pieces: AsyncIterator[bytes], headers: Mapping[str, str]
    ) -> None:
        """
        Send a response while it is fetched (see `stream`): a piece, which may be a large one, when the client has read
        most of the one before.
        """
        self._held.check()
        for name, value in {"Content-Type": content_type, **headers}.items():
            request.setHeader(name, value)
        if request.method != b"HEAD":
            response = StreamedResponse(self._reactor, request, self._held)
            try:
                async for piece in pieces:
                    room = response.write(piece)
                    del piece  # the transport has it
                    await room
            finally:
                response.close()
        request.finish()
