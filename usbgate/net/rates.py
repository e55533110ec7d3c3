"""
How much each peer address, and each token, may have done in a second.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil

from twisted.internet.interfaces import IReactorTime

from usbgate.core.containers import BoundedDict
from usbgate.core.errors import LimitExceeded
from usbgate.core.holders import network_of
from usbgate.net.places import is_local

BURST = 10.0  # seconds' worth that may come at once: a script that asks for all sensors, a page that is loaded
PAYERS_LIMIT = 4096  # addresses and tokens that are remembered: 1 MB


def payers(host: str, token: str | None) -> Sequence[str]:
    """
    Return for whom what a client does counts: its address (of IPv6, its /64 network) and its token. All users of this
    machine share its addresses, so these do not count.

    Args:
        host: The address of its peer.
        token: The name of its token; None for none.
    """
    of_address = () if is_local(host) else (network_of(host),)
    return of_address if token is None else (*of_address, f"token {token}")


class Rates:
    """
    One limit, for each payer: a bucket that fills with time, and is empty after `burst` seconds' worth.
    """

    def __init__(self, reactor: IReactorTime, per_second: float, burst: float = BURST) -> None:
        """
        Args:
            reactor: For the time.
            per_second: The most that each payer may take in a second, on average.
            burst: For how many seconds it may take in advance.
        """
        self.per_second = per_second
        self._reactor = reactor
        self._burst = burst
        self._full: BoundedDict[str, float] = BoundedDict(PAYERS_LIMIT)  # by payer, when its bucket is full again

    def take(self, of: Sequence[str], amount: float = 1.0) -> float:
        """
        Take from all payers; from none, if one has not enough.

        Args:
            of: The payers.
            amount: How much.

        Returns:
            Seconds until all have enough; 0.0 if it was taken.
        """
        now = self._reactor.seconds()
        cost = amount / self.per_second
        until = {payer: max(self._full.get(payer, now), now) + cost for payer in of}
        wait = max(until.values(), default=now) - now - max(self._burst, cost)
        if wait > 0:
            return wait
        for payer, full in until.items():
            self._full.remember(payer, full)
        return 0.0

    def check(self, of: Sequence[str]) -> None:
        """
        Take one.

        Raises:
            LimitExceeded: There is not enough; it says how long to wait.
        """
        if of and (wait := self.take(of)) > 0:
            whose = "with this token" if of[-1].startswith("token ") else "of this address"
            raise LimitExceeded(f"more than {self.per_second:g} requests in a second {whose}", wait=ceil(wait))
