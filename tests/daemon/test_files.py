"""
Files of the state folder.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from usbgate.daemon.files import replace_file


class ReplaceTests(SynchronousTestCase):
    """
    What a power cut may undo.
    """

    def test_durable(self) -> None:
        """
        A durable file is on the disk before it takes its place, and its name is when the call returns; another one
        costs no sync.
        """
        path = Path(self.mktemp())
        calls: list[str] = []
        sync, replace = os.fsync, os.replace

        def noting(what: Callable[..., str], call: Callable[..., None]) -> Callable[..., None]:
            def noted(*arguments: Any) -> None:
                calls.append(what(*arguments))
                call(*arguments)

            return noted

        def kind(descriptor: int) -> str:
            return "folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file"

        self.patch(os, "fsync", noting(kind, sync))
        self.patch(os, "replace", noting(lambda old, new: "name", replace))
        for durable, expected in (True, ["file", "name", "folder"]), (False, ["name"]):
            replace_file(path, b"x", durable=durable)
            self.assertEqual(calls, expected)
            calls.clear()
        self.assertEqual(path.read_bytes(), b"x")
