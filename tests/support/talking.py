"""
A device on a pty that sends the same again and again, in a thread, for a command that runs in this one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread

from tests.support.running import PtyDevice


@contextmanager
def talking(path: Path, data: bytes | Callable[[], bytes], every: float = 0.02) -> Iterator[PtyDevice]:
    """
    Plug it in.

    Args:
        path: The symlink to make.
        data: What it sends, or what returns that.
        every: Seconds between two times.
    """
    device = PtyDevice(path)
    over = Event()

    def talk() -> None:
        while not over.wait(every):
            device.pour(data if isinstance(data, bytes) else data())

    thread = Thread(target=talk)
    thread.start()
    try:
        yield device
    finally:
        over.set()
        thread.join()
        device.unplug()
