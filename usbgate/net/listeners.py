"""
Listening on the configured server endpoints, with one factory for all of them.
"""

from __future__ import annotations

import errno
import shutil
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, gatherResults, maybeDeferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import (
    IDelayedCall,
    IListeningPort,
    IProtocolFactory,
    IReactorTime,
    IStreamServerEndpoint,
)
from twisted.internet.tcp import Port
from twisted.logger import ILogObserver, LogEvent, Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from usbgate.core.endpointstring import split_endpoint
from usbgate.core.errors import StartError
from usbgate.core.extras import TLS, install_command
from usbgate.core.loglimit import LogLimit
from usbgate.core.unixsocket import split_group
from usbgate.net.places import is_local
from usbgate.net.socketlock import remove_stale_lock

ACCEPT_PAUSE = 1.0  # seconds without accepting connections after an accept failed


class ListenError(StartError):
    """
    An address can't be listened on; the message gives the address and the reason, in one line.
    """


@implementer(ILogObserver)
class _AcceptErrors:
    """
    Stands in for the log of one Twisted port, which writes three lines for each connection that it can't accept and
    would fill the disk: logs their count once a minute.

    When file descriptors run out, the port closes new connections by means of one that it keeps in reserve. Where that
    fails, too, it would try again at once, for ever; so the port pauses for `ACCEPT_PAUSE`.
    """

    log = Logger(namespace="usbgate.net.listeners.Listeners")

    def __init__(self, reactor: IReactorTime, port: Port) -> None:
        self._reactor = reactor
        self._port = port
        self._pause: IDelayedCall | None = None
        self._log_limit = LogLimit()

    def __call__(self, event: LogEvent) -> None:
        """
        Count the events that have an `acceptError` or the `address` of a connection that was closed.
        """
        error = event.get("acceptError")
        if error is not None and self._pause is None:
            self._port.stopReading()
            self._pause = self._reactor.callLater(ACCEPT_PAUSE, self._resume)
        if error is None and "address" not in event:
            return
        count = self._log_limit.add(self._reactor.seconds())
        if count:
            self.log.warn(
                "{count} connections could not be accepted: {why}",
                count=count,
                why="too many open files" if error in (None, "EMFILE") else error,
            )

    def _resume(self) -> None:
        self._pause = None
        self._port.startReading()

    def close(self) -> None:
        """
        Cancel the pause, if there is one.
        """
        if self._pause is not None:
            self._pause.cancel()
            self._pause = None


def listens_everywhere(port: IListeningPort) -> bool:
    """
    Return whether a port can be reached by all addresses of this machine, from other machines, too.
    """
    return getattr(port.getHost(), "host", None) in ("0.0.0.0", "::")


def _explain(description: str, error: BaseException | None) -> str:
    if description.startswith(("ssl:", "tls:")) and find_spec("OpenSSL") is None:
        return f"TLS needs pyOpenSSL, which is not installed: {install_command(TLS)}"
    cause = error.socketError if isinstance(error, CannotListenError) else error
    why = getattr(cause, "strerror", None) or str(cause) or type(cause).__name__
    if _socket_path(description) is not None:
        if isinstance(cause, FileNotFoundError):
            return f"{why}: its folder must exist"
        if isinstance(error, CannotListenError) and not isinstance(cause, OSError):  # its lock
            return "another program listens there"
    elif getattr(cause, "errno", None) == errno.EADDRINUSE:
        return f"{why}; as root, `ss -ltnp` names the program"
    return why


def _socket_path(description: str) -> str | None:
    # Of a Unix socket.
    if not description.startswith("unix:"):
        return None
    (_, *arguments), named = split_endpoint(description)
    return named.get("address") or arguments[0]


def _give_to_group(port: IListeningPort, group: str) -> IListeningPort:
    # A Unix socket is made with the daemon's umask, which gives others nothing, and then Twisted sets its mode.
    path = port.getHost().name  # type: ignore[attr-defined]  # the address of a Unix socket
    try:
        shutil.chown(path, group=group)
    except (LookupError, OSError) as error:
        port.stopListening()
        why = "there is none" if isinstance(error, LookupError) else f"{error.strerror}; be a member of it"
        raise ListenError(f"the socket cannot be given to the group {group}: {why}") from None
    return port


