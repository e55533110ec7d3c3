"""
Listening: server endpoints from the configuration, one factory behind them.
"""

from __future__ import annotations

from collections.abc import Sequence

from twisted.application.service import Service
from twisted.internet.defer import Deferred, gatherResults, maybeDeferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.interfaces import IDelayedCall, IListeningPort, IProtocolFactory, IReactorTime
from twisted.internet.tcp import Port
from twisted.logger import ILogObserver, LogEvent, Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from usbgate.core.errors import StartError

REST = 1.0  # seconds to take no connection where there is nothing to take one with
TOLD_INTERVAL = 60.0  # seconds between two lines of log about connections that were not taken


class ListenError(StartError):
    """
    An address can't be listened on; the text says which and why, in one line.
    """


@implementer(ILogObserver)
class _Refusals:
    """
    Hears what a port of Twisted's says of each connection that it can't take; says it now and then.

    Without a file descriptor left, a port closes who comes by means of one that it keeps for that. Where even that
    does not help, it would try at once again, for ever: so who comes has to wait a while.
    """

    log = Logger(namespace="usbgate.net.listeners.Listeners")

    def __init__(self, reactor: IReactorTime, port: Port) -> None:
        self._reactor = reactor
        self._port = port
        self._resting: IDelayedCall | None = None
        self._count = 0
        self._told: float | None = None

    def __call__(self, event: LogEvent) -> None:
        """
        Hear one line: one that has the `address` of who was closed, the `acceptError`, or neither.
        """
        error = event.get("acceptError")
        if error is not None and self._resting is None:
            self._port.stopReading()
            self._resting = self._reactor.callLater(REST, self._go_on)
        if error is None and "address" not in event:
            return
        self._count += 1
        now = self._reactor.seconds()
        if self._told is None or now - self._told >= TOLD_INTERVAL:
            self.log.warn(
                "{count} connections could not be taken: {why}",
                count=self._count,
                why="too many open files" if error in (None, "EMFILE") else error,
            )
            self._count, self._told = 0, now

    def _go_on(self) -> None:
        self._resting = None
        self._port.startReading()

    def close(self) -> None:
        """
        Leave the port alone.
        """
        if self._resting is not None:
            self._resting.cancel()
            self._resting = None


class Listeners(Service):
    """
    Listens on some endpoints from start to stop.
    """

    log = Logger()

    def __init__(
        self, reactor: IReactorTime, endpoints: Sequence[str], factory: IProtocolFactory, needed: bool = True
    ) -> None:
        """
        Remember what to listen on; nothing is opened before the service is started.

        Args:
            reactor: For time, and what the endpoints need of it.
            endpoints: Twisted server endpoint strings.
            factory: Makes a protocol for each connection.
            needed: Whether it is the end of the start where one can't be listened on; else it is only said.
        """
        self._reactor = reactor
        self._endpoints = endpoints
        self._factory = factory
        self._needed = needed
        self._ports: list[IListeningPort] = []
        self._refusals: list[_Refusals] = []
        self._starting = False

    def privilegedStartService(self) -> None:
        """
        Listen, while a port below 1024 may still be had.

        Raises:
            ListenError: An address is taken, or not ours. One that is found out later is logged.
        """
        failed: list[Failure] = []
        self._starting = True
        for description in self._endpoints:
            try:
                endpoint = serverFromString(self._reactor, description)
            except (ValueError, TypeError, LookupError, ImportError) as error:
                raise ListenError(f"can't listen on {description}: {error}") from None
            listening = maybeDeferred(endpoint.listen, self._factory)
            listening.addCallback(self._listening, description)
            listening.addErrback(self._not_listening, description, failed)
        self._starting = False
        if failed and self._needed:
            raise ListenError(f"can't listen: {failed[0].getErrorMessage()}")

    def _listening(self, port: IListeningPort, description: str) -> None:
        self._ports.append(port)
        if isinstance(port, Port):  # three lines for each connection that it can't take would fill the disk
            refusals = _Refusals(self._reactor, port)
            self._refusals.append(refusals)
            port._logger = Logger(observer=refusals)
        self._tell(port, description)

    def _tell(self, port: IListeningPort, description: str) -> None:
        self.log.info("listening on {endpoint}", endpoint=description)

    def _not_listening(self, failure: Failure, description: str, failed: list[Failure]) -> None:
        # Twisted's own endpoints know at once, which ends the start; what a plug-in's finds out later is only said.
        failed.append(failure)
        if not self._needed:
            self.log.warn("can't listen on {endpoint}: {why}", endpoint=description, why=failure.getErrorMessage())
        elif not self._starting:
            self.log.error("can't listen on {endpoint}: {why}", endpoint=description, why=failure.getErrorMessage())

    def stopService(self) -> Deferred[None]:
        """
        Listen no more; what is connected stays so.

        Returns:
            Fires when all ports are closed.
        """
        super().stopService()
        for refusals in self._refusals:
            refusals.close()
        ports, self._ports = self._ports, []
        return gatherResults([maybeDeferred(port.stopListening) for port in ports]).addCallback(lambda _: None)
