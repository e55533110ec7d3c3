"""
Connection strings of libpq, as far as they may hold a password: that belongs into no log, error or list of processes.
"""

from __future__ import annotations

import re

_IN_URL = re.compile(r"postgres(?:ql)?://(?:[^/?#@]*:[^/?#]+@|.*[?&](?:ssl)?password=)", re.IGNORECASE | re.DOTALL)
_IN_WORDS = re.compile(r"\b(?:ssl)?password\s*=", re.IGNORECASE)

_BAD_PERCENT = re.compile("%(?![0-9A-Fa-f]{2})")

NO_PASSWORD = (
    "has a password, which every user of this machine can read in the list of processes: put it into ~/.pgpass, the "
    "environment (PGPASSWORD, PGPASSFILE), or the configuration (`url` and `password_file` of "
    "[database])"
)


def is_url(text: str) -> bool:
    """
    Return whether a connection string is a URL, and not in the `key=value` form.
    """
    return text.startswith(("postgresql://", "postgres://"))


def has_password(text: str) -> bool:
    """
    Return whether a connection string, however malformed, may hold a password.
    """
    return bool(_IN_URL.match(text) if is_url(text) else _IN_WORDS.search(text))


def check_url(text: str) -> None:
    """
    Check what libpq would quote in its errors, with the password in it.

    Raises:
        ValueError: A `%` or a bracket is wrong; the text has nothing of the URL.
    """
    if _BAD_PERCENT.search(text):
        raise ValueError("a % that two hexadecimal digits do not follow; a % itself is %25")
    host = text.partition("://")[2].partition("?")[0].rpartition("@")[2].partition("/")[0]
    if not re.fullmatch(r"[^\[\]]*|(\[[0-9A-Fa-f:.%]+\](:[0-9]*)?,?)+", host):
        raise ValueError("a bracket that is not around an IPv6 address; one in a password is %5B or %5D")
