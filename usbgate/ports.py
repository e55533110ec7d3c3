"""
Listening: server endpoints from the configuration, one factory behind them.
"""

from __future__ import annotations

from collections.abc import Sequence

from twisted.application.service import Service
from twisted.internet.defer import Deferred, gatherResults, maybeDeferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.interfaces import IListeningPort, IProtocolFactory
from twisted.logger import Logger
from twisted.python.failure import Failure


class ListenError(Exception):
    """
    An address can't be listened on; the text says which and why, in one line.
    """


class Ports(Service):
    """
    Listens on some endpoints from start to stop.
    """

    log = Logger()

    def __init__(self, reactor: object, endpoints: Sequence[str], factory: IProtocolFactory) -> None:
        """
        Remember what to listen on; nothing is opened before the service is started.

        Args:
            reactor: What the endpoints need of it.
            endpoints: Twisted server endpoint strings.
            factory: Makes a protocol for each connection.
        """
        self._reactor = reactor
        self._endpoints = endpoints
        self._factory = factory
        self._ports: list[IListeningPort] = []
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
        if failed:
            raise ListenError(f"can't listen: {failed[0].getErrorMessage()}")

    def _listening(self, port: IListeningPort, description: str) -> None:
        self._ports.append(port)
        self.log.info("listening on {endpoint}", endpoint=description)

    def _not_listening(self, failure: Failure, description: str, failed: list[Failure]) -> None:
        # Twisted's own endpoints know at once, which ends the start; what a plug-in's finds out later is only said.
        failed.append(failure)
        if not self._starting:
            self.log.error("can't listen on {endpoint}: {why}", endpoint=description, why=failure.getErrorMessage())

    def stopService(self) -> Deferred[None]:
        """
        Listen no more; what is connected stays so.

        Returns:
            Fires when all ports are closed.
        """
        super().stopService()
        ports, self._ports = self._ports, []
        return gatherResults([maybeDeferred(port.stopListening) for port in ports]).addCallback(lambda _: None)
