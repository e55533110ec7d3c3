"""
Connecting again and again, with the caller's log instead of Twisted's.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.application.internet import ClientService
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IProtocol, IProtocolFactory, IStreamClientEndpoint
from twisted.logger import FilteringLogObserver, Logger, LogLevel, LogLevelFilterPredicate, globalLogPublisher
from twisted.python.failure import Failure
from zope.interface import implementer


@implementer(IStreamClientEndpoint)
class ReportingEndpoint:
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


class QuietClientService(ClientService):
    """
    A ClientService that does not log each attempt.
    """

    # Only a logger of its own keeps the level from filtering the rest of the log.
    _log = Logger(
        namespace="twisted.application.internet.ClientService",
        observer=FilteringLogObserver(globalLogPublisher, [LogLevelFilterPredicate(LogLevel.warn)]),
    )
