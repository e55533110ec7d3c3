"""
A log file of bounded size: twistd itself never deletes the files that it has rotated.
"""

from __future__ import annotations

import signal
from collections.abc import Mapping
from types import FrameType
from typing import Any

from twisted.logger import ILogObserver, textFileLogObserver
from twisted.python.logfile import LogFile

ROTATED = 9  # rotated files of 1 MB, besides the current one


def log_file(twistd: Mapping[str, Any]) -> str | None:
    """
    Return the path of the file to which twistd would log; None if it would log elsewhere.

    Args:
        twistd: Its options; empty if another program runs usbgate.
    """
    if not twistd or twistd.get("logger") or twistd.get("syslog"):
        return None
    path = twistd.get("logfile") or ("-" if twistd.get("nodaemon") else "twistd.log")
    return None if path == "-" else str(path)


def bounded_observer(path: str, reactor: Any) -> ILogObserver:
    """
    Return an observer that logs to a file as twistd does: it rotates the file at 1 MB and at SIGUSR1, but keeps only
    `ROTATED` old files.
    """
    file = LogFile.fromFullPath(path, maxRotatedFiles=ROTATED)

    def rotate(number: int, frame: FrameType | None) -> None:
        reactor.callFromThread(file.rotate)

    if signal.getsignal(signal.SIGUSR1) in (None, signal.SIG_DFL):
        signal.signal(signal.SIGUSR1, rotate)
    observer: ILogObserver = textFileLogObserver(file)
    return observer
