"""
Long responses: sent as they are read, and bounded in all.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IPushProducer
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from usbgate.core.errors import LimitExceeded
from usbgate.web.streaming import HELD_IN_ALL, MADE_AT_ONCE, PIECE, Responses


class SlowRequest:
    """
    A request whose client reads only when the test says so.
    """

    method = b"GET"

    def __init__(self) -> None:
        self.written = 0
        self.finished = False
        self.aborted = False
        self.headers: dict[str, str] = {}
        self.producer: Any = None

    def setHeader(self, name: str, value: str) -> None:
        """
        Keep a header.
        """
        self.headers[name] = value

    def setResponseCode(self, code: int, message: bytes) -> None:
        """
        Ignore the status.
        """

    def registerProducer(self, producer: IPushProducer, streaming: bool) -> None:
        """
        Keep the producer.
        """
        self.producer = producer

    def unregisterProducer(self) -> None:
        """
        Forget it.
        """
        self.producer = None

    def write(self, data: bytes) -> None:
        """
        Count the data; take no more until `read`.
        """
        self.written += len(data)
        if self.producer is not None:
            self.producer.pauseProducing()

    def read(self) -> None:
        """
        Read all that was written.
        """
        self.producer.resumeProducing()

    def finish(self) -> None:
        """
        The response is complete.
        """
        self.finished = True

    @property
    def channel(self) -> Any:
        """
        The connection, whose transport is this object, too.
        """
        return self

    @property
    def transport(self) -> Any:
        """
        See `channel`.
        """
        return self

    def abortConnection(self) -> None:
        """
        The client is disconnected.
        """
        self.aborted = True


class ResponsesTests(SynchronousTestCase):
    """
    `Responses`.
    """

    def setUp(self) -> None:
        """
        Nothing is sent yet.
        """
        self.clock = Clock()
        self.responses = Responses(self.clock)
        self.request = SlowRequest()

    def send(self, size: int, request: SlowRequest | None = None) -> Deferred[None]:
        """
        Send a whole response.
        """
        return Deferred.fromCoroutine(self.responses.send(request or self.request, 200, "text/plain", b"x" * size))

    def test_made_as_it_is_read(self) -> None:
        """
        A stream is made piece by piece, as its client reads.
        """
        made: list[int] = []

        def pieces() -> Iterator[bytes]:
            for n in range(40):
                made.append(n)
                yield b"x" * (PIECE // 4)

        sent = Deferred.fromCoroutine(self.responses.stream(self.request, "text/plain", pieces(), {}))
        for n in range(1, 11):
            self.clock.advance(0)
            self.assertEqual((len(made), self.request.written), (4 * n, PIECE * n))
            self.assertFalse(self.request.finished)
            self.request.read()
        self.clock.advance(0)
        self.successResultOf(sent)
        self.assertTrue(self.request.finished)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_large_pieces(self) -> None:
        """
        Pieces that wait for their clients are counted, too: who does not read the next one is disconnected, and nothing
        else begins, until others have read theirs.
        """

        async def pieces() -> AsyncIterator[bytes]:
            for _ in range(3):
                yield b"x" * (HELD_IN_ALL // 8)

        def stream(request: SlowRequest) -> Deferred[None]:
            return Deferred.fromCoroutine(self.responses.stream_fetched(request, "text/plain", pieces(), {}))

        slow = [SlowRequest() for _ in range(9)]
        streaming = [*map(stream, slow)]
        self.assertEqual([request.aborted for request in slow], [False] * 8 + [True])
        streaming[8].cancel()  # as the request does when the connection is lost
        self.failureResultOf(streaming[8], CancelledError)
        self.failureResultOf(self.send(PIECE + 1), LimitExceeded)
        streaming[0].cancel()
        self.failureResultOf(streaming[0], CancelledError)
        for _ in range(3):
            slow[1].read()
        self.successResultOf(streaming[1])
        stream(self.request)
        self.assertFalse(self.request.aborted)
        self.assertEqual(len(self.clock.getDelayedCalls()), 7)

    def test_made_at_once(self) -> None:
        """
        Of responses that are made whole, few are made at a time; who disconnects gives up its place.
        """
        begun: list[Deferred[bytes]] = []

        async def work() -> bytes:
            begun.append(Deferred())
            return await begun[-1]

        made = [self.responses.make(work) for _ in range(MADE_AT_ONCE + 3)]
        self.assertEqual(len(begun), MADE_AT_ONCE)
        made[-1].cancel()
        self.failureResultOf(made[-1], CancelledError)
        made[0].cancel()
        self.failureResultOf(made[0], CancelledError)
        begun[1].callback(b"x")
        self.assertEqual(self.successResultOf(made[1]), b"x")
        self.assertEqual(len(begun), MADE_AT_ONCE + 2)
        self.assertNoResult(made[2])

    def test_held(self) -> None:
        """
        Whole responses wait for their clients up to so much in all. Beyond that they fail, unless they are small.
        """
        slow = [SlowRequest() for _ in range(8)]
        sending = [self.send(HELD_IN_ALL // 8, request) for request in slow]
        self.assertEqual([request.written for request in slow], [PIECE] * 8)
        self.failureResultOf(self.send(PIECE + 1), LimitExceeded)
        self.assertEqual(self.request.written, 0)
        self.successResultOf(self.send(PIECE))
        sending[3].cancel()
        self.failureResultOf(sending[3], CancelledError)
        again = SlowRequest()
        self.assertNoResult(self.send(PIECE + 1, again))
        again.read()
        again.read()
        self.assertTrue(again.finished)
        self.assertEqual(again.headers["Content-Length"], str(PIECE + 1))
