"""
The log, written beside the reactor: to files of bounded size, to standard output, or to syslog.

twistd writes each line at once, and stands still with all its clients where that takes long: on a pipe that nobody
reads any more, a terminal at Ctrl-S, a disk that hangs. It also never deletes the files that it has rotated.
"""

from __future__ import annotations

import atexit
import os
import select
import sys
import syslog
import time
from collections import deque
from collections.abc import Callable, Mapping
from functools import partial
from threading import Condition, Thread
from typing import Any

from twisted.logger import ILogObserver, LogEvent, Logger, formatEventAsClassicLogText
from twisted.python.logfile import LogFile
from zope.interface import implementer

from usbgate.core.display import shown_lines

ROTATED = 9  # rotated files of 1 MB, besides the current one

QUEUE_LIMIT = 1024 * 1024  # bytes that wait to be written: as much as a log file holds, some 10,000 lines

DRAIN_LIMIT = 1.0  # seconds that the end of the process waits for the last lines; the whole stop must take less than 5


def log_file(twistd: Mapping[str, Any]) -> str | None:
    """
    Return the path of the file to which twistd would log, or `-` for standard output; None if it would log elsewhere.

    Args:
        twistd: Its options; empty if another program runs usbgate.
    """
    if not twistd or twistd.get("logger") or twistd.get("syslog"):
        return None
    path = twistd.get("logfile") or ("-" if twistd.get("nodaemon") else "twistd.log")
    return None if path == "-" and not twistd.get("nodaemon") else str(path)  # twistd refuses that


def log_opener(twistd: Mapping[str, Any], reactor: Any) -> Callable[[], LogWriter] | None:
    """
    Return what opens the log that twistd's options ask for; None if it is not ours, but a `--logger` of the user.

    Args:
        twistd: Its options; empty if another program runs usbgate.
        reactor: When it has stopped, the last lines are waited for.
    """
    if twistd and twistd.get("syslog") and not twistd.get("logger"):
        return partial(_open_syslog, twistd.get("prefix") or "", reactor)
    path = log_file(twistd)
    return None if path is None else partial(open_log, path, reactor)


def open_log(path: str, reactor: Any) -> LogWriter:
    """
    Open the log as twistd does: a file is rotated at 1 MB, but only `ROTATED` old files are kept.

    Args:
        path: See `log_file`.
        reactor: See `log_opener`.
    """
    writer = LogWriter(_DescriptorWriter(sys.stdout.fileno())) if path == "-" else _open_file(path)
    return _finished(writer, reactor)


def _open_syslog(prefix: str, reactor: Any) -> LogWriter:
    """
    Open syslog, which waits where its daemon does not read.

    Args:
        prefix: Stands before each line.
        reactor: See `log_opener`.
    """
    syslog.openlog(prefix)
    return _finished(LogWriter(_write_syslog), reactor)


def _write_syslog(data: bytes) -> None:
    for line in data.decode().rstrip("\n").split("\n"):
        # syslog has a time of its own. A following line of one text is indented, and has none.
        syslog.syslog(line if line.startswith("\t") else line.partition(" ")[2])


def _finished(writer: LogWriter, reactor: Any) -> LogWriter:
    # twistd ends the process by a signal, which nothing registered by atexit survives.
    reactor.addSystemEventTrigger("after", "shutdown", writer.finish)
    return writer


def _open_file(path: str) -> LogWriter:
    # The umask does not say who may read it, since twistd sets one only when it detaches.
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640))
    file = LogFile.fromFullPath(path, maxRotatedFiles=ROTATED)
    return LogWriter(file.write, file.reopen)


class _DescriptorWriter:
    # Writes all of it, also where another program has made the terminal or pipe non-blocking.

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def __call__(self, data: bytes) -> None:
        while data:
            try:
                data = data[os.write(self._descriptor, data) :]
            except BlockingIOError:
                select.select([], [self._descriptor], [])


