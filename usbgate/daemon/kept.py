"""
Small tables that outlive restarts: each is a file of JSON in the state folder.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, MutableMapping
from pathlib import Path

from twisted.logger import Logger

from usbgate.daemon.files import replace_file


class KeptTable(MutableMapping[str, str]):
    """
    A table of texts that is on disk when a change of it returns. It is read when it is first used.

    To write it takes some milliseconds, 30 on a slow SD card, so it is for what rarely changes.
    """

    log = Logger()

    def __init__(self, file: Path) -> None:
        """
        Args:
            file: The file; it and its folder may be missing.
        """
        self._file = file
        self._items: dict[str, str] | None = None

    def __getitem__(self, key: str) -> str:
        return self._read()[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._read())

    def __len__(self) -> int:
        return len(self._read())

    def __setitem__(self, key: str, value: str) -> None:
        if self._read().get(key) != value:
            self._read()[key] = value
            self._write()

    def __delitem__(self, key: str) -> None:
        del self._read()[key]
        self._write()

    def _read(self) -> dict[str, str]:
        if self._items is None:
            self._items = {}
            try:
                found = json.loads(self._file.read_bytes())
                self._items = {str(key): str(value) for key, value in found.items()}
            except FileNotFoundError:
                pass
            except (OSError, ValueError, AttributeError) as error:
                self.log.error("{file} cannot be read, and is replaced: {error}", file=self._file, error=str(error))
        return self._items

    def _write(self) -> None:
        try:
            self._file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            replace_file(self._file, json.dumps(self._items, ensure_ascii=False, indent=1).encode())
        except OSError as error:  # what changed holds until usbgate stops
            self.log.error("{file} cannot be written: {reason}", file=self._file, reason=error.strerror or str(error))
