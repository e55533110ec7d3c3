"""
The log beside the reactor; that its files are bounded is shown by a daemon in `tests.daemon.test_end_to_end`.
"""

from __future__ import annotations

import os
import re
import sys
import syslog
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, get_ident

from twisted.internet.testing import MemoryReactorClock
from twisted.logger import Logger
from twisted.trial.unittest import SynchronousTestCase

from tests.support.waiting import LIMIT, eventually
from usbgate.daemon.logfile import DRAIN_LIMIT, QUEUE_LIMIT, LogWriter, log_file, log_opener, open_log

# What twistd was told, and the file to which it then logs.
CASES: list[tuple[dict[str, object], str | None]] = [
    ({}, None),
    ({"nodaemon": True}, "-"),
    ({"nodaemon": True, "logfile": "-"}, "-"),
    ({"nodaemon": False, "logfile": "-"}, None),
    ({"nodaemon": True, "logfile": "/x/log"}, "/x/log"),
    ({"nodaemon": False, "logfile": None}, "twistd.log"),
    ({"nodaemon": False, "logfile": "log"}, "log"),
    ({"nodaemon": False, "syslog": True, "logfile": "log"}, None),
    ({"nodaemon": False, "logger": print, "logfile": "log"}, None),
]


class LogFileTests(SynchronousTestCase):
    """
    A table.
    """

    def test_cases(self) -> None:
        """
        The file or the standard output to which twistd itself would log is ours, and nothing else.
        """
        for options, expected in CASES:
            self.assertEqual(log_file(options), expected, options)


class FileTests(SynchronousTestCase):
    """
    The file of the log.
    """

    def test_mode(self) -> None:
        """
        Others can't read it, whatever the umask; a file that is there keeps its mode.
        """
        self.addCleanup(os.umask, os.umask(0))
        path = Path(self.mktemp())
        for mode in (0o640, 0o600):
            open_log(str(path), MemoryReactorClock())
            self.assertEqual(path.stat().st_mode & 0o777, mode)
            path.chmod(0o600)


class SyslogTests(SynchronousTestCase):
    """
    `twistd --syslog`, with calls of syslog(3) recorded.
    """

    def test_lines(self) -> None:
        """
        Each line of an event is sent with its namespace and without its time, in a thread of its own.
        """
        sent: list[tuple[str, int]] = []
        opened: list[str] = []
        third = Event()

        def send(line: str) -> None:
            sent.append((line, get_ident()))
            if len(sent) == 3:
                third.set()

        self.patch(syslog, "openlog", opened.append)
        self.patch(syslog, "syslog", send)
        opener = log_opener({"nodaemon": True, "syslog": True, "prefix": "gate"}, MemoryReactorClock())
        assert opener is not None
        writer = opener()
        writer.start()
        Logger(namespace="test", observer=writer).info("one\ntwo")
        Logger(namespace="test", observer=writer).info("three")
        self.assertTrue(third.wait(LIMIT))
        self.assertEqual(opened, ["gate"])
        self.assertEqual([line for line, _ in sent], ["[test#info] one", "\ttwo", "[test#info] three"])
        self.assertNotIn(get_ident(), {thread for _, thread in sent})

    def test_logger(self) -> None:
        """
        A logger of the user's own is left alone.
        """
        self.assertIsNone(log_opener({"nodaemon": True, "syslog": True, "logger": print}, MemoryReactorClock()))


class Disk:
    """
    Where a log is written: it can hang, and it can be full.
    """

    def __init__(self) -> None:
        self.written: list[str] = []
        self.threads: set[int] = set()
        self.reached = Event()  # a write has begun
        self.works = Event()
        self.works.set()
        self.is_full = False
        self.writer = LogWriter(self.write, lambda: self.written.append("reopened"))
        self.log = Logger(namespace="test", observer=self.writer)

    def write(self, data: bytes) -> None:
        """
        Write, as soon as the disk works.
        """
        self.reached.set()
        self.works.wait()
        if self.is_full:
            raise OSError(28, "No space left on device")
        self.threads.add(get_ident())
        self.written += data.decode().splitlines()

    @contextmanager
    def hanging(self) -> Iterator[None]:
        """
        Hang, with one line that was being written.
        """
        self.reached.clear()
        self.works.clear()
        self.log.info("being written")
        self.reached.wait(LIMIT)
        yield
        self.works.set()

    def texts(self) -> list[str]:
        """
        Return what was written, without times, once all is.
        """
        assert self.writer.drain(LIMIT)
        return [re.sub(r"^.*?\] ", "", line) for line in self.written]


