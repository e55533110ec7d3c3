"""
The manual pages in docs/man.
"""

from __future__ import annotations

import shutil
import subprocess

import click
from twisted.trial.unittest import SkipTest, SynchronousTestCase

from tests.support.manual import FOLDER, pages
from tests.support.waiting import LIMIT
from usbgate.cli.main import main


class ManualTests(SynchronousTestCase):
    """
    They are made from the help of the commands.
    """

    def test_current(self) -> None:
        """
        Each page is what the help says now; `python -m tests.support.manual` writes them.
        """
        found = dict(pages())
        self.assertEqual({*found}, {*FOLDER.iterdir()})
        for path, page in found.items():
            self.assertEqual(path.read_text(), page, "run: python -m tests.support.manual")

    def test_whole(self) -> None:
        """
        Every command is in the page, and groff has nothing to complain of.
        """
        if shutil.which("groff") is None:
            raise SkipTest("groff is not installed")
        for path, page in pages():
            shown = subprocess.run(
                ["groff", "-man", "-Tutf8", "-Kutf8", "-ww", "-rLL=10000n", "-P-cbou"],
                input=page.encode(),
                capture_output=True,
                check=True,
                timeout=LIMIT,
            )
            self.assertEqual(shown.stderr, b"", path)
            for name in main.list_commands(click.Context(main)) if path.stem == "usbgate" else ():
                self.assertIn(f"   usbgate {name} [OPTIONS]", shown.stdout.decode())
