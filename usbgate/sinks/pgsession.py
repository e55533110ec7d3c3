"""
A connection to PostgreSQL that never blocks the reactor and can be given up at any moment.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, NoReturn, TypeVar

import psycopg2
from psycopg2.extensions import make_dsn, parse_dsn
from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.base import DelayedCall
from twisted.internet.defer import CancelledError, Deferred, DeferredLock
from twisted.internet.error import ConnectionClosed
from twisted.internet.interfaces import IAddress, IHostResolution, IResolutionReceiver
from twisted.python.failure import Failure
from txpostgres import txpostgres
from zope.interface import implementer

from usbgate.interfaces import RowsRefused, SinkUnavailable

T = TypeVar("T")

OLDEST_SERVER = 130000  # PostgreSQL 13, protocol §5

# A session left dead by a power cut ends after 10 + 3 * 10 s, at either end.
_KEEPALIVES = {"keepalives_idle": "10", "keepalives_interval": "10", "keepalives_count": "3"}

# `statement_timeout` ends in the server what we gave up; the others undo what a role or database may have set.
_SETTINGS = """
    set statement_timeout = %s;
    set tcp_keepalives_idle = 10; set tcp_keepalives_interval = 10; set tcp_keepalives_count = 3;
    set extra_float_digits = 1
