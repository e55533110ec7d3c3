"""
The count of what goes to the disk.
"""

from __future__ import annotations

import os
import random

from twisted.internet.task import Clock
from twisted.trial.unittest import SkipTest, SynchronousTestCase

from usbgate.store.journal.writerate import DAY, HOUR, WriteRate, bytes_to_disk


class DiskWearTests(SynchronousTestCase):
    """
    A day, by numbers.
    """

    def setUp(self) -> None:
        """
        Begin with something that was written before.
        """
        self.clock = Clock()
        self.clock.advance(12_345)
        self.written = 1_000_000
        self.wear = WriteRate(lambda: self.written, self.clock.seconds)

    def write(self, count: int) -> None:
        """
        Write, and take note of it.
        """
        self.written += count
        self.wear.sample()

    def test_first_day(self) -> None:
        """
        Before a day is over it is extrapolated, from a minute on.
        """
        self.assertEqual((self.wear.total, self.wear.daily), (0, 0))
        self.write(60)
        self.assertEqual((self.wear.total, self.wear.daily), (60, 86_400))
        self.clock.advance(60)
        self.assertEqual(self.wear.daily, 86_400)
        self.clock.advance(DAY / 2 - 60)
        self.written += 40
        self.assertEqual((self.wear.total, self.wear.daily), (100, 200))

    def test_steady(self) -> None:
        """
        What is written steadily is as much a day at any moment, however often one looks.
        """
        for _ in range(40 * 60):
            self.clock.advance(60)
            self.write(100)
            if self.clock.seconds() - 12_345 > DAY:
                self.assertLessEqual(abs(self.wear.daily - 24 * 60 * 100), 101)
        self.assertEqual(self.wear.total, 40 * 60 * 100)

    def test_window(self) -> None:
        """
        What was written more than a day ago, and an hour for the rounding, is not counted; what came since is, exactly.
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
                self.assertTrue(least <= self.wear.daily <= most, (least, self.wear.daily, most))

    def test_idle(self) -> None:
        """
        Where nothing is written nothing remains of an older day.
        """
        self.write(5_000)
        self.clock.advance(20 * DAY)
        self.assertEqual((self.wear.daily, self.wear.total), (0, 5_000))

    def test_real_disk(self) -> None:
        """
        The process's own count grows by what is sent to the disk, a page at the least.
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
