"""
What to install for parts that need further packages. usbgate itself is on no package index, so `usbgate[tls]` would be
somebody else's.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence

# What the extra `tls` of usbgate requires.
TLS: Sequence[str] = ("twisted[tls] >= 24.11", "pyopenssl >= 24.3", "cryptography >= 42")

# What the extra `nmea` requires.
NMEA: Sequence[str] = ("pynmeagps >= 1.1",)

# What the extra `regex` requires.
REGEX: Sequence[str] = ("google-re2 >= 1.1",)


def install_command(packages: Sequence[str]) -> str:
    """
    Return the command that installs packages where usbgate is installed.
    """
    return shlex.join([sys.executable, "-m", "pip", "install", *packages])
