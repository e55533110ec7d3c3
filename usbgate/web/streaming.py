"""
A response that is made while it is sent, no faster than its client reads it.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall, IPushProducer, IReactorTime
from zope.interface import implementer

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
