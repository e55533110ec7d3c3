"""
Interfaces of the journal and of the stores.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from twisted.internet.defer import Deferred
from zope.interface import Attribute, Interface

from usbgate.core.batch import Batch
from usbgate.core.model import (
    Alarm,
    Bucket,
    Reading,
    Row,
    Selection,
    StoredReading,
    StoredRequest,
)


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

    def reject(row: Batch, reason: str) -> None:
        """
        Reject one row permanently; durable before the `confirm` that covers it.

        Args:
            row: A batch of one row.
            reason: Why the store refused it.
        """


class SinkUnavailable(Exception):
    """
    The store is unreachable or refuses writes at present; retry later.
    """


class RowsRefused(Exception):
    """
    The store refused the data of these rows (SQLSTATE classes 22 and 23, encoding).
    """


class ISink(Interface):
    """
    Permanent storage for batches.
    """

    lost: Callable[[str], None] = Attribute("To be set: called with the reason when the store is lost during no call.")

    def connect() -> Deferred[None]:
        """
        Connect to the store and prepare it; a no-op if connected.

        Returns:
            Fires when batches can be stored; fails with `SinkUnavailable`.
        """

    def store(batch: Batch) -> Deferred[None]:
        """
        Store a batch atomically and idempotently, even if it overlaps an earlier one.

        Returns:
            Fires when it is committed. Fails with `SinkUnavailable`, or with `RowsRefused` if nothing of it was stored.
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
        Fetch the newest reading of each field of each sensor of this gateway, by number; oldest first.

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

    def history(sensor: str, field: str | None, since: int | None, limit: int) -> Deferred[list[Reading]]:
        """
        Fetch stored readings of a sensor of this gateway, the newest `limit` of them, newest last, by number.

        Args:
            sensor: The sensor's id.
            field: Only this field, upper case; None for all.
            since: Only readings at or after this time (whole milliseconds since 1970, UTC); None for all.
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
        Aggregate stored numeric readings of this gateway by interval, oldest first.

        Args:
            selection: Selects the readings.
            width: Interval width in whole milliseconds; intervals are aligned to 1970, UTC.
            limit: Only the newest `limit` buckets, above 0.

        Returns:
            Fails with `SinkUnavailable`.
        """

    def requests(sensor: str | None, limit: int) -> Deferred[list[StoredRequest]]:
        """
        Fetch completed requests of this gateway, newest first, by number.

        Args:
            sensor: Only requests for this sensor; None for all.
            limit: Maximum number of rows, above 0.

        Returns:
            Fails with `SinkUnavailable`.
        """
