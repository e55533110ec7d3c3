"""
The replacements of sensors in the state folder, so that a restart finds them while the database is away.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger

from usbgate.core.replacements import Replacement
from usbgate.daemon.files import replace_file

FILE = "replacements.json"


class ReplacementFile:
    """
    Keeps replacements in a file.
    """

    log = Logger()

    def __init__(self, reactor: Any, folder: Path) -> None:
        """
        Args:
            reactor: Has the thread that waits for the disk.
            folder: The state folder.
        """
        self._reactor = reactor
        self._path = folder / FILE

    def load(self) -> list[Replacement] | None:
        """
        Return what was kept; None if there is no file, or none that can be read, which is logged.
        """
        try:
            return msgspec.json.decode(self._path.read_bytes(), type=list[Replacement])
        except FileNotFoundError:
            return None
        except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
            self.log.error(
                "{path} cannot be read: {reason}; which sensors were replaced is looked up in the database",
                path=self._path,
                reason=str(error),
            )
            return None

    def keep(self, replacements: Sequence[Replacement]) -> Deferred[None]:
        """
        Put other replacements in the place of those that were kept, whole or not at all.

        Returns:
            Fires when they are on disk; fails with an OSError.
        """
        data = msgspec.json.format(msgspec.json.encode(list(replacements))) + b"\n"
        return deferToThreadPool(self._reactor, self._reactor.getThreadPool(), replace_file, self._path, data)
