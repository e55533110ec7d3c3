"""
What the journal and a sink provide.
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
    The durable queue between what is read and what is stored.
    """

    def append(*runs: Sequence[Row]) -> None:
        """
        Take rows in; they are on disk 50 ms and one commit later.

        Args:
            runs: Rows, each of these sequences of one kind. Of what is written at once, rows are numbered in the
                order of `KINDS`, and those of one kind in the order in which they came. A kind that delimits is
                numbered behind all that came in before.
        """


class IOutbox(Interface):
    """
    The delivery's side of the journal: what waits to be stored.
    """

    backlog: int = Attribute("Rows appended and not yet confirmed.")
    rejected: int = Attribute("Rows set aside for good.")

    def oldest() -> Deferred[Batch]:
        """
        Wait for the oldest rows on disk that are not confirmed; the same batch again until it is.

        Returns:
            Fires when there are any, merged up to a good size; cancelling it takes the question back.
        """

    def confirm(batch: Batch) -> None:
        """
        Take note that the batch that `oldest` gave is stored or set aside, whole.
        """

    def reject(row: Batch, reason: str) -> None:
        """
        Set one row aside for good; durable before the `confirm` that covers it.

        Args:
            row: A batch of one row.
            reason: Why the store refused it.
        """


class SinkUnavailable(Exception):
    """
    The store can't be reached or won't take anything now; trying again later is right.
    """


class RowsRefused(Exception):
    """
    The store refused these rows for what they are (SQLSTATE classes 22 and 23, encoding).
    """


class ISink(Interface):
    """
    Where batches are stored for good.
    """

    lost: Callable[[str], None] = Attribute(
        "To be set: called with the reason when the store is lost while nothing is asked of it."
    )

    def connect() -> Deferred[None]:
        """
        Reach the store and make it ready; does nothing where it is.

        Returns:
            Fires when batches can be stored; fails with `SinkUnavailable`.
        """

    def store(batch: Batch) -> Deferred[None]:
        """
        Store a batch whole; storing one twice, or one that overlaps another, is the same as once.

        Returns:
            Fires when it is committed; fails with `SinkUnavailable` or `RowsRefused` (then nothing of it was
            stored).
        """

    def close() -> Deferred[None]:
        """
        Let go of the store, at once whatever it is doing.
        """


class IHistory(Interface):
    """
    What was stored, to be read again.
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

    def history(sensor: str, field: str | None, since: int | None, limit: int) -> Deferred[list[Reading]]:
        """
        Fetch stored readings of a sensor of this gateway, the newest `limit` of them, newest last, by number.

        Args:
            sensor: The sensor's id.
            field: Only this field, upper case; None for all.
            since: Only readings at or after this time (whole milliseconds since 1970, UTC); None for all.
            limit: At most so many, above 0.

        Returns:
            Fails with `SinkUnavailable`.
        """


class IArchive(Interface):
    """
    What was stored, page by page, in sums, and who asked for it.
    """

    def extent(selection: Selection, limit: int | None) -> Deferred[tuple[int, int] | None]:
        """
        Find the numbers of the first and the last of some stored readings of this gateway.

        Args:
            selection: Which ones.
            limit: The newest so many of them, above 0; None for all. Which are the newest, their times say where the
                selection has one, and else their numbers.

        Returns:
            Fires with None where there are none; fails with `SinkUnavailable`.
        """

    def page(selection: Selection, first: int, last: int, limit: int) -> Deferred[list[StoredReading]]:
        """
        Fetch some stored readings of this gateway, by number, oldest first.

        Args:
            selection: Which ones.
            first: None with a lower number.
            last: None with a higher number.
            limit: At most so many, above 0.

        Returns:
            Fails with `SinkUnavailable`.
        """

    def buckets(selection: Selection, width: int, limit: int) -> Deferred[list[Bucket]]:
        """
        Sum up stored numbers of this gateway by intervals, oldest first.

        Args:
            selection: Which ones.
            width: Whole milliseconds that each interval has; they begin at multiples of it since 1970, UTC.
            limit: The newest so many, above 0.

        Returns:
            Fails with `SinkUnavailable`.
        """

    def requests(sensor: str | None, limit: int) -> Deferred[list[StoredRequest]]:
        """
        Fetch requests of this gateway that ended, newest first, by number.

        Args:
            sensor: Only about this sensor; None for all.
            limit: At most so many, above 0.

        Returns:
            Fails with `SinkUnavailable`.
        """
