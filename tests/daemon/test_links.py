"""
Links in place of our files.
"""

from __future__ import annotations

import os
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from usbgate.daemon.links import foreign_link


class LinkTests(SynchronousTestCase):
    """
    `foreign_link`.
    """

    def test_whose(self) -> None:
        """
        A link of another user is refused, wherever it leads; own ones, files and what is missing are not.
        """
        path = Path(self.mktemp())
        self.assertIsNone(foreign_link(path))
        path.symlink_to("nowhere")
        self.assertIsNone(foreign_link(path))
        other = os.geteuid() + 1
        self.patch(os, "geteuid", lambda: other)
        if path.lstat().st_uid == 0:
            os.lchown(path, other + 1, -1)
        self.assertIn(f"{path} is a link that another user, ", foreign_link(path) or "")
        path.unlink()
        path.write_text("")
        self.assertIsNone(foreign_link(path))
