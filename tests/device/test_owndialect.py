"""
A dialect in a package of one's own: the example of docs/dialects.md, in a temporary folder.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.support.links import MemoryEndpoint
from tests.support.running import ROOT
from usbgate.core.model import Send
from usbgate.device.finddialect import make_dialect
from usbgate.device.link import Link
from usbgate.testing import RecordingListener, report, request

PAGE = (ROOT / "docs" / "dialects.md").read_text()


class OwnDialectTests(SynchronousTestCase):
    """
    It is found by its dotted name, and its tests pass.
    """

    def setUp(self) -> None:
        """
        Write the package, and let Python find it.
        """
        folder = Path(self.mktemp())
        (folder / "myscales").mkdir(parents=True)
        (folder / "myscales" / "__init__.py").touch()
        self.module, self.tests = re.findall(r"(?s)```python\n(.*?)```", PAGE)
        (folder / "myscales" / "dialect.py").write_text(self.module)
        self.patch(sys, "path", [str(folder), *sys.path])
        self.addCleanup(sys.modules.pop, "myscales", None)
        self.addCleanup(sys.modules.pop, "myscales.dialect", None)

    def test_documented(self) -> None:
        """
        The tests in the documentation pass, and would not for another dialect.
        """
        exec(self.tests, {})
        self.assertRaises(AssertionError, exec, self.tests.replace("123.50g", "123.5g"), {})

    def test_link(self) -> None:
        """
        A link reads and writes by it.
        """
        clock, device, listener = Clock(), MemoryEndpoint(), RecordingListener()
        dialect = make_dialect("myscales.dialect", {})
        dialect.device = "scales"
        link = Link(clock, device, "scales", "/dev/scales", dialect)
        link.listener = listener
        link.startService()
        self.addCleanup(link.stopService)
        link.send([Send(request("scales"), None, 5.0)])
        self.assertEqual(device.transport.value(), b"Q\r\n")
        device.say(b"+00\r\nST,+00123.45  g\r\n")
        self.assertEqual(
            listener.calls[1:],
            [("malformed", b"+00", "partial"), ("reports", report("scales", STATE="ST", WEIGHT="+00123.45g"))],
        )
