"""
The system's clocks, and whether the wall clock can be right.
"""

from __future__ import annotations

import time

from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from usbgate.core.clock import IClock
from usbgate.daemon import clock


class SystemClockTests(SynchronousTestCase):
    """
    With the kernel's word, and the time, given by the test.
    """

    def setUp(self) -> None:
        """
        A kernel that says the clock is right, at a moment after the release.
        """
        self.asked = 0
        self.synchronised = True
        self.now = clock.RELEASED + 1000
        self.seconds = 100.0
        self.patch(clock, "is_synchronised", self._ask)
        self.patch(time, "time_ns", lambda: self.now * 1_000_000 + 999_999)
        self.patch(time, "monotonic", lambda: self.seconds)
        self.clock = clock.SystemClock()

    def _ask(self) -> bool:
        self.asked += 1
        return self.synchronised

    def test_door(self) -> None:
        """
        It is a clock whose wall time is whole milliseconds.
        """
        verifyObject(IClock, self.clock)
        self.assertEqual(self.clock.wall(), self.now)

    def test_trusted(self) -> None:
        """
        It is trusted while the kernel calls it synchronised, and never before the day of the release.
        """
        self.assertTrue(self.clock.trusted())
        self.synchronised = False
        self.seconds += clock.TRUST_KEPT
        self.assertFalse(self.clock.trusted())
        self.synchronised = True
        self.now = 0
        self.seconds += clock.TRUST_KEPT
        self.assertFalse(self.clock.trusted())

    def test_asked_once_a_second(self) -> None:
        """
        However often it is looked at, the kernel is asked once a second.
        """
        for _ in range(1000):
            self.clock.trusted()
        self.assertEqual(self.asked, 1)

    def test_asked_when_it_stepped(self) -> None:
        """
        A clock that was set is not trusted for what the kernel said of it before.
        """
        self.assertTrue(self.clock.trusted())
        self.synchronised = False
        self.now += 10_000
        self.assertFalse(self.clock.trusted())
        self.synchronised = True
        self.now += 3600_000
        self.assertTrue(self.clock.trusted())

    def test_start_of_the_machine(self) -> None:
        """
        Every process is told the same of the start of the machine.
        """
        told = [clock.SystemClock() for _ in range(2)]
        self.assertEqual(told[0].boot(), told[1].boot())
        self.assertTrue(told[0].boot())
        first, second = told[0].uptime(), told[1].uptime()
        self.assertTrue(0 < first <= second < first + 60)

    def test_start_that_nobody_tells(self) -> None:
        """
        Where the kernel does not tell its start, each process has one of its own.
        """
        self.patch(clock, "BOOT_ID", "/nonexistent")
        told = clock.SystemClock()
        self.assertEqual(told.boot(), told.boot())
        self.assertNotEqual(told.boot(), clock.SystemClock().boot())
