"""
The tree of services.
"""

from __future__ import annotations

from pathlib import Path

from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from tests.support.separated import Dialect
from usbgate.config.settings import DeviceSettings, HttpSettings, Settings
from usbgate.daemon.clock import SystemClock
from usbgate.tap import build


class BuildTests(SynchronousTestCase):
    """
    What the settings say reaches the parts.
    """

    def test_dialect_options(self) -> None:
        """
        Each device has a dialect of its own, made with the device's options.
        """
        self.patch(Dialect, "separators", [])
        devices = {
            name: DeviceSettings(
                path=f"/dev/{name}", dialect="tests.support.separated", options={"separator": separator}
            )
            for name, separator in [("one", "|"), ("other", ",")]
        }
        settings = Settings(state=Path(self.mktemp()), database="none", http=HttpSettings(listen="none"))
        build(MemoryReactorClock(), SystemClock(), settings, devices)
        self.assertEqual(Dialect.separators, ["|", ","])
