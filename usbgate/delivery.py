"""
The durable way: from the journal to one sink, in order (protocol §5).

One statement is in flight at a time. What the store refuses for what it is gets set aside row by row; for
everything else the rows stay in the journal until the store takes them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from random import random

from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred, DeferredList
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger

from usbgate.batch import Batch, halve
from usbgate.interfaces import IOutbox, ISink, RowsRefused, SinkUnavailable

BACK_OFF_FIRST, BACK_OFF_MOST = 0.5, 30.0  # seconds
STOP_PATIENCE = 2.0  # seconds that a statement in flight may take to end when we are to stop
REFUSED_INTERVAL = 60.0  # seconds between two lines of log about refused rows


class Delivery(Service):
    """
    Stores what waits in the journal for as long as it runs.

    Attributes:
        state: `connecting`, `connected`, or why the store takes nothing now.
    """

    log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        outbox: IOutbox,
        sink: ISink,
        connected: Callable[[], Awaitable[None] | None] = lambda: None,
        jitter: Callable[[], float] = random,
    ) -> None:
        """
        Join a journal and a sink; nothing happens before `startService`.

        Args:
            clock: For backing off.
            outbox: The journal.
            sink: Where its rows go.
            connected: Called each time when the sink was reached (again), before anything is stored.
            jitter: Gives a number from 0 to 1, so that many gateways do not come back as one.
        """
        self.state = "connecting"
        self._clock = clock
        self._outbox = outbox
        self._sink = sink
        self._connected = connected
        self._jitter = jitter
        self._delivering: Deferred[None] | None = None
        self._storing = False
        self._back_off = BACK_OFF_FIRST
        self._lost_at: float | None = None
        self._surprised = False  # an exception that nobody expects was logged since the store last worked
        self._batch: Batch | None = None
        self._parts: deque[Batch] = deque()  # what is left of it
        self._refused = 0
        self._refused_told: float | None = None

    def startService(self) -> None:
        """
        Begin to connect.
        """
        Service.startService(self)
        self._delivering = Deferred.fromCoroutine(self._deliver())

    def stopService(self) -> Deferred[None]:
        """
        Let the statement in flight end, or abandon it after `STOP_PATIENCE`; close the sink.

        Returns:
            Fires when that is done.
        """
        Service.stopService(self)
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        if self._delivering is None:
            return
        if self._storing:
            patience: Deferred[None] = deferLater(self._clock, STOP_PATIENCE)
            await DeferredList([self._delivering, patience], fireOnOneCallback=True, consumeErrors=True)
            patience.cancel()
        # Closed before it is cancelled: to cancel a call to a server that hangs may hang as well.
        await self._sink.close()
        self._delivering.cancel()
        await self._delivering

    async def _deliver(self) -> None:
        while self.running:
            try:
                await self._sink.connect()
                await self._tell_connected()
                if self._batch is None:
                    self._works()
                await self._store_all()
            except SinkUnavailable as error:
                self._fails(str(error))
            except Exception as error:
                if self.running or not isinstance(error, CancelledError):
                    self._fails(f"unexpected {type(error).__name__}: {error}")
                    if not self._surprised:
                        self._surprised = True
                        self.log.failure("unexpected, while storing; it will be tried again")
            if self.running:
                wait, self._back_off = self._back_off, min(self._back_off * 2, BACK_OFF_MOST)
                try:
                    await deferLater(self._clock, wait * (1 - self._jitter() / 4))
                except CancelledError:
                    pass  # to stop; anything else does no harm

    async def _tell_connected(self) -> None:
        try:
            waiting = self._connected()
            if waiting is not None:
                await waiting
        except CancelledError:
            raise
        except SinkUnavailable as error:  # the store itself was reached: what it can't tell now keeps nothing from it
            self.log.warn("the newest readings can't be read back: {reason}", reason=str(error))
        except Exception:  # whatever is wrong there, rows are stored
            self.log.failure("unexpected, on connecting to the store")

    async def _store_all(self) -> None:
        while self.running:
            if self._batch is None:
                self._batch = await self._outbox.oldest()
                self._parts.append(self._batch)
            while self._parts and self.running:
                await self._store(self._parts.popleft())
            if not self._parts:
                # Numbers of parts overlap where a batch holds readings and requests: only the whole is confirmed.
                batch, self._batch = self._batch, None
                self._outbox.confirm(batch)

    async def _store(self, part: Batch) -> None:
        self._storing = True
        try:
            await self._sink.store(part)
        except RowsRefused as error:
            if part.rows > 1:
                self._parts.extendleft(reversed(halve(part)))
            else:
                self._set_aside(part, str(error))
        except BaseException:
            self._parts.appendleft(part)
            raise
        finally:
            self._storing = False
        self._works()

    def _set_aside(self, row: Batch, reason: str) -> None:
        self._outbox.reject(row, reason)
        self._refused += 1
        now = self._clock.seconds()
        if self._refused_told is None or now - self._refused_told >= REFUSED_INTERVAL:
            self.log.warn(
                "the store refused {count} rows, which were set aside; the last, number {n}: {reason}",
                count=self._refused,
                n=row.first,
                reason=reason,
            )
            self._refused, self._refused_told = 0, now

    def _works(self) -> None:
        """
        Take note that the store works: it took or refused rows, or was reached while there were none.
        """
        if self.state == "connected":
            return
        if self._lost_at is None:
            self.log.info("the store is connected, {backlog} rows wait", backlog=self._outbox.backlog)
        else:
            self.log.info(
                "the store is back after {away:.1f} s, {backlog} rows wait",
                away=self._clock.seconds() - self._lost_at,
                backlog=self._outbox.backlog,
            )
        self.state = "connected"
        self._lost_at = None
        self._surprised = False
        self._back_off = BACK_OFF_FIRST

    def _fails(self, reason: str) -> None:
        if not self.running:  # we closed it ourselves
            return
        if self._lost_at is None:
            self._lost_at = self._clock.seconds()
            self.log.warn(
                "the store can't be used: {reason}; rows are kept in the journal, {backlog} until now",
                reason=reason,
                backlog=self._outbox.backlog,
            )
        self.state = reason
