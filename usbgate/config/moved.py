"""
Where the embedded database was moved to (`usbgate database move`): the file `database` in the state folder.
"""

from __future__ import annotations

import os
from pathlib import Path

from usbgate.config.types import ConfigError

MOVED_FILE = "database"  # the connection string, with the password, in UTF-8, in one line


def moved_database(state: Path) -> str | None:
    """
    Return the connection string of the database that has taken the place of the embedded one; None if it was not moved.

    Raises:
        ConfigError: The file cannot be read; without it, readings would be stored in the old place.
    """
    try:
        return (state / MOVED_FILE).read_text("utf-8").strip()
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        if not os.access(state, os.X_OK):
            return None  # another user's daemon: its database does not concern this one
        raise ConfigError(f"{state / MOVED_FILE}: {getattr(error, 'strerror', None) or 'not UTF-8'}") from None
