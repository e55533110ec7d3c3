"""
Opening a device, and opening it again whenever it is disconnected (protocol §2).
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import ClassVar

from twisted.application.internet import backoffPolicy
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IProtocolFactory, IReactorTime, IStreamClientEndpoint
from twisted.logger import Logger
from twisted.python.failure import Failure

from usbgate.core.model import DeviceWarning
from usbgate.device.errors import DeviceBusy
from usbgate.net.attempts import QuietClientService, ReportingEndpoint

# A replugged device is back within 0.8 s. Twisted's own policy waits up to 60 s, and its jitter alone up to 1 s.
reopen_policy = backoffPolicy(0.2, 0.6, jitter=lambda: 0.2 * random.random())

# Seconds. A connection that lasts for less is brief: a serial server that is in use closes it at once, and a board in a
# boot loop does not stay for longer.
BRIEF = 5.0

# Seconds before the next attempt after brief connections to a serial server. A tty is opened again at once in any case:
# only opening it shows whether a board has recovered.
network_policy = backoffPolicy(0.5, 30.0, 2.0, jitter=lambda: 0.2 * random.random())


class Reconnector:
    """
    Keeps a device open from `start` to `stop`, and logs when it is disconnected and when it is back.

    Attributes:
        warning: Why the device cannot be opened, if another program or usbgate itself has it open; None otherwise.
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
        self.warning: DeviceWarning | None = None
        self._reactor = reactor
        self._device = device
        self._path = path
        self._failed = failed
        self._retry = retry
        self._network = False  # whether the last connection was to a serial server
        self._opened_at: float | None = None  # of the connection that is open
        self._brief = 0  # brief connections in a row
        self._stable: IDelayedCall | None = None  # ends a loop of brief connections
        self._away_since: float | None = None
        self._lost = False  # whether the device was open and disconnected, since `start`
        self._logged: set[type[BaseException] | None] = set()  # kinds of failures, since the device was last open
        self._client = QuietClientService(
            ReportingEndpoint(endpoint, self._attempt_failed), factory, retryPolicy=self._delay, clock=reactor
        )

    @property
    def running(self) -> bool:
        """
        Whether the device is to be kept open: between `start` and `stop`.
        """
        return bool(self._client.running)

    def _delay(self, failures: int) -> float:
        # Seconds before the next attempt.
        delay = self._retry(failures)
        return max(delay, network_policy(self._brief - 1)) if self._network and self._brief else delay

    def start(self) -> None:
        """
        Try to open the device until it succeeds.
        """
        self.warning = None
        self._away_since = None
        self._lost = False
        self._brief = 0
        self._logged.clear()
        self._client.startService()

    def stop(self) -> Deferred[None]:
        """
        Close the device, and make no more attempts.

        Returns:
            Fires when the device is closed.
        """
        self._cancel_stable()
        stopped: Deferred[None] = self._client.stopService()
        return stopped

    def opened(self, network: bool) -> bool:
        """
        Record and log that the device is open; in a loop of brief connections, log it once the connection lasts.

        Args:
            network: Whether it is a serial server on the network.

        Returns:
            Whether the device was open before, since `start`.
        """
        self.warning = None
        now = self._reactor.seconds()
        again, self._lost = self._lost, False
        self._network = network
        self._opened_at = now
        if self._brief > 1:
            self._stable = self._reactor.callLater(BRIEF, self._lasts)
            return again
        self._logged.clear()
        if self._away_since is None:
            self.log.info("{device} is open: {path}", device=self._device, path=self._path)
        else:
            self.log.info("{device} is back after {away:.1f} s", device=self._device, away=now - self._away_since)
        self._away_since = None
        return again

    def _lasts(self) -> None:
        self._stable = None
        self.log.info("{device} stays open, after {count} brief connections", device=self._device, count=self._brief)
        self._brief = 0
        self._logged.clear()
        self._away_since = None

    def lost(self) -> None:
        """
        Record and log that the device was disconnected; a loop of brief connections is logged once.
        """
        now = self._reactor.seconds()
        brief = self._opened_at is not None and now - self._opened_at < BRIEF
        self._opened_at = None
        self._lost = True
        self._cancel_stable()
        self._brief = self._brief + 1 if brief else 0
        if self._brief <= 1:
            self._away_since = now
            self.log.warn("{device} was disconnected: {path}", device=self._device, path=self._path)
        elif self._brief == 2:
            self.log.warn(
                "{device} is connected only briefly again and again: {remedy}; further times are counted as RECONNECTS",
                device=self._device,
                remedy="is another client connected to the serial server?"
                if self._network
                else "check the board's power supply, and whether its program crashes",
            )

    def _cancel_stable(self) -> None:
        if self._stable is not None:
            self._stable.cancel()
            self._stable = None

    def _attempt_failed(self, failure: Failure) -> None:
        if not self.running:  # the attempt was cancelled
            return
        reason = failure.getErrorMessage()
        error = failure.value
        self.warning = DeviceWarning(error.reason, error.about, reason) if isinstance(error, DeviceBusy) else None
        if failure.type not in self._logged:
            # One line for each kind of failure: that another program grabs a replugged device is news.
            self._logged.add(failure.type)
            self.log.warn("{device} cannot be opened: {reason}", device=self._device, reason=reason)
        if self._away_since is None:
            self._away_since = self._reactor.seconds()
            self._failed(reason)
