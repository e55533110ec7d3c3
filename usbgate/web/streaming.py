"""
Responses that are sent no faster than their clients read them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall, IPushProducer, IReactorTime
from zope.interface import implementer

from usbgate.core.errors import LimitExceeded
from usbgate.net.slices import Slices
from usbgate.web.problems import respond, start_response

PIECE = 32 * 1024  # bytes, which take a millisecond or two to make

# Bytes of responses beyond a piece that are complete and wait for their clients, in all.
HELD_IN_ALL = 64 * 1024 * 1024

# Seconds in which a client must read all that the transport holds: 64 KiB, or a piece of ours. The kernel, which may
# hold 4 MiB for a slow client, accepts more only when the client has read a third of that.
PATIENCE = 300.0


@implementer(IPushProducer)
class StreamedResponse:
    """
    Writes the body of a response, and waits while the client is slow.
    """

    def __init__(self, reactor: IReactorTime, request: Any) -> None:
        """
        Become the request's producer, until `close`.

        Args:
            reactor: For the time limit.
            request: A `twisted.web` request.
        """
        self._reactor = reactor
        self._request = request
        self._paused = False
        self._waiting: Deferred[None] | None = None
        self._limit: IDelayedCall | None = None
        request.registerProducer(self, True)

    def write(self, data: bytes) -> Deferred[None]:
        """
        Send data.

        Returns:
            Fires when there is room for more. A client that makes no room for `PATIENCE` seconds is disconnected.
        """
        self._request.write(data)
        if not self._paused:
            return succeed(None)
        self._limit = self._reactor.callLater(PATIENCE, self._request.channel.transport.abortConnection)
        self._waiting = Deferred(lambda cancelled: self._stop_waiting())
        return self._waiting

    def close(self) -> None:
        """
        Stop being the request's producer.
        """
        self._request.unregisterProducer()

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
        self._held = 0  # bytes of what waits for clients

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
        if self._held + len(body) > HELD_IN_ALL:
            raise LimitExceeded("too many clients have not read their responses")
        start_response(request, status, content_type, len(body), headers or {})
        self._held += len(body)
        response = StreamedResponse(self._reactor, request)
        try:
            for start in range(0, len(body), PIECE):
                await response.write(body[start : start + PIECE])
        finally:
            response.close()
            self._held -= len(body)
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
        """
        for name, value in {"Content-Type": content_type, **headers}.items():
            request.setHeader(name, value)
        if request.method != b"HEAD":
            response = StreamedResponse(self._reactor, request)
            try:
                waiting, size = [], 0
                for piece in pieces:
                    waiting.append(piece)
                    size += len(piece)
                    if size >= PIECE:
                        await response.write(b"".join(waiting))
                        waiting, size = [], 0
                        await self._slices.next()
                if waiting:
                    await response.write(b"".join(waiting))
            finally:
                response.close()
        request.finish()
