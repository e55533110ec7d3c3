"""
The log file of twistd, bounded: twistd itself keeps whatever it has ever rotated away.
"""

from __future__ import annotations

import signal
from collections.abc import Mapping
from types import FrameType
from typing import Any

from twisted.logger import ILogObserver, textFileLogObserver
from twisted.python.logfile import LogFile

ROTATED = 9  # files of 1 MB beside the one that is written to


def log_file(twistd: Mapping[str, Any]) -> str | None:
    """
    Return the file to which twistd would log; None where it would log elsewhere.

    Args:
        twistd: Its options; empty where it is not twistd that runs us.
    """
    if not twistd or twistd.get("logger") or twistd.get("syslog"):
        return None
    path = twistd.get("logfile") or ("-" if twistd.get("nodaemon") else "twistd.log")
    return None if path == "-" else str(path)


def bounded_observer(path: str, reactor: Any) -> ILogObserver:
    """
    Log to a file as twistd does, which rotates it at 1 MB and at a SIGUSR1; but only `ROTATED` of these are kept.
    """
    file = LogFile.fromFullPath(path, maxRotatedFiles=ROTATED)

    def rotate(number: int, frame: FrameType | None) -> None:
        reactor.callFromThread(file.rotate)

    if signal.getsignal(signal.SIGUSR1) in (None, signal.SIG_DFL):
        signal.signal(signal.SIGUSR1, rotate)
    observer: ILogObserver = textFileLogObserver(file)
    return observer
