"""
Noticing that an open device has stopped sending lines, and resetting its board (protocol §4.7).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

# Seconds: the longest time between two resets of a board that stays silent.
RESET_INTERVAL_LIMIT = 3600.0


class Watchdog:
    """
    Watches one device from `start` to `stop`.

    A line does not move the timer: when it is due it checks when the last line came.
    """

    log: ClassVar[Logger] = Logger()

    def __init__(
        self,
        reactor: IReactorTime,
        device: str,
        silence: float,
        *,
        silent: Callable[[], None],
        active: Callable[[], None],
        reset: Callable[[], bool] | None,
    ) -> None:
        """
        Args:
            reactor: For time.
            device: The device's name, for the log.
            silence: Seconds without a line after which the device is silent.
            silent: Called when the device becomes silent.
            active: Called when a silent device sends a line again.
            reset: Resets the board and returns whether it can; called when the device becomes silent, and again after
                growing intervals. None to reset nothing.
        """
        self._reactor = reactor
        self._device = device
        self._silence = silence
        self._report_silent = silent
        self._report_active = active
        self._reset = reset
        self._silent = False
        self._paused = False
        self._resets = 0  # in this silence
        self._line_at = 0.0  # when the last line came, or the device was opened or resumed
        self._timer: IDelayedCall | None = None

    def start(self) -> None:
        """
        Begin to watch; the device was opened.
        """
        self._silent = False
        self._line_at = self._reactor.seconds()
        self._check_after(self._silence)

    def stop(self) -> None:
        """
        Stop watching; the device is closed.
        """
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def pause(self) -> None:
        """
        Do not call the device silent until `resume`: nobody reads it.
        """
        self._paused = True

    def resume(self) -> None:
        """
        Watch again; the silence is measured from now.
        """
        self._paused = False
        self._line_at = self._reactor.seconds()

    def line_received(self, now: float) -> None:
        """
        Record that the device sent a line.

        Args:
            now: Monotonic seconds.
        """
        if self._silent:
            self._silent = False
            self.log.info(
                "{device} is active again after {quiet:.1f} s of silence",
                device=self._device,
                quiet=now - self._line_at,
            )
            self.stop()
            self._check_after(self._silence)
            self._report_active()
        self._line_at = now

    def _check_after(self, seconds: float) -> None:
        self._timer = self._reactor.callLater(seconds, self._check)

    def _check(self) -> None:
        self._timer = None
        left = self._line_at + self._silence - self._reactor.seconds()
        if self._paused or (left > 0 and not self._silent):
            self._check_after(left if left > 0 else self._silence)
            return
        if not self._silent:
            self._silent = True
            self._resets = 0
            self.log.warn("{device} has sent no line for {silence:g} s", device=self._device, silence=self._silence)
            self._report_silent()
        if self._reset is not None and self._reset():
            self._resets += 1
            wait = min(self._silence * 2 ** min(self._resets, 12), max(self._silence, RESET_INTERVAL_LIMIT))
            self.log.info(
                "resetting {device} by DTR, and again in {wait:g} s if it stays silent",
                device=self._device,
                wait=wait,
            )
            self._check_after(wait)
