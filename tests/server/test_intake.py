"""
Work that is put off, and clients that have sent too much.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from usbgate.server.intake import Intake


class ForgivingTests(SynchronousTestCase):
    """
    What goes wrong with one client does not stop the others.
    """

    def setUp(self) -> None:
        """
        Have nothing waiting.
        """
        self.clock = Clock()
        self.intake = Intake(self.clock, 1000, 1000)
        self.called: list[str] = []

    def run_all(self, put_off: Callable[[Callable[[], None]], None]) -> None:
        """
        Put off a call that fails, one that has another one forgotten, that one, and a last one; then let time pass.
        """

        def fails() -> None:
            self.called.append("fails")
            raise RuntimeError("a bug")

        def forgotten() -> None:
            self.called.append("forgotten")

        def forgets() -> None:
            self.called.append("forgets")
            self.assertTrue(self.intake.forget(forgotten))

        for call in (fails, forgets, forgotten, lambda: self.called.append("last")):
            put_off(call)
        self.clock.pump([1.0, 0.0, 0.0])
        self.assertEqual(self.called, ["fails", "forgets", "last"])
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_later(self) -> None:
        """
        In later turns.
        """
        self.run_all(self.intake.later)

    def test_next_second(self) -> None:
        """
        After a second.
        """
        self.run_all(self.intake.next_second)