class Listeners(Service):
    """
    Listens on some endpoints while it runs.

    Twisted's StreamServerEndpointService does not fit: it gives nobody the port, whose address is logged and whose
    accept errors are, and it logs a traceback, or raises one, where a user needs one line.

    Attributes:
        ports: The open ports.
    """

    log = Logger()

    def __init__(
        self,
        reactor: IReactorTime,
        endpoints: Sequence[str],
        factory: IProtocolFactory,
        required: bool = True,
        local_only: bool = False,
    ) -> None:
        """
        Args:
            reactor: For time, and whatever else the endpoints need.
            endpoints: Twisted server endpoint strings; of `ssl:`, those of `tls_endpoint`.
            factory: Builds a protocol for each connection.
            required: Whether an endpoint that can't be listened on ends the start. If not, it is only logged.
            local_only: Whether a port that other machines can reach ends the start.
        """
        self._reactor = reactor
        self._endpoints = endpoints
        self._factory = factory
        self._required = required
        self._local_only = local_only
        self.ports: list[IListeningPort] = []
        self._accept_errors: list[_AcceptErrors] = []
        self._starting = False

    def privilegedStartService(self) -> None:
        """
        Listen, before root privileges are dropped: ports below 1024 need them.

        Raises:
            ListenError: An address is in use, or not ours. An endpoint that fails later is logged.
        """
        failures: list[str] = []
        self._starting = True
        for description in self._endpoints:
            text, group = split_group(description)
            if (path := _socket_path(text)) is not None:
                remove_stale_lock(path)
            try:
                endpoint = _endpoint(self._reactor, text)
            except Exception as error:  # an endpoint of another package may raise anything
                raise ListenError(f"cannot listen on {description}: {_explain(description, error)}") from None
            listening = maybeDeferred(endpoint.listen, self._factory)
            if group is not None:
                listening.addCallback(_give_to_group, group)
            listening.addCallback(self._port_opened, description)
            listening.addErrback(self._port_failed, description, failures)
        self._starting = False
        if failures and self._required:
            raise ListenError(failures[0])

    def _port_opened(self, port: IListeningPort, description: str) -> None:
        self.ports.append(port)
        if self._local_only and not is_local(str(getattr(port.getHost(), "host", ""))):
            raise ListenError("other machines can reach it (docs/security.md)")
        if isinstance(port, Port):
            accept_errors = _AcceptErrors(self._reactor, port)
            self._accept_errors.append(accept_errors)
            port._logger = Logger(observer=accept_errors)
        self.log_listening(port, description)

    def log_listening(self, port: IListeningPort, description: str) -> None:
        """
        Log that a port is open.

        Args:
            port: The port.
            description: Its endpoint string.
        """
        where = ", on all addresses of this machine" if listens_everywhere(port) else ""
        self.log.info("listening on {endpoint}{where}", endpoint=description, where=where)

    def _port_failed(self, failure: Failure, description: str, failures: list[str]) -> None:
        # Twisted's own endpoints fail at once, which ends the start; a plugin's may fail later.
        reason = f"cannot listen on {description}: {_explain(description, failure.value)}"
        failures.append(reason)
        if not self._required:
            self.log.warn("{reason}", reason=reason)
        elif not self._starting:
            self.log.error("{reason}", reason=reason)

    def stopService(self) -> Deferred[None]:
        """
        Close the ports; connections stay open.

        Returns:
            Fires when all ports are closed.
        """
        super().stopService()
        for accept_errors in self._accept_errors:
            accept_errors.close()
        ports, self.ports = self.ports, []
        return gatherResults([maybeDeferred(port.stopListening) for port in ports]).addCallback(lambda _: None)


def _endpoint(reactor: Any, description: str) -> IStreamServerEndpoint:
    if not description.startswith("ssl:"):
        endpoint: IStreamServerEndpoint = serverFromString(reactor, description)
        return endpoint
    from usbgate.net.tls import tls_endpoint  # only here, since it takes 8 MB and pyOpenSSL

    return tls_endpoint(reactor, description)
