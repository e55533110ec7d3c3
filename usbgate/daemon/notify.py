"""
Telling systemd that the daemon is ready, alive and stopping: sd_notify(3), for a unit with `Type=notify`.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping

from twisted.application.internet import TimerService
from twisted.application.service import Service
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

BEATS = 3  # signs of life in the time after which systemd takes the daemon for dead: two may be late

log = Logger()


class SystemdNotifier(Service):
    """
    Reports to the socket that the environment names; does nothing if it names none.

    To be started last, when everything listens, and stopped first.
    """

    def __init__(self, reactor: IReactorTime, environ: Mapping[str, str]) -> None:
        """
        Read the environment: `NOTIFY_SOCKET`, `WATCHDOG_USEC` and `WATCHDOG_PID`, see sd_watchdog_enabled(3).

        Args:
            reactor: The reactor. It sends the signs of life, so a reactor that hangs sends none.
            environ: The environment.
        """
        path = environ.get("NOTIFY_SOCKET", "")
        self._address = "\0" + path[1:] if path.startswith("@") else path
        limit = environ.get("WATCHDOG_USEC", "")
        self._interval = int(limit) / 1e6 / BEATS if limit.isdecimal() else 0.0
        self._watched = environ.get("WATCHDOG_PID", "")
        self._alive = TimerService(self._interval, self._send, b"WATCHDOG=1")
        self._alive.clock = reactor
        self._logged = False

    def startService(self) -> None:
        """
        Report that the daemon is ready, then that it is alive, again and again.
        """
        super().startService()
        if self._address:
            self._send(b"READY=1")
            if self._interval and self._watched in ("", str(os.getpid())):
                self._alive.startService()

    def stopService(self) -> None:
        """
        Report that the daemon is stopping, after which systemd expects no more signs of life.
        """
        super().stopService()
        if self._address:
            if self._alive.running:
                self._alive.stopService()
            self._send(b"STOPPING=1")

    def _send(self, state: bytes) -> None:
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
                channel.setblocking(False)
                channel.sendto(state, self._address)
        except OSError as error:
            if not self._logged:
                self._logged = True
                log.warn(
                    "systemd cannot be notified of {state} ({address}): {reason}",
                    state=state.decode(),
                    address=self._address.replace("\0", "@"),
                    reason=error.strerror or str(error),
                )
