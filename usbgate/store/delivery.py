"""
Delivery from the journal to one sink, in order (protocol §5).

One statement is in flight at a time. Rows whose data the store refuses are rejected one by one; on any other
failure the rows stay in the journal until the store accepts them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from random import random
from typing import Literal

from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred, DeferredList
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger

from usbgate.core.batch import Batch, halve
from usbgate.core.status import StoreStatus
from usbgate.store.interfaces import IOutbox, ISink, RowsRefused, SinkUnavailable

BACK_OFF_FIRST, BACK_OFF_MOST = 0.5, 30.0  # seconds
STOP_PATIENCE = 1.5  # seconds a statement in flight may take to finish on stop
REFUSED_INTERVAL = 60.0  # seconds between log lines about refused rows
RECALL_INTERVAL = 60.0  # seconds between attempts to restore; readings received meanwhile are newer anyway


class Delivery(Service):
    """
    Service that stores the journal's backlog.

    Attributes:
        state: Whether the store accepts rows; `connecting` until known.
        trouble: The reason while `away`, otherwise None.
        state_changed: Callback, to be set; called when `state` changes.
    """

    log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        outbox: IOutbox,
        sink: ISink,
        restore: Callable[[], Awaitable[None]],
        jitter: Callable[[], float] = random,
    ) -> None:
        """
        Connect a journal to a sink; nothing happens before `startService`.

        Args:
            clock: For the back-off.
            outbox: The journal.
            sink: Where its rows go.
            restore: Restores state from the store; called concurrently with storing on the first connection, again
                when the backlog found at the start is stored, and each minute while it fails with
                `SinkUnavailable`.
            jitter: Returns a number from 0 to 1, so that many gateways do not reconnect at once.
        """
        self.state: Literal["connecting", "connected", "away"] = "connecting"
        self.state_changed: Callable[[], None] = lambda: None
        self.trouble: str | None = None
        self._clock = clock
        self._outbox = outbox
        self._sink = sink
        self._recall = restore
        self._jitter = jitter
        self._delivering: Deferred[None] | None = None
        self._recalling: Deferred[None] | None = None
        self._inherited = 0  # rows of the initial backlog not stored yet
        self._caught_up: Deferred[None] = Deferred()  # fires when the initial backlog is stored, if there was one
        self._storing = False
        self._asked: Deferred[Batch] | None = None  # the outstanding request to the journal
        self._lost: str | None = None  # why the sink was lost while waiting for it
        self._back_off = BACK_OFF_FIRST
        self._pause: Deferred[None] | None = None  # before the next attempt
        self._away_since: float | None = None
        self._surprised = False  # an unexpected exception was logged since the store last worked
        self._batch: Batch | None = None
        self._parts: deque[Batch] = deque()  # what is left of it
        self._refused = 0
        self._refused_told: float | None = None

    def startService(self) -> None:
        """
        Start connecting.
        """
        Service.startService(self)
        self._sink.lost = self._sink_lost
        self._inherited = self._outbox.backlog
        self._delivering = Deferred.fromCoroutine(self._deliver())

    def stopService(self) -> Deferred[None]:
        """
        Wait up to `STOP_PATIENCE` for the statement in flight, then close the sink.

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
        for work in (self._delivering, self._recalling):
            if work is not None:
                work.cancel()
                await work

    def try_now(self) -> None:
        """
        Retry at once instead of waiting for the back-off; call when the store is known to be up.
        """
        if self._pause is not None:
            self._pause.cancel()

    def status(self) -> StoreStatus:
        """
        Return the status.
        """
        oldest: int | None = None
        if self._batch is not None:
            # In each kind of row the time follows the number.
            oldest = min(int(part[1].partition("\n")[0]) for part in self._batch.parts if part)
        return StoreStatus(
            state=self.state,
            backlog=self._outbox.backlog,
            rejected=self._outbox.rejected,
            oldest=oldest,
            trouble=self.trouble,
        )

    async def _deliver(self) -> None:
        while self.running:
            try:
                await self._sink.connect()
                if self._recalling is None:
                    self._recalling = Deferred.fromCoroutine(self._recall_all(again=self._inherited > 0))
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
                self._pause = deferLater(self._clock, wait * (1 - self._jitter() / 4))
                try:
                    await self._pause
                except CancelledError:
                    pass  # to stop, or to try now; anything else does no harm
                finally:
                    self._pause = None

    async def _recall_all(self, again: bool) -> None:
        # Concurrent with storing, which must not wait: a store may accept rows but have no connection left for reading.
        try:
            await self._recall_once()
            if again:  # what an earlier run left in the journal is newer than what was just read
                await self._caught_up
                await self._recall_once()
        except CancelledError:
            pass  # to stop
        except Exception:
            self.log.failure("unexpected, while reading back")

    async def _recall_once(self) -> None:
        said = False
        while True:
            try:
                await self._recall()
                return
            except SinkUnavailable as error:
                if not said and self.running:
                    said = True
                    self.log.warn(
                        "the newest readings can't be read back: {reason}; it will be tried again",
                        reason=str(error),
                    )
            await deferLater(self._clock, RECALL_INTERVAL)

    async def _store_all(self) -> None:
        while self.running:
            if self._batch is None:
                self._batch = await self._oldest()
                self._parts.append(self._batch)
            while self._parts and self.running:
                await self._store(self._parts.popleft())
            if not self._parts:
                # Numbers of parts overlap where a batch holds readings and requests: only the whole is confirmed.
                batch, self._batch = self._batch, None
                self._outbox.confirm(batch)
                self._count_down(batch.rows)

    def _count_down(self, rows: int) -> None:
        if self._inherited > 0:
            self._inherited -= rows
            # Rows that were dropped for want of room are never confirmed.
            if self._inherited <= 0 or not self._outbox.backlog:
                self._inherited = 0
                self._caught_up.callback(None)

    async def _oldest(self) -> Batch:
        self._lost = None
        self._asked = self._outbox.oldest()
        try:
            return await self._asked
        except CancelledError:
            if self._lost is None:
                raise
            raise SinkUnavailable(self._lost) from None
        finally:
            self._asked = None

    def _sink_lost(self, reason: str) -> None:
        # While a call to the sink is under way it is that call which fails.
        if self._asked is not None:
            self._lost = reason
            self._asked.cancel()

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
        if self._away_since is None:
            self.log.info("the store is connected, {backlog} rows wait", backlog=self._outbox.backlog)
        else:
            self.log.info(
                "the store is back after {away:.1f} s, {backlog} rows wait",
                away=self._clock.seconds() - self._away_since,
                backlog=self._outbox.backlog,
            )
        self.trouble = None
        self._enter("connected")
        self._away_since = None
        self._surprised = False
        self._back_off = BACK_OFF_FIRST

    def _fails(self, reason: str) -> None:
        if not self.running:  # we closed it ourselves
            return
        if self._away_since is None:
            self._away_since = self._clock.seconds()
            self.log.warn(
                "the store can't be used: {reason}; rows are kept in the journal, {backlog} so far",
                reason=reason,
                backlog=self._outbox.backlog,
            )
        self.trouble = reason
        self._enter("away")

    def _enter(self, state: Literal["connected", "away"]) -> None:
        if state != self.state:
            self.state = state
            self.state_changed()
