"""
Log lines that a stranger can cause.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from usbgate.core.loglimit import LOG_INTERVAL, LogLimit


class LogLimitTests(SynchronousTestCase):
    """
    Events at moments.
    """

    def test_once_a_minute(self) -> None:
        """
        The first event is logged at once; those of the next minute with the first one after it.
        """
        limit = LogLimit()
        moments = (5.0, 5.0, 5.0 + LOG_INTERVAL - 1, 5.0 + LOG_INTERVAL, 6.0 + LOG_INTERVAL)
        self.assertEqual([limit.add(now) for now in moments], [1, 0, 0, 3, 0])

    def test_many(self) -> None:
        """
        Several events at once count as so many.
        """
        limit = LogLimit()
        self.assertEqual([limit.add(0.0, 7), limit.add(1.0, 2), limit.add(LOG_INTERVAL, 1)], [7, 0, 3])