@implementer(ILogObserver)
class LogWriter:
    """
    Writes the log in a thread of its own. At most `QUEUE_LIMIT` bytes wait for that; lines beyond are dropped, and so
    are lines that can't be written. The log says how many as soon as it is written again.

    Before `start`, lines are written at once: twistd forks in between, and a thread would stay behind.
    """

    def __init__(self, write: Callable[[bytes], object], reopen: Callable[[], object] = lambda: None) -> None:
        """
        Args:
            write: Writes some lines; may block, or raise an OSError.
            reopen: Opens the file anew.
        """
        self._write = write
        self._reopen = reopen
        self._changed = Condition()  # reentrant: a signal's handler may log
        self._queue: deque[bytes] = deque()
        self._size = 0  # bytes of what is in the queue or being written
        self._dropped = 0  # lines for which there was no room, not logged yet
        self._must_reopen = False
        self._runs = False
        self._ends_at: float | None = None  # monotonic

    def start(self) -> None:
        """
        Write in a thread from now on.
        """
        self._runs = True
        Thread(target=self._run, name="log", daemon=True).start()
        atexit.register(self.finish)

    def finish(self) -> None:
        """
        Wait until everything is written, and from now on for each line: `DRAIN_LIMIT` in all, since the process ends.
        """
        if self._ends_at is None:
            self._ends_at = time.monotonic() + DRAIN_LIMIT
        self.drain(max(0.0, self._ends_at - time.monotonic()))

    def __call__(self, event: LogEvent) -> None:
        """
        Log an event; never waits between `start` and `finish`.
        """
        text = formatEventAsClassicLogText(event)
        if text is None:
            return
        line = shown_lines(text).encode("utf-8", "backslashreplace")
        with self._changed:
            # After a loss, half of the queue is emptied first: else each line would stand alone between two losses.
            limit = QUEUE_LIMIT // 2 if self._dropped else QUEUE_LIMIT
            if self._size + len(line) > limit:
                self._dropped += 1
                return
            if self._dropped:
                line = _loss(self._dropped) + line
                self._dropped = 0
            self._queue.append(line)
            self._size += len(line)
            self._changed.notify_all()
        if not self._runs:
            self._write_next(0)
        elif self._ends_at is not None:
            self.finish()

    def reopen(self) -> None:
        """
        Open the file anew before the next line.
        """
        with self._changed:
            self._must_reopen = True
            self._changed.notify_all()

    def drain(self, limit: float) -> bool:
        """
        Wait until everything is written.

        Args:
            limit: How many seconds to wait at most.

        Returns:
            Whether it is.
        """
        with self._changed:
            return self._changed.wait_for(lambda: not self._size, limit)

    def _run(self) -> None:
        failed = 0
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._queue or self._must_reopen)
            failed = self._write_next(failed)

    def _write_next(self, failed: int) -> int:
        # Reopen, or write the next line and what is to be said of lines before and behind it. Takes and returns how
        # many lines could not be written.
        with self._changed:
            must_reopen, self._must_reopen = self._must_reopen, False
            line = self._queue.popleft() if self._queue else b""
        if must_reopen:
            self._try(lambda: self._reopen())
        if not line:
            return failed
        is_written = self._try(lambda: self._write(_loss(failed) + line if failed else line))
        failed = 0 if is_written else failed + 1
        with self._changed:
            dropped = 0
            if is_written and not self._queue:
                dropped, self._dropped = self._dropped, 0
        if dropped and not self._try(lambda: self._write(_loss(dropped))):
            failed += dropped
        with self._changed:
            self._size -= len(line)
            self._changed.notify_all()
        return failed

    def _try(self, step: Callable[[], object]) -> bool:
        try:
            step()
        except OSError:  # the disk is full, or nobody reads the pipe any more
            return False
        return True


def _loss(lines: int) -> bytes:
    texts: list[str] = []

    @implementer(ILogObserver)
    def format_it(event: LogEvent) -> None:
        texts.append(formatEventAsClassicLogText(event) or "")

    Logger(observer=format_it).warn("{lines} lines of the log were dropped: it could not be written", lines=lines)
    return texts[0].encode()
