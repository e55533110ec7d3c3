"""
Tables that outlive restarts.
"""

from __future__ import annotations

from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from usbgate.daemon.kept import KeptTable


class KeptTableTests(SynchronousTestCase):
    """
    A table in a folder.
    """

    def setUp(self) -> None:
        """
        Choose a file.
        """
        self.file = Path(self.mktemp()) / "kept" / "board.json"

    def test_kept(self) -> None:
        """
        What was set is there for the next one; nothing is written before.
        """
        table = KeptTable(self.file)
        self.assertEqual(dict(table), {})
        self.assertFalse(self.file.parent.exists())
        table["1"] = "é"
        table["2"] = "b"
        del table["2"]
        self.assertEqual(dict(KeptTable(self.file)), {"1": "é"})
        self.assertEqual(list(self.file.parent.iterdir()), [self.file])

    def test_damaged(self) -> None:
        """
        A file that is no such table is logged, and the table begins anew.
        """
        self.file.parent.mkdir(parents=True)
        for text in ("{", "[1]", "\udc80"):
            self.file.write_bytes(text.encode("utf-8", "surrogateescape"))
            table = KeptTable(self.file)
            self.assertEqual(len(table), 0)
            table["1"] = "a"
            self.assertEqual(dict(KeptTable(self.file)), {"1": "a"})

    def test_no_disk(self) -> None:
        """
        Where nothing can be written, what was set holds until the end.
        """
        self.file.parent.parent.mkdir()
        self.file.parent.touch()
        table = KeptTable(self.file)
        table["1"] = "a"
        self.assertEqual(dict(table), {"1": "a"})
