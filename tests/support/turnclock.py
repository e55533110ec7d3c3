"""
A clock for what must not all be done in one turn of the reactor.
"""

from __future__ import annotations

from twisted.internet.task import Clock


class TurnClock(Clock):
    """
    A clock whose turns can be taken one at a time.
    """

    def turn(self) -> None:
        """
        Call what is due now, and not what that schedules.
        """
        for call in [call for call in self.calls if call.getTime() <= self.seconds()]:
            self.calls.remove(call)
            call.called = 1
            call.func(*call.args, **call.kw)
