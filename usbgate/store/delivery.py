"""
Delivery from the journal to one sink, in order (protocol §5).

One batch is in flight at a time. Rows whose data the store refuses are set aside; after any other failure, rows stay
in the journal until the store accepts them.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from random import random
from typing import Literal

from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred, DeferredList
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger

from usbgate.core.batch import Batch
from usbgate.core.loglimit import LogLimit
from usbgate.core.status import StoreStatus
from usbgate.store.interfaces import IOutbox, ISink, Refusal, SinkUnavailable
from usbgate.store.restoration import Restoration

BACK_OFF_FIRST, BACK_OFF_MOST = 0.5, 30.0  # seconds
STOP_PATIENCE = 1.5  # seconds a statement in flight may take to finish on stop


class Delivery(Service):
    """
    Service that stores the journal's backlog.

    Attributes:
        state: Whether the store accepts rows; `connecting` until known.
        trouble: The reason while `away`, otherwise None.
        state_changed: Callback, to be set; called when `state` changes.
        restoration: Restores state from the store.
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
            restore: Restores state from the store (see `Restoration`).
            jitter: Returns a number from 0 to 1, so that many gateways do not reconnect at once.
        """
        self.state: Literal["connecting", "connected", "away"] = "connecting"
        self.state_changed: Callable[[], None] = lambda: None
        self.trouble: str | None = None
        self._clock = clock
        self._outbox = outbox
        self._sink = sink
        self.restoration = Restoration(clock, restore)
        self._jitter = jitter
        self._delivering: Deferred[None] | None = None
        self._storing = False
        self._awaited: Deferred[Batch] | None = None  # the next batch, if the journal has none
        self._lost: str | None = None  # why the sink was lost while waiting for it
        self._back_off = BACK_OFF_FIRST
        self._pause: Deferred[None] | None = None  # before the next attempt
        self._away_since: float | None = None
        self._failure_logged = False  # whether an unexpected exception was logged since the store last worked
        self._batch: Batch | None = None  # in flight, or to be sent again
        self._refused = LogLimit()  # of rows

    def startService(self) -> None:
        """
        Start connecting.
        """
        Service.startService(self)
        self._sink.lost = self._sink_lost
        self.restoration.backlog = self._outbox.backlog
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
        # Close before cancelling: cancelling a call to a server that hangs may hang as well.
        self.restoration.stopping = True
        await self._sink.close()
        self._delivering.cancel()
        await self._delivering
        await self.restoration.stop()

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
            # The column after the number is the time, in every kind of row.
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
                self.restoration.begin()
                if self.restoration.backlog and not self._outbox.backlog:  # the sink had all of it
                    self.restoration.stored(0, last=True)
                await self._store_all()
            except SinkUnavailable as error:
                self._unavailable(str(error))
            except Exception as error:
                if self.running or not isinstance(error, CancelledError):
                    self._unavailable(f"unexpected {type(error).__name__}: {error}")
                    if not self._failure_logged:
                        self._failure_logged = True
                        self.log.failure("unexpected error while storing; retrying")
            if self.running:
                wait, self._back_off = self._back_off, min(self._back_off * 2, BACK_OFF_MOST)
                self._pause = deferLater(self._clock, wait * (1 - self._jitter() / 4))
                try:
                    await self._pause
                except CancelledError:
                    pass  # by `try_now`, or to stop
                finally:
                    self._pause = None

    async def _store_all(self) -> None:
        while self.running:
            self._batch = await self._oldest()
            await self._store(self._batch)
            batch, self._batch = self._batch, None
            self._outbox.confirm(batch)
            if self.restoration.backlog:
                self.restoration.stored(batch.rows, last=not self._outbox.backlog)

    async def _oldest(self) -> Batch:
        self._lost = None
        self._awaited = self._outbox.oldest()
        if not self._awaited.called:
            self._batch = None
            if self.state != "connected":
                self._available()
        try:
            return await self._awaited
        except CancelledError:
            if self._lost is None:
                raise
            raise SinkUnavailable(self._lost) from None
        finally:
            self._awaited = None

    def _sink_lost(self, reason: str) -> None:
        # During a call to the sink, that call fails instead.
        if self._awaited is not None:
            self._lost = reason
            self._awaited.cancel()

    async def _store(self, batch: Batch) -> None:
        self._storing = True
        try:
            await self._sink.store(batch, self._reject)
        finally:
            self._storing = False
        self._available()

    def _reject(self, rows: Sequence[Refusal]) -> Deferred[None]:
        return self._outbox.reject(rows).addCallback(self._rejected, rows)

    def _rejected(self, _: None, rows: Sequence[Refusal]) -> None:
        count = self._refused.add(self._clock.seconds(), len(rows))
        if count:
            self.log.warn(
                "the store refused {count} rows, which were set aside; the last, number {n}: {reason}",
                count=count,
                n=rows[-1].row.first,
                reason=rows[-1].reason,
            )

    def _available(self) -> None:
        """
        Record that the store works: it accepted or refused rows, or was connected while there were none.
        """
        if self.state == "connected":
            return
        if self._away_since is None:
            self.log.info("the store is connected; {backlog} rows are waiting", backlog=self._outbox.backlog)
        else:
            self.log.info(
                "the store is back after {away:.1f} s; {backlog} rows are waiting",
                away=self._clock.seconds() - self._away_since,
                backlog=self._outbox.backlog,
            )
        self.trouble = None
        self._enter("connected")
        self._away_since = None
        self._failure_logged = False
        self._back_off = BACK_OFF_FIRST

    def _unavailable(self, reason: str) -> None:
        if not self.running:  # the sink was closed to stop
            return
        if self._away_since is None:
            self._away_since = self._clock.seconds()
            self.log.warn(
                "the store is unavailable: {reason}; rows are kept in the journal, {backlog} so far",
                reason=reason,
                backlog=self._outbox.backlog,
            )
        self.trouble = reason
        self._enter("away")

    def _enter(self, state: Literal["connected", "away"]) -> None:
        if state != self.state:
            self.state = state
            self.state_changed()
