"""
The daemon as a whole: a service of services that start and stop in order.
"""

from __future__ import annotations

import resource
from collections.abc import Callable

from twisted.application.service import IServiceCollection, MultiService, Service
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.logger import ILogObserver, Logger
from twisted.python.components import Componentized

from usbgate.core.errors import StartError

log = Logger()


class Daemon(MultiService):
    """
    Services that are started in order, and stopped one after the other, last started first.
    """

    def __init__(
        self,
        start_failed: Callable[[str], None] = lambda reason: None,
        log_observer: Callable[[], ILogObserver] | None = None,
    ) -> None:
        """
        Begin with no services.

        Args:
            start_failed: Called with the reason where a part can't start, just before the process ends.
            log_observer: Makes the log of the application of which this becomes a part; None to leave that to twistd.
        """
        super().__init__()
        self._start_failed = start_failed
        self._log_observer = log_observer

    def setServiceParent(self, parent: IServiceCollection) -> None:
        """
        Become a part of twistd's application, just before it begins to log.
        """
        super().setServiceParent(parent)
        if self._log_observer is not None and isinstance(parent, Componentized):
            parent.setComponent(ILogObserver, self._log_observer())

    def privilegedStartService(self) -> None:
        """
        Take the lock and the ports; the end of the start, in one line, where they can't be had.
        """
        raise_file_limit()
        self._or_exit(super().privilegedStartService)

    def startService(self) -> None:
        """
        Start all parts; the end of the start, in one line, where one can't.
        """
        self._or_exit(super().startService)

    def _or_exit(self, step: Callable[[], object]) -> None:
        try:
            step()
        except StartError as error:
            log.critical("usbgate: {error}", error=str(error))
            self._start_failed(str(error))
            raise SystemExit(1) from None

    def stopService(self) -> Deferred[None]:
        """
        Stop all parts.

        Returns:
            Fires when the last one has stopped.
        """
        Service.stopService(self)
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        # MultiService would stop them all at once, and the journal before the last reading is in it.
        for service in reversed(list(self)):
            try:
                await maybeDeferred(service.stopService)
            except Exception:
                log.failure("while stopping {service}", service=service)


def raise_file_limit() -> None:
    """
    Let as many files be open as we may have: each client is one.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
