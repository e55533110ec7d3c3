"""
What the documentation says of the tests is true.
"""

from __future__ import annotations

import re
from importlib import import_module

from twisted.trial.unittest import SynchronousTestCase

from tests.support.running import ROOT

FAULTS = (ROOT / "docs" / "faults.md").read_text()


class FaultsPageTests(SynchronousTestCase):
    """
    docs/faults.md.
    """

    def test_names(self) -> None:
        """
        Every test that is named exists; a class that is named has tests.
        """
        names = re.findall(r"`((?:\w+\.)*test_\w+)\.(\w+)(?:\.(\w+))?`", FAULTS)
        self.assertGreater(len(names), 70)
        for module, owner, test in names:
            case = getattr(import_module(f"tests.{module}"), owner, None)
            tests = [name for name in dir(case) if name.startswith("test_")]
            self.assertTrue(test in tests if test else tests, f"there is no {module}.{owner} {test}")

    def test_variables(self) -> None:
        """
        Every variable of the environment that a test asks for is named, and no other.
        """
        asked = {
            name
            for path in ROOT.glob("tests/**/*.py")
            for name in re.findall(r'environ\.get\("(USBGATE_\w+)"', path.read_text())
        }
        self.assertEqual(set(re.findall(r"USBGATE_\w+", FAULTS)), asked)
