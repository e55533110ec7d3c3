"""
A PostgreSQL session shared by several callers, one at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, NoReturn, TypeVar

import psycopg2
from twisted.internet.base import DelayedCall
from twisted.internet.defer import CancelledError, Deferred, DeferredLock
from twisted.internet.error import ConnectionClosed

from usbgate.store.interfaces import SinkUnavailable
from usbgate.store.postgres.session import DatabaseSession, one_line

T = TypeVar("T")


class SharedSession:
    """
    A session opened on demand, with a queue of calls.
    """

    def __init__(
        self,
        reactor: Any,
        open_session: Callable[[DatabaseSession], Coroutine[Deferred[Any], Any, None]],
        *,
        turn_limit: float | None = None,
        idle_limit: float | None = None,
        lost: Callable[[str], None] = lambda reason: None,
        explain: Callable[[str], str] = str,
    ) -> None:
        """
        Create a closed shared session.

        Args:
            reactor: IReactorTime, IReactorFDSet and IReactorPluggableNameResolver.
            open_session: Opens and prepares a new session.
            turn_limit: Seconds a call waits for its turn; None for no limit.
            idle_limit: Seconds until an idle session is closed; None keeps it.
            lost: Called with the reason when the session ends while idle.
            explain: Returns a message of the database, perhaps with what to do about it.
        """
        self._reactor = reactor
        self._open_session = open_session
        self._turn_limit = turn_limit
        self._idle_limit = idle_limit
        self._lost = lost
        self._explain = explain
        self._session: DatabaseSession | None = None
        self._turn = DeferredLock()
        self._calls: set[Deferred[Any]] = set()
        self._idle: DelayedCall | None = None
        self._closed = False

    @property
    def is_open(self) -> bool:
        """
        Whether there is a session, as far as known without I/O.
        """
        return self._session is not None and self._session.alive

    def call(self, work: Callable[[DatabaseSession], Coroutine[Deferred[Any], Any, T]]) -> Deferred[T]:
        """
        Run `work` with the session; calls are serialized.

        Returns:
            Fires with what `work` returns; fails with `SinkUnavailable` on any database error; the next call then
            opens a new session.
        """
        call = Deferred.fromCoroutine(self._call(work))
        self._calls.add(call)

        def ended(outcome: T) -> T:
            self._calls.discard(call)
            return outcome

        return call.addBoth(ended)

    def close(self) -> None:
        """
        Close the session permanently and fail all pending calls.
        """
        self._closed = True
        for call in list(self._calls):
            call.cancel()
        self._drop()

    async def _call(self, work: Callable[[DatabaseSession], Coroutine[Deferred[Any], Any, T]]) -> T:
        turn: Deferred[Any] = self._turn.acquire()
        if self._turn_limit is not None:
            turn.addTimeout(self._turn_limit, self._reactor, _too_busy)
        try:
            await turn
        except CancelledError:
            raise SinkUnavailable("the connection to the database was closed") from None
        try:
            return await self._use(work)
        except SinkUnavailable:
            self._drop()
            raise
        except CancelledError:
            self._drop()
            raise SinkUnavailable("the connection to the database was closed") from None
        except (psycopg2.Error, ConnectionClosed, OSError) as error:
            self._drop()
            raise SinkUnavailable(self._explain(one_line(error))) from error
        except BaseException:
            self._drop()
            raise
        finally:
            self._release()

    def _release(self) -> None:
        # If others wait, in a later reactor turn: where the database is away, each fails within the release of the one
        # before, and a hundred are more than Python's stack holds.
        if self._turn.waiting:
            self._reactor.callLater(0, self._turn.release)
        else:
            self._turn.release()

    async def _use(self, work: Callable[[DatabaseSession], Coroutine[Deferred[Any], Any, T]]) -> T:
        if self._closed:
            raise SinkUnavailable("the connection to the database was closed")
        self._cancel_idle()
        if self._session is None or not self._session.alive:
            self._session = DatabaseSession(self._reactor, self._session_lost)
            await self._open_session(self._session)
        result = await work(self._session)
        if self._idle_limit is not None:
            self._idle = self._reactor.callLater(self._idle_limit, self._drop)
        return result

    def _session_lost(self, reason: str) -> None:
        if not self._turn.locked:  # otherwise the active call fails
            self._drop()
            self._lost(reason)

    def _drop(self) -> None:
        self._cancel_idle()
        session, self._session = self._session, None
        if session is not None:
            session.abandon()

    def _cancel_idle(self) -> None:
        idle, self._idle = self._idle, None
        if idle is not None and idle.active():
            idle.cancel()


def _too_busy(_: object, limit: float) -> NoReturn:
    raise SinkUnavailable(f"the database was busy with other queries for {limit:g} s")
