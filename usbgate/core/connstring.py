"""
Connection strings of libpq, as far as they may hold a password: that belongs into no log, error or list of processes.
"""

from __future__ import annotations

import re
from urllib.parse import unquote

# The parts of a URL behind `://`, as libpq cuts it: a password may hold `?` and `#`, but neither `@` nor `/`.
_PARTS = re.compile(
    r"(?:[^:@/]*(?::(?P<password>[^@/]*))?@)?(?P<hosts>[^/?]*)(?:/(?P<name>[^?]*))?(?:\?(?P<options>.*))?", re.DOTALL
)
_IN_OPTIONS = re.compile(r"(?:^|&)(?:ssl)?password=", re.IGNORECASE)
_IN_WORDS = re.compile(r"\b(?:ssl)?password\s*=", re.IGNORECASE)

_BAD_PERCENT = re.compile("%(?![0-9A-Fa-f]{2})|%00")
_BRACKETS = re.compile(r"[^\[\]]*|(\[[0-9A-Fa-f:.%]+\](:[^\[\]]*)?,?)+")
_PORT = re.compile(r":([^\],]*)(?:,|$)")

NO_PASSWORD = (
    "has a password, which every user of this machine can read in the list of processes: put it into ~/.pgpass or the "
    "environment (PGPASSWORD, PGPASSFILE)"
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
    if not is_url(text):
        return bool(_IN_WORDS.search(text))
    parts = _parts(text)
    # An `@` that stands too far behind ends a password with an `@` or a `/` in it.
    late = "@" in (parts["hosts"] or "") + (parts["name"] or "")
    return bool(parts["password"]) or late or bool(_IN_OPTIONS.search(unquote(parts["options"] or "")))


def check_url(text: str) -> None:
    """
    Check what libpq would quote in its errors, with the password in it.

    Raises:
        ValueError: A `%`, a bracket, an `@` or a port is wrong; the text has nothing of the URL.
    """
    if _BAD_PERCENT.search(text):
        raise ValueError("a % that two hexadecimal digits do not follow; a % itself is %25")
    parts = _parts(text)
    if "@" in (parts["hosts"] or "") + (parts["name"] or ""):
        raise ValueError("an @ behind the first @ or /; in a password, @ is %40 and / is %2F")
    if not _BRACKETS.fullmatch(parts["hosts"]):
        raise ValueError("a bracket that is not around an IPv6 address; one in a password is %5B or %5D")
    if any(port.strip("0123456789") for port in _PORT.findall(parts["hosts"])):
        raise ValueError("a port that is not a number; a / in a password is %2F")


def _parts(url: str) -> re.Match[str]:
    parts = _PARTS.fullmatch(url.partition("://")[2])
    assert parts is not None  # every text matches
    return parts
