"""
The file of replacements in the state folder.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.trial.unittest import TestCase

from usbgate.core.replacements import Replacement
from usbgate.daemon.replacementfile import FILE, ReplacementFile

MADE = Replacement(sensor="20", successor="é:1", device="uno", since=1, at=2, who="me")


class ReplacementFileTests(TestCase):
    """
    `ReplacementFile`.
    """

    def setUp(self) -> None:
        """
        Create a folder.
        """
        self.folder = Path(self.mktemp())
        self.folder.mkdir()
        self.file = ReplacementFile(reactor, self.folder)

    async def test_kept(self) -> None:
        """
        What is kept is found again, and what was kept before is gone; nothing else is left in the folder.
        """
        self.assertIsNone(self.file.load())
        for kept in ([MADE, MADE], [MADE], []):
            await self.file.keep(kept)
            self.assertEqual(ReplacementFile(reactor, self.folder).load(), kept)
        self.assertEqual([each.name for each in self.folder.iterdir()], [FILE])

    async def test_not_kept(self) -> None:
        """
        A disk that refuses is an error, and leaves what was there.
        """
        await self.file.keep([MADE])
        (self.folder / f"{FILE}.new").mkdir()
        refused: Any = self.assertFailure(self.file.keep([]), OSError)
        await refused
        self.assertEqual(self.file.load(), [MADE])

    def test_damaged(self) -> None:
        """
        A file that cannot be read counts as none, that is, the database is asked.
        """
        for damaged in (b"", b"[{}]", b"\xff", b'[{"sensor": "\xff"}]'):
            (self.folder / FILE).write_bytes(damaged)
            self.assertIsNone(self.file.load())
