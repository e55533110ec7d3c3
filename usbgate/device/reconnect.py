"""
Opening a device, and opening it again whenever it is disconnected (protocol §2).
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import ClassVar

from twisted.application.internet import ClientService, backoffPolicy
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IProtocol, IProtocolFactory, IReactorTime, IStreamClientEndpoint
from twisted.logger import FilteringLogObserver, Logger, LogLevel, LogLevelFilterPredicate, globalLogPublisher
from twisted.python.failure import Failure
from zope.interface import implementer

# A replugged device is back within 0.8 s. Twisted's own policy waits up to 60 s, and its jitter alone up to 1 s.
reopen_policy = backoffPolicy(0.2, 0.6, jitter=lambda: 0.2 * random.random())


@implementer(IStreamClientEndpoint)
class _ReportingEndpoint:
    """
    An endpoint that reports each attempt that failed; ClientService does not.
    """

    def __init__(self, endpoint: IStreamClientEndpoint, failed: Callable[[Failure], None]) -> None:
        self._endpoint = endpoint
        self._failed = failed

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        def report(failure: Failure) -> Failure:
            self._failed(failure)
            return failure

        return self._endpoint.connect(protocolFactory).addErrback(report)


class _QuietClientService(ClientService):
    # Twisted's logs each attempt at info; here the first failure is logged. Only a logger of its own keeps that from
    # filtering the rest of the log.
    _log = Logger(
        namespace="twisted.application.internet.ClientService",
        observer=FilteringLogObserver(globalLogPublisher, [LogLevelFilterPredicate(LogLevel.warn)]),
    )


class Reconnector:
    """
    Keeps a device open from `start` to `stop`, and logs when it is disconnected and when it is back.
    """

    log: ClassVar[Logger] = Logger()

    def __init__(
        self,
        reactor: IReactorTime,
        endpoint: IStreamClientEndpoint,
        factory: IProtocolFactory,
        device: str,
        path: str,
        failed: Callable[[str], None],
        retry: Callable[[int], float],
    ) -> None:
        """
        Args:
            reactor: For the time between two attempts.
            endpoint: Opens the device.
            factory: Builds a protocol for each opening.
            device: The device's name, for the log.
            path: Its path as the configuration spells it, for the log.
            failed: Called with the reason if the first attempt after `start` fails; later failures are only logged.
            retry: Returns the seconds to wait before the nth attempt in a row.
        """
        self._reactor = reactor
        self._device = device
        self._path = path
        self._failed = failed
        self._away_since: float | None = None
        self._logged: set[type[BaseException] | None] = set()  # kinds of failures, since the device was last open
        self._client = _QuietClientService(
            _ReportingEndpoint(endpoint, self._attempt_failed), factory, retryPolicy=retry, clock=reactor
        )

    @property
    def running(self) -> bool:
        """
        Whether the device is to be kept open: between `start` and `stop`.
        """
        return bool(self._client.running)

    def start(self) -> None:
        """
        Try to open the device until it succeeds.
        """
        self._away_since = None
        self._logged.clear()
        self._client.startService()

    def stop(self) -> Deferred[None]:
        """
        Close the device, and make no more attempts.

        Returns:
            Fires when the device is closed.
        """
        stopped: Deferred[None] = self._client.stopService()
        return stopped

    def opened(self) -> None:
        """
        Record and log that the device is open.
        """
        self._logged.clear()
        if self._away_since is None:
            self.log.info("{device} is open: {path}", device=self._device, path=self._path)
        else:
            away = self._reactor.seconds() - self._away_since
            self.log.info("{device} is back after {away:.1f} s", device=self._device, away=away)
        self._away_since = None

    def lost(self) -> None:
        """
        Record and log that the device was disconnected.
        """
        self._away_since = self._reactor.seconds()
        self.log.warn("{device} was disconnected: {path}", device=self._device, path=self._path)

    def _attempt_failed(self, failure: Failure) -> None:
        if not self.running:  # the attempt was cancelled
            return
        reason = failure.getErrorMessage()
        if failure.type not in self._logged:
            # One line for each kind of failure: that another program grabs a replugged device is news.
            self._logged.add(failure.type)
            self.log.warn("{device} cannot be opened: {reason}", device=self._device, reason=reason)
        if self._away_since is None:
            self._away_since = self._reactor.seconds()
            self._failed(reason)
