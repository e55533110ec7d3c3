"""
The count of bytes written to disk.
"""

from __future__ import annotations

import os
import random

from twisted.internet.task import Clock
from twisted.trial.unittest import SkipTest, SynchronousTestCase

from usbgate.store.journal.writerate import DAY, HOUR, WriteRate, bytes_to_disk


class WriteRateTests(SynchronousTestCase):
    """
    The rate over one day, with a manual clock.
    """

    def setUp(self) -> None:
        """
        Start with bytes written before.
        """
        self.clock = Clock()
        self.clock.advance(12_345)
        self.written = 1_000_000
        self.rate = WriteRate(lambda: self.written, self.clock.seconds)

    def write(self, count: int) -> None:
        """
        Write and sample.
        """
        self.written += count
        self.rate.sample()

    def test_first_day(self) -> None:
        """
        During the first day the rate is extrapolated, from one minute on.
        """
        self.assertEqual((self.rate.total, self.rate.daily), (0, 0))
        self.write(60)
        self.assertEqual((self.rate.total, self.rate.daily), (60, 86_400))
        self.clock.advance(60)
        self.assertEqual(self.rate.daily, 86_400)
        self.clock.advance(DAY / 2 - 60)
        self.written += 40
        self.assertEqual((self.rate.total, self.rate.daily), (100, 200))

    def test_steady(self) -> None:
        """
        A steady rate gives the same daily value at any moment, however often it is sampled.
        """
        for _ in range(40 * 60):
            self.clock.advance(60)
            self.write(100)
            if self.clock.seconds() - 12_345 > DAY:
                self.assertLessEqual(abs(self.rate.daily - 24 * 60 * 100), 101)
        self.assertEqual(self.rate.total, 40 * 60 * 100)

    def test_window(self) -> None:
        """
        Bytes written more than a day (and at most an hour) ago do not count; newer ones count exactly.
        """
        dice = random.Random(1)
        book: list[tuple[float, int]] = []
        for _ in range(2_000):
            self.clock.advance(dice.choice([1, 100, 10_000]))
            self.write(count := dice.choice([1, 1_000]))
            now = self.clock.seconds()
            book.append((now, count))
            if now - 12_345 >= DAY:
                least = sum(count for when, count in book if when > now - DAY + HOUR)
                most = sum(count for when, count in book if when >= now - DAY - HOUR)
                self.assertTrue(least <= self.rate.daily <= most, (least, self.rate.daily, most))

    def test_idle(self) -> None:
        """
        After a day without writes the daily value is 0.
        """
        self.write(5_000)
        self.clock.advance(20 * DAY)
        self.assertEqual((self.rate.daily, self.rate.total), (0, 5_000))

    def test_real_disk(self) -> None:
        """
        The process's own count grows with what is written to disk, by at least one page.
        """
        before = bytes_to_disk()
        path = self.mktemp()
        for _ in range(10):
            with open(path, "ab") as file:
                file.write(b"x")
                file.flush()
                os.fsync(file.fileno())
        if bytes_to_disk() == before:
            raise SkipTest("the files here are on no disk, or nobody counts")
        self.assertGreaterEqual(bytes_to_disk() - before, 10 * 4096)
