"""
Clients that sent a wrong token: how long they wait, and what is logged and recorded of them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from twisted.application.service import Service
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from usbgate.core.containers import BoundedDict
from usbgate.core.holders import network_of
from usbgate.core.loglimit import LogLimit
from usbgate.core.model import Action

# After a wrong token, a client waits: twice as long after each further one from the same address. This is for programs
# with an old token, which must not take the processor's time; guessing 256 bits is hopeless anyway. So a valid token is
# never delayed, whatever others at its address do.
FIRST_DELAY = 0.1  # seconds
LONGEST_DELAY = 5.0  # seconds
FORGET_AFTER = 60.0  # seconds after which a failure no longer counts
ADDRESSES_LIMIT = 1024  # of failures that are remembered: 200 kB

# Strangers must not make the database grow: with these, it grows by 4 MB a day at most.
RECORD_INTERVAL = 60.0  # seconds in which further failures of an address are one row
RECORDED_ADDRESSES = 16  # that have rows of their own
OTHERS = "others"  # the address of all others


class _Waits(NamedTuple):
    # Of one address: how many failures, one after the other, and when the last one was.
    number: int
    last: float


class Failures(Service):
    """
    All wrong tokens, at all front ends; they are recorded while this service runs.
    """

    log = Logger()

    def __init__(self, reactor: IReactorTime, record: Callable[[Action], None]) -> None:
        """
        Args:
            reactor: For time.
            record: Records a failure.
        """
        self._reactor = reactor
        self._record = record
        self._waits: BoundedDict[str, _Waits] = BoundedDict(ADDRESSES_LIMIT)
        self._log_limit = LogLimit()
        self._unrecorded: dict[str, int] = {}  # by address, since its last row
        self._timer: IDelayedCall | None = None

    def add(self, host: str, client: str, command: str, why: str) -> None:
        """
        A client has sent a wrong token.

        Args:
            host: Its address.
            client: How it is recorded: its address and port, behind the name of its token or user.
            command: What it wanted by it.
            why: What is wrong.
        """
        now = self._reactor.seconds()
        before = self._waits.get(host)
        count = before.number if before is not None and now - before.last < FORGET_AFTER else 0
        self._waits.remember(host, _Waits(count + 1, now))
        self.log_failure(host, why)
        if self.running:
            self._record_or_count(host, client, command)

    def forget(self, host: str) -> None:
        """
        A client at this address has sent a valid token: let it wait for nothing.
        """
        self._waits.pop(host, None)

    def delay(self, host: str) -> float:
        """
        Return for how many seconds a client that has sent a wrong token gets nothing done.
        """
        waits = self._waits.get(host)
        return 0.0 if waits is None else min(FIRST_DELAY * 2 ** min(waits.number - 1, 16), LONGEST_DELAY)

    def log_failure(self, host: str, why: str) -> None:
        """
        Log that a token was not accepted; once a minute.
        """
        count = self._log_limit.add(self._reactor.seconds())
        if count:
            self.log.warn(
                "{count} failed authentication(s), the last from {host}: {why}", count=count, host=host, why=why
            )

    def stopService(self) -> None:
        """
        Record what is not recorded yet.
        """
        super().stopService()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
            self._record_counts()

    def _record_or_count(self, host: str, client: str, command: str) -> None:
        network = network_of(host)
        if network not in self._unrecorded and len(self._unrecorded) >= RECORDED_ADDRESSES:
            network = OTHERS
        if network in self._unrecorded:
            self._unrecorded[network] += 1
            return
        self._unrecorded[network] = 0
        self._record(Action(command, client, host, outcome="denied"))
        if self._timer is None:
            self._timer = self._reactor.callLater(RECORD_INTERVAL, self._interval_over)

    def _interval_over(self) -> None:
        self._record_counts()
        self._timer = self._reactor.callLater(RECORD_INTERVAL, self._interval_over) if self._unrecorded else None

    def _record_counts(self) -> None:
        counts = {network: count for network, count in self._unrecorded.items() if count}
        self._unrecorded = dict.fromkeys(counts, 0)
        for network, count in counts.items():
            self._record(Action("auth", network, network, {"COUNT": str(count)}, outcome="denied"))
