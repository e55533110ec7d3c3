"""
Reading the configuration anew, at a SIGHUP.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread
from twisted.logger import Logger

from usbgate.config.settings import Settings
from usbgate.config.types import ConfigError

log = Logger()


class Reload(Service):
    """
    Service that reads the configuration anew, in a thread: a file with a thousand sensors takes 40 ms here, and several
    times as long on a Raspberry Pi.
    """

    def __init__(self, load_again: Callable[[], Settings], take_over: Callable[[Settings], None]) -> None:
        """
        Args:
            load_again: Returns what it is now; may raise `ConfigError`. Called in a thread.
            take_over: Called with that.
        """
        self._load_again = load_again
        self._take_over = take_over
        self._requested = False
        self._reading = False

    def request(self) -> None:
        """
        Read it, once more if it is being read. If anything is wrong with it now, that is logged, and nothing changes.
        """
        self._requested = True
        if not self._reading:
            self._reading = True
            Deferred.fromCoroutine(self._read()).addErrback(
                lambda failure: log.failure("unexpected error while the configuration was reloaded", failure)
            )

    async def _read(self) -> None:
        try:
            while self._requested:
                self._requested = False
                try:
                    loaded = await deferToThread(self._load_again)
                except ConfigError as error:
                    log.warn("the configuration was not reloaded, and nothing has changed: {error}", error=str(error))
                    continue
                if not self.running:
                    return
                self._take_over(loaded)
                log.info("reloaded [sensor], [[client]], [[rule]] and [mail]")
        finally:
            self._reading = False
