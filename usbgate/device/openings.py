"""
Noticing that another program opens or closes a file, by inotify.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

from twisted.internet.inotify import IN_CLOSE, IN_OPEN, INotify
from twisted.internet.protocol import connectionDone
from twisted.python._inotify import INotifyError
from twisted.python.filepath import FilePath


class Openings:
    """
    Watches one file from its creation to `stop`. Where the system allows no more watches, it notices nothing.
    """

    def __init__(self, reactor: Any, path: str, changed: Callable[[], None]) -> None:
        """
        Args:
            reactor: Must provide `IReactorFDSet`.
            path: The file; a symlink is followed.
            changed: Called when it was opened or closed.
        """
        self._notify: INotify | None = None
        with suppress(OSError, INotifyError):
            notify = INotify(reactor)
            try:
                notify.watch(FilePath(path), IN_OPEN | IN_CLOSE, callbacks=[lambda *event: changed()])
            except BaseException:
                notify.connectionLost(connectionDone)
                raise
            notify.startReading()
            self._notify = notify

    def stop(self) -> None:
        """
        Stop watching.
        """
        notify, self._notify = self._notify, None
        if notify is not None:
            notify.connectionLost(connectionDone)
