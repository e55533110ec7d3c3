"""
The cache of committed batches: its limit, reading back, and rows dropped on disk.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from usbgate.core.batch import START, Batch, Mark, encode
from usbgate.store.journal.readahead import MERGE_ROWS, ReadAhead
from usbgate.testing import reading, rows_of


def batch(first: int, rows: int = 10) -> Batch:
    """
    Make a batch of readings, numbered from `first`.
    """
    return encode(first, [reading(at=1000)] * rows)


class ReadAheadTests(SynchronousTestCase):
    """
    A cache with room for three batches.
    """

    def setUp(self) -> None:
        """
        Create the cache.
        """
        self.cache = ReadAhead(3 * batch(101).memory)

    def test_room(self) -> None:
        """
        Beyond the limit nothing is cached until all that was left on disk is read back.
        """
        self.cache.committed([batch(101 + 10 * n) for n in range(5)])
        self.assertEqual((self.cache.loaded, self.cache.rows, self.cache.behind), (130, 30, True))
        self.assertEqual(self.cache.memory, 3 * batch(101).memory)
        self.cache.next()
        self.assertEqual((self.cache.memory, self.cache.is_empty), (0, True))
        self.cache.committed([batch(151)])
        self.assertTrue(self.cache.is_empty)
        self.cache.was_read(batch(131, 30), True)
        self.cache.committed([batch(161)])
        self.assertEqual((self.cache.loaded, self.cache.behind), (170, False))

    def test_given_out(self) -> None:
        """
        The same batch, merged up to `MERGE_ROWS`, is returned until it is confirmed.
        """
        self.assertIsNone(self.cache.next())
        self.cache = ReadAhead(1 << 30)
        self.cache.committed([batch(1), batch(11, MERGE_ROWS - 10), batch(MERGE_ROWS + 1)])
        taken = self.cache.next()
        assert taken is not None
        self.assertEqual((taken.first, taken.last), (1, MERGE_ROWS))
        self.assertIs(self.cache.next(), taken)
        self.assertEqual((self.cache.confirmed, self.cache.pinned), (START, MERGE_ROWS))
        self.assertTrue(self.cache.confirm(taken))
        self.assertFalse(self.cache.confirm(taken))
        self.assertEqual((self.cache.confirmed, self.cache.pinned), (Mark(MERGE_ROWS, ""), MERGE_ROWS))
        following = self.cache.next()
        assert following is not None
        self.assertEqual((following.first, self.cache.memory), (MERGE_ROWS + 1, 0))

    def test_confirmed_to(self) -> None:
        """
        All rows up to a position are confirmed, also within a batch, and whether or not they are in memory.
        """
        self.cache.committed([batch(101), batch(111)])
        self.cache.next()
        self.cache.committed([batch(121)])
        self.assertEqual(self.cache.confirm_to(Mark(110, "a")), 10)
        rest = self.cache.next()
        assert rest is not None
        self.assertEqual((rest.first, rest.last, rest.rows), (111, 120, 10))
        self.assertEqual((self.cache.confirmed, self.cache.pinned), (Mark(110, "a"), 120))
        self.assertEqual(self.cache.confirm_to(Mark(120, "b")), 10)
        self.assertEqual((self.cache.current, self.cache.rows, self.cache.pinned), (None, 10, 120))
        self.assertEqual(self.cache.confirm_to(Mark(150, "c")), 10)
        self.assertEqual((self.cache.rows, self.cache.memory, self.cache.loaded), (0, 0, 150))
        self.assertIsNone(self.cache.next())

    def test_discarded(self) -> None:
        """
        Rows are removed from the batch in delivery and from those after it; a batch without rows is not delivered.
        """
        self.cache.committed([batch(101)])
        self.cache.next()
        self.cache.committed([batch(111), batch(121)])
        self.assertEqual(self.cache.discard({101, 102, *range(111, 121), 129, 200}), 13)
        found = [list(rows_of(each)) for each in self.cache.batches]
        self.assertEqual(found, [list(range(103, 111)), [*range(121, 129), 130]])
        self.assertEqual(self.cache.memory, self.cache.batches[1].memory)
        self.cache.discard(range(103, 111))
        self.assertEqual((self.cache.current, self.cache.pinned), (None, 0))
        following = self.cache.next()
        assert following is not None
        self.assertEqual(following.first, 121)

    def test_dropped(self) -> None:
        """
        Rows dropped on disk are lost, cached or not, unless they are in delivery.
        """
        self.cache.committed([batch(101)])
        self.cache.next()
        self.cache.committed([batch(111 + 10 * n) for n in range(4)])
        self.assertEqual(self.cache.drop([(110, 10), (120, 10)]), 10)
        self.assertEqual(self.cache.rows, 30)
        self.assertEqual(self.cache.drop([(130, 10), (140, 10), (150, 10)]), 30)
        self.assertEqual((self.cache.rows, self.cache.memory), (10, 0))

    def test_dropped_in_part(self) -> None:
        """
        A cached batch that was merged from several on disk is not lost while one of them is left.
        """
        self.cache.was_read(batch(101, 30), True)
        self.assertEqual(self.cache.drop([(110, 10), (120, 10)]), 0)
        self.assertEqual(self.cache.drop([(130, 10)]), 30)
        self.assertTrue(self.cache.is_empty)
