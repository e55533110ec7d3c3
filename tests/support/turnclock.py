"""
A clock for work that is spread over reactor turns.
"""

from __future__ import annotations

from twisted.internet.task import Clock


class TurnClock(Clock):
    """
    A clock that a test moves one reactor turn at a time.
    """

    def spend(self, seconds: float) -> None:
        """
        Let a call take some time.
        """
        self.rightNow += seconds

    def turn(self) -> None:
        """
        Make the calls that are due now, but not those that they schedule.
        """
        for call in [call for call in self.calls if call.getTime() <= self.seconds()]:
            self.calls.remove(call)
            call.called = 1
            call.func(*call.args, **call.kw)
