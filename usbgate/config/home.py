"""
The folders of whoever runs this. Light, so that a request to another machine can read them, too.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path


def own_folder(environ: Mapping[str, str], variable: str, usual: str) -> Path | None:
    """
    Return the folder of usbgate in one of the folders of this user (XDG Base Directory Specification); None if it is
    not known: a user without a name, as in a container, has no home folder unless `HOME` says so.

    Args:
        environ: The environment.
        variable: The variable that names that folder.
        usual: The folder below the home folder, if the variable does not.
    """
    folder = environ.get(variable)
    if not folder:
        home = environ.get("HOME") or os.path.expanduser("~")
        if not os.path.isabs(home):  # still `~`
            return None
        folder = os.path.join(home, usual)
    return Path(os.path.abspath(folder), "usbgate")


def config_folder(environ: Mapping[str, str]) -> Path | None:
    """
    Return the folder of the configuration, of a token and of a CA.
    """
    return own_folder(environ, "XDG_CONFIG_HOME", ".config")


def state_folder(environ: Mapping[str, str]) -> Path | None:
    """
    Return the state folder of a daemon that no system administrator has set up.
    """
    return own_folder(environ, "XDG_STATE_HOME", ".local/state")