"""


class Session(txpostgres.Connection):  # type: ignore[misc]  # txpostgres has no types
    """
    One connection, for one statement at a time.

    txpostgres's own ways to end a call early are not used: they ask the server to cancel, and under a server
    that hangs that never comes back and stops the whole process. A call that is cancelled here closes the
    connection instead.
    """

    @property
    def alive(self) -> bool:
        """
        Whether it is open, as far as can be told without trying.
        """
        return self._connection is not None and not self._connection.closed

    async def open(self, url: str, application_name: str, limit: float, statement_limit: float) -> None:
        """
        Reach the server.

        Args:
            url: A URL or a `key=value` text, as libpq knows them.
            application_name: What the server's list of sessions shows.
            limit: Seconds that this may take.
            statement_limit: Seconds after which the server ends a statement by itself.

        Raises:
            SinkUnavailable: The server is too old, its name is not known, or it took too long.
            psycopg2.Error: It can't be reached, or refuses us.
        """
        connecting = Deferred.fromCoroutine(self._connect(url, application_name))
        await connecting.addTimeout(limit, self.reactor, _too_slow)
        if self.server_version < OLDEST_SERVER:
            major, minor = divmod(self.server_version, 10000)
            raise SinkUnavailable(f"PostgreSQL {major}.{minor % 100} is too old, usbgate needs 13 or newer")
        await self.run(_SETTINGS, (f"{statement_limit:.0f}s",), limit)

    async def _connect(self, url: str, application_name: str) -> None:
        options = parse_dsn(url)
        options |= await _addresses(self.reactor, options)
        # The URL's own words come after what we would like, and before what must be.
        dsn = make_dsn(**(_KEEPALIVES | options | {"application_name": application_name, "client_encoding": "UTF8"}))
        await self._until_abandoned(self.connect(dsn))

    def run(
        self, sql: str, parameters: Sequence[object] | Mapping[str, object] | None, limit: float
    ) -> Deferred[list[tuple[Any, ...]]]:
        """
        Run statements, as one transaction.

        Args:
            sql: One statement or more.
            parameters: What to put in place of each `%s` or `%(name)s`; with None the text is taken as it is.
            limit: Seconds until we give up and close the connection.

        Returns:
            Fires with the rows of the last one; fails with `psycopg2.Error`, with `ValueError` where a text can't
            be sent, and with `SinkUnavailable` when the limit is over. Cancelling it closes the connection.
        """
        cursor = self.cursor()
        fetched = cursor.execute(sql, parameters)
        fetched.addCallback(lambda _: cursor.fetchall() if cursor.description else [])
        result: Deferred[list[tuple[Any, ...]]] = self._until_abandoned(fetched)
        return result.addTimeout(limit, self.reactor, _too_slow)

    def abandon(self) -> None:
        """
        Close the connection at once, whatever it is doing.
        """
        if self._connection is None:
            return
        for pollable in (*self._cursors, self):
            self._forget(pollable)
        # libpq's goodbye does not wait until it is sent, as the socket is a non-blocking one.
        self.close()

    def _until_abandoned(self, operation: Deferred[T]) -> Deferred[T]:
        abandoned = False

        def abandon(_: Deferred[T]) -> None:
            nonlocal abandoned
            abandoned = True
            self.abandon()

        def settle(outcome: T | Failure) -> None:
            if not abandoned:  # else it has failed already
                result.callback(outcome)

        result: Deferred[T] = Deferred(abandon)
        operation.addBoth(settle)
        return result

    def _forget(self, pollable: object) -> None:
        self.reactor.removeReader(pollable)
        self.reactor.removeWriter(pollable)

    def doRead(self) -> None:
        """
        Read what came; Twisted calls this.
        """
        # txpostgres would raise into the reactor when an idle connection is lost, and go on watching a socket that
        # libpq has closed for another, as it does for a second address or for a try without TLS.
        self._forget(self)
        if not self.alive:
            return
        try:
            self.continuePolling()
        except psycopg2.Error:
            self.abandon()
        else:
            if self._pollingD is None:
                self._watch()

    def cursorFinished(self, cursor: Any) -> None:
        """
        Watch the idle connection again; txpostgres calls this.
        """
        self._cursors.discard(cursor)
        self._watch()

    def _watch(self) -> None:
        if self.alive and self.fileno() >= 0:
            self.reactor.addReader(self)


class Line:
    """
    A session that is opened when it is needed, and the calls that wait for their turn on it.
    """

    def __init__(
        self,
        reactor: Any,
        open_session: Callable[[Session], Coroutine[Deferred[Any], Any, None]],
        *,
        turn_limit: float | None = None,
        idle_limit: float | None = None,
    ) -> None:
        """
        Begin without a session.

        Args:
            reactor: IReactorTime, IReactorFDSet and IReactorPluggableNameResolver.
            open_session: Opens a new session and makes it ready.
            turn_limit: Seconds that a call waits for its turn; None waits for ever.
            idle_limit: Seconds until an idle session is closed; None keeps it.
        """
        self._reactor = reactor
        self._open_session = open_session
        self._turn_limit = turn_limit
        self._idle_limit = idle_limit
        self._session: Session | None = None
        self._turn = DeferredLock()
        self._calls: set[Deferred[Any]] = set()
        self._idle: DelayedCall | None = None
        self._closed = False

    def call(self, work: Callable[[Session], Coroutine[Deferred[Any], Any, T]]) -> Deferred[T]:
        """
        Do something with the session, one call after another.

        Returns:
            Fires with what `work` returns; fails with `RowsRefused` if `work` raised it, and with
            `SinkUnavailable` for all else that a database can do; then the next call opens a new session.
        """
        call = Deferred.fromCoroutine(self._call(work))
        self._calls.add(call)

        def ended(outcome: T) -> T:
            self._calls.discard(call)
            return outcome

        return call.addBoth(ended)

    def close(self) -> None:
        """
        Let go of the session and fail all calls, now and for good.
        """
        self._closed = True
        for call in list(self._calls):
            call.cancel()
        self._drop()

    async def _call(self, work: Callable[[Session], Coroutine[Deferred[Any], Any, T]]) -> T:
        turn: Deferred[Any] = self._turn.acquire()
        if self._turn_limit is not None:
            turn.addTimeout(self._turn_limit, self._reactor, _too_busy)
        try:
            await turn
        except CancelledError:
            raise SinkUnavailable("the connection to the database was closed") from None
        try:
            return await self._use(work)
        except RowsRefused:
            raise
        except SinkUnavailable:
            self._drop()
            raise
        except CancelledError:
            self._drop()
            raise SinkUnavailable("the connection to the database was closed") from None
        except (psycopg2.Error, ConnectionClosed, OSError) as error:
            self._drop()
            raise SinkUnavailable(one_line(error)) from error
        except BaseException:
            self._drop()
            raise
        finally:
            self._turn.release()

    async def _use(self, work: Callable[[Session], Coroutine[Deferred[Any], Any, T]]) -> T:
        if self._closed:
            raise SinkUnavailable("the connection to the database was closed")
        self._stop_idling()
        if self._session is None or not self._session.alive:
            self._session = Session(self._reactor)
            await self._open_session(self._session)
        result = await work(self._session)
        if self._idle_limit is not None:
            self._idle = self._reactor.callLater(self._idle_limit, self._drop)
        return result

    def _drop(self) -> None:
        self._stop_idling()
        session, self._session = self._session, None
        if session is not None:
            session.abandon()

    def _stop_idling(self) -> None:
        idle, self._idle = self._idle, None
        if idle is not None and idle.active():
            idle.cancel()


def one_line(error: BaseException) -> str:
    """
    Say in one line what a database or libpq said in several.
    """
    primary = error.diag.message_primary if isinstance(error, psycopg2.Error) else None
    # libpq has a line for each address that it tried, and under it, indented, what the cause may be.
    lines = [line.strip() for line in str(primary or error).splitlines() if not line.startswith("\t")]
    return "; ".join(dict.fromkeys(filter(None, lines))) or type(error).__name__


def _too_slow(_: object, limit: float) -> NoReturn:
    raise SinkUnavailable(f"the database did not answer within {limit:g} s")


def _too_busy(_: object, limit: float) -> NoReturn:
    raise SinkUnavailable(f"the database was busy with other queries for {limit:g} s")


@implementer(IResolutionReceiver)
class _Addresses:
    """
    Collects what the reactor's resolver finds.
    """

    def __init__(self) -> None:
        self.complete: Deferred[list[str]] = Deferred()
        self._found: list[str] = []

    def resolutionBegan(self, resolutionInProgress: IHostResolution) -> None:
        """
        Begin; Twisted calls this.
        """

    def addressResolved(self, address: IAddress) -> None:
        """
        Take one address; Twisted calls this.
        """
        self._found.append(address.host)  # type: ignore[attr-defined]  # IPv4Address or IPv6Address

    def resolutionComplete(self) -> None:
        """
        End; Twisted calls this.
        """
        self.complete.callback(self._found)


async def _addresses(reactor: Any, options: dict[str, str]) -> dict[str, str]:
    """
    Find the addresses of the hosts of a connection, since libpq would block for them.

    Args:
        reactor: IReactorPluggableNameResolver.
        options: What `parse_dsn` returns; libpq takes the rest from the environment.

    Returns:
        Options to put over those given: one host, address and port for each way to try.
    """
    given = options.get("host") or os.environ.get("PGHOST", "")
    if not given or "service" in options or "hostaddr" in options or "PGHOSTADDR" in os.environ:
        return {}
    hosts = given.split(",")
    ports = (options.get("port") or os.environ.get("PGPORT", "")).split(",")
    if len(ports) == 1:
        ports *= len(hosts)
    ways: list[tuple[str, str, str]] = []
    for host, port in zip(hosts, ports, strict=False):
        if not host or host[0] in "/@":  # a Unix socket
            found = [""]
        elif isIPAddress(host) or isIPv6Address(host):
            found = [host]
        else:
            receiver = _Addresses()
            reactor.nameResolver.resolveHostName(receiver, host)
            found = await receiver.complete
        ways += [(host, address, port) for address in found]
    if not ways:
        raise SinkUnavailable(f"no address is known for the database's host {given}")
    return dict(zip(("host", "hostaddr", "port"), map(",".join, zip(*ways, strict=True)), strict=True))
