"""
Restores state from the store: on the first connection, and once more when the backlog of earlier runs is stored.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger

from usbgate.store.interfaces import SinkUnavailable

RETRY_INTERVAL = 60.0  # seconds between attempts; readings received meanwhile are newer anyway


class Restoration:
    """
    Runs concurrently with storing: a store may accept rows but have no connection left for reading.

    Attributes:
        backlog: Rows of earlier runs not yet stored; to be set before `begin`.
        complete: Whether everything is restored.
        stopping: To be set before the store is closed: then it is no failure that it is unavailable.
    """

    log = Logger()

    def __init__(self, clock: IReactorTime, restore: Callable[[], Awaitable[None]]) -> None:
        """
        Create a restoration; nothing is read before `begin`.

        Args:
            clock: For the retries.
            restore: Restores state from the store; retried while it fails with `SinkUnavailable`.
        """
        self.backlog = 0
        self.complete = False
        self.stopping = False
        self._clock = clock
        self._restore = restore
        self._caught_up: Deferred[None] = Deferred()  # fires when the backlog is stored, if there was one
        self._running: Deferred[None] | None = None

    def begin(self) -> None:
        """
        Start, unless it was started before.
        """
        if self._running is None:
            self._running = Deferred.fromCoroutine(self._run(self.backlog > 0))

    def stored(self, rows: int, last: bool) -> None:
        """
        Subtract rows that are stored from the backlog, if there is one left.

        Args:
            rows: Number of rows.
            last: Whether the journal is empty now: rows that it dropped are never stored.
        """
        if self.backlog > 0:
            self.backlog = 0 if last else max(0, self.backlog - rows)
            if not self.backlog:
                self._caught_up.callback(None)

    async def stop(self) -> None:
        """
        Cancel it.
        """
        if self._running is not None:
            self._running.cancel()
            await self._running

    async def _run(self, again: bool) -> None:
        try:
            await self._until_restored()
            if again:  # rows of an earlier run are newer than what was just restored
                await self._caught_up
                await self._until_restored()
            self.complete = True
        except CancelledError:
            pass
        except Exception:
            self.log.failure("unexpected error while restoring readings")

    async def _until_restored(self) -> None:
        logged = False
        while True:
            try:
                await self._restore()
                return
            except SinkUnavailable as error:
                if not logged and not self.stopping:
                    logged = True
                    self.log.warn("cannot restore the newest readings: {reason}; retrying", reason=str(error))
            await deferLater(self._clock, RETRY_INTERVAL)
