"""
Interfaces of the journal and of the stores.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple

from twisted.internet.defer import Deferred
from zope.interface import Attribute, Interface

from usbgate.core.batch import Batch, Mark
from usbgate.core.model import (
    Alarm,
    Bucket,
    Range,
    Reading,
    Row,
    Selection,
    StoredAlarm,
    StoredReading,
    StoredRequest,
    StoredState,
)
from usbgate.core.replacements import Replacement


class Refusal(NamedTuple):
    """
    A row whose data the store refused (SQLSTATE classes 22 and 23, encoding).

    Attributes:
        row: A batch of one row.
        reason: Why.
    """

    row: Batch
    reason: str


class IJournal(Interface):
    """
    The durable queue between devices and store.
    """

    def append(*runs: Sequence[Row]) -> None:
        """
        Append rows; they are on disk 50 ms and one commit later.

        Args:
            runs: Sequences of rows, each of one kind. Rows committed together are numbered in the order of `KINDS`,
                and within a kind in the order in which they were appended. A row of a kind that delimits is numbered
                after all rows appended before it.
        """


class IOutbox(Interface):
    """
    The consumer side of the journal: rows to be stored.
    """

    backlog: int = Attribute("Rows appended and not yet confirmed.")
    rejected: int = Attribute("Rows rejected and kept in the journal.")

    def oldest() -> Deferred[Batch]:
        """
        Wait for the oldest unconfirmed rows on disk; returns the same batch until it is confirmed.

        Returns:
            Fires when there are any, merged up to a suitable size; cancelling it withdraws the request.
        """

    def confirm(batch: Batch) -> None:
        """
        Confirm that the batch returned by `oldest` is completely stored or rejected.
        """

    def reject(rows: Sequence[Refusal]) -> Deferred[None]:
        """
        Set rows aside permanently.

        Returns:
            Fires when they are on disk; fails with `SinkUnavailable`.
        """


class Identity(NamedTuple):
    """
    What a sink needs to know of a journal.

    Attributes:
        journal: Its uuid.
        base: What is added to its numbers in the database; None if it never reached one.
        done: Its rows up to this mark are stored or rejected.
        sent: The highest number of a row that may have been sent to a database.
    """

    journal: str
    base: int | None
    done: Mark
    sent: int


class IChain(Interface):
    """
    The identity and the history of a journal, by which a sink recognizes which of its rows it has.

    Every Deferred of it fails with `SinkUnavailable` if the disk refuses.
    """

    identity: Identity = Attribute("The present identity.")

    def find(mark: Mark) -> Deferred[bool]:
        """
        Look for a position in the history of this journal, `Identity.done` or later; if there is one, confirm all
        rows before it.

        Returns:
            Fires with whether it was found.
        """

    def waiting(after: int) -> Deferred[Batch | None]:
        """
        Read the oldest unconfirmed rows behind a number.

        Returns:
            Fires with a batch of some of them, or with None if there are none.
        """

    def discard(numbers: Collection[int]) -> Deferred[None]:
        """
        Remove unconfirmed rows that are stored already.

        Returns:
            Fires when that is on disk.
        """

    def begin(journal: str, base: int) -> Deferred[None]:
        """
        Begin or change the identity; the rows keep their numbers and marks.

        Args:
            journal: The uuid.
            base: What is to be added to the numbers of unconfirmed rows.

        Returns:
            Fires when that is on disk.
        """


class SinkUnavailable(Exception):
    """
    The store is unreachable or refuses writes at present; retry later.
    """


# Sets rows aside; its result fires when they are on disk.
Reject = Callable[[Sequence[Refusal]], Deferred[None]]


class ISink(Interface):
    """
    Permanent storage for batches.
    """

    lost: Callable[[str], None] = Attribute("To be set: called with the reason when the store is lost during no call.")

    def connect() -> Deferred[None]:
        """
        Connect to the store and prepare it; confirm rows that it has already. A no-op if connected.

        Returns:
            Fires when batches can be stored; fails with `SinkUnavailable`.
        """

    def store(batch: Batch, reject: Reject) -> Deferred[None]:
        """
        Store a batch, except for the rows that are themselves at fault, in one transaction.

        Args:
            batch: The oldest unconfirmed rows; the same rows never come again after they were stored, unless the
                confirmation was lost (see `IChain.find`).
            reject: Sets rows aside; to be awaited before the transaction is committed.

        Returns:
            Fires when it is committed; fails with `SinkUnavailable`, also if the store was lost since `connect`: then
            the batch may be stored already.
        """

    def close() -> Deferred[None]:
        """
        Disconnect from the store at once, aborting any operation.
        """


class IStore(Interface):
    """
    Read access to the stored rows of this gateway.
    """

    def latest() -> Deferred[list[Reading]]:
        """
        Fetch the newest reading of each field of each sensor of this gateway, by number; oldest first. What a successor
        sent before it replaced a sensor is the sensor's, so there may be two of a field.

        Returns:
            Fails with `SinkUnavailable`.
        """

    def alarms() -> Deferred[list[Alarm]]:
        """
        Fetch the open alarms of this gateway, oldest first.

        Returns:
            Fails with `SinkUnavailable`.
        """

    def owners() -> Deferred[dict[str, str]]:
        """
        Fetch the devices that own the sensors of this gateway, by sensor: where a sensor was passed on, the one to
        which it was passed last, else the one that claimed it first.

        Returns:
            Fails with `SinkUnavailable`.
        """

    def replacements() -> Deferred[list[Replacement]]:
        """
        Fetch the replacements of sensors of this gateway that hold, oldest first.

        Returns:
            Fails with `SinkUnavailable`.
        """

    def history(selection: Selection, limit: int) -> Deferred[list[Reading]]:
        """
        Fetch the newest stored readings of a sensor of this gateway, newest last, by number.

        Args:
            selection: Selects the readings; without `until`.
            limit: Maximum number of rows, above 0.

        Returns:
            Fails with `SinkUnavailable`.
        """

    def extent(selection: Selection, limit: int | None) -> Deferred[tuple[int, int] | None]:
        """
        Return the numbers of the first and last selected readings of this gateway.

        Args:
            selection: Selects the readings.
            limit: Only the newest `limit` readings, above 0; None for all. Ordered by time if the selection has a time
                range, otherwise by number.

        Returns:
            Fires with None if there are none; fails with `SinkUnavailable`.
        """

    def page(selection: Selection, first: int, last: int, limit: int) -> Deferred[list[StoredReading]]:
        """
        Fetch a page of stored readings of this gateway, by number, oldest first.

        Args:
            selection: Selects the readings.
            first: Lowest number.
            last: Highest number.
            limit: Maximum number of rows, above 0.

        Returns:
            Fails with `SinkUnavailable`.
        """

    def buckets(selection: Selection, width: int, limit: int) -> Deferred[list[Bucket]]:
        """
        Aggregate stored numeric readings of this gateway by interval and device, oldest first.

        Args:
            selection: Selects the readings.
            width: Interval width in whole milliseconds; intervals are aligned to 1970, UTC.
            limit: Only the newest `limit` buckets, above 0.

        Returns:
            Fails with `SinkUnavailable`.
        """

    def states(selection: Selection, limit: int) -> Deferred[list[StoredState]]:
        """
        Merge equal readings of a field and device in a row, oldest first; across a gap, which is 5 times as long as
        most intervals between readings, they are two. The last reading before the time range counts, too.

        Args:
            selection: Selects the readings; of each field, only the newest 200,000.
            limit: Only the newest `limit` states, above 0.

        Returns:
            Fails with `SinkUnavailable`.
        """

    def past_alarms(
        sensors: Sequence[str] | None,
        since: int | None,
        until: int | None,
        limit: int,
        ranges: Sequence[Range] = (),
    ) -> Deferred[list[StoredAlarm]]:
        """
        Fetch alarms of this gateway, open and closed, newest first.

        Args:
            sensors: Only of these sensors; None for all.
            since: Only those that had not ended at this time: whole milliseconds since 1970, UTC; None for all.
            until: Only those raised before this time; None for all.
            limit: Maximum number of alarms, above 0.
            ranges: In which numbers of these fields a peak may lie; if what is shown is falling, it is the other end.

        Returns:
            Fails with `SinkUnavailable`.
        """

    def requests(sensors: Sequence[str] | None, limit: int) -> Deferred[list[StoredRequest]]:
        """
        Fetch completed requests of this gateway, newest first, by number.

        Args:
            sensors: Only requests for these sensors; None for all.
            limit: Maximum number of rows, above 0.

        Returns:
            Fails with `SinkUnavailable`.
        """
