"""
Batches that wait for the delivery: what is in memory, what must be read back, what is lost when the disk drops some.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from usbgate.core.batch import Batch, encode
from usbgate.store.journal.readahead import MERGE_ROWS, ReadAhead, memory_of
from usbgate.testing import reading


def batch(first: int, rows: int = 10) -> Batch:
    """
    Make a batch of readings, numbered from `first`.
    """
    return encode(first, [reading(at=1000)] * rows)


class ShelfTests(SynchronousTestCase):
    """
    A shelf with room for three batches.
    """

    def setUp(self) -> None:
        """
        Build it.
        """
        self.shelf = ReadAhead(3 * memory_of(batch(101)))

    def test_room(self) -> None:
        """
        Beyond the room nothing is kept, until all that was left on disk is read back.
        """
        self.shelf.committed([batch(101 + 10 * n) for n in range(5)])
        self.assertEqual((self.shelf.loaded, self.shelf.rows, self.shelf.behind), (130, 30, True))
        self.assertEqual(self.shelf.size, 3 * memory_of(batch(101)))
        self.shelf.take()
        self.assertEqual((self.shelf.size, self.shelf.is_empty), (0, True))
        self.shelf.committed([batch(151)])
        self.assertTrue(self.shelf.is_empty)
        self.shelf.was_read(batch(131, 30), True)
        self.shelf.committed([batch(161)])
        self.assertEqual((self.shelf.loaded, self.shelf.behind), (170, False))

    def test_given_out(self) -> None:
        """
        The same batch is given out until it is confirmed, merged of several up to a size.
        """
        self.assertIsNone(self.shelf.take())
        self.shelf = ReadAhead(1 << 30)
        self.shelf.committed([batch(1), batch(11, MERGE_ROWS - 10), batch(MERGE_ROWS + 1)])
        taken = self.shelf.take()
        assert taken is not None
        self.assertEqual((taken.first, taken.last), (1, MERGE_ROWS))
        self.assertIs(self.shelf.take(), taken)
        self.assertEqual((self.shelf.confirmed, self.shelf.given_out), (0, MERGE_ROWS))
        self.assertTrue(self.shelf.confirm(taken))
        self.assertFalse(self.shelf.confirm(taken))
        self.assertEqual((self.shelf.confirmed, self.shelf.given_out), (MERGE_ROWS, MERGE_ROWS))
        following = self.shelf.take()
        assert following is not None
        self.assertEqual((following.first, self.shelf.size), (MERGE_ROWS + 1, 0))

    def test_dropped(self) -> None:
        """
        What the disk drops is lost, in memory and beyond; but for what is being stored already.
        """
        self.shelf.committed([batch(101)])
        self.shelf.take()
        self.shelf.committed([batch(111 + 10 * n) for n in range(4)])
        self.assertEqual(self.shelf.drop([(110, 10), (120, 10)]), 10)
        self.assertEqual(self.shelf.rows, 30)
        self.assertEqual(self.shelf.drop([(130, 10), (140, 10), (150, 10)]), 30)
        self.assertEqual((self.shelf.rows, self.shelf.size), (10, 0))

    def test_dropped_in_part(self) -> None:
        """
        A batch in memory, merged of several on disk, is not lost as long as a part of it is there.
        """
        self.shelf.was_read(batch(101, 30), True)
        self.assertEqual(self.shelf.drop([(110, 10), (120, 10)]), 0)
        self.assertEqual(self.shelf.drop([(130, 10)]), 30)
        self.assertTrue(self.shelf.is_empty)
