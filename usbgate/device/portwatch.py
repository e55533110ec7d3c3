"""
Noticing what other programs do to a device's tty: that they have it open as well, or changed its settings.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import ClassVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from usbgate.core.model import DeviceWarning
from usbgate.device.interfaces import ISharedPort

INTERVAL = 60.0  # seconds between two looks

# Seconds from a look to one that something suspicious causes; twice as long after each, up to `INTERVAL`, since a look
# reads the descriptors of all processes.
SUSPICION_INTERVAL = 0.5

FindUsers = Callable[[os.stat_result], Deferred[Sequence[str]]]


class PortWatch:
    """
    Looks at one device's port when it is opened, once a minute, and soon after something suspicious.

    Attributes:
        warning: Who else has the port open, for `devices`; None if nobody has.
    """

    log: ClassVar[Logger] = Logger()

    def __init__(self, reactor: IReactorTime, device: str, path: str, find_users: FindUsers | None) -> None:
        """
        Args:
            reactor: For the time.
            device: The device's name, for the log.
            path: Its path as the configuration spells it, for the log.
            find_users: Finds the other programs that have a tty open; None to look for none.
        """
        self.warning: DeviceWarning | None = None
        self._reactor = reactor
        self._device = device
        self._path = path
        self._find_users = find_users
        self._port: ISharedPort | None = None
        self._timer: IDelayedCall | None = None
        self._looked_at = 0.0
        self._wait = SUSPICION_INTERVAL
        self._suspected = False  # since the last look
        self._settings_logged = False
        self._failure_logged = False

    def start(self, port: ISharedPort) -> None:
        """
        Watch a port that was opened, until `stop`.
        """
        self._port = port
        self._wait = SUSPICION_INTERVAL
        self._look()

    def stop(self) -> None:
        """
        Stop watching; the port is closed.
        """
        self._port = None
        self.warning = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def suspect(self) -> None:
        """
        Look soon: lines are garbled or missing, or another program has opened the port, or read what was there.
        """
        if self._timer is not None and not self._suspected:
            self._suspected = True
            due = max(self._reactor.seconds(), self._looked_at + self._wait)
            if due < self._timer.getTime():
                self._timer.reset(due - self._reactor.seconds())

    def _look(self) -> None:
        port = self._port
        assert port is not None
        self._wait = min(2 * self._wait, INTERVAL) if self._suspected else SUSPICION_INTERVAL
        self._suspected = False
        self._looked_at = self._reactor.seconds()
        self._timer = self._reactor.callLater(INTERVAL, self._look)
        changed = port.restore_settings()
        if changed is not None and not self._settings_logged:
            self.log.warn(
                "{device}: another program changed {path} to {changed}; usbgate has set it back",
                device=self._device,
                path=self._path,
                changed=changed,
            )
        self._settings_logged = changed is not None
        tty = port.tty()
        if self._find_users is not None and tty is not None:
            self._find_users(tty).addCallbacks(self._found, self._failed, callbackArgs=(port,))

    def _found(self, users: Sequence[str], port: ISharedPort) -> None:
        if port is not self._port:  # closed meanwhile
            return
        if users:
            named = ", ".join(users)
            text = f"another program has the port open and may take lines away, stop it: {named}"
            if self.warning is None:
                self.log.warn("{device}: {text} ({path})", device=self._device, text=text, path=self._path)
            self.warning = DeviceWarning("port shared", named, text)
        elif self.warning is not None:
            self.warning = None
            self.log.info("{device}: no other program has the port open any more", device=self._device)

    def _failed(self, failure: Failure) -> None:
        if not self._failure_logged:
            self._failure_logged = True
            reason = failure.getErrorMessage()
            self.log.warn("cannot find out who else has {path} open: {reason}", path=self._path, reason=reason)
