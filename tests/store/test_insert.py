"""
The statements that insert a batch.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from usbgate.core.batch import encode
from usbgate.core.model import Reading
from usbgate.store.postgres.insert import insert
from usbgate.store.postgres.names import Schema


class InsertTests(SynchronousTestCase):
    """
    What is sent of a column.
    """

    def test_constant_columns(self) -> None:
        """
        Cells that are all the same are sent once, all others as one text, even where they are alike.
        """
        for texts, constant in [
            (("ab", "ab"), "ab"),
            (("", "", ""), ""),
            (("x",), "x"),
            ((None, None), None),
            (("ab", "a"), "ab\na"),
            (("a", "ab"), "a\nab"),
            (("a", ""), "a\n"),
            (("a", "a", "b"), "a\na\nb"),
            (("ab", "abab"), "ab\nabab"),
        ]:
            batch = encode(1, [Reading(1000, "d", "s", "f", None, text, "command", True) for text in texts])
            _, parameters = insert(batch, Schema(), "g", 0)
            self.assertIn(constant, parameters, texts)
            self.assertEqual(any("\n" in str(each) for each in parameters), "\n" in str(constant), texts)
