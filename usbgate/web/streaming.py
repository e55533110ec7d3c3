"""
An answer that is made while it is sent, no faster than its client takes it.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall, IPushProducer, IReactorTime
from zope.interface import implementer

# Seconds in which a client must take all that the transport holds, 64 KiB or a piece of ours; the kernel, which may
# hold 4 MiB for a slow one, takes more only when a third of it is gone.
PATIENCE = 300.0


@implementer(IPushProducer)
class StreamedResponse:
    """
    Writes to a request, and waits where its client is slow.
    """

    def __init__(self, reactor: IReactorTime, request: Any) -> None:
        """
        Begin to be the request's producer, until `close`.

        Args:
            reactor: For the time limit.
            request: A `twisted.web` request.
        """
        self._reactor = reactor
        self._request = request
        self._paused = False
        self._room: Deferred[None] | None = None
        self._limit: IDelayedCall | None = None
        request.registerProducer(self, True)

    def write(self, data: bytes) -> Deferred[None]:
        """
        Send data.

        Returns:
            Fires when there is room for more.
        """
        self._request.write(data)
        if not self._paused:
            return succeed(None)
        self._limit = self._reactor.callLater(PATIENCE, self._request.channel.transport.abortConnection)
        self._room = Deferred(lambda cancelled: self._stop_waiting())
        return self._room

    def close(self) -> None:
        """
        Send no more.
        """
        self._request.unregisterProducer()

    def pauseProducing(self) -> None:
        """
        The transport holds much.
        """
        self._paused = True

    def resumeProducing(self) -> None:
        """
        The transport holds nothing.
        """
        self._paused = False
        room = self._room
        self._stop_waiting()
        if room is not None:
            room.callback(None)

    def stopProducing(self) -> None:
        """
        The connection is lost; whoever writes is told by the request.
        """

    def _stop_waiting(self) -> None:
        self._room = None
        if self._limit is not None:
            self._limit.cancel()
            self._limit = None