class LogWriterTests(SynchronousTestCase):
    """
    A log whose disk hangs or is full.
    """

    def setUp(self) -> None:
        """
        Make the log.
        """
        self.disk = Disk()
        self.log = self.disk.log

    def test_before_start(self) -> None:
        """
        Until it is started, and no thread may run, lines are written at once; afterwards in another thread, in order.
        """
        self.log.info("one")
        self.log.info("two")
        self.assertEqual((len(self.disk.written), self.disk.threads), (2, {get_ident()}))
        self.disk.threads.clear()
        self.disk.writer.start()
        for n in range(100):
            self.log.info("{n}", n=n)
        self.assertEqual(self.disk.texts(), ["one", "two", *map(str, range(100))])
        self.assertEqual(len(self.disk.threads - {get_ident()}), 1)

    def test_hangs(self) -> None:
        """
        While the disk hangs, logging does not wait. As many lines as have room are kept, in order; the number of the
        others is logged behind them.
        """
        self.disk.writer.start()
        count = 3 * QUEUE_LIMIT // 1000
        with self.disk.hanging():
            for n in range(count):
                self.log.info("{n}", n=str(n).ljust(1000, "."))
            self.assertFalse(self.disk.writer.drain(0.01))
        first, *lines, last = self.disk.texts()
        self.assertEqual(first, "being written")
        self.assertEqual([line.rstrip(".") for line in lines], [str(n) for n in range(len(lines))])
        self.assertEqual(last, f"{count - len(lines)} lines of the log were dropped: it could not be written")
        self.assertTrue(0.9 * QUEUE_LIMIT < sum(len(line) for line in lines) < QUEUE_LIMIT, len(lines))
        self.log.info("again")
        self.assertEqual(self.disk.texts()[-2:], [last, "again"])

    def test_slow(self) -> None:
        """
        While the disk is too slow for all lines, losses are rare and long rather than between any two lines; each line
        is written or counted.
        """
        self.disk.writer.start()
        count, text = 0, "x" * 10_000
        for _ in range(5):
            with self.disk.hanging():
                for _ in range(200):
                    self.log.info(text)
                    count += 1
            count += 1
            eventually(lambda: self.disk.writer.drain(0), "it is written")
        texts = self.disk.texts()
        losses = [int(each.split()[0]) for each in texts if "dropped" in each]
        self.assertEqual(len(losses), 5)
        self.assertEqual(len(texts) - 5 + sum(losses), count)

    def test_full(self) -> None:
        """
        Lines that a full disk does not take are counted, and their number is logged before the next line that it takes.
        """
        self.disk.writer.start()
        self.log.info("one")
        self.assertEqual(self.disk.texts(), ["one"])
        self.disk.is_full = True
        for _ in range(7):
            self.log.info("lost")
        self.assertTrue(self.disk.writer.drain(LIMIT))
        self.disk.is_full = False
        self.log.info("two")
        self.assertEqual(self.disk.texts(), ["one", "7 lines of the log were dropped: it could not be written", "two"])

    def test_finish(self) -> None:
        """
        At the end of the process the last lines are waited for, but not for long, however many there are.
        """
        self.disk.writer.start()
        with self.disk.hanging():
            begun = time.monotonic()
            self.disk.writer.finish()
            for _ in range(100):
                self.log.info("late")
            self.assertTrue(DRAIN_LIMIT * 0.9 < time.monotonic() - begun < 30 * DRAIN_LIMIT)
        self.assertEqual(self.disk.texts(), ["being written", *["late"] * 100])
        disk = Disk()
        disk.writer.start()
        disk.writer.finish()
        for n in range(10):
            disk.log.info("{n}", n=n)
            self.assertEqual(len(disk.written), n + 1)

    def test_reopen(self) -> None:
        """
        Reopening does not wait for a disk that hangs either.
        """
        self.disk.writer.start()
        with self.disk.hanging():
            self.disk.writer.reopen()
            self.log.info("behind")
        self.assertEqual(self.disk.texts(), ["being written", "reopened", "behind"])

    def test_pipe(self) -> None:
        """
        A pipe gets whole lines, also one that another program has made non-blocking.
        """
        for blocking in (True, False):
            end, way_in = os.pipe()
            os.set_blocking(way_in, blocking)
            with os.fdopen(way_in, "w") as file, os.fdopen(end, "rb") as pipe:
                self.patch(sys, "stdout", file)
                writer = open_log("-", MemoryReactorClock())
                writer.start()
                log = Logger(namespace="test", observer=writer)
                for n in range(100):
                    log.info("{n}", n=str(n).ljust(10_000, "."))
                for n in range(100):
                    line = pipe.readline().decode()
                    self.assertRegex(line, rf"\] {n}\.+\n$")
                    self.assertGreater(len(line), 10_000)

    def test_unseen(self) -> None:
        """
        Nothing in the log commands a terminal, or is not seen.
        """
        written: list[bytes] = []
        Logger(observer=LogWriter(written.append)).info("a{b}", b="\x1b[2J\u202e")
        self.assertTrue(b"".join(written).endswith(rb" a\x1b[2J\u202e" + b"\n"), written)

    def test_any_text(self) -> None:
        """
        Text that is not Unicode is written, escaped.
        """
        path = Path(self.mktemp())
        writer = open_log(str(path), MemoryReactorClock())
        Logger(namespace="test", observer=writer).info("{text}", text="\udcff\nü")
        self.assertTrue(path.read_bytes().endswith("] \\udcff\n\tü\n".encode()), path.read_bytes())
