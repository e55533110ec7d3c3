"""
The status of usbgate, and what it has counted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from usbgate.core.calibration import Implausible
from usbgate.core.uncompared import Uncompared


@dataclass(frozen=True, slots=True)
class StoreStatus:
    """
    The status of the database and of the delivery to it.

    Attributes:
        state: `none`, `connecting`, `connected` or `away`.
        gateway: The name under which this daemon stores; None where nothing is stored.
        backlog: Rows that wait to be stored.
        rejected: Rows that the database refused for good.
        oldest: When the oldest row that is just being stored was read: whole milliseconds since 1970, UTC; None if
            nothing is.
        trouble: Why nothing can be stored at present; None where all is well.
    """

    state: str = "none"
    gateway: str | None = None
    backlog: int = 0
    rejected: int = 0
    oldest: int | None = None
    trouble: str | None = None


@dataclass(frozen=True, slots=True)
class JournalStatus:
    """
    The status of the journal.

    Attributes:
        trouble: Why nothing can be written at present; None where all is well.
        commits: Commits since usbgate started.
        slowest_commit: Seconds that the slowest of them took.
        written: Bytes written to the disk since usbgate started; None if the system does not count them.
        daily: Bytes written in the last 24 hours, extrapolated during the first day; None as above.
        lost: Rows that had to be dropped.
    """

    trouble: str | None = None
    commits: int = 0
    slowest_commit: float = 0.0
    written: int | None = None
    daily: int | None = None
    lost: int = 0


@dataclass(frozen=True, slots=True)
class BrokerStatus:
    """
    The status of the connection to an MQTT broker.

    Attributes:
        state: `connecting`, `connected`, `away`, or `refused` until somebody changes a setting, here or there.
        published: Messages published.
        dropped: Messages that were not: the broker was away, or did not take them in time.
        refused: Messages and subscriptions that the broker does not permit.
        unasked: Questions and commands of its clients that usbgate has refused.
        trouble: Why it is not connected; None where all is well.
    """

    state: str = "connecting"
    published: int = 0
    dropped: int = 0
    refused: int = 0
    unasked: int = 0
    trouble: str | None = None


@dataclass(frozen=True, slots=True)
class Status:
    """
    The status of usbgate.

    Attributes:
        version: The release.
        uptime: Seconds since it started.
        clock_trusted: Whether the wall clock can be right.
        sensors: How many sensors are known.
        in_flight: How many requests wait for an answer.
        store: The database.
        journal: The journal; None where nothing is stored.
        unsure: By device, the sensors that answer with neither MSG nor TAG, so that an unasked reading can pass for an
            answer (protocol §4.6).
        uncompared: The alarm conditions with which the newest readings can't be compared (protocol §5).
        broker: The MQTT broker; None where none is configured.
        implausible: The fields of which readings were outside of `min` to `max` (protocol §3, Calibration).
        held: How many requests are held until their sensors report.
    """

    version: str
    uptime: float
    clock_trusted: bool
    sensors: int
    in_flight: int
    store: StoreStatus
    journal: JournalStatus | None
    unsure: Mapping[str, Sequence[str]]
    uncompared: Sequence[Uncompared]
    broker: BrokerStatus | None = None
    implausible: Sequence[Implausible] = ()
    held: int = 0


@dataclass(frozen=True, slots=True)
class Totals:
    """
    What was counted since usbgate started.

    Attributes:
        readings: Readings received.
        outcomes: Requests that ended, by outcome.
        malformed: Malformed lines, by reason.
        latencies: Requests that a device answered: how many took at most that many seconds, ascending, the last one
            infinity.
        latency_sum: Their total, in seconds.
    """

    readings: int
    outcomes: Mapping[str, int]
    malformed: Mapping[str, int]
    latencies: Sequence[tuple[float, int]]
    latency_sum: float
