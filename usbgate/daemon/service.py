"""
The daemon as a whole: a service of services that start and stop in order.
"""

from __future__ import annotations

import os
import resource
from collections.abc import Callable

from twisted.application.service import IServiceCollection, MultiService, Service
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.logger import ILogObserver, Logger
from twisted.python.components import Componentized

from usbgate.core.errors import StartError
from usbgate.daemon.logfile import LogWriter

log = Logger()


class Daemon(MultiService):
    """
    Services that start in order, and stop one after the other in the opposite order.
    """

    def __init__(
        self,
        start_failed: Callable[[str], None] = lambda reason: None,
        open_log: Callable[[], LogWriter] | None = None,
    ) -> None:
        """
        Args:
            start_failed: Called with the reason if a service can't start, just before the process ends.
            open_log: Returns the log observer of twistd's application; None to keep twistd's own.
        """
        super().__init__()
        self._start_failed = start_failed
        self._open_log = open_log
        self._log: LogWriter | None = None

    def setServiceParent(self, parent: IServiceCollection) -> None:
        """
        Join twistd's application, which begins to log afterwards.

        Raises:
            SystemExit: The log cannot be opened.
        """
        super().setServiceParent(parent)
        if self._open_log is not None and isinstance(parent, Componentized):
            try:
                self._log = self._open_log()
            except OSError as error:
                file = os.path.abspath(error.filename or "")
                raise SystemExit(
                    f"usbgate: the log {file} cannot be opened: {error.strerror};"
                    " run this in another folder, or use twistd --logfile=FILE"
                ) from None
            parent.setComponent(ILogObserver, self._log)

    def reopen_log(self) -> None:
        """
        Open the log file anew, for programs such as logrotate, which move it away. Other logs have no file.
        """
        if self._log is not None:
            self._log.reopen()

    def privilegedStartService(self) -> None:
        """
        Start what needs root's privileges, or must come first: the lock and the ports.

        Raises:
            SystemExit: A service can't start; the reason is logged in one line.
        """
        if self._log is not None:
            self._log.start()  # now that twistd has forked
        raise_file_limit()
        self._or_exit(super().privilegedStartService)

    def startService(self) -> None:
        """
        Start all services.

        Raises:
            SystemExit: A service can't start; the reason is logged in one line.
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
        Stop all services.

        Returns:
            Fires when the last one has stopped.
        """
        Service.stopService(self)
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        # MultiService would stop all at once, and the journal would close before it has the last reading.
        for service in reversed(list(self)):
            try:
                await maybeDeferred(service.stopService)
            except Exception:
                log.failure("unexpected error while stopping {service}", service=service)


def raise_file_limit() -> None:
    """
    Raise the limit of open files to the maximum that the system allows: each client needs one.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
