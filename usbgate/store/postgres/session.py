"""
A non-blocking PostgreSQL connection that can be abandoned at any time.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import psycopg2
from psycopg2.extensions import make_dsn, parse_dsn
from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress, IHostResolution, IResolutionReceiver
from twisted.internet.task import deferLater
from twisted.python.failure import Failure
from txpostgres import txpostgres
from zope.interface import implementer

from usbgate.core.connstring import has_password
from usbgate.core.hostname import is_host_name
from usbgate.store.interfaces import SinkUnavailable

T = TypeVar("T")

OLDEST_SERVER = 130000  # PostgreSQL 13, protocol §5

# A session left dead by a power cut ends after 10 + 3 * 10 s, at either end.
_KEEPALIVES = {"keepalives_idle": "10", "keepalives_interval": "10", "keepalives_count": "3"}

SLICE = 1_000  # rows converted per reactor turn: 2 ms

# `statement_timeout` ends statements in the server that were abandoned here; the others override settings of the role
# or the database. `idle_session_timeout` needs PostgreSQL 14.
_SETTINGS = """
    set statement_timeout = %s;
    set tcp_keepalives_idle = 10; set tcp_keepalives_interval = 10; set tcp_keepalives_count = 3;
    set extra_float_digits = 1;
    select set_config(name, '0', false) from pg_settings where name = 'idle_session_timeout'
