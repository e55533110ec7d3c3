"""
Links in place of our files: in a folder that others can write to, they lead root to any file of the machine.
"""

from __future__ import annotations

import os
import pwd
from pathlib import Path


def foreign_link(path: Path) -> str | None:
    """
    Return why a file or folder must not be used: it is a link that another user made, neither root nor the daemon's.
    None if there is no such reason.
    """
    try:
        found = path.lstat()
    except OSError:
        return None
    if not path.is_symlink() or found.st_uid in (0, os.geteuid()):
        return None
    try:
        owner = pwd.getpwuid(found.st_uid).pw_name
    except KeyError:
        owner = str(found.st_uid)
    return f"{path} is a link that another user, {owner}, has made: remove it"
