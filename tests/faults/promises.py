"""
What was known to be safe before a daemon or a journal died, and what must be found afterwards.
"""

from __future__ import annotations

import os
import select
import sqlite3
import sys
import time
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from threading import Event, Thread

from tests.support.running import Answer, LineClient, PtyDevice, TwistdDaemon
from tests.support.waiting import eventually
from usbgate.core.fieldline import parse
from usbgate.core.model import Reading
from usbgate.store.journal.file import JournalFile

# A reading waits 50 ms for its commit (protocol §5). After twice that time the writer has it for sure; one commit may
# be in progress without it, so it is in the second one from there on.
WAIT = 0.1  # seconds
COMMITS = 2


class NumberingDevice(PtyDevice):
    """
    A device that sends numbers without end, `ID:1_N:…`, and answers requests.
    """

    def __init__(self, path: Path, answer: Answer = lambda fields: [], pause: float = 0.004, lines: int = 10) -> None:
        """
        Plug the device in.

        Args:
            path: The symlink to make.
            answer: See `PtyDevice`.
            pause: Seconds between two writes.
            lines: Numbers in each of them.
        """
        self.next = 1
        self._pause = pause
        self._lines = lines
        self._over = Event()
        super().__init__(path, answer)
        # Nobody may read for a while: then a write must not block the unplugging.
        os.set_blocking(self._master, False)
        self._talking = Thread(target=self._talk, daemon=True)
        self._talking.start()

    def unplug(self) -> None:
        """
        Unplug the device.
        """
        self._over.set()
        self._talking.join()
        super().unplug()

    def say(self, *lines: bytes) -> None:
        """
        Send lines, however long it takes.
        """
        with self._lock:
            data = b"".join(line + b"\n" for line in lines)
            while data and not self._over.is_set():
                if select.select([], [self._master], [], 0.1)[1]:
                    try:
                        data = data[os.write(self._master, data) :]
                    except BlockingIOError:  # less room than one thinks
                        time.sleep(0.01)

    def _talk(self) -> None:
        while not self._over.wait(self._pause):
            first = self.next
            self.next += self._lines
            self.say(*[b"ID:1_N:%d" % n for n in range(first, self.next)])


class Life:
    """
    One life of a daemon, and what is known of it.

    Attributes:
        first: The first number that it has read.
        mark: Numbers up to this one were read `WAIT` seconds and a commit ago, and so are in the journal.
        journal: The last `status` line about the journal.
    """

    def __init__(self, daemon: TwistdDaemon, device: NumberingDevice) -> None:
        """
        Wait until the daemon has opened the device.
        """
        self.client = LineClient(daemon.port)
        eventually(lambda: "_STATE:online_" in self.client.word("devices")[0], "the device is online")
        self.first = device.next
        self.mark = 0
        self.journal: dict[str, str] = {}
        self._read: list[tuple[float, int]] = []  # the newest number at a time
        self._handed: list[tuple[int, int]] = []  # the newest number, and the count of commits with which it is safe

    def record(self) -> bool:
        """
        Record the newest number; return whether the daemon still lives.
        """
        try:
            now = time.monotonic()
            newest = self.client.word("last 1 N")
            status = self.client.word("status")
        except OSError:
            return False
        if not (newest[-1].startswith("OK:") and status[-1].startswith("OK:")):
            return False
        [self.journal] = [fields for fields in map(parse, map(str.encode, status)) if "JOURNAL" in fields]
        commits = int(self.journal["COMMITS"])
        if newest[0].startswith("ID:"):
            self._read.append((now, int(parse(newest[0].encode())["N"])))
        while self._read and self._read[0][0] < now - WAIT:
            self._handed.append((self._read.pop(0)[1], commits + COMMITS))
        while self._handed and self._handed[0][1] <= commits:
            self.mark = self._handed.pop(0)[0]
        return True

    def under_load(self, numbers: int = 100) -> None:
        """
        Record numbers until so many are known to be safe, or the daemon is dead.
        """
        eventually(lambda: not self.record() or self.mark >= self.first + numbers, "the journal takes what is read")

    @property
    def promised(self) -> range:
        """
        The numbers that must be found.
        """
        return range(self.first, self.mark + 1)


def missing_from(promised: Iterable[range], found: Sequence[int]) -> list[int]:
    """
    Return the promised numbers that are missing; check that no number is doubled or out of order.
    """
    disordered = [pair for pair in pairwise(found) if pair[0] >= pair[1]]
    assert not disordered, f"doubled or out of order: {disordered[:10]}"
    there = set(found)
    return [n for numbers in promised for n in numbers if n not in there]


def check_whole(path: Path) -> None:
    """
    Check that the file of a journal is not damaged, and that none was set aside as damaged.
    """
    damaged = [found.name for found in path.parent.glob("*damaged*")]
    assert not damaged, damaged
    db = sqlite3.connect(path)
    try:
        assert db.execute("pragma integrity_check").fetchall() == [("ok",)]
    finally:
        db.close()


def missing_from_journal(path: Path, said: str) -> list[int]:
    """
    Open a journal again, check it, and return the rows that were on disk and are missing.

    Args:
        path: Its file.
        said: What `tests.faults.journalling` said.
    """
    notes = [line.split() for line in said.splitlines(keepends=True) if line.endswith("\n")]
    committed = max([int(record[2]) for record in notes if record[0] == "committed"], default=0)
    confirmed = max([int(record[1]) for record in notes if record[0] == "confirming"], default=0)
    file = JournalFile(path)
    file.open()
    try:
        batch, complete = file.read(0, sys.maxsize)
    finally:
        file.close()
    assert complete
    check_whole(path)
    numbers = [int(n) for n in batch.of(Reading)[0].split("\n")] if batch else []
    if batch is not None:  # the rows are what they were, under the numbers that they had
        assert [float(n) for n in numbers] == [float(value) for value in batch.of(Reading)[5].split("\n")]
        assert numbers[-1] == file.head.n, (numbers[-1], file.head.n)
    missing = missing_from([range(confirmed + 1, committed + 1)], numbers)
    # If its newest number were lost, it would assign that one again.
    return missing or list(range(file.head.n + 1, committed + 1))