"""


class DatabaseSession(txpostgres.Connection):  # type: ignore[misc]  # txpostgres has no types
    """
    One connection, for one statement at a time.

    txpostgres's own cancellation is not used: it sends a cancel request to the server, which blocks the whole
    process if the server hangs. Cancelling a call here closes the connection instead.
    """

    def __init__(self, reactor: Any, lost: Callable[[str], None] = lambda reason: None) -> None:
        """
        Create an unconnected session.

        Args:
            reactor: IReactorTime, IReactorFDSet and IReactorPluggableNameResolver.
            lost: Called with the reason when the connection ends while no statement is running.
        """
        super().__init__(reactor)
        self._lost = lost

    @property
    def alive(self) -> bool:
        """
        Whether the connection is open, as far as known without I/O.
        """
        return self._connection is not None and not self._connection.closed

    async def open(self, url: str, application_name: str, limit: float, statement_limit: float) -> None:
        """
        Connect to the server.

        Args:
            url: A libpq connection string: a URL or the `key=value` form.
            application_name: The name in `pg_stat_activity`.
            limit: Timeout in seconds.
            statement_limit: Seconds after which the server cancels a statement.

        Raises:
            SinkUnavailable: The server is too old, its host name is unknown, or the attempt timed out.
            psycopg2.Error: The connection failed or was refused.
        """
        connecting = Deferred.fromCoroutine(self._connect(url, application_name))
        try:
            await connecting.addTimeout(limit, self.reactor, _too_slow)
        except psycopg2.Error as error:
            reason = one_line(error)
            if (scrubbed := scrub(reason, url)) != reason:
                raise SinkUnavailable(scrubbed) from None
            raise
        if self.server_version < OLDEST_SERVER:
            major, minor = divmod(self.server_version, 10000)
            raise SinkUnavailable(f"PostgreSQL {major}.{minor % 100} is too old; usbgate needs 13 or later")
        await self.run(_SETTINGS, (f"{statement_limit:.0f}s",), limit)

    async def _connect(self, url: str, application_name: str) -> None:
        options = parse_dsn(url)
        options |= await _addresses(self.reactor, options)
        # The URL overrides our defaults, and our mandatory options override the URL.
        dsn = make_dsn(**(_KEEPALIVES | options | {"application_name": application_name, "client_encoding": "UTF8"}))
        await self._until_abandoned(self.connect(dsn))

    def run(
        self, sql: str, parameters: Sequence[object] | Mapping[str, object] | None, limit: float
    ) -> Deferred[list[tuple[Any, ...]]]:
        """
        Run statements in one transaction.

        Args:
            sql: One statement or more.
            parameters: Values for each `%s` or `%(name)s`; None for no substitution.
            limit: Seconds until the connection is abandoned.

        Returns:
            Fires with the rows of the last one; fails with `psycopg2.Error`, with `ValueError` if a text can't be
            sent, and with `SinkUnavailable` on timeout. Cancelling it closes the connection.
        """
        executed = self._execute(sql, parameters, limit)
        return executed.addCallback(lambda cursor: cursor.fetchall() if cursor.description else [])

    async def fetch(
        self, sql: str, parameters: Mapping[str, object], limit: float, make: Callable[[tuple[Any, ...]], T]
    ) -> list[T]:
        """
        Run one statement and convert its rows in slices, yielding to the reactor (see `run`).
        """
        cursor = await self._execute(sql, parameters, limit)
        made: list[T] = []
        while rows := cursor.fetchmany(SLICE):
            made += map(make, rows)
            await deferLater(self.reactor, 0)
        return made

    def _execute(
        self, sql: str, parameters: Sequence[object] | Mapping[str, object] | None, limit: float
    ) -> Deferred[Any]:
        # Before libpq can close the socket, as it does when it finds that the server has gone: whatever has the
        # descriptor next would be taken for this session by the reactor. txpostgres does it only afterwards.
        self._forget(self)
        executed: Deferred[Any] = self._until_abandoned(self.cursor().execute(sql, parameters))
        return executed.addTimeout(limit, self.reactor, _too_slow)

    def abandon(self) -> None:
        """
        Close the connection at once, whatever it is doing.
        """
        if self._connection is None:
            return
        for pollable in (*self._cursors, self):
            self._forget(pollable)
        # libpq does not wait until its Terminate message is sent, since the socket is non-blocking.
        self.close()

    def _until_abandoned(self, operation: Deferred[T]) -> Deferred[T]:
        abandoned = False

        def abandon(_: Deferred[T]) -> None:
            nonlocal abandoned
            abandoned = True
            self.abandon()

        def settle(outcome: T | Failure) -> None:
            if not abandoned:  # otherwise it has failed already
                result.callback(outcome)

        result: Deferred[T] = Deferred(abandon)
        operation.addBoth(settle)
        return result

    def _forget(self, pollable: object) -> None:
        self.reactor.removeReader(pollable)
        self.reactor.removeWriter(pollable)

    def doRead(self) -> None:
        """
        Handle readable data; called by Twisted.
        """
        # txpostgres would raise an exception into the reactor when an idle connection is lost, and keep watching a
        # socket that libpq has replaced by another, as it does for a second address or an attempt without TLS.
        self._forget(self)
        if not self.alive:
            return
        try:
            self.continuePolling()
        except psycopg2.Error as error:
            self.abandon()
            self._lost(one_line(error))
        else:
            if self._pollingD is None:
                self._watch()

    def cursorFinished(self, cursor: Any) -> None:
        """
        Resume watching the idle connection; called by txpostgres.
        """
        self._cursors.discard(cursor)
        self._watch()

    def _watch(self) -> None:
        if self.alive and self.fileno() >= 0:
            self.reactor.addReader(self)


def one_line(error: BaseException) -> str:
    """
    Return a database or libpq error message as one line.
    """
    primary = error.diag.message_primary if isinstance(error, psycopg2.Error) else None
    # libpq reports each address it tried in one line, followed by an indented hint.
    lines = [line.strip() for line in str(primary or error).splitlines() if not line.startswith("\t")]
    return "; ".join(dict.fromkeys(filter(None, lines))) or type(error).__name__


def scrub(reason: str, url: str) -> str:
    """
    Return what libpq says of a connection, without the password.

    Args:
        reason: What it says; of a malformed connection string, it quotes parts.
        url: The connection string.
    """
    try:
        options = parse_dsn(url)
    except psycopg2.Error:
        return re.sub('".*"?', "…", reason, flags=re.DOTALL) if has_password(url) else reason
    for secret in filter(None, (options.get("password"), options.get("sslpassword"))):
        reason = reason.replace(secret, "…")
    return reason


def with_password(url: str, password_file: Path | None) -> str:
    """
    Return a connection string with the password that a file has.

    Args:
        url: The connection string.
        password_file: The file: the password, and perhaps a line end. None to leave the connection string as it is.

    Raises:
        SinkUnavailable: The file can't be read, or the connection string is malformed.
    """
    if password_file is None:
        return url
    try:
        return str(make_dsn(url, password=password_file.read_text().rstrip("\r\n")))
    except (OSError, UnicodeDecodeError) as error:
        raise SinkUnavailable(f"the password file {password_file} cannot be read: {error}") from None
    except psycopg2.Error as error:
        raise SinkUnavailable(scrub(one_line(error), url)) from None


def refusal(error: Exception) -> str | None:
    """
    Return why the data of a statement was refused (SQLSTATE classes 22 and 23, encoding); None for any other error.
    """
    if isinstance(error, psycopg2.Error):
        return one_line(error) if (error.pgcode or "")[:2] in ("22", "23") else None
    return str(error) if isinstance(error, ValueError) else None  # NUL, or not UTF-8


def _too_slow(_: object, limit: float) -> NoReturn:
    raise SinkUnavailable(f"the database did not answer within {limit:g} s")


@implementer(IResolutionReceiver)
class _Addresses:
    """
    Collects the addresses found by the reactor's resolver.
    """

    def __init__(self) -> None:
        self.complete: Deferred[list[str]] = Deferred()
        self._found: list[str] = []

    def resolutionBegan(self, resolutionInProgress: IHostResolution) -> None:
        """
        Called by Twisted at the start.
        """

    def addressResolved(self, address: IAddress) -> None:
        """
        Record an address; called by Twisted.
        """
        self._found.append(address.host)  # type: ignore[attr-defined]  # IPv4Address or IPv6Address

    def resolutionComplete(self) -> None:
        """
        Deliver the addresses; called by Twisted.
        """
        self.complete.callback(self._found)


async def _addresses(reactor: Any, options: dict[str, str]) -> dict[str, str]:
    """
    Resolve the host names of a connection, since libpq would block.

    Args:
        reactor: IReactorPluggableNameResolver.
        options: The result of `parse_dsn`; libpq reads the rest from the environment.

    Returns:
        Options that override those given: host, address and port of each candidate.
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
        elif not is_host_name(host):
            raise SinkUnavailable(f"the database's host {host} is not the name of a host")
        else:
            receiver = _Addresses()
            reactor.nameResolver.resolveHostName(receiver, host)
            found = await receiver.complete
        ways += [(host, address, port) for address in found]
    if not ways:
        raise SinkUnavailable(f"the database's host {given} has no known address")
    return dict(zip(("host", "hostaddr", "port"), map(",".join, zip(*ways, strict=True)), strict=True))
