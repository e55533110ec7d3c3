"""
What Twisted keeps beside a Unix socket, `PATH.lock`, after a power cut: the process that it names may be anybody's by
now, in a container even our own, and Twisted would never listen there again.
"""

from __future__ import annotations

import os
import socket
import stat
from contextlib import suppress

from twisted.logger import Logger

log = Logger()


def remove_stale_lock(path: str) -> None:
    """
    Remove a Unix socket and its lock if nobody listens there. To be called before Twisted listens there.

    Args:
        path: The path of the socket; there may be none.
    """
    lock = f"{path}.lock"
    if not os.path.islink(lock) or _is_used(path):
        return
    with suppress(OSError):  # it is another user's, and Twisted says what is wrong with it
        owner = os.readlink(lock)
        with suppress(FileNotFoundError):
            if stat.S_ISSOCK(os.lstat(path).st_mode):
                os.unlink(path)
        os.unlink(lock)
        log.info("removed the lock {lock} of process {owner}: nobody listens there", lock=lock, owner=owner)


def _is_used(path: str) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC) as probe:
        try:
            probe.connect(path)
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        except OSError:  # who listens there is busy, or lets us not connect
            return True
    return True
